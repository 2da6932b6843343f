"""The cells of a claim, run like any other: they resume, and are kept in a run directory."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xpo_bench import api
from xpo_bench.claims.choosing import Ran
from xpo_bench.claims.definition import Block, Claim
from xpo_bench.errors import UsageError
from xpo_bench.report.curves import curve_reader
from xpo_bench.report.items import item_reader
from xpo_bench.report.records import records_of
from xpo_bench.runner.progress import Reporter


def run(
    claim: Claim, out: Path, reporter: Reporter, *, fresh: bool = False, **words: Any
) -> Callable[[str], Ran]:
    """Run what a claim lacks and return what each of its blocks came to, by name.

    Args:
        out: run directory of the claim. fresh: compute cells again that are already there. words: where cells
            run, as for `xpo_bench.run`.

    Raises:
        UsageError: a block cannot be planned, or its data cannot be had.
    """
    found = {block.name: _run(claim, block, out, reporter, fresh, words) for block in claim.blocks}
    return found.__getitem__


def _run(
    claim: Claim, block: Block, out: Path, reporter: Reporter, fresh: bool, words: Mapping[str, Any]
) -> Ran:
    searched = {name: value for name, value in vars(block.search).items() if value is not None}
    try:
        result = api.run(
            **{**block.words, **searched, **words},
            out=out,
            fresh=fresh,
            reporter=reporter,
            spread=True,
            metrics=[_function(name, claim) for name in block.metrics],
        )
    except UsageError as error:
        raise type(error)(f"claim {claim.id}: {error}") from None
    if result.unreachable:
        first = result.unreachable[0]
        raise UsageError(f"claim {claim.id}: task {first['task']}: {first['reason']}")
    keys = {
        role: frozenset(key for entry in result.tuning for key in entry["keys"].get(role, []))
        for role in ("tuned", "default")
    }
    return Ran(
        records_of(result.cells),
        curve_reader(result.out),
        item_reader(result.out),
        # an algorithm with nothing to search is at its default
        keys["tuned"] | _without_choice(result),
        keys["default"],
    )


def _without_choice(result: api.Result) -> frozenset[str]:
    """Cells of algorithms that had nothing to search."""
    return frozenset(key for e in result.tuning if not e["keys"].get("tuned") for key in e["keys"]["default"])


def _function(name: str, claim: Claim) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"claim {claim.id}: metric {name}: {error}") from None
    return found
