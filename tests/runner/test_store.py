"""Records are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq
import pytest

import xpo_bench
from xpo_bench.errors import StoreError, UsageError
from xpo_bench.result import Result
from xpo_bench.runner.keys import canonical
from xpo_bench.runner.record import Record
from xpo_bench.runner.store import Store, finite, parquet, write_atomic

Run = Callable[..., Result]

KEY = "0123456789abcdef01234567"
CALLS = ["open", "write", "flush", "fsync", "replace", "open directory", "fsync directory"]


class Crash(OSError):
    """Stands for a full disk, a signal or a lost machine."""


def record(status: str = "ok", **more: Any) -> Record:
    """A record as far as a store looks into it."""
    return cast(Record, {"schema": 1, "key": KEY, "status": status} | more)


def crash_at(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Let the named call of write_atomic raise."""
    calls = {"fsync": 0}

    def crash(*_: Any, **__: Any) -> Any:
        raise Crash(28, "No space left on device")

    if call in ("write", "flush"):
        opened = Path.open

        def broken(self: Path, *args: Any, **kwargs: Any) -> Any:
            file = opened(self, *args, **kwargs)
            if str(self).endswith(".tmp"):
                file.write(b'{"schema":1,"ha')  # what a buffer had let through
                return Half(file, call, crash)
            return file

        monkeypatch.setattr(Path, "open", broken)
    elif call == "open":
        monkeypatch.setattr(Path, "open", crash)
    elif call == "replace":
        monkeypatch.setattr(os, "replace", crash)
    elif call == "open directory":
        monkeypatch.setattr(os, "open", crash)
    else:
        real = os.fsync

        def fsync(descriptor: int) -> None:
            calls["fsync"] += 1
            if calls["fsync"] == (1 if call == "fsync" else 2):
                crash()
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)


class Half:
    """A file of which one method fails after part of the content is out."""

    def __init__(self, file: io.BufferedWriter, call: str, crash: Callable[..., Any]) -> None:
        self.file = file
        setattr(self, call, crash)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Half:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


@pytest.mark.parametrize("call", CALLS)
def test_a_crash_leaves_the_old_content_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with monkeypatch.context() as patch:
        crash_at(patch, call)
        with pytest.raises(Crash):
            write_atomic(path, b"new and longer")
    committed = call.endswith("directory")
    assert path.read_bytes() == (b"new and longer" if committed else b"old")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]  # no temporary file stays


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("existing", [True, False])
def test_a_crash_leaves_no_half_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, existing: bool
) -> None:
    store = Store(tmp_path)
    store.prepare()
    if existing:
        store.write_cell(record("failed", metrics={"kl": 0.5}), [{"step": 0, "kl": 0.5}])
    with monkeypatch.context() as patch:
        crash_at(patch, call)
        with pytest.raises(
            StoreError, match=r"cannot be written \(No space left on device\); finished cells are kept"
        ):
            store.write_cell(record(metrics={"kl": 1.0}), [{"step": 0, "kl": 1.0}])
    # the curve comes first: a crash on it leaves the record as it was
    assert store.read_cell(KEY) == (record("failed", metrics={"kl": 0.5}) if existing else None)
    assert store.records() == ([record("failed", metrics={"kl": 0.5})] if existing else [])
    assert not store.done(KEY)
    store.write_cell(record(metrics={"kl": 1.0}), [{"step": 0, "kl": 1.0}])
    assert store.done(KEY)


HALF = [
    b"",
    b"{",
    b'{"schema":1,"key":"0123456789abcdef01234567"',
    b"[]",
    b"null",
    b'{"schema":2,"key":"0123456789abcdef01234567","status":"ok"}',
    b'{"schema":1,"key":"ffffffffffffffffffffffff","status":"ok"}',
    b'{"schema":1,"key":"0123456789abcdef01234567"}',
    b"\xff\xfe",
]


@pytest.mark.parametrize("content", HALF)
def test_what_is_no_whole_record_is_not_read(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path)
    store.prepare()
    (tmp_path / "cells" / f"{KEY}.json").write_bytes(content)
    assert store.read_cell(KEY) is None
    assert store.records() == []
    assert not store.done(KEY)
    assert list(store.damaged) == [tmp_path / "cells" / f"{KEY}.json"]
    ((aside, reason),) = store.set_aside()
    assert reason
    assert aside.read_bytes() == content
    assert not (tmp_path / "cells" / f"{KEY}.json").exists()
    assert store.damaged == {}


