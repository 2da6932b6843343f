"""Who declares a KL strength has π* ∝ π_ref·exp(r/β) as optimum, in the population that its data mean."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_worlds import (
    OPTIMA,
    REFERENCE,
    REWARD,
    TableTools,
    bradley_terry,
    descend,
    log,
    minimise,
    pair_step,
    population_loss,
)
from torch import Tensor

from xpo_bench import Algorithm, Pair
from xpo_bench.plugins import load
from xpo_bench_plugins.algorithms.aux_dpo import AuxDPO
from xpo_bench_plugins.algorithms.cdpo import CDPO
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.ppo import PPO
from xpo_bench_plugins.algorithms.rlhf import RLHF
from xpo_bench_plugins.algorithms.rloo import RLOO
from xpo_bench_plugins.algorithms.robust import RobustDPO
from xpo_bench_plugins.algorithms.rso import RSO
from xpo_bench_plugins.algorithms.wpo import WPO

FLIPPED = 0.2
ONES = torch.ones(4, 4, dtype=torch.float64)


def flipped(preference: Tensor, probability: float = FLIPPED) -> Tensor:
    return (1 - probability) * preference + probability * (1 - preference)


def fitted(algorithm: Algorithm, preference: Tensor) -> Tensor:
    return minimise(
        lambda p: population_loss(algorithm, p, log(REFERENCE), preference, ONES), log(REFERENCE)
    ).exp()


def dpo(beta: float) -> Tensor:
    return fitted(DPO(beta), bradley_terry(REWARD))


def robust(beta: float) -> Tensor:
    """Its labels are flipped with the probability that it is told."""
    return fitted(RobustDPO(beta, FLIPPED), flipped(bradley_terry(REWARD)))


def wpo(beta: float) -> Tensor:
    """Where the expected gradient of the weighted loss vanishes; the weights follow the policy."""
    weight = torch.outer(log(REFERENCE).exp(), torch.ones(4)).double()  # pairs at unequal rates
    path = descend(
        lambda p: population_loss(WPO(beta), p, log(REFERENCE), bradley_terry(REWARD), weight + weight.T),
        log(REFERENCE),
        lr=60.0,
        steps=300,
    )
    return path[-1].exp()


def aux_dpo(beta: float) -> Tensor:
    """On a table its offsets are 0."""
    tools = TableTools()
    tools.examples = [Pair("x", a, b) for a, b in itertools.permutations(tools.texts, 2)]
    algorithm = AuxDPO(beta)
    offsets = algorithm.columns(algorithm.shape_data(tools.examples, tools))["offset"]
    won, lost = map(list, zip(*itertools.permutations(range(4), 2), strict=True))
    preference = bradley_terry(REWARD)

    def loss(logp: Tensor) -> Tensor:
        step = pair_step(algorithm, logp, log(REFERENCE), won, lost)
        step = replace(step, columns={"offset": torch.tensor(offsets, dtype=torch.float64)})
        return (preference[won, lost] * algorithm.loss(step)).sum()

    return minimise(loss, log(REFERENCE)).exp()


def known_reward(tools: TableTools) -> None:
    """A fit on so many pairs that it returns the true reward."""
    tools.fit_reward = lambda pairs, weight_decay: lambda cs: [REWARD[tools.texts.index(c.text)] for c in cs]  # type: ignore[method-assign]


def rlhf(beta: float) -> Tensor:
    tools = TableTools()
    known_reward(tools)
    tilt = RLHF(beta).solve([Pair("x", "a", "b")], tools)
    return (
        log(REFERENCE) + torch.tensor([tilt[a] for a in tools.actions("x")], dtype=torch.float64)
    ).softmax(-1)


def ppo(beta: float) -> Tensor:
    """Where its expected gradient vanishes, as RLOO's: ∇ = Σ π(a) (R(a) − Σ π R) ∇log π(a), R = r − β lr."""
    reward = torch.tensor(REWARD, dtype=torch.float64)
    logits = log(REFERENCE).clone()
    for _ in range(4000):
        logp = logits.log_softmax(-1)
        returns = reward - beta * (logp - log(REFERENCE))
        logits = logits + 0.5 * logp.exp() * (returns - (logp.exp() * returns).sum())
    return logits.softmax(-1)


