"""Every policy gives the same numbers on the device as on the CPU: scores, gradients, samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from accelerator import Accelerator
from torch import Tensor

from xpo_bench import Completion, ModelSpec, Scores, World
from xpo_bench.contract.examples import Pair
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.ches import ches
from xpo_bench.policy.language.ensemble import Ensemble
from xpo_bench.policy.linear import LinearPolicy
from xpo_bench.policy.tabular import TabularPolicy

pytestmark = pytest.mark.device

SPEC = ModelSpec(name="tiny", tokenizer="bytes", hidden_size=64, heads=2, layers=2, context=96)
TEXTS = [
    Completion("what is it?", " a bird"),
    Completion("what is it?", " nothing at all"),
    Completion("go", " on"),
    Completion("say something that is long enough to be cut", " well, if you ask me so"),
    Completion("go", " away"),
]
WORLD = World(
    actions={"x": ("a", "b", "c"), "y": ("d", "e")},
    features={
        "x": {"a": (0.0, 1.0), "b": (1.0, 0.5), "c": (2.0, -1.0)},
        "y": {"d": (1.0, 1.0), "e": (0.5, 0.0)},
    },
    lengths={"x": {"a": 2, "b": 1, "c": 3}, "y": {"d": 1, "e": 2}},
)
ACTIONS = [Completion("x", "b"), Completion("x", "c"), Completion("y", "d"), Completion("x", "a")]


@dataclass(frozen=True)
class Tolerance:
    """What numbers on the device may differ by: nats of a log-probability, and the norm of a gradient's
    difference in parts of its own.
    """

    nats: float
    gradient: float


TOLERANCES = {
    "float64": Tolerance(1e-9, 1e-8),
    "float32": Tolerance(1e-4, 1e-3),
    "bfloat16": Tolerance(0.2, 0.1),  # eight bits of mantissa; the CPU computes in float32
}


@cache
def load(device: str, dtype: str = "float32", *, spec: ModelSpec = SPEC, packing: bool = True) -> CausalLM:
    """A small model with weights large enough to matter, the same on every device, for all tests that leave
    it as it is.
    """
    policy = CausalLM.load(spec, init_seed=0, dtype=dtype, packing=packing, device=device)
    with torch.no_grad():
        for p in policy.model.parameters():
            p.mul_(2)
    return policy


def logps(policy: CausalLM, grad: bool = False, against: object = None) -> Scores:
    encoded = policy.encode(TEXTS)
    found: Scores = policy.score({"all": (encoded, None)}, grad=grad, against=against)["all"]  # type: ignore[arg-type]
    return found


def on_cpu(values: Tensor) -> Tensor:
    return values.detach().cpu().double()


def apart(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The norm of the difference, in parts of the norm of what is expected."""
    mine, theirs = (torch.cat([on_cpu(g).flatten() for g in grads]) for grads in (found, expected))
    return float((mine - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("kind", [TabularPolicy, LinearPolicy])
def test_exact_policies(device: Accelerator, kind: type[TabularPolicy]) -> None:
    def found(name: str) -> list[Tensor]:
        policy = kind(WORLD, 2, device=name)
        with torch.no_grad():
            start = torch.linspace(-1, 1, policy.parameter.numel(), dtype=torch.float64)
            policy.parameter.add_(start.view(policy.parameter.shape).to(policy.device))
        stacked = policy.stack([policy.encode(ACTIONS)] * 2)
        index = torch.tensor([[0, 2, 1], [3, -1, 0]], device=policy.device)
        policy.begin()
        scores = policy.score({"all": (stacked, index)}, grad=True, against=policy.snapshot() * 0.5)["all"]
        gradient = torch.autograd.grad((scores.sum * scores.sum).sum(), policy.parameters())
        kl = policy.exact_kl(stacked, index)
        assert scores.token_kl is not None
        assert policy.log_probs().device.type == policy.device.type
        return [scores.token_logps, scores.token_kl, *gradient, kl, policy.log_probs()]

    with device.there():
        mine = [on_cpu(values) for values in found(device.name)]
    for one, other in zip(mine, found("cpu"), strict=True):
        torch.testing.assert_close(one, on_cpu(other), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("way", ["packed", "padded"])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_scores_and_gradients(device: Accelerator, dtype: str, way: str) -> None:
    if device.kind == "standin" and dtype == "bfloat16":
        pytest.skip("the stand-in knows no autocast")

    def found(policy: CausalLM) -> tuple[Tensor, list[Tensor]]:
        scores = logps(policy, grad=True)
        assert scores.token_logps.device.type == policy.device.type
        # DPO's loss of neighbours without a reference; β is so small that no margin saturates
        margin = scores.sum[:, 0] - scores.sum[:, 1] + scores.sum[:, 2] - scores.sum[:, 4]
        return on_cpu(scores.sum), policy.gradients(-torch.nn.functional.logsigmoid(0.01 * margin).sum())

    with device.there():
        policy = load(device.name, dtype, packing=way == "packed")
        sums, gradients = found(policy)
        gradients = [on_cpu(g) for g in gradients]
    expected, theirs = found(load("cpu", "float32" if dtype == "bfloat16" else dtype, packing=False))
    allowed = TOLERANCES[dtype]
    if dtype != "float64":  # whose attention no packed kernel computes on a GPU
        assert policy.notes["rows"] == way
    torch.testing.assert_close(sums, expected, rtol=0, atol=allowed.nats * 20)
    assert apart(gradients, theirs) < allowed.gradient


def test_divergence_at_every_token(device: Accelerator) -> None:
    def found(policy: CausalLM) -> Tensor:
        reference = {name: p * 0.9 for name, p in policy.snapshot().items()}
        kl = logps(policy, against=reference).token_kl
        assert kl is not None
        return on_cpu(kl)

    with device.there():
        mine = found(load(device.name))
    torch.testing.assert_close(mine, found(load("cpu")), rtol=1e-3, atol=1e-5)


def test_samples(device: Accelerator) -> None:
    """The same uniform numbers draw the same tokens, and what is recorded is what the scorer says."""

    def found(policy: CausalLM) -> tuple[tuple[tuple[int, ...], ...], Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        drawn = policy.sample(["go", "what is it?"], 3, max_new_tokens=12, generator=generator)
        again = policy.score({"all": (drawn.encoded, None)}, grad=False)["all"]
        assert drawn.scores.token_logps.device.type == policy.device.type
        torch.testing.assert_close(
            on_cpu(drawn.scores.token_logps), on_cpu(again.token_logps), rtol=0, atol=1e-8
        )
        reference = {name: p * 0.9 for name, p in policy.snapshot().items()}
        divergence = policy.sequence_kl(drawn, reference).per_sample_kl
        return drawn.ids, on_cpu(drawn.scores.sum), on_cpu(divergence)

    with device.there():
        ids, mine, kl = found(load(device.name, "float64"))
    expected, theirs, their_kl = found(load("cpu", "float64"))
    assert ids == expected
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-8)
    torch.testing.assert_close(kl, their_kl, rtol=1e-8, atol=1e-8)


def test_ensemble(device: Accelerator) -> None:
    """Copies with weights of their own, scored and differentiated together."""

    def found(single: CausalLM) -> list[Tensor]:
        states = [{name: p * factor for name, p in single.snapshot().items()} for factor in (1.0, 0.9)]
        ensemble = Ensemble(single, states)
        stacked = ensemble.stack([single.encode(TEXTS), single.encode(TEXTS[:3])])
        scores = ensemble.score({"all": (stacked, None)}, grad=True, against=ensemble.snapshot())["all"]
        assert scores.token_kl is not None
        gradients = torch.autograd.grad(scores.sum.sum(), ensemble.parameters())
        return [on_cpu(scores.sum), on_cpu(scores.token_kl), *map(on_cpu, gradients)]

    with device.there():
        sums, kl, *gradients = found(load(device.name))
    expected, their_kl, *theirs = found(load("cpu"))
    torch.testing.assert_close(sums, expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(kl, their_kl, rtol=0, atol=1e-5)
    assert apart(gradients, theirs) < 1e-3


def test_adapters(device: Accelerator) -> None:
    spec = replace(SPEC, lora_rank=2, lora_alpha=4)

    def found(policy: CausalLM) -> tuple[Tensor, list[Tensor]]:
        sums = logps(policy, grad=True).sum
        return on_cpu(sums), policy.gradients(sums.sum())

    with device.there():
        sums, gradients = found(load(device.name, spec=spec))
        gradients = [on_cpu(g) for g in gradients]
    expected, theirs = found(load("cpu", spec=spec))
    torch.testing.assert_close(sums, expected, rtol=0, atol=1e-3)
    assert apart(gradients, theirs) < 1e-3


@pytest.mark.parametrize(
    "of",
    [
        lambda policy: policy.describe_completions(TEXTS, policy.snapshot()),
        lambda policy: ches(policy, [Pair("go", " on", " away"), Pair("say", " it", " so")]).sums,
    ],
    ids=["features of a reward head", "CHES"],
)
def test_hidden_states(device: Accelerator, of: Callable[[CausalLM], object]) -> None:
    with device.there():
        mine = torch.as_tensor(of(load(device.name)))
    torch.testing.assert_close(mine, torch.as_tensor(of(load("cpu"))), rtol=1e-3, atol=1e-3)


def test_activations_that_are_computed_again(device: Accelerator) -> None:
    def found(policy: CausalLM, again: bool) -> list[Tensor]:
        if again:
            policy.recompute_layers()
        return [on_cpu(g) for g in policy.gradients(logps(policy, grad=True).sum.sum())]

    with device.there():
        mine = found(load.__wrapped__(device.name), again=True)
    assert apart(mine, found(load("cpu"), again=False)) < 1e-3
