"""`xpo-bench check`."""

from __future__ import annotations

import time

import click

from xpo_bench.cli.base import guarded, main, print_json, say

CHECK_EXAMPLES = """\b
Examples:
  xpo-bench check dpo
  xpo-bench check my_package.my_dpo
  xpo-bench check my_dpo.py --json
  xpo-bench check my_dpo.py:MyDPO
"""
PATIENCE_S = 2.0
"""Seconds between lines of progress."""


@main.command(epilog=CHECK_EXAMPLES)
@click.argument("target", metavar="NAME|MODULE")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, and nothing else.")
@guarded
def check(target: str, as_json: bool) -> int:
    """Run the conformance kit on an algorithm: the properties of every loss, field and stage.

    NAME is an installed algorithm; MODULE is a dotted module or a path to a .py file, every algorithm of
    which is checked, or one as in my_dpo.py:MyDPO.

    \b
    Exit status: 0 every check passed or does not apply, 1 some check failed, 2 there is no such algorithm.
    """
    import torch

    from xpo_bench.testing.kit import checks_for
    from xpo_bench.testing.targets import find

    torch.set_num_threads(1)  # tiny tensors
    spoken = time.monotonic()
    algorithms: list[dict[str, object]] = []
    for algorithm in find(target):
        rows = []
        bound = list(checks_for(algorithm))
        for number, one in enumerate(bound, 1):
            if time.monotonic() - spoken > PATIENCE_S:
                spoken = time.monotonic()
                say(f"{algorithm.name}: check {number} of {len(bound)}, {one.name}")
            found = one.finding()
            rows.append(
                {
                    "check": one.name,
                    "verdict": found.verdict,
                    "message": found.message,
                    "statement": one.check.statement,
                    "remedy": found.remedy,
                }
            )
        algorithms.append(
            {"name": algorithm.name, "passed": all(r["verdict"] != "failed" for r in rows), "checks": rows}
        )
    if as_json:
        print_json({"schema": 1, "algorithms": algorithms})
    else:
        from rich.console import Console

        from xpo_bench.report.tables.conformance import print_checks

        print_checks(Console(), algorithms)
    return 0 if all(a["passed"] for a in algorithms) else 1
