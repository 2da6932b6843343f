"""Strengths as probabilities, ties as rows, and whose preference a row is."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpo_bench import DataError, Dataset, DataSpec, Pair
from xpo_bench.data.dataset import fingerprint, load_dataset
from xpo_bench.data.formats import parse
from xpo_bench.data.labels import tie_part
from xpo_bench.data.strengths import Link, parse_link
from xpo_bench.errors import UsageError

GOOD = {"prompt": "x", "chosen": "a", "rejected": "b"}


def read(tmp_path: Path, *rows: dict[str, Any], **words: Any) -> Dataset:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return load_dataset(DataSpec(source=str(path), **words), 0.0, np.random.default_rng(0))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def near(x: float) -> Any:
    """Equal to σ(x) up to rounding."""
    return pytest.approx(sigmoid(x))


# --------------------------------------------------------------------------- strengths


def test_a_link_is_a_logistic_function_about_its_centre() -> None:
    assert parse_link("0.5") == Link(0.5)
    assert parse_link("0.5,centre=3") == Link(0.5, 3.0)
    assert parse_link(0.5).words == "0.5"
    assert parse_link(parse_link("1, centre=3").words) == Link(1.0, 3.0)
    assert Link(0.5, 3.0)(5.0) == pytest.approx(sigmoid(1))
    assert Link(2.0)(-1e6) == 0.0


@pytest.mark.parametrize("text", ["0", "-1", "x", "1,center=3", "1,centre=", "1,3", "", "nan"])
def test_what_is_no_link_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--strength .*want the log-odds"):
        parse_link(text)


def test_a_negative_strength_prefers_the_other_side(tmp_path: Path) -> None:
    rows = [{**GOOD, "strength": s} for s in (2, -1, 0)]
    data = read(tmp_path, *rows, strength="0.5")
    assert [(e.chosen, e.p_chosen) for e in data.train if isinstance(e, Pair)] == [
        ("a", pytest.approx(sigmoid(1))),
        ("b", pytest.approx(sigmoid(0.5))),
        ("a", 0.5),
    ]
    assert [tie_part(e) for e in data.train] == [0, 0, 1]
    assert data.labelled
    assert data.columns["p_chosen"] == "sigmoid(0.5 * strength)"


def test_grades_from_one_to_five_have_their_tie_at_three(tmp_path: Path) -> None:
    rows = [{**GOOD, "grade": g} for g in (5, 3, 1)]
    data = read(tmp_path, *rows, strength="1,centre=3", columns={"strength": "grade"})
    assert [(e.chosen, e.p_chosen) for e in data.train if isinstance(e, Pair)] == [
        ("a", pytest.approx(sigmoid(2))),
        ("a", 0.5),
        ("b", pytest.approx(sigmoid(2))),
    ]


def test_a_difference_of_scores_is_a_strength_where_it_is_asked_for(tmp_path: Path) -> None:
    row = {**GOOD, "score_chosen": 4, "score_rejected": 1}
    plain, linked = read(tmp_path, row), read(tmp_path, row, strength="0.5")
    assert plain.train[0] == Pair("x", "a", "b")
    assert not plain.labelled
    assert linked.train[0] == Pair("x", "a", "b", near(1.5))
    # the scores go with their sides, so that a pair that is turned round is no contradiction
    turned = read(tmp_path, {**row, "score_rejected": 6}, strength="0.5")
    assert turned.train[0] == Pair("x", "b", "a", near(1))
    assert not turned.notes
    told = read(tmp_path, row, strength="0.5").columns["p_chosen"]
    assert told == "sigmoid(0.5 * (score_chosen - score_rejected))"


def test_the_strengths_of_a_layout_have_its_own_link_until_another_is_given(tmp_path: Path) -> None:
    row = {"prompt": "x", "response_1": "a", "response_2": "b", "preference_strength": -2}
    assert read(tmp_path, row).train[0] == Pair("x", "a", "b", 5 / 6)
    data = read(tmp_path, row, strength="0.7")
    assert data.train[0] == Pair("x", "a", "b", near(1.4))
    assert data.columns["p_chosen"] == "sigmoid(0.7 * |preference_strength|)"
    with pytest.raises(DataError, match="leave centre out"):
        read(tmp_path, row, strength="0.7,centre=1")


def test_a_link_without_a_strength_and_a_strength_without_a_link_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--strength: no row has a strength"):
        read(tmp_path, GOOD, strength="1")
    with pytest.raises(DataError, match="--columns strength=s: goes with --strength K"):
        read(tmp_path, {**GOOD, "s": 1}, columns={"strength": "s"})
    assert read(tmp_path, {**GOOD, "strength": 1}).notes == {
        "strength not read: --strength K makes a probability of it": 1
    }
    with pytest.raises(DataError, match=r"row 1: strength is 'much'; want a number"):
        read(tmp_path, {**GOOD, "strength": "much"}, strength="1")


# --------------------------------------------------------------------------- ties


@pytest.mark.parametrize("row", [{"label": "tie"}, {"winner": "Tie"}, {"winner": "both_bad"}])
def test_a_column_may_say_that_a_pair_is_a_tie(row: dict[str, str]) -> None:
    (pair,) = parse([(1, {**GOOD, **row})], "d").examples
    assert pair == Pair("x", "a", "b", 0.5)
    assert tie_part(pair) == 1


def test_a_tie_with_a_preference_is_refused() -> None:
    with pytest.raises(DataError, match=r"row 1: label is 'tie', but p_chosen is 0.8; want one of them"):
        parse([(1, {**GOOD, "label": "tie", "p_chosen": 0.8})], "d")


def test_votes_tell_a_split_from_a_tie() -> None:
    votes = [(2, 2, 0), (1, 1, 2), (0, 0, 3), (3, 1, 0), (2, 1, 1)]
    rows = [
        (i, {**GOOD, "votes_chosen": a, "votes_rejected": b, "votes_tie": t})
        for i, (a, b, t) in enumerate(votes)
    ]
    examples = parse(rows, "d").examples
    assert [tie_part(e) for e in examples] == [0, 0.5, 1, 0, 0.25]
    assert [e.p_chosen for e in examples if isinstance(e, Pair)] == [0.5, 0.5, 0.5, 0.75, 0.625]


def test_the_fingerprint_sees_ties() -> None:
    def of(tie: float | None) -> str:
        return fingerprint(Dataset(train=(Pair("x", "a", "b", 0.5, p_tie=tie),)))

    assert of(None) == of(1.0)
    assert len({of(None), of(0.0), of(0.5)}) == 3


# --------------------------------------------------------------------------- whose preference it is


@pytest.mark.parametrize("column", ["cluster", "person", "annotator"])
def test_rows_of_one_person_are_known_by_any_of_three_names(tmp_path: Path, column: str) -> None:
    data = read(tmp_path, {**GOOD, column: 7}, {**GOOD, "prompt": "y"})
    assert [e.person for e in data.train] == ["7", None]
    named = read(tmp_path, {**GOOD, "worker": "w"}, columns={column: "worker"})
    assert [e.person for e in named.train] == ["w"]
