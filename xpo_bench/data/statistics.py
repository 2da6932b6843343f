"""Statistics over the rows of a preference set: repetitions, contradictions, cycles, lengths, distances.

Pure functions of examples. Nothing here knows a model or a tokenizer: completions are compared as texts.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xpo_bench.contract.examples import Example, Pair, Single

Numbers = npt.NDArray[np.float64]
TIE = 0.5
"""p_chosen of a row without a preferred side."""


class Overlap(NamedTuple):
    """What stands on both sides of a split.

    Args:
        prompts, completions: distinct texts on both sides. prompt_rows, completion_rows: held-out rows that
            hold one.
    """

    prompts: int
    prompt_rows: int
    completions: int
    completion_rows: int


class Shared(NamedTuple):
    """Distinct completions that stand under more than one prompt, and the rows that hold one."""

    completions: int
    rows: int


class Contradictions(NamedTuple):
    """Comparisons (two completions of one prompt), those that rows decide both ways, and their rows.

    For unpaired rows a comparison is one completion of one prompt, and it is contradictory where both labels
    occur.
    """

    comparisons: int
    contradictory: int
    rows: int


class Triples(NamedTuple):
    """Triples of completions of one prompt with three decided comparisons, and those that are cycles."""

    compared: int
    cyclic: int


def completions(e: Example) -> tuple[str, ...]:
    """The completions of a row: chosen and rejected, or the only one."""
    return (e.chosen, e.rejected) if isinstance(e, Pair) else (e.completion,)


def repeated(examples: Sequence[Example]) -> int:
    """Rows that are equal to an earlier one in prompt, completions and label."""
    labels = (None if isinstance(e, Pair) else e.desirable for e in examples)
    return len(examples) - len(
        {(e.prompt, completions(e), label) for e, label in zip(examples, labels, strict=True)}
    )


def shared_completions(examples: Sequence[Example]) -> Shared:
    """Completions under more than one prompt, such as a refusal that answers many."""
    first: dict[str, str] = {}
    several: set[str] = set()
    for e in examples:
        for text in completions(e):
            if first.setdefault(text, e.prompt) != e.prompt:
                several.add(text)
    return Shared(len(several), sum(any(text in several for text in completions(e)) for e in examples))


def overlap(train: Sequence[Example], heldout: Sequence[Example]) -> Overlap:
    """Prompts and completions of held-out rows that training sees too."""
    # rows of a synthetic world are few objects, many times each
    rows = Counter(map(id, heldout))
    trained, held = (dict(zip(map(id, side), side, strict=True)).values() for side in (train, heldout))
    prompts = {e.prompt for e in trained}
    texts = {text for e in trained for text in completions(e)}
    return Overlap(
        len(prompts & {e.prompt for e in held}),
        sum(rows[id(e)] for e in held if e.prompt in prompts),
        len(texts & {text for e in held for text in completions(e)}),
        sum(rows[id(e)] for e in held if any(text in texts for text in completions(e))),
    )


def level(text: str) -> str:
    """A text without what a reader does not see: its Unicode form (NFC) and the amount of its white space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def same_but_for_spaces(pairs: Sequence[Pair]) -> int:
    """Pairs whose sides differ in white space or Unicode form alone."""
    return sum(level(e.chosen) == level(e.rejected) for e in pairs)


# --------------------------------------------------------------------------- preferences


def decided(pairs: Sequence[Pair]) -> Counter[tuple[str, str, str]]:
    """(prompt, preferred, other) -> rows that say so; ties say nothing."""
    return Counter((e.prompt, e.chosen, e.rejected) for e in pairs if e.p_chosen != TIE)


