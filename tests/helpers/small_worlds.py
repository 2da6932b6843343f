"""Small softmax tables, steps over them, and plain optimizers: what the tests of the losses stand on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xpo_bench import Algorithm, Completion, Pair, Scores, Single, Step
from xpo_bench.contract.algorithm import RewardModel
from xpo_bench.policy.reward_model import fit_ranker, fit_table

REFERENCE = (0.4, 0.3, 0.2, 0.1)
REWARD = (0.0, 0.5, 1.0, 1.5)
# (β, π*, KL(π* ‖ π_ref)) of the row above
OPTIMA = [
    (1.0, (0.212039, 0.262195, 0.288191, 0.237574), 0.140957),
    (0.5, (0.085073, 0.173439, 0.314304, 0.427184), 0.535643),
]


def log(p: Sequence[float]) -> Tensor:
    return torch.tensor(p, dtype=torch.float64).log()


def one_token(logps: Tensor) -> Scores:
    return Scores(logps.unsqueeze(-1), torch.ones_like(logps, dtype=torch.bool).unsqueeze(-1))


def pair_step(
    algorithm: Algorithm, logp: Tensor, reference: Tensor, chosen: Sequence[int], rejected: Sequence[int]
) -> Step:
    """The step of an algorithm of pairs over one table of log-probabilities, shape (..., actions)."""
    index = {"chosen": list(chosen), "rejected": list(rejected)}
    return Step(
        {g: one_token(logp[..., index[g]]) for g in algorithm.groups},
        {g: one_token(reference[..., index[g]]) for g, group in algorithm.groups.items() if group.reference},
    )


def single_step(logp: Tensor, reference: Tensor, actions: Sequence[int], desirable: Sequence[bool]) -> Step:
    """The step of an algorithm of singles over one table, with the exact KL."""
    kl = (logp.exp() * (logp - reference)).sum(-1, keepdim=True).detach()
    labels = torch.tensor(desirable, dtype=logp.dtype)
    return Step(
        {"completion": one_token(logp[..., list(actions)])},
        {"completion": one_token(reference[..., list(actions)])},
        {"desirable": labels},
        totals={"examples": torch.full((1,), float(len(actions))), "desirable": labels.sum(-1, keepdim=True)},
        exact_kl=kl.expand(len(actions)),
    )


def table_step(
    algorithm: Algorithm, logp: Tensor, reference: Tensor, pairs: Sequence[tuple[int, int]]
) -> Step:
    """The step of any preference algorithm on pairs (chosen, rejected) of one table."""
    if algorithm.accepts is Single:
        return single_step(logp, reference, [a for pair in pairs for a in pair], [True, False] * len(pairs))
    return pair_step(algorithm, logp, reference, *zip(*pairs, strict=True))


def deltas(logp: Tensor, reference: Tensor) -> Tensor:
    """Δ of every ordered pair of actions, shape (actions, actions)."""
    ratio = logp - reference
    return ratio[:, None] - ratio[None, :]


def population_loss(
    algorithm: Algorithm, logp: Tensor, reference: Tensor, preference: Tensor, weight: Tensor
) -> Tensor:
    """Expected loss when (i, j) is compared at rate weight[i, j] and i wins with preference[i, j]."""
    pairs = list(itertools.permutations(range(len(logp)), 2))
    won, lost = map(list, zip(*pairs, strict=True))
    values = algorithm.loss(pair_step(algorithm, logp, reference, won, lost))
    return (preference[won, lost] * weight[won, lost] * values).sum()


def bradley_terry(reward: Sequence[float]) -> Tensor:
    r = torch.tensor(reward, dtype=torch.float64)
    return (r[:, None] - r[None, :]).sigmoid()


def minimise(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Log-probabilities of the softmax table that minimises `loss(log-probabilities)`, by L-BFGS."""
    logits = start.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [logits],
        max_iter=2000,
        tolerance_grad=1e-13,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
        history_size=20,
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(logits.log_softmax(-1))
        value.backward()
        return value

    optimizer.step(closure)
    return logits.detach().log_softmax(-1)


def descend(loss: Callable[[Tensor], Tensor], start: Tensor, lr: float, steps: int) -> Tensor:
    """Log-probabilities along plain gradient descent on a softmax table, shape (steps + 1, actions)."""
    logits = start.clone().requires_grad_(True)
    path = [logits.detach().log_softmax(-1)]
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(loss(logits.log_softmax(-1)), logits)
        with torch.no_grad():
            logits -= lr * gradient
        path.append(logits.detach().log_softmax(-1))
    return torch.stack(path)


def mean_loss(
    algorithm: Algorithm, reference: Tensor, pairs: Sequence[tuple[int, int]]
) -> Callable[[Tensor], Tensor]:
    """The runner's reduction: the sum of per-example losses over the number of examples."""
    return lambda logp: algorithm.loss(table_step(algorithm, logp, reference, pairs)).mean(-1)


class TableTools:
    """`xpo_bench.contract.algorithm.Tools` over one prompt's table, or several prompts with the same one."""

    def __init__(self, reference: Sequence[float] = REFERENCE, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.texts = [chr(ord("a") + i) for i in range(len(reference))]
        self.reference = np.log(reference)
        self.current = self.reference.copy()
        self.notes: dict[str, float] = {}
        self.examples: Sequence[Any] = ()
        self.rows = 10**6
        self.fitted: list[Sequence[Pair]] = []

    def generate(
        self, prompts: Sequence[str], samples: int, temperature: float = 1.0, top_k: int = 0
    ) -> list[list[Completion]]:
        logits = self.current / temperature
        if top_k:
            logits = np.where(logits >= np.sort(logits)[-top_k], logits, -np.inf)
        p = np.exp(logits) / np.exp(logits).sum()
        return [
            [Completion(x, self.texts[i]) for i in self.rng.choice(len(p), samples, p=p)] for x in prompts
        ]

    def logps(
        self, completions: Sequence[Completion], *, reference: bool = False, average: bool = False
    ) -> list[float]:
        table = self.reference if reference else self.current
        return [float(table[self.texts.index(c.text)]) for c in completions]

    def fit_reward(
        self, pairs: Sequence[Pair], weight_decay: float
    ) -> Callable[[Sequence[Completion]], list[float]]:
        self.fitted.append(pairs)
        return fit_table(pairs, weight_decay)

    def fit_ranker(
        self, pairs: Sequence[Pair], weight_decay: float
    ) -> Callable[[Sequence[Completion], Sequence[Completion]], list[float]]:
        return fit_ranker(pairs, weight_decay)

    def true_reward(self) -> Callable[[Sequence[Completion]], list[float]]:
        return lambda completions: [REWARD[self.texts.index(c.text)] for c in completions]

    def true_preference(self) -> Callable[[Sequence[Completion], Sequence[Completion]], list[float]]:
        reward = self.true_reward()
        return lambda first, second: [a - b for a, b in zip(reward(first), reward(second), strict=True)]

    def fit_tangent(self, reward: RewardModel, prompts: Sequence[str]) -> RewardModel:
        return reward  # a table expresses every reward

    def actions(self, prompt: str) -> list[Completion]:
        return [Completion(prompt, text) for text in self.texts]

    def note(self, name: str, value: float) -> None:
        self.notes[name] = value
