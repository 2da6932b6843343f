"""Data sets as tasks return them: loading, splitting, fingerprints.

The names in `__all__` are public: tasks of third parties may import them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from json.encoder import encode_basestring_ascii as quoted

import numpy as np

from xpo_bench.contract.examples import Dataset, Example, Pair, Text, World
from xpo_bench.contract.settings import DataSpec, ModelSpec
from xpo_bench.data import sources
from xpo_bench.data.chat import Chat
from xpo_bench.data.formats import Bad, parse
from xpo_bench.data.labels import tie_part, uncertain
from xpo_bench.data.layouts import TRL, advice, arrange, count
from xpo_bench.data.sources import Loaded
from xpo_bench.data.split_column import column_values
from xpo_bench.data.splits import held_out
from xpo_bench.data.statistics import TIE
from xpo_bench.data.strengths import parse_link
from xpo_bench.data.world_file import world_of
from xpo_bench.errors import DataError

__all__ = ["dataset_of", "load_dataset"]

TABULAR = ModelSpec()


def load_dataset(
    spec: DataSpec, heldout: float, rng: np.random.Generator, model: ModelSpec = TABULAR
) -> Dataset:
    """Read, check and split a preference set.

    The `split` column decides where it holds anything out; of other sets the fraction `heldout`, drawn by
    `rng`, is held out: whole prompts, or rows or values of a column where the spec says so. Rows with
    p_chosen = 1/2 are kept: what training makes of them is up to `--labels`. The actions of the world come
    from all rows.

    Args:
        heldout: fraction of rows in [0, 1); 0 for a set whose `split` column holds some out.
        model: whose chat template conversational rows are rendered with.

    Raises:
        DataError: the set, one of its rows or the world file is wrong; one line.
    """
    return dataset_of(sources.load(spec), spec, heldout, rng, model)


def dataset_of(
    loaded: Loaded,
    spec: DataSpec,
    heldout: float,
    rng: np.random.Generator,
    model: ModelSpec = TABULAR,
) -> Dataset:
    """Check and split raw rows: what `load_dataset` does once it has read them."""
    dataset = examine(loaded, spec, heldout, rng, model).dataset
    if not dataset.train:
        raise DataError(
            f"{loaded.source}: every row is held out by its split column; want rows with split train"
        )
    return dataset


@dataclass(frozen=True)
class Examined:
    """A data set together with where its examples stand in the file.

    Args:
        numbers: the row number of each example, those of `dataset.train` and then those of `dataset.heldout`.
        bad: the first rows that were left out.
    """

    dataset: Dataset
    numbers: tuple[int, ...]
    bad: tuple[Bad, ...]


def examine(
    loaded: Loaded,
    spec: DataSpec,
    heldout: float,
    rng: np.random.Generator,
    model: ModelSpec = TABULAR,
) -> Examined:
    """The data set of raw rows, with the rows' numbers and the bad ones; it may hold out all of them."""
    source = loaded.source
    chat = Chat(model)
    link = None if spec.strength is None else parse_link(spec.strength)
    arranged = arrange(loaded.rows, source, spec.columns, spec.rankings, link)
    parsed = parse(arranged.rows, source, spec.on_bad_row, chat.row, advice)
    values = column_values(loaded.rows, arranged, spec, parsed.numbers, source) if heldout else None
    out = held_out(parsed, heldout, spec.split_by, rng, source, values)
    train, held = (
        tuple(e for e, o in zip(parsed.examples, out, strict=True) if o == side) for side in (False, True)
    )
    dataset = Dataset(
        train=train,
        heldout=held,
        source=source,
        rows=len(loaded.rows),
        dropped=parsed.dropped,
        layout=arranged.layout,
        columns=arranged.columns,
        notes=count(parsed.notes, arranged.notes),
        kind=parsed.kind,
        labelled=uncertain(train),
        revision=loaded.revision,
        world=world_of((*train, *held), spec.world),
        template=chat.kind,
        template_date=chat.date,
    )
    # row numbers in the order of the data set: training rows first, then held-out ones
    order = [*np.flatnonzero(~out), *np.flatnonzero(out)]
    return Examined(dataset, tuple(parsed.numbers[i] for i in order), parsed.bad)


