"""`compare --ab`: the two-stage rule, applied to every algorithm and workload."""

from __future__ import annotations

import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xpo_bench.compare.speed.installations import Installation
from xpo_bench.compare.speed.pairs import NAMES, Cell, Protocol, measure
from xpo_bench.compare.speed.ratio_test import false_alarm_bound, pair_log_ratio, ratio_test, verdict

SCHEMA = 1


def measure_ratios(
    sides: Mapping[str, Installation],
    algorithms: Sequence[str],
    workloads: Sequence[str],
    protocol: Protocol,
    seed: int,
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure both sides and judge every algorithm on every workload.

    What is suspect after the first pairs is measured again in as many fresh ones. All blocks are in the
    document, so that everything that is printed follows from it.

    Args:
        sides: `old` and `new`. seed: of the order of everything. note: takes lines on progress.

    Returns:
        the document that `--json` prints.

    Raises:
        UsageError: a side cannot run a workload. Undecided: a process failed.
    """
    rng = random.Random(seed)
    cells = [(algorithm, workload) for algorithm in algorithms for workload in workloads]
    gate = "gpu_s" if protocol.device.startswith("cuda") else "cpu_s"
    first, installed = _stage(sides, cells, protocol, rng, note, "pair")
    suspects = [cell for cell in cells if verdict(ratio_test(_log_ratios(first[cell], gate))) == "suspect"]
    second: dict[Cell, list[dict[str, Any]]] = {}
    if suspects:
        note(f"suspect, measured again in {protocol.pairs} fresh pairs: {', '.join(map(label, suspects))}")
        second, _ = _stage(sides, suspects, protocol, rng, note, "fresh pair")
    rows = [_row(cell, gate, first[cell], second.get(cell)) for cell in cells]
    return {
        "schema": SCHEMA,
        "sides": {
            name: {"name": sides[name].name, "commit": sides[name].commit, "versions": installed[name]}
            for name in NAMES
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


def overall(verdicts: Sequence[str]) -> str:
    """A regression anywhere is one; otherwise what is inconclusive anywhere is no pass."""
    return next((found for found in ("regression", "inconclusive") if found in verdicts), "pass")


def label(cell: Cell) -> str:
    return f"{cell[0]} on {cell[1]}"


def _stage(
    sides: Mapping[str, Installation],
    cells: Sequence[Cell],
    protocol: Protocol,
    rng: random.Random,
    note: Callable[[str], None],
    word: str,
) -> tuple[dict[Cell, list[dict[str, Any]]], dict[str, Any]]:
    """Fresh pairs, each of which measures all cells."""
    out: dict[Cell, list[dict[str, Any]]] = {cell: [] for cell in cells}
    installed: dict[str, Any] = {}
    began = time.monotonic()
    for done in range(protocol.pairs):
        left = (time.monotonic() - began) / done * (protocol.pairs - done) if done else None
        note(
            f"{word} {done + 1} of {protocol.pairs}" + ("" if left is None else f", about {left:.0f} s left")
        )
        found, installed = measure(sides, cells, protocol, rng)
        for cell, blocks in found.items():
            out[cell].append(blocks)
    return out, installed


def _per_step(blocks: Sequence[Mapping[str, Any]], clock: str) -> list[float]:
    """Seconds per step of every block."""
    return [block[clock] / block["steps"] for block in blocks]


def _log_ratios(pairs: Sequence[Mapping[str, Any]], clock: str) -> list[float]:
    return [pair_log_ratio(_per_step(pair["old"], clock), _per_step(pair["new"], clock)) for pair in pairs]


def _row(
    cell: Cell, gate: str, first: list[dict[str, Any]], second: list[dict[str, Any]] | None
) -> dict[str, Any]:
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
