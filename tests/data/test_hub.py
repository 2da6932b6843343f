"""Hub sets, read by the real clients from a local hub: pinned, streamed, cached, and unreachable."""

from __future__ import annotations

import gzip
import json
import shutil
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
from xpo_bench import DataSpec
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
            [sys.executable, "-c", LOAD, json.dumps(wanted)],
            env=variables(env),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.stderr == ""
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_first_rows_are_streamed_and_the_commit_is_recorded(
    xpo: Any, hub: Hub, online: dict[str, str]
) -> None:
    hub.sent.clear()
    done = xpo(
        "run",
        "--algos",
        "dpo",
        "--data",
        "someone/prefs",
        "--rows",
        "3",
        "--steps",
        "2",
        "--json",
        "--quiet",
        **online,
    )
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
        assert loads(
            online, ("someone/prefs", None), ("someone/prefs@v1", None), (f"someone/prefs@{OLD}", 2)
        ) == [
            old,
            old,
            ["old 0", 4, "test", OLD],
        ]
    finally:
        hub.refs = before
    hub.requests.clear()
    wanted = (
        ("someone/prefs", None),
        ("someone/prefs@v1", 3),
        (f"someone/prefs@{OLD}", None),
        ("someone/prefs@v2", None),
    )
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
    only_test = {
        "README.md": CARD.replace(TRAIN, b""),
        "data/test.jsonl": hub.commits[OLD]["data/test.jsonl"],
    }
    hub.commits["c" * 40] = only_test
    found = loads(
        online, ("someone/prefs@nope", None), ("someone/other", None), (f"someone/prefs@{'c' * 40}", None)
    )
    assert [kind for kind, _ in found] == ["UnreachableError", "UnreachableError", "DataError"]
    assert "hub data set 'someone/prefs@nope' cannot be reached or read" in found[0][1]
    assert "want an existing id, or a local file" in found[1][1]
    assert "has no split called train but test" in found[2][1]


def test_an_unreachable_hub_is_asked_once(loads: Run, mute_hub: Any, online: dict[str, str]) -> None:
    ((kind, line),) = loads(online | {"HF_ENDPOINT": mute_hub.url}, ("someone/prefs", None))
    assert kind == "UnreachableError"
    assert line.startswith("hub data set 'someone/prefs' cannot be reached or read (")
    assert mute_hub.asked("someone/prefs") == 1


# --------------------------------------------------------------------------- the same rows as a local file

