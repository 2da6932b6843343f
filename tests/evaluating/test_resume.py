"""What has been measured stands, whatever ends an evaluation."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from trained_models import Evaluate

from xpo_bench.errors import StoreError
from xpo_bench.evaluating import measuring
from xpo_bench.evaluating.measured import Measured
from xpo_bench.evaluating.named import Place
from xpo_bench.evaluating.sampling import Drawing
from xpo_bench.runner.store import write_atomic

Measure = measuring.Measurer.measure


NEVER = -1


class Counted:
    """Measures, counts, and ends with an error at one of the checkpoints."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[int | None] = []
        self.ends_at = NEVER
        self.error: BaseException = KeyboardInterrupt()
        own = self

        def measure(self: measuring.Measurer, place: Place, drawing: Drawing) -> Measured:
            if place.step == own.ends_at:
                raise own.error
            own.seen.append(place.step)
            return Measure(self, place, drawing)

        monkeypatch.setattr(measuring.Measurer, "measure", measure)


def test_an_interrupted_evaluation_goes_on_where_it_was(
    evaluate: Evaluate, trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counted = Counted(monkeypatch)
    counted.ends_at = 100
    with pytest.raises(KeyboardInterrupt):
        evaluate(trained / "run")
    assert counted.seen == [9, 20]
    counted.seen, counted.ends_at = [], NEVER
    resumed = evaluate(trained / "run")
    assert counted.seen == [100]
    assert evaluate(trained / "run").computed == 0
    whole = evaluate(trained / "run", out=tmp_path / "whole")
    assert resumed.cells[0]["metrics"] == whole.cells[0]["metrics"]


def test_a_run_that_has_gone_on_measures_its_new_checkpoint_alone(
    evaluate: Evaluate, trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counted = Counted(monkeypatch)
    run = tmp_path / "run"
    run.mkdir()
    for step in (9, 20):
        (run / f"checkpoint-{step}").symlink_to(trained / "run" / f"checkpoint-{step}")
        evaluate(run)
    assert counted.seen == [9, 20]


def test_a_full_disk_keeps_what_was_measured(
    evaluate: Evaluate, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    full = [False]

    def written(path: Path, content: bytes) -> None:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        full[0] = True
        write_atomic(path, content)

    monkeypatch.setattr("xpo_bench.evaluating.measured.write_atomic", written)
    with pytest.raises(StoreError, match="No space left on device"):
        evaluate(trained / "run")
    monkeypatch.setattr("xpo_bench.evaluating.measured.write_atomic", write_atomic)
    counted.seen = []
    assert evaluate(trained / "run").ok
    assert counted.seen == [20, 100]


def test_a_damaged_file_is_measured_again(
    evaluate: Evaluate, trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counted = Counted(monkeypatch)
    evaluate(trained / "sharded")
    for path in (*(tmp_path / "out" / "measured").iterdir(), *(tmp_path / "out" / "cells").iterdir()):
        path.write_bytes(path.read_bytes()[:-20])
    assert evaluate(trained / "sharded").ok
    assert len(counted.seen) == 2


def test_a_checkpoint_that_fails_costs_the_others_nothing(
    evaluate: Evaluate, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    counted.ends_at, counted.error = 20, RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
    result = evaluate(trained / "run", trained / "sharded")
    assert not result.ok
    assert [r["status"] for r in result.cells] == ["oom", "ok"]
    assert "checkpoint-20" in (result.cells[0]["error"] or {"message": ""})["message"]
