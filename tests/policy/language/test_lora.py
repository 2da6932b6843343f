"""Adapters on a frozen model: the reference is the model itself, and there is no second copy of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from xpo_bench import Budget, Completion, Dataset, ModelSpec, Pair
from xpo_bench.errors import UsageError
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.ensemble import Ensemble
from xpo_bench.runner.model_choice import parse_lora
from xpo_bench.train.job import Job
from xpo_bench.train.reference_scores import ReferenceScorer
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench_plugins.algorithms.dpo import DPO

WHOLE = ModelSpec(name="tiny", hidden_size=16, intermediate_size=32, layers=2, heads=2, context=64)
SPEC = replace(WHOLE, lora_rank=3, lora_alpha=6)
ITEMS = [Completion("p", "abc"), Completion("p", "d"), Completion("question", "answer")]
DATA = Dataset(train=(Pair("p", "abc", "d"), Pair("question", "answer", "none")))


def scores(policy: CausalLM) -> torch.Tensor:
    return policy.score_all(policy.encode(ITEMS)).sum


def trained(policy: CausalLM) -> dict[str, torch.Tensor]:
    start = policy.snapshot()
    budget = Budget(steps=10, batch_size=2, dtype="float32", kl_prompts=2, kl_samples=2, max_new_tokens=4)
    job = Job(DPO(), "test", 0, 1e-2, "adamw", DATA, budget)
    (outcome,) = GroupTrainer(policy, [job], ReferenceScorer(policy, start, {})).run()
    assert outcome.status == "ok"
    assert outcome.metrics["reward_accuracy"] == 1.0
    return start


def test_the_initial_policy_is_the_model() -> None:
    assert torch.equal(scores(CausalLM.load(SPEC, init_seed=4)), scores(CausalLM.load(WHOLE, init_seed=4)))


def test_training_moves_adapters_only_and_the_reference_has_them_off() -> None:
    policy = CausalLM.load(SPEC, init_seed=0)
    frozen = {name: p.clone() for name, p in policy.model.named_parameters() if not p.requires_grad}
    before = scores(policy)
    start = trained(policy)
    assert not torch.allclose(scores(policy), before)
    with policy.using(start):
        assert torch.equal(scores(policy), before)
    after = dict(policy.model.named_parameters())
    assert len(frozen) == 21
    assert all(torch.equal(after[name], value) for name, value in frozen.items())


def test_a_snapshot_holds_the_adapters() -> None:
    policy = CausalLM.load(SPEC, init_seed=0)
    whole = CausalLM.load(WHOLE, init_seed=0)
    layer = 4 * (16 + 16) + 2 * (16 + 32) + (32 + 16)
    size = sum(p.numel() for p in policy.snapshot().values())
    assert size == sum(p.numel() for p in policy.parameters()) == 3 * layer * 2
    facts = policy.describe()
    assert (facts["trained"], facts["lora_rank"], facts["lora_alpha"]) == (size, 3, 6)
    assert facts["parameters"] == whole.describe()["parameters"] + size
    assert whole.describe()["trained"] == whole.describe()["parameters"]


def test_adapters_are_a_function_of_the_seed_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first, same, other = (CausalLM.load(SPEC, init_seed=seed).snapshot() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_frozen_weights_need_no_gradient_and_cost_none() -> None:
    policy, whole = CausalLM.load(SPEC, init_seed=0), CausalLM.load(WHOLE, init_seed=0)
    for lm in (policy, whole):
        lm.flops = 0.0
        encoded = lm.encode(ITEMS)
        torch.autograd.grad(lm.score({"a": (encoded, None)}, grad=True)["a"].sum.sum(), lm.parameters())
    assert policy.flops < whole.flops


def test_copies_with_adapters_of_their_own() -> None:
    states = [CausalLM.load(SPEC, init_seed=seed).snapshot() for seed in (0, 1)]
    single = CausalLM.load(SPEC, init_seed=0)
    for state in states:
        for p in state.values():
            p.add_(0.02)
    ensemble = Ensemble(single, states)
    encoded = ensemble.encode(ITEMS)
    together = ensemble.score_all(ensemble.stack([encoded, encoded])).sum
    for r, state in enumerate(states):
        with single.using(state):
            torch.testing.assert_close(together[r], scores(single)[0], rtol=1e-5, atol=1e-5)


def test_the_words() -> None:
    assert parse_lora("r=16") == (16, 32, ())
    assert parse_lora("r=8, alpha=4") == (8, 4, ())
    assert parse_lora("r=8,targets=q_proj+v_proj") == (8, 16, ("q_proj", "v_proj"))
    assert parse_lora("r=8,alpha=4,targets=experts.down_proj") == (8, 4, ("experts.down_proj",))
    wrong_targets = ("r=4,targets=", "r=4,targets=a+", "targets=a", "r=4,targets=a,b")
    for wrong in ("16", "r=0", "r=4,beta=1", "r=-1", "r=4,alpha=0", "", *wrong_targets):
        with pytest.raises(UsageError, match="expected a rank such as r=16"):
            parse_lora(wrong)


def test_without_peft_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"pip install 'xpo-bench\[lora\]'"):
        CausalLM.load(SPEC, init_seed=0)


def test_from_the_command(warm: Callable[..., Any]) -> None:
    words = ("run", "--algos", "dpo", "--tasks", "overfit_pair", "--seeds", "1", "--steps", "4")
    done = warm(*words, "--lora", "r=2", "--json")
    assert done.code == 0, done.err
    (cell,) = done.json["cells"]
    assert cell["task"]["model"]["lora_rank"] == 2
    assert cell["task"]["model"]["trained"] < cell["task"]["model"]["parameters"] / 20
    every = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert cell["task"]["model"]["lora_modules"] == every
    assert 0.5 < cell["task"]["model"]["lora_share"] < 1
    named = warm(*words, "--lora", "r=2,targets=q_proj+v_proj", "--json").json["cells"][0]
    assert named["key"] != cell["key"]
    assert named["task"]["model"]["lora_modules"] == ["q_proj", "v_proj"]
    assert named["task"]["model"]["lora_targets"] == ["q_proj", "v_proj"]
    unknown = warm(*words, "--lora", "r=2,targets=q_prj")
    assert unknown.code == 2
    assert unknown.lines[-1].startswith(
        "xpo-bench: --lora targets: unknown layer 'q_prj'; did you mean 'q_proj'?"
    )
    assert cell["key"] != warm(*words, "--json").json["cells"][0]["key"]
    refused = warm("run", "--algos", "dpo", "--tasks", "bandit", "--lora", "r=2")
    assert refused.code == 2
    assert refused.lines[-1] == (
        "xpo-bench: --lora: the policy of task bandit is tabular; adapters need a language model (--model)"
    )
