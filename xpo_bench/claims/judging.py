"""The rule: what each test says of its claim, and what the claim comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from xpo_bench.claims.choosing import Ran, sides
from xpo_bench.claims.definition import Claim, ClaimTest, Expected
from xpo_bench.errors import UsageError
from xpo_bench.report.items import ItemReader
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.verdicts.paired import difference, run_identity
from xpo_bench.statistics import Estimate, holm
from xpo_bench.verdicts.differences import PairedDifference, over_runs
from xpo_bench.verdicts.words import judge

Found = Literal["higher", "lower", "equivalent", "cannot tell"]
Said = Literal["supports", "contradicts", "undecided"]
Verdict = Literal["holds", "fails", "holds only when", "undecided"]
WORDS: dict[str, Found] = {"better": "higher", "worse": "lower"}


@dataclass(frozen=True)
class Outcome:
    """What a test came to.

    Args:
        difference: a minus b, or a minus the number. found: what a is, against b. said: what that says of the
            claim. runs, items: how many would decide, where that can be told. reason: why nothing was found.
    """

    test: ClaimTest
    said: Said
    found: Found = "cannot tell"
    a: Estimate | None = None
    b: Estimate | None = None
    difference: PairedDifference | None = None
    margin: float = 0.0
    corrected: float | None = None
    runs: int | None = None
    items: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Judgement:
    """What a claim comes to.

    Args:
        when: the conditions under which it holds. against: those under which it fails. open: the others.
    """

    claim: Claim
    verdict: Verdict
    outcomes: Sequence[Outcome]
    when: Sequence[str] = ()
    against: Sequence[str] = ()
    open: Sequence[str] = ()


@dataclass(frozen=True)
class _Measured:
    test: ClaimTest
    metric: str = ""
    a: SeedGroup | None = None
    b: SeedGroup | None = None
    difference: PairedDifference | None = None
    reason: str = ""


def judge_claim(claim: Claim, ran: Callable[[str], Ran]) -> Judgement:
    """Make the tests of a claim, corrected together, and conclude.

    Under each condition a claim needs all of its tests: one that contradicts it is enough against it. It
    *holds* if it does so under every condition, *fails* if it fails under every one, and *holds only when*
    some do and some do not. Anything else is *undecided*.

    Args:
        ran: what a block came to, by its name.
    """
    measured = [_measure(test, ran) for test in claim.tests]
    tested = [i for i, m in enumerate(measured) if m.difference is not None and m.difference.p is not None]
    differences = [d for i in tested if (d := measured[i].difference) is not None]
    corrected = dict(zip(tested, holm([d.p or 0.0 for d in differences]), strict=True))
    outcomes = [_outcome(m, corrected.get(i), len(tested)) for i, m in enumerate(measured)]
    return _conclude(claim, outcomes)


def _measure(test: ClaimTest, ran: Callable[[str], Ran]) -> _Measured:
    try:
        cells = ran(test.runs)
        metric, a, b = sides(test, cells)
    except UsageError as error:
        return _Measured(test, reason=str(error))
    for g in (a, b):
        bad = {status: n for status, n in g.status.items() if status not in ("ok", "diverged")} if g else {}
        if g and bad:
            first = next((r.error.message for r in g.records if r.error), "")
            status = ", ".join(f"{n} {status}" for status, n in bad.items())
            return _Measured(test, metric, a, b, reason=f"{g.label}: {status}: {first}".rstrip(": "))
    found = _difference(a, b, test.value, metric, cells.items)
    missing = "" if found else f"no seed has {test.measure} on both sides"
    return _Measured(test, metric, a, b, found, missing)


def _difference(
    a: SeedGroup, b: SeedGroup | None, value: float | None, metric: str, items: ItemReader
) -> PairedDifference | None:
    if b is not None:
        return difference(a, b, metric, items)
    known = [(r, v) for r in a.counted if (v := r.metrics.get(metric)) is not None]
    return (
        over_runs([v - (value or 0.0) for _, v in known], [run_identity(r) for r, _ in known])
        if known
        else None
    )


def _outcome(m: _Measured, corrected: float | None, family: int) -> Outcome:
    test, found = m.test, m.difference
    means = [g.estimate(m.metric) if g else None for g in (m.a, m.b)]
    if found is None:
        return Outcome(test, "undecided", a=means[0], b=means[1], reason=m.reason)
    base = means[1].mean if means[1] else test.value or 0.0
    margin = test.margin_at(base)
    verdict = judge(found, corrected, margin, higher=True, family=family)
    word: Found = WORDS.get(verdict.word, verdict.word)  # type: ignore[arg-type]
    return Outcome(
        test,
        _says(word, test.expect),
        word,
        means[0],
        means[1],
        found,
        margin,
        corrected,
        verdict.runs,
        verdict.items,
    )


def _says(found: Found, expected: Expected) -> Said:
    if found == "cannot tell":
        return "undecided"
    if expected.startswith("not "):
        return "contradicts" if found == expected.removeprefix("not ") else "supports"
    return "supports" if found == expected else "contradicts"


def _conclude(claim: Claim, outcomes: Sequence[Outcome]) -> Judgement:
    said: dict[str, list[Said]] = {}
    for outcome in outcomes:
        said.setdefault(outcome.test.when, []).append(outcome.said)
    against = [when for when, words in said.items() if "contradicts" in words]
    holding = [when for when, words in said.items() if set(words) == {"supports"}]
    still = [when for when in said if when not in against and when not in holding]
    verdict: Verdict = "undecided"
    if not still:
        verdict = "holds" if not against else "fails" if not holding else "holds only when"
    elif holding and against:
        verdict = "holds only when"
    return Judgement(claim, verdict, outcomes, holding, against, still)
