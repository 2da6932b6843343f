"""Rows by TRL's column names, and every way in which one can be bad."""

from __future__ import annotations

from typing import Any

import pytest

from xpo_bench.contract.examples import Pair, Single
from xpo_bench.data.formats import parse, to_singles
from xpo_bench.errors import DataError

GOOD = {"prompt": "x", "chosen": "a", "rejected": "b"}
LABELLED = {"prompt": "x", "completion": "a", "label": True}


def numbered(*rows: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    return list(enumerate(rows, 1))


def without(row: dict[str, Any], column: str) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k != column}


def test_pairs() -> None:
    rows = numbered(
        GOOD,
        {
            **GOOD,
            "p_chosen": 0.75,
            "topic": "t",
            "split": "test",
            "score_chosen": 1,
            "score_rejected": 9,
            "id": 4,
        },
    )
    parsed = parse(rows, "d")
    assert parsed.kind == "pairs"
    assert parsed.examples == (Pair("x", "a", "b"), Pair("x", "a", "b", 0.75, "t"))
    assert parsed.splits == (None, "heldout")
    assert (parsed.rows, parsed.dropped) == (2, {})


def test_singles() -> None:
    parsed = parse(numbered(LABELLED, {**LABELLED, "label": False, "source": "s", "split": "train"}), "d")
    assert parsed.kind == "singles"
    assert parsed.examples == (Single("x", "a", True), Single("x", "a", False, "s"))
    assert parsed.splits == (None, "train")


@pytest.mark.parametrize(
    ("votes", "p"),
    [((3, 1, 1), 0.7), ((5, 0, 0), 1.0), ((2, 2, 0), 0.5), ((2, 1, None), 2 / 3)],
)
def test_votes(votes: tuple[int, int, int | None], p: float) -> None:
    row = dict(zip(("votes_chosen", "votes_rejected", "votes_tie"), votes, strict=True))
    (pair,) = parse(numbered({**GOOD, **row}), "d").examples
    assert isinstance(pair, Pair)
    assert pair.p_chosen == pytest.approx(p)


def test_given_probability_goes_before_votes() -> None:
    (pair,) = parse(numbered({**GOOD, "p_chosen": 0.9, "votes_chosen": 1, "votes_rejected": 1}), "d").examples
    assert pair == Pair("x", "a", "b", 0.9)


BAD = [
    (
        without(GOOD, "prompt"),
        "missing column",
        "missing column prompt (has chosen, rejected); want prompt, chosen, rejected",
    ),
    (without(GOOD, "chosen"), "missing column", "missing column chosen"),
    (without(GOOD, "rejected"), "missing column", "missing column rejected"),
    ({**GOOD, "chosen": None}, "missing column", "missing column chosen"),
    ({"question": "q"}, "missing column", "missing columns prompt, chosen, rejected (has question)"),
    ({**GOOD, "prompt": ""}, "empty prompt", "empty prompt"),
    ({**GOOD, "prompt": " \n"}, "empty prompt", "empty prompt"),
    ({**GOOD, "chosen": ""}, "empty completion", "empty chosen"),
    ({**GOOD, "rejected": "  "}, "empty completion", "empty rejected"),
    (
        {**GOOD, "rejected": "a"},
        "chosen equals rejected",
        "chosen == rejected ('a'); a pair needs two different completions",
    ),
    ({**GOOD, "chosen": 7}, "not text", "chosen is not text but int 7; give a string"),
    ({**GOOD, "prompt": True}, "not text", "prompt is not text"),
    ({**GOOD, "chosen": {"a": 1}}, "not text", "chosen is not text"),
    (
        {**GOOD, "chosen": [{"role": "assistant", "content": "a"}]},
        "not text",
        "chosen is not text but list [{",
    ),
    ({**GOOD, "chosen": "\ud800"}, "not text", "chosen is not text: it holds half a surrogate pair"),
    ({**GOOD, "p_chosen": 0.3}, "p_chosen out of range", "p_chosen is 0.3; want 0.5 to 1"),
    ({**GOOD, "p_chosen": 1.01}, "p_chosen out of range", "p_chosen is 1.01"),
    ({**GOOD, "p_chosen": float("nan")}, "p_chosen out of range", "p_chosen is nan; want a finite number"),
    ({**GOOD, "p_chosen": "high"}, "p_chosen out of range", "p_chosen is 'high'; want a finite number"),
    ({**GOOD, "p_chosen": True}, "p_chosen out of range", "p_chosen is True"),
    ({**GOOD, "p_chosen": 10**400}, "p_chosen out of range", "want a finite number"),
    (
        {**GOOD, "votes_chosen": 1, "votes_rejected": 4},
        "p_chosen out of range",
        "the votes give p_chosen = 0.2",
    ),
    ({**GOOD, "votes_chosen": 0, "votes_rejected": 0}, "p_chosen out of range", "want one or more"),
    ({**GOOD, "votes_chosen": 3, "votes_rejected": -1}, "p_chosen out of range", "none negative"),
    ({**GOOD, "split": "extra"}, "unknown split", "split is 'extra'; want train, or one of dev"),
    ({**GOOD, "split": 3}, "unknown split", "split is 3"),
]
BAD_SINGLES = [
    (without(LABELLED, "prompt"), "missing column", "missing column prompt"),
    (without(LABELLED, "completion"), "missing column", "missing column completion"),
    (without(LABELLED, "label"), "missing column", "missing column label"),
    ({**LABELLED, "completion": ""}, "empty completion", "empty completion"),
    ({**LABELLED, "prompt": ""}, "empty prompt", "empty prompt"),
    ({**LABELLED, "completion": 1.5}, "not text", "completion is not text"),
    ({**LABELLED, "label": 2}, "label not boolean", "label is 2; want true (desirable) or false, 1 or 0"),
    ({**LABELLED, "label": 0.5}, "label not boolean", "label is 0.5"),
    ({**LABELLED, "label": float("nan")}, "label not boolean", "label is nan"),
    ({**LABELLED, "label": "perhaps"}, "label not boolean", "label is 'perhaps'"),
    ({**LABELLED, "label": -1}, "negative label", "label is -1: a negative number would count as desirable"),
    ({**LABELLED, "label": "-1.0"}, "negative label", "label is '-1.0': a negative number"),
]


