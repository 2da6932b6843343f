"""`--suite article`: its plan, and the findings of its experiments within what the theory allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from narrow import as_a
from runs import FEW_SAMPLES

import xpo_bench
from xpo_bench import Pair, plugins
from xpo_bench.report.curves import curve_reader
from xpo_bench.report.experiments import EXPERIMENTS
from xpo_bench.report.experiments.bandit import ipo_optimum
from xpo_bench.report.experiments.base import Data
from xpo_bench.report.experiments.robustness import reward_margin
from xpo_bench.report.records import records_of
from xpo_bench.result import Result
from xpo_bench.runner.execute import Session, execute
from xpo_bench.runner.plan import make_plan
from xpo_bench.runner.request import requests
from xpo_bench.runner.store import Store

ORDER = ["overfit", "dpo_vs_ipo", "learning_rates", "bandit", "robustness", "choosing_tau"]


def run_experiment(root: Path, name: str, **words: Any) -> Result:
    """One experiment of the suite, as the suite runs it unless `words` say otherwise."""
    registry = plugins.load()
    asked = [r for r in requests({"suite": "article", "set": FEW_SAMPLES, **words}) if r.experiment == name]
    result = Result(**vars(execute(make_plan(asked, registry), Store(root), Session(registry))))
    assert result.ok
    assert {c["experiment"] for c in result.cells} == {name}
    return result


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Data]:
    """The rows of an experiment, run once."""
    known: dict[str, Data] = {}

    def rows(name: str, **words: Any) -> Data:
        if name not in known:
            root = tmp_path_factory.mktemp(name)
            result = run_experiment(root, name, **words)
            known[name] = EXPERIMENTS[name].data(records_of(result.cells), curve_reader(root))
        return known[name]

    return rows


def pick(rows: Sequence[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    (found,) = [r for r in rows if all(r[k] == v for k, v in wanted.items())]
    return found


# --------------------------------------------------------------------------- the plan


def test_every_cell_has_its_experiment_in_the_articles_order() -> None:
    plan = make_plan(requests({"suite": "article"}), plugins.load())
    assert list(dict.fromkeys(cell.experiment for cell in plan.cells)) == ORDER == list(EXPERIMENTS)
    assert {cell.setup.budget.loss_over for cell in plan.cells if cell.experiment == "overfit"} == {
        "token",
        "sequence",
    }
    for cell in plan.cells:
        assert cell.experiment
        assert cell.setup.name in EXPERIMENTS[cell.experiment].tasks
    assert not plan.skipped


NOT_SWEPT = {
    *(
        "apo_down",
        "apo_zero",
        "aux_dpo",
        "bco",
        "chi_po",
        "dpo_davidson",
        "dpo_norm",
        "dpo_rao_kupper",
        "exo",
    ),
    *("grpo", "ipo_md", "ld_dpo", "nash_md", "nca", "r_dpo", "rloo", "rpo", "sampo", "sppo", "wpo"),
}
"""Algorithms that came after the article; the suite takes three minutes, of which sampling is most."""


def test_every_declared_regulariser_is_swept_under_clean_and_flipped_labels() -> None:
    registry = plugins.load()
    plan = make_plan(requests({"suite": "article"}), registry)
    swept: dict[tuple[str, float], set[Any]] = {}
    for cell in plan.cells:
        if cell.experiment == "choosing_tau":
            assert cell.algorithm.regulariser
            place = (cell.algorithm.name, cell.setup.budget.label_noise)
            swept.setdefault(place, set()).add(cell.config[cell.algorithm.regulariser[0]])
    declared = {
        name
        for name, (cls, info) in registry.algorithms.items()
        if cls.regulariser and info.distribution == "xpo-bench"
    }
    assert declared > NOT_SWEPT
    declared -= NOT_SWEPT
    assert set(swept) == {(name, noise) for name in declared for noise in (0.0, 0.2)}
    assert {len(values) for values in swept.values()} == {4}


def test_algos_picks_from_a_suite_that_names_its_own() -> None:
    plan = make_plan(requests({"suite": "article", "algos": "ipo"}), plugins.load())
    assert {cell.algorithm.name for cell in plan.cells} == {"ipo"}
    assert list(dict.fromkeys(cell.experiment for cell in plan.cells)) == [e for e in ORDER if e != "overfit"]
    votes = make_plan(requests({"suite": "article", "algos": "sft"}), plugins.load())
    assert {cell.setup.name for cell in votes.cells} == {"votes"}
    everything = make_plan(requests({"suite": "article", "algos": "all"}), plugins.load())
    assert everything.hash == make_plan(requests({"suite": "article"}), plugins.load()).hash


def test_flags_override_the_suite() -> None:
    plan = make_plan(
        requests({"suite": "article", "algos": "dpo", "steps": 3, "seeds": "7,"}), plugins.load()
    )
    assert {cell.seed for cell in plan.cells} == {7}
    assert {cell.setup.budget.steps for cell in plan.cells} == {3}


def test_tasks_on_one_world_train_as_one_computation_with_the_numbers_of_each_alone(tmp_path: Path) -> None:
    words: dict[str, Any] = {
        "algos": "dpo,ipo",
        "steps": 40,
        "batch_size": 2,
        "seeds": 2,
        "sampling": "replacement",
    }
    together = xpo_bench.run(tasks="deterministic,cycle,dominated", out=tmp_path / "together", **words)
    assert {c["timing"]["vectorised_runs"] for c in together.cells} == {12}
    for task in ("deterministic", "cycle", "dominated"):
        alone = xpo_bench.run(tasks=task, out=tmp_path / task, **words)
        mine = [c for c in together.cells if c["task"]["name"] == task]
        clocks = ("pairs_per_s", "tokens_per_s", "prepare_s")
        for a, b in zip(alone.cells, mine, strict=True):
            assert a["key"] == b["key"]
            assert a["final_policy"] == b["final_policy"]
            assert {k: v for k, v in a["metrics"].items() if k not in clocks} == {
                k: v for k, v in b["metrics"].items() if k not in clocks
            }


# --------------------------------------------------------------------------- 1. overfit


@pytest.mark.slow  # 2,000 steps of a language model
@pytest.mark.parametrize("over", ["token", "sequence"])
def test_dpo_overfits_one_pair(measured: Callable[..., Data], over: str) -> None:
    """Gradient flow on one pair: the margin grows as ln(t)/β, so that the loss falls about as 1/t."""
    late = pick(measured("overfit")["overfit_late"], **{"loss over": over})
    # the chosen token's share of the margin is bounded by −ln π, so the rejected one's slope is −1/β; the
    # squared length of the gradient, constant in the closed form, still changes on a network
    assert late["slope"] == pytest.approx(late["-1/beta"], rel=0.3)
    ratio = late["to step"] / late["from step"]
    assert late["loss falls by"] == pytest.approx(ratio, rel=0.8)
    if over == "token":
        assert late["orders by then"] == pytest.approx(10, abs=4)
        assert late["orders at the end"] == pytest.approx(20, abs=4)
    assert late["sigma > 0.99 at"] is not None


# --------------------------------------------------------------------------- 2. dpo_vs_ipo


def test_dpo_falls_at_every_beta_and_ipo_converges_where_tau_says(measured: Callable[..., Data]) -> None:
    ends = measured("dpo_vs_ipo")["dpo_vs_ipo_ends"]
    assert {r["algorithm"]: r["curve"] for r in ends} == {
        **{f"dpo beta={b}": "still moving" for b in ("0.1", "0.5", "1")},
        **{f"ipo tau={t}": "converged" for t in ("0.1", "0.5", "1")},
    }
    ipo = [r for r in ends if r["1/(2 tau)"]]
    for r in ipo:
        assert r["margin per token"] == pytest.approx(r["1/(2 tau)"], rel=0.01)
    rejected = [r["rejected_prob"] for r in ipo]
    assert rejected == sorted(rejected)
    assert all(r["lr"] == (1e-4 if r["1/(2 tau)"] else 1e-2) for r in ends)


# --------------------------------------------------------------------------- 3. learning_rates


def test_ipo_on_a_tabular_policy_obeys_the_exact_law(measured: Callable[..., Data]) -> None:
    law = measured("learning_rates")["learning_rates_law"]
    for r in law:
        wanted = "monotone" if r["lr"] < 0.25 else "oscillating" if r["lr"] < 0.5 else "divergent"
        assert r["curve"] == wanted
        if r.get("measured") is not None:
            assert r["measured"] == pytest.approx(1 - 4 * r["lr"], rel=1e-9)
    assert {r["curve"] for r in law} == {"monotone", "oscillating", "divergent"}
    assert any(
        r.get("measured") is None for r in law
    )  # and one was followed until its numbers were no longer finite


def test_ipo_on_a_language_model_spikes_and_diverges_as_its_rate_grows(measured: Callable[..., Data]) -> None:
    runs = {
        (r["algorithm"], r["optimizer"], r["lr"]): r
        for r in measured("learning_rates")["learning_rates_runs"]
    }
    assert runs["ipo", "sgd", 1e-4]["spike"] == runs["ipo", "sgd", 1e-3]["spike"] == 1
    assert 100 <= runs["ipo", "sgd", 1e-2]["spike"] <= 1000
    assert runs["ipo", "sgd", 1e-2]["last loss"] < 1e-3 * runs["ipo", "sgd", 1e-2]["first loss"]
    assert runs["ipo", "sgd", 1e-1]["status"] == "diverged"
    assert runs["dpo", "sgd", 1e-4]["last loss"] < math.log(2)
    assert runs["ipo", "adam", 1e-3]["last loss"] < 1e-3


# --------------------------------------------------------------------------- 4. bandit


def test_ipo_reaches_its_closed_forms_and_dpo_excludes_what_never_wins(measured: Callable[..., Data]) -> None:
    rows = measured("bandit", algos="dpo,ipo")["bandit"]
    ipo = [r for r in rows if r["closed form"] is not None]
    assert len(ipo) == 27
    for r in ipo:  # batches are noise: Student's t of the mean over 10 seeds, p = .0005 on either side
        assert r["seeds"] == 10
        assert abs(r["off by"]) <= 4.78 / 2.26 * r["half interval"], r
    for world in ("deterministic", "dominated"):
        c = {r["algorithm"]: r["probability"] for r in rows if r["world"] == world and r["action"] == "c"}
        assert max(c[f"dpo beta={b}"] for b in ("0.1", "0.5", "1")) < 1e-6
        assert 0.001 < c["ipo tau=0.1"] < c["ipo tau=0.5"] < c["ipo tau=1"] < 1 / 3


def test_closed_forms_of_the_bandit_are_stationary_points() -> None:
    """The gradient of Σ (x_w − x_l − 1/(2τ))² over the rows of a world vanishes there."""
    registry = plugins.load()
    for world in ("deterministic", "cycle", "dominated"):
        task = registry.tasks[world][0]()
        for tau in (0.1, 0.5, 1.0):
            policy = ipo_optimum(world, tau)
            slope = dict.fromkeys("abc", 0.0)
            for e in map(partial(as_a, Pair), task.data(0, task.model).train):
                left = math.log(policy[e.chosen] / policy[e.rejected]) - 1 / (2 * tau)
                slope[e.chosen] += left
                slope[e.rejected] -= left
            assert max(map(abs, slope.values())) < 1e-12


# --------------------------------------------------------------------------- 5. robustness


def test_without_weight_decay_rlhf_and_ppo_collapse_as_dpo_does(measured: Callable[..., Data]) -> None:
    rows = measured("robustness", algos="dpo,ipo,rlhf,ppo,kto")["robustness"]
    for name in ("rlhf", "ppo"):
        by_decay = {
            r["reward_weight_decay"]: r["rejected probability"] for r in rows if r["algorithm"] == name
        }
        assert list(by_decay.values()) == sorted(by_decay.values())
        for decay, p in by_decay.items():
            margin = reward_margin(decay)
            if margin is not None:  # σ(−d) = λd/2, and the policy's margin is d at β = 1
                assert p == pytest.approx(1 / (1 + math.exp(margin)), rel=1e-3)
        # every regularised policy keeps more than DPO does, and the unregularised one goes where DPO goes
        dpo = pick(rows, algorithm="dpo")["rejected probability"]
        assert by_decay[0.0] < 2 * dpo < 5e-4 < by_decay[0.01]
    assert pick(rows, algorithm="ipo")["rejected probability"] == pytest.approx(
        1 / (1 + math.exp(5)), rel=1e-3
    )


def test_more_votes_bring_every_algorithm_nearer_to_the_frontier(measured: Callable[..., Data]) -> None:
    votes = measured("robustness", algos="dpo,ipo,rlhf,ppo,kto")["votes"]
    gap = {(r["algorithm"], r["votes"]): r["frontier_gap"] for r in votes}
    for name in ("dpo", "ipo", "rlhf", "ppo", "kto"):
        assert gap[name, 20] < gap[name, 5] < gap[name, 1]
    for n in (1, 2, 5, 10, 20):  # a bounded margin and a regularised reward lose less on unanimous pairs
        assert gap["ipo", n] < gap["dpo", n]
        assert gap["rlhf", n] < gap["dpo", n]
        assert pick(votes, algorithm="dpo", votes=n)["unanimous"] == pytest.approx(0.8**n + 0.2**n)


# --------------------------------------------------------------------------- 6. choosing_tau


def test_control_of_ipo_exceeds_that_of_slic_and_nothing_lies_above_the_frontier(
    measured: Callable[..., Data],
) -> None:
    data = measured("choosing_tau", algos="dpo,ipo,rlhf,slic,npo")
    rows = {(r["algorithm"], r["labels"]): r for r in data["choosing_tau_control"]}
    for labels in ("clean", "20 % flipped"):
        ipo = rows["ipo", labels]["control"]
        assert 1.5 < ipo < 2.2  # small tilts are proportional to 1/τ, so KL is to 1/τ²: 2 less what saturates
        assert abs(rows["slic", labels]["control"]) < 0.2 < ipo
    # certain preferences leave DPO without an optimum at small β, so its KL is that of the step budget, and
    # not converged
    assert rows["dpo", "clean"]["control"] is None
    assert rows["dpo", "20 % flipped"]["control"] > 0.5
    for p in data["choosing_tau"]:
        assert p["frontier_gap"] >= 0
        assert p["fraction of frontier"] is None or p["fraction of frontier"] <= 1 + 1e-9
    frontier = [p["gold_reward"] for p in data["choosing_tau_frontier"]]
    assert frontier == sorted(frontier)


def test_other_suites_have_three_seeds_unless_said_otherwise(tmp_path: Path) -> None:
    for suite in ("quick", "exact", "full"):
        assert {r.seeds for r in requests({"suite": suite})} == {(0, 1, 2)}
    assert {r.seeds for r in requests({"suite": "quick", "seeds": "7,"})} == {(7,)}
    result = xpo_bench.run("sft", tasks="cycle", steps=2, out=tmp_path / "run")
    assert [c["seed"] for c in result.cells] == [0, 1, 2]
