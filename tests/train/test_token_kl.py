"""KL at every token while training: from which reference, in pieces, per run, and at whose cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from xpo_bench import Algorithm, Group, ModelSpec, Pair, Scores, Stage, Step
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.ensemble import Ensemble
from xpo_bench.train.job import Job, Outcome
from xpo_bench.train.reference_scores import ReferenceScorer
from xpo_bench.train.score_ops import by_token
from xpo_bench.train.trainer import GroupTrainer

ROWS = tuple(Pair(f"x{i % 4}", "ab"[: 1 + i % 2] * 2, "cd"[i % 2 :]) for i in range(6))
EQUAL = tuple(Pair(f"x{i % 4}", "aabb"[i % 3 :][:2], "cd") for i in range(6))
SPEC = ModelSpec(
    name="tiny", tokenizer="bytes", hidden_size=16, intermediate_size=32, layers=1, heads=2, context=48
)
SMALL = {
    "kl_prompts": 1,
    "kl_samples": 1,
    "max_new_tokens": 1,
    "dtype": "float64",
    "optimizer": "sgd",
    "lr": 0.3,
}

seen: list[Mapping[str, Scores]] = []


@dataclass(frozen=True)
class Anchored(Algorithm):
    """DPO with a price of the KL on the rejected side, whose chosen side asks for none."""

    name: ClassVar[str] = "anchored"
    spec: ClassVar[int] = 2
    groups: ClassVar[Mapping[str, Group]] = {
        "chosen": Group(reference=True),
        "rejected": Group(reference=True, token_kl=True),
    }
    beta: float = 0.5
    weight: float = 0.1
    reference: Literal["initial", "previous"] = "initial"

    def stages(self) -> Sequence[Stage]:
        return (Stage(share=0.5, reference=self.reference),) * 2

    def loss(self, step: Step) -> Tensor:
        seen.append({name: scores.detach() for name, scores in step.policy.items()})
        margin = step.log_ratio("chosen") - step.log_ratio("rejected")
        return -logsigmoid(self.beta * margin) + self.weight * step.policy["rejected"].sequence_kl


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


def language(jobs: Sequence[Job]) -> list[Outcome]:
    policy = CausalLM.load(SPEC, init_seed=0, dtype="float64")
    return GroupTrainer(policy, jobs, ReferenceScorer(policy, policy.snapshot(), {})).run()


def kl(scores: Mapping[str, Scores]) -> float:
    return float(scores["rejected"].sequence_kl.sum())


@pytest.mark.parametrize("reference", ["initial", "previous"])
@pytest.mark.parametrize("network", [True, False])
def test_it_is_from_the_reference_of_the_stage(
    job: Callable[..., Job], train: Callable[..., list[Outcome]], reference: Any, network: bool
) -> None:
    (language if network else train)([job(Anchored(reference=reference), ROWS, **SMALL | {"steps": 6})])
    per_step = [kl(scores) for scores in seen if scores["rejected"].token_kl is not None]
    assert all(scores["chosen"].token_kl is None for scores in seen)
    zero = [i for i, value in enumerate(per_step[:6]) if value == 0.0]
    assert zero == ([0] if reference == "initial" else [0, 3])
    assert min(per_step) >= 0


def test_pieces_of_a_step_have_the_loss_of_the_whole(job: Callable[..., Job]) -> None:
    losses = []
    for micro in (0, 1, 4):
        (outcome,) = language([job(Anchored(), ROWS, **SMALL | {"steps": 6, "micro_batch": micro})])
        losses.append([row["loss"] for row in outcome.curve if "loss" in row])
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert losses[2] == pytest.approx(losses[0], rel=1e-6)


def test_who_does_not_ask_pays_nothing(job: Callable[..., Job]) -> None:
    @dataclass(frozen=True)
    class Free(Anchored):
        name: ClassVar[str] = "free"
        groups: ClassVar[Mapping[str, Group]] = {
            "chosen": Group(reference=True),
            "rejected": Group(reference=True),
        }

        def loss(self, step: Step) -> Tensor:
            return -logsigmoid(self.beta * (step.log_ratio("chosen") - step.log_ratio("rejected")))

    @dataclass(frozen=True)
    class Both(Anchored):
        name: ClassVar[str] = "both"
        groups: ClassVar[Mapping[str, Group]] = dict.fromkeys(
            ("chosen", "rejected"), Group(reference=True, token_kl=True)
        )

    tokens = {}
    for algorithm in (Free(), Anchored(), Both()):
        policy = CausalLM.load(SPEC, init_seed=0, dtype="float64")
        policy.scorer.reach = 0  # a row for every completion
        scorer = ReferenceScorer(policy, policy.snapshot(), {})
        trainer = GroupTrainer(policy, [job(algorithm, ROWS, **SMALL | {"steps": 2})], scorer)
        trainer.run()
        tokens[algorithm.name] = trainer.update.tokens_seen
    assert tokens["both"] == 2 * tokens["free"]
    assert tokens["free"] < tokens["anchored"] < tokens["both"]


def test_runs_side_by_side_are_each_alone(
    job: Callable[..., Job], train: Callable[..., list[Outcome]]
) -> None:
    settings = [(0.1, 0), (0.1, 1), (3.0, 0), (0.7, 2), (0.0, 0)]
    jobs = [
        job(Anchored(weight=w), ROWS, seed=s, steps=8, batch_size=4, label_noise=0.2) for w, s in settings
    ]
    together = train(jobs)
    for j, outcome in zip(jobs, together, strict=True):
        assert train([j])[0].final_policy == outcome.final_policy
    assert (
        float(together[2].metrics["kl"] or 0)
        < float(together[0].metrics["kl"] or 0)
        < float(together[4].metrics["kl"] or 0)
    )


def test_copies_of_a_model_are_each_alone(job: Callable[..., Job]) -> None:
    jobs = [job(Anchored(weight=w, reference="previous"), ROWS, **SMALL | {"steps": 4}) for w in (0.1, 2.0)]
    single = CausalLM.load(SPEC, init_seed=0, dtype="float64")
    together = GroupTrainer(Ensemble(single, [single.snapshot()] * 2), jobs, None).run()
    for j, outcome in zip(jobs, together, strict=True):
        (alone,) = language([j])
        assert outcome.metrics["chosen_logp"] == pytest.approx(alone.metrics["chosen_logp"], rel=1e-6)
    assert together[0].metrics["chosen_logp"] != together[1].metrics["chosen_logp"]


def test_a_token_as_a_row_of_its_own_keeps_its_kl(job: Callable[..., Job]) -> None:
    mask = torch.tensor([[True, True], [True, False]])
    scores = Scores(torch.zeros(2, 2), mask, torch.tensor([[1.0, 2.0], [3.0, 9.0]]))
    rows = by_token(Step({"rejected": scores, "chosen": replace(scores, token_kl=None)}))
    assert rows.policy["rejected"].sequence_kl.tolist() == [1.0, 2.0, 3.0, 0.0]
    assert rows.policy["chosen"].token_kl is None
    (outcome,) = language([job(Anchored(), EQUAL, **SMALL | {"steps": 2, "loss_over": "token"})])
    assert outcome.status == "ok"
