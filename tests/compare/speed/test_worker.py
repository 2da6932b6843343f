"""The worker: what it counts, on a clock that is made up, and the lines of a real one."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xpo_bench.compare.speed import worker
from xpo_bench.compare.speed.pairs import SCRIPT


class Clock:
    """Time that passes when it is told to; wall time runs twice as fast."""

    def __init__(self) -> None:
        self.now = 100.0

    def process_time(self) -> float:
        return self.now

    def perf_counter(self) -> float:
        return 2 * self.now


class Wire:
    """A driver that asks for so many blocks, and takes a minute for it."""

    def __init__(self, blocks: int, clock: Clock) -> None:
        self.left, self.clock, self.sent = blocks, clock, list[dict[str, Any]]()

    def send(self, **message: Any) -> None:
        self.sent.append(message)

    def receive(self) -> dict[str, Any]:
        self.clock.now += 60.0
        self.left -= 1
        return {"do": "block" if self.left >= 0 else "stop"}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(worker, "time", clock)
    return clock


Step = Callable[[int, worker.Meter], float]


def measured(clock: Clock, blocks: int, took: Step, device: str = "cpu") -> list[dict[str, Any]]:
    """What a meter sends: the calibration and the blocks.

    Args:
        took: seconds of the step of that number, which may tell the meter of an evaluation.
    """
    wire = Wire(blocks, clock)
    meter = worker.Meter(wire, device, 0.1, 0.5)  # type: ignore[arg-type]
    with contextlib.suppress(worker.Enough):
        for number in range(10_000):
            meter.step()
            clock.now += took(number, meter)
    assert wire.left < 0
    assert len(wire.sent) == 1 + blocks
    return wire.sent


def test_blocks_are_as_long_as_asked_for_and_equal_in_steps(clock: Clock) -> None:
    ready, *blocks = measured(clock, 3, lambda number, meter: 0.001)
    assert 110 <= ready["ready"] <= 125
    for block in blocks:
        assert block["steps"] == ready["ready"]
        assert block["cpu_s"] == pytest.approx(0.001 * block["steps"])
        assert block["wall_s"] == pytest.approx(0.002 * block["steps"])
        assert block["gpu_s"] is None


def test_blocks_go_on_until_they_are_long_enough(clock: Clock) -> None:
    _, *blocks = measured(
        clock, 2, lambda number, meter: 0.001 if number < 700 else 0.0005
    )  # faster than when calibrated
    assert all(block["cpu_s"] >= 0.1 for block in blocks)


def test_evaluations_pauses_and_warm_up_are_not_counted(clock: Clock) -> None:
    def took(number: int, meter: worker.Meter) -> float:
        if number < 4:
            return 0.05
        meter.evaluated = number % 40 == 7
        return 5.0 if meter.evaluated else 0.001

    for block in measured(clock, 4, took)[1:]:
        assert block["cpu_s"] == pytest.approx(0.001 * block["steps"])


def test_blocks_of_a_gpu_are_timed_by_its_events(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    class Event:
        """Three times as much work as on the CPU."""

        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = 3 * clock.now

        def elapsed_time(self, other: Event) -> float:
            return 1e3 * (other.at - self.at)

    chosen: list[str] = []
    cuda = SimpleNamespace(Event=Event, synchronize=lambda: None, set_device=chosen.append)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    _, *blocks = measured(clock, 2, lambda number, meter: 0.001, "cuda:1")
    assert chosen == ["cuda:1"]
    for block in blocks:
        assert 0.1 <= block["gpu_s"] == pytest.approx(0.003 * block["steps"])
        assert block["cpu_s"] == pytest.approx(0.001 * block["steps"])


def lines(commands: list[dict[str, Any]], cwd: Path) -> list[dict[str, Any]]:
    """What a real worker answers; its stdin ends after the commands."""
    done = subprocess.run(
        [sys.executable, "-I", str(SCRIPT)],
        input="".join(json.dumps(command) + "\n" for command in commands),
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def start(algorithm: str, workload: str) -> dict[str, Any]:
    return {
        "do": "start",
        "algorithm": algorithm,
        "workload": workload,
        "device": "cpu",
        "out": f"{algorithm}-{workload}",
        "block_s": 0.02,
        "warm_s": 0.02,
    }


def test_a_real_one_measures_tables_and_language_models(tmp_path: Path) -> None:
    block = {"do": "block"}
    said = lines(
        [
            start("no-such", "table"),
            start("rlhf", "table"),
            start("npo", "tabel"),
            *(start("dpo", "table"), block, block, {"do": "stop"}),
            *(start("kto", "language"), block, {"do": "stop"}),
            *(start("ipo", "table"), block),
        ],
        tmp_path,
    )
    assert set(said[0]["hello"]) == {"xpo-bench", "torch", "python"}
    assert "has no algorithm 'no-such' (known: " in said[1]["error"]
    assert "dpo" in said[1]["error"]
    assert "takes no training step" in said[2]["error"]
    assert "unknown workload" in said[3]["error"]
    kinds = ["steps" if "steps" in message else next(iter(message)) for message in said[4:]]
    # the last one is cut off by the end of stdin, as when the driver dies
    assert kinds == [
        "ready",
        "steps",
        "steps",
        "stopped",
        "ready",
        "steps",
        "stopped",
        "ready",
        "steps",
        "stopped",
    ]
    for message in said[4:]:
        if "steps" in message:
            assert message["steps"] > 0
            assert message["cpu_s"] >= 0.02
            assert message["wall_s"] > 0
