"""Copies of a language model that train as one computation: each is the model that trains by itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from copies import (
    ALGORITHMS,
    OTHER_BUDGETS,
    SEEDS,
    SPEC,
    assert_close,
    assert_company_changes_no_bit,
    assert_divergence_is_its_own,
    assert_each_is_itself,
    job,
)
from runs import FEW_SAMPLES

from xpo_bench import Completion, plugins
from xpo_bench.api import run
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.ensemble import Ensemble
from xpo_bench.policy.language.weights import State
from xpo_bench.runner.executors.groups import fits_ensemble, groups
from xpo_bench.runner.plan import make_plan
from xpo_bench.runner.request import requests
from xpo_bench.train.job import Job, Outcome
from xpo_bench.train.reference_scores import ReferenceScorer
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench_plugins.algorithms.dpo import DPO


def single(seed: int = 0) -> CausalLM:
    return CausalLM.load(SPEC, init_seed=seed, dtype="float64")


@cache
def weights(seed: int) -> State:
    return single(seed).snapshot()


@cache
def alone() -> CausalLM:
    """A model, laid out as in an ensemble, which is given the weights of every seed in turn."""
    policy = single()
    policy.scorer.reach = 0
    return policy


@cache
def base() -> CausalLM:
    """The model that ensembles of many tests are copies of, each with weights of its own."""
    return single()


def together(jobs: Sequence[Job]) -> list[Outcome]:
    return GroupTrainer(Ensemble(base(), [weights(j.seed) for j in jobs]), jobs, None).run()


def by_itself(j: Job) -> Outcome:
    """The path of one language model."""
    policy, start = alone(), weights(j.seed)
    policy.restore(start)
    (outcome,) = GroupTrainer(policy, [j], ReferenceScorer(policy, start, {})).run()
    return outcome


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_copy_is_the_model_that_trains_alone(name: str) -> None:
    jobs = [job(name, seed) for seed in SEEDS]
    found = together(jobs)
    assert {outcome.timing["vectorised_runs"] for outcome in found} == {len(SEEDS)}
    assert len({outcome.metrics["chosen_logp"] for outcome in found}) == len(SEEDS)
    for j, outcome in zip(jobs, found, strict=True):
        assert outcome.status == "ok"
        assert_close(outcome, by_itself(j))


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if len(job(name, 0).algorithm.stages()) == 1])
def test_who_else_trains_changes_no_bit(name: str) -> None:
    assert_company_changes_no_bit(name, together)


@pytest.mark.parametrize("words", OTHER_BUDGETS)
def test_other_budgets(words: dict[str, Any]) -> None:
    assert_each_is_itself([job("dpo", seed, **words) for seed in SEEDS[:2]], together, by_itself)


def test_settings_of_one_algorithm_stand_side_by_side() -> None:
    jobs = [Job(DPO(beta=beta), "test", 0, lr, "adamw", j.dataset, j.budget) for beta, lr, j in _grid()]
    assert_each_is_itself(jobs, together, by_itself)


def _grid() -> list[tuple[float, float, Job]]:
    return [(beta, lr, job("dpo", 0)) for beta in (0.05, 0.5) for lr in (1e-3, 1e-2)]


def test_a_run_that_diverges_stands_still_and_costs_no_other() -> None:
    assert_divergence_is_its_own(together, by_itself)


def test_scores_are_those_of_each_copy() -> None:
    states: list[State] = [single(seed).snapshot() for seed in (3, 4)]
    ensemble = Ensemble(single(), states)
    long = [Completion("p", "a"), Completion("q", "bcd"), Completion("p", "efghi")]
    encoded = ensemble.stack([ensemble.encode(long), ensemble.encode(long[:1])])
    index = torch.tensor([[2, 0], [0, -1]])
    scores = ensemble.score({"chosen": (encoded, index), "again": (encoded, index[:, :1])}, grad=False)
    assert scores["chosen"].mask.sum(-1).tolist() == [[6, 2], [2, 0]]  # bytes and an end of sequence
    for r, seed in enumerate((3, 4)):
        alone = single(seed)
        for n, i in enumerate(index[r].tolist()):
            if i >= 0:
                expected = alone.score_all(alone.encode([long[i]])).sum
                torch.testing.assert_close(scores["chosen"].sum[r, n], expected[0, 0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(scores["again"].sum[r, 0], scores["chosen"].sum[r, 0])
    ensemble.single.scorer.tokens_per_forward = 8  # a row at a time
    torch.testing.assert_close(
        ensemble.score({"chosen": (encoded, index)}, grad=False)["chosen"].sum, scores["chosen"].sum
    )
    with ensemble.member(1) as model:
        torch.testing.assert_close(
            model.score_all(model.encode(long)).sum, single(4).score_all(model.encode(long)).sum
        )
    assert torch.equal(ensemble.lengths(encoded), torch.tensor([[2, 4, 6], [2, 0, 0]]))


def cells(**words: Any) -> Any:
    asked = {"tasks": ["overfit_pair"], "seeds": [0, 1, 2], "steps": 4} | words
    return make_plan(requests(asked), plugins.load()).cells


def test_which_cells_are_copies_of_one_model() -> None:
    sizes = [
        len(g.cells)
        for g in groups(cells(algos=["dpo", "ipo"], set={"task.ensemble": 4, "dpo.beta": [0.1, 0.5]}))
    ]
    assert sorted(sizes) == [2, 3, 4]  # six of dpo in groups of four at most, three of ipo
    assert {len(g.cells) for g in groups(cells(algos=["dpo"]))} == {1}
    sampling = cells(algos=["rso", "ppo", "dpo"], set={"task.ensemble": 4})
    assert {cell.algorithm.name for cell in sampling if fits_ensemble(cell)} == {"dpo"}
    listed = cells(algos=["dpo"], tasks=["tokens"], set={"task.ensemble": 4})
    assert not any(fits_ensemble(cell) for cell in listed)


def test_an_ensemble_of_cells_from_the_command(tmp_path: Any) -> None:
    words: dict[str, Any] = {"algos": ["dpo"], "tasks": ["overfit_pair"], "seeds": 2, "steps": 3}
    found = run(**words, set={"task.ensemble": 2} | FEW_SAMPLES, out=tmp_path / "a")
    alone = run(**words, set=FEW_SAMPLES, out=tmp_path / "b")
    assert found.ok
    assert [c["timing"]["vectorised_runs"] for c in found.cells] == [2, 2]
    assert {c["key"] for c in found.cells}.isdisjoint(c["key"] for c in alone.cells)
    for mine, theirs in zip(found.cells, alone.cells, strict=True):
        assert mine["task"]["model"]["attention"] == "math"
        assert mine["metrics"]["chosen_logp"] == pytest.approx(theirs["metrics"]["chosen_logp"], rel=1e-4)
