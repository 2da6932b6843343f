"""Scores of a causal language model against naive full-logits float64 ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from narrow import as_a, present
from pretrained import stories_folder

from xpo_bench.contract.examples import Completion
from xpo_bench.contract.settings import ModelSpec
from xpo_bench.errors import UnreachableError, UsageError
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.model_facts import context_length
from xpo_bench.policy.language.tokenize import Encoded, Row
from xpo_bench.policy.language.tokenizers import IdTokenizer, ModelTokenizer

VOCAB = 32
SPEC = ModelSpec(
    name="tiny",
    tokenizer="ids",
    vocab_size=VOCAB,
    hidden_size=16,
    intermediate_size=32,
    layers=2,
    heads=2,
    context=64,
)
COMPLETIONS = [
    Completion("1 2 3", "4 5"),
    Completion("7", "1 1 2 9 30 4"),
    Completion("3 1 4 1 5 9 2 6", "5"),
    Completion("1 2 3", "31 0 2"),
]


def build(family: str) -> Any:
    """A small random model with weights large enough to matter."""
    import transformers as t

    common = {
        "vocab_size": VOCAB,
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
        "max_position_embeddings": 64,
    }
    dropout = {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}
    models = {
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**common, **small)),
        "tied": lambda: t.LlamaForCausalLM(t.LlamaConfig(**common, **small, tie_word_embeddings=True)),
        "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**common, **small)),
        "gpt2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(**common, **dropout, n_embd=16, n_layer=2, n_head=2, n_positions=64)
        ),
        "gemma2": lambda: t.Gemma2ForCausalLM(
            t.Gemma2Config(
                **common,
                **small,
                head_dim=8,
                final_logit_softcapping=2.0,
                sliding_window=4,
                attention_dropout=0.5,
            )
        ),
        "granite": lambda: t.GraniteForCausalLM(t.GraniteConfig(**common, **small, logits_scaling=3.0)),
        "cohere": lambda: t.CohereForCausalLM(t.CohereConfig(**common, **small, logit_scale=0.5)),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models[family]()


def policy(family: str = "llama", dtype: str = "float64") -> CausalLM:
    return CausalLM(build(family), IdTokenizer(VOCAB), SPEC, dtype=dtype)


def naive(lm: CausalLM, completion: Completion) -> torch.Tensor:
    """Token log-probabilities of one completion alone, from full logits in float64."""
    prompt, text = ([int(word) for word in part.split()] for part in (completion.prompt, completion.text))
    logits: torch.Tensor = (
        lm.model(input_ids=torch.tensor([prompt + text]), use_cache=False).logits[0].double()
    )
    return logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(text)[:, None])[:, 0]


def index(*positions: int) -> torch.Tensor:
    return torch.tensor([positions])


FAMILIES = ["llama", "tied", "qwen2", "gpt2", "gemma2", "granite", "cohere"]


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_naive_ones(family: str) -> None:
    lm = policy(family)
    scores = lm.score_all(lm.encode(COMPLETIONS))
    assert scores.token_logps.dtype == torch.float64
    assert scores.mask[0].sum(-1).tolist() == [2, 6, 1, 3]
    for n, completion in enumerate(COMPLETIONS):
        torch.testing.assert_close(
            scores.token_logps[0, n][scores.mask[0, n]], naive(lm, completion), rtol=0, atol=1e-10
        )


@pytest.mark.parametrize(
    ("family", "head"),
    [(f, "full" if f in ("gemma2", "granite", "cohere") else "selected") for f in FAMILIES],
)
def test_what_a_model_does_around_its_head_is_noticed(family: str, head: str) -> None:
    assert policy(family).describe()["head"] == head


@pytest.mark.parametrize("family", ["llama", "tied", "gpt2", "gemma2"])
@pytest.mark.parametrize("chunk", [3, 10**6])
@pytest.mark.parametrize("share", [False, True])
def test_gradients_equal_naive_ones(family: str, chunk: int, share: bool) -> None:
    lm = policy(family)
    lm.scorer.reach *= share
    lm.scorer.chunk, lm.scorer.tokens_per_forward = chunk, 16
    weight = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    (
        lm.score({"a": (lm.encode(COMPLETIONS), index(0, 1, 2, 3))}, grad=True)["a"].sum * weight
    ).sum().backward()
    got = [present(p.grad).clone() for p in lm.parameters()]
    lm.model.zero_grad()
    sum(w * naive(lm, c).sum() for w, c in zip(weight, COMPLETIONS, strict=True)).backward()
    for mine, p in zip(got, lm.parameters(), strict=True):
        # gemma2 takes the softmax of its attention in float32, and Llama's norm adds up the gradients of a
        # shared prompt in it
        rough = family == "gemma2" or (share and family in ("llama", "tied"))
        torch.testing.assert_close(mine, p.grad, rtol=1e-5 if rough else 1e-8, atol=1e-5 if rough else 1e-10)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_padding_and_order_do_not_matter(family: str) -> None:
    lm = policy(family)
    encoded = lm.encode(COMPLETIONS)
    together = lm.score({"a": (encoded, index(0, 1, 2, 3)), "b": (encoded, index(3, 1, 0, 2))}, grad=False)
    torch.testing.assert_close(together["a"].sum[0, [3, 1, 0, 2]], together["b"].sum[0])
    for n in range(4):
        alone = lm.score({"a": (encoded, index(n))}, grad=False)["a"]
        torch.testing.assert_close(alone.sum[0, 0], together["a"].sum[0, n], rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("tokens", [1, 12, 10**6])
def test_batching_does_not_matter(family: str, tokens: int) -> None:
    lm = policy(family)
    encoded = lm.encode(COMPLETIONS)
    want = lm.score_all(encoded)
    lm.scorer.tokens_per_forward, lm.scorer.chunk = tokens, 2
    got = lm.score_all(encoded)
    torch.testing.assert_close(got.token_logps, want.token_logps, rtol=0, atol=1e-12)


def test_the_mask_leaves_out_the_prompt_and_counts_eos_once() -> None:
    lm = CausalLM.load(ModelSpec(name="tiny"), init_seed=0)
    scores = lm.score_all(lm.encode([Completion("a long prompt", "abc")]))
    assert scores.length.tolist() == [[4.0]]
    without = CausalLM.load(ModelSpec(name="tiny", eos=False), init_seed=0)
    assert without.score_all(without.encode([Completion("a long prompt", "abc")])).length.tolist() == [[3.0]]
    assert (lm.notes["eos"], without.notes["eos"]) == ("appended", "none")


def test_absent_and_dropped_rows() -> None:
    lm = policy()
    encoded = lm.encode([COMPLETIONS[0], Completion("1", "2 " * 70)], truncate="drop")
    assert encoded.dropped == 1
    scores = lm.score({"a": (encoded, index(-1, 0, 1))}, grad=True)["a"]
    assert scores.mask.sum(-1).tolist() == [[0, 2, 0]]
    assert scores.sum[0, [0, 2]].tolist() == [0.0, 0.0]
    nothing = lm.score({"a": (encoded, index(-1, 1))}, grad=True)["a"]
    assert nothing.token_logps.shape == (1, 2, 1)
    assert not nothing.mask.any()
    nothing.sum.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in lm.parameters())


def test_an_absent_row_has_no_gradient() -> None:
    lm = policy()
    encoded = lm.encode(COMPLETIONS)
    grads = []
    for rows in (index(0), index(0, -1, -1)):
        lm.model.zero_grad()
        lm.score({"a": (encoded, rows)}, grad=True)["a"].sum.sum().backward()
        grads.append(present(lm.parameters()[0].grad).clone())
    torch.testing.assert_close(*grads)


def test_rows_that_groups_share_are_computed_once() -> None:
    lm = policy()
    first, second = lm.encode(COMPLETIONS), lm.encode(COMPLETIONS[::-1])
    scores = lm.score({"a": (first, index(0, 0, 1)), "b": (second, index(3, 2))}, grad=True)
    assert lm.tokens_processed == 4 + 6  # 1 2 3 4 and 7 1 1 2 9 30: last tokens are not fed
    torch.testing.assert_close(scores["a"].sum[0, [0, 2]], scores["b"].sum[0])
    scores["a"].sum[0, :2].sum().backward()
    twice = present(lm.parameters()[0].grad).clone()
    lm.model.zero_grad()
    lm.score({"a": (first, index(0))}, grad=True)["a"].sum.sum().backward()
    torch.testing.assert_close(twice, 2 * present(lm.parameters()[0].grad))


def test_no_graph_without_grad() -> None:
    lm = policy()
    encoded = lm.encode(COMPLETIONS)
    assert not lm.score({"a": (encoded, index(0))}, grad=False)["a"].token_logps.requires_grad
    assert lm.score({"a": (encoded, index(0))}, grad=True)["a"].token_logps.requires_grad


def test_score_all_of_some_rows() -> None:
    lm = policy()
    encoded = lm.encode(COMPLETIONS)
    some, everything = lm.score_all(encoded, torch.tensor([2, 0])), lm.score_all(encoded)
    assert some.token_logps.shape == everything.token_logps.shape == (1, 4, 6)
    assert some.mask.any(-1).tolist() == [[True, False, True, False]]
    torch.testing.assert_close(some.sum[0, [0, 2]], everything.sum[0, [0, 2]])


def test_dropout_is_off_and_positions_are_selected() -> None:
    lm = policy("gpt2")
    encoded = lm.encode(COMPLETIONS)
    seen = []
    lm.network.head.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[0]))
    first, second = (lm.score({"a": (encoded, index(0, 1, 2, 3))}, grad=True)["a"] for _ in range(2))
    assert torch.equal(first.token_logps, second.token_logps)
    assert seen == [16, 16]  # 12 tokens, filled up


def test_log_softmax_is_float32_under_bfloat16() -> None:
    """A sum of 512 rounded log-probabilities would be nats away; the body's own rounding is not."""
    spec = ModelSpec(name="tiny", tokenizer="ids", vocab_size=4096, context=1024, eos=False)
    exact, half = (CausalLM.load(spec, init_seed=1, dtype=dtype) for dtype in ("float32", "bfloat16"))
    generator = torch.Generator().manual_seed(0)
    encoded = Encoded.of([Row(tuple(torch.randint(4096, (513,), generator=generator).tolist()), 1)])
    scores = half.score_all(encoded)
    assert scores.token_logps.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in half.parameters())
    assert scores.length.item() == 512
    assert abs(scores.sum.item() - exact.score_all(encoded).sum.item()) < 0.5
    logits = half.network.logits(torch.randn(3, 64, dtype=torch.bfloat16))
    assert logits.dtype == torch.float32
    half.score({"a": (encoded, index(0))}, grad=True)["a"].sum.sum().backward()
    assert present(half.parameters()[0].grad).dtype == torch.float32


