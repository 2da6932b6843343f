"""Parts of a plan that ran apart become the run of one machine, unless they contradict each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from xpo_bench.errors import UsageError
from xpo_bench.runner.merge import computed, merge
from xpo_bench.runner.request import parse_shard
from xpo_bench.runner.store import Store

WORDS = ["run", "--algos", "dpo,ipo", "--tasks", "one_pair", "--seeds", 3, "--steps", 5]


def records(run: Path) -> dict[str, dict[str, Any]]:
    return {record["key"]: computed(record) for record in Store.existing(run).records()}


def change(run: Path, **values: Any) -> dict[str, Any]:
    """Change the first record of a run directory."""
    path = sorted((run / "cells").glob("*.json"))[0]
    record: dict[str, Any] = json.loads(path.read_text("utf-8"))
    for name, value in values.items():
        at, _, last = name.rpartition("__")
        (record[at] if at else record)[last] = value
    path.write_text(json.dumps(record), "utf-8")
    return record


@pytest.fixture
def parts(warm: Any, tmp_path: Path) -> Path:
    """A whole run, and the same in three parts."""
    assert warm(*WORDS, "--out", "whole").code == 0
    for i in (1, 2, 3):
        assert warm(*WORDS, "--shard", f"{i}/3", "--out", f"part{i}").code == 0
    return tmp_path


def test_shards_are_the_whole_run(parts: Path, warm: Any) -> None:
    assert [len(records(parts / f"part{i}")) for i in (1, 2, 3)] == [2, 2, 2]
    joined = warm("merge", "part1", "part2", "part3", "-o", "all")
    assert joined.code == 0
    assert "6 cells in all" in joined.err
    assert records(parts / "all") == records(parts / "whole")
    for folder in ("curves", "items"):
        found, whole = (
            {path.name: path.read_bytes() for path in (parts / run / folder).glob("*.parquet")}
            for run in ("all", "whole")
        )
        assert len(found) == 6
        assert found.keys() == whole.keys()
    assert found == whole  # of items nothing is timed
    again = warm(*WORDS, "--out", "all", "--quiet")
    assert again.code == 0
    assert warm("status", "all", "--json").json == {
        "run": "all",
        "planned": 6,
        "finished": 6,
        "status": {"ok": 6},
    }
    document = json.loads((parts / "all" / "run.json").read_text("utf-8"))
    assert len(document["commands"]) == 4  # the three, and the one that found all done


def test_the_default_directory_of_a_part_is_its_own(warm: Any, tmp_path: Path) -> None:
    for words in ([], ["--shard", "1/2"], ["--shard", "2/2"]):
        assert warm(*WORDS, *words).code == 0
    names = sorted(path.name for path in (tmp_path / "results" / "runs").iterdir())
    assert names == [names[0], f"{names[0]}-1of2", f"{names[0]}-2of2"]


def test_what_is_done_twice_is_kept_once_and_timing_may_differ(parts: Path) -> None:
    change(parts / "part1", metrics__pairs_per_s=1.0, created="2001-01-01T00:00:00+00:00")
    out = Store(parts / "all")
    out.prepare()
    count, left_out = merge([Store(parts / "whole"), Store(parts / "part1")], out)
    assert (count, left_out) == (6, [])


def test_what_failed_in_one_is_taken_from_where_it_is_done(parts: Path) -> None:
    key = change(parts / "whole", status="crashed")["key"]
    out = Store(parts / "all")
    out.prepare()
    merge([Store(parts / "whole"), *(Store(parts / f"part{i}") for i in (1, 2, 3))], out)
    assert out.done(key)


def test_a_contradiction_is_refused_and_nothing_written(parts: Path, warm: Any) -> None:
    record = change(parts / "part2", metrics__kl=0.123)
    found = warm("merge", "whole", "part2", "-o", "all")
    assert found.code == 2
    assert len(found.lines) == 1
    assert f"seed {record['seed']} ({record['key']}) differs in metrics.kl" in found.err
    assert Store(parts / "all").records() == []


def test_what_is_not_whole_is_named_and_left_out(parts: Path, warm: Any) -> None:
    path = sorted((parts / "part1" / "cells").glob("*.json"))[0]
    path.write_bytes(path.read_bytes()[:50])
    found = warm("merge", "part1", "part2", "-o", "all")
    assert found.code == 0
    assert f"left out: part1/cells/{path.name}: incomplete or corrupt" in found.err
    assert len(records(parts / "all")) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["merge", "nowhere", "-o", "all"], "nowhere: not a run directory"),
        (["merge", "part1", "-o", "part1"], "is one of the runs"),
        ([*WORDS, "--shard", "4/3"], "--shard 4/3: expected a part such as 3/8"),
        ([*WORDS, "--shard", "0/3"], "--shard 0/3"),
        ([*WORDS, "--shard", "1/2", "--target-kl", "1"], "not with --target-kl"),
    ],
)
def test_refusals(warm: Any, tmp_path: Path, words: list[Any], message: str) -> None:
    for name in ("cells", "curves"):
        (tmp_path / "part1" / name).mkdir(parents=True)
    found = warm(*words)
    assert found.code == 2
    assert len(found.lines) == 1
    assert message in found.err


@pytest.mark.parametrize("text", ["", "3", "3/", "/3", "a/b", "1/0", "-1/2", "1/2/3", "1.5/2", "\u0663/8 "])
def test_words_that_name_no_part(text: str) -> None:
    with pytest.raises(UsageError, match="expected a part"):
        parse_shard(text)
