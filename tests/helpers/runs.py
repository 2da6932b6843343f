"""Runs under test: what is small about them, and what of their records has to be the same."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd

TIMED = {"pairs_per_s", "tokens_per_s", "overhead", "prepare_s", "peak_memory_mb", "mfu"}
SMALL = ["--set", "task.kl_prompts=2", "--set", "task.kl_samples=2", "--set", "task.max_new_tokens=4"]
FEW_SAMPLES = {"task.kl_prompts": 1, "task.kl_samples": 1, "task.max_new_tokens": 4}
"""Settings of language models whose divergence no test looks at: sampling is most of what they cost."""


def stripped(record: dict[str, Any]) -> dict[str, Any]:
    """What of a record has to be the same on every run of the same machine."""
    out = {k: v for k, v in record.items() if k not in ("timing", "created", "environment")}
    out["metrics"] = {k: v for k, v in record["metrics"].items() if k not in TIMED}
    return out


def content(run: Path) -> dict[str, Any]:
    """Records, and curves with the items beside them, by key, without what is timed."""
    out = {}
    for path in sorted((run / "cells").glob("*.json")):
        curve = run / "curves" / f"{path.stem}.parquet"
        table = (
            pd.read_parquet(curve).drop(columns=list(TIMED), errors="ignore")
            if curve.exists()
            else pd.DataFrame()
        )
        items = run / "items" / f"{path.stem}.parquet"
        evidence = pd.read_parquet(items).to_dict("list") if items.exists() else None
        beside = table.to_dict("list") | {"items": evidence}
        out[path.stem] = (stripped(json.loads(path.read_text("utf-8"))), beside)
    return out


def by_name(run: Path) -> dict[str, dict[str, Any]]:
    return {record["algorithm"]["name"]: record for record, _ in content(run).values()}


def same(a: Any, b: Any) -> bool:
    """Equal to the bit; NaN equals NaN."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def ended(group: int, within_s: float) -> bool:
    """Whether all processes of a group are gone within some seconds."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    return False
