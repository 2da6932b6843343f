"""Where processes run: each on devices, or on a share of the cores, that are its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NotRequired, TypedDict

from xpo_bench.errors import UsageError, unknown
from xpo_bench.runner.devices import devices_from, of_this_machine
from xpo_bench.runner.executors.cluster import Cluster, connected
from xpo_bench.runner.words import Execution, described

EXECUTORS: tuple[str, ...] = described(Execution)["executor"].choices


class ExecutionFacts(TypedDict):
    """What records say of how cells were spread: processes side by side confound throughput."""

    executor: Literal["local", "ray"]
    workers: NotRequired[int]
    deterministic: NotRequired[bool]


@dataclass(frozen=True)
class ExecutionConfig:
    """How cells are spread.

    Args:
        workers: processes at a time; 0 as many as a cluster has room for. limit_s: seconds that a batch of
            cells may take, None for no limit. cluster: of Ray, None for this machine. deterministic: torch
            takes no algorithm that is not. spreads: one worker was not asked for, and several may be taken.
    """

    workers: int = 1
    limit_s: float | None = None
    cluster: Cluster | None = None
    deterministic: bool = False
    spreads: bool = False

    @property
    def in_process(self) -> bool:
        """Whether this process runs the cells itself: it cannot end what does not end."""
        return self.workers == 1 and self.limit_s is None and self.cluster is None

    @property
    def facts(self) -> ExecutionFacts:
        """What records say of it."""
        facts: ExecutionFacts = {"executor": "ray" if self.cluster else "local"}
        if self.workers > 1:
            facts["workers"] = self.workers
        if self.deterministic:
            facts["deterministic"] = True
        return facts

    def device(self, asked: str) -> str:
        """A device as it was asked for, as one that is there."""
        if asked == "cpu" and not self.cluster:  # there is one, whatever else torch finds
            return asked
        return (self.cluster.devices() if self.cluster else of_this_machine()).resolve(asked)

    def check(self, asked: str, device: str, processes: int) -> None:
        """Refuse cells of this many processes that cannot run on what the asked device turned out to be."""
        if asked == "auto" and device == "cpu" and processes > 1:
            there = "in the cluster" if self.cluster else "on this machine"
            raise UsageError(
                f"--gpus-per-cell {processes}: no GPU {there}; --device cpu runs the processes on the CPU"
            )
        if self.cluster:
            self.cluster.check(device, processes)
        if self.deterministic and processes > 1:
            raise UsageError(
                "--deterministic: not with --gpus-per-cell, whose sums over devices have no promised order"
            )


@contextlib.contextmanager
def configured(asked: Execution, spreads: bool = False) -> Iterator[ExecutionConfig]:
    """How cells are spread, from the words of a run; a cluster stays connected meanwhile.

    Args:
        spreads: where no workers are asked for, several may be taken.

    Raises:
        UsageError: words that do not go together, or a cluster that is not there.
    """
    workers, limit_s = asked.workers, asked.cell_timeout
    if asked.executor not in EXECUTORS:
        raise UsageError(unknown("executor", asked.executor, EXECUTORS))
    if (workers is not None and workers < 1) or (limit_s is not None and not limit_s > 0):
        raise UsageError("workers must be at least 1, and cell_timeout more than 0 seconds")
    if asked.executor == "local":
        if asked.address is not None:
            raise UsageError(f"--address {asked.address}: goes with --executor ray")
        yield ExecutionConfig(workers or 1, limit_s, None, asked.deterministic, spreads and workers is None)
        return
    with connected(asked.address or "auto", workers or 1) as cluster:
        yield ExecutionConfig(workers or 0, limit_s, cluster, asked.deterministic)


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


def placements(workers: int, device: str, processes: int = 1) -> list[DevicePlacement]:
    """A placement for each worker.

    Args:
        processes: how many of them train a cell together, each on a device of its own.

    Raises:
        UsageError: there are not as many devices.
    """
    if not device.startswith("cuda"):
        return [DevicePlacement(device, cores=cores) for cores in _shares_of_cores(workers)]
    there = [name.partition(":")[2] for name in devices_from(device, workers * processes)]
    if len(there) < workers * processes:
        each = f", each on {processes} GPUs" if processes > 1 else ""
        raise UsageError(
            f"--workers {workers}{each}: this machine has {len(there)} from {device} on; they never share one"
        )
    # torch counts what CUDA_VISIBLE_DEVICES shows; a worker needs the names that stand there, which may be
    # other numbers or UUIDs. With them set it sees its own devices alone, the first of which is cuda:0
    shown = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    names = [shown[int(number)] if shown else number for number in there]
    return [
        DevicePlacement("cuda:0", tuple(names[i * processes : (i + 1) * processes])) for i in range(workers)
    ]


def _shares_of_cores(workers: int) -> list[tuple[int, ...]]:
    """The cores that this process may use, dealt to the workers; one each, repeated, where they are fewer."""
    if not hasattr(os, "sched_getaffinity"):
        return [()] * workers
    cores = sorted(os.sched_getaffinity(0))
    return [tuple(cores[i::workers]) or (cores[i % len(cores)],) for i in range(workers)]