def test_initialisation_is_a_function_of_its_seed_alone() -> None:
    states = []
    for outer, seed in ((1, 7), (2, 7), (2, 8)):
        torch.manual_seed(outer)
        before = torch.get_rng_state()
        states.append(CausalLM.load(SPEC, init_seed=seed).snapshot())
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[1][name], states[2][name]) for name in states[0])
    double = CausalLM.load(SPEC, init_seed=7, dtype="float64").snapshot()
    assert all(torch.equal(double[name].float(), states[0][name]) for name in double)


@pytest.mark.parametrize("family", ["llama", "tied"])
def test_snapshot_restore_and_using(family: str) -> None:
    lm = policy(family)
    encoded = lm.encode(COMPLETIONS)
    start, before = lm.snapshot(), lm.score_all(encoded).sum
    optimizer = torch.optim.SGD(lm.parameters(), lr=0.1)
    lm.score({"a": (encoded, index(0))}, grad=True)["a"].sum.sum().backward()
    optimizer.step()
    after = lm.score_all(encoded).sum
    assert not torch.allclose(before, after)
    with lm.using(start):
        assert torch.equal(lm.score_all(encoded).sum, before)
    assert torch.equal(lm.score_all(encoded).sum, after)
    lm.restore(start)
    assert torch.equal(lm.score_all(encoded).sum, before)
    optimizer.step()
    assert not torch.equal(lm.snapshot()[next(iter(start))], start[next(iter(start))])


