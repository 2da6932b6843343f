"""The validation split: a part of the training rows that configurations are chosen on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xpo_bench.contract.examples import Dataset
from xpo_bench.data.world_file import world_of

FRACTION = 0.2
"""Fraction of the training rows that validate."""


def validation_split(dataset: Dataset, rng: np.random.Generator, whole_prompts: bool) -> Dataset | None:
    """The data set with its training rows divided: `heldout` of the result is the validation split.

    The held-out rows of the given set are in neither part. The world stays that of all rows, so that a table
    has the same actions with and without a validation split.

    Args:
        rng: the stream named `validation`. whole_prompts: keep the rows of one prompt on one side, for
            policies that generalise over prompts; a tabular policy learns nothing of prompts that it has not
            seen, so its rows are drawn singly.

    Returns:
        the divided set, or None where there is one unit only, which cannot be divided.
    """
    rows = dataset.train
    units: dict[object, list[int]] = {}
    for i, row in enumerate(rows):
        units.setdefault(row.prompt if whole_prompts else i, []).append(i)
    if len(units) < 2:
        return None
    order = list(units.values())
    count = min(max(round(FRACTION * len(order)), 1), len(order) - 1)
    out = {i for unit in rng.permutation(len(order))[:count] for i in order[unit]}
    return replace(
        dataset,
        train=tuple(row for i, row in enumerate(rows) if i not in out),
        heldout=tuple(row for i, row in enumerate(rows) if i in out),
        world=dataset.world or (None if whole_prompts else world_of((*rows, *dataset.heldout))),
    )
