"""Gradient accumulation on a language model is the full batch, cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from xpo_bench import Algorithm, ModelSpec, Pair
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.train.job import Job, Outcome
from xpo_bench.train.reference_scores import ReferenceScorer
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench_plugins.algorithms.cpo import CPO
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.kto import KTO
from xpo_bench_plugins.algorithms.npo import NPO
from xpo_bench_plugins.algorithms.orpo import ORPO

MakeJob = Callable[..., Job]

SPEC = ModelSpec(
    name="tiny", tokenizer="bytes", hidden_size=16, intermediate_size=32, layers=1, heads=2, context=48
)  # fmt: skip
RAGGED = tuple(Pair("ask" + "?" * i, "yes" + "!" * (i % 3), "no" + "." * (i % 4)) for i in range(5))
EQUAL = tuple(Pair("ask" + "?" * i, "yes" + "!" * (i % 3), "not" + "." * (i % 3)) for i in range(5))
ALGORITHMS = {"dpo": DPO(), "npo": NPO(retain_weight=1.0), "cpo": CPO(), "orpo": ORPO()}


def fit(job: Job) -> tuple[Tensor, Outcome]:
    """All parameters after training the job, and its outcome."""
    policy = CausalLM.load(SPEC, init_seed=0, dtype="float64", device="cpu")
    scorer = ReferenceScorer(policy, policy.snapshot(), {})
    (outcome,) = GroupTrainer(policy, [job], scorer).run()
    return torch.cat([value.flatten() for value in policy.snapshot().values()]), outcome


@pytest.fixture
def fitted(job: MakeJob) -> Callable[..., tuple[Tensor, Outcome]]:
    def run(
        algorithm: Algorithm, rows: tuple[Pair, ...], micro: int, batch: int, **budget: Any
    ) -> tuple[Tensor, Outcome]:
        settings = {
            "steps": 3,
            "dtype": "float64",
            "kl_prompts": 1,
            "kl_samples": 1,
            "max_new_tokens": 1,
            "eval_pairs": 2,
        }
        return fit(
            job(
                algorithm,
                rows,
                lr=0.5,
                optimizer="sgd",
                micro_batch=micro,
                batch_size=batch,
                **(settings | budget),
            )
        )

    return run


@pytest.mark.parametrize("batch", [4, 100], ids=["epochs", "full batch"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_micro_batches_change_nothing(fitted: Callable[..., Any], name: str, batch: int) -> None:
    whole, outcome = fitted(ALGORITHMS[name], RAGGED, 0, batch)
    for micro in (1, 3):
        cut, same = fitted(ALGORITHMS[name], RAGGED, micro, batch)
        torch.testing.assert_close(cut, whole, rtol=0, atol=1e-9)
        assert same.curve[-1]["loss"] == pytest.approx(outcome.curve[-1]["loss"], rel=1e-9)


def test_a_budget_of_tokens_gives_every_algorithm_the_same_rows(
    job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tuple(
        Pair("ask" + "?" * i, "yes" + "!" * (3 * i % 7), "no" + "." * (5 * i % 11)) for i in range(20)
    )
    taken: dict[str, list[set[str]]] = {}
    tokens: dict[str, list[int]] = {}
    score = CausalLM.score
    name = ""

    def noted(self: CausalLM, requests: Any, *, grad: bool, **more: Any) -> Any:
        if grad and torch.is_grad_enabled():
            texts = [e.row(i) for e, index in requests.values() for i in index[0].tolist() if i >= 0]
            taken.setdefault(name, []).append(
                {bytes(row.ids[1 : row.start]).decode() for row in texts if row}
            )
            tokens.setdefault(name, []).append(sum(len(row.ids) for row in texts if row))
        return score(self, requests, grad=grad, **more)

    monkeypatch.setattr(CausalLM, "score", noted)
    for algorithm in (*ALGORITHMS.values(), KTO()):
        name = algorithm.name
        settings = {
            "steps": 9,
            "dtype": "float64",
            "kl_prompts": 1,
            "kl_samples": 1,
            "max_new_tokens": 1,
            "eval_pairs": 2,
        }
        _, outcome = fit(job(algorithm, rows, lr=0.01, batch_tokens=100, **settings))
        assert outcome.status == "ok"
        assert outcome.metrics["pairs_per_s"]
    taken = {name: batches[: 2 * 9] for name, batches in taken.items()}
    assert len({tuple(map(frozenset, batches)) for batches in taken.values()}) == 1
    assert len({len(batch) for batch in taken["dpo"]}) > 1
    assert max(tokens["dpo"]) <= 100 + 20 * 8  # a prompt counts once, and both completions bring theirs


@pytest.mark.parametrize("micro", [1, 2])
def test_micro_batches_of_a_budget_of_tokens(fitted: Callable[..., Any], micro: int) -> None:
    whole, outcome = fitted(DPO(), RAGGED, 0, 4, batch_tokens=60)
    cut, same = fitted(DPO(), RAGGED, micro, 4, batch_tokens=60)
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-9)
    assert same.curve[-1]["loss"] == pytest.approx(outcome.curve[-1]["loss"], rel=1e-9)


@pytest.mark.parametrize("name", ["dpo", "npo"])
def test_micro_batches_change_nothing_when_tokens_are_rows(fitted: Callable[..., Any], name: str) -> None:
    whole, outcome = fitted(ALGORITHMS[name], EQUAL, 0, 4, loss_over="token")
    sequence, _ = fitted(ALGORITHMS[name], EQUAL, 0, 4)
    assert not torch.allclose(whole, sequence, rtol=0, atol=1e-6)
    for micro in (1, 3):
        cut, same = fitted(ALGORITHMS[name], EQUAL, micro, 4, loss_over="token")
        torch.testing.assert_close(cut, whole, rtol=0, atol=1e-9)
        assert same.curve[-1]["loss"] == pytest.approx(outcome.curve[-1]["loss"], rel=1e-9)


def test_kto_takes_tokens_as_rows_whatever_the_lengths(fitted: Callable[..., Any]) -> None:
    for rows in (RAGGED, RAGGED[:1]):  # a single prompt leaves nothing to mismatch with
        _, outcome = fitted(KTO(), rows, 0, 4, loss_over="token")
        assert outcome.status == "ok"


def test_halves_of_a_pair_stay_in_one_micro_batch(
    fitted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    loss = KTO.loss

    def look(self: KTO, step: Any) -> Tensor:
        sizes.append(step.columns["desirable"].shape[-1])
        return loss(self, step)

    monkeypatch.setattr(KTO, "loss", look)
    for batch in (4, 100):
        sizes.clear()
        fitted(KTO(), RAGGED, 1, batch, steps=1)
        assert set(sizes) == {2}
