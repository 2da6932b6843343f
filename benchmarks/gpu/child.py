"""One part, in this process: `python -m benchmarks.gpu.child NAME DEVICE FILE`. FILE holds its rows."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import write_atomic
from benchmarks.gpu.sizes import FULL, SMALL, Place

MODULES = {
    "tests": "commands",
    "first": "commands",
    "speed": "speed",
    "packed": "speed",
    "memory": "speed",
    "adapters": "sweeps",
    "ensembles": "sweeps",
    "deterministic": "sweeps",
}
"""Where the function of each part is."""


def main(name: str, device: str, file: Path) -> None:
    """Run a part; every row is in the file before the next one begins."""
    rows: list[dict[str, Any]] = []

    def note(**row: Any) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)
        write_atomic(file, json.dumps(rows))

    part = getattr(importlib.import_module(f"benchmarks.gpu.{MODULES[name]}"), name)
    part(Place(device, FULL if device == "cuda" else SMALL, note))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