DECLARED: dict[str, Callable[[float], Tensor]] = {
    "dpo": dpo,
    "robust": robust,
    "rlhf": rlhf,
    "ppo": ppo,
    "rloo": ppo,
    "wpo": wpo,
    "aux_dpo": aux_dpo,
}


def test_these_are_all_that_declare_one() -> None:
    built_in = {
        n: c for n, (c, info) in load().algorithms.items() if info.module.startswith("xpo_bench_plugins.")
    }
    assert {name for name, cls in built_in.items() if cls.kl_strength} == set(DECLARED)


@pytest.mark.parametrize(("beta", "optimum", "kl"), OPTIMA)
@pytest.mark.parametrize("name", sorted(DECLARED))
def test_the_optimum_of_who_declares_it(
    name: str, beta: float, optimum: tuple[float, ...], kl: float
) -> None:
    assert DECLARED[name](beta).tolist() == pytest.approx(optimum, abs=2e-6)


@pytest.mark.parametrize("kind", [PPO, RLOO])
def test_the_returns_are_those_of_that_gradient(kind: type[PPO] | type[RLOO]) -> None:
    """At π* all returns of a prompt are equal, so that every advantage is 0."""
    tools, beta = TableTools(), 0.5
    known_reward(tools)
    tools.current = np.log(np.array(OPTIMA[1][1]) / sum(OPTIMA[1][1]))
    rows = kind(beta=beta, samples=8).shape_data([Pair("x", "a", "b")], tools)
    assert max(abs(row.values["advantage"]) for row in rows) < 1e-5  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "labels", [bradley_terry(REWARD), flipped(bradley_terry(REWARD))], ids=["clean", "flipped"]
)
def test_cdpo_ends_nearer_to_the_reference_whatever_the_labels(labels: Tensor) -> None:
    beta, _, kl = OPTIMA[1]
    found = fitted(CDPO(beta, FLIPPED), labels)
    assert float((found * (found.log() - log(REFERENCE))).sum()) < 0.75 * kl
    # of two actions: σ(βΔ) = (1−2ε) p + ε
    two = torch.tensor([[0.5, 0.8], [0.2, 0.5]], dtype=torch.float64)
    pair = minimise(
        lambda p: population_loss(CDPO(beta, FLIPPED), p, log((0.5, 0.5)), two, ONES[:2, :2]), log((0.5, 0.5))
    )
    assert float((beta * (pair[0] - pair[1])).sigmoid()) == pytest.approx(
        (1 - 2 * FLIPPED) * 0.8 + FLIPPED, abs=1e-6
    )


def test_rso_on_its_own_labels_goes_beyond_the_policy_that_it_samples() -> None:
    """Accepted candidates follow π*; labels by the larger reward are certain; the loss starts there."""
    beta, optimum, kl = OPTIMA[1]
    algorithm = RSO(beta=beta, gamma=beta)  # at γ = β labels drawn with σ(r − r′) would give π*
    certain = torch.tensor(
        [[0.5 if i == j else float(REWARD[i] > REWARD[j]) for j in range(4)] for i in range(4)]
    )
    drawn = fitted(algorithm, bradley_terry(REWARD))
    assert drawn.tolist() == pytest.approx(optimum, abs=2e-6)
    weight = torch.outer(torch.tensor(optimum), torch.tensor(optimum)).double()
    found = log(REFERENCE).clone().requires_grad_(True)
    optimizer = torch.optim.Adam([found], 0.05)
    for _ in range(2000):
        optimizer.zero_grad()
        population_loss(algorithm, found.log_softmax(-1), log(REFERENCE), certain.double(), weight).backward()
        optimizer.step()
    p = found.detach().softmax(-1)
    assert float((p * (p.log() - log(REFERENCE))).sum()) > 1.4 > 1.8 * kl
