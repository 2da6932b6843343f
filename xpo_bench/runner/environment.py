"""What a record says of the machine and the versions; environment variables by allow-list only."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("xpo-bench", "torch", "transformers", "numpy", "scipy", "datasets")
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", WORKSPACE, "XPO_BENCH_DISABLE", "XPO_BENCH_PLUGINS")


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that can change numbers."""
    out = {}
    for name in PACKAGES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out


@lru_cache(maxsize=1)
def processor() -> str:
    """The processor's model name where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe(device: str) -> dict[str, Any]:
    """Facts about this machine for a record."""
    import torch

    out: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "packages": package_versions(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }
    if (
        device.startswith("cuda") and torch.cuda.is_available()
    ):  # the machine that plans for a cluster may have none
        out["accelerator"] = torch.cuda.get_device_name(device)
        out["cuda"] = torch.version.cuda
    return out


@contextmanager
def deterministic(on: bool = True) -> Iterator[None]:
    """Meanwhile torch uses deterministic algorithms alone, and raises where it has none; without effect when
    not `on`.

    cuBLAS reads its workspace from the environment when the first CUDA context is made: afterwards it is too
        late.
    """
    import torch

    if not on:
        yield
        return
    before, workspace = torch.are_deterministic_algorithms_enabled(), os.environ.get(WORKSPACE)
    os.environ.setdefault(WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        if workspace is None:
            del os.environ[WORKSPACE]


def resolve_device(name: str) -> str:
    """`auto`, `cpu`, `cuda` or `cuda:1` as a device that is there.

    Raises:
        UsageError: the device is unknown or not there, with the devices that are.
    """
    import torch

    from xpo_bench.errors import UsageError

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    known = ["cpu"] + [f"cuda:{i}" for i in range(count)]
    if name == "auto":
        return known[-1] if count == 1 else ("cuda:0" if count else "cpu")
    if name == "cuda" and count:
        return "cuda:0"
    if name not in known:
        raise UsageError(f"--device {name}: not on this machine (there is: {', '.join(known)})")
    return name
