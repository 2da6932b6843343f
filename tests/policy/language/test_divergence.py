"""KL from a reference at every token: against full distributions, and by the chain rule over completions."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from xpo_bench.contract.examples import Completion, World
from xpo_bench.contract.settings import ModelSpec
from xpo_bench.policy.kl import forward_kl
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.ensemble import Ensemble
from xpo_bench.policy.language.tokenizers import IdTokenizer
from xpo_bench.policy.language.weights import State
from xpo_bench.policy.linear import LinearPolicy
from xpo_bench.policy.tabular import TabularPolicy

VOCAB = 40
SPEC = ModelSpec(
    name="tiny",
    tokenizer="ids",
    vocab_size=VOCAB,
    hidden_size=16,
    intermediate_size=32,
    layers=2,
    heads=2,
    context=64,
    eos=False,
)
COMPLETIONS = [
    Completion("1 2 3", "4 5"),
    Completion("7", "1 1 2 9 30 4"),
    Completion("3 1 4 1 5 9 2 6", "5"),
    Completion("1 2 3", "31 0 2"),
]
COMMON = {
    "vocab_size": VOCAB,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
SMALL = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}


def model(family: str) -> Any:
    import transformers as t

    makers = {
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**COMMON, **SMALL)),
        "tied": lambda: t.LlamaForCausalLM(t.LlamaConfig(**COMMON, **SMALL, tie_word_embeddings=True)),
        "gemma2": lambda: t.Gemma2ForCausalLM(  # something is done around its head
            t.Gemma2Config(**COMMON, **SMALL, head_dim=8, final_logit_softcapping=2.0, sliding_window=4)
        ),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return makers[family]()


def policy(family: str = "llama", dtype: str = "float64") -> CausalLM:
    return CausalLM(model(family), IdTokenizer(VOCAB), SPEC, dtype=dtype)


def moved(state: State, scale: float = 0.3, seed: int = 1) -> State:
    """A snapshot some way from another."""
    g = torch.Generator().manual_seed(seed)
    return {
        name: p + scale * p.std().nan_to_num() * torch.randn(p.shape, generator=g, dtype=p.dtype)
        for name, p in state.items()
    }


def distributions(lm: CausalLM, completion: Completion) -> Tensor:
    """log π of every next token at every position of a completion, from full logits, shape (T, V)."""
    prompt, text = ([int(word) for word in part.split()] for part in (completion.prompt, completion.text))
    logits: Tensor = lm.model(input_ids=torch.tensor([prompt + text]), use_cache=False).logits[0].double()
    return logits.log_softmax(-1)[len(prompt) - 1 : -1]


def naive(lm: CausalLM, state: State, completion: Completion) -> Tensor:
    own = distributions(lm, completion)
    with lm.using(state), torch.no_grad():
        ref = distributions(lm, completion)
    return (ref.exp() * (ref - own)).sum(-1)


def asked(lm: Any, state: State, grad: bool = False, *picked: int) -> Any:
    index = torch.tensor([picked or range(len(COMPLETIONS))])
    return lm.score({"a": (lm.encode(COMPLETIONS), index)}, grad=grad, against=state)["a"]


@pytest.mark.parametrize("family", ["llama", "tied", "gemma2"])
@pytest.mark.parametrize("chunk", [4, 10**6])
def test_it_is_that_of_full_distributions_and_so_is_its_gradient(family: str, chunk: int) -> None:
    lm = policy(family)
    lm.scorer.chunk = chunk
    state = moved(lm.snapshot())
    scores = asked(lm, state, True)
    assert scores.token_kl.shape == scores.token_logps.shape
    own = [naive(lm, state, completion) for completion in COMPLETIONS]
    for n, expected in enumerate(own):
        torch.testing.assert_close(scores.token_kl[0, n][scores.mask[0, n]], expected, rtol=1e-9, atol=1e-12)
        assert float(expected.detach().min()) > 1e-3
        assert scores.token_kl[0, n][~scores.mask[0, n]].tolist() == [0.0] * int((~scores.mask[0, n]).sum())
    torch.testing.assert_close(scores.sequence_kl[0], torch.stack([kl.sum() for kl in own]))
    weight = (
        torch.arange(1.0, scores.token_kl.numel() + 1, dtype=torch.float64).view(scores.token_kl.shape)
        * scores.mask
    )
    got = torch.autograd.grad((weight * scores.token_kl).sum() + scores.sum.sum(), lm.parameters())
    flat = weight[scores.mask]
    logps = sum(
        distributions(lm, c).gather(1, torch.tensor([[int(w)] for w in c.text.split()])).sum()
        for c in COMPLETIONS
    )
    wanted = torch.autograd.grad((flat * torch.cat(own)).sum() + logps, lm.parameters())
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)  # norms are float32


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("grad", [True, False])
def test_it_is_zero_at_the_reference_and_nowhere_below(dtype: str, grad: bool) -> None:
    lm = policy(dtype=dtype)
    start = lm.snapshot()
    assert asked(lm, start, grad).token_kl.tolist() == torch.zeros(1, 4, 6).tolist()
    near, far = asked(lm, moved(start, 1e-4), grad), asked(lm, moved(start, 1.0), grad)
    assert float(near.token_kl.detach().min()) >= 0
    assert float(far.token_kl[far.mask].min()) > 0
    assert far.token_kl.dtype == lm.value_dtype


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_asking_for_it_changes_no_bit_of_the_log_probabilities(dtype: str) -> None:
    lm = policy(dtype=dtype)
    encoded = lm.encode(COMPLETIONS)
    plain = lm.score({"a": (encoded, None)}, grad=True)["a"]
    fed = lm.tokens_processed
    asking = asked(lm, moved(lm.snapshot()), True)
    assert plain.token_kl is None
    assert torch.equal(plain.token_logps, asking.token_logps)
    assert lm.tokens_processed == 3 * fed  # the reference is run on the same rows, and counted


def test_absent_rows_have_none() -> None:
    lm = policy()
    state = moved(lm.snapshot())
    some = asked(lm, state, True, -1, 1)
    assert some.sequence_kl[0, 0] == 0
    torch.testing.assert_close(some.sequence_kl[0, 1], asked(lm, state).sequence_kl[0, 1])
    none = asked(lm, state, True, -1)
    assert none.token_kl.tolist() == [[[0.0]]]
    gradient = torch.autograd.grad(
        none.sequence_kl.sum() + none.sum.sum(), lm.parameters(), materialize_grads=True
    )
    assert not any(bool(g.any()) for g in gradient)


@pytest.mark.parametrize("grad", [True, False])
def test_distributions_exist_for_a_chunk_at_a_time(grad: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = policy()
    lm.scorer.chunk = 4
    state = moved(lm.snapshot())
    heights: list[int] = []
    logits = lm.network.logits

    def counted(features: Tensor) -> Tensor:
        heights.append(len(features))
        return logits(features)

    monkeypatch.setattr(lm.network, "logits", counted)
    scores = asked(lm, state, grad)
    assert sum(heights) >= 2 * 12  # 12 tokens, under the policy and under the reference
    assert max(heights) <= 4
    if grad:
        held: list[torch.Size] = []

        def kept(t: Tensor) -> Tensor:
            held.append(t.shape)
            return t

        with torch.autograd.graph.saved_tensors_hooks(kept, lambda t: t):
            asked(lm, state, True)
        assert not [shape for shape in held if len(shape) == 2 and shape[1] == VOCAB and shape[0] > 4]
        forward = len(heights)
        torch.autograd.grad(scores.sequence_kl.sum(), lm.parameters())
        assert len(heights) > forward  # computed again where they are needed
        assert max(heights) <= 4


def test_layers_may_be_recomputed() -> None:
    gradients = []
    for recompute in (False, True):
        lm = CausalLM.load(SPEC, init_seed=0, dtype="float64", checkpointing=recompute)
        lm.scorer.chunk = 4
        scores = asked(lm, moved(lm.snapshot()), True)
        gradients.append(torch.autograd.grad(scores.sequence_kl.sum() + scores.sum.sum(), lm.parameters()))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_weights_are_the_policys_own_afterwards() -> None:
    lm = policy()
    lm.scorer.chunk = 4
    before = lm.snapshot()
    scores = asked(lm, moved(before), True)
    torch.autograd.grad(scores.sequence_kl.sum(), lm.parameters())
    assert all(torch.equal(p, before[name]) for name, p in lm.snapshot().items())


def test_the_reference_of_adapters_is_the_model_with_those_of_the_snapshot() -> None:
    lm = CausalLM.load(replace(SPEC, lora_rank=2), init_seed=0, dtype="float64")
    start = lm.snapshot()
    assert not asked(lm, start).token_kl.any()
    lm.restore(moved({name: p + 0.05 for name, p in start.items()}))
    scores = asked(lm, start)
    for n, completion in enumerate(COMPLETIONS):
        kl = naive(lm, start, completion)
        assert float(kl.detach().max()) > 1e-6
        torch.testing.assert_close(
            scores.token_kl[0, n][scores.mask[0, n]], kl.detach(), rtol=1e-6, atol=1e-9
        )


def test_the_chain_rule_over_all_completions() -> None:
    """E over y ~ π_ref of Σ_t KL(π_ref(.|x,y<t) ‖ π(.|x,y<t)) is the KL over whole completions."""
    small = ModelSpec(
        name="tiny",
        tokenizer="ids",
        vocab_size=5,
        hidden_size=16,
        intermediate_size=32,
        layers=2,
        heads=2,
        context=8,
        eos=False,
    )
    lm = CausalLM.load(small, init_seed=3, dtype="float64")
    texts = [" ".join(map(str, ids)) for ids in product(range(5), repeat=3)]
    encoded = lm.encode([Completion("2", text) for text in texts])
    state = moved(lm.snapshot(), 2.0)
    own = lm.score({"a": (encoded, None)}, grad=False, against=state)["a"]
    with lm.using(state):
        reference = lm.score_all(encoded).sum[0]
    p = reference.exp()
    torch.testing.assert_close(p.sum(), torch.ones((), dtype=torch.float64))
    exact = (p * (reference - own.sum[0])).sum()
    assert float(exact) > 0.05
    torch.testing.assert_close((p * own.sequence_kl[0]).sum(), exact, rtol=1e-10, atol=1e-12)
    uniform = own.sequence_kl[0].mean()  # under another distribution of prefixes it is another number
    assert abs(float(uniform - exact)) > 1e-3 * float(exact)


def test_copies_side_by_side_have_their_own() -> None:
    singles = [CausalLM.load(SPEC, init_seed=seed, dtype="float64") for seed in (3, 4)]
    against = [moved(lm.snapshot(), seed=seed) for seed, lm in enumerate(singles)]
    ensemble = Ensemble(singles[0], [lm.snapshot() for lm in singles])
    encoded = ensemble.stack([ensemble.encode(COMPLETIONS), ensemble.encode(COMPLETIONS[::-1])])
    state = {name: torch.stack([a[name] for a in against]) for name in against[0]}
    index = torch.tensor([[0, 1, 3], [2, 0, -1]])
    requests = {"a": (encoded, index)}
    plain = ensemble.score(requests, grad=True)["a"]
    assert plain.token_kl is None
    scores = ensemble.score(requests, grad=True, against=state)["a"]
    torch.testing.assert_close(scores.token_logps, plain.token_logps, rtol=1e-12, atol=1e-12)
    expected = torch.stack(
        [asked(singles[0], against[0], False, 0, 1, 3).sequence_kl[0], torch.zeros(3, dtype=torch.float64)]
    )
    expected[1, :2] = asked(singles[1], against[1], False, 1, 3).sequence_kl[0]
    torch.testing.assert_close(scores.sequence_kl, expected, rtol=1e-9, atol=1e-12)
    assert torch.autograd.grad(scores.sequence_kl.sum(), ensemble.parameters())[0].any()
    alone = ensemble.score({"a": ([encoded[1]], index[1:])}, grad=False, runs=slice(1, 2), against=state)["a"]
    torch.testing.assert_close(alone.sequence_kl, expected[1:], rtol=1e-9, atol=1e-12)


WORLD = World(
    actions={"x": ("a", "b", "c"), "y": ("d", "e")},
    reference={"x": {"a": 0.2, "b": 0.5, "c": 0.3}, "y": {"d": 0.9, "e": 0.1}},
    features={
        "x": {"a": (1.0, 0.0), "b": (0.0, 1.0), "c": (1.0, 1.0)},
        "y": {"d": (0.0, 2.0), "e": (1.0, 0.0)},
    },
)


@pytest.mark.parametrize("kind", [TabularPolicy, LinearPolicy])
def test_a_completion_of_a_table_is_one_token(kind: type[TabularPolicy]) -> None:
    table = kind(WORLD, 2)
    start = table.snapshot()
    g = torch.Generator().manual_seed(0)
    table.restore(start + torch.randn(start.shape, generator=g, dtype=start.dtype))
    pairs = [Completion("x", "b"), Completion("y", "e"), Completion("x", "c")]
    stacked = table.stack([table.encode(pairs)] * 2)
    table.begin()
    scores = table.score(
        {"a": (stacked, None), "b": (stacked, torch.tensor([[1], [0]]))}, grad=True, against=start
    )
    logp, ref = table.log_probs(), table.log_reference
    p = ref.exp()
    exact = torch.where(p > 0, p * (ref - logp), 0.0).sum(-1)
    torch.testing.assert_close(scores["a"].token_kl, exact[:, [0, 1, 0], None])
    torch.testing.assert_close(scores["b"].sequence_kl, torch.stack([exact[0, 1:], exact[1, :1]]))
    (gradient,) = torch.autograd.grad(scores["a"].sequence_kl[0, 1], table.parameters())
    if kind is TabularPolicy:  # of a logit: π − π_ref
        torch.testing.assert_close(gradient[0, 1], logp[0, 1].exp() - p[1])
    assert not gradient[1].any()
    table.restore(start)
    table.begin()
    (same,) = table.score({"a": (stacked, None)}, grad=False, against=start).values()
    assert same.token_kl is not None
    assert not same.token_kl.any()
    one = table.score({"a": (stacked[1:], None)}, grad=True, runs=slice(1, 2), against=start)["a"]
    assert one.token_kl is not None
    assert one.token_kl.shape == (1, 3, 1)


def test_what_the_reference_excludes_adds_nothing() -> None:
    reference = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64).log()
    own = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64).log().requires_grad_()
    kl = forward_kl(reference, own)
    torch.testing.assert_close(kl, 0.5 * torch.tensor(2.0, dtype=torch.float64).log())
    (gradient,) = torch.autograd.grad(kl, own)
    assert gradient.tolist() == [-0.5, -0.5, 0.0]


def test_a_group_that_does_not_ask_says_so() -> None:
    lm = policy()
    with pytest.raises(TypeError, match="the group has to declare"):
        _ = lm.score_all(lm.encode(COMPLETIONS)).sequence_kl
