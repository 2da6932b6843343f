"""All that a GPU has to say about the suite, in one go: `python -m benchmarks.gpu --minutes 12 --write DIR`.

The parts run one after the other, most valuable first, each in a process of its own and with a limit of its
own: a failure, a hang or memory that runs out costs that part alone. DIR/gpu.json is written again after
every part, DIR/gpu.md is its table, and DIR/gpu.log is what the parts printed. Nothing is fetched: models
have random weights, and their tokens are bytes.

    python -m benchmarks.gpu --check                      # on any machine: what has to be carried along
    python -m benchmarks.gpu --device cpu --write DIR     # a rehearsal of the same code at small sizes
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.gpu import check
from benchmarks.gpu.page import page
from benchmarks.gpu.parts import PARTS, ROOT, Found, Part, chosen, run_part, write_atomic

WHOLE_MINUTES = 12.0
"""What the limits of the parts are made for."""
LEAST_S = 5.0
"""A part is not begun with less time left."""
PACKAGES = ("xpo-bench", "torch", "transformers", "triton", "numpy", "peft", "trl")


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for; 0 where every part is ok."""
    given = list(sys.argv[1:] if argv is None else argv)
    words = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words.add_argument("--minutes", type=float, default=WHOLE_MINUTES, help="for all parts together")
    words.add_argument(
        "--parts", default=",".join(p.name for p in PARTS), metavar="A,B", help="which of them"
    )
    words.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu is a rehearsal")
    words.add_argument("--write", type=Path, metavar="DIR", help="where the numbers go; needed to measure")
    words.add_argument("--commit", help="what is measured, where the tree has no git")
    words.add_argument("--check", action="store_true", help="list what a bare machine lacks, and end")
    words.add_argument(
        "--have", type=Path, default=check.BARE, metavar="FILE", help="with --check: its `pip list` as freeze"
    )
    asked = words.parse_args(given)
    if asked.check:
        return check.main(asked.have)
    if asked.write is None:
        words.error("--write DIR is missing")
    try:
        parts = chosen([name for name in asked.parts.split(",") if name])
    except ValueError as error:
        words.error(str(error))
    document = facts(asked.device, given, asked.commit)
    return measure(parts, asked.device, asked.minutes, asked.write, document)


def measure(
    parts: Sequence[Part], device: str, minutes: float, folder: Path, document: dict[str, Any]
) -> int:
    """Run parts within a time, and write what was found after each; 0 where all are ok."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "gpu.log"
    log.write_bytes(b"")
    begun = time.monotonic()
    found: list[Found] = []
    with tempfile.TemporaryDirectory(prefix="xpo-bench-gpu-") as scratch:
        for part in parts:
            left = minutes * 60 - (time.monotonic() - begun)
            limit = min(part.seconds * minutes / WHOLE_MINUTES, left)
            if left < LEAST_S:
                found.append(_unbegun(part))
            else:
                print(f"{part.name}: {part.what}; at most {limit:.0f} s", flush=True)
                found.append(run_part(part, device, limit, Path(scratch) / f"{part.name}.json", log))
                print(f"{part.name}: {found[-1]['status']} after {found[-1]['seconds']:.0f} s", flush=True)
            document |= {"seconds": round(time.monotonic() - begun, 1), "parts": found}
            write_atomic(folder / "gpu.json", json.dumps(document, indent=1) + "\n")
            write_atomic(folder / "gpu.md", page(document))
    print((folder / "gpu.md").read_text("utf-8"))
    return 0 if all(one["status"] == "ok" for one in found) else 1


def _unbegun(part: Part) -> Found:
    return Found(part=part.name, what=part.what, status="no time left", seconds=0.0, limit_s=0.0, rows=[])


def facts(device: str, given: Sequence[str], commit: str | None) -> dict[str, Any]:
    """What was measured, where and by which command."""
    return {
        "device": device,
        "rehearsal": device == "cpu",
        "card": _cards() if device == "cuda" else None,
        "commit": commit or _commit(),
        "command": shlex.join(["python", "-m", "benchmarks.gpu", *given]),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _cards() -> list[dict[str, str]]:
    """Name, driver and memory of the GPUs, from the driver's own program: this process takes none of it."""
    asked = ("name", "driver_version", "memory.total")
    printed = _output("nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader")
    return [
        dict(zip(("name", "driver", "memory"), map(str.strip, line.split(",")), strict=True))
        for line in (printed or "").splitlines()
    ]


def _commit() -> str | None:
    """The revision of the tree, with a `+` where files differ from it."""
    found = _output("git", "-C", str(ROOT), "rev-parse", "HEAD")
    changed = _output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return found and found.strip() + ("+" if changed else "")


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
