"""What an algorithm makes of a trainer's rows: examples, numbers per example and further completions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.examples import Completion, Example, Pair, Single
from xpo_bench.errors import UsageError

if TYPE_CHECKING:
    from datasets import Dataset

COLUMN, PROMPT, OWN = "xpo_column_", "xpo_prompt_", "xpo_completion_"
"""Beginnings of the names of columns that are added to a data set: numbers per example, and the ids of the
prompts and completions of groups that are neither side of a row's pair."""
ADDED = "xpo_"

OVERRIDES = ("shape_data", "stage_examples", "completions", "columns")


def shapes(algorithm: Algorithm) -> bool:
    """Whether the algorithm has a say in its data: only then are examples made of the rows."""
    return any(getattr(type(algorithm), name) is not getattr(Algorithm, name) for name in OVERRIDES)


def further_groups(algorithm: Algorithm) -> tuple[str, ...]:
    """Groups whose completions are neither side of a row's pair, as `completions` says."""
    if type(algorithm).completions is Algorithm.completions:
        return ()
    own = {"chosen", "rejected"} if algorithm.accepts is Pair else {"completion"}
    return tuple(name for name, group in algorithm.groups.items() if name not in own and not group.mismatched)


@dataclass
class RowTools:
    """`Tools` of a data set without a policy at hand; what needs one is refused by its name."""

    name: str
    rng: np.random.Generator
    examples: Sequence[Example]
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.examples)

    def note(self, name: str, value: float) -> None:
        self.notes[name] = value

    def __getattr__(self, tool: str) -> NoReturn:
        raise UsageError(
            f"{self.name}: its data needs tools.{tool}, which PreferenceTrainer has not; "
            f"`xpo-bench run --algos {self.name}` trains with it"
        )


def shaped(
    algorithm: Algorithm, dataset: Dataset, decode: Callable[[list[int]], str], rng: np.random.Generator
) -> Dataset:
    """A tokenised data set of pairs with what the algorithm reads beside the pair's own log-probabilities.

    Args:
        dataset: with `prompt_ids`, `chosen_ids` and `rejected_ids`, as TRL prepares it.
        decode: ids to text, for rows that hold messages or ids alone.

    Raises:
        UsageError: the algorithm drops, adds or reorders rows, or makes completions that are no row's.
    """
    pairs = _pairs(dataset, decode)
    examples = _unpaired(pairs) if algorithm.accepts is Single else pairs
    tools: Any = RowTools(algorithm.name, rng, examples)
    made = algorithm.stage_examples(0, algorithm.shape_data(examples, tools))
    if [_texts(example) for example in made] != [_texts(example) for example in examples]:
        raise UsageError(
            f"{algorithm.name}: its data has other rows than the {len(examples)} examples it was given, and "
            "PreferenceTrainer trains on the rows of its data set"
        )
    for name, values in _ids_by_group(algorithm, made, pairs, dataset).items():
        dataset = dataset.add_column(name, values)
    width = len(examples) // len(pairs)
    for name, column in algorithm.columns(made).items():
        numbers = [float(value) for value in column]
        rows = [numbers[i : i + width] for i in range(0, len(numbers), width)]
        dataset = dataset.add_column(COLUMN + name, rows)
    return dataset


def _pairs(dataset: Dataset, decode: Callable[[list[int]], str]) -> list[Pair]:
    sides = []
    for side in ("prompt", "chosen", "rejected"):
        known = side in dataset.column_names and isinstance(dataset[0][side], str)
        # rows of messages have become text by a template: the ids say which
        sides.append(dataset[side] if known else [decode(ids) for ids in dataset[f"{side}_ids"]])
    chances = dataset["p_chosen"] if "p_chosen" in dataset.column_names else [None] * len(dataset)
    rows = zip(*sides, chances, strict=True)
    return [Pair(prompt, chosen, rejected, p_chosen) for prompt, chosen, rejected, p_chosen in rows]


