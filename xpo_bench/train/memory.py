"""Memory that ran out, and the peak of a stretch of work: of the accelerator, or else resident memory."""

from __future__ import annotations

from pathlib import Path

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; on a CPU, torch says so in words alone."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


class PeakMemory:
    """Largest memory between `start` and `stop`, over all such stretches, in 10⁶ bytes; None where unknown.

    On CUDA it is what the allocator handed out. Elsewhere it is the resident peak of the process, libraries
    included, which Linux keeps and lets be reset.
    """

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")
        self.device = device
        self.peak_mb: float | None = None

    def start(self) -> None:
        """Forget the peak so far."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:
            RESET.write_text("5")
            self.resettable = True
        except OSError:  # no Linux, or a sandbox without the file
            self.resettable = False

    def stop(self) -> None:
        """Take the peak since `start` into account."""
        found = torch.cuda.max_memory_allocated(self.device) / 1e6 if self.cuda else self._resident()
        if found is not None:
            self.peak_mb = max(found, self.peak_mb or 0.0)

    def _resident(self) -> float | None:
        if not self.resettable:
            return None
        lines = STATUS.read_text().splitlines()
        kib = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
        return None if kib is None else int(kib) * 1024 / 1e6
