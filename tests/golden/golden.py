"""A fixed plan of commands and what it computes: what a change of the code's layout leaves equal to the bit.

python tests/golden/golden.py check          compare what this installation computes with numbers.json
python tests/golden/golden.py write          replace numbers.json by it, when numbers are meant to change
python tests/golden/golden.py check --keep D leave the run directories in D, to look at a difference
python tests/golden/golden.py check --only exact,article   a part of the plan, while working

Floating-point sums depend on the processor and on torch: where either is another one than numbers.json was
written with, numbers are compared to a relative 1e-4 and digests of curves are not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

NUMBERS = Path(__file__).parent / "numbers.json"
ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
STORIES = SHARED / "models" / "stories260K"
UKP = SHARED / "data" / "ukpconvarg1.parquet"
SMALL = "--set task.kl_prompts=2 --set task.kl_samples=2 --set task.max_new_tokens=4"
RUNS: dict[str, str] = {
    "exact": "--algos all --suite exact --seeds 2 --steps 30",
    "language": "--algos all --tasks tokens,displacement --seeds 1 --steps 2",
    "pair": "--algos all --tasks overfit_pair --seeds 1 --steps 3",
    "text": f"--algos all --tasks ukp --rows 24 --model {shlex.quote(str(STORIES))} "
    f"--seeds 1 --steps 5 --batch-size 4 {SMALL}",
    "sweep": "--algos dpo,ipo --tasks bandit --set dpo.beta=0.05,0.5 --set ipo.train.lr=0.01,0.02 "
    "--seeds 3,5 --steps 30",
    "tuned": "--algos dpo,ipo --tasks deterministic --protocol tuned --trials 2 --seeds 3 --steps 30",
    "target": "--algos dpo,ipo --tasks bandit --target-kl 0.2 --seeds 2 --steps 40",
    "article": "--suite article --seeds 1 --steps 20",
}
DOCUMENTS: dict[str, str] = {
    "show": "show exact --json",
    "show against dpo": "show exact --baseline dpo --json",
    "report exact": "report exact --json exact.json --md exact.md --html exact.html",
    "report text": "report text --json text.json --md text.md --html text.html",
    "report sweep": "report sweep --json sweep.json --md sweep.md --html sweep.html",
    "report tuned": "report tuned --json tuned.json --md tuned.md --html tuned.html",
    "report article": "report article --json article.json --md article.md --html article.html",
    "baseline": "baseline exact -o baseline.json",
    "compare": "compare baseline.json exact --json",
    "compare runs": "compare sweep sweep --json",
    "export": "export exact --to published",
    "data": f"data {shlex.quote(str(UKP))} --rows 40 --json",
}
"""Name -> words; what is printed with --json, and every JSON file that is written, is compared."""
TIMED = {"pairs_per_s", "tokens_per_s", "overhead", "prepare_s", "peak_memory_mb", "mfu"}
VOLATILE = TIMED | {
    "key", "keys", "hash", "created", "at", "environment", "timing", "commands", "command", "out", "run",
    "runs", "root", "source_hash", "seconds", "elapsed", "path", "version", "code", "xpo_bench", "throughput",
}  # fmt: skip
KEY = re.compile(r"[0-9a-f]{16,}")


def compute(folder: Path, only: Sequence[str] = ()) -> dict[str, Any]:
    """Run the plan in a folder; what it computed, by name."""
    computed: dict[str, Any] = {}
    for name, words in RUNS.items():
        if only and name not in only:
            continue
        print(f"golden: {name}", file=sys.stderr)
        document = _command(folder, "run", *shlex.split(words), "--out", name, "--quiet", "--json")
        computed[f"{name}.document"] = digest(json.loads(document))
        for cell, numbers in cells(folder / name):
            computed[f"{name}/{cell}"] = numbers
    for name, line in DOCUMENTS.items():
        parts = shlex.split(line)
        if only and not set(parts) & set(only):
            continue
        print(f"golden: {name}", file=sys.stderr)
        printed = _command(folder, *parts)
        if parts[-1] == "--json":
            computed[name] = digest(json.loads(printed))
        for word in parts:
            if word.endswith(".json") and parts[0] != "compare":
                computed[word] = digest(json.loads((folder / word).read_text("utf-8")))
    return computed


def cells(run: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every cell of a run by what it is: its metrics, and digests of the rest of its record and its curve."""
    for path in sorted((run / "cells").glob("*.json")):
        record = json.loads(path.read_text("utf-8"))
        task, algorithm = record["task"], record["algorithm"]
        swept = [task["options"], algorithm["config"], record["train"], record.get("protocol")]
        # the whole budget, which tells cells apart that differ in nothing else, as a digest: it is long
        parts = [
            task["name"],
            algorithm["name"],
            *swept,
            record["experiment"],
            record["seed"],
            digest(task["budget"]),
        ]
        if "checkpoint" in record:  # of the same run, stopped on its way
            parts.append(record["checkpoint"])
        name = json.dumps(parts, separators=(",", ":"))
        curve = run / "curves" / path.with_suffix(".parquet").name
        columns = (
            pd.read_parquet(curve).drop(columns=list(TIMED), errors="ignore").to_dict("list")
            if curve.exists()
            else {}
        )
        yield (
            name,
            {
                "status": record["status"],
                "metrics": {k: v for k, v in sorted(record["metrics"].items()) if k not in TIMED},
                "rest": digest({k: v for k, v in record.items() if k != "metrics"}),
                "curve": digest(columns),
            },
        )


