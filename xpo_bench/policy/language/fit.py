"""How the rows of a data set fit a language model: what is truncated, what merges, and which rows say nothing
to it.

Both sides of a pair are looked at together: they stand behind the same prompt ids, and a pair whose sides
have equal ids for the model (by Unicode normalisation, or since they were truncated) is no preference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from xpo_bench.contract.examples import Completion, Example, Pair, Single, Text
from xpo_bench.policy.language.tokenize import Row, Tokens, fit_row, tokens
from xpo_bench.policy.language.tokenizers import Tokenizer

TOO_LONG = "longer than the context"
NO_ROOM = "prompt fills the context"
EQUAL = "equal token ids"
CHUNK = 4096
"""Rows that are tokenised at a time: their ids are let go again."""


@dataclass(frozen=True)
class Fitted:
    """Rows as a model can take them.

    Args:
        examples: as many as were given; texts of rows that are truncated or merge say so (`Text`).
        left_out: index -> reason, of rows that are neither trained on nor evaluated.
        truncated: rows of which something was truncated. merged: rows of which prompt and completion share a
            token.
    """

    examples: tuple[Example, ...]
    left_out: Mapping[int, str] = field(default_factory=dict)
    truncated: int = 0
    merged: int = 0

    @property
    def reasons(self) -> dict[str, int]:
        """Reason -> rows left out."""
        return dict(sorted(Counter(self.left_out.values()).items()))


def fit(
    tokenizer: Tokenizer, examples: Sequence[Example], *, context: int, eos: bool, truncate: str
) -> Fitted:
    """Tokenise rows and settle what becomes of each.

    Raises:
        DataError: a prompt or completion without tokens.
    """
    out: list[Example] = []
    left_out: dict[int, str] = {}
    truncated = merged = 0
    for first in range(0, len(examples), CHUNK):
        part = examples[first : first + CHUNK]
        sides = [sides_of(e) for e in part]
        distinct = list(dict.fromkeys(c for side in sides for c in side))
        found = dict(zip(distinct, tokens(tokenizer, distinct, eos), strict=True))
        for e, side in zip(part, sides, strict=True):
            known = [found[c] for c in side]
            told, reason, cut = _row_of(e, known, context, truncate, tokenizer.lead)
            if reason:
                left_out[len(out)] = reason
            else:
                truncated += cut
                merged += any(len(k.prompt) < k.own for k in known)
            out.append(told)
    return Fitted(tuple(out), left_out, truncated, merged)


def sides_of(e: Example) -> tuple[Completion, ...]:
    """The completions of a row: chosen before rejected, or the one that an unpaired row has."""
    if isinstance(e, Pair):
        return Completion(e.prompt, e.chosen), Completion(e.prompt, e.rejected)
    return (Completion(e.prompt, e.completion),)


def _row_of(
    e: Example, sides: Sequence[Tokens], context: int, truncate: str, lead: Sequence[int]
) -> tuple[Example, str | None, bool]:
    """The row with what its texts have to say, why it is left out, and whether it is truncated."""
    shift = max(side.own - len(side.prompt) for side in sides)
    if shift and len(sides) > 1:  # both sides begin where the first of them differs from the prompt
        sides = [_begun(side, side.own - shift) for side in sides]
    longest = max(len(side.completion) for side in sides)
    over = len(sides[0].prompt) + longest > context
    reserve = min(longest, context - 1) if over and truncate == "prompt" else 0
    if over and truncate == "drop":
        return e, TOO_LONG, False
    rows: list[Row] = []
    for side in sides:
        row, _ = fit_row(side, context, truncate, lead, reserve)
        if row is None:
            return e, NO_ROOM, False
        rows.append(row)
    if len(rows) > 1 and rows[0] == rows[1]:
        return e, EQUAL, False
    if not reserve and not (shift and len(sides) > 1):
        return e, None, over
    changes = {"reserve": reserve, "shift": shift if len(sides) > 1 else 0}
    if isinstance(e, Single):
        return replace(e, completion=Text.of(e.completion, **changes)), None, over
    return (
        replace(e, chosen=Text.of(e.chosen, **changes), rejected=Text.of(e.rejected, **changes)),
        None,
        over,
    )


def _begun(side: Tokens, start: int) -> Tokens:
    """The same ids with the completion beginning at `start`."""
    moved = len(side.prompt) - start
    if moved <= 0:
        return side
    unscored = tuple((a + moved, b + moved) for a, b in side.unscored)
    return Tokens(side.prompt[:start], side.prompt[start:] + side.completion, unscored, side.own)
