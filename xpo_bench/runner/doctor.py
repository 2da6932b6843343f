"""What this machine can do, as a list of findings."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from xpo_bench import plugins
from xpo_bench.data.packages.catalogue import SETS
from xpo_bench.data.sources import find
from xpo_bench.runner import environment


def examine() -> list[dict[str, str]]:
    """Findings of `{"what", "status": "fine"|"note"|"wrong", "detail"}`."""
    import torch

    found: list[dict[str, str]] = []

    def add(what: str, status: str, detail: str) -> None:
        found.append({"what": what, "status": status, "detail": detail})

    facts = environment.describe("cpu")
    add("python", "fine", f"{facts['python']} on {facts['platform']}")
    add("packages", "fine", ", ".join(f"{k} {v}" for k, v in facts["packages"].items()))
    add(
        "processor",
        "fine",
        f"{facts['processor']}, {facts['cores']} cores, torch uses {facts['threads']} threads",
    )
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(i).total_memory / 2**30
            add(f"cuda:{i}", "fine", f"{torch.cuda.get_device_name(i)}, {memory:.0f} GiB")
    else:
        add("accelerator", "note", "none; everything runs on the CPU")
    data = os.environ.get("XPO_BENCH_DATA")
    if not data:
        add(
            "XPO_BENCH_DATA",
            "note",
            "not set; tasks on real text sets (ukp) need a directory with NAME.parquet or NAME.jsonl",
        )
    elif not Path(data).is_dir():
        add("XPO_BENCH_DATA", "wrong", f"{data} is not a directory")
    else:
        names = sorted({p.stem for p in Path(data).iterdir() if p.suffix in (".parquet", ".jsonl")})
        add("XPO_BENCH_DATA", "fine", ", ".join(names) or "an empty directory")
    brought = [name for name in SETS if find(name)]
    add(
        "fetched sets",
        "fine" if brought else "note",
        ", ".join(brought) or "none; `xpo-bench data --fetch list` shows which there are",
    )
    free = shutil.disk_usage(".").free / 2**30
    writable = os.access(".", os.W_OK)
    add(
        "results/runs",
        "fine" if writable else "wrong",
        f"{free:.0f} GiB free" if writable else "this directory is not writable; use --out",
    )
    registry = plugins.load()
    usable = sum(p.status == "ok" for p in registry.plugins)
    add(
        "plugins",
        "fine",
        f"{usable} usable, {len(registry.algorithms)} algorithms, {len(registry.tasks)} tasks",
    )
    for p in registry.plugins:
        if p.status in ("broken", "refused"):
            add(f"plugin {p.name}", "wrong", f"{p.origin}: {p.status}: {p.error}")
    return found
