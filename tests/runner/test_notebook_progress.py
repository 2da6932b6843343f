"""Progress in a notebook: one output that is replaced; none where there is no notebook."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import xpo_bench
from xpo_bench.runner import notebook_progress


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What a kernel would show, the same output replaced again and again."""
    shown: list[dict[str, str]] = []
    handle = SimpleNamespace(update=lambda content, raw: shown.append(content))

    def display(content: dict[str, str], raw: bool, display_id: bool) -> Any:
        assert raw
        assert display_id
        assert not shown, "one output for a run"
        shown.append(content)
        return handle

    ipython, module = ModuleType("IPython"), ModuleType("IPython.display")
    vars(ipython)["get_ipython"] = lambda: SimpleNamespace(kernel=object())
    vars(module)["display"] = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(notebook_progress, "EVERY_S", 0.0)
    return shown


def test_a_bar_goes_on_and_makes_room_for_a_line(
    outputs: list[dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    xpo_bench.run(["dpo", "ipo"], "bandit", steps=20, seeds=2, out=tmp_path / "<run>")
    bars = [o["text/html"] for o in outputs if '<progress max="4"' in o["text/html"]]
    assert 'value="0.00"' in bars[0]
    assert "step 20/20, loss" in "".join(bars)
    assert outputs[-1]["text/plain"].startswith("4 cells: ")
    assert "<progress" not in outputs[-1]["text/html"]
    assert "&lt;run&gt;" in outputs[-1]["text/html"]
    assert capsys.readouterr() == ("", "")
    xpo_bench.run(["dpo", "ipo"], "bandit", steps=20, seeds=2, out=tmp_path / "silent", quiet=True)
    assert "silent" not in outputs[-1]["text/plain"]


def test_what_fails_and_what_is_noted_stays_below(outputs: list[dict[str, str]], tmp_path: Path) -> None:
    xpo_bench.run("dpo", "bandit", steps=20, seeds=1, target_kl=1e9, out=tmp_path / "run")
    assert "\n" in outputs[-1]["text/plain"], "the search says what it does"


def test_there_is_no_bar_without_a_notebook(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = SimpleNamespace()  # of a terminal: it has no kernel
    ipython = ModuleType("IPython")
    vars(ipython)["get_ipython"] = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert not notebook_progress.in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not notebook_progress.in_notebook()
    xpo_bench.run("dpo", "bandit", steps=5, seeds=1, out=tmp_path / "run")
    assert capsys.readouterr() == ("", "")
