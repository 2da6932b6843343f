"""The table of a target KL: held there, passing it on the way, or neither; and how rows are marked."""

from __future__ import annotations

from typing import Any

from xpo_bench.report.records import Record, record_of
from xpo_bench.report.run_file import Target
from xpo_bench.report.runs import group
from xpo_bench.report.tables.target_kl import target_lines, target_tables


def record(key: str, algorithm: str, beta: float, reward: float, seed: int = 0, **more: Any) -> Record:
    raw: dict[str, Any] = {
        "key": key,
        "status": "ok",
        "seed": seed,
        "experiment": "kl=1",
        "algorithm": {"name": algorithm, "config": {"beta": beta}},
        "task": {"name": "bandit"},
        "metrics": {"gold_reward": reward},
    }
    return record_of(raw | more)


def at(step: int, reached: bool = True) -> dict[str, Any]:
    return {"target_kl": 1.0, "step": step, "steps": 2000, "reached": reached}


def target(algorithm: str, held: float | None, steps: list[int], keys: list[str], **more: Any) -> Target:
    stopped = {"value": 0.1, "steps": steps, "of": 2000, "kl": 1.004, "reached": True, "keys": keys}
    found: Any = {"algorithm": algorithm, "task": "bandit", "field": "beta", "value": held, "kl": 1.0}
    return found | {"reason": None, "checkpoint": stopped | more}  # type: ignore[no-any-return]


def test_what_is_held_stands_beside_what_passes() -> None:
    records = [
        record("1", "ipo", 0.3, 6.0),
        record("2", "ipo", 0.1, 5.0, checkpoint=at(740), experiment="kl=1 search"),
        record("3", "dpo", 0.1, 5.5, checkpoint=at(700)),
        record("4", "dpo", 0.1, 5.5, checkpoint=at(760), seed=1),
        record("5", "sft", 0.1, 9.0, checkpoint=at(2000, False)),
    ]
    targets = [
        target("ipo", 0.3, [740], ["2"]),
        target("dpo", None, [700, 760], ["3", "4"]),
        target("sft", None, [2000], ["5"], value=None, reached=False, kl=0.8),
    ]
    (table,) = target_tables(targets, records)
    by_name = {c.name.strip(): c.cells for c in table.columns}
    assert list(table.columns[0].cells) == ["ipo", "dpo †", "sft †"]
    assert by_name["step"] == ["740", "700–760", "2,000, not reached"]
    assert by_name["gold_reward held"] == ["6", "–", "–"]
    assert by_name["gold_reward checkpoint"] == ["5", "5.5", "9"]
    assert not any(any(c.best) for c in table.columns)  # nothing was tested here, so nobody is best
    assert target_lines(targets, records) == [
        "dpo † on bandit: checkpoint at KL 1, steps 700–760 of 2,000, at beta 0.1; had not converged",
        "sft † on bandit: never passes the target; KL 0.8 at its end, step 2,000 of 2,000",
    ]


def test_some_seeds_never_pass() -> None:
    records = [
        record("3", "dpo", 0.1, 5.5, checkpoint=at(700)),
        record("4", "dpo", 0.1, 5.5, checkpoint=at(2000, False), seed=1),
    ]
    (line,) = target_lines([target("dpo", None, [700, 2000], ["3", "4"], reached=False, kl=0.9)], records)
    assert line == (
        "dpo † on bandit: 1 seed never passes it; KL 0.9 at its end, step 2,000 of 2,000, at beta 0.1"
    )


def test_a_run_directory_of_an_earlier_version() -> None:
    old: Any = {"algorithm": "ipo", "task": "b", "field": "tau", "value": 0.2, "kl": 1.0, "reason": None}
    (table,) = target_tables([old])
    assert [c.name for c in table.columns] == ["", "task", "regulariser", "held at", "KL"]
    assert target_lines([old]) == []


def test_checkpoints_are_rows_of_their_own_and_seeds_share_one() -> None:
    """Each seed passes at a step of its own; the same configuration run to its end is another row."""
    records = [
        record("1", "dpo", 0.1, 6.0),
        record("3", "dpo", 0.1, 5.5, checkpoint=at(700)),
        record("4", "dpo", 0.1, 5.7, checkpoint=at(760), seed=1),
    ]
    assert [(g.label, len(g.records)) for g in group(records)] == [("dpo", 1), ("dpo †", 2)]