@pytest.mark.parametrize(
    ("good", "bad", "reason", "message"), [(GOOD, *b) for b in BAD] + [(LABELLED, *b) for b in BAD_SINGLES]
)
def test_bad_rows(good: dict[str, Any], bad: dict[str, Any], reason: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse(numbered(good, bad, good), "d.jsonl")
    line = str(caught.value)
    assert line.startswith("d.jsonl row 2: ")
    assert message in line
    assert "\n" not in line

    parsed = parse(numbered(good, bad, good, bad), "d.jsonl", "skip")
    assert len(parsed.examples) == len(parsed.splits) == 2
    assert (parsed.rows, parsed.dropped) == (4, {reason: 2})


@pytest.mark.parametrize(
    "value", [True, 1, 1.0, "1", "1.0", "True", " yes ", "GOOD", "desirable", "thumbs_up", "+1"]
)
def test_labels_for_desirable(value: Any) -> None:
    assert parse(numbered({**LABELLED, "label": value}), "d").examples == (Single("x", "a", True),)


@pytest.mark.parametrize(
    "value", [False, 0, 0.0, -0.0, "0", "0.0", "FALSE", "no", "bad", "undesirable", "thumbs_down"]
)
def test_labels_for_undesirable(value: Any) -> None:
    assert parse(numbered({**LABELLED, "label": value}), "d").examples == (Single("x", "a", False),)


def test_scores_that_contradict_the_pair_are_counted_and_used() -> None:
    scores = [(2, 1), (1, 1), (0.5, 1), ("3", "4"), (None, 1), ("high", 1)]
    rows = [{**GOOD, "score_chosen": a, "score_rejected": b} for a, b in scores]
    parsed = parse(numbered(*rows), "d")
    assert len(parsed.examples) == 6
    assert parsed.notes == {"score_chosen <= score_rejected": 3}


def test_the_first_five_bad_rows_are_named_and_all_are_counted_by_reason() -> None:
    empty, equal = {**GOOD, "prompt": ""}, {**GOOD, "chosen": "b"}
    with pytest.raises(DataError) as caught:
        parse(numbered(GOOD, empty, equal, GOOD, empty, empty, empty, empty, equal), "d.jsonl")
    line = str(caught.value)
    assert line.startswith("d.jsonl row 2: empty prompt; give")
    assert [n for n in range(1, 10) if f"row {n}: " in line] == [2, 3, 5, 6, 7]
    assert "; 7 of 9 rows are bad: 5 empty prompt, 2 chosen equals rejected (--on-bad-row skip" in line
    assert "\n" not in line


def test_a_fault_of_the_whole_set_is_told_once_and_skipping_is_not_advised() -> None:
    with pytest.raises(DataError) as caught:
        parse(numbered(*[{"chosen": "a", "rejected": "b"}] * 7), "d", advice=lambda row: "ADVICE")
    assert str(caught.value) == (
        "d row 1: missing column prompt (has chosen, rejected); want prompt, chosen, rejected; "
        "7 of 7 rows are bad: 7 missing column; ADVICE"
    )


def test_splits_of_sets_that_hold_more_than_preferences() -> None:
    splits = ["train_prefs", "test_prefs", "valid1", "valid2", " Train "]
    parsed = parse(numbered(*({**GOOD, "split": split} for split in splits)), "d")
    assert parsed.splits == ("train", "heldout", "heldout", "heldout", "train")


def test_long_and_unprintable_values_stay_one_short_line() -> None:
    with pytest.raises(DataError) as caught:
        parse(numbered({**GOOD, "chosen": "a\n\x1b[31m" * 5000, "rejected": "a\n\x1b[31m" * 5000}), "d")
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


def test_unknown_layout_names_both() -> None:
    with pytest.raises(
        DataError,
        match=r"row 1: columns text, title hold neither prompt, chosen, rejected "
        r"nor prompt, completion, label",
    ):
        parse(numbered({"text": "t", "title": "u"}), "d")


def test_nothing_left() -> None:
    with pytest.raises(DataError, match="empty data set"):
        parse([], "d")
    with pytest.raises(DataError, match=r"no usable row among 2; the first: d row 1: empty prompt"):
        parse(numbered({**GOOD, "prompt": ""}, {**GOOD, "chosen": ""}), "d", "skip")


def test_to_singles_keeps_the_halves_of_a_pair_adjacent() -> None:
    rows: list[Pair | Single] = [Pair("x", "a", "b", 0.9, "s"), Single("x", "c", True), Pair("y", "d", "e")]
    assert to_singles(rows) == [
        Single("x", "a", True, "s"),
        Single("x", "b", False, "s"),
        Single("x", "c", True),
        Single("y", "d", True),
        Single("y", "e", False),
    ]
