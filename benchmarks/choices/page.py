"""The tables of real choices in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
COIN = -0.693147


def page(document: Row) -> str:
    """All tables of a document."""
    boards = document["boards"]
    parts = [
        "# Real choices",
        "By `python -m benchmarks.choices tables`; docs/choices.md says what they mean.",
    ]
    for policy in dict.fromkeys(board["policy"] for board in boards):
        mine = [board for board in boards if board["policy"] == policy]
        parts += [f"## Held-out people, {policy} policy", summary(mine), likelihoods(mine)]
    parts += ["## Orders of algorithms", agreements(document)]
    return "\n\n".join(parts) + "\n"


BEGIN, END = "<!-- tables -->", "<!-- end -->"
"""What stands between them on a page is written anew."""


def within(text: str, document: Row) -> str:
    """A page with its tables written anew: of every set what predicts best, and how orders agree.

    Raises:
        ValueError: it has no place for them.
    """
    before, _, rest = text.partition(BEGIN)
    _, there, after = rest.partition(END)
    if not there:
        raise ValueError(f"want {BEGIN} and {END} on the page")
    parts = [BEGIN]
    boards = document["boards"]
    for policy in dict.fromkeys(board["policy"] for board in boards):
        mine = [board for board in boards if board["policy"] == policy]
        parts += [f"### Held-out people, {policy} policy", summary(mine)]
    parts += ["### Orders of algorithms", agreements(document), END]
    return before + "\n\n".join(parts) + after


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary(boards: Sequence[Row]) -> str:
    """Of every set: what predicts best, how well, and what is not distinguishable from it in the mean."""
    rows = []
    for board in boards:
        best = board["rows"][0]
        reach = best["log_likelihood"] - best["log_likelihood_half"]
        near = [row["algorithm"] for row in board["rows"][1:] if row["log_likelihood"] >= reach]
        rows.append(
            [
                f"`{board['task']}`",
                f"{board['people']:,}",
                f"{board['pairs']:,}",
                f"`{best['algorithm']}`{at(best)}",
                estimate(best, "log_likelihood"),
                estimate(best, "brier"),
                estimate(best, "accuracy"),
                f"{len(near)} of {len(board['rows']) - 1}",
            ]
        )
    heads = [
        "set",
        "people",
        "pairs",
        "likeliest",
        "log-likelihood",
        "Brier",
        "accuracy",
        "within its interval",
    ]
    return table(heads, rows)


def likelihoods(boards: Sequence[Row]) -> str:
    """A row per algorithm, a column per set: held-out log-likelihood, and at which β or τ."""
    known = [{row["algorithm"]: row for row in board["rows"]} for board in boards]
    names = sorted(set().union(*known), key=lambda name: -mean_of(name, known))
    rows = [
        [
            f"`{name}`",
            *(
                f"{found[name]['log_likelihood']:.3f}{at(found[name])}" if name in found else "–"
                for found in known
            ),
        ]
        for name in names
    ]
    return table(["algorithm", *(f"`{board['task']}`" for board in boards)], rows)


def mean_of(name: str, known: Sequence[Mapping[str, Row]]) -> float:
    """Over the sets that have an algorithm."""
    values = [found[name]["log_likelihood"] for found in known if name in found]
    return float(sum(values) / len(values))


def at(row: Row) -> str:
    """The values that a row was taken at, where there are any."""
    values = dict.fromkeys(value for value in row["values"] if value is not None)
    return f" at {' and '.join(f'{value:g}' for value in values)}" if values else ""


def estimate(row: Row, measure: str) -> str:
    """A mean and the half width of its interval."""
    return f"{row[measure]:.3f} ± {row[f'{measure}_half']:.3f}"


def agreements(document: Row) -> str:
    """A matrix of τ per policy and measure; on the diagonal an order with itself."""
    parts = []
    for found in document["orders"]:
        names = [own["task"] for own in found["tasks"]]
        known = {tuple(pair["tasks"]): pair for pair in found["agreements"]}
        known |= {(own["task"], own["task"]): own for own in found["tasks"]}
        rows = []
        for i, own in enumerate(found["tasks"]):
            entries = [
                interval(known[own["task"], name]) if (own["task"], name) in known else "–"
                for name in names[i:]
            ]
            about = f"`{own['task']}`, {own['algorithms']} algorithms, {own['units']:,} {own['unit']}"
            rows.append([about, *[""] * i, *entries])
        parts.append(f"By {found['measure'].replace('_', '-')} β or τ, {found['policy']} policy:")
        parts.append(table(["", *(f"`{name}`" for name in names)], rows))
    return "\n\n".join(parts)


def interval(found: Row) -> str:
    """τ with its interval, – where it is undefined."""
    if found["tau"] is None or None in found["ci95"]:
        return "–"
    low, high = found["ci95"]
    return f"{found['tau']:.2f} ({low:.2f} to {high:.2f})"
