"""Configurations and seeds that run as one computation equal, bit for bit, their cells run alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from xpo_bench import plugins
from xpo_bench.metrics.registry import describe
from xpo_bench.runner.execute import Session, execute
from xpo_bench.runner.executed import Executed
from xpo_bench.runner.executors.groups import groups
from xpo_bench.runner.executors.in_process import LocalExecutor
from xpo_bench.runner.plan import TABLE_ABILITIES, Cell, Plan, make_plan
from xpo_bench.runner.record import Curve, Record
from xpo_bench.runner.request import requests
from xpo_bench.train.items import Items

WORDS: dict[str, Any] = {
    "tasks": ["bandit"],
    "steps": 16,
    "batch_size": 8,
    "label_noise": 0.1,
    "set": {"task.prompts": 3, "task.actions": 4, "task.pairs": 30, "task.heldout_pairs": 9},
}
"""A bandit-like world whose epochs end inside a batch."""
VALUES: dict[str, list[Any]] = {"tau": [0.1, 0.7], "margin": [0.5, 2.0], "retain_weight": [0.0, 1.0]}
TIMED = {"pairs_per_s", "tokens_per_s", "prepare_s", "overhead"}
ALGORITHMS = sorted(
    name for name, (cls, _) in plugins.load().algorithms.items() if cls.requires <= TABLE_ABILITIES
)


def settings(name: str) -> dict[str, list[Any]]:
    """Two values of the algorithm's regulariser, or of its first float field."""
    cls, _ = plugins.load().algorithm(name)
    fields = {f: getattr(cls(), f) for f in cls.__dataclass_fields__}
    swept = (
        cls.regulariser[0]
        if cls.regulariser
        else next((f for f, v in fields.items() if isinstance(v, float)), None)
    )
    if swept is None:
        return {}
    default = fields[swept]
    return {f"{name}.{swept}": VALUES.get(swept, [default, 3 * default])}


def plan(algos: Sequence[str], **words: Any) -> Plan:
    swept = {k: v for name in algos for k, v in settings(name).items()}
    # a word and the setting of its name are one, and given once
    given = {k: v for k, v in WORDS.items() if f"task.{k}" not in words.get("set", {})}
    asked = given | {"algos": list(algos), "seeds": [0, 1, 5]} | words
    asked["set"] = WORDS["set"] | swept | words.get("set", {})
    return make_plan(requests(asked), plugins.load())


def run(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Records by key, without the store."""
    records: dict[str, dict[str, Any]] = {}

    def finished(cell: Cell, record: Record, curve: Curve, items: Items | None) -> None:
        evidence = None if items is None else items.plain()
        records[cell.key] = {**record, "curve": curve, "items": evidence}

    executor = LocalExecutor(finished)
    for batch in groups(cells):
        executor.run(batch)
    return records


def numbers(record: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on the runs trained in the same batch."""
    return {
        "status": record["status"],
        "error": record["error"],
        "metrics": {k: v for k, v in record["metrics"].items() if k.removeprefix("heldout_") not in TIMED},
        "curve": [{k: v for k, v in row.items() if k not in TIMED} for row in record["curve"]],
        "final_policy": record["final_policy"],
        "notes": record["notes"],
        "items": record["items"],
    }


def assert_equal_to_alone(cells: Sequence[Cell], together: dict[str, dict[str, Any]]) -> None:
    for cell in cells:
        alone = run([cell])[cell.key]
        assert alone["status"] == "ok", alone["error"]
        assert alone["timing"]["vectorised_runs"] == 1
        assert numbers(together[cell.key]) == numbers(alone), cell.label


def test_what_is_compared_is_everything_but_time() -> None:
    units = {entry["name"]: entry["unit"] for entry in describe()}
    assert {name for name, unit in units.items() if unit in ("1/s", "s", "ratio")} <= TIMED
    assert {"dpo", "sdpo", "rso", "ppo", "rlhf", "kto"} <= set(ALGORITHMS)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_sweep_is_its_cells(name: str) -> None:
    cells = plan([name]).cells
    assert len(cells) == 3 * (len(next(iter(settings(name).values()))) if settings(name) else 1)
    together = run(cells)
    assert {record["timing"]["vectorised_runs"] for record in together.values()} == {len(cells)}
    policies = [str(record["final_policy"]) for record in together.values()]
    assert len(set(policies)) > 1  # seeds and values do differ
    assert_equal_to_alone(cells, together)


@pytest.mark.parametrize("name", ["dpo", "kto", "sdpo"])
def test_full_batches_and_replacement_too(name: str) -> None:
    for words in ({"batch_size": 4096}, {"sampling": "replacement"}, {"optimizer": "rmsprop", "lr": 0.01}):
        cells = plan([name], seeds=[0, 1], **words).cells
        assert_equal_to_alone(cells, run(cells))


def test_algorithms_share_a_computation_and_do_not_notice() -> None:
    cells = plan(["dpo", "ipo", "kto", "npo", "simpo"], set={"dpo.train.lr": [0.01, 0.2]}).cells
    assert len(groups(cells)) == 1
    together = run(cells)
    assert {record["timing"]["vectorised_runs"] for record in together.values()} == {len(cells)}
    assert_equal_to_alone(cells, together)


def test_fields_that_are_no_floats_share_a_computation_in_slices_of_their_own() -> None:
    cells = plan(
        ["ipo", "dpo"], seeds=[0, 1], set={"ipo.normalize": ["tokens", "none"], "ipo.tau": [0.1, 0.3]}
    ).cells
    assert len(groups(cells)) == 1
    assert_equal_to_alone(cells, run(cells))


def test_what_cannot_share_does_not() -> None:
    by_stages = groups(plan(["dpo", "sdpo"], set={"sdpo.stages": [2, 3]}).cells)
    assert len(by_stages) == 3
    by_optimizer = groups(plan(["dpo"], set={"dpo.train.optimizer": ["sgd", "adam"]}).cells)
    assert len(by_optimizer) == 2
    by_task = groups(plan(["dpo"], set={"task.steps": [10, 20]}).cells)
    assert len(by_task) == 2


def test_order_of_the_plan_changes_nothing(tmp_path: Path) -> None:
    from xpo_bench.runner.store import Store

    forwards, backwards = plan(["dpo", "ipo"], seeds=[0, 1]), plan(["ipo", "dpo"], seeds=[1, 0])
    results: list[Executed] = [
        execute(p, Store(tmp_path / str(i)), Session(plugins.load()))
        for i, p in enumerate((forwards, backwards))
    ]
    policies = [{cell["key"]: cell["final_policy"] for cell in result.cells} for result in results]
    assert policies[0] == policies[1]
    assert len(policies[0]) == 8
