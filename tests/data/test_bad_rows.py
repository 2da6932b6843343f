"""Every fault that a row may have, in every file format and every layout."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from xpo_bench.contract.examples import Dataset, Pair, Single
from xpo_bench.contract.settings import DataSpec
from xpo_bench.data.dataset import load_dataset
from xpo_bench.errors import DataError

Row = dict[str, Any]
FORMATS = (".jsonl", ".json", ".csv", ".parquet")
TEXTS = ("prompt", "chosen", "rejected", "completion")


def said(role: str, text: Any) -> list[Row]:
    return [{"role": role, "content": text}]


GOOD: dict[str, Row] = {
    "plain": {"prompt": "q", "chosen": "yes", "rejected": "no", "p_chosen": 0.8},
    "conversational": {
        "prompt": said("user", "q"),
        "chosen": said("assistant", "yes"),
        "rejected": said("assistant", "no"),
        "p_chosen": 0.8,
    },
    "unpaired": {"prompt": "q", "completion": "yes", "label": True},
    "unpaired conversational": {
        "prompt": said("user", "q"),
        "completion": said("assistant", "yes"),
        "label": True,
    },
}
EXAMPLE = {
    "plain": Pair("q", "yes", "no", 0.8),
    "conversational": Pair("User: q\n\nAssistant:", " yes", " no", 0.8),
    "unpaired": Single("q", "yes", True),
    "unpaired conversational": Single("User: q\n\nAssistant:", " yes", True),
}


class Fault(NamedTuple):
    """What is wrong with a row: its columns, the reason that is counted, and part of the message."""

    change: Row
    reason: str
    message: str


def faults(layout: str) -> dict[str, Fault]:
    """The list of the public contract, spelled in a layout."""
    good = GOOD[layout]
    talk = "conversational" in layout
    completions = [c for c in ("chosen", "rejected", "completion") if c in good]
    out = {}
    for column in sorted(good.keys() - {"p_chosen"}):
        out[f"no {column}"] = Fault({column: None}, "missing column", f"missing column {column}")
    for column in ("prompt", *completions):
        what = "empty prompt" if column == "prompt" else "empty completion"
        role = "user" if column == "prompt" else "assistant"
        for kind, empty in (("empty", [] if talk else ""), ("blank", said(role, " \n") if talk else " \n")):
            out[f"{kind} {column}"] = Fault({column: empty}, what, f"empty {column}")
        text = said(role, 7) if talk else 7
        out[f"non-text {column}"] = Fault({column: text}, "not text", "not text but int")
    if "chosen" in good:
        out["equal"] = Fault({"chosen": good["rejected"]}, "chosen equals rejected", "chosen == rejected")
        for p in (0.3, 1.2, -0.5):
            out[f"p_chosen {p}"] = Fault({"p_chosen": p}, "p_chosen out of range", f"p_chosen is {p}")
    else:
        out["label"] = Fault({"label": "maybe"}, "label not boolean", "label is 'maybe'; want true")
    return out


def write(path: Path, rows: list[Row]) -> Path:
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        case ".json":
            path.write_text(json.dumps(rows), "utf-8")
        case ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, list(rows[0]))
                table.writeheader()
                table.writerows(
                    {c: json.dumps(v) if isinstance(v, list) else v for c, v in row.items()} for row in rows
                )
        case ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def read(path: Path, **options: Any) -> Dataset:
    return load_dataset(DataSpec(source=str(path), **options), 0.0, np.random.default_rng(0))


def typed(fault: Fault) -> bool:
    """Whether the value is of another type than the good ones, which a parquet column cannot mix."""
    return fault.reason in ("not text", "label not boolean")


CASES = [(suffix, layout, name) for suffix in FORMATS for layout in GOOD for name in faults(layout)]


@pytest.mark.parametrize(("suffix", "layout", "name"), CASES, ids=lambda value: value)
def test_bad_rows(tmp_path: Path, suffix: str, layout: str, name: str) -> None:
    good, fault = GOOD[layout], faults(layout)[name]
    talk = "conversational" in layout
    if suffix == ".csv" and name.startswith("non-text") and not talk:
        # CSV has no types: a number is the text that spells it
        assert read(write(tmp_path / "d.csv", [good, {**good, **fault.change}])).rows == 2
        return
    reason, message = fault.reason, fault.message
    if suffix == ".csv" and name.startswith("no ") and name not in ("no label",):
        # CSV has no nulls: what is absent is empty, except that a conversation without a prompt may have an
        # implicit one
        column = name.removeprefix("no ")
        if not (talk and column == "prompt"):
            reason, message = "empty prompt" if column == "prompt" else "empty completion", f"empty {column}"
    if suffix == ".parquet" and typed(fault):
        path = write(tmp_path / "d.parquet", [{**good, **fault.change}])
        with pytest.raises(DataError) as caught:
            read(path)
        assert f"{path} row 1: " in str(caught.value)
        assert message in str(caught.value)
        return
    path = write(tmp_path / f"d{suffix}", [good, {**good, **fault.change}, good])
    with pytest.raises(DataError) as caught:
        read(path)
    line = str(caught.value)
    assert line.startswith(f"{path} row 2: ")
    assert message in line
    assert "\n" not in line
    dataset = read(path, on_bad_row="skip")
    assert dataset.train == (EXAMPLE[layout],) * 2
    assert dataset.dropped == {reason: 1}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("layout", GOOD)
def test_a_column_that_no_row_has(tmp_path: Path, suffix: str, layout: str) -> None:
    for column in sorted(GOOD[layout].keys() - {"p_chosen"}):
        rows = [{c: v for c, v in GOOD[layout].items() if c != column}] * 2
        with pytest.raises(DataError, match=rf"row 1: (missing column|columns .* hold neither).*{column}"):
            read(write(tmp_path / f"{column}{suffix}", rows))


@pytest.mark.parametrize("suffix", FORMATS)
def test_implicit_prompts(tmp_path: Path, suffix: str) -> None:
    row = {c: [*GOOD["conversational"]["prompt"], *GOOD["conversational"][c]] for c in ("chosen", "rejected")}
    expected = (Pair("User: q\n\nAssistant:", " yes", " no"),)
    assert read(write(tmp_path / f"d{suffix}", [row])).train == expected
    assert read(write(tmp_path / f"e{suffix}", [{"prompt": None, **row}])).train == expected
    with pytest.raises(
        DataError, match="row 1: missing column prompt, and chosen and rejected share no first message"
    ):
        read(write(tmp_path / f"f{suffix}", [{**row, "chosen": row["chosen"][1:]}]))


def test_csv_of_a_data_frame_spells_lists_as_python_does(tmp_path: Path) -> None:
    row = {c: str(v) for c, v in GOOD["conversational"].items()}
    assert read(write(tmp_path / "d.csv", [row])).train == (EXAMPLE["conversational"],)


@pytest.mark.parametrize("text", ["[1] a note", "[1, 2]", "[", "[]", '["a"]', "[{", "[" * 5000])
def test_csv_text_in_brackets_stays_text(tmp_path: Path, text: str) -> None:
    assert read(write(tmp_path / "d.csv", [{"prompt": text, "chosen": "a", "rejected": "b"}])).train == (
        Pair(text, "a", "b"),
    )