def contradictions(examples: Sequence[Example]) -> Contradictions:
    """Comparisons decided both ways: a > b and b > a for one prompt, or a completion with both labels."""
    sides: dict[Hashable, Counter[bool]] = {}
    for e in examples:
        if isinstance(e, Single):
            sides.setdefault((e.prompt, e.completion), Counter())[e.desirable] += 1
        elif e.p_chosen != TIE:
            forward = e.chosen < e.rejected
            key = (e.prompt, min(e.chosen, e.rejected), max(e.chosen, e.rejected))
            sides.setdefault(key, Counter())[forward] += 1
    both = [found for found in sides.values() if len(found) > 1]
    return Contradictions(len(sides), len(both), sum(found.total() for found in both))


def unanimity(pairs: Sequence[Pair]) -> tuple[int, int]:
    """Rows whose preference probability is known, and those of them at which it is 1."""
    known = [e.p_chosen for e in pairs if e.p_chosen is not None]
    return len(known), sum(p == 1 for p in known)


def intransitive(pairs: Sequence[Pair]) -> Triples:
    """Cycles a > b > c > a among the completions of one prompt.

    A comparison is decided by the majority of its rows, and counts only where there is one. Neighbours are
    bits of an integer, so that a prompt with n completions and m comparisons takes m·n/64 operations.
    """
    won = decided(pairs)
    edges: dict[str, list[tuple[str, str]]] = {}
    for (prompt, better, worse), rows in won.items():
        if rows > won.get((prompt, worse, better), 0):
            edges.setdefault(prompt, []).append((better, worse))
    found = [_triples(of_prompt) for of_prompt in edges.values() if len(of_prompt) > 2]
    return Triples(sum(t.compared for t in found), sum(t.cyclic for t in found))


def _triples(edges: Sequence[tuple[str, str]]) -> Triples:
    """Of one prompt; `edges` are (better, worse), each comparison once."""
    degree = Counter(text for edge in edges for text in edge)
    # what is compared most has the lowest bits, so that the integers of what is compared once are short
    bit = {text: k for k, (text, _) in enumerate(degree.most_common())}
    beats, beaten = [0] * len(bit), [0] * len(bit)
    for better, worse in edges:
        beats[bit[better]] |= 1 << bit[worse]
        beaten[bit[worse]] |= 1 << bit[better]
    compared = cyclic = 0
    for better, worse in edges:
        a, b = bit[better], bit[worse]
        compared += ((beats[a] | beaten[a]) & (beats[b] | beaten[b])).bit_count()
        cyclic += (beats[b] & beaten[a]).bit_count()  # worse > c > better
    return Triples(compared // 3, cyclic // 3)  # each was met at its three edges


# --------------------------------------------------------------------------- lengths and distances


def longer_wins(chosen: npt.ArrayLike, rejected: npt.ArrayLike) -> Numbers:
    """What "prefer the longer" scores on each pair: 1, 0, or ½ where lengths are equal; shape (n,)."""
    difference = np.asarray(chosen, dtype=np.float64) - np.asarray(rejected, dtype=np.float64)
    return 0.5 + 0.5 * np.sign(difference)


def edit_distances(
    pairs: Sequence[tuple[Sequence[Hashable], Sequence[Hashable]]],
    tell: Callable[[int], None] = lambda done: None,
) -> Numbers:
    """Levenshtein distance over the longer side's length, 0 (equal) to 1, of texts or ids; shape (n,).

    Args:
        tell: is called with the number of pairs that are done, now and then.

    Source: Levenshtein 1966; the normalisation of Pal et al. 2024, §3.
    """
    from rapidfuzz.distance import Levenshtein

    out = np.empty(len(pairs))
    for i, (a, b) in enumerate(pairs):
        out[i] = Levenshtein.normalized_distance(a, b)
        if i % 1024 == 0:
            tell(i)
    return out


def prompt_index(examples: Sequence[Example]) -> npt.NDArray[np.int64]:
    """The number of each row's prompt, in order of appearance, shape (n,)."""
    order: dict[str, int] = {}
    return np.array([order.setdefault(e.prompt, len(order)) for e in examples], dtype=np.int64)
