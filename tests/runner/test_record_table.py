"""A large run is read from the table of its records, which never says anything that a record does not."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xpo_bench.cli import main
from xpo_bench.runner import record_table, store
from xpo_bench.runner.keys import canonical
from xpo_bench.runner.store import Store

COUNT = 12
METRICS: list[dict[str, Any]] = [
    {"kl": 0.1, "collapse_step": None, "accuracy": 1 / 3},
    {"kl": -0.0, "collapse_step": 30, "accuracy": 5e-324},
    {"kl": 1.2345678901234567e300, "odd": True, "odder": 2**60, "ä": 1.0},
    {},
]


def key(i: int) -> str:
    return f"{i:024x}"


def record(i: int) -> dict[str, Any]:
    """Two algorithms on one task, with parts that only some records have."""
    found: dict[str, Any] = {
        "schema": 1,
        "key": key(i),
        "status": "ok",
        "error": None,
        "algorithm": {"name": ("dpo", "ipo")[i % 2], "config": {"beta": 0.1}},
        "task": {"name": "bandit", "data": {"dropped": {}}, "budget": {"steps": 5}},
        "train": {"lr": 0.1, "optimizer": "adam"},
        "seed": i // 2,
        "metrics": METRICS[i % 4],
        "notes": {"rejected_state": "falling"} if i % 3 else {},
        "environment": {"python": "3.11", "packages": {"torch": "2"}},
    }
    return found | ({"experiment": "sömething"} if i % 5 == 0 else {})


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory that is large enough for a table, and whose table has been made."""
    monkeypatch.setattr(record_table, "LEAST", 4)
    monkeypatch.setattr(record_table, "YOUNG_NS", 0)
    root = tmp_path / "run"
    Store(root).prepare()
    for i in range(COUNT):
        write(root, record(i))
    Store(root).records()
    assert (root / record_table.NAME).is_file()
    return root


def write(root: Path, what: dict[str, Any]) -> Path:
    path = root / "cells" / f"{what['key']}.json"
    path.write_text(canonical(what), "utf-8")
    return path


