"""Items: what they say, item by item, is what the metrics say of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from narrow import numbers, present

import xpo_bench
from xpo_bench import Budget, Dataset, ModelSpec, Pair, Single
from xpo_bench.contract.examples import Example
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.result import Result
from xpo_bench.train.evaluation.trail import identities
from xpo_bench.train.items import COLUMNS, Items
from xpo_bench.train.job import Job, Outcome
from xpo_bench.train.reference_scores import ReferenceScorer
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.kto import KTO

Table = Callable[[Mapping[str, Any]], pd.DataFrame]
SPEC = ModelSpec(name="tiny", hidden_size=16, intermediate_size=32, layers=1, heads=2, context=64)
PAIRS = tuple(Pair(f"say {x}", f"{x}{x}", f"{x}no") for x in "abcdefgh")


def run(path: Path, algos: Any, **words: Any) -> tuple[Result, Table]:
    asked: dict[str, Any] = {"tasks": "bandit", "seeds": 1, "steps": 60} | words
    result = xpo_bench.run(algos, out=path / "r", **asked)
    return result, lambda record: pd.read_parquet(path / "r" / "items" / f"{record['key']}.parquet")


def trained(dataset: Dataset, algorithm: Any = None, **more: Any) -> Outcome:
    policy = CausalLM.load(SPEC, init_seed=0)
    words: dict[str, Any] = {"steps": 4, "batch_size": 4, "optimizer": "adamw", "dtype": "float32"}
    budget = Budget(**(words | {"kl_prompts": 4, "kl_samples": 2, "max_new_tokens": 8} | more))
    job = Job(algorithm or DPO(), "test", 0, 1e-2, "adamw", dataset, budget)
    (outcome,) = GroupTrainer(policy, [job], ReferenceScorer(policy, policy.snapshot(), {})).run()
    return outcome


@pytest.mark.parametrize("algorithm", ["dpo", "kto", "rlhf", "simpo"])
def test_means_over_items_are_the_metrics(tmp_path: Path, algorithm: str) -> None:
    result, table = run(tmp_path, algorithm)
    (record,) = result.cells
    metrics, items = numbers(record["metrics"]), table(record)
    assert tuple(items.columns) == COLUMNS
    train, heldout = (items[items["split"] == name] for name in ("train", "heldout"))
    assert (len(train), len(heldout)) == (256, 256)
    assert train["correct"].mean() == metrics["reward_accuracy"]
    assert heldout["correct"].mean() == metrics["heldout_reward_accuracy"]
    assert (train["chosen_log_ratio"].mean(), heldout["chosen_log_ratio"].mean()) == pytest.approx(
        (metrics["displacement"], metrics["heldout_displacement"])
    )
    for budget in ("0.3", "1", "3"):
        # all completions have one token, so that accuracy is not length-controlled
        assert heldout[f"correct_at_{budget}"].mean() == pytest.approx(
            metrics[f"heldout_accuracy_at_{budget}"], abs=1e-12
        )
        assert train[f"correct_at_{budget}"].isna().all()
    margin = heldout["chosen_log_ratio"] - heldout["rejected_log_ratio"]
    assert ((margin > 1e-6) == (heldout["correct"] == 1)).all()
    assert (heldout["chosen_length"] == 1).all()


def test_items_at_a_kl_are_between_the_two_evaluations(tmp_path: Path) -> None:
    """By hand, from the curve: accuracy at the budget is linear in KL between the evaluations around it."""
    result, table = run(tmp_path, "dpo", steps=100)
    (record,) = result.cells
    curve = pd.read_parquet(tmp_path / "r" / "curves" / f"{record['key']}.parquet")
    kl, accuracy = curve["kl"].to_numpy(), curve["heldout_reward_accuracy"].to_numpy()
    after = int(np.argmax(kl >= 0.3))
    assert after > 0
    t = (0.3 - kl[after - 1]) / (kl[after] - kl[after - 1])
    want = (1 - t) * accuracy[after - 1] + t * accuracy[after]
    assert numbers(record["metrics"])["heldout_accuracy_at_0.3"] == pytest.approx(want, abs=1e-12)
    fractions = set(table(record)["correct_at_0.3"].dropna().round(9))
    assert fractions <= {0.0, 0.5, 1.0, *np.round([t, 1 - t, t / 2, 1 - t / 2, (1 - t) / 2, (1 + t) / 2], 9)}


def test_one_item_has_one_id_in_every_cell_and_seed(tmp_path: Path) -> None:
    result, table = run(tmp_path, "dpo,ipo,kto", tasks="travel", seeds=2, steps=10)
    found = [table(record) for record in result.cells]
    for items in found:
        for _, of_set in items.groupby("split"):
            assert of_set["item"].is_unique
            assert of_set["item"].str.fullmatch("[0-9a-f]{16}").all()
        pd.testing.assert_frame_equal(
            items[["split", "item", "cluster"]], found[0][["split", "item", "cluster"]]
        )
    heldout = found[0][found[0]["split"] == "heldout"]
    # three pairs each of the 52 travellers that are held out
    assert heldout["cluster"].str.fullmatch(r"traveller \d+").all()
    assert (len(heldout), set(heldout["cluster"].value_counts())) == (156, {3})
    assert not set(heldout["cluster"]) & set(found[0][found[0]["split"] == "train"]["cluster"])


def test_identities() -> None:
    rows: list[Example] = [
        Pair("x", "a", "b"),
        Pair("x", "a", "b"),
        Pair("x", "b", "a"),
        Pair("x", "a", "b", person="p"),
        Pair("y", "a", "b"),
        Single("x", "a", True),
        Single("x", "a", False),
        Single("x", "a", True),
    ]
    ids, clusters = identities(rows)
    assert len(set(ids)) == len(rows)
    assert clusters[0] == clusters[1] == clusters[2] == clusters[5]
    assert clusters[3] == "p"
    assert clusters[4] != clusters[0]
    # an item keeps its id whatever stands around it
    assert identities(rows[2:])[0][0] == ids[2]
    assert identities([rows[4], rows[0]])[0] == [ids[4], ids[0]]
    assert identities([Pair("x", "ab", "c")])[0] != identities([Pair("x", "a", "bc")])[0]


def test_ties_are_neither_right_nor_wrong() -> None:
    rows = (*PAIRS[:4], Pair("say z", "zz", "zno", p_chosen=0.5))
    items = present(trained(Dataset(train=PAIRS, heldout=rows)).items)
    correct = items.values["correct"]
    assert len(items) == len(PAIRS) + len(rows)
    assert np.isnan(correct[-1])
    assert not np.isnan(correct[:-1]).any()
    assert math.isfinite(items.values["chosen_log_ratio"][-1])


def test_on_a_language_model_items_have_lengths_and_are_read_at_a_kl() -> None:
    outcome = trained(
        Dataset(train=PAIRS, heldout=tuple(Pair("hear " + e.prompt, e.chosen, e.rejected) for e in PAIRS))
    )
    items, metrics = present(outcome.items), numbers(outcome.metrics)
    heldout = np.array(items.texts["split"]) == "heldout"
    assert items.values["correct"][heldout].mean() == pytest.approx(metrics["heldout_reward_accuracy"])
    assert set(items.values["rejected_length"]) == {4.0}  # three bytes and the end
    assert set(items.values["chosen_length"]) == {3.0}
    # chosen is shorter everywhere: accuracy has no second stratum and is not length-controlled
    assert "heldout_accuracy_lc" not in metrics
    for budget in ("0.3", "1", "3"):
        at = items.values[f"correct_at_{budget}"]
        assert at[heldout].mean() == pytest.approx(metrics[f"heldout_accuracy_at_{budget}"])
        assert np.isnan(at[~heldout]).all()


def test_unpaired_examples_have_a_row_each_and_no_other_side() -> None:
    rows = tuple(
        Single(f"say {x}", x * (3 if good else 2), good)
        for x, good in zip("abcdefgh", (True, False, False) * 3, strict=False)
    )
    items = present(trained(Dataset(train=rows, heldout=rows[:3], kind="singles"), KTO()).items)
    values = items.values
    assert list(items.texts["split"]) == ["train"] * 8 + ["heldout"] * 3
    desirable = [True] * 3 + [False] * 5 + [True] + [False] * 2
    for side, there in (("chosen", desirable), ("rejected", [not d for d in desirable])):
        for column in (f"{side}_log_ratio", f"{side}_length"):
            assert (~np.isnan(values[column])).tolist() == there
    assert set(values["chosen_length"][np.array(desirable)]) == {4.0}
    assert set(values["rejected_length"][~np.array(desirable)]) == {3.0}
    for column in ("correct", "correct_at_0.3", "correct_at_1", "correct_at_3"):
        assert np.isnan(values[column]).all()
    assert items.texts["item"][:3] == identities([e for e in rows if e.desirable])[0]


def test_a_diverged_run_keeps_its_last_finite_items(tmp_path: Path) -> None:
    result, table = run(tmp_path, "ipo", tasks="one_pair", steps=1500, optimizer="sgd", lr=0.6)
    (record,) = result.cells
    assert record["status"] == "diverged"
    items = table(record)
    assert np.isfinite(items["chosen_log_ratio"]).all()
    assert items["correct"].mean() == numbers(record["metrics"])["reward_accuracy"]


def test_a_closed_form_is_right_about_the_same_items_all_along(tmp_path: Path) -> None:
    """Every log-ratio of π_s is s times that of π."""
    result, table = run(tmp_path, "rlhf")
    items = table(result.cells[0])
    heldout = items[items["split"] == "heldout"]
    for budget in ("0.3", "1", "3"):
        assert (heldout[f"correct_at_{budget}"] == heldout["correct"]).all()


def test_plain_columns_are_those_that_they_were_made_of() -> None:
    items = present(trained(Dataset(train=PAIRS)).items)
    again = Items.of_plain(items.plain())
    assert again.texts == items.texts
    for name, values in items.values.items():
        np.testing.assert_array_equal(again.values[name], values)
