"""Parts that are commands of their own: the tests of devices, and the README's first command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec

from benchmarks.gpu.parts import ROOT
from benchmarks.gpu.sizes import Place

RESULT = r"(?P<result>PASSED|FAILED|ERROR|SKIPPED)"
LINES = (
    re.compile(rf"^(?P<test>\S+::.+?) {RESULT}\b"),
    re.compile(rf"^\[gw\d+\] \[ *\d+%\] {RESULT} (?P<test>\S+::.+?)\s*$"),
)
"""How pytest tells the result of a test: in one process, and in several."""
PROCESSES = 4
"""Tests that share a GPU, of which none fills it, where there are cores for twice as many."""


def tests(place: Place) -> None:
    """`pytest -m device`: a row per test as it ends.

    Raises:
        SystemExit: one failed, or none passed.
    """
    words = ["-m", "pytest", "-m", "device", "-v", "--tb=short", "-p", "no:cacheprovider", "tests/device"]
    if place.device == "cpu":  # a rehearsal of the script; that of the tests is test_rehearsal.py
        words += ["-k", "exact or hidden"]
    elif find_spec("xdist") and (os.cpu_count() or 1) >= 2 * PROCESSES:
        words += ["-n", str(PROCESSES)]
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env=os.environ | {"XPO_BENCH_TEST_DEVICE": place.device, "COLUMNS": "250"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    passed = 0
    assert process.stdout
    for line in process.stdout:
        print(line, end="", flush=True)
        if found := next(filter(None, (pattern.match(line) for pattern in LINES)), None):
            passed += found["result"] == "PASSED"
            place.note(test=found["test"].removeprefix("tests/device/"), result=found["result"].lower())
    if process.wait() or not passed:
        raise SystemExit(f"{passed} passed; pytest ended with {process.returncode}")


def first(place: Place) -> None:
    """The README's first command, in a fresh directory: its wall time, and what became of its cells.

    Raises:
        SystemExit: it ended with another status than 0.
    """
    words = ["run", "--algos", "dpo,ipo", "--device", place.device, "--json", "--quiet"]
    if place.device == "cpu":
        words += ["--tasks", "bandit", "--steps", "20", "--seeds", "1"]
    # the tree comes first here too, though the command runs elsewhere
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryDirectory(prefix="xpo-bench-first-") as folder:
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "xpo_bench", *words],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        wall = time.perf_counter() - begun
    cells = json.loads(done.stdout)["cells"] if done.stdout else []
    tasks = sorted({cell["task"]["name"] for cell in cells})
    for task in tasks:
        of = [cell for cell in cells if cell["task"]["name"] == task]
        place.note(
            task=task,
            cells=len(of),
            statuses=sorted({cell["status"] for cell in of}),
            train_s=sum(cell["timing"]["train_s"] / cell["timing"]["vectorised_runs"] for cell in of),
        )
    place.note(task="all", command=" ".join(["xpo-bench", *words]), cells=len(cells), wall_s=wall)
    if done.returncode:
        raise SystemExit(f"xpo-bench ended with {done.returncode}")
