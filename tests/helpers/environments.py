"""Environments to measure: stand-ins that answer at once, and copies of this one that train more slowly."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import venv
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import pytest

from xpo_bench.compare.speed.installations import PYTHON, SCRIPTS, present, purelib

FAKE = Path(__file__).with_name("fake_worker.py")

SLOWER = """

# ---- planted: burns a share of the CPU time of a step at every step
import collections
import statistics
import time

SHARE = {share!r}
_loss = DPO.loss
_seen = collections.deque(maxlen=31)
_last = [time.process_time()]


def _slower(self, step):
    now = time.process_time()
    _seen.append(now - _last[0])
    until = now + SHARE * statistics.median(_seen)
    while time.process_time() < until:
        pass
    _last[0] = time.process_time()
    return _loss(self, step)


DPO.loss = _slower
"""


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., Path]:
    """An environment whose interpreter, whatever it is told to run, is a worker that makes its times up.

    Args:
        step_s: seconds of a step. noise, process_noise: standard deviations of the log of a block's and of a
            process's time.
        fault: what goes wrong; see fake_worker.py.
    """

    def build(
        name: str, step_s: float = 1e-3, noise: float = 0.0, process_noise: float = 0.0, fault: str = ""
    ) -> Path:
        home = tmp_path / name
        (home / SCRIPTS).mkdir(parents=True)
        settings = {
            "step_s": step_s,
            "noise": noise,
            "process_noise": process_noise,
            "fault": fault,
            "name": name,
        }
        (home / "settings.json").write_text(json.dumps(settings), "utf-8")
        python = home / SCRIPTS / PYTHON
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "{FAKE}" "{home}" "$@"\n', "utf-8")
        python.chmod(0o755)
        return home

    return build


def copy_of_this(home: Path, share: float) -> Path:
    """A virtual environment with this one's packages, in which steps of `dpo` take longer by `share`."""
    venv.EnvBuilder(with_pip=False, symlinks=True).create(home)
    site = purelib(home)
    for package in ("xpo_bench", "xpo_bench_plugins"):
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations
        shutil.copytree(
            next(iter(spec.submodule_search_locations)),
            site / package,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    installed = distribution("xpo-bench")
    info = site / f"xpo_bench-{installed.version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: xpo-bench\nVersion: {installed.version}\n", "utf-8"
    )
    points = [
        f"{point.name} = {point.value}" for point in installed.entry_points if point.group == "xpo_bench"
    ]
    (info / "entry_points.txt").write_text("[xpo_bench]\n" + "\n".join(points) + "\n", "utf-8")
    (site / "present.pth").write_text("\n".join(present()) + "\n", "utf-8")
    with (site / "xpo_bench_plugins" / "algorithms" / "dpo.py").open("a", encoding="utf-8") as source:
        source.write(SLOWER.format(share=share))
    return home


@pytest.fixture
def planted(tmp_path: Path) -> Callable[[str, float], Path]:
    """`copy_of_this` under a name."""
    return lambda name, share: copy_of_this(tmp_path / name, share)
