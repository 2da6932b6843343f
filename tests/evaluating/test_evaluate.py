"""What an evaluation writes: curves over checkpoints, and records that the other commands read."""

from __future__ import annotations

import gc
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import Command
from pydantic import TypeAdapter
from trained_models import Evaluate, changed

from xpo_bench import Result, UsageError, plugins
from xpo_bench.evaluating.loading import Loader
from xpo_bench.evaluating.named import Place
from xpo_bench.report.records import record_of
from xpo_bench.report.reproduce import command
from xpo_bench.runner.record import Record


def named(result: Result) -> dict[str, Any]:
    return {r["algorithm"]["name"]: r for r in result.cells}


def curve(result: Result, name: str) -> pd.DataFrame:
    return pd.read_parquet(result.out / "curves" / f"{named(result)[name]['key']}.parquet")


def items(result: Result, name: str) -> pd.DataFrame:
    return pd.read_parquet(result.out / "items" / f"{named(result)[name]['key']}.parquet")


def test_a_run_is_a_curve_over_its_checkpoints_in_numeric_order(series: Result) -> None:
    assert series.ok
    assert named(series).keys() == {"dpo", "sharded"}
    found = curve(series, "dpo")
    assert found["step"].tolist() == [9, 20, 100]
    assert (found["kl"].diff().dropna() > 0).all()
    assert named(series)["dpo"]["metrics"]["kl"] == found["kl"].iloc[-1]


def test_records_are_of_the_schema_and_say_what_was_evaluated(series: Result, trained: Path) -> None:
    for path in (series.out / "cells").glob("*.json"):
        TypeAdapter(Record).validate_json(path.read_text("utf-8"))
    record = named(series)["dpo"]
    assert record["train"] == {}
    assert record["algorithm"]["plugin"] == "evaluate"
    told = record["evaluated"]
    assert [point["step"] for point in told["checkpoints"]] == [9, 20, 100]
    assert told["checkpoints"][0]["path"] == str(trained / "run" / "checkpoint-9")
    assert len({point["weights"] for point in told["checkpoints"]} | {told["reference"]["weights"]}) == 4


def test_shards_are_the_model_that_they_are_of(series: Result) -> None:
    whole, sharded = items(series, "dpo"), items(series, "sharded")
    assert whole.equals(sharded)
    assert named(series)["dpo"]["metrics"]["kl"] == named(series)["sharded"]["metrics"]["kl"]


def test_one_model_without_a_step_has_no_curve_and_nothing_that_needs_one(series: Result) -> None:
    record = named(series)["sharded"]
    assert not (series.out / "curves" / f"{record['key']}.parquet").exists()
    assert not {"rejected_drift", "collapse_slope", "collapse_step", "converged"} & record["metrics"].keys()
    assert record["evaluated"]["checkpoints"][0]["step"] is None
    assert record["timing"]["steps"] is None


def test_changes_at_the_end_are_between_checkpoints_that_are_named(
    series: Result, evaluate: Evaluate, trained: Path, tmp_path: Path
) -> None:
    first = named(series)["dpo"]
    assert "rejected_drift" not in first["metrics"]  # step 20 is in the first half of the 100
    assert "drift_steps" not in first["evaluated"]
    for own, step in (("checkpoint-20", 70), ("checkpoint-100", 100)):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / f"checkpoint-{step}").symlink_to(trained / "run" / own)
    result = evaluate(tmp_path / "run")
    (record,) = result.cells
    logp = curve(result, "run").set_index("step")["rejected_logp"]
    assert record["evaluated"]["drift_steps"] == [70, 100]
    assert record["metrics"]["rejected_drift"] == pytest.approx(logp[100] - logp[70], abs=1e-9)
    assert record["metrics"]["collapsed"] == 0


def test_what_the_last_checkpoint_lost_is_named_by_row(series: Result) -> None:
    told, found = named(series)["dpo"]["evaluated"]["lost"], items(series, "dpo")
    assert [pair["row"] for pair in told] == [
        int(i) + 1 for i in np.argsort(found["chosen_log_ratio"]) if found["chosen_log_ratio"][i] < 0
    ]
    assert told[0]["chosen_log_ratio"] == found["chosen_log_ratio"].min()


def test_what_was_forgotten_elsewhere(series: Result, evaluate: Evaluate, trained: Path) -> None:
    record = named(series)["dpo"]
    told, metrics = record["notes"]["base_data"]["other"], record["metrics"]
    assert told["texts"] == 2
    own = evaluate(trained / "sharded", data=series.out.parent / "other.jsonl")  # the same texts as pairs
    lost = items(own, "sharded")
    assert told["base_logp_change"] == pytest.approx(lost["chosen_log_ratio"].mean(), abs=1e-5)
    per_token = lost["chosen_log_ratio"].sum() / lost["chosen_length"].sum()
    assert told["base_logp_change_per_token"] == pytest.approx(per_token, abs=1e-6)
    assert metrics["base_logp_change"] == told["base_logp_change"] != 0  # one set is the mean of one
    assert len(curve(series, "dpo")["base_logp_change_per_token"].dropna()) == 3


def test_a_judge_compares_with_the_samples_of_the_reference(
    series: Result, evaluate: Evaluate, stories: Path
) -> None:
    record = named(series)["dpo"]
    assert 0 <= record["metrics"]["win_rate"] <= 1
    assert record["metrics"]["gold_reward"] > 0
    assert {"calibration_error", "brier"} & record["metrics"].keys() == set()  # no row says how sure it is
    for form in ("in_batches", "of_trl", "compares"):
        own = evaluate(f"same={stories}", judge=f"{Path(__file__).parent / 'judges.py'}:{form}")
        metrics = own.cells[0]["metrics"]
        assert metrics["win_rate"] == 0.5  # the reference against itself, on the same random numbers
        assert metrics["kl"] == pytest.approx(0, abs=1e-6)
        assert ("gold_reward" in metrics) == (form != "compares")


