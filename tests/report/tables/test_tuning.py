"""Default beside tuned, from documents and records alone."""

from __future__ import annotations

from typing import Any

from xpo_bench.report.records import Record, record_of
from xpo_bench.report.run_file import Tuning
from xpo_bench.report.runs import without_search
from xpo_bench.report.tables.tuning import tuning_tables


def record(key: str, gap: float, **more: Any) -> Record:
    what = {"algorithm": {"name": "dpo"}, "task": {"name": "bandit"}, "seed": 0}
    return record_of(what | {"key": key, "status": "ok", "metrics": {"frontier_gap": gap}} | more)


def document(name: str, **more: Any) -> Tuning:
    spread = {"median": 0.7, "q1": 0.6, "q3": 0.8, "best": 0.9, "worst": 0.5, "n": 3, "failed": 1}
    base: Any = {
        "algorithm": name,
        "task": "bandit",
        "experiment": None,
        "select": "heldout_reward_accuracy",
        "seeds": [1_000_000],
        "trials": [{"changes": {}, "score": 0.5}] * 4,
        "chosen": 2,
        "changes": {"beta": 0.25, "train.lr": 0.01},
        "spread": {"heldout_reward_accuracy": spread},
        "reason": None,
        "keys": {"default": [f"{name}-d"], "tuned": [f"{name}-t"]},
    }
    found: Tuning = base | more
    return found


def cells(sheet: Any) -> dict[str, list[str]]:
    return {c.header.replace("_\n", "_"): list(c.cells) for c in sheet.columns}


def test_both_sides_and_the_spread() -> None:
    records = [record("dpo-d", 0.4), record("dpo-t", 0.1)]
    beside, sensitivity = tuning_tables([document("dpo")], records)
    shown = cells(beside)
    assert shown["frontier_gap\ndefault"] == ["0.4"]
    assert shown["frontier_gap\ntuned"] == ["0.1"]
    assert shown["chosen\ntrial"] == ["2: beta=0.25, lr=0.01"]
    assert beside.title == "Default and tuned: bandit: 4 trials of 1 seed"
    spread = cells(sensitivity)
    assert spread["heldout_reward_accuracy\nmedian [quartiles]"] == ["0.7 [0.6, 0.8]"]
    assert spread["heldout_reward_accuracy\nworst to best"] == ["0.5 to 0.9"]
    assert spread["trials\nwithout"] == ["1"]


def test_what_ran_its_default_only_is_told_and_markup_stays_text() -> None:
    keys = {"default": ["d"], "tuned": ["d"]}
    only = document(
        "sft", chosen=0, changes={}, spread={}, trials=[], reason="nothing \x1b[31mto search", keys=keys
    )
    (beside,) = tuning_tables([only], [record("d", 0.4)])
    assert cells(beside)["chosen\ntrial"] == ["0: default"]
    assert "sft: default only: nothing" in beside.note
    assert "\x1b" not in beside.note


def test_a_missing_or_failed_record_is_no_number() -> None:
    (beside, _) = tuning_tables(
        [document("dpo"), document("ipo")], [record("dpo-d", 0.4), record("dpo-t", 0.1, status="failed")]
    )
    assert cells(beside)["frontier_gap\ntuned"] == ["–", "–"]
    assert cells(beside)["frontier_gap\ndefault"] == ["0.4", "–"]


def test_ordinary_tables_leave_out_trials_and_tuned_cells() -> None:
    ordinary = record("a", 0.1)
    trial = record(
        "b", 0.1, experiment="tuned search", protocol={"name": "tuned", "role": "trial", "trial": 1}
    )
    tuned = record("c", 0.1, experiment="tuned", protocol={"name": "tuned", "role": "tuned", "trial": 1})
    assert without_search([ordinary, trial, tuned]) == [ordinary]


def study(keys: list[str], chosen: int = 0, **changes: float) -> Any:
    trials = [{"changes": {}, "score": 0.5}] * 4
    return {
        "seeds": [1],
        "trials": trials,
        "chosen": chosen,
        "changes": changes,
        "reason": None,
        "keys": keys,
    }


def test_the_tuned_row_is_over_studies_and_seeds() -> None:
    """Study means .1, .2 and .3, of two seeds that differ by .02: half is t(2)·√(.01/3 + .0002/2)."""
    gaps = {"a": 0.09, "b": 0.11, "c": 0.19, "d": 0.21, "e": 0.29, "f": 0.31}
    records = [record("dpo-d", 0.4), *(record(key, gap) for key, gap in gaps.items())]
    studies = [study(["a", "b"], 1, beta=0.3), study(["c", "d"], 2, beta=0.4), study(["e", "f"], 2, beta=0.4)]
    beside, spread, _ = tuning_tables([document("dpo", studies=studies)], records)
    shown = cells(beside)
    half = 4.302653 * (0.01 / 3 + 0.0002 / 2) ** 0.5
    assert shown["frontier_gap\ntuned"] == [f"0.2±{half:.2g}"]
    assert shown["chosen\ntrial"] == ["1: beta=0.3; 2: beta=0.4 (2 times)"]
    assert beside.title.endswith("4 trials of 1 seed in each of 3 studies")
    assert "mean over 3 studies" in beside.note
    assert spread.title == "Spread over the studies: bandit"
    shown = cells(spread)
    assert shown["configurations\nchosen"] == ["2"]
    assert shown["frontier_gap\nof the studies"] == ["0.1 to 0.3"]
    assert shown["frontier_gap\nsd of studies"] == ["0.1"]
    assert shown["frontier_gap\nsd of seeds"] == ["0.0141"]


def test_one_study_says_what_its_interval_leaves_out() -> None:
    (beside, _) = tuning_tables([document("dpo")], [record("dpo-d", 0.4), record("dpo-t", 0.1)])
    assert "leaves out what another draw of trials would have chosen; --studies S" in beside.note
