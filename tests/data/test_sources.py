"""Files and names under XPO_BENCH_DATA; what cannot be read is one line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpo_bench.contract.examples import Dataset, Pair, Single
from xpo_bench.contract.settings import DataSpec
from xpo_bench.data.dataset import load_dataset
from xpo_bench.data.sources import load
from xpo_bench.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"prompt": "x", "chosen": "a", "rejected": "b", "p_chosen": 0.75, "split": "train"},
    {"prompt": "x", "chosen": 'c, "d"\ne', "rejected": "b", "p_chosen": None, "split": "test"},
]
PAIRS = (Pair("x", "a", "b", 0.75), Pair("x", 'c, "d"\ne', "b"))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pandas as pd

    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".json":
            path.write_text(json.dumps(rows))
        case ".csv":
            pd.DataFrame(rows).to_csv(path, index=False)
        case ".parquet":
            pd.DataFrame(rows).to_parquet(path)
    return path


def read(source: str | Path, **options: Any) -> Dataset:
    return load_dataset(DataSpec(source=str(source), **options), 0.0, np.random.default_rng(0))


def refused(source: str | Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(params=[".jsonl", ".json", ".csv", ".parquet"])
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def no_named_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XPO_BENCH_DATA", raising=False)


def test_same_rows_from_every_format(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"d{suffix}", ROWS)
    dataset = read(path)
    assert dataset.train == PAIRS[:1]
    assert dataset.heldout == PAIRS[1:]
    assert (dataset.kind, dataset.rows, dataset.source) == ("pairs", 2, str(path))


def test_unpaired_labels_from_every_format(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"prompt": "x", "completion": "a", "label": True},
        {"prompt": "x", "completion": "b", "label": False},
    ]
    dataset = read(write(tmp_path / f"d{suffix}", rows))
    assert dataset.train == (Single("x", "a", True), Single("x", "b", False))
    assert dataset.kind == "singles"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chosen": "b"}, "chosen == rejected"),
        ({"prompt": ""}, "empty prompt"),
        ({"rejected": ""}, "empty rejected"),
        ({"p_chosen": 0.2}, "p_chosen is 0.2"),
    ],
)
def test_bad_row_in_every_format(tmp_path: Path, suffix: str, change: dict[str, Any], reason: str) -> None:
    path = write(tmp_path / f"d{suffix}", [ROWS[0], {**ROWS[0], **change}])
    assert f"{path} row 2: {reason}" in refused(path)
    dataset = read(path, on_bad_row="skip")
    assert len(dataset.train) == 1
    assert sum(dataset.dropped.values()) == 1


def test_missing_column_in_every_format(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"d{suffix}", [{"prompt": "x", "rejected": "b"}])
    assert "row 1: missing column chosen (has prompt, rejected)" in refused(path)
    path = write(tmp_path / f"e{suffix}", [{"split": "train", "text": "x"}])
    assert "hold neither prompt, chosen, rejected nor prompt, completion, label" in refused(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_labels_are_boolean(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"d{suffix}", [{"prompt": "x", "completion": "a", "label": 1}])
    assert read(path).train == (Single("x", "a", True),)
    path = write(tmp_path / f"d{suffix}", [{"prompt": "x", "completion": "a", "label": 2}])
    assert "row 1: label is 2; want true" in refused(path)


def test_csv_labels(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("prompt,completion,label\nx,a,TRUE\nx,b,0\n")
    assert read(path).train == (Single("x", "a", True), Single("x", "b", False))
    path.write_text("prompt,completion,label\nx,a,TRUE\nx,b,-1\n")
    assert "row 2: label is '-1': a negative number" in refused(path)
    path.write_text("prompt,completion,label\nx,a,\n")
    assert "row 1: missing column label" in refused(path)


def test_csv_texts_stay_texts(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("prompt,chosen,rejected,p_chosen\n1,007,NA,\n")
    assert read(path).train == (Pair("1", "007", "NA"),)


def test_csv_malformed(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    for body in ('x,"a,b\n', "x,a,b,c\n", "x,a,b\nx,a,b,c\n", "x,a,b,c\nx,a,b\n"):
        path.write_text("prompt,chosen,rejected\n" + body)
        assert "malformed CSV" in refused(path)
    path.write_text("prompt,chosen,rejected\nx,a,b\nx,a\n")
    assert "row 2: empty rejected" in refused(path)


def test_non_text_in_parquet(tmp_path: Path) -> None:
    path = write(tmp_path / "d.parquet", [{"prompt": "x", "chosen": 1, "rejected": 2}])
    assert "row 1: chosen is not text but int 1" in refused(path)
    messages = [
        {
            "prompt": "x",
            "chosen": [{"role": "assistant", "content": "a"}],
            "rejected": [{"role": "assistant", "content": "b"}],
        }
    ]
    assert "row 1: chosen is a list of messages but prompt is not" in refused(
        write(tmp_path / "m.parquet", messages)
    )


def test_empty_files(tmp_path: Path, suffix: str) -> None:
    import pandas as pd

    path = tmp_path / f"d{suffix}"
    if suffix == ".parquet":
        pd.DataFrame({"prompt": [], "chosen": [], "rejected": []}).to_parquet(path)
    else:
        path.write_text("[]" if suffix == ".json" else "")
    assert refused(path) == f"{path}: empty data set; at least one row is needed"


def test_malformed_json_line(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n\n" + '{"prompt": "x", \n')
    assert refused(path).startswith(f"{path} line 3: malformed JSON at column")
    path.write_text(json.dumps(ROWS[0]) + "\n[1, 2]\n")
    assert "line 2: holds a list; want an object" in refused(path)
    path.write_text("[" * 100_000 + "\n")
    assert "line 1: malformed JSON" in refused(path)


def test_row_numbers_of_jsonl_are_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n\n" + json.dumps({**ROWS[0], "prompt": ""}) + "\n")
    assert "row 3: empty prompt" in refused(path)


def test_malformed_json(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text('[{"prompt": "x"},\n {]')
    assert "malformed JSON at line 2 column" in refused(path)
    path.write_text('{"prompt": "x"}')
    assert "holds an object; want a list of objects, a row each" in refused(path)


def test_unreadable_files(tmp_path: Path) -> None:
    assert "no such file; give a .parquet" in refused(tmp_path / "absent.jsonl")
    assert "no such file" in refused(tmp_path / "absent.parquet")
    (tmp_path / "d.txt").write_text("x")
    assert "unknown kind of file; want .parquet, .jsonl, .json, .csv" in refused(tmp_path / "d.txt")
    (tmp_path / "d.parquet").write_text("no parquet")
    assert "not a readable parquet file" in refused(tmp_path / "d.parquet")
    (tmp_path / "d.jsonl").write_bytes(b'{"prompt": "\xff"}\n')
    assert "not UTF-8 text" in refused(tmp_path / "d.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    assert "cannot be read" in refused(tmp_path / "folder.jsonl")


def test_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n", encoding="utf-8-sig")
    assert read(path).train == PAIRS[:1]


def test_named_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mine.jsonl", ROWS[:1])
    assert "a name under XPO_BENCH_DATA (which is not set)" in refused("mine")
    monkeypatch.setenv("XPO_BENCH_DATA", str(tmp_path))
    assert read("mine").source == "mine"
    write(tmp_path / "mine.parquet", ROWS)
    assert read("mine").rows == 2, "parquet goes first"
    assert "(which holds no such name)" in refused("other")
    assert "no data set '../mine'" in refused("../mine") or os.sep != "/"


def test_rows_are_raw_and_numbered(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", ROWS)
    assert load(DataSpec(source=str(path))) == ([(1, ROWS[0]), (2, ROWS[1])], str(path), None)


def test_only_the_first_rows_are_read(tmp_path: Path, suffix: str) -> None:
    row = {"prompt": "x", "chosen": "a", "rejected": "b"}
    path = write(
        tmp_path / f"d{suffix}", [*({**row, "prompt": f"x{i}"} for i in range(5)), {**row, "prompt": ""}]
    )
    assert [e.prompt for e in read(path, rows=2).train] == ["x0", "x1"]
    assert read(path, rows=2).rows == 2
    assert read(path, rows=9, on_bad_row="skip").rows == 6
    assert "row 6: empty prompt" in refused(path, rows=6)


def test_the_first_rows_of_each_split_are_read(tmp_path: Path, suffix: str) -> None:
    splits = ["test", "test", "test", "train", "train", "test", "train"]
    rows = [{**ROWS[0], "prompt": f"x{i}", "split": split} for i, split in enumerate(splits)]
    dataset = read(write(tmp_path / f"d{suffix}", rows), rows=2)
    assert [[e.prompt for e in part] for part in (dataset.train, dataset.heldout)] == [
        ["x3", "x4"],
        ["x0", "x1"],
    ]


def test_what_follows_the_first_rows_is_not_looked_at(tmp_path: Path) -> None:
    line = '{"prompt": "x", "chosen": "a", "rejected": "b"}'
    (tmp_path / "d.jsonl").write_text(f"{line}\n\n{line}\nno JSON\n")
    assert read(tmp_path / "d.jsonl", rows=2).rows == 2
    (tmp_path / "d.csv").write_text('prompt,chosen,rejected\nx,a,b\nx,"c,b\n')
    assert read(tmp_path / "d.csv", rows=1).train == (Pair("x", "a", "b"),)


def test_a_csv_file_without_any_known_column_is_refused_by_the_names_that_it_has(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("question,good,bad\nx,a,b\n", "utf-8")
    assert "columns question, good, bad hold neither" in refused(path)


# --------------------------------------------------------------------------- other spellings of the same
# files

LINE = '{"prompt": "x", "chosen": "a", "rejected": "b"}\n'
XAB = (Pair("x", "a", "b"),)


def test_json_that_wraps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(f'{{"version": 2, "data": [{LINE}]}}', "utf-8-sig")
    assert read(path).train == XAB
    path.write_text(f'{{"train": [{LINE}], "test": [{LINE}, {LINE}]}}')
    dataset = read(path)
    assert (len(dataset.train), len(dataset.heldout)) == (1, 2)
    path.write_text(f'{{"one": [{LINE}], "two": [{LINE}]}}')
    assert "holds several lists (one, two); want one" in refused(path)
    path.write_text('{"prompt": [{"role": "user", "content": "x"}]}')
    assert "holds an object of columns; want a list of objects, a row each" in refused(path)
    path.write_text('{"version": 1, "data": []}')
    assert "empty data set" in refused(path)


def test_json_with_one_object_per_line(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(LINE * 2, "utf-8-sig")
    assert read(path).train == XAB * 2
    path.write_text(LINE + "\n" + '{"prompt": "",\n')
    assert "line 3: malformed JSON" in refused(path)


@pytest.mark.parametrize("packed", ["gz", "zst", "bz2"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_compressed_files(tmp_path: Path, suffix: str, packed: str) -> None:
    import pandas as pd
    import pyarrow as pa

    plain = tmp_path / f"p{suffix}"
    if suffix == ".tsv":
        pd.DataFrame(ROWS).to_csv(plain, index=False, sep="\t")
    else:
        write(plain, ROWS)
    path = tmp_path / f"d{suffix}.{packed}"
    kind = {"gz": "gzip", "zst": "zstd", "bz2": "bz2"}[packed]
    with pa.CompressedOutputStream(str(path), kind) as stream:
        stream.write(plain.read_bytes())
    assert (read(path).train, read(path).heldout) == (PAIRS[:1], PAIRS[1:])
    assert read(path, rows=1).rows == 2
    path.write_bytes(path.read_bytes()[:20])
    assert str(path) in refused(path)


def test_compressed_names_under_the_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    (tmp_path / "mine.jsonl.gz").write_bytes(gzip.compress(LINE.encode()))
    monkeypatch.setenv("XPO_BENCH_DATA", str(tmp_path))
    assert read("mine").train == XAB


def test_tab_separated(tmp_path: Path) -> None:
    path = tmp_path / "d.tsv"
    path.write_text("prompt\tchosen\trejected\nx\ta\tb\n")
    assert read(path).train == XAB


def test_names_that_differ_in_case_and_blanks(tmp_path: Path, suffix: str) -> None:
    path = write(
        tmp_path / f"d{suffix}",
        [{"Prompt": "x", "Chosen ": "a", " REJECTED": "b", "P_chosen": 0.75, "Split": "train"}],
    )
    dataset = read(path)
    assert dataset.train == (Pair("x", "a", "b", 0.75),)
    assert dataset.columns == {
        "prompt": "Prompt",
        "chosen": "Chosen ",
        "rejected": " REJECTED",
        "p_chosen": "P_chosen",
        "split": "Split",
    }
    path = write(tmp_path / f"e{suffix}", [{"prompt": "x", "Prompt": "y", "chosen": "a", "rejected": "b"}])
    assert (read(path).train, read(path).columns) == (XAB, {})


def test_columns_that_are_given_twice(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "d.csv").write_text("prompt,chosen,chosen,rejected\nx,a,c,b\n")
    assert "column 'chosen' is given twice" in refused(tmp_path / "d.csv")
    (tmp_path / "d.jsonl").write_text('{"prompt": "x", "chosen": "a", "rejected": "b", "chosen": "c"}\n')
    assert "line 1: malformed JSON (column 'chosen' is given twice)" in refused(tmp_path / "d.jsonl")
    table = pa.Table.from_arrays(
        [pa.array([t]) for t in "xacb"], names=["prompt", "chosen", "chosen", "rejected"]
    )
    pq.write_table(table, tmp_path / "d.parquet")
    assert "column 'chosen' is there twice" in refused(tmp_path / "d.parquet")
    (tmp_path / "e.csv").write_text("prompt,chosen,rejected,note,note\nx,a,b,1,2\n")
    assert read(tmp_path / "e.csv").train == XAB


def test_huge_columns_that_no_layout_reads_stay_where_they_are(tmp_path: Path) -> None:
    path = write(
        tmp_path / "d.parquet",
        [{"prompt": "x", "chosen": "a", "rejected": "b", "embedding": "e" * 100, "tools": "t"}],
    )
    read = {"prompt": "x", "chosen": "a", "rejected": "b", "tools": "t"}
    assert load(DataSpec(source=str(path))).rows == [
        (1, {**read, "embedding": None})
    ]  # named for errors, not read


@pytest.mark.parametrize(
    "column", ["tools", "chat_template_kwargs", "system", "images", "image", "videos", "documents", "audio"]
)
def test_columns_that_change_a_prompt_are_handed_on(tmp_path: Path, suffix: str, column: str) -> None:
    from xpo_bench.data.layouts import arrange

    row = {"question": "x", "response_j": "a", "response_k": "b", column: "v"}
    loaded = load(DataSpec(source=str(write(tmp_path / f"d{suffix}", [row]))))
    ((_, found),) = arrange(loaded.rows, "d").rows
    assert isinstance(found, dict)
    assert found[column] == "v"