def about(dataset: Dataset) -> str | None:
    """One line on what is unusual about a set: its layout, dropped rows, notes; None for a plain one."""
    told = []
    if dataset.layout and (dataset.layout != TRL or dataset.columns):
        names = ", ".join(f"{new} from {old}" for new, old in dataset.columns.items())
        told.append(f"layout {dataset.layout} ({names})" if names else f"layout {dataset.layout}")
    if dataset.dropped:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in dataset.dropped.items())
        total = sum(dataset.dropped.values())
        told.append(f"{total:,} row{'s' * (total != 1)} dropped: {reasons}")
    told += [f"{n:,} row{'s' * (n != 1)}: {what}" for what, n in dataset.notes.items()]
    return f"{dataset.source}: {'; '.join(told)}" if told else None


def _texts(e: Example) -> tuple[str, ...]:
    return (e.prompt, e.chosen, e.rejected) if isinstance(e, Pair) else (e.prompt, e.completion)


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


REMEMBERED = 1 << 14
"""Pairs whose lines are remembered at most."""


@dataclass
class _Remembered:
    """What was written of pairs lately: those of a synthetic world are few objects, which all seeds share.

    Attributes:
        lines: by the identity of the pair. pairs: held, so that no other object gets the identity of one.
    """

    lines: dict[int, bytes] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)


@lru_cache(maxsize=4)
def _remembered(split: str, persons: bool) -> _Remembered:
    return _Remembered()


def _written(examples: Sequence[Example], split: str, persons: bool) -> bytes:
    """The lines of all examples, one after the other."""
    known = _remembered(split, persons)
    examples = tuple(examples)  # held while their identities count
    numbers = list(map(id, examples))
    new = {n: e for n, e in zip(numbers, examples, strict=True) if n not in known.lines}
    lines = {n: "".join(_lines(e, split, persons)).encode() for n, e in new.items()}
    every = known.lines | lines if lines else known.lines
    written = b"".join(map(every.__getitem__, numbers))
    if len(known.lines) + len(lines) <= REMEMBERED:
        pairs = {n: e for n, e in new.items() if isinstance(e, Pair)}
        known.lines.update({n: lines[n] for n in pairs})
        known.pairs.extend(pairs.values())
    elif known.lines:
        _remembered.cache_clear()
    return written


def _lines(e: Example, split: str, persons: bool) -> Iterator[str]:
    """An example as lines of JSON; `persons`: whether whose it is may be told."""
    if isinstance(e, Pair):
        # what the encoder writes of a list, several times as fast
        words = ",".join(map(quoted, (split, "pair", e.prompt, e.chosen, e.rejected)))
        yield f"[{words},{_encode(e.p_chosen)},{_encode(e.source)}]\n"
    else:
        yield _encode([split, "single", e.prompt, e.completion, e.desirable, e.source, dict(e.values)]) + "\n"
    # added only where there is something, so that plain rows keep the fingerprint that they had
    if persons and e.person is not None:  # a task's own persons change with its version
        yield _encode(["person", e.person]) + "\n"
    if isinstance(e, Pair) and tie_part(e) != float(e.p_chosen == TIE):
        yield _encode(["tie", e.p_tie]) + "\n"
    told = [text.tokens for text in _texts(e) if isinstance(text, Text)]
    if told:
        yield _encode(["tokens", told]) + "\n"


def fingerprint(dataset: Dataset) -> str:
    """blake2b (32 hex digits) of all that can change results: rows in order, split, kind and world."""
    digest = blake2b(digest_size=16)

    def add(*content: object) -> None:
        digest.update(_encode(content).encode() + b"\n")

    add(dataset.kind)
    for split, examples in (("train", dataset.train), ("heldout", dataset.heldout)):
        digest.update(_written(examples, split, bool(dataset.layout)))
    world = dataset.world
    if world is not None:
        for prompt, texts in world.actions.items():
            reference, reward = world.reference.get(prompt), world.reward.get(prompt)
            add("world", prompt, texts, reference and dict(reference), reward and dict(reward))
        if world.exhaustive:
            add("exhaustive")
        for prompt, lengths in world.lengths.items():
            add("lengths", prompt, dict(lengths))
        if world.tokens:
            add("tokens")
        if world.beta != World.beta:
            add("beta", world.beta)
        for prompt, preference in world.preference.items():
            add("preference", prompt, [[*both, p] for both, p in preference.items()])
        for prompt, features in world.features.items():
            add("features", prompt, {text: list(values) for text, values in features.items()})
    for item in dataset.corpus:
        add("corpus", item.prompt, item.text)
    return digest.hexdigest()
