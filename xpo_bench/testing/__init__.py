"""The conformance kit: properties of every algorithm, built-in or third-party.

In a plugin's tests:

    from xpo_bench.testing import parametrize_with_checks

    @parametrize_with_checks([MyDPO()])
    def test_conforms(check):
        check()

Without pytest, `xpo-bench check NAME|MODULE`, or `checks_for(MyDPO)`.
"""

from xpo_bench.testing.kit import CHECKS, BoundCheck, Check, Finding, checks_for
from xpo_bench.testing.parametrize import parametrize_with_checks
from xpo_bench.testing.verdicts import CheckFailed, NotApplicable

__all__ = [
    "CHECKS",
    "BoundCheck",
    "Check",
    "CheckFailed",
    "Finding",
    "NotApplicable",
    "checks_for",
    "parametrize_with_checks",
]
