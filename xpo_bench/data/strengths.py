"""Strengths of preferences as probabilities: p = σ(K·(s − C)), with a scale K that is given, never guessed.

A strength s says how much better one side is: HelpSteer's −3 to 3, a grade from 1 to 5 about its middle C, or
the difference of two scores. What it is worth in log-odds is not in the data: σ(K·1) is the probability of a
preference that is one grade strong, as by K = 1 it is .73.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from xpo_bench.data.values import BadRow, Row, absent, numeric, shown
from xpo_bench.errors import UsageError

COLUMN = "strength"
SCORES = ("score_chosen", "score_rejected")


@dataclass(frozen=True)
class Link:
    """p = σ(scale·(s − centre)). scale: log-odds per unit of strength. centre: the strength of a tie."""

    scale: float
    centre: float = 0.0

    def __call__(self, strength: float) -> float:
        x = self.scale * (strength - self.centre)
        # σ(x) as ½ + ½ tanh(x/2), which does not overflow
        return 0.5 + 0.5 * math.tanh(x / 2)

    @property
    def words(self) -> str:
        """The link as an option, the same for all spellings of it."""
        return f"{self.scale!r},centre={self.centre!r}" if self.centre else repr(self.scale)

    def told(self, of: str) -> str:
        """The link as a formula, for the record."""
        about = f"({of} - {self.centre:g})" if self.centre else f"({of})" if " " in of else of
        return f"sigmoid({self.scale:g} * {about})"


def parse_link(text: object) -> Link:
    """`0.5` or `0.5,centre=3`.

    Raises:
        UsageError: something else.
    """
    head, _, rest = str(text).partition(",")
    name, equals, centre = rest.partition("=")
    scale = numeric(head.strip())
    middle = numeric(centre.strip()) if equals and name.strip() == "centre" else None if rest else 0.0
    if scale is None or scale <= 0 or middle is None:
        raise UsageError(
            f"--strength {text}: want the log-odds of a preference of strength 1, above 0, such as 0.5; "
            "for strengths whose tie is not 0 also centre, such as 0.5,centre=3"
        )
    return Link(scale, middle)


def source(row: Row) -> str:
    """What the strength of a pair is read from; empty where it has neither one nor two scores."""
    if not absent(row.get(COLUMN)):
        return COLUMN
    return " - ".join(SCORES) if all(numeric(row.get(column)) is not None for column in SCORES) else ""


def _probability(row: Row, link: Link) -> float | None:
    """That the chosen side of a row is preferred; None without a strength.

    Raises:
        BadRow: a strength that is no number.
    """
    if source(row) == COLUMN:
        strength = numeric(row[COLUMN])
        if strength is None:
            raise BadRow("unreadable preference", f"strength is {shown(row[COLUMN])}; want a number")
        return link(strength)
    chosen, rejected = (numeric(row.get(column)) for column in SCORES)
    if chosen is None or rejected is None:
        return None
    return Link(link.scale)(chosen - rejected)  # about 0, whatever the centre of strengths is


def with_strength(row: Row, link: Link) -> Row:
    """The row with the probability that its strength gives, the likelier side as chosen.

    Raises:
        BadRow: a strength that is no number.
    """
    p = _probability(row, link)
    if p is None:
        return row
    sides = {"chosen": row["chosen"], "rejected": row["rejected"]}
    if p < 0.5:
        sides = {"chosen": row["rejected"], "rejected": row["chosen"]}
        for a, b in (SCORES, ("votes_chosen", "votes_rejected")):
            if a in row and b in row:
                sides |= {a: row[b], b: row[a]}
    return {**row, **sides, "p_chosen": max(p, 1 - p)}
