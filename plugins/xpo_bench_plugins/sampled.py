"""What algorithms that sample from their policy share: rewards and preferences of samples, and their weights.

Arrays of samples have a row per prompt and a column per sample, shape `(prompts, samples)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from xpo_bench import Completion, Tools

Judge = Literal["fitted", "true"]
Reward = Callable[[Sequence[Completion]], list[float]]
"""Completions -> the reward of each."""
Preference = Callable[[Sequence[Completion], Sequence[Completion]], list[float]]
"""First and second completions -> the log-odds that each first one is preferred to its second."""


def prompts_of(examples: Sequence[Any]) -> list[str]:
    """The distinct prompts of a batch of rows, in order."""
    return list(dict.fromkeys(example.prompt for example in examples))


def flat(groups: Sequence[Sequence[Completion]]) -> list[Completion]:
    """The samples of all prompts, prompt by prompt."""
    return [completion for group in groups for completion in group]


def log_ratios(tools: Tools, drawn: Sequence[Completion], prompts: int) -> np.ndarray:
    """log π(y|x) − log π_ref(y|x) of samples, π_ref the initial policy, nats."""
    now, then = np.array(tools.logps(drawn)), np.array(tools.logps(drawn, reference=True))
    return np.asarray((now - then).reshape(prompts, -1))


def reward_of(kind: Judge, tools: Tools, weight_decay: float) -> Reward:
    """The Bradley–Terry reward fitted to all training rows, or the reward that the task states."""
    if kind == "true":
        return tools.true_reward()
    everything: Sequence[Any] = tools.examples
    return tools.fit_reward(everything, weight_decay)


def preference_of(kind: Judge, tools: Tools, weight_decay: float) -> Preference:
    """The preference fitted to all training rows, or the one that the task states.

    Fitted is a log-odds per pair of completions, without transitivity, where a policy is enumerable, so that
    pairs come again; and elsewhere the difference of fitted Bradley–Terry rewards. The note
    `transitive_preference` is 1 of the latter, else 0.
    """
    if kind == "true":
        return tools.true_preference()
    everything: Sequence[Any] = tools.examples
    try:
        tools.actions(everything[0].prompt)
    except LookupError:
        tools.note("transitive_preference", 1)
        return _differences(tools.fit_reward(everything, weight_decay))
    tools.note("transitive_preference", 0)
    return tools.fit_ranker(everything, weight_decay)


def _differences(reward: Reward) -> Preference:
    """The log-odds of Bradley and Terry; each completion's reward is asked for once."""

    def log_odds(first: Sequence[Completion], second: Sequence[Completion]) -> list[float]:
        distinct = list(dict.fromkeys([*first, *second]))
        value = dict(zip(distinct, reward(distinct), strict=True))
        return [value[a] - value[b] for a, b in zip(first, second, strict=True)]

    return log_odds


def win_rates(groups: Sequence[Sequence[Completion]], preference: Preference) -> np.ndarray:
    """P(first sample ≻ second sample) of every two samples of a prompt, shape (prompts, samples, samples)."""
    known = [list(dict.fromkeys(group)) for group in groups]
    first = [a for distinct in known for a in distinct for _ in distinct]
    second = [b for distinct in known for _ in distinct for b in distinct]
    odds, out, start = np.array(preference(first, second)), [], 0
    for group, distinct in zip(groups, known, strict=True):
        n = len(distinct)
        # σ(x) as ½ + ½ tanh(x/2), which does not overflow
        table = 0.5 + 0.5 * np.tanh(odds[start : start + n * n].reshape(n, n) / 2)
        place = {completion: i for i, completion in enumerate(distinct)}
        rows = [place[completion] for completion in group]
        out.append(table[np.ix_(rows, rows)])
        start += n * n
    return np.stack(out)


def mixture_weights(log_ratio: np.ndarray, mixture: float) -> np.ndarray:
    """Weights that turn samples of π into samples of π^(1−m) π_ref^m, of mean 1 per prompt.

    The importance weight of a sample is (π_ref/π)^m up to the constant of the mixture, which its mean over
    the prompt's samples estimates.
    """
    weight = np.exp(-mixture * (log_ratio - log_ratio.min(-1, keepdims=True)))
    return np.asarray(weight / weight.mean(-1, keepdims=True))


def mean_of_others(values: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """The weighted mean of the OTHER samples of the prompt, for each sample; needs at least 2."""
    weight = np.ones_like(values) if weight is None else weight
    total, count = (weight * values).sum(-1, keepdims=True), weight.sum(-1, keepdims=True)
    return np.asarray((total - weight * values) / (count - weight))