def test_other_files_are_let_be(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.prepare()
    store.write_cell(record(), [])
    (tmp_path / "cells" / "notes.json").write_text("{}", "utf-8")
    (tmp_path / "cells" / f".{KEY}.json.123.tmp").write_text("{", "utf-8")
    assert store.records() == [record()]


@pytest.mark.parametrize(
    ("status", "done"),
    [
        ("ok", True),
        ("diverged", True),
        ("failed", False),
        ("oom", False),
        ("timeout", False),
        ("crashed", False),
    ],
)
def test_only_ok_and_diverged_are_done(tmp_path: Path, status: str, done: bool) -> None:
    store = Store(tmp_path)
    store.prepare()
    store.write_cell(record(status), [])
    assert store.done(KEY) is done


def test_json_is_canonical_and_finite(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.prepare()
    store.write_cell(record(metrics={"kl": math.inf, "entropy": math.nan, "ä": (1, -math.inf)}), [])
    text = (tmp_path / "cells" / f"{KEY}.json").read_text("utf-8")
    assert text == canonical(json.loads(text))
    assert json.loads(text)["metrics"] == {"kl": None, "entropy": None, "ä": [1, None]}
    assert finite({"a": [1.5, {"b": math.nan}], "c": True}) == {"a": [1.5, {"b": None}], "c": True}


def test_curves_are_parquet_with_nulls_for_what_was_not_evaluated() -> None:
    table = pq.read_table(
        io.BytesIO(parquet([{"step": 0, "kl": 0.0}, {"step": 5, "kl": math.nan, "loss": 0.25}]))
    )
    assert table.column_names == ["step", "kl", "loss"]
    assert [str(field.type) for field in table.schema] == ["int64", "double", "double"]
    assert table.to_pylist() == [{"step": 0, "kl": 0.0, "loss": None}, {"step": 5, "kl": None, "loss": 0.25}]


# --------------------------------------------------------------------------- directories


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        UsageError,
        match=r"--out .*file/run: cannot be written \(Not a directory\); name a writable directory",
    ):
        xpo_bench.run("dpo", tasks="deterministic", steps=5, out=tmp_path / "file" / "run")


def test_a_directory_that_is_no_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match="not a run directory"):
            Store.existing(path)


def test_a_run_document_that_cannot_be_read_is_begun_anew(tmp_path: Path, run: Run) -> None:
    run(out=tmp_path / "r")
    for content in ("{", "[]", ""):
        (tmp_path / "r" / "run.json").write_text(content, "utf-8")
        assert len(run(out=tmp_path / "r").cells) == 1
        assert len(json.loads((tmp_path / "r" / "run.json").read_text("utf-8"))["plan"]) == 1


# --------------------------------------------------------------------------- resuming


def test_resuming_runs_the_keys_that_are_missing(tmp_path: Path, run: Run) -> None:
    first = run("dpo,ipo", seeds=2, out=tmp_path / "r")
    assert first.computed == 4
    again = run("dpo,ipo", seeds=2, out=tmp_path / "r")
    assert again.computed == 0
    assert again.cells == first.cells
    lost = first.cells[2]["key"]
    (tmp_path / "r" / "cells" / f"{lost}.json").unlink()
    mended = run("dpo,ipo", seeds=2, out=tmp_path / "r")
    assert mended.computed == 1
    assert [c["final_policy"] for c in mended.cells] == [c["final_policy"] for c in first.cells]


def test_an_existing_directory_is_extended(tmp_path: Path, run: Run) -> None:
    run(seeds=1, out=tmp_path / "r")
    more = run("dpo,ipo", seeds=2, out=tmp_path / "r")
    assert (more.computed, more.planned, len(more.cells)) == (3, 4, 4)
    document = json.loads((tmp_path / "r" / "run.json").read_text("utf-8"))
    assert len(document["plan"]) == 4
    assert len(document["commands"]) == 2


def test_fresh_computes_again(tmp_path: Path, run: Run) -> None:
    first, second = (run(seeds=2, out=tmp_path / "r", fresh=True) for _ in range(2))
    assert second.computed == 2
    assert [c["final_policy"] for c in second.cells] == [c["final_policy"] for c in first.cells]


def test_a_half_written_record_is_named_set_aside_and_computed_again(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (cell,) = run(out=tmp_path / "r").cells
    path = tmp_path / "r" / "cells" / f"{cell['key']}.json"
    half = path.read_bytes()[:100]
    path.write_bytes(half)
    capsys.readouterr()
    assert run(out=tmp_path / "r").computed == 1
    assert (
        f"{path}: incomplete or corrupt; set aside as {path.name}.damaged, and computed again"
        in capsys.readouterr().err
    )
    assert path.with_name(f"{path.name}.damaged").read_bytes() == half


@pytest.mark.parametrize("call", CALLS)
def test_a_disk_that_fills_up_in_mid_run(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Whatever is written before is whole, and the same words go on from there."""
    optimizers = {"task.optimizer": ["adam", "sgd"]}
    words = {"out": tmp_path / "r", "algos": ["dpo", "ipo"], "seeds": 2, "set": optimizers}
    expected = run(**words | {"out": tmp_path / "calm"})
    done: list[str] = []
    write = Store.write_cell

    def fills_up(self: Store, record: Any, curve: Any, items: Any) -> None:
        if len(done) == 3:
            crash_at(patch, call)
        write(self, record, curve, items)
        done.append(record["key"])

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_cell", fills_up)
        with pytest.raises(StoreError, match="No space left on device"):
            run(**words)
    kept = Store(tmp_path / "r").records()
    # the last calls come after the record is in place
    assert sorted(done) == sorted(r["key"] for r in kept)
    again = run(**words)
    assert again.computed == 8 - 3
    assert [c["metrics"]["kl"] for c in again.cells] == [c["metrics"]["kl"] for c in expected.cells]
    assert not list(tmp_path.rglob("*.tmp"))
