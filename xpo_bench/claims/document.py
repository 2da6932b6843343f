"""The ledger as JSON: what `--json` prints, what is committed, and what a later run is compared with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

from xpo_bench.claims.judging import Judgement, Outcome
from xpo_bench.errors import UsageError
from xpo_bench.statistics import Estimate

KIND: Literal["xpo-bench claims"] = "xpo-bench claims"
SCHEMA = 1


class Effect(TypedDict):
    """A mean, its 95 % interval (null where it is not known), and how many runs differ from one another."""

    mean: float
    ci95: list[float] | None
    n: int


class TestedEntry(TypedDict):
    """One test. `difference` is a minus b, or a minus the number; `seeds_needed` and `items_needed` would
    decide.
    """

    says: str
    when: str
    measure: str
    a: str
    b: str
    expected: str
    found: str
    said: str
    mean_a: float | None
    mean_b: float | None
    difference: Effect | None
    margin: float
    p_holm: float | None
    seeds_needed: int | None
    items_needed: int | None
    reason: str


class ClaimEntry(TypedDict):
    """One claim. `seconds` is what its cells and tests took here, the resumed ones apart."""

    id: str
    statement: str
    paper: str
    section: str
    known: str
    limits: str
    origin: str
    algorithms: list[str]
    verdict: str
    when: list[str]
    fails_when: list[str]
    undecided_when: list[str]
    tests: list[TestedEntry]
    seeds: int
    command: str
    run: str
    cells: int
    seconds: float


class Ledger(TypedDict):
    """All claims of one command. `commit` is that of the checkout which the suite runs from, if it does."""

    kind: Literal["xpo-bench claims"]
    schema: int
    created: str
    version: str
    commit: str | None
    claims: list[ClaimEntry]


def tests_of(judgement: Judgement) -> list[TestedEntry]:
    """The tests of a claim, in their order."""
    return [_test(outcome) for outcome in judgement.outcomes]


def _test(o: Outcome) -> TestedEntry:
    test, found = o.test, o.difference
    effect: Effect | None = None
    if found is not None:
        half = found.half
        interval = None if half is None else [found.mean - half, found.mean + half]
        effect = {"mean": found.mean, "ci95": interval, "n": found.runs}
    return {
        "says": test.says,
        "when": test.when,
        "measure": test.measure,
        "a": str(test.a),
        "b": str(test.b) if test.b else f"{test.value:g}",
        "expected": test.expect,
        "found": o.found,
        "said": o.said,
        "mean_a": _mean(o.a),
        "mean_b": _mean(o.b) if test.b else test.value,
        "difference": effect,
        "margin": o.margin,
        "p_holm": o.corrected,
        "seeds_needed": o.runs,
        "items_needed": o.items,
        "reason": o.reason,
    }


def _mean(value: Estimate | None) -> float | None:
    return value.mean if value else None


def read(path: Path) -> Ledger:
    """A ledger that `xpo-bench claims --json` has printed.

    Raises:
        UsageError: it cannot be read, or is no ledger.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror}); name a file of `claims --json`"
        ) from None
    except (ValueError, RecursionError):
        raise UsageError(
            f"{path}: not JSON; name a file that `xpo-bench claims --json` has printed"
        ) from None
    if not _is_ledger(document):
        raise UsageError(f"{path}: no ledger; `xpo-bench claims --json` prints one")
    if document.get("schema") != SCHEMA:
        raise UsageError(
            f"{path}: a ledger of schema {str(document.get('schema'))[:20]}; this version reads {SCHEMA}"
        )
    return cast(Ledger, document)


def _is_ledger(document: object) -> bool:
    claims = (
        document.get("claims") if isinstance(document, Mapping) and document.get("kind") == KIND else None
    )
    return isinstance(claims, list) and all(
        isinstance(c, dict) and isinstance(c.get("id"), str) and isinstance(c.get("verdict"), str)
        for c in claims
    )


def flips(old: Ledger, new: Ledger) -> list[str]:
    """A line for every claim whose verdict, or whose conditions, differ between two ledgers.

    A claim that only one of the two has is no flip.
    """
    before = {claim["id"]: claim for claim in old["claims"]}
    return [
        f"{claim['id']}: was {told(then)}, is {told(claim)}"
        for claim in new["claims"]
        if (then := before.get(claim["id"])) is not None and told(then) != told(claim)
    ]


def told(claim: Mapping[str, Any]) -> str:
    """The verdict with the conditions that are part of it."""
    verdict, when = str(claim["verdict"]), _conditions(claim.get("when"))
    return f"{verdict} {when}" if verdict == "holds only when" else verdict


def _conditions(when: Sequence[str] | None) -> str:
    return "; ".join(w or "nothing is changed" for w in when or ())