ODD = [
    "None",
    "NA",
    "nan",
    "007",
    "1e5",
    "2024-01-31",
    "2024-01-31T10:00:00",
    "true",
    "null",
    "",
    "[1] a note",
    "-0",
    "N/A",
]
BLOCK = 10_050
SAME = """
import json, sys
from dataclasses import asdict
from xpo_bench.data.dataset import load_dataset
from xpo_bench.errors import UsageError
from xpo_bench import DataSpec
import numpy as np
for source, options in json.loads(sys.argv[1]):
    try:
        d = load_dataset(DataSpec(source=source, on_bad_row="skip", **options), 0.0, np.random.default_rng(0))
        examples = [asdict(e) for e in (*d.train, *d.heldout)]
        print(json.dumps([examples, d.layout, dict(d.dropped), dict(d.columns)]))
    except UsageError as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""


def odd_rows() -> list[dict[str, Any]]:
    rows = [{"prompt": f"q {text}", "chosen": text, "rejected": f"not {text}"} for text in ODD]
    rows += [{"prompt": "001", "chosen": f"{i:05}", "rejected": "x"} for i in range(BLOCK)]
    return [*rows, {"prompt": "q", "chosen": "text", "rejected": "001"}]


def files() -> dict[str, bytes]:
    """Sets in every format whose texts a reader that guesses types would change."""
    import io

    import pandas as pd

    rows = odd_rows()
    frame = pd.DataFrame(rows)
    parquet = io.BytesIO()
    frame.to_parquet(parquet)
    shp = [
        {"History": "q", "human_ref_A": "NA", "human_ref_B": "007", "labels": i % 2, "domain": "d"}
        for i in range(3)
    ]
    return {
        "train.csv": frame.to_csv(index=False).encode(),
        "train.tsv": frame.to_csv(index=False, sep="\t").encode(),
        "train.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
        "train.json": json.dumps({"version": 1, "data": rows[:200]}).encode(),
        "train.parquet": parquet.getvalue(),
        "train.jsonl.gz": gzip.compress("".join(json.dumps(row) + "\n" for row in shp).encode()),
    }


def test_a_hub_set_is_the_same_rows_as_its_file(
    variables: Callable[..., dict[str, str]], online: dict[str, str], tmp_path: Path, hub: Hub
) -> None:
    made = files()
    commits = {digit * 40: name for digit, name in zip("123456", made, strict=True)}
    wanted: list[Any] = []
    for sha, name in commits.items():
        hub.commits[sha] = {f"data/{name}": made[name]}
        (tmp_path / name).write_bytes(made[name])
        options = {"columns": {"source": "domain"}} if name.endswith(".gz") else {}
        at_hub = f"someone/prefs@{sha}"
        wanted += [(at_hub, options), (str(tmp_path / name), options), (at_hub, {"rows": 20, **options})]

    def run(env: dict[str, str], asked: list[Any]) -> list[Any]:
        done = subprocess.run(
            [sys.executable, "-c", SAME, json.dumps(asked)],
            env=variables(env),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.stderr == ""
        return [json.loads(line) for line in done.stdout.splitlines()]

    found = run(online, wanted)
    for i, name in enumerate(made):
        whole, local, first = found[3 * i : 3 * i + 3]
        assert whole == local, name
        assert first[0] == local[0][: len(first[0])]
        assert len(first[0]) in (3, 19), name
    texts = [pair["chosen"] for pair in found[1][0]]
    assert texts[:12] == [text for text in ODD if text]
    assert texts[12 : 12 + BLOCK] == [f"{i:05}" for i in range(BLOCK)]
    _, layout, dropped, columns = found[16]
    assert (layout, dropped) == ("shp", {})
    assert columns == {
        "prompt": "history",
        "pair": "human_ref_A, human_ref_B",
        "preference": "labels",
        "source": "domain",
        "history": "History",
    }
    # and without the network, from the files that the client has kept
    again = run(online | {"HF_HUB_OFFLINE": "1"}, wanted[:1])
    assert again == found[:1]


def test_tables_that_lost_the_types_of_their_texts_are_refused(
    variables: Callable[..., dict[str, str]], loads: Run, hub: Hub, online: dict[str, str]
) -> None:
    prepare = "import datasets, sys; datasets.load_dataset('someone/prefs', revision=sys.argv[1])"
    for sha, name, lossless in (("7" * 40, "train.csv", False), ("8" * 40, "train.parquet", True)):
        content = files()[name] if lossless else b"prompt,chosen,rejected\n1,007,NA\n"
        hub.commits[sha] = {"README.md": b"# prefs\n", f"data/{name}": content}
        subprocess.run(
            [sys.executable, "-c", prepare, sha],
            env=variables(online),
            check=True,
            capture_output=True,
            timeout=300,
        )
        shutil.rmtree(Path(online["HF_HOME"]) / "hub")  # the tables alone are left
        ((first, second, *_),) = loads(online | {"HF_HUB_OFFLINE": "1"}, (f"someone/prefs@{sha}", None))
        if lossless:
            assert (first, second) == (f"q {ODD[0]}", len(odd_rows()))
        else:
            assert first == "UnreachableError"
            assert "was prepared from csv files by a reader that guesses types" in second


def test_splits_of_sets_that_hold_more_than_preferences(loads: Run, hub: Hub, online: dict[str, str]) -> None:
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n" + "".join(
        f"  - {{split: {split}, path: data/{split}.jsonl}}\n"
        for split in ("train_sft", "train_prefs", "test_prefs")
    )
    several = card.replace("config_name: default", "config_name: one") + card.partition("configs:\n")[
        2
    ].replace("default", "two")
    data = {
        f"data/{split}.jsonl": lines(split, n)
        for split, n in (("train_sft", 9), ("train_prefs", 3), ("test_prefs", 2))
    }
    hub.commits["9" * 40] = {"README.md": (card + "---\n").encode(), **data}
    hub.commits["d" * 40] = {"README.md": (several + "---\n").encode(), **data}
    sources = (f"someone/prefs@{'9' * 40}", f"someone/prefs@{'d' * 40}", f"someone/prefs:two@{'d' * 40}")
    one, unnamed, two = loads(online, *((source, None) for source in sources))
    assert one == ["train_prefs 0", 5, "test", "9" * 40]
    assert two == ["train_prefs 0", 5, "test", "d" * 40]
    assert unnamed[0] == "DataError"
    assert "has several configurations (one, two); name one: someone/prefs:NAME" in unnamed[1]


def test_files_of_other_kinds_and_malformed_ones(loads: Run, hub: Hub, online: dict[str, str]) -> None:
    hub.commits["e" * 40] = {"README.md": b"# prefs\n", "data/train.jsonl": lines("a", 2) + b"{oops\n"}
    hub.commits["f" * 40] = {"README.md": b"# prefs\n", "data/train-00000-of-00002.jsonl": lines("a", 2)}
    bad, part = loads(online, (f"someone/prefs@{'e' * 40}", None), (f"someone/prefs@{'f' * 40}", None))
    assert bad[0] == "DataError"
    assert "train.jsonl line 3: malformed JSON" in bad[1]
    assert part[0] == "UnreachableError"
    assert "1 of the 2 files of data/train are there" in part[1]