def test_training_moves_the_preference() -> None:
    lm = CausalLM.load(SPEC, init_seed=0)
    chosen, rejected = lm.encode([Completion("5 8", "16 29")]), lm.encode([Completion("5 8", "26 14")])
    optimizer = torch.optim.Adam(lm.parameters(), lr=1e-2)
    for _ in range(20):
        scores = lm.score({"chosen": (chosen, index(0)), "rejected": (rejected, index(0))}, grad=True)
        optimizer.zero_grad()
        (scores["rejected"].sum - scores["chosen"].sum).mean().backward()
        optimizer.step()
    assert (scores["chosen"].sum - scores["rejected"].sum).item() > 5


def test_an_encoder_is_refused() -> None:
    import transformers as t

    config = t.BertConfig(
        vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    with pytest.raises(UsageError, match="not causal"):
        CausalLM(t.BertLMHeadModel(config), IdTokenizer(VOCAB), SPEC)


def expect_one_line(
    capfd: pytest.CaptureFixture[str], spec: ModelSpec, error: type[Exception], match: str, **options: Any
) -> None:
    with pytest.raises(error, match=match) as caught:
        CausalLM.load(spec, init_seed=0, **options)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_paths_that_are_not_models(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    expect_one_line(capfd, ModelSpec(name=str(tmp_path / "nothing")), UsageError, "not a directory")
    expect_one_line(capfd, ModelSpec(name=str(tmp_path)), UsageError, "no config.json")
    for text, match in (
        ("{}", "Unrecognized model"),
        ("{", "JSON"),
        (json.dumps({"model_type": "llama"}), "cannot be loaded"),
    ):
        (tmp_path / "config.json").write_text(text)
        expect_one_line(capfd, ModelSpec(name=str(tmp_path)), UsageError, match)


def test_a_model_that_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import transformers

    def offline(*args: object, **options: object) -> None:
        raise OSError("We couldn't connect to the hub.\nCheck your connection.")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", offline)
    expect_one_line(
        capfd,
        ModelSpec(name="someone/some-model"),
        UnreachableError,
        "cannot be reached: We couldn't connect",
    )


@pytest.mark.parametrize(
    ("spec", "options", "match"),
    [
        (SPEC, {"device": "cuda:99"}, "available: cpu"),
        (SPEC, {"device": "no-such-device"}, "available: cpu"),
        (SPEC, {"dtype": "float16"}, "float32, bfloat16, float64"),
        (ModelSpec(name="tiny", vocab_size=100), {}, "at least 259"),
        (ModelSpec(name="tiny", hidden_size=30), {}, "heads"),
    ],
)
def test_other_mistakes(capfd: pytest.CaptureFixture[str], spec: ModelSpec, options: Any, match: str) -> None:
    expect_one_line(capfd, spec, UsageError, match, **options)


def test_a_saved_model_is_loaded_without_noise(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = build("llama")
    model.save_pretrained(tmp_path)
    capfd.readouterr()
    lm = CausalLM.load(ModelSpec(name=str(tmp_path), tokenizer="ids"), init_seed=0)
    assert capfd.readouterr().err == ""
    assert lm.describe()["architecture"] == "LlamaForCausalLM"
    assert all(torch.equal(p, q) for p, q in zip(lm.parameters(), model.parameters(), strict=True))


def test_weights_that_are_missing_are_not_drawn(tmp_path: Path) -> None:
    build("llama").model.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="lack lm_head"):
        CausalLM.load(ModelSpec(name=str(tmp_path), tokenizer="ids"), init_seed=0)


@pytest.fixture(scope="module")
def stories() -> CausalLM:
    """The pretrained model."""
    found = stories_folder()
    return CausalLM.load(ModelSpec(name=str(found)), init_seed=0)


def test_a_pretrained_model_prefers_its_own_language(stories: CausalLM) -> None:
    story = "Once upon a time, there was a little girl named Lily."
    scores = stories.score_all(stories.encode([Completion("", story), Completion("", story[::-1])]))
    assert scores.mean[0, 0] > -1.5
    assert scores.mean[0, 1] < -4
    assert stories.describe()["context"] == 512
    assert context_length(stories.model.config, as_a(ModelTokenizer, stories.tokenizer).inner) == 512
