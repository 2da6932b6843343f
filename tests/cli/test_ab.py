"""`xpo-bench compare --ab` from the shell: exit statuses, one-line errors, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Fake = Callable[..., Path]
AB = ("compare", "--ab")
FEW = ("--algos", "dpo", "--workloads", "table")


def test_equal_sides_are_status_0_with_table_and_progress(fake: Fake, warm: Callable[..., Any]) -> None:
    fake("old", noise=0.03)
    fake("new", noise=0.03)
    done = warm(*AB, "old", "new")
    assert done.code == 0, done.err
    for text in (
        "dpo on table",
        "ipo on language",
        "pass",
        "4 comparisons",
        "smallest ratio",
        "old (python 3",
    ):
        assert text in " ".join(done.out.split())
    assert "pair 8 of 8" in done.err


def test_a_regression_is_status_3_and_its_document_has_every_block(
    fake: Fake, warm: Callable[..., Any]
) -> None:
    fake("old", noise=0.01)
    fake("new", step_s=1.2e-3, noise=0.01)
    done = warm(*AB, "old", "new", *FEW, "--json", "--quiet", "--md", "compare.md")
    assert done.code == 3, done.err
    assert not done.err
    assert done.json["verdict"] == "regression"
    (row,) = done.json["rows"]
    assert len(row["pairs"]) == len(row["confirmation_pairs"]) == 8
    assert all(len(pair[side]) == 12 for pair in row["pairs"] for side in ("old", "new"))
    assert row["test"]["estimate"] == pytest.approx(1.2, abs=0.03)


def test_markdown_for_a_pull_request(fake: Fake, warm: Callable[..., Any], tmp_path: Path) -> None:
    fake("old")
    fake("new", step_s=1.2e-3)
    done = warm(*AB, "old", "new", *FEW, "--quiet", "--md", "-")
    assert done.code == 3
    assert done.out.startswith("# xpo-bench compare --ab: REGRESSION\n")
    assert "| dpo on table | REGRESSION | 1.200 |" in done.out
    assert warm(*AB, "old", "new", *FEW, "--quiet", "--md", "compare.md").code == 3
    assert (tmp_path / "compare.md").read_text("utf-8").startswith("# xpo-bench compare")


def test_noise_is_status_4_and_says_what_could_have_been_seen(fake: Fake, warm: Callable[..., Any]) -> None:
    fake("old", process_noise=0.6)
    fake("new", process_noise=0.6)
    done = warm(*AB, "old", "new", *FEW)
    assert done.code == 4
    assert "inconclusive" in done.out
    assert "nothing is decided" in " ".join(done.out.split())


def test_a_dead_process_is_status_4_in_one_line(fake: Fake, warm: Callable[..., Any]) -> None:
    fake("old")
    fake("new", fault="exits")
    done = warm(*AB, "old", "new", *FEW, "--quiet")
    assert done.code == 4
    assert done.lines == ["xpo-bench: NEW (new): the measuring process ended with status 7: out of luck"]
    assert not done.out


def test_an_environment_without_the_suite_is_status_2_in_one_line(
    fake: Fake, warm: Callable[..., Any], tmp_path: Path
) -> None:
    venv.EnvBuilder(with_pip=False, symlinks=True).create(tmp_path / "empty")
    fake("new")
    done = warm(*AB, "empty", "new", *FEW, "--quiet")
    assert done.code == 2
    (line,) = done.lines
    assert line.startswith("xpo-bench: OLD (empty): ")
    assert "must have xpo_bench installed" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("old", "no-such-revision"), "no-such-revision: want a virtual environment"),
        (("old", "new", "--workloads", "tabel"), "did you mean 'table'"),
        (("old", "new", "--algos", ","), "nothing to compare"),
        (("old", "new", "--md", "missing/file.md"), "--md missing/file.md: cannot be written"),
        (("old", "new", "--json", "--md", "-"), "both write to stdout"),
        (("old", "new", "--blocks", "3"), "--blocks"),
        (("old", "new", "--device", "cuda:99"), "cuda:99"),
    ],
)
def test_mistakes_are_status_2_in_one_line(
    fake: Fake, warm: Callable[..., Any], words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    fake("old")
    fake("new")
    done = warm(*AB, *words, GIT_CEILING_DIRECTORIES=str(tmp_path.parent))
    assert done.code == 2
    (line,) = done.lines
    assert said in line
    assert not (tmp_path / "asked.log").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_leaves_no_process_and_no_file(
    fake: Fake, variables: Callable[..., dict[str, str]], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    fake("old", fault="hangs")
    fake("new")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = Path(sys.executable).parent / "xpo-bench"
    process = subprocess.Popen(
        [command, *AB, "old", "new", *FEW],
        cwd=tmp_path,
        env=variables({"TMPDIR": str(temporary)}),
        stderr=subprocess.PIPE,
    )
    pids = until(lambda: measured(tmp_path))
    assert any(temporary.iterdir())
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert said.decode().splitlines()[-1] == "xpo-bench: interrupted: no result was saved"
    assert not any(temporary.iterdir())
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def measured(folder: Path) -> set[int]:
    """The two processes, once one of them hangs in its third block."""
    log = folder / "asked.log"
    lines = [line.split() for line in log.read_text("utf-8").splitlines()] if log.exists() else []
    hanging = sum(name == "old" and event == "block" for name, _, event in lines) == 3
    return {int(pid) for _, pid, _ in lines} if hanging else set()


def until(found: Callable[[], set[int]]) -> set[int]:
    for _ in range(600):
        if pids := found():
            return pids
        time.sleep(0.1)
    raise AssertionError("nothing was measured in a minute")
