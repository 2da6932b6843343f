"""Samples follow the model's own distribution; the KL along them equals exact enumeration."""

import itertools
import math
from typing import Any

import pytest
import torch
from narrow import as_a, present

from xpo_bench.contract.examples import Completion
from xpo_bench.contract.settings import ModelSpec
from xpo_bench.errors import UsageError
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.tiny import tiny_model
from xpo_bench.policy.language.tokenizers import IdTokenizer


def world(vocab_size: int = 8, **options: Any) -> CausalLM:
    """A tiny model over token ids, its distribution far from uniform."""
    spec = ModelSpec(
        name="tiny",
        tokenizer="ids",
        vocab_size=vocab_size,
        hidden_size=16,
        intermediate_size=32,
        heads=2,
        context=32,
        eos=False,
    )
    lm = CausalLM.load(spec, init_seed=0, dtype="float64", **options)
    sharpen(lm, 20.0)
    return lm


def sharpen(lm: CausalLM, factor: float) -> None:
    with torch.no_grad():
        lm.model.lm_head.weight.mul_(factor)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def enumerate_logps(lm: CausalLM, prompt: str, length: int) -> tuple[list[str], torch.Tensor]:
    """Every completion of a length and its log-probability."""
    vocab = as_a(IdTokenizer, lm.tokenizer).vocab_size
    texts = [" ".join(map(str, ids)) for ids in itertools.product(range(vocab), repeat=length)]
    return texts, lm.score_all(lm.encode([Completion(prompt, text) for text in texts])).sum[0]


def test_the_generator_alone_decides() -> None:
    lm = world()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = lm.sample(["1 2", "3"], 4, max_new_tokens=6, generator=generator())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert lm.sample(["1 2", "3"], 4, max_new_tokens=6, generator=generator()).texts == first.texts
    assert lm.sample(["1 2", "3"], 4, max_new_tokens=6, generator=generator(1)).texts != first.texts


def test_shapes_and_prompts_are_kept() -> None:
    lm = world()
    sampled = lm.sample(["1 2", "3"], 3, max_new_tokens=5, generator=generator())
    assert sampled.prompt_index.tolist() == [0, 0, 0, 1, 1, 1]
    assert sampled.scores.token_logps.shape == (1, 6, 5)
    assert sampled.scores.mask.all()
    assert not sampled.finished.any()
    for n, text in enumerate(sampled.texts):
        row = present(sampled.encoded.row(n))
        assert list(row.ids[: row.start]) == ([1, 2] if n < 3 else [3])
        assert [int(word) for word in text.split()] == list(row.ids[row.start :])


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 0), (0.5, 0), (1.0, 3)])
def test_frequencies_match_the_softmax(temperature: float, top_k: int) -> None:
    lm = world()
    count = 20_000
    sampled = lm.sample(
        ["1 2 3"], count, max_new_tokens=1, generator=generator(), temperature=temperature, top_k=top_k
    )
    seen = torch.bincount(torch.tensor([int(text) for text in sampled.texts]), minlength=8).double()
    logits = enumerate_logps(lm, "1 2 3", 1)[1] / temperature
    if top_k:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)
    expected = logits.softmax(-1) * count
    possible = expected > 0
    assert seen[~possible].sum() == 0
    chi_square = ((seen - expected)[possible] ** 2 / expected[possible]).sum()
    assert chi_square < 24.3  # 99.9 % of chi-square with 7 degrees of freedom
    assert expected.max() > 1.5 * count / 8  # the check means something


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_cached_logps_equal_scored_ones(family: str, dtype: str) -> None:
    import transformers as t

    common = {
        "vocab_size": 16,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    small = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    torch.manual_seed(0)
    model = {
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**common, **small)),
        "gpt2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(**common, n_embd=16, n_layer=2, n_head=2, n_positions=64)
        ),
        "gemma2": lambda: t.Gemma2ForCausalLM(
            t.Gemma2Config(**common, **small, head_dim=8, final_logit_softcapping=2.0)
        ),
    }[family]()
    lm = CausalLM(model, IdTokenizer(16), ModelSpec(name="tiny", eos=False), dtype=dtype)
    lm.scorer.reach = 0  # as samples are drawn, a row each; some models compute attention in float32
    sampled = lm.sample(["1", "2 3 4 5 6 7", "8 9"], 3, max_new_tokens=9, generator=generator())
    scored = lm.score_all(sampled.encoded)
    torch.testing.assert_close(
        sampled.scores.token_logps, scored.token_logps, rtol=0, atol=1e-10 if dtype == "float64" else 1e-4
    )


def test_a_sample_does_not_depend_on_its_batch() -> None:
    lm = world()
    prompts = ["1", "2 3 4 5 6 7", "6 7"]
    together = lm.sample(prompts, 2, max_new_tokens=8, generator=generator())
    lm.sampler.tokens_per_batch = 1
    assert lm.sample(prompts, 2, max_new_tokens=8, generator=generator()).texts == together.texts


def test_samples_stop_at_eos() -> None:
    lm = CausalLM.load(ModelSpec(name="tiny", hidden_size=16, layers=1, heads=2), init_seed=0)
    with torch.no_grad():  # make the end likely
        lm.model.lm_head.weight.mul_(0.0)
        lm.model.lm_head.weight[258] = 0.0
    hook = lm.network.head.register_forward_hook(
        lambda module, args, out: out.index_add(
            -1, torch.tensor([257]), torch.full((*out.shape[:-1], 1), 5.0)
        )
    )
    sampled = lm.sample(["a", "bcd"], 50, max_new_tokens=12, generator=generator())
    hook.remove()
    lengths = sampled.scores.length[0]
    assert sampled.finished.any()
    for n, finished in enumerate(sampled.finished.tolist()):
        row = present(sampled.encoded.row(n))
        text = row.ids[row.start :]
        assert text.count(257) == int(finished)
        assert (text[-1] == 257) == finished
        assert lengths[n] == len(text)
        assert finished or len(text) == 12
    # the end has probability p at each position, so lengths are geometric
    p = math.exp(5) / (math.exp(5) + 258)
    assert sampled.finished.double().mean() == pytest.approx(1 - (1 - p) ** 12, abs=0.05)
    assert lengths.mean().item() == pytest.approx((1 - (1 - p) ** 12) / p, rel=0.25)


