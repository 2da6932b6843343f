"""The only place that reads time: prepare, train and evaluate are charged apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

import torch

Phase = Literal["prepare_s", "train_s", "evaluate_s"]


@dataclass
class Clock:
    """Seconds per phase, from a monotonic clock, with the device synchronised at both ends.

    Args:
        meter: running count of the floating-point operations of a policy; what is spent outside of evaluation
            is charged.
    """

    device: str = "cpu"
    meter: Callable[[], float] = lambda: 0.0
    prepare_s: float = 0.0
    train_s: float = 0.0
    evaluate_s: float = 0.0
    flops: float = 0.0
    step_s: list[float] = field(default_factory=list)

    @contextmanager
    def charge(self, phase: Phase) -> Iterator[None]:
        """Charge the time of the block to a phase; a `train_s` block is one step."""
        self._synchronise()
        start, operations = time.perf_counter(), self.meter()
        try:
            yield
        finally:
            self._synchronise()
            # device and host end together: kernels still queued would be charged to whoever comes next
            spent = time.perf_counter() - start
            setattr(self, phase, getattr(self, phase) + spent)
            if phase != "evaluate_s":
                self.flops += self.meter() - operations
            if phase == "train_s":
                self.step_s.append(spent)

    def waive(self) -> None:
        """Charge the last step, which came to nothing, to preparation."""
        spent = self.step_s.pop()
        self.train_s -= spent
        self.prepare_s += spent

    @property
    def step_ms_median(self) -> float | None:
        """Median step in milliseconds, or None before the first step."""
        return median(self.step_s) * 1e3 if self.step_s else None

    def _synchronise(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
