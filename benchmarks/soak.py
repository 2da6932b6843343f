"""The full suite over and over, under random kills and in one process: what is lost, and what grows.

Example:
    python -m benchmarks.soak --minutes 60 --out results/soak.json
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from scipy import stats

import xpo_bench
from xpo_bench.runner.merge import computed
from xpo_bench.runner.store import Store

SUITE: dict[str, Any] = {"suite": "full", "steps": 10, "seeds": 1}
WORDS = [
    sys.executable,
    "-m",
    "xpo_bench",
    "run",
    *(w for k, v in SUITE.items() for w in (f"--{k}", str(v))),
    "--workers",
    "2",
]
KILL_EVERY_S = 20.0
"""Mean time between two kills, exponentially distributed."""
LAST_BREATH_S = 5.0
WARM_UP = 2
"""Passes of the resident process that are not fitted: caches fill."""


def main() -> None:
    """Run both for as long as asked, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resident", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    until = time.monotonic() + 60 * asked.minutes
    if asked.resident:
        resident(asked.resident, until)
        return
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        told = Path(scratch) / "resident.jsonl"
        words = [
            sys.executable,
            "-m",
            "benchmarks.soak",
            "--minutes",
            str(asked.minutes),
            "--resident",
            str(told),
        ]
        found: dict[str, Any] = {"minutes": asked.minutes, "suite": SUITE}
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as other:
            try:
                found["killed"] = killed(Path(scratch), until, asked.seed)
            except BaseException:
                other.kill()
                raise
            if other.wait():
                raise SystemExit(f"the resident process has ended with status {other.returncode}")
        found["resident"] = growth([json.loads(line) for line in told.read_text("utf-8").splitlines()])
    text = json.dumps(found, indent=1) + "\n"
    print(text, end="")
    if asked.out:
        asked.out.write_text(text, encoding="utf-8")


def killed(scratch: Path, until: float, seed: int) -> dict[str, int]:
    """Passes of the suite in a command that is killed, or loses a process, at random, and is begun again.

    Raises:
        AssertionError: something finished was lost or changed, half a record was read, or a process has
        outlived the command.
    """
    rng = random.Random(seed)
    counts = {"passes": 0, "commands_killed": 0, "workers_killed": 0, "cells": 0, "begun_again": 0}
    first: dict[str, Any] = {}
    while time.monotonic() < until:
        run = scratch / "run"
        shutil.rmtree(run, ignore_errors=True)
        finished: dict[str, bytes] = {}
        while True:
            attempt(run, rng, counts)
            finished = whole(run, finished)
            if run.exists() and {entry["key"] for entry in Store(run).read_run().get("plan", [])} == set(
                finished
            ):
                break  # an exit status of 1 is that of data sets that are not here
            counts["begun_again"] += 1
        records = {record["key"]: computed(record) for record in Store(run).records()}
        first = first or records
        assert records == first, "a pass has other numbers than the first"
        counts["passes"] += 1
        counts["cells"] += len(records)
        say(f"pass {counts['passes']}: {counts}")
    return counts


def attempt(run: Path, rng: random.Random, counts: dict[str, int]) -> None:
    """One life of the command."""
    with subprocess.Popen(
        [*WORDS, "--out", str(run)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            try:
                process.wait(rng.expovariate(1 / KILL_EVERY_S))
            except subprocess.TimeoutExpired:
                pass
            else:
                return
            try:
                family = psutil.Process(process.pid).children(recursive=True)
            except psutil.NoSuchProcess:
                continue
            if family and rng.random() < 0.5:
                victim = rng.choice(family)
                if victim.is_running():
                    victim.kill()
                    counts["workers_killed"] += 1
                continue
            process.kill()
            counts["commands_killed"] += 1
            left = psutil.wait_procs(family, LAST_BREATH_S)[1]
            alive = [
                " ".join(p.cmdline()) for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE
            ]
            assert not alive, f"outlived the command: {alive}"


def whole(run: Path, before: Mapping[str, bytes]) -> dict[str, bytes]:
    """The finished cells by name; those of before are checked to be there byte for byte, none damaged."""
    if not run.exists():
        assert not before
        return {}
    store = Store(run)
    done = {record["key"] for record in store.records() if store.done(record["key"])}
    assert store.damaged == {}, store.damaged
    now = {key: (run / "cells" / f"{key}.json").read_bytes() for key in done}
    assert before.items() <= now.items(), "a finished cell was lost or changed"
    assert all(
        record["status"] in ("ok", "crashed") for record in store.records()
    )  # a worker may be killed three times
    return now


def resident(told: Path, until: float) -> None:
    """Passes of the suite in this process, with its memory and its open files after each."""
    me = psutil.Process()
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch, told.open("w", encoding="utf-8") as out:
        while time.monotonic() < until:
            result = xpo_bench.run(**SUITE, out=Path(scratch) / "run", fresh=True)
            assert {cell["status"] for cell in result.cells} == {"ok"}
            seen = {
                "rss_mb": me.memory_info().rss / 1e6,
                "open_files": me.num_fds(),
                "threads": me.num_threads(),
            }
            out.write(json.dumps(seen) + "\n")
            out.flush()
            say(f"resident: {seen}")


def growth(rows: list[dict[str, float]]) -> dict[str, Any]:
    """First and last values, and slopes per pass by least squares with half their 95 % interval."""
    out: dict[str, Any] = {"passes": len(rows), "warm_up": WARM_UP}
    fitted = rows[WARM_UP:]
    for name in rows[0] if len(fitted) > 2 else ():
        values = [row[name] for row in fitted]
        fit = stats.linregress(range(len(values)), values)
        flat = min(values) == max(values)  # scipy has no error of a slope without any scatter
        half = 0.0 if flat else float(fit.stderr * stats.t.ppf(0.975, len(values) - 2))
        ends = {"first": rows[0][name], "fitted_from": values[0], "last": values[-1]}
        out[name] = {k: round(v, 3) for k, v in (ends | {"slope": float(fit.slope), "half": half}).items()}
    return out


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
