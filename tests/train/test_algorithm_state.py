"""What an algorithm carries from step to step: its recursion, its beginnings, and whose rows it sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from xpo_bench import Algorithm, ModelSpec, Pair, Stage, Step
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.train.data_parallel import Processes
from xpo_bench.train.job import Job, Outcome
from xpo_bench.train.reference_scores import ReferenceScorer
from xpo_bench.train.trainer import GroupTrainer

ROWS = tuple(Pair(f"x{i}", "a" * (1 + i % 3), "b" * (1 + i % 2)) for i in range(6))
SPEC = ModelSpec(
    name="tiny", tokenizer="bytes", hidden_size=16, intermediate_size=32, layers=1, heads=2, context=48
)
SMALL = {"kl_prompts": 1, "kl_samples": 1, "max_new_tokens": 1, "dtype": "float64"}

seen: list[tuple[Tensor, Tensor]] = []
"""(the state that a step came with, the mean margin of the rows that next_state saw)"""


@dataclass(frozen=True)
class Smoothed(Algorithm):
    """DPO against a moving average of the margin."""

    name: ClassVar[str] = "smoothed"
    spec: ClassVar[int] = 2
    beta: float = 0.5
    momentum: float = 0.75
    parts: int = 1
    restart: bool = True

    def stages(self) -> Sequence[Stage]:
        return (Stage(share=1 / self.parts, restart=self.restart),) * self.parts

    def state(self) -> Mapping[str, float | Tensor]:
        return {"mean": 2.0 * self.momentum}

    def next_state(self, step: Step) -> Mapping[str, Tensor]:
        margin = step.log_ratio("chosen") - step.log_ratio("rejected")
        weight = torch.ones_like(margin) if step.weight is None else step.weight
        count = step.all_reduce(weight.sum(-1, keepdim=True))
        mean = step.all_reduce(torch.where(weight > 0, weight * margin, 0.0).sum(-1, keepdim=True)) / count
        seen.append((step.state["mean"].clone(), mean))
        return {"mean": self.momentum * step.state["mean"] + (1 - self.momentum) * mean}

    def loss(self, step: Step) -> Tensor:
        margin = step.log_ratio("chosen") - step.log_ratio("rejected")
        return -logsigmoid(self.beta * (margin - step.state["mean"]))


@dataclass(frozen=True)
class Stateless(Smoothed):
    """The same loss at the initial state, without keeping one."""

    name: ClassVar[str] = "stateless"

    def state(self) -> Mapping[str, float | Tensor]:
        return {}

    def next_state(self, step: Step) -> Mapping[str, Tensor]:
        raise AssertionError("there is no state")

    def loss(self, step: Step) -> Tensor:
        assert step.state == {}
        return super().loss(replace(step, state={"mean": torch.zeros(1, 1, dtype=torch.float64)}))


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


def curve_of(outcome: Outcome) -> list[Any]:
    timed = {"pairs_per_s", "tokens_per_s", "prepare_s"}
    return [[{k: v for k, v in row.items() if k not in timed} for row in outcome.curve], outcome.final_policy]


def test_the_state_follows_its_recursion(
    job: Callable[..., Job], train: Callable[..., list[Outcome]]
) -> None:
    train([job(Smoothed(), ROWS, steps=5, batch_size=4)])
    assert len(seen) == 5
    expected = 1.5
    for before, mean in seen:
        assert before.tolist() == [[expected]]
        expected = 0.75 * expected + (1 - 0.75) * float(mean)
    assert seen[0][1].item() == 0.0  # the policy is the reference: scores are those before the update
    assert seen[-1][1].item() > 0.0
    assert not any(value.requires_grad for pair in seen for value in pair)


def test_one_run_alone_is_bit_for_bit_one_of_many(
    job: Callable[..., Job], train: Callable[..., list[Outcome]]
) -> None:
    words: dict[str, Any] = {"steps": 12, "batch_size": 4}
    settings = [(0.75, 0), (0.75, 1), (0.5, 0), (0.9, 4), (0.1, 2)]
    jobs = [job(Smoothed(momentum=m), ROWS, seed=seed, **words) for m, seed in settings]
    together = train(jobs)
    assert len({str(outcome.final_policy) for outcome in together}) == len(jobs)
    for j, outcome in zip(jobs, together, strict=True):
        assert curve_of(train([j])[0]) == curve_of(outcome)


def test_without_state_nothing_is_kept_or_called(
    job: Callable[..., Job], train: Callable[..., list[Outcome]]
) -> None:
    (outcome,) = train([job(Stateless(), ROWS, steps=3)])
    assert outcome.status == "ok"


@pytest.mark.parametrize(("restart", "beginnings"), [(True, 3), (False, 1)])
def test_the_state_begins_anew_where_the_optimizer_does(
    job: Callable[..., Job], train: Callable[..., list[Outcome]], restart: bool, beginnings: int
) -> None:
    train([job(Smoothed(parts=3, restart=restart), ROWS, steps=9)])
    assert len(seen) == 9
    assert sum(before.item() == 1.5 for before, _ in seen) == beginnings
    assert [i for i, (before, _) in enumerate(seen) if before.item() == 1.5] == [0, 3, 6][:beginnings]


def test_a_language_model_in_micro_batches_keeps_the_state_of_the_whole_step(job: Callable[..., Job]) -> None:
    curves = []
    for micro in (0, 1, 2):
        seen.clear()
        policy = CausalLM.load(SPEC, init_seed=0, dtype="float64")
        words = SMALL | {"steps": 4, "batch_size": 4, "micro_batch": micro, "optimizer": "sgd", "lr": 0.1}
        scorer = ReferenceScorer(policy, policy.snapshot(), {})
        (outcome,) = GroupTrainer(policy, [job(Smoothed(), ROWS, **words)], scorer).run()
        assert outcome.status == "ok"
        assert len(seen) == 4
        curves.append([[float(before), float(mean)] for before, mean in seen])
    for other in curves[1:]:
        torch.testing.assert_close(torch.tensor(other), torch.tensor(curves[0]), rtol=1e-9, atol=1e-12)


class Echo(Processes):
    """The first of two processes, of which the other has nothing to add, or holds another state."""

    other = 0.0

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return list(tensors)

    def from_first(self, value: Any) -> Any:
        return {"mean": [self.other]} if isinstance(value, dict) and self.other else value


@pytest.mark.parametrize("other", [0.0, 0.25])
def test_processes_have_one_state(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, other: float
) -> None:
    monkeypatch.setattr(Echo, "other", other)
    policy = CausalLM.load(SPEC, init_seed=0, dtype="float64")
    trainer = GroupTrainer(
        policy,
        [job(Smoothed(), ROWS, steps=1, batch_size=4, **SMALL)],
        ReferenceScorer(policy, policy.snapshot(), {}),
        processes=Echo(0, 2),
    )
    if other:
        with pytest.raises(
            ValueError, match=r"smoothed: the state 'mean' differs between processes: next_state\(\) sums"
        ):
            trainer.run()
    else:
        assert [outcome.status for outcome in trainer.run()] == ["ok"]


@dataclass(frozen=True)
class OneNameMore(Smoothed):
    name: ClassVar[str] = "one-name-more"

    def next_state(self, step: Step) -> Mapping[str, Tensor]:
        return {**super().next_state(step), "other": step.state["mean"]}


@dataclass(frozen=True)
class PerRow(Smoothed):
    name: ClassVar[str] = "per-row"

    def next_state(self, step: Step) -> Mapping[str, Tensor]:
        return {"mean": step.log_ratio("chosen")}


@dataclass(frozen=True)
class Words(Smoothed):
    name: ClassVar[str] = "words"

    def state(self) -> Mapping[str, Any]:
        return {"mean": "zero"}


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        (
            OneNameMore(),
            r"one-name-more: next_state\(\) returned \['mean', 'other'\], the state is \['mean'\]",
        ),
        (PerRow(), r"per-row: the state 'mean' has shape \(1, 6\), expected \(1, 1\)"),
        (Words(), r"words: the state 'mean' is str, expected a number or a tensor"),
    ],
)
def test_what_is_no_state_is_refused(
    job: Callable[..., Job], train: Callable[..., list[Outcome]], algorithm: Algorithm, message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        train([job(algorithm, ROWS, steps=1)])


@dataclass(frozen=True)
class Claims(Smoothed):
    name: ClassVar[str] = "claims"

    def implied_preference(self, step: Step) -> Tensor:
        return (step.log_ratio("chosen") - step.log_ratio("rejected") - step.state["mean"]).sigmoid()


def test_what_an_algorithm_claims_may_read_its_state(
    job: Callable[..., Job], train: Callable[..., list[Outcome]]
) -> None:
    rows = tuple(replace(row, p_chosen=0.9) for row in ROWS)
    (outcome,) = train([job(Claims(), rows, steps=2)])
    # at step 0 the margin is 0 and the state 1.5
    start = outcome.curve[0]["calibration_error"]
    assert start == pytest.approx(0.9 - 1 / (1 + 2.718281828459045**1.5), abs=1e-9)
