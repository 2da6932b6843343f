"""The plain loop that a step is timed against computes what the suite computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_models import SPEC, VOCAB, build

from xpo_bench.policy.language import layout, network, plain
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.tokenize import Encoded, Row
from xpo_bench.policy.language.tokenizers import IdTokenizer

ROWS = Encoded.of(
    [
        Row((1, 2, 3, 4, 5), 3),
        Row((1, 2, 3, 6, 7, 8, 9), 3, ((4, 5),)),
        Row((4, 5), 1),
        Row((1, 2, 3, 4, 5), 3),
    ]
)


@pytest.fixture
def policy() -> CausalLM:
    return CausalLM(build("llama"), IdTokenizer(VOCAB), SPEC, dtype="float64")


@pytest.mark.parametrize("tokens", [5, 14, 1000])
def test_losses_and_gradients_are_those_of_the_scorer(policy: CausalLM, tokens: int) -> None:
    policy.scorer.tokens_per_forward = tokens
    counted = policy.tokens_processed, policy.flops
    losses = plain.plain_losses(policy.scorer, {"all": (ROWS, None)})
    assert len(losses) == {5: 3, 14: 2, 1000: 1}[tokens]
    found = torch.stack([loss() for loss in losses]).sum()
    assert (policy.tokens_processed, policy.flops) == counted
    # three distinct rows: the last repeats the first
    wanted = -policy.score({"all": (ROWS, torch.tensor([[0, 1, 2]]))}, grad=True)["all"].sum.sum()
    torch.testing.assert_close(found, wanted)
    for ours, theirs in zip(policy.gradients(found), policy.gradients(wanted), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)  # norms compute in float32


def test_logits_of_a_pass_are_bounded(policy: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "LOGITS", 10 * policy.network.vocabulary)
    assert len(plain.plain_losses(policy.scorer, {"all": (ROWS, None)})) == 2


def test_a_few_layouts_are_kept(policy: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def noted(*args: Any, **more: Any) -> Any:
        made.append(1)
        return layout.lay_out(*args, **more)

    monkeypatch.setattr(network, "lay_out", noted)
    first = policy.score_all(ROWS).token_logps
    assert torch.equal(policy.score_all(ROWS).token_logps, first)
    assert len(made) == 1
    for i in range(network.KEPT):
        policy.score_all(Encoded.of([Row((1, i), 1)]))
    assert torch.equal(policy.score_all(ROWS).token_logps, first)
    assert len(made) == 2 + network.KEPT
    monkeypatch.setattr(network, "KEPT_TOKENS", 4)
    policy.score_all(Encoded.of([Row((2, 2), 1)]))
    assert len(policy.network._layouts) == network.KEPT
