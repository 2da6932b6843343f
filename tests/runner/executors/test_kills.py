"""Kills at random moments lose no finished cell, and leave nothing that is read as whole and is not."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

import pytest

import xpo_bench
from xpo_bench.runner.merge import computed
from xpo_bench.runner.store import Store


def asked(cells: int) -> dict[str, Any]:
    """As many computations as settings, of one cell each."""
    return {
        "algos": ["dpo"],
        "tasks": ["one_pair"],
        "seeds": 1,
        "set": {"task.steps": list(range(3, 3 + cells))},
    }


@pytest.mark.parametrize(("kills", "cells"), [(6, 24), pytest.param(50, 120, marks=pytest.mark.slow)])
def test_kills_at_random_moments(tmp_path: Path, kills: int, cells: int) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["xpo_bench.runner.executors.in_process", "xpo_bench.api"])
    rng = random.Random(0)
    words = asked(cells)
    run = tmp_path / "r"
    finished: dict[str, bytes] = {}
    killed = 0
    while True:
        process = context.Process(
            target=xpo_bench.run, kwargs={**words, "out": run}
        )  # the package's: a child knows no tests
        process.start()
        if killed < kills:
            if killed % 5:  # while it writes cells; else while it starts
                while process.is_alive() and len(list((run / "cells").glob("*.json"))) <= len(finished):
                    time.sleep(0.002)
            process.join(rng.uniform(0.0, 0.05))
            process.kill()
        process.join()
        killed += process.exitcode == -9
        store = Store(run)
        if run.exists():
            now = {path.name: path.read_bytes() for path in (run / "cells").glob("*.json")}
            assert finished.items() <= now.items()  # what was finished is there, byte for byte
            assert {f"{record['key']}.json" for record in store.records()} == set(now)
            assert store.damaged == {}
            for name in now:
                for folder in ("curves", "items"):
                    assert (run / folder / name.replace(".json", ".parquet")).exists()
            finished = now
        if process.exitcode == 0:
            break
        assert process.exitcode == -9
    assert killed == kills  # the run was not over before
    xpo_bench.run(**words, out=tmp_path / "calm")
    found, calm = (
        {r["key"]: computed(r) for r in Store(tmp_path / name).records()} for name in ("r", "calm")
    )
    assert len(found) == cells
    assert found == calm
