"""What columns mean where it is not plain: verdicts, probabilities, `--columns`, advice of errors."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpo_bench.contract.examples import Dataset, Pair
from xpo_bench.contract.settings import DataSpec
from xpo_bench.data.dataset import load_dataset
from xpo_bench.data.layouts import check_columns
from xpo_bench.errors import DataError, UsageError

JUDGED = {"prompt": "q", "response_a": "one", "response_b": "two"}
FIRST, SECOND, TIE = Pair("q", "one", "two"), Pair("q", "two", "one"), Pair("q", "one", "two", 0.5)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    else:
        import pandas as pd

        pd.DataFrame(rows).to_parquet(path, index=False)
    return path


def read(path: Path, **options: Any) -> Dataset:
    return load_dataset(DataSpec(source=str(path), **options), 0.0, np.random.default_rng(0))


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


# --------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("verdict", "pair"),
    [
        *((word, FIRST) for word in ("A", "model_a", "Model A", "Response A", "[[A]]", "first")),
        *((word, SECOND) for word in ("b", "model_b", "Assistant B", "output_b")),
        *((word, TIE) for word in ("tie", "both_bad", "bothbad", "tie (bothbad)", "Both bad")),
        *((word, TIE) for word in ("tied", "tie (inconsistent)")),
    ],
)
def test_spellings_of_a_verdict(tmp_path: Path, verdict: str, pair: Pair) -> None:
    assert read(write(tmp_path / "d.jsonl", [{**JUDGED, "winner": verdict}])).train == (pair,)


@pytest.mark.parametrize("verdict", ["tiebreak", "A>B", "not-a", "C", "", "none", "a or b"])
def test_what_is_no_verdict_is_refused(tmp_path: Path, verdict: str) -> None:
    assert "; want a, b or tie" in refused(write(tmp_path / "d.jsonl", [{**JUDGED, "winner": verdict}]))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_number_as_a_verdict_is_refused_with_the_way_out(tmp_path: Path, suffix: str) -> None:
    line = refused(write(tmp_path / f"d{suffix}", [{**JUDGED, "winner": 1}]))
    assert "which side a number means differs from set to set: see pku-saferlhf (0 is the first)" in line
    columns = {"response_0": "response_a", "response_1": "response_b", "better_response_id": "winner"}
    assert read(tmp_path / f"d{suffix}", columns=columns).train == (SECOND,)


def test_a_layout_is_recognised_behind_many_rows_without_a_verdict(tmp_path: Path) -> None:
    rows = [{**JUDGED, "winner": None}] * 120 + [{**JUDGED, "winner": "b"}]
    dataset = read(write(tmp_path / "d.jsonl", rows), on_bad_row="skip")
    assert (dataset.layout, dataset.train, dataset.dropped) == ("judged", (SECOND,), {"missing column": 120})
    line = refused(write(tmp_path / "d.jsonl", rows[:3]))
    assert "row 1: missing column winner; layout judged wants" in line


# --------------------------------------------------------------------------- probabilities


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize(
    "row",
    [
        {"question": "q", "chosen": "one", "rejected": "two"},
        {"instruction": "q", "chosen_response": "one", "rejected_response": "two"},
        {"instruction": "q", "input": "", "chosen": "one", "rejected": "two"},
        {"question": "q", "response_j": "one", "response_k": "two"},
        {"prompt": "q", "chosen": "one", "rejected": "two"},
    ],
    ids=lambda row: "-".join(row),
)
def test_every_layout_of_pairs_reads_probabilities_and_votes(
    tmp_path: Path, row: dict[str, Any], suffix: str
) -> None:
    assert read(write(tmp_path / f"p{suffix}", [{**row, "p_chosen": 0.75}])).train == (
        Pair("q", "one", "two", 0.75),
    )
    votes = {"votes_chosen": 3, "votes_rejected": 2}
    assert read(write(tmp_path / f"v{suffix}", [{**row, **votes}])).train == (Pair("q", "one", "two", 0.6),)


def test_numbers_of_mapped_csv_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "d.csv", [
        {"q": "q", "a": "one", "b": "two", "va": "3", "vb": "2", "s": ""},
        {"q": "q", "a": "one", "b": "two", "va": "", "vb": "", "s": "test"},
    ])  # fmt: skip
    columns = {
        "prompt": "q",
        "chosen": "a",
        "rejected": "b",
        "votes_chosen": "va",
        "votes_rejected": "vb",
        "split": "s",
    }
    dataset = read(path, columns=columns)
    assert (dataset.train, dataset.heldout) == ((Pair("q", "one", "two", 0.6),), (FIRST,))


def test_decimals_of_a_table_are_numbers(tmp_path: Path) -> None:
    path = write(
        tmp_path / "d.parquet",
        [{"prompt": "q", "chosen": "one", "rejected": "two", "p_chosen": Decimal("0.75")}],
    )
    assert read(path).train == (Pair("q", "one", "two", 0.75),)


def test_votes_of_one_side_alone_are_refused(tmp_path: Path) -> None:
    row = {"prompt": "q", "chosen": "one", "rejected": "two", "votes_chosen": 3}
    assert "votes without votes_rejected" in refused(write(tmp_path / "d.jsonl", [row]))


def test_missing_grades_as_tables_hold_them(tmp_path: Path) -> None:
    row = {"prompt": "q", "responses": ["two", "zero", "one"], "scores": [1, float("nan"), 2]}
    dataset = read(write(tmp_path / "d.jsonl", [row]))
    assert (dataset.train, dataset.notes) == ((FIRST,), {"answers without a grade": 1})


# --------------------------------------------------------------------------- --columns


PAIR = {"prompt": "q", "chosen": "one", "rejected": "two"}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_mapping_that_would_do_nothing_is_refused(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"d{suffix}", [{**PAIR, "verdict": "b"}])
    line = refused(path, columns={"winner": "verdict"})
    assert line == (
        "FILE: --columns winner=verdict: a set in TRL's columns does not read winner; "
        "layout judged does, and wants "
        "prompt, response_a, response_b, winner"
    )


def test_a_verdict_beside_the_sides_is_read_for_its_ties(tmp_path: Path) -> None:
    rows = [{**PAIR, "verdict": "b"}, {**PAIR, "prompt": "r", "verdict": "tie"}]
    dataset = read(write(tmp_path / "d.jsonl", rows), columns={"winner": "verdict"})
    assert [getattr(e, "p_chosen", 1.0) for e in dataset.train] == [None, 0.5]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_column_that_is_not_there(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"d{suffix}", [{"question": "q", "good": "one", "worse": "two", "note": "n"}] * 2)
    columns = {"prompt": "questoin", "chosen": "good", "rejected": "worse"}
    line = refused(path, columns=columns)
    assert line.startswith("FILE: --columns prompt=questoin: no such column; did you mean 'question'?")
    assert all(name in line for name in ("question", "good", "worse", "note"))


def test_a_path_that_leads_nowhere(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", [{"info": {"post": "q"}, "chosen": "one", "rejected": "two"}])
    assert read(path, columns={"prompt": "info.post"}).train == (FIRST,)
    line = refused(path, columns={"prompt": "info.pots"})
    assert line == (
        "FILE: --columns prompt=info.pots: no row has such a field; did you mean 'info.post'? (has info.post)"
    )


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (5, "--columns 5: expected NAME=COLUMN"),
        ({"chosen": 5}, "--columns chosen: expected NAME=COLUMN"),
        ("chosen=a, b", r"write a comma within a name as \,"),
        ("chosen=a,rejected=a", "--columns chosen=a,rejected=a: one column cannot be both"),
    ],
)
def test_mappings_that_are_none(given: Any, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_columns(given)
    assert what in str(caught.value)


def test_names_with_commas_and_one_column_as_a_source_too(tmp_path: Path) -> None:
    path = write(tmp_path / "d.csv", [{"my q": "q", "good, or so": "one", "b=c": "two"}])
    columns = check_columns(r"prompt=my q, chosen=good\, or so, rejected=b=c, source=my q")
    assert read(path, columns=columns).train == (Pair("q", "one", "two", None, "q"),)


# --------------------------------------------------------------------------- advice


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_advice_knows_every_column_of_a_table(tmp_path: Path, suffix: str) -> None:
    row = {"model_a": "m", "model_b": "n", "score_a": 1, "score_b": 2, "instruction": "long", "output": "x"}
    row |= {"orig_response_A": "one", "orig_response_B": "two", "orig_preference": "A"}
    line = refused(write(tmp_path / f"d{suffix}", [row]))
    sides = "response_a=orig_response_A,response_b=orig_response_B,winner=orig_preference"
    assert f"perhaps --columns prompt=instruction,{sides}" in line


def test_advice_for_nested_columns_and_labels(tmp_path: Path) -> None:
    line = refused(write(tmp_path / "d.jsonl", [{"row_idx": 0, "row": PAIR}]))
    assert "perhaps --columns prompt=row.prompt,chosen=row.chosen,rejected=row.rejected" in line
    line = refused(write(tmp_path / "d.jsonl", [{"prompt": "q", "response": "r", "is_safe": True}]))
    assert "perhaps --columns completion=response,label=is_safe" in line


# --------------------------------------------------------------------------- tables


@pytest.mark.parametrize(("separator", "word"), [(";", "semicolons"), ("\t", "tabs")])
def test_another_separator_is_told(tmp_path: Path, separator: str, word: str) -> None:
    path = tmp_path / "d.csv"
    path.write_text(separator.join(PAIR) + "\n" + separator.join(PAIR.values()) + "\n", "utf-8")
    assert f"its columns look separated by {word}" in refused(path)


def test_lists_of_texts_in_a_table_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "d.csv", [{**PAIR, "chosen": "['one']", "rejected": "['two' 'three']"}, PAIR])
    assert read(path).notes == {"completion that spells a list of texts, used as it is": 1}


def test_the_layout_does_not_depend_on_how_a_format_spells_null(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "q"}]
    row = {"source": "s", "prompt": "q", "question": None}
    row |= {
        side: json.dumps([*talk, {"role": "assistant", "content": side}]) for side in ("chosen", "rejected")
    }
    found = {read(write(tmp_path / f"d{s}", [row] * 2)).layout for s in (".jsonl", ".csv", ".parquet")}
    assert found == {"orpo-dpo-mix"}