def stable(value: Any) -> Any:
    """A JSON value without what differs between two runs of the same code."""
    if isinstance(value, dict):
        if value and all(KEY.fullmatch(k) for k in value):  # by the keys of cells, which hash the source
            return sorted((stable(v) for v in value.values()), key=lambda v: json.dumps(v, sort_keys=True))
        kept = {k: stable(v) for k, v in value.items() if k not in VOLATILE}
        name = kept.get("metric") or kept.get("name") or kept.get("column") or kept.get("header")
        return None if name in TIMED or name == "pairs/s" else kept
    if isinstance(value, list):
        items = [stable(v) for v in value]
        keyed = value and all(isinstance(v, dict) and "key" in v for v in value)  # in the order of their keys
        return sorted(items, key=lambda v: json.dumps(v, sort_keys=True)) if keyed else items
    return value.replace(str(SHARED), "shared") if isinstance(value, str) else value


def digest(value: Any) -> str:
    """Of a JSON value without what is volatile; NaN equals NaN."""
    return hashlib.sha256(json.dumps(stable(value), sort_keys=True).encode()).hexdigest()[:16]


def machine() -> dict[str, str]:
    """What floating-point sums depend on."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "processor": model,
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def differences(expected: dict[str, Any], found: dict[str, Any], exact: bool) -> list[str]:
    """One line for everything that differs."""
    out = []
    for name in expected.keys() | found.keys():
        old, new = expected.get(name), found.get(name)
        if old is None or new is None:
            out.append(f"{name}: {'new' if old is None else 'gone'}")
        elif isinstance(old, str):
            if exact and old != new:
                out.append(f"{name}: the document differs")
        else:
            what = [k for k in ("status", "rest", "curve") if old[k] != new[k] and (exact or k == "status")]
            names = old["metrics"].keys() | new["metrics"].keys()
            what += [
                m for m in sorted(names) if not _same(old["metrics"].get(m), new["metrics"].get(m), exact)
            ]
            out += [f"{name}: {', '.join(what)}"] if what else []
    return sorted(out)


def _same(a: Any, b: Any, exact: bool) -> bool:
    if exact or a is None or b is None:
        return json.dumps(a) == json.dumps(b)
    return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-6)


def _command(folder: Path, *words: str) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("XPO_BENCH_") and k != "PYTHONPATH"}
    env = kept | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "120",
        "XPO_BENCH_DATA": str(SHARED / "data"),
    }
    command = [str(Path(sys.executable).parent / "xpo-bench"), *words]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode not in (
        0,
        1,
        4,
    ):  # 1: a cell failed, which its record says; 4: nothing could be decided
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["check", "write"])
    parser.add_argument("--keep", type=Path, metavar="D")
    parser.add_argument("--only", default="", metavar="NAME,NAME")
    asked = parser.parse_args(words)
    only = [name for name in asked.only.split(",") if name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = compute(folder, only)
    if asked.what == "write":
        NUMBERS.write_text(
            json.dumps({"machine": machine(), "numbers": found}, indent=0, sort_keys=True) + "\n", "utf-8"
        )
        return 0
    known = json.loads(NUMBERS.read_text("utf-8"))
    expected = {
        k: v for k, v in known["numbers"].items() if not only or k in found or k.split("/")[0] in only
    }
    lines = differences(expected, found, known["machine"] == machine())
    print("\n".join(lines[:60]) or f"golden: {len(found)} cells and documents are equal")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
