"""Claims under test: files, and the records that their cells would have left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xpo_bench.claims.choosing import Ran
from xpo_bench.report.items import no_items
from xpo_bench.report.records import Record, record_of

HEAD = 'statement = "a beats b"\npaper = "arXiv:0000.00000"\n'
RUNS = '[[runs]]\nalgos = ["dpo", "ipo"]\ntasks = ["one_pair"]\nseeds = 3\nsteps = 20\n'
TEST = '[[tests]]\nsays = "a is higher"\nmetric = "m"\na = { algo = "dpo" }\nb = { algo = "ipo" }\n'


WHOLE = HEAD + RUNS + TEST + 'expect = "higher"\n'


def claim_file(folder: Path, body: str = WHOLE, name: str = "mine") -> Path:
    """A file of a claim."""
    path = folder / f"{name}.toml"
    path.write_text(body, encoding="utf-8")
    return path


def record(algorithm: str, seed: int, value: float | None, **config: Any) -> Record:
    """A record with one metric, `m`."""
    raw: dict[str, Any] = {
        "key": f"{algorithm}-{sorted(config.items())}-{seed}",
        "status": "ok",
        "algorithm": {"name": algorithm, "config": config},
        "task": {"name": "world", "options": {"noise": config.get("noise", 0.0)}},
        "seed": seed,
        "metrics": {"m": value},
        "notes": {"state": "rest" if value and value > 0 else "moves"},
    }
    return record_of(raw)


def ran(values: Mapping[str, Sequence[float]]) -> Ran:
    """One record per value: algorithm -> a value per seed."""
    records = [record(name, seed, v) for name, own in values.items() for seed, v in enumerate(own)]
    return Ran(records, lambda key: [], no_items)
