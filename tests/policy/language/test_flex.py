"""FlexAttention over packed rows: which blocks exist; scores and gradients are those of rows alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.attention.flex_attention
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import SPEC, VOCAB, build

from xpo_bench.policy.language import attention, flex, network
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.pieces import Packing
from xpo_bench.policy.language.tokenize import Encoded, Row
from xpo_bench.policy.language.tokenizers import IdTokenizer

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gpt2", "gpt_neox", "granite")
ROWS = [
    Row((1, 2, 3, 4, 5), 3),
    Row((1, 2, 3, 6, 7, 8), 3),
    Row((4, 5, 5), 1),
    Row((4, 9), 1),
    Row((7, 7, 7, 7, 9, 9, 2), 4),
]
CPU = torch.device("cpu")

lengths = st.one_of(st.integers(1, 5), st.integers(100, 300))
packings = st.lists(
    st.tuples(lengths, st.integers(0, 200), st.lists(lengths, max_size=3)).map(
        lambda b: (b[0], [b[0] + b[1], *b[2]])
    ),
    min_size=1,
    max_size=5,
)


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU models take the accelerators' kernel, which refuses the backward pass when it is not compiled."""
    monkeypatch.setitem(network.KERNELS, "cpu", flex)
    monkeypatch.setattr(torch.nn.attention.flex_attention, "_validate_device", lambda *_: None)


def visible(packing: Packing) -> torch.Tensor:
    """What the layout promises, token by token."""
    length = sum(sum(stretches) for _, stretches in packing)
    seen = torch.zeros(length, length, dtype=torch.bool)
    at = 0
    for start, (first, *more) in packing:
        begin = at
        for number, stretch in enumerate((first, *more)):
            end = at + stretch
            seen[at:end, at:end] = torch.ones(stretch, stretch, dtype=torch.bool).tril()
            if number:
                seen[at:end, begin : begin + start] = True
            at = end
    return seen


@settings(max_examples=60, deadline=None)
@given(packing=packings)
def test_every_visible_score_is_in_a_block_and_no_hidden_one_goes_unmasked(
    packing: Packing,
) -> None:
    seen = visible(packing)
    some, whole = flex._blocks(*flex._places(packing))
    n = len(some)
    padded = torch.zeros(n * flex.BLOCK, n * flex.BLOCK, dtype=torch.bool)
    padded[: len(seen), : len(seen)] = seen
    blocks = padded.view(n, flex.BLOCK, n, flex.BLOCK).transpose(1, 2).flatten(2)
    assert not (blocks.any(-1) & ~(some | whole)).any()
    inside = torch.arange(n) < len(seen) // flex.BLOCK  # beyond the end of the row there is nothing to hide
    assert not (whole & ~blocks.all(-1))[inside].any()
    assert not (some & whole).any()
    mask = flex.prepare(packing, CPU)
    q, k = torch.meshgrid(torch.arange(len(seen)), torch.arange(len(seen)), indexing="ij")
    assert torch.equal(mask.mask_mod(torch.tensor(0), torch.tensor(0), q, k), seen)


def test_blocks_that_hold_nothing_are_left_out() -> None:
    some, whole = flex._blocks(*flex._places([(256, [512, 256]), (128, [256])]))
    rows = [
        "".join(".sw"[int(s) + 2 * int(w)] for s, w in zip(a, b, strict=True))
        for a, b in zip(some, whole, strict=True)
    ]
    assert rows == [
        "s.......",  # a prompt
        "ws......",
        "wws.....",  # its first completion
        "wwws....",
        "ww..s...",  # its second, which does not see the first
        "ww..ws..",
        "......s.",
        "......ws",
    ]


@settings(max_examples=8, deadline=None)
@given(packing=packings)
def test_it_is_the_attention_of_the_pieces(packing: Packing) -> None:
    length = sum(sum(stretches) for _, stretches in packing)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        q, k, v = (torch.randn(1, heads, length, 16, dtype=torch.float64) for heads in (4, 2, 2))
    found, _ = flex.attention(None, q, k, v, None, packing=flex.prepare(packing, CPU), scaling=0.3)
    expected, _ = attention.attention(
        None, q, k, v, None, packing=attention.prepare(packing, CPU), scaling=0.3
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_score_and_learn_like_rows_of_their_own(family: str) -> None:
    lm = CausalLM(build(family), IdTokenizer(VOCAB), SPEC, dtype="float64")
    assert {name: lm.notes[name] for name in ("rows", "prefix", "attention")} == {
        "rows": "packed",
        "prefix": "shared",
        "attention": "flex",
    }
    weights = torch.tensor([1.0, -2.0, 3.0, 1.0, -1.5], dtype=torch.float64)
    found: list[Any] = []
    for packed in (True, False):
        lm.scorer.packed, reach, lm.scorer.reach = packed, lm.scorer.reach, lm.scorer.reach if packed else 0
        try:
            scores = lm.score({"all": (Encoded.of(ROWS), None)}, grad=True)["all"]
            found.append([scores.token_logps.detach(), *lm.gradients((scores.sum * weights).sum())])
        finally:
            lm.scorer.packed, lm.scorer.reach = True, reach
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_kernel_that_cannot_learn_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = CausalLM(build("llama"), IdTokenizer(VOCAB), SPEC, dtype="float64").score_all(Encoded.of(ROWS))
    monkeypatch.setitem(network.KERNELS, "cpu", flex)
    lm = CausalLM(build("llama"), IdTokenizer(VOCAB), SPEC, dtype="float64")
    assert (lm.notes["rows"], lm.notes["prefix"], lm.notes["attention"]) == (
        "padded",
        "shared",
        "no flex (NotImplementedError)",
    )
    assert lm.model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(lm.score_all(Encoded.of(ROWS)).token_logps, expected.token_logps)
