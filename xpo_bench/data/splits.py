"""Held-out examples of a preference set: those of its `split` column, or a fraction that is drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from xpo_bench.contract.examples import Example
from xpo_bench.data.formats import Parsed
from xpo_bench.errors import DataError

WORDS = ("prompt", "row")
"""What rows are divided by, other than a column of the set."""


def held_out(
    parsed: Parsed,
    share: float,
    by: str,
    rng: np.random.Generator,
    source: str,
    values: Sequence[str] | None = None,
) -> npt.NDArray[np.bool_]:
    """Which examples are held out, shape (n,).

    Args:
        share: fraction of the examples in [0, 1) to hold out of a set that holds out none itself.
        by: keep the rows of a prompt on one side, or draw rows one by one; else the name of a column.
        values: of that column, one for each example, whose rows are kept on one side.

    Raises:
        DataError: a share is asked for of a set that has a split of its own, or of one that cannot be
            divided.
    """
    out = np.array([split == "heldout" for split in parsed.splits])
    if not share:
        return out
    if own := int(out.sum()):
        # two answers to one question: taking either silently would report on rows that nobody meant
        raise DataError(
            f"{source}: --heldout {share:g}, but the split of the set holds out {own:,} of its {len(out):,} "
            "rows already; leave out --heldout, or take the split column out of the set"
        )
    if len(out) < 2:
        raise DataError(f"{source}: 1 row cannot be divided; want at least 2 rows to hold some out")
    units = _units(parsed.examples, by, values)
    if len(units) < 2:
        one, more = ("prompt", "prompts") if values is None else (f"value of {by}", f"values of {by}")
        raise DataError(
            f"{source}: 1 {one} cannot be divided; want at least 2 {more} to hold some out, "
            f"or --split-by row, which divides the rows of a {one.split()[0]}"
        )
    for unit in _drawn(units, share, rng):
        out[unit] = True
    return out


def _units(examples: Sequence[Example], by: str, values: Sequence[str] | None) -> list[list[int]]:
    """The places of the examples that stay together, in file order."""
    units: dict[object, list[int]] = {}
    for i, e in enumerate(examples):
        own = values[i] if values is not None else e.prompt if by == "prompt" else i
        units.setdefault(own, []).append(i)
    return list(units.values())


def _drawn(units: Sequence[Sequence[int]], share: float, rng: np.random.Generator) -> list[Sequence[int]]:
    """Units in random order, as many as come nearest to the share of rows; at least one on each side."""
    order = [units[i] for i in rng.permutation(len(units))]
    rows = np.cumsum([len(unit) for unit in order])
    n = int(rows[-1])
    wanted = min(max(round(share * n), 1), n - 1)
    # where each prompt has one row, this is the draw of single rows, bit for bit
    count = int(np.abs(rows - wanted).argmin()) + 1
    return order[: min(count, len(units) - 1)]


def unseen_prompts(unseen: int, heldout: int, whole: bool) -> str:
    """What becomes of held-out rows with a tabular policy where some of their prompts are not trained on.

    Args:
        whole: whether `--heldout` drew whole prompts or values of a column, so that drawing rows is a remedy.
    """
    remedy = "; --split-by row holds out rows of prompts that are trained on" if whole else ""
    return (
        "no held-out metrics, since a tabular policy learns nothing of prompts that it has not seen, as "
        f"those of {unseen:,} of the {heldout:,} held-out rows{remedy}"
    )