@pytest.fixture
def files_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The records that are read from their files, as it goes on."""
    read: list[str] = []
    real = Store._stored

    def counted(self: Store, path: str | Path) -> Any:
        read.append(Path(path).stem)
        return real(self, path)

    monkeypatch.setattr(Store, "_stored", counted)
    return read


def spelt(records: Any) -> list[str]:
    """With the types of numbers: 1 is not 1.0 here, nor -0.0 the same as 0.0."""
    return [json.dumps(r, sort_keys=True) for r in records]


def test_the_table_gives_every_record_back_to_the_bit(run: Path, files_read: list[str]) -> None:
    assert spelt(Store(run).records()) == spelt(map(record, range(COUNT)))
    assert files_read == []


def test_parts_in_common_are_one_object(run: Path) -> None:
    first, *others = Store(run).records()
    assert all(r["environment"] is first["environment"] for r in others)


def test_a_small_run_has_no_table(tmp_path: Path) -> None:
    Store(tmp_path).prepare()
    write(tmp_path, record(0))
    assert len(Store(tmp_path).records()) == 1
    assert not (tmp_path / record_table.NAME).exists()


def test_show_tells_the_number_that_a_record_is_given_by_hand(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown() -> str:
        with pytest.raises(SystemExit) as ended:
            main(["show", str(run), "--columns", "kl", "--tasks", "bandit"])
        assert ended.value.code == 0
        return capsys.readouterr().out

    assert "7.25" not in shown()
    for i in range(0, COUNT, 2):
        write(run, record(i) | {"metrics": {"kl": 7.25}})
    assert "7.25" in shown()
    assert "7.25" in shown()  # from the table that has been made anew


def edit(path: Path) -> None:
    path.write_text(path.read_text("utf-8").replace('"kl":0.1', '"kl":0.2'), "utf-8")


def edit_and_hide(path: Path) -> None:
    """The same length, and the times that it had before."""
    before = path.stat()
    edit(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    edit(other)
    os.replace(other, path)


@pytest.mark.parametrize("change", [edit, edit_and_hide, replaced])
def test_a_record_that_changes_is_read_again(
    run: Path, files_read: list[str], change: Callable[[Path], None]
) -> None:
    change(run / "cells" / f"{key(4)}.json")
    found = {r["key"]: r for r in Store(run).records()}
    assert found[key(4)]["metrics"]["kl"] == 0.2
    assert files_read == [key(4)]


def test_records_that_come_and_go(run: Path) -> None:
    (run / "cells" / f"{key(3)}.json").unlink()
    write(run, record(COUNT))
    expected = [record(i) for i in range(COUNT + 1) if i != 3]
    assert spelt(Store(run).records()) == spelt(expected)
    assert spelt(Store(run).records()) == spelt(expected)


def test_a_record_that_is_damaged_is_left_out_and_told(run: Path) -> None:
    path = run / "cells" / f"{key(5)}.json"
    path.write_text('{"schema": 1')
    for _ in range(2):
        found = Store(run)
        assert key(5) not in [r["key"] for r in found.records()]
        assert list(found.damaged) == [path]


def test_metrics_of_earlier_versions_have_their_names_of_today(run: Path) -> None:
    for i in range(COUNT):
        write(run, record(i) | {"metrics": {"entropy": 2.0, "sample_length": 3.0}})
    for _ in range(2):
        (names,) = {tuple(r["metrics"]) for r in Store(run).records()}
        assert names == ("token_entropy", "sample_length")


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "no table": lambda content: b"{}",
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_table_is_made_again(run: Path, files_read: list[str], name: str) -> None:
    path = run / record_table.NAME
    sound = path.read_bytes()
    path.write_bytes(DAMAGES[name](sound))
    assert spelt(Store(run).records()) == spelt(map(record, range(COUNT)))
    assert len(files_read) == COUNT
    assert path.read_bytes() == sound


def test_a_table_of_another_version_is_made_again(
    run: Path, files_read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_table, "FORMAT", b"2")
    for _ in range(2):
        assert spelt(Store(run).records()) == spelt(map(record, range(COUNT)))
    assert len(files_read) == COUNT


def test_no_flipped_bit_changes_a_number(run: Path) -> None:
    path, stamps = run / record_table.NAME, record_table.stamps_in(run / "cells")
    sound = path.read_bytes()
    assert len(record_table.read(path, stamps)) == COUNT
    for at in range(0, len(sound), 13):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 4]) + sound[at + 1 :])
        assert record_table.read(path, stamps) == {}, at


def test_a_run_that_cannot_be_written_is_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / record_table.NAME).unlink()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "read-only")

    monkeypatch.setattr(store, "write_atomic", refuse)
    assert len(Store(run).records()) == COUNT
    assert not (run / record_table.NAME).exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_to_write(run: Path) -> None:
    (run / record_table.NAME).unlink()
    run.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert len(Store(run).records()) == COUNT
    finally:
        run.chmod(stat.S_IRWXU)


def test_what_may_change_again_within_a_tick_is_read_from_its_file(
    run: Path, files_read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / record_table.NAME).unlink()
    monkeypatch.setattr(record_table, "YOUNG_NS", 10**12)
    Store(run).records()
    assert not (run / record_table.NAME).exists()
    assert len(files_read) == COUNT


def test_few_stale_records_do_not_have_the_table_made_again(
    run: Path, files_read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_table, "STALE", 0.5)
    before = (run / record_table.NAME).read_bytes()
    edit(run / "cells" / f"{key(4)}.json")
    for _ in range(2):
        Store(run).records()
    assert files_read == [key(4), key(4)]
    assert (run / record_table.NAME).read_bytes() == before
