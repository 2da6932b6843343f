"""The device that a policy computes on."""

from __future__ import annotations

import torch

from xpo_bench.errors import UsageError


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` is the first accelerator if there is one, else the CPU.

    Raises:
        UsageError: it is not there.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError):
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise UsageError(f"device {name!r} is not there (available: {', '.join(there)})") from None
    return device
