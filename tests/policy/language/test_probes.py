"""Every probe catches a model for which its shortcut is wrong, and what is not used is on record."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_models import SPEC, VOCAB, build

from xpo_bench.contract.examples import Completion
from xpo_bench.contract.settings import ModelSpec
from xpo_bench.errors import UsageError
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.flops import ModelShape
from xpo_bench.policy.language.tokenize import Encoded, Row
from xpo_bench.policy.language.tokenizers import IdTokenizer
from xpo_bench.policy.language.windows import reach, windows


def policy(model: Any, **words: Any) -> CausalLM:
    return CausalLM(model, IdTokenizer(VOCAB), SPEC, **words)


def patched(part: Any, change: Callable[..., Any]) -> None:
    """Let `change(own, *args, **words)` stand for a module's forward pass."""
    own = part.forward

    def forward(*args: Any, **words: Any) -> Any:
        return change(own, *args, **words)

    forward.__signature__ = inspect.signature(own)  # type: ignore[attr-defined]
    part.forward = forward


def plainly(model: Any, row: Row) -> float:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row.ids])).logits[0].double()
    return float(
        logits.log_softmax(-1)[row.start - 1 : -1]
        .gather(1, torch.tensor(row.ids[row.start :])[:, None])
        .sum()
    )


def agrees(lm: CausalLM, *lengths: tuple[int, int]) -> None:
    """Rows of these (prompt, completion) lengths are scored together as the model scores each alone."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for start, more in lengths:
        rows.append(Row(tuple(torch.randint(VOCAB, (start + more,), generator=generator).tolist()), start))
        rows.append(Row((*rows[-1].ids[:start], *reversed(rows[-1].ids[start:])), start))
    found = lm.score_all(Encoded.of(rows)).sum[0].tolist()
    with torch.no_grad():
        assert found == pytest.approx([plainly(lm.model, row) for row in rows], abs=1e-4)


def test_the_usual_model_does_everything() -> None:
    lm = policy(build("llama"))
    assert lm.capabilities.notes == {
        "head": "selected",
        "prefix": "shared",
        "rows": "packed",
        "last_layer": "completions",
        "sampling": "batched",
    }
    assert lm.capabilities.shrinks


# --------------------------------------------------------------------------- mutants


def test_what_stands_around_the_head() -> None:
    model = build("llama")

    def louder(own: Any, *args: Any, **words: Any) -> Any:
        out = own(*args, **words)
        out.logits = out.logits * 1.01
        return out

    patched(model, louder)
    assert policy(model).notes["head"] == "full"


def test_positions_that_begin_elsewhere_are_not_told() -> None:
    model = build("gpt2")
    signature = inspect.signature(model.transformer.forward)

    def shifted(own: Any, input_ids: Any, *args: Any, position_ids: Any = None, **words: Any) -> Any:
        if position_ids is None:
            position_ids = torch.arange(2, 2 + input_ids.shape[1])[None]
        return own(input_ids, *args, position_ids=position_ids, **words)

    patched(model.transformer, shifted)
    model.transformer.forward.__signature__ = signature
    lm = policy(model)
    assert not lm.capabilities.takes_positions
    assert lm.notes["prefix"] == "separate"
    assert lm.notes["probes"]["positions"] == "differs"
    agrees(lm, (3, 5), (10, 2))


def test_a_model_that_looks_ahead_is_refused() -> None:
    model = build("llama")
    patched(model.model.norm, lambda own, x: own(x + 0.01 * x.flip(1).cumsum(1).flip(1)))
    with pytest.raises(UsageError, match=r"'tiny' \(LlamaForCausalLM\) is not causal"):
        policy(model)


def test_a_model_that_looks_ahead_in_long_rows_scores_them_one_by_one_and_whole() -> None:
    model = build("llama")
    model.config.keep_window_size = 16
    patched(
        model.model.norm, lambda own, x: own(x + 0.1 * x.mean(1, keepdim=True)) if x.shape[1] > 16 else own(x)
    )
    lm = policy(model)
    assert (lm.capabilities.alone_beyond, lm.notes["one_by_one_beyond"]) == (16, 16)
    agrees(lm, (3, 5), (10, 20), (8, 8), (2, 40))
    drawn = lm.sample(["1 2 3", "1 " * 14], 2, max_new_tokens=8, generator=torch.Generator().manual_seed(0))
    assert lm.notes["samples_scored_otherwise"] == 2
    inside = [plainly(model, row) for row in drawn.encoded.rows[:2]]
    assert drawn.scores.sum[0, :2].tolist() == pytest.approx(inside, abs=1e-4)


def test_rows_that_change_one_another_stand_alone() -> None:
    model = build("llama")
    patched(model.model.norm, lambda own, x: own(x - 0.1 * x.mean(0, keepdim=True)))
    lm = policy(model)
    assert lm.capabilities.alone_beyond == 0
    assert lm.notes["sampling"] == "one row"
    assert lm.notes["probes"]["padding"] == "differs"
    agrees(lm, (3, 5), (10, 2))


def windowed(model: Any, window: int) -> Any:
    """The model, whose own mask hides what is further away than a window that no configuration states."""

    def near(own: Any, hidden_states: Any, *args: Any, attention_mask: Any = None, **words: Any) -> Any:
        length = hidden_states.shape[1]
        seen = words.get("past_key_values")
        keys = length + (seen.get_seq_length(0) if seen is not None else 0)
        at = torch.arange(keys - length, keys)[:, None] - torch.arange(keys)[None]
        mask = torch.zeros(1, 1, length, keys).masked_fill(
            (at < 0) | (at >= window), torch.finfo(torch.float32).min
        )
        return own(hidden_states, *args, attention_mask=mask, **words)

    for layer in model.model.layers:
        patched(layer.self_attn, near)
    return model


def test_a_mask_that_the_model_builds_is_kept() -> None:
    lm = policy(windowed(build("llama"), 20))
    assert (lm.notes["rows"], lm.notes["prefix"]) == ("padded", "separate")
    assert lm.notes["probes"]["packing"] == "OwnMask"
    agrees(lm, (3, 5), (30, 20), (8, 40))


def test_packed_rows_refuse_a_mask() -> None:
    from xpo_bench.policy.language import attention

    heads = torch.zeros(1, 2, 4, 4)
    with pytest.raises(attention.OwnMask):
        attention.attention(
            None,
            heads,
            heads,
            heads,
            torch.zeros(1, 1, 4, 4),
            packing=attention.prepare([(2, [4])], torch.device("cpu")),
        )


@pytest.mark.parametrize("packing", [True, False])
def test_layers_that_are_used_twice_are_not_trimmed(packing: bool) -> None:
    model = build("llama")
    layers = model.model.layers

    def again(own: Any, hidden_states: Any, *args: Any, **words: Any) -> Any:
        return own(own(hidden_states, *args, **words), *args, **words)

    patched(layers[-1], again)
    lm = policy(model, packing=packing)
    assert not lm.scorer.trims
    assert "last_layer" not in lm.notes
    words = {"rows": "packed" if packing else "padded", "prefix": "shared"}
    assert {name: lm.notes[name] for name in words} == words
    agrees(lm, (3, 5), (30, 20))


def test_a_last_layer_that_is_not_the_last_is_noticed() -> None:
    """What is read behind it would be zeros at prompt positions, which hide well in a small model."""
    model = build("llama")
    patched(model.model.norm, lambda own, x: own(x + 1e-6 * x.cumsum(1)))
    assert not policy(model).scorer.trims


def test_masks_are_numbers_and_hide() -> None:
    for dtype, expected in (
        ("float32", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("float64", torch.float64),
    ):
        model = build("llama")
        model.set_attn_implementation("eager")
        lm = policy(model, dtype=dtype, packing=False)
        mask = lm.network._mask(torch.tensor([[[[True, False]]]]))
        assert mask.dtype == expected
        assert mask.flatten().tolist() == [0.0, torch.finfo(expected).min]
        assert lm.notes["prefix"] == "shared"


def test_a_model_that_adds_boolean_masks_sees_hidden_tokens() -> None:
    """What such a model makes of one: true is 1, and nothing is hidden. The probe sees it."""
    model = build("llama")
    model.set_attn_implementation("eager")

    def added(own: Any, hidden_states: Any, *args: Any, attention_mask: Any = None, **words: Any) -> Any:
        if attention_mask is not None and attention_mask.shape[-1] == attention_mask.shape[-2]:
            seen = attention_mask == 0
            causal = torch.ones_like(seen).tril()
            attention_mask = seen.float().masked_fill(~causal, torch.finfo(torch.float32).min)
        return own(hidden_states, *args, attention_mask=attention_mask, **words)

    for layer in model.model.layers:
        patched(layer.self_attn, added)
    lm = policy(model)
    assert lm.notes["prefix"] == "separate"
    assert lm.notes["probes"]["sharing"] == "differs"


# --------------------------------------------------------------------------- sampling


def faithful(lm: CausalLM) -> None:
    """What is recorded of samples is what the model says of them."""
    drawn = lm.sample(
        ["1 2 3", "4", "5 6 7 8 9 10 11"], 2, max_new_tokens=9, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        expected = [plainly(lm.model, drawn.encoded.rows[i]) for i in drawn.encoded.item.tolist()]
    assert drawn.scores.sum[0].tolist() == pytest.approx(expected, abs=1e-4)


def test_learned_positions_that_cannot_be_told_want_prompts_of_one_length() -> None:
    model = build("gpt2")
    own = model.transformer.forward

    def forward(
        input_ids: Any,
        past_key_values: Any = None,
        attention_mask: Any = None,
        use_cache: Any = None,
        **others: Any,
    ) -> Any:
        return own(input_ids, past_key_values, attention_mask=attention_mask, use_cache=use_cache)

    model.transformer.forward = forward
    lm = policy(model)
    assert lm.notes["sampling"] == "equal lengths"
    faithful(lm)


def test_a_state_that_rows_share_wants_one_row() -> None:
    model = build("llama")

    def shared(own: Any, *args: Any, past_key_values: Any = None, **words: Any) -> Any:
        out = own(*args, past_key_values=past_key_values, **words)
        if past_key_values is not None:
            out.last_hidden_state = out.last_hidden_state + 0.1 * out.last_hidden_state.mean(0)
            out.last_hidden_state = out.last_hidden_state / (1.1 if len(out.last_hidden_state) == 1 else 1.0)
        return out

    patched(model.model, shared)
    lm = policy(model)
    assert lm.notes["sampling"] == "one row"
    faithful(lm)


def test_a_cache_that_forgets_is_not_used() -> None:
    model = build("llama")

    def forgets(own: Any, *args: Any, past_key_values: Any = None, **words: Any) -> Any:
        out = own(*args, past_key_values=past_key_values, **words)
        if past_key_values is not None and past_key_values.get_seq_length() > out.last_hidden_state.shape[1]:
            out.last_hidden_state = out.last_hidden_state * 0.9
        return out

    patched(model.model, forgets)
    lm = policy(model)
    assert lm.notes["sampling"] == "no cache"
    faithful(lm)


def test_a_state_that_drifts_a_little_is_not_used() -> None:
    """By two parts in ten thousand: no sampled token is far off, and a sample of a hundred tokens is."""
    model = build("llama")

    def drifts(own: Any, *args: Any, past_key_values: Any = None, **words: Any) -> Any:
        out = own(*args, past_key_values=past_key_values, **words)
        if past_key_values is not None and past_key_values.get_seq_length() > out.last_hidden_state.shape[1]:
            out.last_hidden_state = out.last_hidden_state * (1 + 2e-4)
        return out

    patched(model.model, drifts)
    assert policy(model).notes["sampling"] == "no cache"


def test_rows_that_cannot_leave_the_cache_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.cache_utils import Cache

    monkeypatch.setattr(Cache, "batch_select_indices", lambda self, keep: None)
    lm = policy(build("llama"))
    assert (lm.notes["sampling"], lm.capabilities.shrinks) == ("batched", False)
    faithful(lm)


def test_a_row_whose_length_decides_is_refused() -> None:
    model = build("llama")
    patched(model.model.norm, lambda own, x: own(x) * (0.5 if x.shape[1] % 2 else 1.0))
    with pytest.raises(UsageError, match="not causal"):
        policy(model)


def test_where_nothing_agrees_sampling_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from xpo_bench.policy.language.probes import sampling

    real = sampling.decode  # type: ignore[attr-defined]
    monkeypatch.setattr(
        sampling,
        "decode",
        lambda *args, **words: (lambda found: (found[0], found[1] - 0.01))(real(*args, **words)),
    )
    lm = policy(build("llama"))
    assert lm.notes["sampling"] == "none"
    with pytest.raises(
        UsageError, match=r"no way of sampling from it gives the log-probabilities that it scores"
    ):
        lm.sample(["1"], 1, max_new_tokens=2, generator=torch.Generator().manual_seed(0))


# --------------------------------------------------------------------------- positions


def longrope(original: int = 24) -> Any:
    import transformers as t

    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": original}
    config = t.Phi3Config(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        original_max_position_embeddings=original,
        initializer_range=0.3,
        rope_parameters=rope | {"short_factor": [1.0] * 4, "long_factor": [2.0, 3.0, 4.0, 8.0]},
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return t.Phi3ForCausalLM(config)


def test_a_score_does_not_depend_on_longer_rows_beside_it() -> None:
    lm = policy(longrope())
    assert (lm.scorer.reach, lm.notes["rows"]) == (24, "packed")
    agrees(lm, (3, 5), (10, 40), (20, 4), (20, 5), (12, 11), (2, 60))
    snapshot = lm.snapshot()
    rows = Encoded.of([Row((1, 2, 3, 4, 5), 2), Row((1, 2, *range(30)), 2)])
    together = lm.score({"all": (rows, None)}, grad=False, against=snapshot)["all"]
    assert together.token_kl is not None
    assert float(together.token_kl.abs().max()) == 0.0


def test_samples_that_pass_a_change_of_frequencies_are_counted() -> None:
    lm = policy(longrope())
    faithful(lm)
    assert "samples_scored_otherwise" not in lm.notes
    beyond = lm.sample(
        ["1 " * 30, "2 " * 26], 1, max_new_tokens=8, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        expected = [plainly(lm.model, row) for row in beyond.encoded.rows]
    assert beyond.scores.sum[0].tolist() == pytest.approx(expected, abs=1e-4)
    assert "samples_scored_otherwise" not in lm.notes
    lm.sample(["1 " * 20, "2"], 2, max_new_tokens=8, generator=torch.Generator().manual_seed(0))
    assert lm.notes["samples_scored_otherwise"] == 2


def test_dynamic_frequencies_forget_longer_rows() -> None:
    model = build("llama")
    config = model.config
    config.max_position_embeddings = 16
    config.rope_parameters = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    model = type(model)(config)
    lm = policy(model)
    rows = [Row(tuple(i % 7 for i in range(n)), 3) for n in (30, 20, 12, 25)]
    found = lm.score_all(Encoded.of(rows)).sum[0].tolist()
    fresh = []
    for row in rows:
        other = type(model)(config).eval()
        other.load_state_dict(model.state_dict())
        with torch.no_grad():
            fresh.append(plainly(other, row))
    assert found == pytest.approx(fresh, abs=1e-4)


# --------------------------------------------------------------------------- configurations


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({}, []),
        ({"sliding_window": 16}, [16]),
        ({"sliding_window": None, "max_window_layers": 28, "use_sliding_window": False}, []),
        ({"window_size": 256}, [256]),
        ({"attention_window": [64, 32]}, [32, 64]),
        ({"attention_window_size": 2048}, [2048]),
        ({"attention_chunk_size": 8192}, [8192]),
        ({"keep_window_size": 2048}, [2048]),
        ({"index_topk": 512, "index_block_size": 128}, [128, 512]),
        ({"sparse_attention_config": {"block_size": 64, "use": True}}, [64]),
        ({"compress_rates": {"heavy": 128, "sparse": 4}}, [4, 128]),
        ({"indexer_budget": 64}, [64]),
        ({"local_attention": 128}, [128]),
        ({"sliding_window_pattern": 6, "sliding_window_size": 512}, [512]),
        ({"vision_window_size": 14, "mamba_chunk_size": 256}, []),
        ({"sliding_windows": [0, 8, -1]}, [8]),
    ],
    ids=str,
)
def test_every_way_of_stating_a_window(stated: dict[str, Any], expected: list[int]) -> None:
    config = SimpleNamespace(**stated)
    assert windows(config) == expected
    assert reach(config) == min(expected, default=2**31)
    nested = SimpleNamespace(get_text_config=lambda decoder: config, window_size=3)
    assert windows(nested) == expected


def test_models_without_heads_of_attention_are_counted() -> None:
    import transformers as t

    model = t.MambaForCausalLM(
        t.MambaConfig(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=2, state_size=4)
    )
    shape = ModelShape.of(model)
    assert shape.per_context == 0.0
    assert shape.per_logits == 2.0 * VOCAB * 16
    assert shape.per_token > 0
    lm = policy(model)
    agrees(lm, (3, 5), (10, 2))
    faithful(lm)


def test_experts_count_as_often_as_a_token_meets_them() -> None:
    import transformers as t

    def of(chosen: int) -> ModelShape:
        small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = t.MixtralConfig(
            vocab_size=VOCAB, **small, num_key_value_heads=1, num_local_experts=4, num_experts_per_tok=chosen
        )
        return ModelShape.of(t.MixtralForCausalLM(config))

    assert of(2).per_token - of(1).per_token == 2.0 * 3 * 16 * 32


def test_a_router_is_on_record() -> None:
    import transformers as t

    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = t.MixtralForCausalLM(
        t.MixtralConfig(vocab_size=VOCAB, **small, num_key_value_heads=1, num_local_experts=4)
    )
    assert policy(model).describe()["router"] == "auxiliary loss not added"


def test_a_tokenizer_with_more_ids_than_the_model_is_one_line() -> None:
    lm = CausalLM(build("llama"), IdTokenizer(VOCAB + 8), ModelSpec(name="tiny", eos=False))
    with pytest.raises(UsageError, match=r"gives the id 37, and the model has embeddings of 32 ids alone"):
        lm.encode([Completion("1 2", "3 37")])


def test_a_model_that_wants_more_than_ids_is_one_line() -> None:
    model = build("llama")

    def wants(own: Any, *args: Any, codes: Any = None, **words: Any) -> Any:
        raise ValueError("codes must be given.\nAnd more.")

    patched(model.model, wants)
    with pytest.raises(
        UsageError,
        match=r"^model 'tiny' \(LlamaForCausalLM\) is not supported: ValueError: codes must be given",
    ):
        policy(model)
