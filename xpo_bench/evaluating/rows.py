"""The rows of an evaluation with their numbers in the file, and the texts of other sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xpo_bench.contract.examples import Completion, Example, Pair
from xpo_bench.contract.settings import DataSpec, ModelSpec
from xpo_bench.data.adhoc import task_name
from xpo_bench.data.dataset import Examined, examine
from xpo_bench.data.sources import load
from xpo_bench.errors import DataError, UsageError
from xpo_bench.evaluating.words import Words
from xpo_bench.random_streams import stream


@dataclass(frozen=True)
class BaseSet:
    """The chosen texts of another set."""

    name: str
    source: str
    texts: tuple[Completion, ...]
    fingerprint: str


def spec_of(words: Words, source: str) -> DataSpec:
    """How a set is read."""
    own = source == words.data
    return DataSpec(
        source=source,
        rows=words.rows,
        on_bad_row=words.on_bad_row,  # type: ignore[arg-type]
        columns=words.columns if own else None,
        rankings=words.rankings,  # type: ignore[arg-type]
        split_by=words.split_by,
    )


def read(words: Words, model: ModelSpec) -> Examined:
    """The set that is evaluated, split as `run` splits it; all of it is training rows where none is.

    Args:
        model: whose chat template renders conversations.
    """
    spec = spec_of(words, words.data)
    rng = stream(0, task_name(words.data), "data")
    found = examine(load(spec), spec, words.heldout, rng, model)
    dataset = found.dataset
    if not dataset.train and dataset.heldout:  # a test file: there is nothing else to tell it from
        dataset = replace(dataset, train=dataset.heldout, heldout=())
    if not dataset.train:
        raise DataError(f"{words.data}: no row is left to evaluate; at least one is needed")
    if dataset.kind == "forget_retain":
        raise UsageError(f"{words.data}: rows to forget and to retain are no preferences")
    return replace(found, dataset=dataset)


def base_set(words: Words, source: str, model: ModelSpec) -> BaseSet:
    """The chosen (desirable) texts of a set, each once, of all its splits."""
    from xpo_bench.data.dataset import fingerprint

    spec = spec_of(words, source)
    dataset = examine(load(spec), spec, 0.0, stream(0, task_name(source), "data"), model).dataset
    texts = [_good(e) for e in (*dataset.train, *dataset.heldout)]
    good = tuple(dict.fromkeys(text for text in texts if text is not None))
    if not good:
        raise DataError(f"{source}: holds no chosen text; at least one is needed")
    return BaseSet(task_name(source), source, good, fingerprint(dataset))


def _good(e: Example) -> Completion | None:
    if isinstance(e, Pair):
        return Completion(e.prompt, e.chosen)
    return Completion(e.prompt, e.completion) if e.desirable else None


def selected(
    examples: Sequence[Example], left_out: Sequence[int], task: str, most: int | None, heldout: bool
) -> list[int]:
    """Places of the rows that are evaluated, in the order that `run` evaluates them in.

    Args:
        examples: of a split. left_out: those that do not fit the model. most: of them, None for all.
    """
    lost = set(left_out)
    order = stream(0, task, "order", "heldout" if heldout else "evaluation").permutation(len(examples))
    found = [int(i) for i in order if i not in lost][:most]
    return found if heldout else sorted(found)


def numbers_of(found: Examined) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Row numbers of the training and of the held-out examples."""
    n = len(found.dataset.train)
    return found.numbers[:n], found.numbers[n:]
