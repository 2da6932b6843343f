"""The power of `compare --ab`: probability of each verdict by true ratio and noise, all rules simulated.

    python -m benchmarks.ab_power --trials 20000

prints the table of docs/ab.md. Log-ratios of blocks are drawn with two kinds of noise: one draw per pair of
processes, which all its blocks share, and one per block, of which one in twenty is struck by other work and
takes longer by half.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence

import numpy as np

from xpo_bench.compare.speed.ratio_test import RatioTest, Verdict, pair_log_ratio, ratio_test, verdict

RATIOS = (1.0, 1.05, 1.1, 1.15, 1.25)
NOISE = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
"""Standard deviation of a pair's log-ratio over new pairs of processes."""
BLOCK_NOISE = 0.05
"""Standard deviation of the log of a block's time inside one process."""
STRUCK, LONGER = 0.05, 1.5
"""Fraction of blocks that other work strikes, and by what they take longer."""
PAIRS, BLOCKS = 8, 12
VERDICTS: tuple[Verdict, ...] = ("pass", "improvement", "regression", "inconclusive")


def blocks(rng: np.random.Generator, ratio: float, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Times per step of the blocks of one pair, shape (BLOCKS,) each.

    Args:
        ratio: true ratio new / old. noise: standard deviation of the pair's own log-ratio.
    """
    shared = rng.normal(0.0, noise)
    sides = np.exp(rng.normal(0.0, BLOCK_NOISE, (2, BLOCKS))) * np.where(
        rng.random((2, BLOCKS)) < STRUCK, LONGER, 1.0
    )
    return sides[0], sides[1] * ratio * np.exp(shared)


def stage(rng: np.random.Generator, ratio: float, noise: float, pairs: int = PAIRS) -> RatioTest:
    """The test over new pairs."""
    return ratio_test([pair_log_ratio(*blocks(rng, ratio, noise)) for _ in range(pairs)])


def trial(rng: np.random.Generator, ratio: float, noise: float) -> Verdict:
    """One comparison by the rule of `compare --ab`."""
    first = stage(rng, ratio, noise)
    found = verdict(first)
    return verdict(first, stage(rng, ratio, noise)) if found == "candidate" else found


def shares(ratio: float, noise: float, trials: int, seed: int = 0) -> dict[Verdict, float]:
    """Share of the trials that end in each verdict."""
    rng = np.random.default_rng([seed, round(1e6 * ratio), round(1e6 * noise)])
    counted = Counter(trial(rng, ratio, noise) for _ in range(trials))
    return {name: counted[name] / trials for name in VERDICTS}


def table(trials: int, ratios: Sequence[float] = RATIOS, noises: Sequence[float] = NOISE) -> str:
    """Markdown: a row per noise, per ratio the shares of regression and of inconclusive in percent."""
    head = ["noise", *(f"{ratio:.2f}" for ratio in ratios)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for noise in noises:
        cells = [f"{100 * noise:g} %"]
        for ratio in ratios:
            found = shares(ratio, noise, trials)
            cells.append(f"{percent(found['regression'])} / {percent(found['inconclusive'])}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def percent(share: float) -> str:
    return "0" if share == 0 else f"{100 * share:.2g}" if share < 0.1 else f"{100 * share:.0f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20_000, help="comparisons per cell of the table")
    print(table(parser.parse_args().trials))
