"""Values of a preference row: labels, probabilities, votes and scores, and errors of unusable ones."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal

Row = Mapping[str, object]
VOTES = ("votes_chosen", "votes_rejected", "votes_tie")
TRUE = frozenset({
    "true", "t", "yes", "y", "1", "1.0", "+1", "good", "desirable", "desired", "positive", "like", "liked",
    "upvote", "thumbs_up", "thumbs up", "thumbsup", "chosen", "accept", "accepted",
})  # fmt: skip
FALSE = frozenset({
    "false", "f", "no", "n", "0", "0.0", "bad", "undesirable", "undesired", "negative", "dislike", "disliked",
    "downvote", "thumbs_down", "thumbs down", "thumbsdown", "rejected", "reject",
})  # fmt: skip

TIES = frozenset({
    "tie", "ties", "tied", "draw", "both", "equal", "same", "bothbad", "both bad", "neither",
})  # fmt: skip
"""Words of a verdict that prefers neither side, in lower case, with one blank for whatever is no letter."""
VERDICTS = ("label", "winner")
"""Columns of a pair that may say that it is a tie."""


class BadRow(Exception):
    """One row that cannot be used: a reason to count, and a sentence with what would be right."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def shown(value: object, limit: int = 60) -> str:
    """A value as one short printable line, for error messages."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def finite(value: object) -> float | None:
    """The value as a float when it is a finite number, else None; true and false are no numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond the range of a float
        return None


def numeric(value: object) -> float | None:
    """A finite number, also one that text spells, as every cell of a CSV file does; else None."""
    if isinstance(value, str):
        try:
            return finite(float(value))
        except ValueError:
            return None
    return finite(value)


def absent(value: object) -> bool:
    """Whether a cell holds nothing: null, or text without a visible character."""
    return value is None or (isinstance(value, str) and not value.strip())


def label_of(value: object) -> bool:
    """true or false, 1 or 0, or a word for one of them; other values would have to be guessed."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and (word := value.strip().lower()) in TRUE | FALSE:
        return word in TRUE
    number = numeric(value)
    if number in (0, 1):
        return number == 1
    if number is not None and number < 0:
        raise BadRow(
            "negative label",
            f"label is {shown(value)}: a negative number would count as desirable where truth is tested; "
            "want 1 or true, 0 or false",
        )
    raise BadRow(
        "label not boolean", f"label is {shown(value)}; want true (desirable) or false, 1 or 0, yes or no"
    )


def p_chosen_of(row: Row) -> float | None:
    given = row.get("p_chosen")
    lacking = [column for column in VOTES[:2] if absent(row.get(column))]
    if not absent(given):
        p = _number(given, "p_chosen")
        origin = f"p_chosen is {shown(p if isinstance(given, str) else given)}"
    elif len(lacking) == 1:
        raise BadRow(
            "missing column", f"votes without {lacking[0]}; want votes_chosen and votes_rejected, or neither"
        )
    elif not lacking:
        votes = (0 if absent(row.get(column)) else row[column] for column in VOTES)
        chosen, rejected, tie = (_number(value, column) for value, column in zip(votes, VOTES, strict=True))
        if min(chosen, rejected, tie) < 0 or chosen + rejected + tie == 0:
            raise BadRow(
                "p_chosen out of range",
                f"votes are {chosen:g}, {rejected:g}, {tie:g}; want one or more, none negative",
            )
        # a tie is half a vote for each side
        p = (chosen + tie / 2) / (chosen + rejected + tie)
        origin = f"the votes give p_chosen = {p:g}"
    else:
        return None
    if not 0.5 <= p <= 1:
        raise BadRow("p_chosen out of range", f"{origin}; want 0.5 to 1 (swap chosen and rejected below 0.5)")
    return p


def preference_of(row: Row) -> tuple[float | None, float | None]:
    """(p_chosen, p_tie) of a pair: of its probability, its votes, or a column that says that it is a tie.

    Raises:
        BadRow: they cannot be read, or contradict one another.
    """
    p = p_chosen_of(row)
    said = next((column for column in VERDICTS if is_tie(row.get(column))), None)
    if said is not None:
        if p not in (None, 0.5):
            raise BadRow(
                "contradiction", f"{said} is {shown(row[said])}, but p_chosen is {p:g}; want one of them"
            )
        return 0.5, None
    if p is None or any(absent(row.get(column)) for column in VOTES[:2]):
        return p, None
    chosen, rejected = (numeric(row[column]) or 0.0 for column in VOTES[:2])
    tie = numeric(row.get(VOTES[2])) or 0.0
    total = chosen + rejected + tie
    # no more ties than a preference of p leaves room for, where p_chosen is given beside the votes
    found = min(tie / total, 2 - 2 * p) if total > 0 else 0.0
    return p, None if found == float(p == 0.5) else found  # None: as a row says that has no votes


def is_tie(value: object) -> bool:
    """Whether a verdict prefers neither side."""
    return isinstance(value, str) and " ".join(re.findall(r"[^\W_]+", value.lower())) in TIES


def _number(value: object, column: str) -> float:
    number = numeric(value)
    if number is None:
        raise BadRow("p_chosen out of range", f"{column} is {shown(value)}; want a finite number")
    return number
