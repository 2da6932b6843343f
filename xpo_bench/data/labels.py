"""Labels as they were given: what a row says of the preference, and the rows of the loss that it becomes.

A pair with `p_chosen` p and `p_tie` t has three outcomes: chosen is better with probability p − t/2, rejected
with 1 − p − t/2, and t that neither is. Losses of two outcomes see a tie as half a win for each side; those
of algorithms that declare `ties` see it as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from xpo_bench.contract.examples import Example, Pair, Single
from xpo_bench.data.statistics import TIE

WHOLE = 1 - 1e-9
"""Shares of one row that sum to no less are all of it, up to rounding."""


def tie_part(e: Example) -> float:
    """The probability that the two sides of a row tie: `p_tie`, else 1 at p_chosen = 1/2, else 0."""
    if isinstance(e, Single):
        return 0.0
    return e.p_tie if e.p_tie is not None else float(e.p_chosen == TIE)


def uncertain(examples: Iterable[Example]) -> bool:
    """Whether some row says anything else than that its chosen side is preferred."""
    return any(isinstance(e, Pair) and e.p_chosen not in (None, 1.0) for e in examples)


def flipped(e: Example) -> Example:
    """The row with its label turned round: chosen and rejected swap, p_chosen becomes 1 − p_chosen."""
    if isinstance(e, Pair):
        p = None if e.p_chosen is None else 1 - e.p_chosen
        return replace(e, chosen=e.rejected, rejected=e.chosen, p_chosen=p)
    return replace(e, desirable=not e.desirable)


def flip_labels(examples: Sequence[Example], p: float, rng: np.random.Generator) -> list[Example]:
    """Flip each row's label with probability `p`, one draw per row.

    A pair swaps chosen and rejected, and p_chosen becomes 1 − p_chosen, so that soft labels are flipped as
    hard ones are; a tie stays one. A single toggles `desirable`. From one stream, the rows flipped at a
    smaller `p` are among those flipped at a larger one.
    """
    # u < p with one u per row: nested in p, and the stream does not depend on p
    flips = rng.random(len(examples)) < p
    return [flipped(e) if flip else e for e, flip in zip(examples, flips, strict=True)]


# --------------------------------------------------------------------------- one label a row


def decided(examples: Sequence[Example], ties: bool = False) -> list[int]:
    """Rows with a hard label, by number: those with p_chosen = 1/2 have none, unless a tie counts as one.

    Args:
        ties: the algorithm models ties.
    """
    return [i for i, e in enumerate(examples) if getattr(e, "p_chosen", None) != TIE or (ties and _tied(e))]


def _tied(e: Example) -> bool:
    """Whether a tie is the likeliest outcome of a row, and alone so."""
    return isinstance(e, Pair) and tie_part(e) > max(_outcomes(e)[:2])


def hardened(e: Example) -> Example:
    """The likeliest outcome of a row, for algorithms that model ties."""
    if not isinstance(e, Pair) or not tie_part(e):
        return e
    return _tie(e) if _tied(e) else replace(e, p_tie=0.0)


def sampled(examples: Sequence[Example], rng: np.random.Generator, ties: bool = False) -> list[Example]:
    """One label per row, drawn by its probabilities with one number of the stream; a tie is a fair coin.

    Args:
        ties: the algorithm models ties, which are drawn as such. The other labels are those of the draw
            without ties, wherever that draws none.
    """
    draws = rng.random(len(examples)).tolist()
    return [_drawn(e, u, ties) for e, u in zip(examples, draws, strict=True)]


def _drawn(e: Example, u: float, ties: bool) -> Example:
    if not isinstance(e, Pair) or e.p_chosen is None:
        return e
    tie = tie_part(e) if ties else 0.0
    # u below p chooses the first side, so the ties lie around p
    if abs(u - e.p_chosen) <= tie / 2 and tie:
        return _tie(e)
    side = e if u < e.p_chosen else flipped(e)
    return replace(side, p_tie=0.0) if ties and isinstance(side, Pair) else side


# --------------------------------------------------------------------------- several weighted rows


def softened(examples: Iterable[Example], ties: bool = False) -> list[Example]:
    """Every outcome of every row as a row of its own, one after the other, with its probability as `share`.

    A row that is certain stays as it is.

    Args:
        ties: the algorithm models ties: they are outcomes, and no half wins.
    """
    out: list[Example] = []
    for e in examples:
        if not isinstance(e, Pair) or e.p_chosen is None or (e.p_chosen == 1.0 and not tie_part(e)):
            out.append(e)
            continue
        other = flipped(e)
        assert isinstance(other, Pair)
        if ties:
            won, lost, tied = _outcomes(e)
            rows = [(replace(e, p_tie=0.0), won), (replace(other, p_tie=0.0), lost), (_tie(e), tied)]
        else:
            rows = [(e, e.p_chosen), (other, 1 - e.p_chosen)]
        out += [replace(row, share=e.share * part) for row, part in rows if part > 0]
    return out


def _outcomes(e: Pair) -> tuple[float, float, float]:
    """Probabilities that chosen wins, that rejected does, and of a tie."""
    p, tie = 1.0 if e.p_chosen is None else e.p_chosen, tie_part(e)
    won = min(max(p - tie / 2, 0.0), 1.0)
    return won, max(1 - tie - won, 0.0), tie


def _tie(e: Pair) -> Pair:
    return replace(e, p_chosen=TIE, p_tie=1.0)


def units(examples: Sequence[Example], each: int = 1) -> list[range]:
    """The rows that one row of the data has become, by number, which stay in one step together.

    Args:
        each: rows of an outcome: 2 where each pair stands as two unpaired examples.
    """
    out: list[range] = []
    start, total = 0, 0.0
    first = _texts(examples, 0, each) if examples else None
    for i in range(0, len(examples), each):
        texts = _texts(examples, i, each)
        if i > start and (total >= WHOLE or texts != first):
            out.append(range(start, i))
            start, total, first = i, 0.0, texts
        total += examples[i].share
    return [*out, range(start, len(examples))] if examples else []


def _texts(examples: Sequence[Example], i: int, each: int) -> tuple[str, frozenset[str]]:
    rows = examples[i : i + each]
    texts = ((e.chosen, e.rejected) if isinstance(e, Pair) else (e.completion,) for e in rows)
    return examples[i].prompt, frozenset(text for row in texts for text in row)


def carried(before: Sequence[Example], after: Sequence[Example]) -> Sequence[Example]:
    """What `shape_data` made of rows, with their shares where it made one of each in their order.

    An algorithm that annotates pairs builds new ones, and need not know of shares.
    """
    if len(before) != len(after) or all(e.share == 1.0 for e in before):
        return after
    if any(a is not b and _texts([a], 0, 1) != _texts([b], 0, 1) for a, b in zip(before, after, strict=True)):
        return after
    return [
        new if new.share == old.share else replace(new, share=old.share)
        for old, new in zip(before, after, strict=True)
    ]
