"""Trains with whatever xpo_bench its interpreter has, and times blocks of training steps on command.

`compare --ab` runs this file by path with the interpreter of either installation, of an older release too.
So it is one file, and of xpo_bench it uses only what authors of plugins use: the names that the package
exports, `xpo_bench.run` with classes for algorithm and task, and plugins' entry points. A call of the
algorithm's `loss` marks the beginning of a training step; an evaluation, which calls `implied_preference`,
invalidates the step that it falls into.

Every line on stdin and stdout is one JSON object:

    -> {"do": "start", "algorithm": "dpo", "workload": "table", "device": "cpu", "out": DIR, "block_s": .1,
    "warm_s": .5}
    <- {"ready": 250}                   steps of a block, found after the warm-up
    -> {"do": "block"}                  as often as wanted
    <- {"steps": 250, "cpu_s": .11, "wall_s": .11, "gpu_s": null}
    -> {"do": "stop"}
    <- {"stopped": true}                or, at any time, {"error": "..."}
"""

from __future__ import annotations

import json
import math
import os
import platform
import random
import sys
import time
from dataclasses import dataclass, fields
from importlib.metadata import entry_points
from typing import Any, ClassVar

STEPS = 10_000
"""Steps of a run; after them another run begins, and the step between the two is not counted."""

Mark = tuple[float, float, Any]


class Enough(KeyboardInterrupt):
    """No more blocks are wanted: ends a run as Ctrl-C does, which every release lets through."""


class Wire:
    """JSON lines to and from the driver; whatever a library prints goes to stderr."""

    def __init__(self) -> None:
        self.out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def send(self, **message: Any) -> None:
        self.out.write(json.dumps(message) + "\n")
        self.out.flush()

    def receive(self) -> dict[str, Any] | None:
        """The next command; None when the driver has gone."""
        line = sys.stdin.readline()
        return json.loads(line) if line else None


class Meter:
    """Times blocks of training steps.

    A block ends at the first step at which it has the calibrated number of steps and the asked number of
    seconds: CPU time of this process on a CPU, time between CUDA events on a GPU. The first step after a
    pause is not counted.

    Args:
        block_s: seconds of a block at least. warm_s: seconds of training before the calibration.
    """

    def __init__(self, wire: Wire, device: str, block_s: float, warm_s: float) -> None:
        self.wire, self.cuda = wire, device.startswith("cuda")
        self.block_s = block_s
        self.phases = [warm_s, 1.1 * block_s]
        self.seconds, self.needed = warm_s, 1
        self.evaluated = False
        self.last: Mark | None = None
        if self.cuda:
            import torch

            torch.cuda.set_device(device)  # where events are recorded
        self._clear()

    def _clear(self) -> None:
        self.steps, self.cpu_s, self.wall_s = 0, 0.0, 0.0
        self.events: list[tuple[Any, Any]] = []

    def step(self) -> None:
        """A training step begins."""
        mark = self._mark()
        # A step lasts from one call of the loss to the next; after a pause there is no call to count from.
        if self.last is not None and not self.evaluated:
            self.steps += 1
            self.cpu_s += mark[0] - self.last[0]
            self.wall_s += mark[1] - self.last[1]
            self.events.append((self.last[2], mark[2]))
        self.last, self.evaluated = mark, False
        if self.steps >= self.needed and self._whole():
            self._next()

    def _mark(self) -> Mark:
        event = None
        if self.cuda:
            import torch

            event = torch.cuda.Event(enable_timing=True)
            event.record()
        return time.process_time(), time.perf_counter(), event

    def _whole(self) -> bool:
        self.gpu_s = None
        if self.cuda:
            import torch

            torch.cuda.synchronize()
            self.gpu_s = sum(before.elapsed_time(after) for before, after in self.events) / 1e3
        enough = (self.cpu_s if self.gpu_s is None else self.gpu_s) >= self.seconds
        # 10 % more steps before the next look: synchronising a GPU at every step would slow it down
        if not enough:
            self.needed = math.ceil(1.1 * self.steps)
        return enough

    def _next(self) -> None:
        if self.phases:
            self.phases.pop(0)
        if self.phases:  # warm: find out how many steps a block takes
            self.seconds, self.needed = self.phases[0], 1
            self._clear()
            return
        if self.seconds != self.block_s:
            self.calibrated, self.seconds = self.steps, self.block_s
            self.wire.send(ready=self.calibrated)
        else:
            self.wire.send(steps=self.steps, cpu_s=self.cpu_s, wall_s=self.wall_s, gpu_s=self.gpu_s)
        command = self.wire.receive()
        if command is None or command["do"] != "block":
            raise Enough
        self.needed, self.last = self.calibrated, None
        self._clear()


