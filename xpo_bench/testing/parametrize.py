"""The kit under pytest; nothing but this module imports it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.errors import UsageError, unknown
from xpo_bench.testing.kit import CHECKS, BoundCheck, checks_for, instance
from xpo_bench.testing.verdicts import CheckFailed, NotApplicable

if TYPE_CHECKING:
    import pytest

Expected = Mapping[str, str]


@dataclass(frozen=True)
class PytestCheck:
    """A check as a test calls it: what does not apply is skipped, unless it was expected to fail."""

    bound: BoundCheck
    expected_to_fail: bool = False

    def __call__(self) -> None:
        import pytest

        try:
            self.bound()
        except NotApplicable as reason:
            if self.expected_to_fail:
                raise
            pytest.skip(str(reason))
        except CheckFailed as failed:
            raise CheckFailed(
                f"{failed}\n{self.bound.check.statement}\n{self.bound.check.remedy}"
            ) from failed.__cause__


def parametrize_with_checks(
    algorithms: Iterable[Algorithm | type[Algorithm]],
    *,
    expected_failed_checks: Expected | Callable[[Algorithm], Expected] | None = None,
) -> pytest.MarkDecorator:
    """A pytest mark that calls a test once per algorithm and check, with the argument `check`.

    Args:
        algorithms: instances, or classes, which stand for their defaults.
        expected_failed_checks: check -> why it fails, for all algorithms, or a function of the algorithm that
            returns it. It is strict: a check that is expected to fail and passes, or does not apply, fails
            the test.

    Raises:
        UsageError: a name that is no check's.

    Example:
        >>> @parametrize_with_checks([MyDPO(), MyDPO(beta=0.5)])
        ... def test_conforms(check):
        ...     check()
    """
    import pytest

    cases = []
    for number, algorithm in enumerate(made := [instance(a) for a in algorithms]):
        expected = (
            expected_failed_checks(algorithm) if callable(expected_failed_checks) else expected_failed_checks
        ) or {}
        for name in expected:
            if name not in {check.name for check in CHECKS}:
                raise UsageError(unknown("check", name, (check.name for check in CHECKS)))
        again = sum(a.name == algorithm.name for a in made[:number])
        for bound in checks_for(algorithm):
            marks = []
            if bound.name in expected:
                marks = [pytest.mark.xfail(strict=True, raises=CheckFailed, reason=expected[bound.name])]
            name = f"{algorithm.name}{f'-{again + 1}' if again else ''}-{bound.name}"
            cases.append(pytest.param(PytestCheck(bound, bound.name in expected), id=name, marks=marks))
    return pytest.mark.parametrize("check", cases)
