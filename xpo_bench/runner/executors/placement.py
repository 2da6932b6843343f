"""Where processes run: each on devices, or on a share of the cores, that are its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xpo_bench.errors import UsageError, unknown
from xpo_bench.runner import environment
from xpo_bench.runner.model_choice import devices_from

if TYPE_CHECKING:
    from xpo_bench.runner.executors.cluster import Cluster

EXECUTORS = ("local", "ray")


@dataclass(frozen=True)
class ExecutionConfig:
    """How cells are spread.

    Args:
        workers: processes at a time; 0 as many as a cluster has room for. limit_s: seconds that a group of
            cells may take, None for no limit. cluster: of Ray, None for this machine. deterministic: torch
            takes no algorithm that is not.
    """

    workers: int = 1
    limit_s: float | None = None
    cluster: Cluster | None = None
    deterministic: bool = False

    @property
    def in_process(self) -> bool:
        """Whether this process runs the cells itself: it cannot end what does not end."""
        return self.workers == 1 and self.limit_s is None and self.cluster is None

    @property
    def facts(self) -> dict[str, Any]:
        """What records say of it: processes side by side confound throughput."""
        told: dict[str, Any] = {"executor": "ray" if self.cluster else "local"}
        if self.workers > 1:
            told["workers"] = self.workers
        return told | ({"deterministic": True} if self.deterministic else {})

    def device(self, asked: str) -> str:
        """A device as it was asked for, as one that is there."""
        return self.cluster.device(asked) if self.cluster else environment.resolve_device(asked)


@contextlib.contextmanager
def spread(
    executor: str, address: str | None, workers: int | None, limit_s: float | None
) -> Iterator[ExecutionConfig]:
    """Where cells run, as the words of a run say; a cluster is connected to meanwhile.

    Raises:
        UsageError: words that do not go together, or a cluster that is not there.
    """
    if executor not in EXECUTORS:
        raise UsageError(unknown("executor", executor, EXECUTORS))
    if (workers is not None and workers < 1) or (limit_s is not None and not limit_s > 0):
        raise UsageError("workers must be at least 1, and cell_timeout more than 0 seconds")
    if executor == "local":
        if address is not None:
            raise UsageError(f"--address {address}: goes with --executor ray")
        yield ExecutionConfig(workers or 1, limit_s)
        return
    from xpo_bench.runner.executors.cluster import connected

    with connected(address or "auto", workers or 1) as cluster:
        yield ExecutionConfig(workers or 0, limit_s, cluster)


@dataclass(frozen=True)
class DevicePlacement:
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


def places(workers: int, device: str, processes: int = 1) -> list[DevicePlacement]:
    """A place for each worker.

    Args:
        processes: how many of them train a cell together, each on a device of its own.

    Raises:
        UsageError: there are not as many devices.
    """
    if not device.startswith("cuda"):
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        return [
            DevicePlacement(
                device, cores=tuple(cores[i::workers] or cores[i % len(cores) :][:1]) if cores else ()
            )
            for i in range(workers)
        ]
    there = [name.partition(":")[2] for name in devices_from(device, workers * processes)]
    if len(there) < workers * processes:
        each = f", each on {processes} GPUs" if processes > 1 else ""
        raise UsageError(
            f"--workers {workers}{each}: this machine has {len(there)} from {device} on; they never share one"
        )
    shown = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    names = [shown[int(number)] if shown else number for number in there]
    return [
        DevicePlacement("cuda:0", tuple(names[i * processes : (i + 1) * processes])) for i in range(workers)
    ]
