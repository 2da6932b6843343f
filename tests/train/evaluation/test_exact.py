"""Language models whose whole distribution is listed: exact numbers, with which estimators have to agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from xpo_bench import Budget, Completion, Dataset, ModelSpec
from xpo_bench.contract.metric import Evaluation
from xpo_bench.errors import DataError
from xpo_bench.metrics.curve import evaluate_point
from xpo_bench.metrics.kl import kl_from_samples
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.train.evaluation.exact import Enumerated
from xpo_bench.train.job import Job, Outcome
from xpo_bench.train.reference_scores import ReferenceScorer
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.online_dpo import OnlineDPO
from xpo_bench_plugins.tasks.tokens import Tokens

TASK = Tokens(prompts=2, length=2)
DATA = TASK.data(0, TASK.model)
BUDGET = Budget(steps=60, batch_size=64, optimizer="adamw", dtype="float32", eval_pairs=64)


@pytest.fixture(scope="module")
def run() -> tuple[CausalLM, dict[str, torch.Tensor], Outcome]:
    """A policy after training, what it started from, and what was reported."""
    policy = CausalLM.load(TASK.model, init_seed=0)
    start = policy.snapshot()
    job = Job(DPO(beta=0.2), "tokens", 0, 3e-3, "adamw", DATA, BUDGET)
    (outcome,) = GroupTrainer(policy, [job], ReferenceScorer(policy, start, {})).run()
    return policy, start, outcome


def exact(policy: CausalLM, start: dict[str, torch.Tensor], **more: Any) -> dict[str, float]:
    now = policy.snapshot()
    policy.restore(start)
    assert DATA.world is not None
    listed = Enumerated(policy, DATA, DATA.world)
    policy.restore(now)
    one = np.full((1, 1), -1.0)
    fields: dict[str, Any] = dict.fromkeys(
        ("chosen_logp", "rejected_logp", "chosen_length", "rejected_length", "chosen_ref", "rejected_ref"),
        one,
    )
    ev = Evaluation(step=0, p_chosen=one, valid=one < 0, world=listed.evaluation(), **fields, **more)
    return {name: float(values[0]) for name, values in evaluate_point(ev).items()}


def test_the_record_has_what_the_table_would_have(run: tuple[Any, Any, Outcome]) -> None:
    _, _, outcome = run
    metrics = outcome.metrics
    assert outcome.notes["kl"] == "exact"
    assert "kl_se" not in metrics
    for name in ("kl", "kl_forward", "entropy", "gold_reward", "frontier_gap", "regret"):
        assert metrics[name] is not None, name
    assert outcome.final_policy is not None
    assert {prompt: len(row) for prompt, row in outcome.final_policy.items()} == {"0": 64, "1": 64}
    assert sum(outcome.final_policy["0"].values()) == pytest.approx(1, abs=1e-9)
    start, end = outcome.curve[0], outcome.curve[-1]
    assert start["kl"] == pytest.approx(0, abs=1e-12)
    assert start["frontier_gap"] == pytest.approx(0, abs=1e-6)
    assert end["regret"] < start["regret"]  # type: ignore[operator]


def test_monte_carlo_agrees_with_the_sum_over_all_completions(run: tuple[Any, Any, Outcome]) -> None:
    policy, start, _ = run
    known = exact(policy, start)
    assert known["kl"] > 0.1  # at 0 every estimator would agree
    assert DATA.world is not None
    sampled = policy.sample(["0", "1"], 2000, max_new_tokens=2, generator=torch.Generator().manual_seed(0))
    found = policy.sequence_kl(sampled, start)
    kl, _ = kl_from_samples(found.per_sample_kl.numpy(), found.prompt_index.numpy())
    which = sampled.prompt_index.numpy()

    def within(values: np.ndarray, truth: float) -> None:
        """Samples stratified by prompt against the exact mean, within three standard errors."""
        parts = [values[which == i] for i in (0, 1)]
        se = np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts)) / 2
        assert abs(values.mean() - truth) < 3 * se + 1e-6

    assert kl == pytest.approx(found.per_sample_kl.mean().item())
    within(found.per_sample_kl.numpy(), known["kl"])
    within(
        np.array([DATA.world.reward[str(i)][text] for i, text in zip(which, sampled.texts, strict=True)]),
        known["gold_reward"],
    )
    within(-sampled.scores.sum[0].double().numpy(), known["entropy"])
    # log-ratios estimate the same KL, with more noise
    items = [Completion(str(i), text) for i, text in zip(which, sampled.texts, strict=True)]
    own = policy.score_all(policy.encode(items)).sum[0].double()
    with policy.using(start):
        theirs = policy.score_all(policy.encode(items)).sum[0].double()
    within((own - theirs).numpy(), known["kl"])


def test_a_list_that_is_not_whole_is_refused() -> None:
    policy = CausalLM.load(
        ModelSpec(name="tiny", tokenizer="ids", vocab_size=9, hidden_size=16, heads=2, context=16, eos=False),
        init_seed=0,
    )
    assert DATA.world is not None
    with pytest.raises(DataError, match="not 1"):
        Enumerated(policy, DATA, DATA.world)


def test_without_such_a_world_nothing_is_listed() -> None:
    from dataclasses import replace

    from xpo_bench.train.evaluation.exact import exhaustive

    assert exhaustive(DATA) is DATA.world
    assert DATA.world is not None
    assert exhaustive(replace(DATA, world=replace(DATA.world, exhaustive=False))) is None
    assert exhaustive(Dataset(train=DATA.train)) is None


def test_four_tokens_are_4096_completions_a_prompt() -> None:
    world = Tokens(prompts=1, length=4).data(0, TASK.model).world
    assert world is not None
    assert len(world.actions["0"]) == 4096
    policy = CausalLM.load(TASK.model, init_seed=0)
    total = np.exp(Enumerated(policy, Tokens(prompts=1, length=4).data(0, TASK.model), world).reference).sum()
    assert total == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("length", [2, 3])
def test_what_an_algorithm_samples_of_a_listed_world_is_a_listed_completion(length: int) -> None:
    task = Tokens(prompts=2, length=length)
    policy = CausalLM.load(task.model, init_seed=0)
    dataset = task.data(0, task.model)
    job = Job(OnlineDPO(), "tokens", 0, 1e-3, "adamw", dataset, replace(BUDGET, steps=2, batch_size=8))
    trainer = GroupTrainer(policy, [job], ReferenceScorer(policy, policy.snapshot(), {}))
    (outcome,) = trainer.run()
    assert outcome.status == "ok"
    assert dataset.world is not None
    (drawn,) = trainer.preparation.tools[0].generate(["0"], 64)
    assert {c.text for c in drawn} <= set(dataset.world.actions["0"])
