"""Which algorithm predicts held-out people best, and do synthetic worlds order algorithms as people do?

    python -m benchmarks.choices sweep --out SWEEP                    every β and τ, tabular policies
    python -m benchmarks.choices sweep --out SWEEP --model linear     and linear ones
    xpo-bench run --suite choices --algos all --seeds 3 --labels soft --out CHOICES
    xpo-bench run --tasks bandit,noisy --algos all --seeds 3 --out WORLDS
    python -m benchmarks.choices tables SWEEP CHOICES WORLDS --write results/choices --page docs/choices.md

`sweep` needs `xpo-bench data --fetch trains,swissmetro,electricity`; it can be interrupted, and the same
command resumes. `tables` reads run directories, whatever else they hold: of the sets of choices every cell
that stored items, of `bandit`, `noisy` and `gold_text` the headline of every cell. It writes NAME.json and
NAME.md; docs/choices.md says what they mean.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

import xpo_bench
from benchmarks.choices.orders import Agreement, Order, agreement, halves, of_people, of_seeds
from benchmarks.choices.page import page, within
from benchmarks.choices.predictions import (
    MEASURES,
    SWEPT,
    Predictions,
    cross_fitted,
    half_width,
    predictions,
)
from xpo_bench import plugins, stream
from xpo_bench.runner.plan import LINEAR_ABILITIES, TABLE_ABILITIES
from xpo_bench.runner.progress import Reporter

TASKS = ("travel", "trains", "swissmetro", "electricity")
WORLDS = {"bandit": "attained_1", "noisy": "attained_1", "gold_text": "gold_gain"}
"""World -> the metric that its algorithms are ordered by; known rewards, so no people."""
ORDERED = (("log_likelihood", "best"), ("log_likelihood", "default"), ("accuracy", "default"))
"""By what algorithms are ordered on a set of choices, and at which values."""
VALUES = (0.03, 0.1, 0.3, 1.0, 3.0)
LEFT_OUT = frozenset({"grpo", "ipo_md", "nash_md", "online_dpo", "ppo", "rloo", "sppo"})
"""They sample at every step: five values of each would take longer than all others together."""


def swept() -> dict[str, str]:
    """Algorithm -> the field that is swept."""
    found = {name: cls.regulariser for name, (cls, _) in plugins.load().algorithms.items()}
    return {
        name: known[0]
        for name, known in sorted(found.items())
        if known is not None and known[0] in SWEPT and name not in LEFT_OUT
    }


def sweep(out: Path, model: str, tasks: Sequence[str]) -> bool:
    """Train every algorithm at every value; algorithms without one once."""
    offered = {"tabular": TABLE_ABILITIES, "linear": LINEAR_ABILITIES}[model]
    known = sorted(plugins.load().algorithms.items())
    fit = [name for name, (cls, _) in known if name not in LEFT_OUT and cls.requires <= offered]
    fields = {name: field for name, field in swept().items() if name in fit}
    result = xpo_bench.run(
        algos=fit,
        tasks=list(tasks),
        model=model,
        seeds=1,
        set={f"{name}.{field}": list(VALUES) for name, field in fields.items()},
        out=out,
        reporter=Reporter(),
    )
    return result.ok


def scoreboard(found: Predictions) -> list[dict[str, Any]]:
    """A row per algorithm, the likeliest first: measures at the cross-fitted value, and along the sweep."""
    index, rows = found.index(), []
    for name in found.algorithms:
        row: dict[str, Any] = {"algorithm": name}
        for measure in MEASURES:
            values, chosen = cross_fitted(found, name, measure)
            row |= {"values": list(chosen), measure: float(values.mean())}
            row[f"{measure}_half"] = half_width(values, index)
        row["sweep"] = [
            {"value": value, "seeds": found.seeds[name, value]}
            | {measure: float(found.values[name, value][measure].mean()) for measure in MEASURES}
            for value in found.settings(name)
        ]
        rows.append(row)
    return sorted(rows, key=lambda row: -row["log_likelihood"])


def defaults() -> dict[str, float]:
    """Algorithm -> the default of what can be swept."""
    classes = {name: cls for name, (cls, _) in plugins.load().algorithms.items()}
    fields = {name: cls.regulariser[0] for name, cls in classes.items() if cls.regulariser is not None}
    return {name: float(getattr(classes[name](), field)) for name, field in fields.items() if field in SWEPT}


def document(runs: Sequence[Path]) -> dict[str, Any]:
    """Everything that is written: a scoreboard per set and policy, and how orders agree."""
    worlds = [of_seeds(runs, task, metric) for task, metric in WORLDS.items()]
    boards, matrices = [], []
    for policy in ("tabular", "linear"):
        sets = predictions(runs, TASKS, policy)
        for task, found in sets.items():
            boards.append(
                {
                    "task": task,
                    "policy": policy,
                    "pairs": len(found.person),
                    "people": len(set(found.person)),
                    "rows": scoreboard(found),
                }
            )
        for measure, at in ORDERED if sets else ():
            given = defaults() if at == "default" else None
            people = [of_people(found, measure, task, given) for task, found in sets.items()]
            orders = [order for order in (*worlds, *people) if order is not None]
            matrices.append({"policy": policy, "measure": people[0].measure, **matrix(orders)})
    return {"schema": 1, "boards": boards, "orders": matrices}


def matrix(orders: Sequence[Order]) -> dict[str, Any]:
    """τ of every two orders, and of every order with itself on two halves of its people or seeds."""
    rng = stream(0, "choices", "orders")
    own = []
    for order in orders:
        low, middle, high = halves(order, rng)
        own.append(
            {"task": order.task, "measure": order.measure, "tau": middle, "ci95": [low, high]}
            | {"unit": order.unit, "units": len(order.counts), "algorithms": len(order.algorithms)}
        )
    judged = [agreement(a, b, rng) for a, b in combinations(orders, 2)]
    return {"tasks": own, "agreements": [_told(found) for found in judged if found is not None]}


def _told(found: Agreement) -> dict[str, Any]:
    return {
        "tasks": [found.one.task, found.other.task],
        "algorithms": found.algorithms,
        "tau": found.tau,
        "ci95": [found.low, found.high],
    }


def rounded(value: Any) -> Any:
    """Numbers with six digits, NaN as None."""
    if isinstance(value, float):
        return None if np.isnan(value) else float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list) else value


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.choices", description="Real choices and orders.")
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("sweep", help="train every algorithm at every β or τ")
    first.add_argument("--out", type=Path, required=True, help="run directory; the same one resumes")
    first.add_argument("--model", choices=["tabular", "linear"], default="tabular")
    first.add_argument("--tasks", default=",".join(TASKS), help="sets of choices, separated by commas")
    second = commands.add_parser("tables", help="read run directories and write the tables")
    second.add_argument("runs", nargs="+", type=Path)
    second.add_argument("--write", type=Path, required=True, help="NAME of NAME.json and NAME.md")
    second.add_argument("--page", type=Path, help="a page whose tables are written anew, docs/choices.md")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if given.command == "sweep":
        return 0 if sweep(given.out, given.model, given.tasks.split(",")) else 1
    found = rounded(document(given.runs))
    given.write.with_suffix(".json").write_text(
        json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n",
        encoding="utf-8",
    )
    given.write.with_suffix(".md").write_text(page(found), encoding="utf-8")
    if given.page:
        given.page.write_text(within(given.page.read_text(encoding="utf-8"), found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
