"""`xpo-bench check`: the kit without pytest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xpo_bench.testing import CHECKS

Command = Callable[..., Any]

MODULE = '''
from dataclasses import dataclass
from typing import Annotated, ClassVar
from annotated_types import Gt
from torch.nn.functional import logsigmoid
from typing_extensions import Doc
from xpo_bench import Algorithm, hookimpl

@dataclass(frozen=True)
class Mine(Algorithm):
    """Mine."""
    name: ClassVar[str] = "mine"
    source: ClassVar[str] = "nowhere"
    beta: Annotated[float, Gt(0), Doc("scale, 1/nats")] = 0.1

    def loss(self, step):
        return -logsigmoid({sign}self.beta * (step.log_ratio("chosen") - step.log_ratio("rejected")))

@dataclass(frozen=True)
class Other(Mine):
    name: ClassVar[str] = "other"
'''
HOOK = "\n@hookimpl\ndef xpo_algorithms():\n    return [Mine]\n"


def test_an_installed_algorithm_passes(warm: Command) -> None:
    done = warm("check", "dpo", "--json")
    assert done.code == 0, done.err
    (algorithm,) = done.json["algorithms"]
    assert (algorithm["name"], algorithm["passed"]) == ("dpo", True)
    assert [row["check"] for row in algorithm["checks"]] == [check.name for check in CHECKS]
    of_state = [check.name for check in CHECKS if check.name.startswith("state-")]
    assert [row["check"] for row in algorithm["checks"] if row["verdict"] != "ok"] == of_state
    assert {row["verdict"] for row in algorithm["checks"]} == {"ok", "skipped"}  # it keeps no state


def test_a_failure_says_what_to_do(warm: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODULE.replace("{sign}", "-") + HOOK, "utf-8")
    done = warm("check", "mine.py", COLUMNS="200")
    assert done.code == 1
    (line,) = [line for line in done.out.splitlines() if " failed " in line and line.startswith("learns")]
    assert "Look for a sign" in line
    assert "mine: 25 ok, 1 failed, 6 skipped" in done.out
    assert "other" not in done.out


def test_a_module_without_a_hook_offers_its_classes(warm: Command, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").touch()
    (tmp_path / "theirs" / "mine.py").write_text(MODULE.replace("{sign}", ""), "utf-8")
    done = warm("check", "theirs.mine", "--json")
    assert done.code == 0, (done.out, done.err)
    assert [(a["name"], a["passed"]) for a in done.json["algorithms"]] == [("mine", True), ("other", True)]


@pytest.mark.parametrize(
    ("target", "source", "said"),
    [
        ("dpoo", None, "unknown algorithm 'dpoo'; did you mean 'dpo'?"),
        ("no.such.module", None, "unknown algorithm 'no.such.module'"),
        ("gone.py", None, "gone.py: there is no such file"),
        ("empty.py", "", "empty.py: offers no algorithm"),
        ("bad.py", "def broken(:", "bad.py: cannot be imported: SyntaxError"),
        (
            "lacks",
            "import not_there",
            "module lacks: cannot be imported: ModuleNotFoundError: No module named 'not_there'",
        ),
        (
            "raises.py",
            MODULE + "\ndef xpo_algorithms():\n    return 1 / 0\n",
            "xpo_algorithms() raises ZeroDivisionError",
        ),
        ("thawed.py", MODULE.replace("(frozen=True)", "(eq=True)"), "cannot inherit non-frozen dataclass"),
        (
            "bare.py",
            MODULE.replace('(0), Doc("scale, 1/nats")] = 0.1', "(0)]"),
            "every field needs a default",
        ),
    ],
)
def test_what_cannot_be_checked_is_one_line(
    warm: Command, tmp_path: Path, target: str, source: str | None, said: str
) -> None:
    if source is not None:
        (tmp_path / f"{target.removesuffix('.py')}.py").write_text(source.replace("{sign}", ""), "utf-8")
    done = warm("check", target)
    assert done.code == 2, done.out
    assert len(done.lines) == 1
    assert said in done.err
    assert done.out == ""


def test_an_exception_is_told_once_and_without_a_remedy_for_something_else(
    warm: Command, tmp_path: Path
) -> None:
    wrong = MODULE.replace("{sign}", "").replace('log_ratio("chosen")', 'log_ratio("winner")')
    (tmp_path / "mine.py").write_text(wrong + HOOK, "utf-8")
    done = warm("check", "mine.py", COLUMNS="200")
    assert done.code == 1
    rows = {
        line.split()[0]: line
        for line in done.out.splitlines()
        if " failed " in line and not line.startswith("mine:")
    }
    assert "KeyError: 'winner' (mine.py, line 17)" in rows["options-matter"]
    assert "Fix the exception" in rows["options-matter"]
    assert "the same as options-matter" in rows["loss-finite"]
    assert "reads step.policy['winner'], which groups does not declare" in rows["undeclared-is-not-read"]
    assert "logarithm" not in done.out


def test_a_misspelt_hook_is_told_before_the_plugin_is_installed(warm: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        MODULE.replace("{sign}", "") + HOOK.replace("xpo_algorithms", "xpo_algorithm"), "utf-8"
    )
    done = warm("check", "mine.py")
    assert done.code == 2
    assert len(done.lines) == 1
    assert "mine.py: unknown hook 'xpo_algorithm'; did you mean 'xpo_algorithms'?" in done.err
