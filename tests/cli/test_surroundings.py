"""The command where users run it: odd locales, homes, clocks, paths, data, with documented outcomes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from narrow import present

RUN = ["run", "--algos", "dpo", "--tasks", "one_pair", "--seeds", 1, "--steps", 3]
GOOD = {"prompt": "x", "chosen": "a", "rejected": "b"}
LM = [
    "--model",
    "tiny",
    "--set",
    "task.kl_prompts=1",
    "--set",
    "task.kl_samples=1",
    "--set",
    "task.max_new_tokens=2",
]


def kl(out: str) -> float:
    """The KL that a run prints, from its JSON."""
    value: float = json.loads(out)["cells"][0]["metrics"]["kl"]
    return value


@pytest.mark.parametrize(
    "env",
    [
        {"LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.UTF-8", "LC_NUMERIC": "de_DE.UTF-8"},
        {"LANG": "C", "LC_ALL": "C"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
        {"HOME": "/nonexistent"},
        {"HOME": ""},
        {"HOME": "/proc"},  # there, and nobody may write to it
        {"TZ": "Pacific/Kiritimati"},
        {"XDG_CACHE_HOME": "/proc/none", "HF_HOME": "/proc/none", "MPLCONFIGDIR": "/proc/none"},
        {"TERM": "", "COLUMNS": "20"},
        {"NO_COLOR": "1", "COLUMNS": "nonsense"},
    ],
    ids=lambda env: "-".join(env),
)
def test_odd_environments(warm_under: Any, env: dict[str, str]) -> None:
    command = warm_under(env)
    found = command(*RUN, "--json", "--out", "r")
    assert found.code == 0, found.err
    assert kl(found.out) == pytest.approx(0.0, abs=1.0)
    shown = command("show", "r")
    assert shown.code == 0, shown.err
    assert "dpo" in shown.out
    assert command("show", "r", "--baseline", "dpo").code == 0
    assert command("list", "metrics").code == 0


def test_a_locale_that_is_set_by_a_library_changes_no_number(tmp_path: Path, warm: Any) -> None:
    """Decimal commas come by setlocale, which the C library's own parsers and printers follow."""
    import subprocess

    code = (
        "import locale, sys\n"
        "names = [n for n in ('de_DE.UTF-8', 'fr_FR.UTF-8', 'C.UTF-8')]\n"
        "for name in names:\n"
        "    try:\n        locale.setlocale(locale.LC_ALL, name); break\n"
        "    except locale.Error: pass\n"
        "import xpo_bench\n"
        "print(repr(xpo_bench.run(['dpo'], ['one_pair'], seeds=1, steps=3, "
        "out='r').cells[0]['metrics']['kl']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) == kl(warm(*RUN, "--json", "--out", "other").out)


@pytest.mark.parametrize(
    "name", ["with blanks and 'quotes\"", "été-Ω-日本", "-dash", "a" * 200, "[bold]red[/]", "per%cent{}"]
)
def test_odd_names_of_directories(warm: Any, tmp_path: Path, name: str) -> None:
    out = tmp_path / name / "run"
    found = warm(*RUN, "--out", out)
    assert found.code == 0, found.err
    assert warm("status", out).code == 0
    assert warm("report", out, "--md", "-").code == 0


def test_a_clock_that_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wall-clock time is written into records and used for nothing else."""
    import time

    import xpo_bench

    real = time.time
    jumps = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: real() + (-1) ** next(jumps) * 1e6)
    (cell,) = xpo_bench.run(["dpo"], ["one_pair"], seeds=1, steps=3, out=tmp_path / "r").cells
    assert cell["status"] == "ok"
    timing = cell["timing"]
    seconds = [timing["prepare_s"], timing["train_s"], timing["evaluate_s"]]
    assert all(present(value) >= 0 for value in seconds)


SETS: dict[str, tuple[list[dict[str, Any]], int, str]] = {
    "one row": ([GOOD], 0, ""),
    "duplicates": ([GOOD] * 5, 0, ""),
    "a megabyte": ([GOOD, GOOD | {"prompt": "y" * 10**6}], 0, ""),
    "emoji and right to left": (
        [{"prompt": "😀 שלום", "chosen": "مرحبا 👩\u200d👩\u200d👧", "rejected": "ก\u0e33"}],
        0,
        "",
    ),
    "zero bytes": ([{"prompt": "x\0y", "chosen": "a\0", "rejected": "b"}], 0, ""),
    "lone surrogate": ([{"prompt": "\ud800", "chosen": "a", "rejected": "b"}], 2, "row 1"),
    "mixed types": ([GOOD, {"prompt": 1, "chosen": "a", "rejected": "b"}], 2, "row 2"),
    "identical pair": ([GOOD, GOOD | {"rejected": "a"}], 2, "row 2: chosen == rejected"),
    "only ties": ([GOOD | {"p_chosen": 0.5}], 2, "is a tie (p_chosen 0.5)"),
    "a tie and a pair": ([GOOD | {"p_chosen": 0.5}, GOOD | {"prompt": "z"}], 0, ""),
    "half a label": ([{"prompt": "x", "completion": "a", "label": 0.5}], 2, "row 1: label is 0.5"),
    "nothing": ([], 2, "empty data set"),
}


@pytest.mark.parametrize("model", ["tabular", "tiny"])
@pytest.mark.parametrize(("rows", "code", "message"), SETS.values(), ids=SETS)
def test_odd_data(
    warm: Any, tmp_path: Path, rows: list[dict[str, Any]], code: int, message: str, model: str
) -> None:
    (tmp_path / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    words = LM if model == "tiny" else ["--model", model]
    found = warm(
        "run", "--algos", "dpo,kto,ipo", "--data", "odd.jsonl", "--seeds", 1, "--steps", 2, "--quiet", *words
    )
    assert found.code == code, found.err
    assert message in found.err
    assert len(found.lines) == (1 if code else 0)


@pytest.mark.parametrize("model", ["tabular", "tiny"])
def test_labels_of_one_kind_train_singles_alone(warm: Any, tmp_path: Path, model: str) -> None:
    rows = [{"prompt": "x", "completion": text, "label": True} for text in ("a", "b")]
    (tmp_path / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    words = [
        "--data",
        "odd.jsonl",
        "--seeds",
        1,
        "--steps",
        2,
        "--quiet",
        *(LM if model == "tiny" else ["--model", model]),
    ]
    assert warm("run", "--algos", "kto", *words).code == 0
    refused = warm("run", "--algos", "dpo", *words)
    assert refused.code == 2
    assert "needs preference pairs" in refused.err


def test_without_a_command_the_help_is_printed_as_help(warm: Any) -> None:
    done = warm()
    assert done.code == 2
    assert done.err.startswith("Usage: ")
    assert "\nCommands:\n" in done.err
