"""Files are data: none is ever run, none decides where another is written."""

from __future__ import annotations

import ast
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

import xpo_bench
from xpo_bench.plugins import NAME
from xpo_bench.runner.store import SIZE_LIMIT, Store

HOST = Path(xpo_bench.__file__).parent
PIPES = {"executors/subprocesses.py"}
"""Messages between processes of one run, which Python pickles; nothing that is read from a file."""
KEY = "0123456789abcdef01234567"


def test_nothing_is_unpickled_but_messages_between_processes_of_a_run() -> None:
    import xpo_bench_plugins

    users = set()
    for root in (HOST, Path(xpo_bench_plugins.__path__[0])):
        for path in root.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                elif isinstance(node, ast.Attribute):
                    names = [f"{node.value.id}.{node.attr}"] if isinstance(node.value, ast.Name) else []
                if any(
                    name.split(".")[0] in ("pickle", "shelve", "joblib", "dill", "cloudpickle", "marshal")
                    for name in names
                ):
                    users.add(
                        path.relative_to(root / "runner").as_posix()
                        if root / "runner" in path.parents
                        else path.name
                    )
                assert "torch.load" not in names, path
                assert "numpy.load" not in names, path
                assert "np.load" not in names, path
    assert users == PIPES


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize(
    "name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet", "rows.pkl", "world.json", "plan.toml"]
)
def test_a_pickle_in_place_of_a_file_is_refused_and_not_run(warm: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "good.jsonl").write_text(json.dumps({"prompt": "x", "chosen": "a", "rejected": "b"}), "utf-8")
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(tmp_path / "mark")))
    words = {"world.json": ["--algos", "dpo", "--data", "good.jsonl", "--world", name], "plan.toml": [name]}
    found = warm("run", *words.get(name, ["--algos", "dpo", "--data", name]))
    assert found.code == 2
    assert len(found.lines) == 1
    assert not (tmp_path / "mark").exists()


def test_a_pickle_in_place_of_a_record_or_a_cache_is_set_aside_and_not_run(warm: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "x", "chosen": "a", "rejected": "b"}), "utf-8")
    words = [
        "run",
        "--algos",
        "dpo",
        "--data",
        "rows.jsonl",
        "--model",
        "tiny",
        "--seeds",
        1,
        "--steps",
        2,
        "--out",
        "r",
    ]
    words += ["--set", "task.kl_prompts=1", "--set", "task.kl_samples=1", "--set", "task.max_new_tokens=2"]
    assert warm(*words).code == 0
    for path in [
        *tmp_path.glob("r/cells/*.json"),
        *tmp_path.glob("r/references/*"),
        tmp_path / "r" / "run.json",
    ]:
        path.write_bytes(pickle.dumps(Bomb(tmp_path / "mark")))
    found = warm(*words)
    assert found.code == 0
    assert "set aside" in found.err
    assert not (tmp_path / "mark").exists()


def test_a_record_of_a_size_that_no_record_has_is_not_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.prepare()
    path = tmp_path / "cells" / f"{KEY}.json"
    with path.open("wb") as file:
        file.truncate(SIZE_LIMIT + 1)  # no such bytes are on the disk
    assert store.read_cell(KEY) is None
    assert "larger than" in store.damaged[path]


def test_a_record_that_is_nested_without_end_is_not_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.prepare()
    (tmp_path / "cells" / f"{KEY}.json").write_text("[" * 10**6, "utf-8")
    assert store.records() == []


ODD_NAMES = [
    "../up",
    "/abs",
    "a/b",
    "a\\b",
    "..",
    ".hidden",
    "CON:",
    "x" * 300,
    "a\nb",
    "a\x1b[31m",
    "",
    "Ä",
    "a b",
    "*",
    "a\0b",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_never_become_paths(name: str) -> None:
    assert not NAME.fullmatch(name)


@pytest.mark.parametrize(
    "name",
    ["../../up.jsonl", "..jsonl", "a b.jsonl", "con.jsonl", "x" * 200 + ".jsonl", "-rf.jsonl", "[red].jsonl"],
)
def test_the_name_of_a_data_file_stays_inside_the_run_directory(warm: Any, tmp_path: Path, name: str) -> None:
    """A task is called after its file; its name is made one that may be called so."""
    place = tmp_path / "deep" / "er"
    place.mkdir(parents=True)
    path = place / name
    path.write_text(json.dumps({"prompt": "x", "chosen": "a", "rejected": "b"}), "utf-8")
    before = {p for p in tmp_path.rglob("*") if "/r/" not in str(p)}
    found = warm(
        "run",
        "--algos",
        "dpo",
        "--data",
        path,
        "--model",
        "tabular",
        "--seeds",
        1,
        "--steps",
        2,
        "--out",
        "r",
    )
    assert found.code == 0, found.err
    (record,) = Store(tmp_path / "r").records()
    assert NAME.fullmatch(record["task"]["name"])
    after = {p for p in tmp_path.rglob("*") if "/r/" not in str(p)} - before
    assert {p.name for p in after} <= {"r", ".stdout", ".stderr"}
