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


@lru_cache(maxsize=1)
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

    out: dict[str, object] = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "packages": dict(package_versions()),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }
    if device.startswith("cuda") and torch.cuda.is_available():  # who plans for a cluster may have none
        out["accelerator"] = torch.cuda.get_device_name(device)
        out["cuda"] = torch.version.cuda
    return out


@contextmanager
def deterministic(on: bool = True) -> Iterator[None]:
    """Within it, if `on`, torch uses deterministic algorithms alone, and raises where it has none.

    cuBLAS reads its workspace from the environment when the first CUDA context is made: later is too late.
    """
    if not on:
        yield
        return
    import torch

    before, workspace = torch.are_deterministic_algorithms_enabled(), os.environ.get(WORKSPACE)
    os.environ.setdefault(WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        if workspace is None:
            del os.environ[WORKSPACE]
