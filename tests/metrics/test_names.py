"""Numbers of earlier records are shown under the name of what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from xpo_bench.compare.baselines import read
from xpo_bench.metrics.kl import token_entropy
from xpo_bench.metrics.names import current
from xpo_bench.report.curves import curve_reader
from xpo_bench.runner.record import Record
from xpo_bench.runner.store import Store

SAMPLED = {"kl": 0.3, "kl_se": 0.1, "sample_length": 7.0, "entropy": 1.2}
EXACT = {"kl": 0.3, "gold_reward": 0.7, "entropy": 1.2}
KEY = "0" * 24


def record(metrics: dict[str, Any]) -> Record:
    """What reading looks at, of a record of that time."""
    found = {
        "schema": 1, "key": KEY, "status": "ok", "seed": 0, "metrics": metrics, "environment": {},
        "algorithm": {"name": "dpo", "config": {}}, "task": {"name": "t"},
    }  # fmt: skip
    return cast(Record, found)


def test_entropy_of_samples_was_per_token() -> None:
    assert current(SAMPLED) == {"kl": 0.3, "kl_se": 0.1, "sample_length": 7.0, "token_entropy": 1.2}
    assert current(EXACT) is EXACT
    new = {"sample_length": 7.0, "token_entropy": 1.2}
    assert current(new) is new


def test_an_old_run_is_read_under_todays_names(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.prepare()
    store.write_cell(record(SAMPLED), [{"step": 0, **SAMPLED}, {"step": 1, "kl": 0.2}])
    (found,) = store.records()
    assert found["metrics"] == current(SAMPLED)
    rows = curve_reader(tmp_path)(found["key"])
    assert rows[0]["token_entropy"] == 1.2
    assert all("entropy" not in row for row in rows)


def test_an_old_baseline_too(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    document = {
        "kind": "xpo-bench baseline",
        "schema": 1,
        "records": [record(SAMPLED)],
        "curves": {KEY: [{"step": 1, **SAMPLED}]},
    }
    path.write_text(json.dumps(document), "utf-8")
    side = read(path)
    assert side.records[0]["metrics"] == current(SAMPLED)
    assert side.curves[KEY][0]["token_entropy"] == 1.2


def test_entropy_per_token_pools_all_tokens() -> None:
    assert token_entropy([2.0, 4.0], [1, 3]) == 1.5
