"""The cells of a claim, run like any other: they resume, and are kept in a run directory."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xpo_bench import api
from xpo_bench.claims.choosing import Ran
from xpo_bench.claims.definition import Block, Claim
from xpo_bench.errors import UsageError
from xpo_bench.report.curves import curve_reader
from xpo_bench.report.items import item_reader, no_items
from xpo_bench.report.records import records_of
from xpo_bench.result import Result
from xpo_bench.runner import keys
from xpo_bench.runner.progress import Reporter
from xpo_bench.runner.request import names_of, parse_seeds
from xpo_bench.runner.store import write_atomic
from xpo_bench.version import __version__

KINDS = ("algos", "tasks")


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
    if block.measure:
        return _measured(claim, block, out, reporter, fresh)
    searched = {name: value for name, value in vars(block.search).items() if value is not None}
    named = {kind: [_named(v, claim) for v in names_of(block.words.get(kind), kind)] for kind in KINDS}
    try:
        result = api.run(
            **{**block.words, **{kind: found for kind, found in named.items() if found}, **searched, **words},
            out=out,
            fresh=fresh,
            reporter=reporter,
            spread=True,
            metrics=[_imported(name, claim) for name in block.metrics],
        )
    except UsageError as error:
        raise type(error)(f"claim {claim.id}: {error}") from None
    if result.unreachable:
        first = result.unreachable[0]
        raise UsageError(f"claim {claim.id}: task {first['task']}: {first['reason']}")
    found = {
        role: frozenset(key for entry in result.tuning for key in entry["keys"].get(role, []))
        for role in ("tuned", "default")
    }
    return Ran(
        records_of(result.cells),
        curve_reader(result.out),
        item_reader(result.out),
        # an algorithm with nothing to search is at its default
        found["tuned"] | _without_choice(result),
        found["default"],
    )


def _without_choice(result: Result) -> frozenset[str]:
    """Cells of algorithms that had nothing to search."""
    return frozenset(key for e in result.tuning if not e["keys"].get("tuned") for key in e["keys"]["default"])


def _named(value: object, claim: Claim) -> object:
    """A name as it is, or the class of `module:Class`."""
    return _imported(value, claim) if isinstance(value, str) and ":" in value else value


def _imported(name: str, claim: Claim) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"claim {claim.id}: {name}: {error}") from None


def _measured(claim: Claim, block: Block, out: Path, reporter: Reporter, fresh: bool) -> Ran:
    """What a function measured at every seed, as records of an algorithm with the block's name."""
    function, folder = _imported(block.measure, claim), out / "measured"
    seeds = parse_seeds(block.words.get("seeds", 3))
    records = []
    for place, seed in enumerate(seeds, 1):
        # of another source, or of another version of the suite, it would be another measurement
        path = folder / f"{keys.digest([keys.source(function), __version__, block.measure, seed], 12)}.json"
        if fresh or not path.is_file():
            reporter.note(f"{claim.id}: {block.measure}, seed {seed} ({place} of {len(seeds)})")
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(dict(function(seed)), allow_nan=False).encode())
        metrics = json.loads(path.read_bytes())
        raw = {"status": "ok", "algorithm": {"name": block.name}, "task": {"name": ""}, "seed": seed}
        records.append(raw | {"key": path.stem, "metrics": metrics})
    return Ran(records_of(records), lambda key: [], no_items)
