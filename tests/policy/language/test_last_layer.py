"""The last layer, computed where a completion token is predicted, changes neither scores nor gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import SPEC, VOCAB, build

from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.layout import Block, blocks, lay_out
from xpo_bench.policy.language.tokenize import Encoded, Row
from xpo_bench.policy.language.tokenizers import IdTokenizer

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gpt2", "gpt_neox", "gemma2", "granite")
ROWS = [
    Row((1, 2, 3, 4, 5), 3),
    Row((1, 2, 3, 6, 7, 8), 3),
    Row((4, 5, 5), 1),
    Row((7,) * 20 + (1, 2, 3), 20),
]
WEIGHTS = torch.tensor([1.0, -2.0, 3.0, 1.0], dtype=torch.float64)


def lm(family: str, **words: Any) -> CausalLM:
    return CausalLM(build(family), IdTokenizer(VOCAB), SPEC, dtype="float64", **words)


def learnt(policy: CausalLM) -> list[torch.Tensor]:
    scores = policy.score({"all": (Encoded.of(ROWS), None)}, grad=True)["all"]
    return [scores.token_logps.detach(), *policy.gradients((scores.sum * WEIGHTS).sum())]


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_and_gradients_are_those_of_the_whole_layer(family: str, packing: bool) -> None:
    policy = lm(family, packing=packing)
    assert policy.scorer.trims
    assert policy.notes["last_layer"] == "completions"
    found = learnt(policy)
    policy.scorer.trims = False
    for ours, theirs in zip(found, learnt(policy), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)  # some norms compute in float32


def test_prompt_positions_are_left_out() -> None:
    policy = lm("llama")
    tokens: list[int] = []
    policy.model.model.layers[-1].mlp.gate_proj.register_forward_hook(
        lambda module, inputs, out: tokens.append(out.shape[1])
    )
    policy.model.model.layers[0].mlp.gate_proj.register_forward_hook(
        lambda module, inputs, out: tokens.append(out.shape[1])
    )
    policy.score_all(Encoded.of(ROWS))
    assert tokens == [32, 16]  # 30 tokens and 9 of them, both filled up


def test_operations_that_are_not_done_are_not_counted() -> None:
    policy = lm("llama")
    encoded = Encoded.of(ROWS)
    counted = []
    for trims in (True, False):
        policy.scorer.trims, policy.flops = trims, 0.0
        policy.score_all(encoded)
        counted.append(policy.flops)
        assert policy.operations(encoded, range(len(ROWS))) == policy.flops
    matrices = 3 * 16 * 32 + 16 * 16  # of the MLP, and the output projection
    assert counted[1] - counted[0] == 2 * matrices * (2 + 0 + 19)


@pytest.mark.parametrize("name", ["mlp", "self_attn"])
def test_a_layer_that_looks_at_its_neighbours_is_left_as_it_is(name: str) -> None:
    model = build("llama")
    part = model.model.layers[-1].mlp if name == "mlp" else model.model.layers[-1].self_attn.o_proj
    own = part.forward
    part.forward = lambda features: own(features.cumsum(1) / 4)
    policy = CausalLM(model, IdTokenizer(VOCAB), SPEC, dtype="float64", packing=False)
    assert not policy.scorer.trims
    assert "last_layer" not in policy.notes


def test_a_layer_of_another_make_is_left_as_it_is() -> None:
    bloom = lm("bloom")  # its MLP takes the residual too
    assert not bloom.scorer.trims
    assert learnt(bloom)


def test_recomputed_activations_are_those_of_the_whole_layer() -> None:
    policy, whole = lm("llama"), lm("llama")
    policy.recompute_layers()
    assert not policy.scorer.trims
    assert "last_layer" not in policy.notes
    for ours, theirs in zip(learnt(policy), learnt(whole), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


rows = st.builds(
    lambda prompt, completion: Row((*prompt, *completion), len(prompt)),
    st.lists(st.integers(0, 2), min_size=1, max_size=5),
    st.lists(st.integers(0, 2), min_size=1, max_size=5),
)


@settings(deadline=None)
@given(rows=st.lists(rows, min_size=1, max_size=8))
def test_what_is_needed_is_filled_up_and_named_once(rows: list[Row]) -> None:
    parts: list[Block] = blocks(rows, 1000, 1000)
    plan = lay_out(rows, parts, torch.device("cpu"), 16)
    needed = plan.needed.tolist()
    assert len(needed) % 16 == 0
    assert len(set(needed)) == len(needed)
    assert set(plan.at.tolist()) <= set(needed)
    assert len(needed) < len(set(plan.at.tolist())) + 16
    assert max(needed) < plan.ids.shape[1]
