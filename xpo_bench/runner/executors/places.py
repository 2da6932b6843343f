"""Where processes run: each on devices, or on a share of the cores, that are its own."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from xpo_bench.errors import UsageError
from xpo_bench.runner.models import devices_from


@dataclass(frozen=True)
class Where:
    """How cells are spread.

    Args:
        workers: processes at a time. limit_s: seconds that a group of cells may take, None for no limit.
    """

    workers: int = 1
    limit_s: float | None = None

    @property
    def in_process(self) -> bool:
        """Whether this process runs the cells itself: it cannot end what does not end."""
        return self.workers == 1 and self.limit_s is None

    @property
    def facts(self) -> dict[str, Any]:
        """What records say of it: processes side by side confound throughput."""
        return {"workers": self.workers} if self.workers > 1 else {}


@dataclass(frozen=True)
class Place:
    """The device of a process as it sees it, the CUDA devices that it sees, and its cores."""

    device: str
    visible: tuple[str, ...] = ()
    cores: tuple[int, ...] = field(default=())

    def settle(self) -> str:
        """Make this process see no other devices and run on no other cores; the device to compute on."""
        if self.visible:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(self.visible)
        if self.cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self.cores)
        import torch

        torch.set_num_threads(1)
        return self.device


def places(workers: int, device: str, processes: int = 1) -> list[Place]:
    """A place for each worker.

    Args:
        processes: how many of them train a cell together, each on a device of its own.

    Raises:
        UsageError: there are not as many devices.
    """
    if not device.startswith("cuda"):
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        return [
            Place(device, cores=tuple(cores[i::workers] or cores[i % len(cores) :][:1]) if cores else ()) for i in range(workers)
        ]
    there = [name.partition(":")[2] for name in devices_from(device, workers * processes)]
    if len(there) < workers * processes:
        each = f", each on {processes} GPUs" if processes > 1 else ""
        raise UsageError(f"--workers {workers}{each}: this machine has {len(there)} from {device} on; they never share one")
    shown = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    names = [shown[int(number)] if shown else number for number in there]
    return [Place("cuda:0", tuple(names[i * processes : (i + 1) * processes])) for i in range(workers)]
