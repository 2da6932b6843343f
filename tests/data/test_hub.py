"""Hub sets, read by the real clients from a hub on this machine: pinned, streamed, cached, and unreachable."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, serving

NEW, OLD = "b" * 40, "a" * 40
LONG = 2000
TRAIN = b"  - {split: train, path: data/train.jsonl}\n"
CARD = b"""---
configs:
- config_name: default
  data_files:
  - {split: train, path: data/train.jsonl}
  - {split: test, path: data/test.jsonl}
---
"""
LOAD = """
import json, sys
from xpo_bench.data.sources import load
from xpo_bench.errors import UsageError
from xpo_bench.types import DataSpec
for source, rows in json.loads(sys.argv[1]):
    try:
        loaded = load(DataSpec(source=source, rows=rows))
        prompts = [row["prompt"] for _, row in loaded.rows]
        print(json.dumps([prompts[0], len(prompts), loaded.rows[-1][1]["split"], loaded.revision]))
    except UsageError as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""

Run = Callable[..., list[Any]]


def lines(name: str, count: int, length: int = 1) -> bytes:
    row = {"chosen": "a" * length, "rejected": "b" * length, "id": 7}
    return "".join(json.dumps({"prompt": f"{name} {i}", **row}) + "\n" for i in range(count)).encode()


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    old = {"README.md": CARD, "data/train.jsonl": lines("old", 20), "data/test.jsonl": lines("held", 4)}
    new = {**old, "data/train.jsonl": lines("new", 20_000, LONG)}
    with serving({NEW: new, OLD: old}, {"main": NEW, "v1": OLD}) as hub:
        yield hub


@pytest.fixture
def online(hub: Hub, tmp_path: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}


@pytest.fixture
def loads(variables: Callable[..., dict[str, str]]) -> Run:
    """Loads sets in a process of its own, since the clients read their variables once."""

    def run(env: dict[str, str], *wanted: tuple[str, int | None]) -> list[Any]:
        done = subprocess.run(
            [sys.executable, "-c", LOAD, json.dumps(wanted)], env=variables(env), capture_output=True, text=True, timeout=120
        )
        assert done.stderr == ""
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_first_rows_are_streamed_and_the_commit_is_recorded(xpo: Any, hub: Hub, online: dict[str, str]) -> None:
    hub.sent.clear()
    done = xpo("run", "--algos", "dpo", "--data", "someone/prefs", "--rows", "3", "--steps", "2", "--json", "--quiet", **online)
    assert done.code == 0, done.err
    task = done.json["cells"][0]["task"]
    assert task["data"]["revision"] == NEW
    assert (task["data"]["train"], task["data"]["heldout"], task["data"]["rows"]) == (3, 3, 6)
    assert task["options"]["rows"] == 3
    # the client looks at the first 10 MB to learn the columns, and reads ahead by as much
    assert hub.sent["data/train.jsonl"] < len(hub.commits[NEW]["data/train.jsonl"]) / 2


def test_revisions_and_the_cache(loads: Run, hub: Hub, online: dict[str, str]) -> None:
    small = {"main": OLD, "v1": OLD, "v2": OLD}
    hub.refs, before = small, hub.refs
    try:
        old = ["old 0", 24, "test", OLD]
        assert loads(online, ("someone/prefs", None), ("someone/prefs@v1", None), (f"someone/prefs@{OLD}", 2)) == [
            old,
            old,
            ["old 0", 4, "test", OLD],
        ]
    finally:
        hub.refs = before
    hub.requests.clear()
    wanted = (("someone/prefs", None), ("someone/prefs@v1", 3), (f"someone/prefs@{OLD}", None), ("someone/prefs@v2", None))
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        *found, unknown = loads(online | {variable: "1"}, *wanted)
        assert found == [old, ["old 0", 6, "test", OLD], old]
        assert unknown[0] == "UnreachableError"
        assert "(offline, and the local cache has no complete copy)" in unknown[1]
    assert not hub.requests
    # a hub that does not answer is no reason to fail while there is a copy
    assert loads(online | {"HF_ENDPOINT": "http://127.0.0.1:9"}, ("someone/prefs", None)) == [old]


def test_files_that_were_downloaded_by_hand(loads: Run, online: dict[str, str]) -> None:
    root = Path(online["HF_HOME"]) / "hub" / "datasets--someone--prefs"
    folder = root / "snapshots" / OLD / "data"
    folder.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(OLD)
    (folder / "train.jsonl").write_bytes(lines("mine", 5))
    offline = online | {"HF_HUB_OFFLINE": "1"}
    assert loads(offline, ("someone/prefs", None), ("someone/prefs", 2)) == [
        ["mine 0", 5, "train", OLD],
        ["mine 0", 2, "train", OLD],
    ]


def test_what_the_hub_does_not_have(loads: Run, hub: Hub, online: dict[str, str]) -> None:
    only_test = {"README.md": CARD.replace(TRAIN, b""), "data/test.jsonl": hub.commits[OLD]["data/test.jsonl"]}
    hub.commits["c" * 40] = only_test
    found = loads(online, ("someone/prefs@nope", None), ("someone/other", None), (f"someone/prefs@{'c' * 40}", None))
    assert [kind for kind, _ in found] == ["UnreachableError", "UnreachableError", "DataError"]
    assert "hub data set 'someone/prefs@nope' cannot be reached or read" in found[0][1]
    assert "want an existing id, or a local file" in found[1][1]
    assert "has no split called train but test" in found[2][1]


def test_an_unreachable_hub_is_asked_once(loads: Run, mute_hub: Any, online: dict[str, str]) -> None:
    ((kind, line),) = loads(online | {"HF_ENDPOINT": mute_hub.url}, ("someone/prefs", None))
    assert kind == "UnreachableError"
    assert line.startswith("hub data set 'someone/prefs' cannot be reached or read (")
    assert mute_hub.asked("someone/prefs") == 1