def test_prompts_leave_room() -> None:
    lm = world()
    sampled = lm.sample(["1 " * 31, "2"], 2, max_new_tokens=10, generator=generator())
    assert sampled.truncated == 1
    assert len(present(sampled.encoded.row(0)).ids) == 32
    with pytest.raises(UsageError, match="max_new_tokens"):
        lm.sample(["1"], 1, max_new_tokens=32, generator=generator())
    with pytest.raises(UsageError, match="temperature"):
        lm.sample(["1"], 1, max_new_tokens=2, generator=generator(), temperature=0.0)
    with pytest.raises(UsageError, match="empty prompt"):
        lm.sample([""], 1, max_new_tokens=2, generator=generator())


def test_kl_is_zero_at_the_reference() -> None:
    lm = world()
    sampled = lm.sample(["1", "2 3"], 3, max_new_tokens=4, generator=generator())
    result = lm.sequence_kl(sampled, lm.snapshot())
    assert result.per_sample_kl.tolist() == [0.0] * 6
    assert result.prompt_index.tolist() == [0, 0, 0, 1, 1, 1]
    assert result.mean_length == 4.0


@pytest.mark.parametrize("chunk", [7, 10**6])
@pytest.mark.parametrize("as_snapshot", [True, False])
def test_kl_equals_enumeration(as_snapshot: bool, chunk: int) -> None:
    lm, other = world(5), world(5)
    reference = other.snapshot()
    sharpen(lm, -1.5)
    lm.scorer.chunk = other.scorer.chunk = chunk
    kl_of, se_of, entropy = [], [], []
    for prompt in ("1 2", "3"):
        logp, ref = enumerate_logps(lm, prompt, 2)[1], enumerate_logps(other, prompt, 2)[1]
        torch.testing.assert_close(logp.exp().sum().item(), 1.0)
        kl_of.append((logp.exp() * (logp - ref)).sum().item())
        entropy.append(-(logp.exp() * logp).sum().item())
    sampled = lm.sample(["1 2", "3"], 2000, max_new_tokens=2, generator=generator())
    before = lm.snapshot()
    result = lm.sequence_kl(sampled, reference if as_snapshot else other)
    assert all(torch.equal(value, before[name]) for name, value in lm.snapshot().items())
    for number, exact in enumerate(kl_of):
        values = result.per_sample_kl[result.prompt_index == number]
        se_of.append(values.std().item() / len(values) ** 0.5)
        assert exact > 0.01
        assert abs(values.mean().item() - exact) < 3 * se_of[-1] + 1e-9
    assert result.entropy * result.mean_length == pytest.approx(sum(entropy) / 2, rel=0.02)


def test_kl_refuses_samples_of_another_distribution() -> None:
    lm = world()
    for options in ({"temperature": 0.7}, {"top_k": 2}):
        sampled = lm.sample(["1"], 1, max_new_tokens=2, generator=generator(), **options)
        with pytest.raises(UsageError, match="temperature 1"):
            lm.sequence_kl(sampled, lm.snapshot())


def test_bfloat16_samples_and_kl() -> None:
    spec = ModelSpec(name="tiny", hidden_size=16, layers=1, heads=2, eos=False)
    lm = CausalLM.load(spec, init_seed=0, dtype="bfloat16")
    sampled = lm.sample(["ab", "c"], 2, max_new_tokens=5, generator=generator())
    assert sampled.scores.token_logps.dtype == torch.float32
    assert lm.sequence_kl(sampled, lm.snapshot()).per_sample_kl.tolist() == [0.0] * 4
    torch.testing.assert_close(
        sampled.scores.token_logps, lm.score_all(sampled.encoded).token_logps, rtol=0, atol=0.05
    )


def test_finished_samples_leave_the_batch_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One token in eight ends a sample, so batches shrink several times; other samples go on unchanged."""
    from transformers.cache_utils import Cache

    spec = ModelSpec(
        name="tiny", tokenizer="ids", vocab_size=8, hidden_size=16, intermediate_size=32, heads=2, context=64
    )
    lm = CausalLM(tiny_model(spec, init_seed=0), IdTokenizer(8, eos=7), spec)
    kept = []
    select = Cache.batch_select_indices

    def counted(self: Any, keep: torch.Tensor) -> Any:
        kept.append(len(keep))
        return select(self, keep)

    monkeypatch.setattr(Cache, "batch_select_indices", counted)
    shrinking = lm.sample(["1 2", "3", "4 5 6"], 16, max_new_tokens=40, generator=generator())
    processed, flops = lm.tokens_processed, lm.flops
    assert len(kept) > 2
    monkeypatch.delattr(Cache, "batch_select_indices")
    lm.tokens_processed, lm.flops = 0, 0.0
    whole = lm.sample(["1 2", "3", "4 5 6"], 16, max_new_tokens=40, generator=generator())
    assert shrinking.texts == whole.texts
    assert torch.equal(shrinking.finished, whole.finished)
    torch.testing.assert_close(shrinking.scores.token_logps, whole.scores.token_logps)
    assert lm.tokens_processed == processed  # what finished rows would have cost was never counted
    assert lm.flops == pytest.approx(flops, rel=1e-12)
