"""Completions that share the row of their prompt score as in rows of their own, or no row is shared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import SPEC, VOCAB, build

from xpo_bench.policy.language import attention
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.layout import attended, batches, blocks, lay_out, packs
from xpo_bench.policy.language.tokenize import Encoded, Row
from xpo_bench.policy.language.tokenizers import IdTokenizer

ids = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=6)
prompts = st.lists(ids, min_size=1, max_size=3)


@st.composite
def groups(draw: Any) -> list[Row]:
    """Rows over few prompts, in any order, some of them equal."""
    known = draw(prompts)
    return [
        Row((*(prompt := draw(st.sampled_from(known))), *draw(ids)), len(prompt))
        for _ in range(draw(st.integers(1, 8)))
    ]


def policy(family: str, dtype: str = "float64", **config: Any) -> CausalLM:
    model = build(family)
    for name, value in config.items():
        setattr(model.config, name, value)
    return CausalLM(model, IdTokenizer(VOCAB), SPEC, dtype=dtype)


FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gpt2", "gpt_neox", "gemma2", "granite")
PACKED = sorted({*FAMILIES} - {"gemma2"})
"""Gemma 2 caps scores, which the attention cannot that packs."""


@lru_cache
def known(family: str, dtype: str = "float64") -> CausalLM:
    """The policy of a family that several tests and all examples of a test use, and leave as it is."""
    return policy(family, dtype)


@contextmanager
def changed(scorer: Any, **values: Any) -> Iterator[None]:
    """A scorer with other settings for a while."""
    before = {name: getattr(scorer, name) for name in values}
    vars(scorer).update(values)
    try:
        yield
    finally:
        vars(scorer).update(before)


def test_families_are_packed_that_attend_as_torch_does() -> None:
    packed = sorted(name for name in FAMILIES if build(name).config._attn_implementation == "sdpa")
    assert packed == PACKED


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=25, deadline=None)
@given(rows=groups(), tokens=st.sampled_from([4, 12, 1000]))
def test_packed_shared_and_separate_rows_score_alike(family: str, rows: list[Row], tokens: int) -> None:
    lm = known(family)
    assert lm.scorer.reach > 0
    assert lm.notes["rows"] == ("packed" if family in PACKED else "padded")
    encoded = Encoded.of(rows)
    with changed(lm.scorer, masked_cost=0.0, tokens_per_forward=tokens):  # share whether it pays or not
        found = [lm.score_all(encoded)]
        with changed(lm.scorer, packed=False):
            found.append(lm.score_all(encoded))
        with changed(lm.scorer, packed=False, reach=0):
            separate = lm.score_all(encoded)
    for shared in found:
        assert torch.equal(shared.mask, separate.mask)
        torch.testing.assert_close(
            shared.token_logps, separate.token_logps, rtol=0, atol=2e-6
        )  # some norms compute in float32


@pytest.mark.parametrize("family", PACKED)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@settings(max_examples=15, deadline=None)
@given(rows=groups(), tokens=st.sampled_from([8, 40, 10**6]), data=st.data())
def test_the_company_of_a_row_does_not_change_a_bit(
    family: str, dtype: str, rows: list[Row], tokens: int, data: Any
) -> None:
    """Otherwise reference scores, and all that follows, would depend on which cell asked for them first."""
    lm = known(family, dtype)
    some = data.draw(st.lists(st.sampled_from(rows), min_size=1, max_size=8))
    with changed(lm.scorer, tokens_per_forward=10**6):
        company = {row: lm.score_all(Encoded.of([row])).token_logps[0, 0] for row in some}
    with changed(lm.scorer, tokens_per_forward=tokens):
        together = lm.score_all(Encoded.of(rows)).token_logps[0]
    for row, alone in company.items():
        assert torch.equal(together[rows.index(row), : row.length], alone)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_the_tile_of_a_row_does_not_change_a_bit(dtype: str) -> None:
    lm = policy("gpt2", dtype)
    # more completions than a tile holds, so that some begin a tile, and some follow others
    rows = [Row((1, 2, 3, 4 + i, *range(5, 5 + i)), 3) for i in range(1, 7)]
    together = lm.score_all(Encoded.of(rows)).token_logps[0]
    for row, found in zip(rows, together, strict=True):
        assert torch.equal(found[: row.length], lm.score_all(Encoded.of([row])).token_logps[0, 0])


@pytest.mark.parametrize("prompt", range(30, 51))
def test_a_short_prompt_whose_completions_are_not(prompt: int) -> None:
    """Some 48 tokens are what one kernel call takes: a prompt may be within, and its completion beyond."""
    lm = known("llama")
    ids = [1 + i % 9 for i in range(prompt)]
    rows = [Row((*ids, 4, 2, 5), prompt), Row((*ids, 3), prompt)]
    together = lm.score_all(Encoded.of(rows)).token_logps[0]
    with changed(lm.scorer, reach=0):
        for row, found in zip(rows, together, strict=True):
            alone = lm.score_all(Encoded.of([row])).token_logps[0, 0]
            torch.testing.assert_close(found[: row.length], alone[: row.length])


@pytest.mark.parametrize("family", PACKED)
def test_gradients_of_packed_and_separate_rows_agree(family: str) -> None:
    lm = known(family)
    rows = Encoded.of(
        [Row((1, 2, 3, 4, 5), 3), Row((1, 2, 3, 6, 7, 8), 3), Row((4, 5, 5), 1), Row((4, 9), 1)]
    )
    found = []
    for packed in (True, False):
        with changed(lm.scorer, packed=packed, reach=lm.scorer.reach if packed else 0):
            loss = (
                lm.score({"all": (rows, None)}, grad=True)["all"].sum * torch.tensor([1.0, -2.0, 3.0, 1.0])
            ).sum()
            found.append(
                torch.autograd.grad(loss, lm.parameters(), allow_unused=True, materialize_grads=True)
            )
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    packing=st.lists(
        st.tuples(st.integers(1, 90), st.lists(st.integers(1, 200), max_size=3)), min_size=1, max_size=3
    ),
    first=st.integers(0, 200),
    key_heads=st.sampled_from([1, 2, 4]),
)
def test_packed_attention_is_attention_under_the_mask(
    packing: list[tuple[int, list[int]]], first: int, key_heads: int
) -> None:
    made = [(start, [start + first, *more]) for start, more in packing]
    segments = [s for b, (start, lengths) in enumerate(made) for s in _segments(b, start, lengths)]
    length = len(segments)
    rng = torch.Generator().manual_seed(length)
    query, *others = (
        torch.randn(1, heads, length, 4, generator=rng, dtype=torch.float64, requires_grad=True)
        for heads in (4, key_heads, key_heads)
    )
    block, number = (torch.tensor(values) for values in zip(*segments, strict=True))
    visible = (
        (block[:, None] == block)
        & ((number == 0) | (number[:, None] == number))
        & torch.ones(length, length).tril().bool()
    )
    key, value = (heads.repeat_interleave(4 // key_heads, 1) for heads in others)
    want = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=visible, scale=0.3
    ).transpose(1, 2)
    got, _ = attention.attention(
        None, query, others[0], others[1], None, scaling=0.3, packing=attention.prepare(made, query.device)
    )
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    weights = torch.randn(want.shape, generator=rng, dtype=torch.float64)
    grads = [
        torch.autograd.grad((out * weights).sum(), (query, *others), retain_graph=True) for out in (got, want)
    ]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


def _segments(block: int, start: int, lengths: list[int]) -> list[tuple[int, int]]:
    """(block, 0 in the prompt and the completion's number behind it) of every token."""
    first = [(block, 0)] * start + [(block, 1)] * (lengths[0] - start)
    return first + [(block, number) for number, length in enumerate(lengths[1:], 2) for _ in range(length)]


@given(rows=groups(), limit=st.integers(1, 20), reach=st.integers(0, 12))
def test_every_row_stands_in_one_block(rows: list[Row], limit: int, reach: int) -> None:
    parts = blocks(rows, limit, reach)
    assert sorted(i for part in parts for i in part.members) == list(range(len(rows)))
    for part in parts:
        assert len({rows[i].ids[: rows[i].start] for i in part.members}) == 1
        assert part.length == part.start + sum(rows[i].length - 1 for i in part.members)
        if len(part.members) > 1:
            assert part.length <= limit
            assert all(len(rows[i].ids) <= reach for i in part.members)


def test_a_prompt_is_shared_as_long_as_that_saves_operations() -> None:
    def together(prompt: int, completion: int, attention: float) -> bool:
        rows = [Row((*([7] * prompt), *([i] * completion)), prompt) for i in range(2)]
        return len(blocks(rows, 10**6, 10**6, attention)) == 1

    assert together(100, 100, 0.0)
    assert together(100, 10, 1 / 360)
    assert not together(10, 100, 1 / 360)  # 208² − 2·109² more scores for 10 tokens
    # equal cost at prompt p, fed completions c: p = a·((p + 2c)² − 2(p + c)²) = a·(2c² − p²)
    assert together(10, 31, 10 / (2 * 30**2 - 10**2) * 0.99)
    assert not together(10, 31, 10 / (2 * 30**2 - 10**2) * 1.01)


@given(rows=groups())
def test_a_completion_sees_its_prompt_and_itself(rows: list[Row]) -> None:
    parts = blocks(rows, 1000, 1000)
    plan = lay_out(rows, parts, torch.device("cpu"))
    assert plan.needed.tolist() == sorted(set(plan.at.tolist()))
    assert plan.targets.tolist() == [i for row in rows for i in row.ids[row.start :]]
    assert plan.fed == sum(last - first for first, last in attended(rows, parts))
    seen = iter(plan.at.tolist())
    width = plan.ids.shape[1]
    for row in rows:
        for t in range(row.length):
            b, place = divmod(next(seen), width)
            if plan.visible is None or plan.positions is None:
                context = plan.ids[b, : place + 1].tolist()
            else:
                visible = plan.visible[b, 0, place]
                assert plan.positions[b][visible].tolist() == list(range(row.start + t))
                context = plan.ids[b][visible].tolist()
            assert tuple(context) == row.ids[: row.start + t]


@given(lengths=st.lists(st.integers(1, 50), max_size=20), tokens=st.integers(1, 100))
def test_packs_are_about_equal_and_keep_the_order(lengths: list[int], tokens: int) -> None:
    found = list(packs(lengths, tokens))
    assert [i for part in found for i in part] == list(range(len(lengths)))
    assert len(found) <= max(1, round(sum(lengths) / tokens))
    for part in found:
        assert part
        assert sum(lengths[i] for i in part) < 1.5 * tokens + max(lengths)


@given(lengths=st.lists(st.integers(1, 50), max_size=20), tokens=st.integers(1, 100))
def test_batches_keep_their_budget(lengths: list[int], tokens: int) -> None:
    found = list(batches(lengths, tokens))
    assert sorted(i for batch in found for i in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= tokens


def test_a_prompt_is_fed_once() -> None:
    lm = policy("llama")
    rows = [Row((1, 2, 3, 4, 5), 3), Row((1, 2, 3, 6, 7, 8), 3)]
    lm.tokens_processed, lm.flops = 0, 0.0
    lm.score_all(Encoded.of(rows))
    assert lm.tokens_processed == 3 + 1 + 2
    shared = lm.flops
    lm.scorer.reach, lm.flops = 0, 0.0
    lm.score_all(Encoded.of(rows))
    assert lm.tokens_processed == 6 + 4 + 5
    assert shared < lm.flops


def test_rows_beyond_a_window_stand_alone() -> None:
    lm = policy("mistral")
    assert lm.scorer.reach == 8
    short, long = Row((1, 2, 3, 4, 5), 3), Row((1, 2, 3, *range(8)), 3)
    assert [part.members for part in blocks([short, short, long], 1000, lm.scorer.reach)] == [(0, 1), (2,)]
    assert lm.notes["prefix"] == "shared"


def test_a_model_whose_rows_cannot_be_told_apart_scores_them_separately() -> None:
    lm = policy("bloom")  # the distance of tokens goes by their place in the row
    assert lm.notes["prefix"] == "separate"
    assert lm.describe()["prefix"] == "separate"
    assert lm.scorer.reach == 0


def test_a_model_that_ignores_the_mask_is_noticed() -> None:
    model = build("llama")
    body = model.base_model.forward

    def deaf(*args: Any, attention_mask: Any = None, packing: Any = None, **words: Any) -> Any:
        return body(*args, **words)

    model.base_model.forward = deaf
    model.base_model.forward.__signature__ = __import__("inspect").signature(body)
    lm = CausalLM(model, IdTokenizer(VOCAB), SPEC)
    assert (lm.notes["prefix"], lm.notes["rows"]) == ("separate", "padded")
    assert model.config._attn_implementation == "sdpa"


def test_a_model_that_passes_no_packing_on_is_masked() -> None:
    model = build("llama")
    body = model.base_model.forward

    def deaf(*args: Any, packing: Any = None, **words: Any) -> Any:
        return body(*args, **words)

    model.base_model.forward = deaf
    model.base_model.forward.__signature__ = __import__("inspect").signature(body)
    lm = CausalLM(model, IdTokenizer(VOCAB), SPEC)
    assert (lm.notes["prefix"], lm.notes["rows"]) == ("shared", "padded")


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kinds_of_attention_and_dtypes(kind: str, dtype: str) -> None:
    model = build("llama")
    model.set_attn_implementation(kind)
    lm = CausalLM(model, IdTokenizer(VOCAB), SPEC, dtype=dtype)
    assert lm.notes["prefix"] == "shared"
    assert lm.notes["rows"] == ("packed" if kind == "sdpa" else "padded")
    rows = Encoded.of([Row((1, 2, 3, 4, 5), 3), Row((1, 2, 3, 6, 7, 8), 3)])
    shared = lm.score_all(rows).sum
    lm.scorer.reach = 0
    torch.testing.assert_close(
        shared, lm.score_all(rows).sum, rtol=0, atol=1e-4 if dtype == "float32" else 0.2
    )


def test_packing_is_a_choice() -> None:
    padded = CausalLM(build("llama"), IdTokenizer(VOCAB), SPEC, dtype="float64", packing=False)
    assert (padded.notes["rows"], padded.notes["prefix"]) == ("padded", "shared")
    rows = Encoded.of([Row((1, 2, 3, 4), 2), Row((5, 6, 7), 1)])
    torch.testing.assert_close(padded.score_all(rows).token_logps, known("llama").score_all(rows).token_logps)
