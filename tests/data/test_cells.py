"""Lists in cells: messages as JSON, as Python, as pandas prints them, in JSON columns; and plain text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from xpo_bench.contract.examples import Dataset, Pair, Single
from xpo_bench.contract.settings import DataSpec
from xpo_bench.data.cells import spells_messages, structure
from xpo_bench.data.dataset import load_dataset
from xpo_bench.errors import DataError

Row = dict[str, Any]
TALK = {
    "prompt": [("user", 'it\'s "q", ok?\n}')],
    "chosen": [("assistant", "yes'")],
    "rejected": [("assistant", 'no" } {')],
}
PAIR = Pair('User: it\'s "q", ok?\n}\n\nAssistant:', " yes'", ' no" } {')


def messages(turns: list[tuple[str, str]]) -> list[Row]:
    return [{"role": role, "content": text} for role, text in turns]


ROW: Row = {column: messages(turns) for column, turns in TALK.items()}


def read(path: Path, **options: Any) -> Dataset:
    return load_dataset(DataSpec(source=str(path), **options), 0.0, np.random.default_rng(0))


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def lines(path: Path, *rows: Row) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def table(path: Path, *rows: Row) -> Path:
    pd.DataFrame(list(rows)).to_csv(path, index=False)
    return path


def test_csv_of_a_data_frame_that_was_read_from_parquet(tmp_path: Path) -> None:
    long = {
        "prompt": messages([("user", "a"), ("assistant", "b"), ("user", "c")]),
        **{c: ROW[c] for c in ("chosen", "rejected")},
    }
    pd.DataFrame([ROW, long]).to_parquet(tmp_path / "d.parquet")
    frame = pd.read_parquet(tmp_path / "d.parquet")
    frame.to_csv(tmp_path / "d.csv", index=False)
    assert "}\n {" in frame["prompt"].astype(str)[1], "pandas prints no comma between objects"
    dataset = read(tmp_path / "d.csv")
    assert dataset.train[0] == PAIR
    assert dataset.train[1] == Pair(
        "User: a\n\nAssistant: b\n\nUser: c\n\nAssistant:", PAIR.chosen, PAIR.rejected
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[{'a': 'x'}\n {'a': 'y'}]", [{"a": "x"}, {"a": "y"}]),
        ("array([{'a': 'x'}, {'a': \"it's\"}], dtype=object)", [{"a": "x"}, {"a": "it's"}]),
        ("[{'a': array([{'t': 'x'}, {'t': 'y'}],\n      dtype=object)}]", [{"a": [{"t": "x"}, {"t": "y"}]}]),
        ("['one' 'two\\'s'\n 'three']", ["one", "two's", "three"]),
        ("[{'a': None} {'a': True}]", [{"a": None}, {"a": True}]),
        ("[{'a': (1, 2)}]", [{"a": (1, 2)}]),
        ("[{'a': 'array(['}]", [{"a": "array(["}]),
        ('[{"a": null}]', [{"a": None}]),
        ("[1] a note", "[1] a note"),
        ("{x}", "{x}"),
        ("[{[1]: 2}]", "[{[1]: 2}]"),
        ("[{'a': '\\d'}]", [{"a": "\\d"}]),
        ("['open", "['open"),
        ("[" * 5000, "[" * 5000),
    ],
)
def test_structure(text: str, value: Any) -> None:
    assert structure(text) == value


@pytest.mark.parametrize(
    "text",
    ["[1] a note", "[1, 2]", "[]", '{"title": "x", "content": "y"}', "[{}]", '["role"]', "{ role: 1 }"],
)
def test_text_that_spells_no_messages(tmp_path: Path, text: str) -> None:
    assert not spells_messages(text)
    expected = (Pair("x", text, "b"),)
    assert read(table(tmp_path / "d.csv", {"prompt": "x", "chosen": text, "rejected": "b"})).train == expected
    assert (
        read(lines(tmp_path / "d.jsonl", {"prompt": "x", "chosen": text, "rejected": "b"})).train == expected
    )


@pytest.mark.parametrize(
    "spell", [json.dumps, str, lambda value: json.dumps(value[0])], ids=["json", "python", "one message"]
)
@pytest.mark.parametrize("write", [lines, table])
def test_spelled_messages_in_every_format(tmp_path: Path, write: Any, spell: Any) -> None:
    path = write(
        tmp_path / ("d.jsonl" if write is lines else "d.csv"),
        {column: spell(value) for column, value in ROW.items()},
    )
    assert read(path).train == (PAIR,)


def test_spelled_messages_in_parquet(tmp_path: Path) -> None:
    pd.DataFrame([{column: json.dumps(value) for column, value in ROW.items()}]).to_parquet(
        tmp_path / "d.parquet"
    )
    assert read(tmp_path / "d.parquet").train == (PAIR,)


def test_json_columns_of_parquet(tmp_path: Path) -> None:
    from datasets import Dataset as Table

    text = {"prompt": 'say "x"', "chosen": "007", "rejected": "[1] a note"}
    path = tmp_path / "d.parquet"
    Table.from_list([text, ROW, {**text, "chosen": "12"}], on_mixed_types="use_json").to_parquet(str(path))
    # the client makes no difference between the text 12 and the number in such a column
    assert "row 3: chosen is not text but int 12" in refused(path)
    assert read(path, on_bad_row="skip").train == (Pair('say "x"', "007", "[1] a note"), PAIR)


def test_json_within_structures_of_parquet(tmp_path: Path) -> None:
    from datasets import Dataset as Table

    good = {"messages": [*messages([("user", "q"), ("assistant", "a")])], "label": True}
    parts = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "q"}]},
            *messages([("assistant", "b")]),
        ],
        "label": False,
    }
    Table.from_list([good, parts], on_mixed_types="use_json").to_parquet(str(tmp_path / "d.parquet"))
    assert read(tmp_path / "d.parquet", on_bad_row="skip").train[0] == Single(
        "User: q\n\nAssistant:", " a", True
    )


def test_a_text_in_a_column_of_messages_is_refused(tmp_path: Path) -> None:
    spelled = {column: json.dumps(value) for column, value in ROW.items()}
    odd = {**spelled, "prompt": "just text"}
    for path in (
        table(tmp_path / "d.csv", spelled, odd, spelled),
        lines(tmp_path / "d.jsonl", spelled, odd, spelled),
    ):
        assert "row 2: prompt is 'just text': it is text where row 1 spells messages" in refused(path)
        dataset = read(path, on_bad_row="skip")
        assert (dataset.train, dataset.dropped) == ((PAIR, PAIR), {"messages and text in one column": 1})


def test_messages_in_a_column_of_text_are_refused(tmp_path: Path) -> None:
    text = {"prompt": "x", "chosen": "a", "rejected": "b"}
    odd = {**text, "chosen": json.dumps(ROW["chosen"])}
    for path in (table(tmp_path / "d.csv", text, odd, text), lines(tmp_path / "d.jsonl", text, odd, text)):
        line = refused(path)
        assert "row 2: chosen is '[{" in line
        assert "it spells messages where row 1 holds text" in line
        assert read(path, on_bad_row="skip").train == (Pair("x", "a", "b"),) * 2


def test_messages_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    spelled = {column: json.dumps(value) for column, value in ROW.items()}
    cut = {**spelled, "chosen": '[{"role": "assistant", "content": "a long ans'}
    for rows in ([cut], [spelled, cut]):
        assert f"row {len(rows)}: chosen looks like messages and cannot be read" in refused(
            table(tmp_path / "d.csv", *rows)
        )


@pytest.mark.parametrize(
    "side",
    [
        lambda text: {"role": "assistant", "content": text},
        lambda text: {"content": text},
        lambda text: {"from": "gpt", "value": text},
        lambda text: [{"from": "gpt", "value": text}],
    ],
)
def test_one_message_in_place_of_a_list(tmp_path: Path, side: Any) -> None:
    row = {"prompt": {"role": "user", "content": "q"}, "chosen": side("yes"), "rejected": side("no")}
    assert read(lines(tmp_path / "d.jsonl", row)).train == (Pair("User: q\n\nAssistant:", " yes", " no"),)
    pd.DataFrame([row]).to_parquet(tmp_path / "d.parquet")
    assert read(tmp_path / "d.parquet").train == (Pair("User: q\n\nAssistant:", " yes", " no"),)


def test_a_speaker_that_is_no_role_is_refused(tmp_path: Path) -> None:
    row = {
        "conversations": [{"from": "narrator", "value": "q"}],
        "chosen": {"from": "gpt", "value": "a"},
        "rejected": {"from": "gpt", "value": "b"},
    }
    assert "row 1: conversations has a message from 'narrator'; want one of human, user" in refused(
        lines(tmp_path / "d.jsonl", row)
    )
