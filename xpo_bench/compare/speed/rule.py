"""`compare --ab`: the two-stage rule, applied to every algorithm and workload."""

from __future__ import annotations

import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypedDict

from xpo_bench.compare.speed.installations import Installation
from xpo_bench.compare.speed.pairs import NAMES, Block, Cell, Clock, Pair, Protocol, Side, Versions, measure
from xpo_bench.compare.speed.ratio_test import (
    Ratio,
    Verdict,
    false_alarm_bound,
    pair_log_ratio,
    ratio_test,
    verdict,
)

SCHEMA = 1

Overall = Literal["pass", "regression", "inconclusive"]


class SideAbout(TypedDict):
    """One of the two installations."""

    name: str
    commit: str | None
    versions: Versions


class ProtocolAbout(TypedDict):
    """How the pairs were measured."""

    pairs: int
    blocks: int
    block_s: float
    warm_s: float
    device: str
    gate: Clock
    seed: int


class RatioRow(TypedDict):
    """One comparison: an algorithm on a workload."""

    algorithm: str
    workload: str
    verdict: Verdict
    test: Ratio
    confirmation: Ratio | None
    wall: Ratio
    step_s: dict[Side, float]
    pairs: list[Pair]
    confirmation_pairs: list[Pair] | None


class RatioDocument(TypedDict):
    """What `xpo-bench compare --ab --json` prints."""

    schema: int
    sides: dict[Side, SideAbout]
    protocol: ProtocolAbout
    platform: str
    comparisons: int
    false_alarm_bound: float
    verdict: Overall
    rows: list[RatioRow]


def measure_ratios(
    installations: Mapping[Side, Installation],
    algorithms: Sequence[str],
    workloads: Sequence[str],
    protocol: Protocol,
    seed: int,
    note: Callable[[str], None] = lambda _: None,
) -> RatioDocument:
    """Measure both installations and judge every algorithm on every workload.

    A candidate regression of the first pairs is replicated in as many new ones. All blocks are in the
    document, so that everything that is printed follows from it.

    Args:
        installations: `old` and `new`. seed: of the order of everything. note: takes lines on progress.

    Returns:
        the document that `--json` prints.

    Raises:
        UsageError: an installation cannot run a workload. Undecided: a process failed.
    """
    rng = random.Random(seed)
    # Two stages: only a candidate of the first set of pairs pays for a second, and both sets must agree.
    cells = [(algorithm, workload) for algorithm in algorithms for workload in workloads]
    gate = protocol.gate
    first, installed = _stage(installations, cells, protocol, rng, note, "pair")
    candidates = [c for c in cells if verdict(ratio_test(_log_ratios(first[c], gate))) == "candidate"]
    second: dict[Cell, list[Pair]] = {}
    if candidates:
        names = ", ".join(map(label, candidates))
        note(f"candidate regressions, to be replicated in {protocol.pairs} new pairs: {names}")
        second, _ = _stage(installations, candidates, protocol, rng, note, "replication pair")
    rows = [_row(cell, gate, first[cell], second.get(cell)) for cell in cells]
    return {
        "schema": SCHEMA,
        "sides": {
            name: {"name": found.name, "commit": found.commit, "versions": installed[name]}
            for name, found in ((name, installations[name]) for name in NAMES)
        },
        "protocol": {
            "pairs": protocol.pairs,
            "blocks": protocol.blocks,
            "block_s": protocol.block_s,
            "warm_s": protocol.warm_s,
            "device": protocol.device,
            "gate": gate,
            "seed": seed,
        },
        "platform": f"{platform.system()} {platform.machine()}",
        "comparisons": len(cells),
        "false_alarm_bound": false_alarm_bound(len(cells)),
        "verdict": overall([row["verdict"] for row in rows]),
        "rows": rows,
    }


def overall(verdicts: Sequence[Verdict]) -> Overall:
    """A regression anywhere is one; without one, anything inconclusive leaves no pass."""
    return (
        "regression" if "regression" in verdicts else "inconclusive" if "inconclusive" in verdicts else "pass"
    )


def label(cell: Cell) -> str:
    """`dpo on table`."""
    return f"{cell[0]} on {cell[1]}"


def _stage(
    installations: Mapping[Side, Installation],
    cells: Sequence[Cell],
    protocol: Protocol,
    rng: random.Random,
    note: Callable[[str], None],
    word: str,
) -> tuple[dict[Cell, list[Pair]], dict[Side, Versions]]:
    """New pairs, each of which measures all cells."""
    out: dict[Cell, list[Pair]] = {cell: [] for cell in cells}
    installed: dict[Side, Versions] = {}
    began = time.monotonic()
    for done in range(protocol.pairs):
        left = (time.monotonic() - began) / done * (protocol.pairs - done) if done else None
        note(
            f"{word} {done + 1} of {protocol.pairs}" + ("" if left is None else f", about {left:.0f} s left")
        )
        found, installed = measure(installations, cells, protocol, rng)
        for cell, blocks in found.items():
            out[cell].append(blocks)
    return out, installed


def _per_step(blocks: Sequence[Block], clock: Clock) -> list[float]:
    """Seconds per step of every block."""
    return [(block[clock] or 0.0) / block["steps"] for block in blocks]


def _log_ratios(pairs: Sequence[Pair], clock: Clock) -> list[float]:
    return [pair_log_ratio(_per_step(pair["old"], clock), _per_step(pair["new"], clock)) for pair in pairs]


def _row(cell: Cell, gate: Clock, first: list[Pair], second: list[Pair] | None) -> RatioRow:
    """One comparison, with its tests, its verdict and its blocks."""
    tests = [ratio_test(_log_ratios(pairs, gate)) for pairs in (first, second) if pairs]
    return {
        "algorithm": cell[0],
        "workload": cell[1],
        "verdict": verdict(*tests),
        "test": tests[0].document(),
        "confirmation": tests[1].document() if second else None,
        "wall": ratio_test(_log_ratios(first, "wall_s")).document(),
        "step_s": {
            name: statistics.median([s for pair in first for s in _per_step(pair[name], gate)])
            for name in NAMES
        },
        "pairs": first,
        "confirmation_pairs": second,
    }
