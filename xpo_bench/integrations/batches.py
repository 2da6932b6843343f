"""The rows that a trainer trains on, as ids: read from what its own collator makes of its own data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from xpo_bench.errors import UsageError
from xpo_bench.policy.language.tokenize import Row

LOOKED_AT = 64
"""Rows that are collated for each one that is wanted, at most, before a set is taken to have none."""


@dataclass(frozen=True)
class TrainedRows:
    """A fixed sample of what is trained on.

    Args:
        chosen, rejected: completions with their prompts; of unpaired data the desirable and the undesirable
            ones, which may differ in number.
        paired: whether chosen and rejected at one place answer one prompt.
    """

    chosen: tuple[Row, ...]
    rejected: tuple[Row, ...]
    paired: bool

    @property
    def prompts(self) -> list[tuple[int, ...]]:
        """The distinct prompts, in order."""
        return list(dict.fromkeys(row.ids[: row.start] for row in (*self.chosen, *self.rejected)))


def sample_rows(trainer: Any, count: int, rng: np.random.Generator) -> TrainedRows:
    """`count` rows of a trainer's data set in a random order of their own, through its collator.

    Rows of which truncation has left no completion are passed over.

    Raises:
        UsageError: the batches are not those of a preference trainer, or hold no completion.
    """
    chosen: list[Row] = []
    rejected: list[Row] = []
    paired = True
    for row in _rows(trainer.get_train_dataloader(), count, rng):
        sides = _sides(row)
        paired = None not in sides
        if any(side is not None and not side.length for side in sides):
            continue
        for found, into in zip(sides, (chosen, rejected), strict=True):
            if found is not None:
                into.append(found)
        if max(len(chosen), len(rejected)) >= count or (not paired and len(chosen) + len(rejected) >= count):
            break
    if not chosen and not rejected:
        raise UsageError(
            "PreferenceDiagnostics: no row of the trainer's data set has a completion to evaluate"
        )
    return TrainedRows(tuple(chosen), tuple(rejected), paired)


def _rows(loader: Any, count: int, rng: np.random.Generator) -> Any:
    """Batches of one row each. A stream is read from its beginning, as far as it is needed."""
    dataset, collate = loader.dataset, loader.collate_fn
    if not hasattr(dataset, "__len__"):
        for number, row in enumerate(dataset):
            if number >= LOOKED_AT * count:
                return
            yield collate([row])
        return
    for i in rng.permutation(len(dataset))[: LOOKED_AT * count].tolist():
        yield collate([dataset[i]])


def _sides(batch: Mapping[str, Any]) -> tuple[Row | None, Row | None]:
    """(chosen, rejected) of a batch of one row; None for the side that an unpaired example has not."""
    if "chosen_labels" in batch:  # experimental CPO and ORPO
        labelled = [(batch[f"{side}_labels"][0] != -100, side) for side in ("chosen", "rejected")]
        sides = [
            _row(batch[f"{side}_input_ids"][0], batch[f"{side}_attention_mask"][0], own)
            for own, side in labelled
        ]
        return sides[0], sides[1]
    if "completion_mask" not in batch:
        raise UsageError(
            "PreferenceDiagnostics: the trainer's batches have neither completion_mask nor chosen_labels, "
            f"want those of TRL's DPO, KTO, CPO or ORPO trainer, got {', '.join(sorted(batch))}"
        )
    parts = (batch[name] for name in ("input_ids", "attention_mask", "completion_mask"))
    rows = [_row(*row) for row in zip(*parts, strict=True)]
    if "label" in batch:  # KTO
        return (rows[0], None) if bool(batch["label"][0]) else (None, rows[0])
    return rows[0], rows[1]


def _row(input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor) -> Row:
    """One padded row as the model reads it, with the tokens whose log-probabilities the trainer takes."""
    there = attention_mask.bool()
    ids = tuple(input_ids[there].tolist())
    own = completion_mask.bool()[there].tolist()
    # nothing predicts the first token of a row: trainers shift labels by one
    scored = [i for i, taken in enumerate(own) if taken and i > 0]
    if not scored:
        return Row(ids, len(ids))
    start, end = scored[0], scored[-1] + 1
    return Row(ids[:end], start, _gaps(scored))


def _gaps(scored: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """What lies between stretches of scored places."""
    return tuple((a + 1, b) for a, b in pairwise(scored) if b > a + 1)
