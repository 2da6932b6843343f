"""The rule of the ledger, on numbers whose answer is known, and by simulation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from claim_files import HEAD, RUNS, claim_file, ran, record

from xpo_bench.claims.choosing import Ran
from xpo_bench.claims.definition import Claim, read
from xpo_bench.claims.judging import Judgement, judge_claim
from xpo_bench.report.items import no_items


def claim(folder: Path, *tests: str) -> Claim:
    return read(claim_file(folder, HEAD + RUNS + "".join(f"[[tests]]\n{test}\n" for test in tests)))


def one(expect: str, when: str = "", a: str = "a", b: str = "b", margin: float = 0.1) -> str:
    sides = f'a = {{ algo = "{a}" }}\nb = {{ algo = "{b}" }}\n'
    rule = f'expect = "{expect}"\nmargin = {margin}'
    return f'says = "{a} against {b}"\nwhen = "{when}"\nmetric = "m"\n{sides}{rule}'


def judged(found: Claim, cells: Ran) -> Judgement:
    return judge_claim(found, lambda name: cells)


HIGH, LOW, NEAR = [1.0, 1.1, 0.9, 1.05], [0.0, 0.1, -0.1, 0.02], [1.001, 1.102, 0.9, 1.049]
NOISY = [0.0, 2.5, -1.0, 2.0]


@pytest.mark.parametrize(
    ("expect", "values", "verdict"),
    [
        ("higher", (HIGH, LOW), "holds"),
        ("lower", (HIGH, LOW), "fails"),
        ("equivalent", (HIGH, LOW), "fails"),
        ("equivalent", (HIGH, NEAR), "holds"),
        ("higher", (HIGH, NEAR), "fails"),
        ("not lower", (HIGH, NEAR), "holds"),
        ("not lower", (HIGH, LOW), "holds"),
        ("not lower", (LOW, HIGH), "fails"),
        ("not higher", (LOW, HIGH), "holds"),
        ("higher", (HIGH, NOISY), "undecided"),
        ("not lower", (HIGH, NOISY), "undecided"),
    ],
)
def test_one_test(tmp_path: Path, expect: str, values: tuple[list[float], list[float]], verdict: str) -> None:
    found = judged(claim(tmp_path, one(expect)), ran({"a": values[0], "b": values[1]}))
    assert found.verdict == verdict


def test_conditions(tmp_path: Path) -> None:
    cells = ran({"a": HIGH, "b": LOW, "c": NOISY, "d": NEAR})
    holds, fails, still = one("higher", "x"), one("lower", "y"), one("higher", "z", "a", "c")
    both = judged(claim(tmp_path, holds, fails), cells)
    assert (both.verdict, both.when, both.against) == ("holds only when", ["x"], ["y"])
    assert judged(claim(tmp_path, holds, still), cells).verdict == "undecided"
    assert judged(claim(tmp_path, fails, still), cells).verdict == "undecided"
    three = judged(claim(tmp_path, holds, fails, still), cells)
    assert (three.verdict, three.open) == ("holds only when", ["z"])
    # all tests of a condition are needed; one against it is enough
    assert judged(claim(tmp_path, one("higher"), one("higher", a="b", b="a")), cells).verdict == "fails"
    assert judged(claim(tmp_path, one("higher"), one("higher", a="a", b="c")), cells).verdict == "undecided"


def test_a_number_in_place_of_b(tmp_path: Path) -> None:
    text = one("equivalent", margin=0.2).replace('b = { algo = "b" }', "value = 1.0")
    assert judged(claim(tmp_path, text), ran({"a": HIGH})).verdict == "holds"
    assert judged(claim(tmp_path, text), ran({"a": LOW})).verdict == "fails"
    # runs that are equal to the bit are one run, whose number is what it is
    exact = judged(claim(tmp_path, text), ran({"a": [1.05] * 3}))
    assert exact.verdict == "holds"
    assert exact.outcomes[0].difference is not None
    assert exact.outcomes[0].difference.fixed


def test_a_note(tmp_path: Path) -> None:
    text = (
        one("equivalent")
        .replace('metric = "m"', 'note = "state"\nequals = "rest"')
        .replace('b = { algo = "b" }', "value = 1.0")
    )
    assert judged(claim(tmp_path, text), ran({"a": HIGH})).verdict == "holds"
    assert judged(claim(tmp_path, text), ran({"a": [-1.0, -2.0, -3.0]})).verdict == "fails"


def test_what_is_missing_is_undecided_and_said(tmp_path: Path) -> None:
    found = judged(claim(tmp_path, one("higher", a="z")), ran({"a": HIGH, "b": LOW}))
    assert found.verdict == "undecided"
    assert found.outcomes[0].reason == "no run is z"
    failed = ran({"a": HIGH, "b": LOW})
    records = [replace(r, status="failed") if r.algorithm.name == "b" else r for r in failed.records]
    found = judged(claim(tmp_path, one("higher")), replace(failed, records=records))
    assert (found.verdict, "4 failed" in found.outcomes[0].reason) == ("undecided", True)
    unknown = judged(claim(tmp_path, one("higher").replace('"m"', '"n"')), ran({"a": HIGH, "b": LOW}))
    assert "no seed has n" in unknown.outcomes[0].reason


def test_one_of_several_configurations_has_to_be_named(tmp_path: Path) -> None:
    records = [record("a", s, s + v, beta=v) for s in range(4) for v in (0.1, 0.5)]
    cells = Ran([*records, *(record("b", s, s) for s in range(4))], lambda key: [], no_items)
    unnamed = judged(claim(tmp_path, one("higher")), cells)
    assert "name what tells them apart" in unnamed.outcomes[0].reason
    named = one("higher").replace('a = { algo = "a" }', 'a = { algo = "a", beta = 0.5 }')
    found = judged(claim(tmp_path, named), cells).outcomes[0].difference
    assert found is not None
    assert found.mean == pytest.approx(0.5)
    wrong = named.replace("beta = 0.5", "gamma = 0.5")
    assert "has no setting 'gamma'" in judged(claim(tmp_path, wrong), cells).outcomes[0].reason


def test_the_best_is_chosen_by_other_seeds_than_judge_it(tmp_path: Path) -> None:
    """At β = 1 the first half of the seeds looks best and the second half is worst."""
    best = [record("a", s, 9.0 if s < 3 else -9.0 - s, beta=1.0) for s in range(6)]
    steady = [record("a", s, 1.0 + s, beta=2.0) for s in range(6)]
    records = [*best, *steady, *(record("b", s, s) for s in range(6))]
    text = one("lower").replace('a = { algo = "a" }', 'a = { algo = "a", best = "highest" }')
    found = judged(claim(tmp_path, text), Ran(records, lambda key: [], no_items)).outcomes[0]
    assert found.difference is not None
    assert found.difference.runs == 3
    assert found.difference.mean < -10


def test_a_place_on_the_path(tmp_path: Path) -> None:
    points: list[dict[str, float | None]] = [
        {"step": 0, "m": 0.0},
        {"step": 1, "m": 3.0},
        {"step": 2, "m": None},
        {"step": 3, "m": 1.0},
    ]
    cells = replace(ran({"a": [1.0, 1.0]}), curves=lambda key: points)
    text = one("higher").replace('a = { algo = "a" }', 'a = { algo = "a", at = "max" }').replace('"b"', '"a"')
    found = judged(claim(tmp_path, text), cells)
    assert found.outcomes[0].difference is not None
    assert found.outcomes[0].difference.mean == 2.0
    assert found.verdict == "holds"


def test_of_claims_without_an_effect_few_hold(tmp_path: Path) -> None:
    """A false claim holds in at most 5 % of repetitions, and under either of two conditions in no more."""
    rng = np.random.default_rng(5)
    single = claim(tmp_path, one("higher", margin=0.0))
    double = claim(tmp_path, one("higher", "x", margin=0.0), one("higher", "y", "c", "d", margin=0.0))
    held = wrong = 0
    for _ in range(400):
        values = {name: rng.standard_normal(5).tolist() for name in "abcd"}
        held += judged(single, ran(values)).verdict == "holds"
        wrong += bool(judged(double, ran(values)).when)
    assert held <= 20  # one side of a two-sided test at 5 %: 10 are expected
    assert wrong <= 20  # Holm over both


def test_of_claims_with_an_effect_most_hold(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    found = claim(tmp_path, one("higher", margin=0.1))
    held = 0
    for _ in range(200):
        shared = rng.standard_normal(5)
        values = {"a": (shared + 1 + 0.3 * rng.standard_normal(5)).tolist(), "b": shared.tolist()}
        held += judged(found, ran(values)).verdict == "holds"
    assert held >= 190  # pairing takes the shared part out
