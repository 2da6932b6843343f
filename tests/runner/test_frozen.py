"""The frozen suite: its worlds, budgets and learning rates, and the numbers that come of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import xpo_bench
from xpo_bench import plugins
from xpo_bench.runner.plan import make_plan
from xpo_bench.runner.request import read_file, requests, suites

BASELINE = Path(__file__).parents[2] / "results" / "baselines" / "exact-1.0.json"
TASKS = (
    "bandit noisy length_bias general misspecified rare_arms unseen lengths imbalance hump deterministic "
    "cycle travel"
)
LOSSES = ["chi_po", "dpo", "ipo", "kto"]
COMPARED = ("kl", "gold_reward", "exploitability", "chosen_logp", "rejected_logp", "heldout_reward_accuracy")


def test_it_names_all_that_could_change() -> None:
    blocks = read_file(suites()["exact-1.0"])
    assert [block["tasks"] for block in blocks] == [[task] for task in TASKS.split()]
    for block in blocks:
        assert {"versions", "steps", "batch_size", "optimizer", "sampling", "set"} <= block.keys()
    registry = plugins.load(frozenset())
    cells = make_plan(requests({"suite": "exact-1.0", "seeds": 1}), registry).cells
    pinned = {(block["tasks"][0], name) for block in blocks for name in block["set"]}
    trained = {(c.setup.name, f"{c.algorithm.name}.train.lr") for c in cells if c.algorithm.name != "rlhf"}
    assert trained <= pinned
    assert len(cells) > 400


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    result = xpo_bench.run(LOSSES, suite="exact-1.0", seeds=[0], out=tmp_path_factory.mktemp("frozen"))
    return {(c["algorithm"]["name"], c["task"]["name"]): c["metrics"] for c in result.cells}


def test_its_numbers_do_not_move(found: dict[tuple[str, str], Any]) -> None:
    """To five digits: another machine rounds otherwise, and thousands of steps carry that along."""
    records = json.loads(BASELINE.read_text(encoding="utf-8"))["records"]
    known = {(r["algorithm"]["name"], r["task"]["name"]): r["metrics"] for r in records if r["seed"] == 0}
    assert len(found) > 40
    for place, metrics in found.items():
        for name in COMPARED:
            was = known[place].get(name)
            expected = None if was is None else pytest.approx(was, rel=1e-5, abs=1e-7)
            assert metrics.get(name) == expected, (place, name)
