"""The kit under pytest: one test per check, and expected failures that are strict."""

from __future__ import annotations

from pathlib import Path

import pytest

from xpo_bench.errors import UsageError
from xpo_bench.testing import CHECKS, parametrize_with_checks

pytest_plugins = "pytester"

SOURCE = """
from dataclasses import dataclass
from typing import ClassVar
from torch.nn.functional import logsigmoid
from xpo_bench import Algorithm
from xpo_bench.testing import parametrize_with_checks

@dataclass(frozen=True)
class Mine(Algorithm):
    name: ClassVar[str] = "mine"
    source: ClassVar[str] = "nowhere"
    beta: float = 0.1

    def loss(self, step):
        return -logsigmoid({sign}self.beta * (step.log_ratio("chosen") - step.log_ratio("rejected")))

@parametrize_with_checks([Mine()], expected_failed_checks={expected})
def test_conforms(check):
    if check.bound.name in ("fields-documented", "learns", "implied-preference"):
        check()
"""


def outcomes(pytester: pytest.Pytester, sign: str, expected: dict[str, str]) -> dict[str, int]:
    pytester.makepyfile(SOURCE.replace("{sign}", sign).replace("{expected}", repr(expected)))
    return pytester.runpytest_inprocess("-p", "no:randomly").parseoutcomes()


def test_expected_failures_are_strict(pytester: pytest.Pytester) -> None:
    others = len(CHECKS) - 3
    assert outcomes(pytester, "", {}) == {"failed": 1, "passed": others + 1, "skipped": 1}
    assert outcomes(pytester, "-", {"fields-documented": "later", "learns": "a joke"}) == {
        "xfailed": 2,
        "passed": others,
        "skipped": 1,
    }
    # one that passes, and one that does not apply
    assert outcomes(
        pytester, "", {"fields-documented": "later", "learns": "no", "implied-preference": "no"}
    ) == {
        "xfailed": 1,
        "passed": others,
        "failed": 2,
    }


def test_an_unknown_check_is_refused() -> None:
    from xpo_bench_plugins.algorithms.dpo import DPO

    with pytest.raises(UsageError, match=r"unknown check 'learn'; did you mean 'learns'\?"):
        parametrize_with_checks([DPO], expected_failed_checks={"learn": "?"})


def test_names_of_tests_tell_instances_of_one_algorithm_apart() -> None:
    from xpo_bench_plugins.algorithms.dpo import DPO

    mark = parametrize_with_checks([DPO, DPO(beta=0.5)])
    names = [case.id for case in mark.args[1]]
    assert len(set(names)) == 2 * len(CHECKS)
    assert {"dpo-learns", "dpo-2-learns"} <= set(names)


def test_the_package_imports_no_pytest(tmp_path: Path) -> None:
    import subprocess
    import sys

    probe = "import sys, xpo_bench.testing, xpo_bench.cli.check; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", probe], check=True, cwd=tmp_path, timeout=120)
