"""The reference of a stage: for exact KL, implied preferences and new data, whatever metrics use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from narrow import present
from torch import Tensor
from torch.nn.functional import logsigmoid

from xpo_bench import Algorithm, ModelSpec, Pair, Single, Stage, Step, World
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.ensemble import Ensemble
from xpo_bench.train.job import Job, Outcome
from xpo_bench.train.reference_scores import ReferenceScorer
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench_plugins.algorithms.kto import KTO, reference_point
from xpo_bench_plugins.algorithms.rlhf import RLHF

ROWS = tuple(Pair(f"x{i % 3}", "abc"[i % 3], "abc"[(i + 1) % 3], p_chosen=0.8) for i in range(6))
SPEC = ModelSpec(
    name="tiny", tokenizer="bytes", hidden_size=16, intermediate_size=32, layers=1, heads=2, context=48
)
SMALL = {
    "kl_prompts": 1,
    "kl_samples": 1,
    "max_new_tokens": 1,
    "dtype": "float64",
    "optimizer": "sgd",
    "lr": 0.5,
}

seen: list[tuple[str, Tensor, Tensor]] = []
"""(where, log-ratio or exact KL, z0 or claim) in the order of the calls."""


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


@dataclass(frozen=True)
class StagedKTO(KTO):
    name: ClassVar[str] = "staged-kto"

    def stages(self) -> Sequence[Stage]:
        return (Stage(share=0.5, reference="previous"),) * 2

    def loss(self, step: Step) -> Tensor:
        assert step.exact_kl is not None
        seen.append(("loss", step.log_ratio("completion").detach(), step.exact_kl))
        seen.append(("z0", reference_point(step), step.exact_kl))
        return super().loss(step)


@pytest.mark.parametrize("runs", [1, 3])
def test_exact_kl_is_from_the_reference_of_the_stage(
    job: Callable[..., Job], train: Callable[..., list[Outcome]], runs: int
) -> None:
    """At the first step of a stage every log-ratio is 0, and so is z0."""
    train([job(StagedKTO(), ROWS, seed=seed, steps=8) for seed in range(runs)])
    moved = [step for step in seen if step[0] == "loss"]
    z0 = [float(value.max()) for where, value, _ in seen if where == "z0"]
    for first in (0, 4):
        assert not moved[first][1].any()
        assert not moved[first][2].any()
        assert z0[first] == 0.0
    assert all(value > 0 for t, value in enumerate(z0[:8]) if t not in (0, 4))
    for _, ratio, kl in moved[
        :8
    ]:  # one prompt of uniform weight on what was compared: KL is what the log-ratios say of it
        assert bool((kl >= 0).all())
        assert bool(ratio.any()) == bool(kl.any())


@dataclass(frozen=True)
class StagedDPO(Algorithm):
    name: ClassVar[str] = "staged-dpo"
    beta: float = 0.5
    n_stages: int = 2

    def stages(self) -> Sequence[Stage]:
        return (Stage(share=1 / self.n_stages, reference="previous"),) * self.n_stages

    def _logit(self, step: Step) -> Tensor:
        return self.beta * (step.log_ratio("chosen") - step.log_ratio("rejected"))

    def loss(self, step: Step) -> Tensor:
        seen.append(
            ("loss", (step.log_ratio("chosen") - step.log_ratio("rejected")).detach(), torch.zeros(0))
        )
        return -logsigmoid(self._logit(step))

    def implied_preference(self, step: Step) -> Tensor:
        margin = step.log_ratio("chosen") - step.log_ratio("rejected")
        seen.append(("claim", margin, torch.zeros(0)))
        return self._logit(step).sigmoid()


def language(jobs: Sequence[Job]) -> list[Outcome]:
    policy = CausalLM.load(SPEC, init_seed=0, dtype="float64")
    return GroupTrainer(policy, jobs, ReferenceScorer(policy, policy.snapshot(), {})).run()


def ensemble(jobs: Sequence[Job]) -> list[Outcome]:
    policies = [CausalLM.load(SPEC, init_seed=0, dtype="float64") for _ in jobs]
    policy = Ensemble(policies[0], [p.snapshot() for p in policies])
    return GroupTrainer(policy, jobs, None).run()


@pytest.mark.parametrize("kind", ["table", "tables", "network", "ensemble"])
def test_a_claim_is_judged_as_the_loss_sees_it(
    job: Callable[..., Job], train: Callable[..., list[Outcome]], kind: str
) -> None:
    runs = 2 if kind in ("tables", "ensemble") else 1
    trainers: dict[str, Callable[..., list[Outcome]]] = {"network": language, "ensemble": ensemble}
    outcomes = trainers.get(kind, train)(
        [job(StagedDPO(beta=0.5 + i), ROWS, **SMALL | {"steps": 4}) for i in range(runs)]
    )
    claimed = [margin for where, margin, _ in seen if where == "claim"]
    trained = [margin for where, margin, _ in seen if where == "loss"]
    # evaluations at 0, 1, 2, 3, 4: before step t the loss sees the policy of evaluation t, unless a stage
    # begins there
    at_the_end = claimed[-1][..., : len(ROWS)]
    assert (
        float((at_the_end - trained[-1]).abs().max()) < 1e-12
    )  # the last call is the loss after the last update
    assert float((claimed[1][..., : len(ROWS)] - trained[1]).abs().max()) < 1e-12
    for i, outcome in enumerate(outcomes):
        q = torch.sigmoid((0.5 + i) * at_the_end[i if runs > 1 else 0])
        assert outcome.metrics["brier"] == pytest.approx(float(((q - 0.8) ** 2).mean()), rel=1e-9)
    # against the initial policy, as all other metrics are, the margin would be that of both stages
    stages = [margin[..., : len(ROWS)] for margin in (claimed[2], claimed[-1])]
    assert all(float(margin.abs().max()) > 0 for margin in stages)


def test_the_held_out_rows_too(job: Callable[..., Job], train: Callable[..., list[Outcome]]) -> None:
    """The same rows held out make the same claim."""
    from xpo_bench import Dataset

    (outcome,) = train([job(StagedDPO(), Dataset(train=ROWS, heldout=ROWS), steps=6)])
    assert outcome.metrics["heldout_brier"] == pytest.approx(outcome.metrics["brier"], rel=1e-12)


def test_one_stage_is_as_it_was(job: Callable[..., Job], train: Callable[..., list[Outcome]]) -> None:
    """A single stage whose reference is "previous" is against the initial policy, in both."""
    (outcome,) = train([job(StagedDPO(n_stages=1), ROWS, steps=6)])
    margin = [m for where, m, _ in seen if where == "claim"][-1]
    policy = outcome.final_policy
    assert policy is not None
    for row, pair in enumerate(ROWS):  # the reference is uniform
        p = policy[pair.prompt]
        assert float(margin[0, row]) == pytest.approx(np.log(p[pair.chosen] / p[pair.rejected]), abs=1e-9)


@dataclass(frozen=True)
class Refreshed(Algorithm):
    """Data is drawn anew at every step of two stages, each against the policy that it began with."""

    name: ClassVar[str] = "refreshed"
    accepts: ClassVar[type] = Single
    groups: ClassVar[Mapping[str, Any]] = {"completion": replace(KTO.groups["completion"])}

    def stages(self) -> Sequence[Stage]:
        return (Stage(share=0.5, reference="previous", refresh=1),) * 2

    def loss(self, step: Step) -> Tensor:
        seen.append(("loss", step.log_ratio("completion").detach(), torch.zeros(0)))
        return -step.policy["completion"].sum * (step.columns["desirable"] - 0.5)


@pytest.mark.parametrize("network", [False, True])
def test_new_data_does_not_move_the_reference(
    job: Callable[..., Job], train: Callable[..., list[Outcome]], network: bool
) -> None:
    (language if network else train)([job(Refreshed(), ROWS, **SMALL | {"steps": 6})])
    at_reference = [not ratio.any() for where, ratio, _ in seen if where == "loss"]
    assert at_reference[:6] == [True, False, False, True, False, False]


def test_z0_on_a_set_of_one_prompt_says_that_there_is_none(job: Callable[..., Job]) -> None:
    """Every completion belongs to the only prompt: no row has a mismatched partner."""
    one = tuple(Pair("x", a, b) for a, b in ("ab", "bc", "cd"))
    two = (*one, Pair("y", "a", "b"))
    for rows, batch, z0 in (
        (one, 4096, "none"),
        (one, 1, "none"),
        (two, 4096, "mismatched"),
        (two, 1, "mismatched"),
    ):
        (outcome,) = language([job(KTO(), rows, **SMALL | {"steps": 4, "batch_size": batch})])
        assert outcome.notes["z0"] == z0, (len(rows), batch)


def test_z0_of_a_table_is_exact_also_on_one_prompt(
    job: Callable[..., Job], train: Callable[..., list[Outcome]]
) -> None:
    (outcome,) = train([job(KTO(), (Pair("x", "a", "b"),), steps=2)])
    assert outcome.notes["z0"] == "exact"


WORLD = World(
    actions={"x": ("a", "b", "c")},
    reference={"x": {"a": 0.5, "b": 0.3, "c": 0.2 + 9e-7}},  # within the 1e-6 that a world file may be off
    reward={"x": {"a": 1e4, "b": 1e4 + 1, "c": 1e4 + 2}},
)


def test_a_reference_that_sums_to_one_within_rounding_is_one(
    job: Callable[..., Job], train: Callable[..., list[Outcome]]
) -> None:
    """At step 0 the policy is the reference: its KL is 0, and so is its gap."""
    (outcome,) = train([job(StagedDPO(), (Pair("x", "a", "b"),), world=WORLD, steps=1)])
    assert outcome.curve[0]["kl"] == pytest.approx(0.0, abs=1e-30)
    assert outcome.curve[0]["frontier_gap"] == pytest.approx(0.0, abs=1e-12)


def test_a_float32_table_is_judged_as_a_distribution(
    job: Callable[..., Job], train: Callable[..., list[Outcome]]
) -> None:
    """Rounded log-probabilities sum to 1 ± 1e-7, which would put policies above the frontier, or in error."""
    rows = (Pair("x", "c", "a"),) * 2
    outcomes = train([job(RLHF(beta=0.1 + seed), rows, world=WORLD, dtype="float32") for seed in range(5)])
    for outcome in outcomes:
        assert 0 <= present(outcome.metrics["frontier_gap"]) < 2
        assert sum(present(outcome.final_policy)["x"].values()) == pytest.approx(1, abs=1e-6)
    gibbs = [
        job(RLHF(beta=0.5), tuple(Pair("x", *p) for p in ("ca", "cb", "ba")), world=WORLD, dtype="float32")
    ]
    fitted = train(gibbs)[0].metrics
    exact = train([replace(gibbs[0], budget=replace(gibbs[0].budget, dtype="float64"))])[0].metrics
    assert fitted["frontier_gap"] == pytest.approx(exact["frontier_gap"], abs=2e-6)
