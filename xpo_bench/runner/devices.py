"""Devices: which are there, and which of them a word of the command line means."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path

from xpo_bench.errors import UsageError


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Devices:
    """The devices that cells can run on.

    Args:
        gpus: how many are there. numbered: whether this process chooses among them, as on its own machine; a
            cluster gives every cell its GPU, so that `cuda` stays without a number there. described: what is
            there, in words.
    """

    gpus: int
    numbered: bool
    described: str

    def resolve(self, asked: str) -> str:
        """`auto`, `cpu`, `cuda` or `cuda:1` as a device that is there: `auto` is the first GPU, else the CPU.

        Raises:
            UsageError: the device is unknown or not there, with the devices that are.
        """
        if asked in ("auto", "cuda") and self.gpus:
            return "cuda:0" if self.numbered else "cuda"
        if asked in ("auto", "cpu"):
            return "cpu"
        if self.numbered and asked in (f"cuda:{i}" for i in range(self.gpus)):
            return asked
        raise UsageError(f"--device {asked}: {self._refusal(asked)}")

    def _refusal(self, asked: str) -> str:
        if self.numbered:
            return f"not on this machine (there is: {self.described})"
        if asked.startswith("cuda:"):
            return "Ray chooses the GPU of every cell; say --device cuda"
        return self.described if asked == "cuda" else "with --executor ray it is auto, cpu or cuda"


def of_this_machine() -> Devices:
    """What torch can compute on here; one that is built for the CPU alone is not imported to say so."""
    gpus = 0
    if _built_for_gpus():
        import torch

        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Devices(gpus, True, ", ".join(["cpu", *(f"cuda:{i}" for i in range(gpus))]))


def _built_for_gpus() -> bool:
    """Whether the installed torch knows CUDA or ROCm, as far as it tells without being imported."""
    spec = find_spec("torch") if "torch" not in sys.modules else None
    for folder in spec.submodule_search_locations or () if spec else ():
        version = Path(folder) / "version.py"
        if version.is_file():
            told = run_path(str(version))
            return any(told.get(kind, True) is not None for kind in ("cuda", "hip"))
    return True


def devices_from(device: str, count: int) -> list[str]:
    """At most `count` devices, the given one and those after it; `cpu` as often as is asked."""
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return [device] * count
    import torch

    first = int(number or 0)
    return [f"cuda:{i}" for i in range(first, min(first + count, torch.cuda.device_count()))]