def _unpaired(pairs: Sequence[Pair]) -> list[Single]:
    return [
        Single(pair.prompt, text, desirable)
        for pair in pairs
        for text, desirable in ((pair.chosen, True), (pair.rejected, False))
    ]


def _texts(example: Any) -> tuple[object, ...]:
    if isinstance(example, Pair):
        return example.prompt, example.chosen, example.rejected
    return example.prompt, example.completion, example.desirable


def _ids_by_group(
    algorithm: Algorithm, made: Sequence[Any], pairs: Sequence[Pair], dataset: Dataset
) -> dict[str, list[list[int]]]:
    """The ids of the groups that `completions` adds to a pair, as columns of the data set."""
    further = further_groups(algorithm)
    if type(algorithm).completions is Algorithm.completions:
        return {}
    told = algorithm.completions(made)
    for name, wanted in Algorithm.completions(algorithm, made).items():
        if name not in further and list(told[name]) != list(wanted):
            raise UsageError(
                f"{algorithm.name}: completions() gives the group {name!r} other completions than the rows' "
                "own, which PreferenceTrainer has tokenised"
            )
    if not further:
        return {}
    if algorithm.accepts is Single:
        raise UsageError(
            f"{algorithm.name}: PreferenceTrainer scores one completion per unpaired example, and "
            f"completions() adds the group {further[0]!r}"
        )
    out: dict[str, list[list[int]]] = {}
    ids = _known_ids(pairs, dataset)
    for name in further:
        rows = [_found(algorithm, name, ids, completion) for completion in told[name]]
        out[PROMPT + name] = [prompt for prompt, _ in rows]
        out[OWN + name] = [own for _, own in rows]
    return out


Known = dict[Completion, tuple[list[int], list[int]]]


def _known_ids(pairs: Sequence[Pair], dataset: Dataset) -> Known:
    """(prompt, completion) ids of every completion of the data set."""
    out: Known = {}
    for side in ("chosen", "rejected"):
        ids = zip(dataset["prompt_ids"], dataset[f"{side}_ids"], strict=True)
        for pair, (prompt, own) in zip(pairs, ids, strict=True):
            out.setdefault(Completion(pair.prompt, getattr(pair, side)), (prompt, own))
    return out


def _found(
    algorithm: Algorithm, group: str, ids: Known, completion: Completion
) -> tuple[list[int], list[int]]:
    if completion not in ids:
        raise UsageError(
            f"{algorithm.name}: the group {group!r} has a completion that no row of the data set holds, and "
            f"PreferenceTrainer has tokenised those alone: {completion.text[:40]!r}"
        )
    return ids[completion]


@dataclass
class Carrying:
    """A trainer's collator, which also hands on what `shaped` added.

    Args:
        collator: makes a batch of a list of rows.
    """

    collator: Callable[[list[dict[str, Any]]], dict[str, Any]]

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self.collator(rows)
        for name in rows[0]:
            if name.startswith(COLUMN):
                # float64: columns are numbers of the contract, not of the model
                batch[name] = torch.tensor([row[name] for row in rows], dtype=torch.float64)
            elif name.startswith((OWN, PROMPT)):
                batch[name] = _padded([row[name] for row in rows])
        return batch


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Ids of rows, −1 behind the last."""
    width = max(1, max(len(row) for row in rows))
    return torch.tensor([list(row) + [-1] * (width - len(row)) for row in rows], dtype=torch.long)


def taken(batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A batch as the trainer knows it, and what was added to it."""
    added = {name: values for name, values in batch.items() if name.startswith(ADDED)}
    return {name: values for name, values in batch.items() if name not in added}, added


def ids_of(added: Mapping[str, Tensor], group: str) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(prompt, completion) ids of a further group, per row of a batch."""
    prompts, owns = (added[start + group].tolist() for start in (PROMPT, OWN))
    return [
        (tuple(t for t in prompt if t >= 0), tuple(t for t in own if t >= 0))
        for prompt, own in zip(prompts, owns, strict=True)
    ]
