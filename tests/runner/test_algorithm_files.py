"""Algorithms of one file: `my_loss.py:RDPO` wherever one is named; a changed text is another cell."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import content, same

import xpo_bench
from xpo_bench import plugins
from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.errors import UsageError
from xpo_bench.runner import source_files
from xpo_bench.runner.algorithm_files import algorithm_of, info_of
from xpo_bench.runner.executors.subprocesses import packed, unpacked
from xpo_bench.runner.settings import validate

LOSS = '''
from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt
from typing_extensions import Doc
from xpo_bench import Algorithm, Step, logsigmoid
from terms import margin


@dataclass(frozen=True)
class RDPO(Algorithm):
    """DPO from a file."""

    name: ClassVar[str] = "rdpo"
    source: ClassVar[str] = "nowhere"
    beta: Annotated[float, Gt(0), Doc("strength, 1/nats")] = 0.1

    def loss(self, step: Step):
        return -logsigmoid(self.beta * margin(step))
'''
TERMS = 'def margin(step):\n    return step.log_ratio("chosen") - step.log_ratio("rejected")\n'
WORDS: dict[str, Any] = {"tasks": ["bandit"], "steps": 5, "seeds": 1}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with the file of a loss, and one that it imports; modules are forgotten after."""
    (tmp_path / "my_loss.py").write_text(LOSS, "utf-8")
    (tmp_path / "terms.py").write_text(TERMS, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(source_files, "_FOLDERS", [])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


def test_a_file_is_an_algorithm_and_its_record_says_which(folder: Path) -> None:
    result = xpo_bench.run(["dpo", "my_loss.py:RDPO"], set={"rdpo.beta": [0.1, 0.5]}, out="run", **WORDS)
    dpo, same_, other = result.cells
    assert same_["metrics"]["kl"] == dpo["metrics"]["kl"] != other["metrics"]["kl"]
    told = same_["algorithm"]
    assert {k: told[k] for k in ("name", "plugin", "distribution", "file")} == {
        "name": "rdpo", "plugin": "my_loss.py", "distribution": "file", "file": "my_loss.py:RDPO",
    }  # fmt: skip
    assert len(told["source"]) == 24


@pytest.mark.parametrize("changed", ["my_loss.py", "terms.py"])
def test_a_changed_text_is_another_cell(folder: Path, changed: str) -> None:
    """Of the file, or of what it imports from its folder: also within one process, as in a notebook."""
    first = xpo_bench.run("my_loss.py:RDPO", out="run", **WORDS)
    again = xpo_bench.run("my_loss.py", out="run", **WORDS)
    assert (again.computed, again.cells) == (0, first.cells)
    text = (folder / changed).read_text("utf-8")
    (folder / changed).write_text(text.replace('"chosen"', '"rejected"').replace("-logsig", "-2 * logsig"))
    third = xpo_bench.run("my_loss.py:RDPO", out="run", **WORDS)
    assert third.computed == 1
    assert third.cells[0]["key"] != first.cells[0]["key"]
    assert third.cells[0]["metrics"]["kl"] != first.cells[0]["metrics"]["kl"]
    shown = xpo_bench.run("dpo", out="run", **WORDS)  # the directory holds both texts; only the last counts
    assert len(list((folder / "run" / "cells").glob("*.json"))) == 3
    assert shown.computed == 1


def test_what_lies_beside_a_file_without_being_imported_changes_nothing(folder: Path) -> None:
    before = source_files.load("my_loss.py", "--algos").__name__
    (folder / "unused.py").write_text("x = 1\n", "utf-8")
    nested = folder / ".venv" / "lib" / "annotated_types"
    nested.mkdir(parents=True)
    (nested / "__init__.py").write_text("x = 1\n", "utf-8")
    assert source_files.load("./my_loss.py", "--algos").__name__ == before


def test_the_same_file_elsewhere_has_the_same_key(folder: Path) -> None:
    keys = [xpo_bench.run("my_loss.py:RDPO", out="1", **WORDS).cells[0]["key"]]
    (folder / "moved").mkdir()
    for name in ("my_loss.py", "terms.py"):
        (folder / name).rename(folder / "moved" / name)
    keys.append(xpo_bench.run("moved/my_loss.py:RDPO", out="2", **WORDS).cells[0]["key"])
    assert keys[0] == keys[1]


def test_two_folders_have_modules_of_their_own(folder: Path) -> None:
    (folder / "b").mkdir()
    (folder / "b" / "other.py").write_text(LOSS.replace("RDPO", "Other").replace("rdpo", "other"), "utf-8")
    twice = TERMS.replace("return", "return 2 *").replace(" - ", " - 2 * ")
    (folder / "b" / "terms.py").write_text(twice, "utf-8")
    one, two, dpo = xpo_bench.run(
        ["my_loss.py:RDPO", "b/other.py:Other", "dpo"], set={"dpo.beta": 0.2}, out="run", **WORDS
    ).cells
    assert two["metrics"]["kl"] == dpo["metrics"]["kl"] != one["metrics"]["kl"]


def test_a_class_is_made_again_from_the_text_that_was_planned(folder: Path) -> None:
    """In another process, whose file may have changed or be missing, as on a node of a cluster."""
    cls = algorithm_of("my_loss.py:RDPO")
    message = packed([validate(cls, {"beta": 0.5}, "rdpo")], [cls], "--workers")
    digest = source_files.module_digest(cls.__module__)
    (folder / "my_loss.py").unlink()
    forget(cls.__module__)
    (made,) = unpacked(message, "--workers")
    assert type(made) is not cls
    assert (made.name, made.beta, source_files.module_digest(cls.__module__)) == ("rdpo", 0.5, digest)
    forget(cls.__module__)
    (folder / "terms.py").write_text(TERMS + "\n", "utf-8")
    with pytest.raises(UsageError, match=r"my_loss.py: imports .*terms.py, which is not here as it was"):
        unpacked(message, "--workers")


def forget(module: str) -> None:
    """What a process has that never loaded it."""
    del sys.modules[module], source_files._MODULES[module]
    source_files._LATEST.clear()


def test_worker_processes_have_the_numbers_of_one(
    warm: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    words = ["run", "--algos", "dpo,my_loss.py:RDPO", "--tasks", "bandit", "--steps", "5", "--seeds", "2"]
    assert warm(*words, "--out", "one").code == 0
    done = warm(*words, "--out", "two", "--workers", "2")
    assert done.code == 0, done.err
    assert same(content(tmp_path / "one"), content(tmp_path / "two"))


def test_a_plan_file_and_the_page_of_a_report_name_it(
    warm: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    plan = 'algos = "my_loss.py:RDPO"\ntasks = "bandit"\nsteps = 5\nseeds = 1\n[set]\n"rdpo.beta" = 0.3\n'
    (folder / "plan.toml").write_text(plan, "utf-8")
    assert warm("run", "plan.toml", "--out", "run").code == 0
    (record,) = [json.loads(p.read_text("utf-8")) for p in (tmp_path / "run" / "cells").glob("*.json")]
    assert record["algorithm"]["config"] == {"beta": 0.3}
    assert warm("report", "run").code == 0
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "xpo-bench run --algos my_loss.py:RDPO --tasks bandit" in page
    assert record["algorithm"]["source"] in page


def test_check_takes_one_class_of_a_file(warm: Callable[..., Any], folder: Path) -> None:
    (folder / "both.py").write_text(f"{LOSS}\n{OTHER}", "utf-8")
    done = warm("check", "both.py:RDPO", "--json")
    assert [a["name"] for a in done.json["algorithms"]] == ["rdpo"]
    assert done.code == 0, [c for c in done.json["algorithms"][0]["checks"] if c["verdict"] == "failed"]


OTHER = """
@dataclass(frozen=True)
class Other(RDPO):
    name: ClassVar[str] = "other"

class Thawed(Algorithm):
    name: ClassVar[str] = "thawed"

class Nothing:
    pass
"""


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("gone.py:RDPO", "gone.py: there is no such file in "),
        ("folder.py", "folder.py: cannot be read (Is a directory)"),
        ("my_loss.py:RDP", "my_loss.py:RDP: unknown class 'RDP'; did you mean 'RDPO'? (known: RDPO)"),
        ("my_loss.py:", "my_loss.py:: unknown class ''"),
        (
            "both.py",
            "both.py: it defines 3 algorithms (RDPO, Other, Thawed); say which, such as",
        ),
        ("both.py:Nothing", "both.py:Nothing: Nothing is a class that does not extend xpo_bench.Algorithm"),
        ("both.py:margin", "both.py:margin: margin is of type function that does not extend"),
        ("both.py:Thawed", "both.py:Thawed: Thawed must be a frozen dataclass"),
        ("empty.py", "empty.py: it defines no algorithm"),
        ("broken.py", "broken.py: cannot be imported: SyntaxError: invalid syntax (line 2)"),
        ("raises.py:X", "raises.py: cannot be imported: ZeroDivisionError: division by zero (line 2)"),
        ("uses.py", "uses.py: cannot be imported: SyntaxError: invalid syntax ("),
        (
            "lends.py:RDPO",
            "lends.py:RDPO: RDPO is imported there from my_loss; name the file",
        ),
        ("taken.py:RDPO", "taken.py:RDPO: the name 'dpo' is that of an installed algorithm (plugin dpo, "),
        ("my_loss.py,both.py:RDPO", "my_loss.py:RDPO and both.py:RDPO are both called 'rdpo'"),
    ],
)
def test_what_cannot_be_run_is_one_line(folder: Path, word: str, said: str) -> None:
    texts = {
        "both": f"{LOSS}\n{OTHER}",
        "empty": "x = 1\n",
        "broken": "x = 1\ndef f(:\n",
        "raises": "def f():\n    return 1 / 0\nf()\n",
        "uses": "import broken\n",
        "lends": "from my_loss import RDPO\n",
        "taken": LOSS.replace('"rdpo"', '"dpo"'),
    }
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text, "utf-8")
    (folder / "folder.py").mkdir()
    with pytest.raises(UsageError) as raised:
        xpo_bench.run(word, out="run", **WORDS)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not os.path.exists("run")


def test_a_name_that_is_left_out_is_free(folder: Path) -> None:
    (folder / "taken.py").write_text(LOSS.replace('"rdpo"', '"dpo"'), "utf-8")
    cls: type[Algorithm] = algorithm_of("taken.py")
    info = info_of(cls, plugins.load(frozenset({"dpo"})))
    assert info is not None
    assert (info.name, info.distribution) == ("taken.py", "file")
