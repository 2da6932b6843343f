"""Processes that train one model together, each on a device of its own; alone, nothing is exchanged.

Every process runs the same code with the same weights, data and seeds. What is split is the rows of a step:
losses are divided by the totals of the whole step, so gradients and losses of the shares add up to those of
the whole, and every process makes the same update. Collectives are `torch.distributed`'s own: the trainer
takes gradients of a sum by `autograd.grad`, where the hooks of DistributedDataParallel, which average, do not
fire.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor

Value = TypeVar("Value")
BUCKET = 2**25
"""Numbers that are exchanged at a time."""
PATIENCE = timedelta(hours=1)
"""How long a process waits for another, which may be evaluating. One that has died is noticed at once."""


class Piece(NamedTuple):
    """A micro-batch: rows of a step, None for all of them. The rows of `padding` have no weight."""

    rows: slice | None = None
    padding: bool = False


WHOLE = Piece()


@dataclass(frozen=True)
class Processes:
    """One of `count` processes; the methods of several are collective: all call them, in one order."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls, rank: int, count: int, device: str, meeting: Path) -> Processes:
        """Meet the others: by gloo, and by NCCL for what lies on CUDA devices.

        Args:
            meeting: a file that does not exist yet, the same for all.
        """
        import torch.distributed as dist

        if sys.platform == "linux":  # all are on this machine: nobody else needs to reach them
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        cuda = device.startswith("cuda")
        if cuda:
            torch.cuda.set_device(device)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            # not by a file:// address, whose escapes (of a space in the path) torch does not undo
            store=dist.FileStore(str(meeting), count),  # type: ignore[attr-defined]
            rank=rank,
            world_size=count,
            timeout=PATIENCE,
        )
        return cls(rank, count)

    def part(self) -> None:
        """Leave the others."""
        import torch.distributed as dist

        dist.destroy_process_group()

    @property
    def alone(self) -> bool:
        return self.count == 1

    @property
    def first(self) -> bool:
        """Whether this is the process that evaluates, samples and reports."""
        return self.rank == 0

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sum of each tensor over all processes, the same bits in each; when alone, the tensors."""
        if self.alone:
            return list(tensors)
        import torch.distributed as dist

        out: list[Tensor] = []
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in bucket])
            dist.all_reduce(flat)
            parts = flat.split([tensor.numel() for tensor in bucket])
            out += [part.view(tensor.shape) for part, tensor in zip(parts, bucket, strict=True)]
        return out

    def total(self, values: Tensor) -> Tensor:
        """The sum of one tensor over all processes."""
        return self.sum([values])[0]

    def from_first(self, value: Value) -> Value:
        """The first process's object, in all of them; what the others pass is not looked at."""
        if self.alone:
            return value
        import torch.distributed as dist

        box = [value if self.first else None]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return cast(Value, box[0])

    @torch.no_grad()
    def copy_first(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite the tensors by those of the first process."""
        if not self.alone:
            import torch.distributed as dist

            for tensor in tensors:
                dist.broadcast(tensor.data, src=0)

    def share(self, rows: int, unit: int = 1) -> slice:
        """This process's rows of a step, consecutive and in whole units; none if there are too few."""
        # cut at ⌊units·k/count⌋: shares differ by one unit at most, and together are all rows once
        units = -(-rows // unit)
        begin, end = units * self.rank // self.count, units * (self.rank + 1) // self.count
        return slice(begin * unit, min(end * unit, rows))

    def pieces(self, rows: int, unit: int, micro: int) -> list[Piece]:
        """This process's rows of a step in micro-batches of `micro` units, 0 for one; equally many for all.

        Where another has more, or there are fewer rows than processes, the rest is padding, so that
        collectives inside of a loss meet.
        """
        own = self.share(rows, unit)
        units = -(-rows // unit)
        largest = -(-units // self.count)
        size = (micro or largest) * unit
        out = [Piece(slice(i, min(i + size, own.stop))) for i in range(own.start, own.stop, size)]
        start = own.start if out else 0
        return out + [Piece(slice(start, start + unit), padding=True)] * (
            -(-largest * unit // size) - len(out)
        )

    def used(self, rows: int, unit: int) -> slice:
        """The rows of a step that this process scores, padding included."""
        own = self.share(rows, unit)
        return own if own.start < own.stop else slice(0, unit)


ALONE = Processes()


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Consecutive tensors of one dtype and device; several together have at most `BUCKET` numbers."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and (
            size + tensor.numel() > BUCKET
            or (tensor.dtype, tensor.device) != (bucket[0].dtype, bucket[0].device)
        ):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel()
    if bucket:
        yield bucket
