"""Memory that ran out, and the peak of a stretch of work: of the accelerator, or else resident memory."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; on a CPU, torch says so in words alone."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


class PeakMemory:
    """Largest memory that training takes between `start` and `stop`, over all such stretches.

    It is what belongs to the cell whatever ran before in the process: the model's tensors, and what was in
    use beyond that at the peak of a step and was not before the first one. On CUDA that is counted by the
    allocator. Elsewhere it is the growth of resident memory, whose peak Linux keeps and lets be reset; freed
    memory that the C library still holds from earlier cells would hide a growth, and is handed back first.

    Args:
        held: bytes of the model's tensors.
    """

    def __init__(self, device: str, held: int = 0) -> None:
        self.cuda = device.startswith("cuda")
        self.device = device
        self.held = held
        self.before: float | None = None
        self.highest: float | None = None
        self.measurable = self.cuda or (STATUS.is_file() and _trim() is not None)

    @property
    def peak_mb(self) -> float | None:
        """The peak in 10⁶ bytes; None where the system does not tell."""
        if self.highest is None or self.before is None:
            return None
        return (self.held + max(0.0, self.highest - self.before)) / 1e6

    def start(self) -> None:
        """Forget the peak so far; at the first call, take what is in use now for what was there before."""
        if not self.measurable:
            return
        if self.before is None:
            self.before = self._in_use()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:
            RESET.write_text("5")
        except OSError:  # a sandbox without the file
            self.measurable = False

    def stop(self) -> None:
        """Take the peak since `start` into account."""
        if not self.measurable:
            return
        found = torch.cuda.max_memory_allocated(self.device) if self.cuda else _resident("VmHWM:")
        if found is not None:
            self.highest = max(found, self.highest or 0.0)

    def _in_use(self) -> float | None:
        if self.cuda:
            return torch.cuda.memory_allocated(self.device)
        gc.collect()  # tensors of the last cell that a cycle holds are not what this one needs
        trim = _trim()
        if trim is not None:
            trim(0)
        return _resident("VmRSS:")


def _resident(line: str) -> float | None:
    """Bytes of one line of the process's status."""
    lines = STATUS.read_text().splitlines()
    kib = next((entry.split()[1] for entry in lines if entry.startswith(line)), None)
    return None if kib is None else int(kib) * 1024


@lru_cache(maxsize=1)
def _trim() -> Callable[[int], int] | None:
    """`malloc_trim` of the C library, which hands freed memory back to the system; None where it has none."""
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
    return found
