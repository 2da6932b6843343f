"""`xpo-bench report` through the installed command."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path
from re import findall, sub
from typing import Any

import pytest
from commands import Warm
from runs import SMALL

from xpo_bench.version import __version__

Command = Callable[..., Any]
RUN = (
    "run",
    "--algos",
    "dpo,ipo",
    "--tasks",
    "deterministic",
    "--steps",
    "20",
    "--seeds",
    "2",
    "--out",
    "r",
    "--quiet",
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, warm_process: Warm) -> Path:
    """The run directory of that command."""
    folder = tmp_path_factory.mktemp("report")
    assert warm_process.command(folder, {})(*RUN).code == 0
    return folder / "r"


@pytest.fixture
def r(ran: Path, tmp_path: Path) -> Path:
    """A copy of it, called `r` as it is."""
    return Path(shutil.copytree(ran, tmp_path / "r"))


@pytest.mark.usefixtures("r")
def test_a_run_has_a_report(warm: Command, tmp_path: Path) -> None:
    done = warm("report", "r", "--html", "page.html", "--md", "page.md")
    assert done.code == 0, done.err
    assert done.out == ""
    assert [line.split(" (")[0] for line in done.lines] == [
        "xpo-bench: wrote page.html",
        "xpo-bench: wrote page.md",
    ]
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert (tmp_path / "page.md").read_text("utf-8").startswith("# xpo-bench: r\n")
    assert warm("report", "r").code == 0
    assert (tmp_path / "r" / "report.html").read_text("utf-8") == page
    assert warm("report", "r", "--md", "-").out == (tmp_path / "page.md").read_text("utf-8")
    assert warm("report", "r", "--latex", "tables.tex", "--baseline", "ipo").code == 0
    tables = (tmp_path / "tables.tex").read_text("utf-8")
    assert tables.startswith(
        f"% xpo-bench {__version__}: xpo-bench report r --baseline ipo --latex tables.tex\n"
    )
    assert "% the run: xpo-bench run --algos dpo,ipo" in tables
    assert r"\paragraph{Against ipo}" in tables
    shown = warm("report", "r", "--latex", "-", "--baseline", "ipo").out
    assert shown.splitlines()[1:] == tables.splitlines()[1:]
    assert not list(tmp_path.glob("**/.*.tmp"))
    assert warm("show", "r").code == 0  # the page is no record


@pytest.mark.usefixtures("r")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing"], "missing: not a run directory"),
        (["empty"], "empty: holds no finished cell yet"),
        (["r", "--html", "no/such/page.html"], "--html no/such/page.html: cannot be written"),
        (["r", "--md", "r"], "--md r: cannot be written"),
        (["r", "--latex", "no/such/tables.tex"], "--latex no/such/tables.tex: cannot be written"),
        (["r", "--md", "-", "--latex", "-"], "--md - --latex -: only one of them can go to stdout"),
        (["r", "--html", "-"], "--html -: a page goes to a file"),
        ([], "Missing argument 'RUN'"),
    ],
)
def test_what_cannot_be_is_one_line(warm: Command, tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "empty" / "cells").mkdir(parents=True)
    done = warm("report", *words)
    assert (done.code, done.out, len(done.lines)) == (2, "", 1), done.err
    assert message in done.err
    assert not list(tmp_path.glob("**/*.html"))


@pytest.mark.parametrize(
    "words",
    [
        [
            "--algos",
            "dpo,kto,rso",
            "--tasks",
            "bandit",
            "--set",
            "dpo.beta=0.05,0.5",
            "--set",
            "task.coverage=0.5",
            "--steps",
            "5",
        ],
        [
            "--algos",
            "dpo,ipo",
            "--tasks",
            "travel",
            "--model",
            "linear:2",
            "--lr",
            "0.02",
            "--label-noise",
            "0.1",
            "--steps",
            "5",
        ],
        [
            "--algos",
            "ipo",
            "--data",
            "d.jsonl",
            "--rows",
            "3",
            "--heldout",
            "0.3",
            "--split-by",
            "row",
            "--optimizer",
            "sgd",
            "--steps",
            "5",
        ],
        [
            "--algos",
            "dpo",
            "--data",
            "d.jsonl",
            "--model",
            "tiny",
            "--steps",
            "2",
            "--set",
            "dpo.train.lr=1e-3",
            *SMALL,
        ],
        [
            "--algos",
            "dpo",
            "--data",
            "d.jsonl",
            "--model",
            "tiny",
            "--steps",
            "1",
            "--batch-size",
            "2",
            "--gpus-per-cell",
            "2",
            "--device",
            "cpu",
            "--set",
            "task.checkpointing=true",
            *SMALL,
        ],
    ],
)
def test_the_command_of_every_cell_computes_that_cell(
    warm: Command, tmp_path: Path, words: list[str]
) -> None:
    rows = [f'{{"prompt": "x", "chosen": "a", "rejected": "{c}"}}\n' for c in "bcde"]
    (tmp_path / "d.jsonl").write_text("".join(rows), "utf-8")
    first = warm("run", *words, "--seeds", "0,3", "--out", "r", "--quiet", "--json")
    assert first.code == 0, first.err
    assert warm("report", "r").code == 0
    page = (tmp_path / "r" / "report.html").read_text("utf-8")
    cells = findall(r"cell ([0-9a-f]{24})<pre><code>(.*?)</code>", page)
    assert {key for key, _ in cells} == {c["key"] for c in first.json["cells"]}
    for key, command in cells:
        name, *again = shlex.split(unescape(command))
        assert name == "xpo-bench"
        done = warm(*again, "--out", "r", "--json")
        assert done.code == 0, done.err
        assert [c["key"] for c in done.json["cells"]] == [key]
        assert "1 already there" in done.err


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.usefixtures("r")
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_browser_runs_the_script_and_complains_of_nothing(warm: Command, tmp_path: Path) -> None:
    assert BROWSER is not None
    assert warm("report", "r", "--html", "page.html").code == 0
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]

    def opened(path: Path) -> str:
        words = [BROWSER, *flags, "--virtual-time-budget=2000", "--dump-dom", path.as_uri()]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "CONSOLE" not in done.stderr
        return done.stdout

    assert '<button type="button">' in opened(
        tmp_path / "page.html"
    )  # made by the script, so the policy let it run
    # a copy without the policy, which would refuse a second script
    source = sub(
        r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", (tmp_path / "page.html").read_text("utf-8")
    )
    # of the table of the task, by the KL: the columns are names, lr, runs and kl
    click = "<script>document.querySelectorAll('#task thead button')[3].click()</script>"
    orders = []
    for clicks in range(3):
        (tmp_path / "copy.html").write_text(source.replace("</body>", click * clicks + "</body>"), "utf-8")
        table = opened(tmp_path / "copy.html").split('id="task"')[1].split("</table>")[0]
        assert findall(r"<th[^>]*><button[^>]*>(\w*)", table)[3] == "kl"
        rows = [row.split("</tr>")[0] for row in table.split("<tr>")[2:]]
        values = [findall('data-v="([^"]*)"', row)[2] for row in rows]
        names = [findall(r'<th scope="row">(\w+)</th>', row)[0] for row in rows]
        orders.append(list(zip(names, values, strict=True)))
    assert len(orders[0]) == 2
    assert orders[1] == sorted(orders[0], key=lambda row: float(row[1]))
    assert orders[2] == orders[1][::-1]
