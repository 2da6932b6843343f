"""Gradients that vanish at a minimum, and on the tail of a sigmoid: only the second is saturation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from xpo_bench import Algorithm, Dataset, ModelSpec, Pair
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.train.job import Job, Outcome
from xpo_bench.train.reference_scores import ReferenceScorer
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench_plugins.algorithms.cdpo import CDPO
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.ipo import IPO
from xpo_bench_plugins.algorithms.kto import KTO
from xpo_bench_plugins.algorithms.npo import NPO
from xpo_bench_plugins.algorithms.sft import SFT

MakeJob = Callable[..., Job]
Train = Callable[..., list[Outcome]]
FORTY_TO_ONE = tuple([Pair("x", "a", "b")] * 40 + [Pair("x", "b", "a")])


def states(outcomes: list[Outcome]) -> list[object]:
    return [o.notes.get("rejected_state") for o in outcomes]


@pytest.mark.parametrize("algorithm", [DPO(), DPO(beta=10.0), NPO(), KTO(), SFT()], ids=str)
def test_a_learning_rate_that_overshoots_saturates(job: MakeJob, train: Train, algorithm: Algorithm) -> None:
    """At a rate of 20 the first steps carry σ(−βΔ) below all rounding: no drift, and no convergence."""
    (outcome,) = train([job(algorithm, lr=20.0, steps=200)])
    assert outcome.notes["rejected_state"] == "saturated"
    assert outcome.metrics["collapsed"] == 1
    assert outcome.metrics["collapse_step"] is not None
    assert (outcome.metrics["converged"], outcome.metrics["saturated"]) == (0, 1)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_minimum_is_convergence_however_small_its_gradient(job: MakeJob, train: Train, dtype: str) -> None:
    """IPO stands at 1/(2τ), cDPO at logit(1 − ε)/β, DPO on contradicted pairs at logit(p)/β."""
    cells = [
        job(IPO(tau=0.5), lr=0.1, optimizer="sgd", steps=400, dtype=dtype),
        job(IPO(tau=0.05), lr=0.1, optimizer="sgd", steps=400, dtype=dtype),
    ]
    assert states(train(cells)) == ["converged", "converged"]
    (smooth,) = train([job(CDPO(label_smoothing=0.01), lr=0.5, steps=2000, dtype=dtype)])
    assert states([smooth]) == ["converged"]
    (contradicted,) = train([job(DPO(beta=1.0), FORTY_TO_ONE, lr=0.1, steps=1000, dtype=dtype)])
    assert states([contradicted]) == ["converged"]
    assert (contradicted.metrics["converged"], contradicted.metrics["saturated"]) == (1, 0)


def test_what_still_falls_is_not_saturated(job: MakeJob, train: Train) -> None:
    """At β = 10 a fifth of the run moves .026 nats, a quarter of 1/β: it falls."""
    (outcome,) = train([job(DPO(beta=10.0), steps=2000)])
    assert -0.1 < (outcome.metrics["rejected_drift"] or 0) < 0
    assert outcome.notes["rejected_state"] == "falling"
    assert (outcome.metrics["converged"], outcome.metrics["saturated"]) == (0, 0)


def test_runs_of_a_group_are_judged_one_by_one_and_left_as_they_are(job: MakeJob, train: Train) -> None:
    rates = [0.01, 20.0, 0.05]
    together = train([job(DPO(), lr=rate, steps=200) for rate in rates])
    alone = [train([job(DPO(), lr=rate, steps=200)])[0] for rate in rates]
    assert states(together) == states(alone)
    assert states(together)[1] == "saturated"
    for a, b in zip(together, alone, strict=True):
        assert (a.metrics["rejected_logp"], a.final_policy, a.curve) == (
            b.metrics["rejected_logp"],
            b.final_policy,
            b.curve,
        )


def test_the_policy_is_put_back_to_the_bit(job: MakeJob) -> None:
    from xpo_bench.data.world_file import world_of
    from xpo_bench.policy.tabular import TabularPolicy

    cell = job(DPO(), lr=20.0, steps=60)
    seen = []
    policy = TabularPolicy(world_of(cell.dataset.train, None), 1)
    trainer = GroupTrainer(policy, [cell], None)
    judge = trainer.saturation.judge

    def watched(*args: object) -> object:
        before = policy.snapshot()
        found = judge(*args)  # type: ignore[arg-type]
        seen.append((torch.equal(before, policy.snapshot()), bool(found)))
        return found

    trainer.saturation.judge = watched  # type: ignore[assignment,method-assign]
    trainer.run()
    assert seen == [(True, True)]


def test_a_language_model_saturates_too(job: MakeJob) -> None:
    spec = ModelSpec(name="tiny", hidden_size=16, intermediate_size=32, layers=1, heads=2, context=48)
    rows = Dataset(train=(Pair("ask", "yes", "no!"),))
    budget = {"batch_size": 1, "dtype": "float32", "kl_prompts": 1, "kl_samples": 1, "max_new_tokens": 1}
    found = []
    for algorithm, lr in ((DPO(beta=1.0), 10.0), (DPO(beta=1.0), 0.3), (IPO(tau=0.5), 0.01)):
        policy = CausalLM.load(spec, init_seed=0, dtype="float32")
        cell = job(algorithm, rows, lr=lr, optimizer="sgd", steps=100, **budget)
        found += GroupTrainer(policy, [cell], ReferenceScorer(policy, policy.snapshot(), {})).run()
    assert states(found) == ["saturated", "falling", "converged"]
