"""Algorithms that shape their data: RSO's sampling, sDPO's chunks, PPO's samples."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from narrow import as_a
from small_worlds import OPTIMA, REFERENCE, REWARD, TableTools, log, one_token

from xpo_bench import Completion, Pair, Single, Step
from xpo_bench_plugins.algorithms.ppo import PPO, leave_one_out
from xpo_bench_plugins.algorithms.rso import RSO, statistical_rejection_sampling
from xpo_bench_plugins.algorithms.sdpo import SDPO

# --------------------------------------------------------------------------- RSO


@pytest.mark.parametrize(("beta", "rate"), [(0.5, 0.2341), (1.0, 0.4209)])
def test_rejection_sampling_accepts_at_the_stated_rate_and_follows_the_optimum(
    beta: float, rate: float
) -> None:
    rng = np.random.default_rng(1)
    drawn = rng.choice(4, 200_000, p=REFERENCE)
    # far fewer than the first pass would accept: every candidate that is tested is a fresh one
    indices, tests = statistical_rejection_sampling(np.array(REWARD)[drawn], 30_000, beta, rng)
    assert len(indices) == 30_000 == len(set(indices.tolist()))
    assert len(indices) / tests == pytest.approx(rate, abs=0.004)
    law = np.bincount(drawn[indices], minlength=4) / len(indices)
    optimum = next(p for b, p, _ in OPTIMA if b == beta)
    assert law.tolist() == pytest.approx(optimum, abs=0.01)


def keyed_by_text(drawn: np.ndarray, n: int, beta: float, rng: np.random.Generator) -> np.ndarray:
    """The mistake: candidates in a table keyed by text lose their multiplicity."""
    texts = np.unique(drawn)
    indices, _ = statistical_rejection_sampling(np.array(REWARD)[texts], n, beta, rng)
    return np.asarray(texts[indices])


def test_candidates_keyed_by_text_are_biased() -> None:
    rng = np.random.default_rng(2)
    beta, optimum, _ = OPTIMA[1]
    laws = np.zeros((2, 4))
    for _ in range(1500):
        drawn = rng.choice(4, 64, p=REFERENCE)
        indices, _ = statistical_rejection_sampling(np.array(REWARD)[drawn], 4, beta, rng)
        laws[0] += np.bincount(drawn[indices], minlength=4)
        laws[1] += np.bincount(keyed_by_text(drawn, 4, beta, rng), minlength=4)
    laws /= laws.sum(1, keepdims=True)
    assert np.abs(laws[0] - optimum).max() < 0.03
    assert np.abs(laws[1] - optimum).max() > 0.15


def test_rejection_sampling_renews_the_maximum_and_ends() -> None:
    # at a small β only the best of those left is accepted, pass after pass
    indices, tests = statistical_rejection_sampling(
        np.array([1.0, 3.0, 2.0]), 3, 1e-3, np.random.default_rng(0)
    )
    assert indices.tolist() == [1, 2, 0]
    assert tests == 3 + 2 + 1
    indices, tests = statistical_rejection_sampling(
        np.array([1.0, 1.0, 1.0]), 2, 1.0, np.random.default_rng(0)
    )
    assert (indices.tolist(), tests) == ([0, 1], 2)  # equal rewards: all accepted, and testing stops at n
    assert len(statistical_rejection_sampling(np.zeros(3), 10, 1.0, np.random.default_rng(0))[0]) == 3


PAIRS = [Pair("x", *order) for order in ["ba"] * 6 + ["cb"] * 6 + ["dc"] * 6 + ["ab", "bc", "cd"]]


def test_rso_labels_by_the_fitted_reward_and_counts_what_it_drops() -> None:
    tools = TableTools(seed=5)
    algorithm = RSO(candidates=64, kept=8)
    prompts = [*PAIRS, Pair("y", "b", "a")]
    shaped = [as_a(Pair, p) for p in algorithm.shape_data(prompts, tools)]
    rank = {text: i for i, text in enumerate("abcd")}
    assert all(rank[p.chosen] > rank[p.rejected] for p in shaped if p.prompt == "x")
    assert {p.prompt for p in shaped} <= {"x", "y"}
    assert len(shaped) + tools.notes["identical_pairs"] == 8  # two prompts, eight kept of each
    assert 0 < tools.notes["acceptance_rate"] <= 1
    assert list(algorithm.shape_data(prompts, TableTools(seed=5))) == shaped


def test_rso_options() -> None:
    tools = TableTools(seed=0)
    rso = RSO(candidates=32, kept=4, distinct=True)
    distinct = [as_a(Pair, p) for p in rso.shape_data(PAIRS, tools)]
    texts = [t for p in distinct for t in (p.chosen, p.rejected)]
    assert len(texts) == len(set(texts)) == 4
    assert tools.notes["identical_pairs"] == 0
    few = [as_a(Pair, p) for p in RSO(top_k=2).shape_data(PAIRS, TableTools(seed=0))]
    assert {t for p in few for t in (p.chosen, p.rejected)} == {"a", "b"}


def test_rso_refuses_data_without_two_texts() -> None:
    with pytest.raises(ValueError, match=r"^rso: none of the .* has two different texts \(\d+ dropped\)"):
        RSO(top_k=1).shape_data(PAIRS, TableTools())


# --------------------------------------------------------------------------- sDPO


def chunks(algorithm: SDPO, pairs: list[Pair], tools: Any) -> list[list[Pair]]:
    shaped = algorithm.shape_data(pairs, tools)
    stages = range(len(algorithm.stages()))
    return [[as_a(Pair, p) for p in algorithm.stage_examples(stage, shaped)] for stage in stages]


def test_sdpo_stages() -> None:
    for count in (1, 2, 5):
        plan = SDPO(n_stages=count).stages()
        assert len(plan) == count
        assert sum(stage.share for stage in plan) == pytest.approx(1)
        assert {(stage.reference, stage.restart) for stage in plan} == {("previous", True)}


def test_sdpo_orders_whole_units_from_easy_to_hard() -> None:
    # under the table a is likelier than b, b than c, c than d: "hard" ranks all wrong, "even" half of them
    hard = [Pair(f"h{i}", "d", "a", source="hard") for i in range(4)]
    even = [Pair("e", "a", "b"), Pair("e", "b", "a"), Pair("e", "a", "c"), Pair("e", "c", "a")]
    easy = [Pair(f"g{i}", "a", "b", source="easy") for i in range(4)]
    interleaved = [pair for triple in zip(hard, even, easy, strict=True) for pair in triple]
    assert chunks(SDPO(n_stages=3), interleaved, TableTools()) == [easy, even, hard]
    first, second = chunks(SDPO(n_stages=2), interleaved, TableTools())
    assert (first, second) in ((easy, even + hard), (easy + even, hard))


def test_sdpo_chunks_are_balanced_and_cover_everything() -> None:
    rng = np.random.default_rng(0)
    pairs = [Pair(f"p{rng.integers(20)}", *rng.choice(list("abcd"), 2, replace=False)) for _ in range(400)]
    for count in (2, 3, 7):
        parts = chunks(SDPO(n_stages=count), pairs, TableTools())
        assert sorted(map(str, (p for part in parts for p in part))) == sorted(map(str, pairs))
        assert max(map(len, parts)) - min(map(len, parts)) <= 2 * 35
        prompts = [{p.prompt for p in part} for part in parts]
        assert sum(map(len, prompts)) == len(set().union(*prompts)), "a unit was cut"


def test_sdpo_splits_one_unit_at_random_and_keeps_both_orders_together() -> None:
    pairs = [Pair("x", c, r) for c in "abcd" for r in "abcd" if c != r] * 3
    splits = []
    for seed in range(4):
        parts = chunks(SDPO(n_stages=2), pairs, TableTools(seed=seed))
        unordered = [{frozenset((p.chosen, p.rejected)) for p in part} for part in parts]
        assert not unordered[0] & unordered[1]
        assert [len(u) for u in unordered] == [3, 3]
        assert sum(map(len, parts)) == len(pairs)
        assert parts == chunks(SDPO(n_stages=2), pairs, TableTools(seed=seed))
        splits.append(frozenset(map(frozenset, unordered)))
    assert len(set(splits)) > 1


def test_sdpo_never_has_an_empty_stage() -> None:
    for pairs in ([Pair("x", "a", "b")] * 3, [Pair("x", "a", "b"), Pair("y", "b", "c")]):
        parts = chunks(SDPO(n_stages=5), pairs, TableTools())
        assert len(parts) == 5
        assert all(parts)
        assert {(p.prompt, p.chosen) for part in parts for p in part} == {(p.prompt, p.chosen) for p in pairs}


def test_sdpo_on_all_data_leaves_the_data_alone() -> None:
    assert chunks(SDPO(data="all"), PAIRS, TableTools()) == [PAIRS, PAIRS]


# --------------------------------------------------------------------------- PPO


def test_leave_one_out_subtracts_the_mean_of_the_others() -> None:
    assert leave_one_out(np.array([[1.0, 2.0, 6.0]])).tolist() == [[1 - 4.0, 2 - 3.5, 6 - 1.5]]
    assert leave_one_out(np.array([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]])).sum() == pytest.approx(0)


def test_ppo_samples_every_prompt_once_per_refresh() -> None:
    algorithm = PPO(beta=0.5, samples=3, epochs=4)
    (stage,) = algorithm.stages()
    assert (stage.refresh, stage.reference, stage.share) == (4, "initial", 1.0)
    tools = TableTools()
    tools.current = np.log([0.1, 0.2, 0.3, 0.4])
    tools.examples = [*PAIRS, Pair("y", "b", "a")]
    singles = [as_a(Single, s) for s in algorithm.shape_data(tools.examples, tools)]
    assert [s.prompt for s in singles] == ["x"] * 3 + ["y"] * 3
    assert all(
        s.values["old_logp"] == pytest.approx(tools.current["abcd".index(s.completion)]) for s in singles
    )
    assert sum(s.values["advantage"] for s in singles[:3]) == pytest.approx(0)
    reward = tools.fit_reward([*PAIRS, Pair("y", "b", "a")], 0.01)
    returns = [
        r - 0.5 * (tools.current["abcd".index(s.completion)] - tools.reference["abcd".index(s.completion)])
        for r, s in zip(
            reward([Completion(s.prompt, s.completion) for s in singles[:3]]), singles[:3], strict=True
        )
    ]
    assert singles[0].values["advantage"] == pytest.approx(returns[0] - (returns[1] + returns[2]) / 2)
    assert algorithm.completions(singles) == {
        "completion": [Completion(s.prompt, s.completion) for s in singles]
    }
    assert algorithm.columns(singles)["advantage"] == [s.values["advantage"] for s in singles]


def test_ppo_fits_its_reward_to_all_rows_and_samples_the_prompts_of_the_batch() -> None:
    tools = TableTools()
    tools.examples = [*PAIRS, Pair("y", "b", "a")]
    singles: Any = PPO(samples=3).shape_data([Pair("y", "b", "a")], tools)
    assert [s.prompt for s in singles] == ["y"] * 3
    assert tools.fitted == [tools.examples]


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.5, 2.0, -2.4, 0.0),  # clipped: no gain from going further
        (0.5, 2.0, -1.0, -1.0),
        (0.5, -2.0, 1.6, 0.0),
        (1.5, -2.0, 3.0, 3.0),  # the minimum keeps the way back open
    ],
)
def test_clipped_surrogate(ratio: float, advantage: float, value: float, slope: float) -> None:
    logp = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    columns = {
        "advantage": torch.tensor([advantage], dtype=torch.float64),
        "old_logp": torch.zeros(1, dtype=torch.float64),
    }
    loss = PPO(clip=0.2).loss(Step({"completion": one_token(logp)}, {}, columns))
    assert float(loss.detach()) == pytest.approx(value)
    assert float(torch.autograd.grad(loss.sum(), logp)[0]) == pytest.approx(slope)


def surrogate(algorithm: PPO, singles: list[Single], logits: torch.Tensor) -> torch.Tensor:
    actions = ["abcd".index(s.completion) for s in singles]
    columns = {k: torch.tensor(v, dtype=torch.float64) for k, v in algorithm.columns(singles).items()}
    return algorithm.loss(
        Step({"completion": one_token(logits.log_softmax(-1)[actions])}, {}, columns)
    ).mean()


def test_one_pass_is_the_policy_gradient_of_reward_minus_kl() -> None:
    algorithm = PPO(beta=0.5, samples=40_000)
    tools = TableTools(seed=1)
    tools.examples = PAIRS
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).log().requires_grad_(True)
    tools.current = logits.detach().log_softmax(-1).numpy()
    singles: Any = algorithm.shape_data(PAIRS, tools)
    (got,) = torch.autograd.grad(surrogate(algorithm, singles, logits), logits)
    reward = torch.tensor(tools.fit_reward(PAIRS, 0.01)(tools.actions("x")), dtype=torch.float64)
    logp = logits.log_softmax(-1)
    (exact,) = torch.autograd.grad(-(logp.exp() * (reward - 0.5 * (logp - log(REFERENCE)))).sum(), logits)
    assert got.tolist() == pytest.approx(exact.tolist(), abs=0.015)


def test_ppo_approaches_the_closed_form() -> None:
    algorithm = PPO(beta=0.5, samples=64, epochs=2)
    tools = TableTools(seed=2)
    tools.examples = PAIRS
    logits = log(REFERENCE).clone().requires_grad_(True)
    for _ in range(100):
        tools.current = logits.detach().log_softmax(-1).numpy()
        singles: Any = algorithm.shape_data(PAIRS, tools)
        for _ in range(algorithm.epochs):
            (gradient,) = torch.autograd.grad(surrogate(algorithm, singles, logits), logits)
            with torch.no_grad():
                logits -= 0.5 * gradient
    reward = torch.tensor(tools.fit_reward(PAIRS, 0.01)(tools.actions("x")), dtype=torch.float64)
    best = (log(REFERENCE) + reward / 0.5).log_softmax(-1)
    logp = logits.detach().log_softmax(-1)
    start = float((log(REFERENCE).exp() * (log(REFERENCE) - best)).sum())
    assert float((logp.exp() * (logp - best)).sum()) < 0.02 * start


def test_field_names_of_the_shaping_options() -> None:
    assert {"temperature", "top_k", "distinct", "reward_weight_decay"} <= {f.name for f in fields(RSO)}