def algorithm(name: str) -> Any:
    """The class of the algorithm of that name, from the plugins' entry points."""
    known = []
    points = sorted(entry_points(group="xpo_bench"), key=lambda point: point.name != name)
    for point in points:
        try:
            classes = point.load().xpo_algorithms()
        except Exception:  # a broken plugin, or one of tasks alone, cannot hold the wanted algorithm
            continue
        for cls in classes:
            known.append(cls.name)
            if cls.name == name:
                return cls
    raise LookupError(f"has no algorithm {name!r} (known: {', '.join(sorted(known)) or 'none'})")


def timed(cls: Any, meter: Meter) -> Any:
    """The algorithm, which tells the meter of its steps and evaluations."""

    @dataclass(frozen=True)
    class Timed(cls):  # type: ignore[misc]
        def loss(self, step: Any) -> Any:
            meter.step()
            return super().loss(step)

        def implied_preference(self, step: Any) -> Any:
            meter.evaluated = True
            return super().implied_preference(step)

    return Timed


def known(cls: Any, **values: Any) -> Any:
    """An instance from the fields that this release has."""
    return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})


def workload(kind: str) -> Any:
    """The task that both installations train on: the same rows, model and budget in every release.

    `table`: 1,024 pairs of 8 prompts with 6 actions, 256 a step. `language`: a byte-level Llama of two layers
    and width 64, 4 pairs a step of 32, 24 and 16 bytes of prompt, chosen and rejected completion, so that all
    steps cost the same.
    """
    from xpo_bench import Budget, Dataset, ModelSpec, Pair, Task

    draw = random.Random(0)

    def text(length: int) -> str:
        return "".join(draw.choice("abcdefgh ") for _ in range(length - 1)) + "."

    # evaluations are not what is measured: they get as little as a budget allows
    few = {"eval_pairs": 1, "heldout_pairs": 1, "kl_prompts": 1, "kl_samples": 1, "max_new_tokens": 1}
    if kind == "table":
        pairs = []
        for _ in range(1024):
            chosen, rejected = draw.sample(range(6), 2)
            pairs.append(Pair(f"prompt {draw.randrange(8)}", f"action {chosen}", f"action {rejected}"))
        spec = known(ModelSpec, name="tabular")
        grant = known(Budget, steps=STEPS, batch_size=256, optimizer="adam", lr=1e-4, dtype="float64", **few)
    elif kind == "language":
        pairs = [Pair(text(32), text(24), text(16)) for _ in range(256)]
        spec = known(
            ModelSpec,
            name="tiny",
            tokenizer="bytes",
            hidden_size=64,
            intermediate_size=128,
            layers=2,
            heads=4,
        )
        grant = known(
            Budget, steps=STEPS, batch_size=4, optimizer="adamw", lr=1e-5, dtype="float32", clip=1.0, **few
        )
    else:
        raise LookupError(f"unknown workload {kind!r}")

    @dataclass(frozen=True)
    class Work(Task):
        name: ClassVar[str] = f"ab-{kind}"
        model: ClassVar[ModelSpec] = spec
        budget: ClassVar[Budget] = grant

        def data(self, seed: int, model: ModelSpec) -> Dataset:
            return known(Dataset, train=tuple(pairs), rows=len(pairs))  # type: ignore[no-any-return]

    return Work


def serve(wire: Wire, command: dict[str, Any]) -> None:
    """Train one algorithm on one workload until no more blocks are wanted."""
    from xpo_bench import run

    meter = Meter(wire, command["device"], command["block_s"], command["warm_s"])
    algos, tasks = [timed(algorithm(command["algorithm"]), meter)], [workload(command["workload"])]
    while True:
        before = meter.last
        result = run(
            algos=algos, tasks=tasks, seeds=[0], out=command["out"], fresh=True, device=command["device"]
        )
        for cell in result.cells:
            if cell["status"] != "ok":
                raise RuntimeError(
                    cell["error"]["message"] if cell["error"] else f"the run is {cell['status']}"
                )
        if meter.last is before:
            raise RuntimeError("takes no training step")


def one_line(error: BaseException) -> str:
    """An exception as one line of an answer."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


def main() -> None:
    """Say what is installed, then follow commands until stdin ends."""
    wire = Wire()
    try:
        import torch

        import xpo_bench

        versions = {
            "xpo-bench": xpo_bench.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        wire.send(hello=versions, where=os.path.dirname(xpo_bench.__file__ or ""))
    except Exception as error:
        wire.send(error=one_line(error))
        return
    while (command := wire.receive()) is not None:
        try:
            serve(wire, command)
        except Enough:
            wire.send(stopped=True)
        except Exception as error:
            wire.send(error=one_line(error))


if __name__ == "__main__":
    main()