def test_β_makes_calibration_and_the_scale_of_a_drift(
    evaluate: Evaluate, trained: Path, tmp_path: Path
) -> None:
    rows = [
        json.loads(line) | {"p_chosen": 0.8} for line in (trained / "prefs.jsonl").read_text().splitlines()
    ]
    path = tmp_path / "sure.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = evaluate(
        f"a={trained / 'sharded'}", f"b={trained / 'run' / 'checkpoint-9'}", data=path, beta="a=0.1,b=0.5"
    )
    for name, β in (("a", 0.1), ("b", 0.5)):
        record, found = named(result)[name], items(result, name)
        Δ = found["chosen_log_ratio"] - found["rejected_log_ratio"]
        assert record["metrics"]["brier"] == pytest.approx(
            np.mean((1 / (1 + np.exp(-β * Δ)) - 0.8) ** 2), abs=1e-6
        )
        assert record["algorithm"]["config"] == {"beta": β}


def test_an_adapter_is_the_model_with_it_merged(evaluate: Evaluate, adapter: Path, stories: Path) -> None:
    result = evaluate(adapter / "lora", adapter / "whole")
    lora, whole = items(result, "lora"), items(result, "whole")
    assert np.allclose(lora["chosen_log_ratio"], whole["chosen_log_ratio"], atol=1e-4)
    assert (lora["chosen_log_ratio"].abs() > 0.1).any()
    told = named(result)["lora"]["evaluated"]["checkpoints"][0]
    assert told["kind"] == "adapter"
    assert told["base"]["path"] == str(stories)


def test_the_other_commands_read_it(series: Result, warm: Command, tmp_path: Path) -> None:
    run = series.out
    shown = warm("show", run)
    assert shown.code == 0
    assert "dpo" in shown.out
    assert "None" not in shown.out
    assert warm("status", run).code == 0
    page = warm("report", run, "--html", tmp_path / "r.html", "--md", tmp_path / "r.md")
    assert page.code == 0, page.err
    assert "trained elsewhere" in (tmp_path / "r.html").read_text("utf-8")
    assert warm("export", run, "--to", tmp_path / "set").code == 0
    assert warm("compare", run, run).code == 0
    assert warm("merge", run, "--out", tmp_path / "merged").code == 0
    assert warm("baseline", run, "-o", tmp_path / "base.json").code == 0
    assert warm("compare", tmp_path / "base.json", run).code == 0


def test_one_trained_model_against_another(
    evaluate: Evaluate, trained: Path, stories: Path, warm: Command, tmp_path: Path
) -> None:
    """The regression test of a trained model: there are no seeds, and the rows are the same."""
    good, bad = (tmp_path / name for name in ("good", "bad"))
    evaluate(f"dpo={stories}", out=good)
    found = named(evaluate(f"dpo={trained / 'sharded'}", out=bad))["dpo"]["metrics"]
    assert found["reward_accuracy"] < 0.4, "the fixture is no worse than its reference"
    assert warm("baseline", good, "-o", tmp_path / "good.json").code == 0
    worse = warm("compare", tmp_path / "good.json", bad, "--json")
    assert worse.code == 3, worse.out
    verdicts = {test["metric"]: test["verdict"] for test in json.loads(worse.out)["tests"]}
    assert verdicts["reward_accuracy"] == "regression"
    assert verdicts["chosen_logp"] == "moved"  # another training run ends elsewhere
    assert "None" not in warm("compare", tmp_path / "good.json", bad).out
    assert warm("compare", tmp_path / "good.json", good).code == 0


def test_weights_that_are_not_finite_have_diverged(
    evaluate: Evaluate, trained: Path, stories: Path, tmp_path: Path
) -> None:
    changed(tmp_path / "run" / "checkpoint-40", 1, float("nan"))
    (tmp_path / "run" / "checkpoint-9").symlink_to(trained / "run" / "checkpoint-9")
    (found,) = evaluate(tmp_path / "run").cells
    (whole,) = evaluate(trained / "run" / "checkpoint-9").cells
    assert found["status"] == "diverged"
    for name in ("kl", "displacement", "reward_accuracy"):
        assert found["metrics"][name] == whole["metrics"][name]  # those of the last finite checkpoint
    assert found["evaluated"]["lost"] == whole["evaluated"]["lost"]
    with pytest.raises(UsageError, match="its weights are not finite"):
        evaluate(stories, reference=tmp_path / "run" / "checkpoint-40")


def test_the_command_of_a_record_finds_it_again(series: Result, warm: Command) -> None:
    for record in series.cells:
        line = command(record_of(record), plugins.load())
        again = warm(*shlex.split(line)[1:], "--out", series.out)
        assert again.code == 0, again.err
        assert "1 of 1 already there" in again.err


def test_one_model_is_in_memory_at_a_time(
    evaluate: Evaluate, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import PreTrainedModel

    load, seen = Loader._model, []

    def counted(self: Loader, place: Place) -> PreTrainedModel:
        seen.append(sum(isinstance(thing, PreTrainedModel) for thing in gc.get_objects()))
        return load(self, place)

    before = sum(isinstance(thing, PreTrainedModel) for thing in gc.get_objects())
    monkeypatch.setattr(Loader, "_model", counted)
    assert evaluate(trained / "run").ok
    assert seen == [before] * 7  # the reference, and each checkpoint with the reference after it
