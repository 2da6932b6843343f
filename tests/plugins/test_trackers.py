"""Trackers: csv, TensorBoard and Weights & Biases follow a run, and cannot hurt it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import xpo_bench
from xpo_bench import UsageError
from xpo_bench.runner.record import Record

Command = Callable[..., Any]

THEIRS = '''
from xpo_bench import Tracker, hookimpl

class Diary(Tracker):
    """Writes a line per event."""
    name = "diary"

    def run_start(self, cell):
        self._write("start", cell)

    def step_end(self, cell, step, metrics):
        self._write(f"step {step} kl {metrics['kl']:.3f}", cell)

    def run_end(self, cell, record):
        self._write("end " + record["status"], cell)
        raise RuntimeError("no more ink")

    def close(self):
        with (self.run / "diary.txt").open("a") as file:
            file.write("closed\\n")

    def _write(self, what, cell):
        with (self.run / "diary.txt").open("a") as file:
            file.write(f"{cell['algorithm']} {cell['seed']} {what}\\n")

@hookimpl
def xpo_trackers():
    return [Diary]
'''


def run(out: Path, track: str, **words: Any) -> xpo_bench.Result:
    return xpo_bench.run(["dpo", "ipo"], ["bandit"], steps=20, seeds=2, out=out, track=track, **words)


def curve(result: xpo_bench.Result, record: Record) -> dict[tuple[int, str], float]:
    """(step, metric) -> value of what observers are told: the metrics on training rows."""
    import pandas as pd

    told: dict[tuple[int, str], float] = {}
    for row in pd.read_parquet(result.out / "curves" / f"{record['key']}.parquet").to_dict("records"):
        for name, value in ((str(name), value) for name, value in row.items()):
            alone = name in (
                "step",
                "loss",
                "total_flops",
                "validation_accuracy",
                "test_accuracy",
            ) or name.startswith("heldout_")
            if not alone and value == value:
                told[int(row["step"]), name] = value
    return told


def test_csv_has_the_curve_and_the_final_metrics_to_the_digit(tmp_path: Path) -> None:
    result = run(tmp_path, "csv")
    for record in result.cells:
        with (tmp_path / "tracking" / "csv" / f"{record['key']}.csv").open(
            encoding="utf-8", newline=""
        ) as file:
            rows = list(csv.DictReader(file))
        assert {(r["algorithm"], r["task"], r["seed"]) for r in rows} == {
            (record["algorithm"]["name"], "bandit", str(record["seed"]))
        }
        points = {(int(r["step"]), r["metric"]): float(r["value"]) for r in rows if r["step"] != "final"}
        assert points == curve(result, record)
        finals = {
            r["metric"]: float(r["value"]) if r["value"] else None for r in rows if r["step"] == "final"
        }
        assert finals == record["metrics"]


def test_a_cell_that_is_run_again_is_written_anew_and_a_resumed_one_is_left(tmp_path: Path) -> None:
    first = run(tmp_path, "csv")
    files = sorted((tmp_path / "tracking" / "csv").glob("*.csv"))
    before = [file.read_text("utf-8") for file in files]
    assert run(tmp_path, "csv").computed == 0
    assert [file.read_text("utf-8") for file in files] == before
    assert run(tmp_path, "csv", fresh=True).computed == len(first.cells)
    assert [len(file.read_text("utf-8").splitlines()) for file in files] == [
        len(text.splitlines()) for text in before
    ]


def test_tensorboard_reads_the_curve_back(tmp_path: Path) -> None:
    loader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="the extra tensorboard"
    )
    result = run(tmp_path, "tensorboard")
    run(tmp_path, "tensorboard", fresh=True)  # which starts the files again
    for record in result.cells:
        (folder,) = (tmp_path / "tracking" / "tensorboard").glob(f"*-{record['key'][:8]}")
        assert folder.name == f"{record['algorithm']['name']}-bandit-s{record['seed']}-{record['key'][:8]}"
        events = loader.EventAccumulator(str(folder))
        events.Reload()
        tags = events.Tags()["scalars"]
        told = {
            (e.step, tag): e.value
            for tag in tags
            if not tag.startswith("final/")
            for e in events.Scalars(tag)
        }
        assert told == pytest.approx(curve(result, record), rel=1e-6)
        assert {tag[6:] for tag in tags if tag.startswith("final/")} == {
            k for k, v in record["metrics"].items() if v is not None
        }
        assert "config/text_summary" in events.Tags()["tensors"] or "config" in events.Tags()["tensors"]


def test_wandb_writes_a_run_per_cell_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the extra wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.delenv("WANDB_MODE", raising=False)
    result = xpo_bench.run(["dpo"], ["bandit"], steps=10, seeds=1, out=tmp_path, track="wandb")
    (record,) = result.cells
    (file,) = (tmp_path / "tracking" / "wandb" / "wandb").glob(
        f"offline-run-*-{record['key']}/run-{record['key']}.wandb"
    )
    steps, config = set(), {}
    for content in wandb_records(file.read_bytes()):
        entry = wandb_internal_pb2.Record()
        entry.ParseFromString(content)
        if entry.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): item.value_json for item in entry.history.item}
            if "kl" in items:
                steps.add(entry.history.step.num)
        if entry.WhichOneof("record_type") == "run":
            config = {item.key: item.value_json for item in entry.run.config.update}
    assert steps == {step for step, name in curve(result, record) if name == "kl"}
    assert config["algorithm"] == '"dpo"'
    assert config["beta"] == "0.1"


def wandb_records(log: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format, whose first 7 bytes are a header of W&B's own."""
    place, found = 7, b""
    while place < len(log):
        left = 32768 - place % 32768
        if left < 7:  # no header fits: the rest of the block is empty
            place += left
            continue
        length, kind = int.from_bytes(log[place + 4 : place + 6], "little"), log[place + 6]
        found += log[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield found
            found = b""


def test_a_tracker_of_a_plugin_is_asked_for_by_name_and_cannot_stop_a_run(
    distribution: Callable[..., Path], warm: Command, tmp_path: Path
) -> None:
    site = str(distribution("their-diary", {"diary": THEIRS}))
    words = ["run", "--algos", "dpo", "--tasks", "bandit", "--steps", "2", "--seeds", "2", "--quiet"]
    silent = warm(*words, "--out", str(tmp_path / "silent"), PYTHONPATH=site)
    assert silent.code == 0, silent.err
    assert not (tmp_path / "silent" / "diary.txt").exists()
    done = warm(*words, "--track", "diary", "--out", str(tmp_path / "told"), PYTHONPATH=site)
    assert done.code == 0, done.err
    lines = (tmp_path / "told" / "diary.txt").read_text("utf-8").splitlines()
    assert [line for line in lines if " 1 " in line][:2] == ["dpo 1 start", "dpo 1 step 0 kl 0.000"]
    assert lines.count("dpo 0 end ok") == lines.count("dpo 1 end ok") == lines.count("closed") == 1
    assert done.err.count("xpo-bench: tracker diary: run_end raised RuntimeError: no more ink") == 1
    assert {
        row["name"]: row["distribution"] for row in warm("list", "trackers", "--json", PYTHONPATH=site).json
    } == {"csv": "xpo-bench", "tensorboard": "xpo-bench", "wandb": "xpo-bench", "diary": "their-diary"}


def test_workers_are_followed_too(warm: Command, tmp_path: Path) -> None:
    words = (
        "run",
        "--algos",
        "dpo,ipo",
        "--tasks",
        "bandit",
        "--steps",
        "10",
        "--seeds",
        "1",
        "--track",
        "csv",
        "--quiet",
    )
    assert warm(*words, "--out", str(tmp_path / "one")).code == 0
    assert warm(*words, "--out", str(tmp_path / "two"), "--workers", "2").code == 0
    one, two = (
        {f.name: points(f) for f in (tmp_path / name / "tracking" / "csv").iterdir()}
        for name in ("one", "two")
    )
    assert one == two
    assert len(one) == 2


def points(file: Path) -> list[str]:
    return [line for line in file.read_text("utf-8").splitlines() if ",final," not in line]


def test_an_unknown_tracker_is_refused_before_anything_runs(warm: Command, tmp_path: Path) -> None:
    done = warm(
        "run", "--algos", "dpo", "--tasks", "bandit", "--track", "tensorbord", "--out", str(tmp_path / "run")
    )
    assert done.code == 2
    assert done.lines == [
        (
            "xpo-bench: unknown tracker 'tensorbord'; did you mean 'tensorboard'? (known: csv, "
            "tensorboard, wandb)"
        )
    ]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_named_with_its_extra(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for module in [m for m in sys.modules if m.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(UsageError, match=rf"--track {name}: .*; pip install 'xpo-bench\[{name}\]'"):
        run(tmp_path, name)
    assert not list(tmp_path.glob("cells/*"))
