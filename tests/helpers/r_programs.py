"""Programs in R, for comparisons with its packages; skipped where R or a package is not there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def rscript(program: str, folder: Path, package: str) -> dict[str, float]:
    """What an R program prints as name,number; skipped without R or the package."""
    if shutil.which("Rscript") is None:
        pytest.skip("needs R")
    there = subprocess.run(["Rscript", "-e", f"library({package})"], capture_output=True, check=False)
    if there.returncode:
        pytest.skip(f"needs {package} of R")
    done = subprocess.run(
        ["Rscript", "-e", program], cwd=folder, capture_output=True, text=True, check=True
    ).stdout
    return {name: float(value) for name, value in (line.split(",") for line in done.splitlines())}
