"""Bradley–Terry reward models, on tables and as heads on language models, and pairwise rankers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit, log_expit

from xpo_bench.contract.algorithm import Ranker, RewardModel
from xpo_bench.contract.examples import Completion, Pair

ITERATIONS = 5000
"""Steps of a fit at most."""
STATIONARY = 1e-6
"""Largest gradient, per unit of reward, of a fit that has converged; 1e-8 is the most that was seen."""
MAX_REWARD = 1e3
"""Without weight decay the fit to a certain preference has no finite optimum; it stops at this value."""


def fit_table(pairs: Sequence[Pair], weight_decay: float) -> RewardModel:
    """One reward per distinct completion, by penalised maximum likelihood.

    Minimises the mean over pairs of −log σ(r_chosen − r_rejected) plus weight_decay/2 · Σ r² / n_prompts,
    a strictly convex problem for weight_decay > 0. Completions that no pair mentions have reward 0.

    Args:
        pairs: the labelled preferences; repeated pairs count as often as they occur, and each by its share.
        weight_decay: strength of the quadratic penalty; 0 leaves a certain preference without a finite
            optimum, and the rewards are then bounded by `MAX_REWARD`.

    Source: Bradley & Terry 1952; Ouyang et al. 2022, eq. 1.
    """
    index: dict[tuple[str, str], int] = {}
    for pair in pairs:
        for text in (pair.chosen, pair.rejected):
            index.setdefault((pair.prompt, text), len(index))
    counts: defaultdict[tuple[int, int], float] = defaultdict(float)
    for p in pairs:
        counts[index[p.prompt, p.chosen], index[p.prompt, p.rejected]] += p.share
    rows = np.repeat(np.arange(len(counts)), 2)
    signs = np.tile([1.0, -1.0], len(counts))
    design = csr_array((signs, (rows, np.array(list(counts)).ravel())), shape=(len(counts), len(index)))
    fitted = _logistic(design, np.array(list(counts.values())), weight_decay / _prompts(pairs))
    values = {key: float(fitted[i]) for key, i in index.items()}
    return lambda completions: [values.get((c.prompt, c.text), 0.0) for c in completions]


def fit_ranker(pairs: Sequence[Pair], weight_decay: float) -> Ranker:
    """One log-odds per unordered pair of completions: nothing forces the preferences to be transitive.

    Minimises the same objective as `fit_table` with a free margin s(a, b) = −s(b, a) in place of r_a − r_b.
    Pairs that never occur have log-odds 0.

    Returns: (first, second) -> log-odds that each first completion is preferred to its second.

    Source: the pairwise reward-ranking model of Liu et al. 2023, §3.
    """
    index: dict[tuple[str, str, str], int] = {}
    counts: defaultdict[tuple[int, float], float] = defaultdict(float)
    for pair in pairs:
        low, high = sorted((pair.chosen, pair.rejected))
        which = index.setdefault((pair.prompt, low, high), len(index))
        counts[which, 1.0 if pair.chosen == low else -1.0] += pair.share
    columns, signs = np.array(list(counts)).T
    design = csr_array(
        (signs, (np.arange(len(counts)), columns.astype(np.int64))), shape=(len(counts), len(index))
    )
    fitted = _logistic(design, np.array(list(counts.values())), weight_decay / _prompts(pairs))

    def log_odds(first: Sequence[Completion], second: Sequence[Completion]) -> list[float]:
        out = []
        for a, b in zip(first, second, strict=True):
            low, high = sorted((a.text, b.text))
            which = index.get((a.prompt, low, high))
            out.append(0.0 if which is None else float(fitted[which]) * (1.0 if a.text == low else -1.0))
        return out

    return log_odds


def fit_head(
    features: Callable[[Sequence[Completion]], np.ndarray], pairs: Sequence[Pair], weight_decay: float
) -> RewardModel:
    """A linear Bradley–Terry reward on frozen features of a language model.

    Minimises the mean over pairs of −log σ(w·(φ_chosen − φ_rejected)) plus weight_decay/2 · |w|², with every
    feature scaled to unit variance over the training completions.

    Args:
        features: completions -> φ, shape (n, width).

    Source: Ouyang et al. 2022, eq. 1, with the body of the network frozen.
    """
    chosen = features([Completion(p.prompt, p.chosen) for p in pairs])
    rejected = features([Completion(p.prompt, p.rejected) for p in pairs])
    scale = np.concatenate([chosen, rejected]).std(0)
    scale[scale == 0] = 1.0
    fitted = _logistic((chosen - rejected) / scale, _shares(pairs), weight_decay) / scale

    def reward(completions: Sequence[Completion]) -> list[float]:
        return [float(v) for v in features(completions) @ fitted]

    return reward


def accuracy(reward: RewardModel, pairs: Sequence[Pair]) -> float:
    """Fraction of pairs, by their shares, whose chosen completion has the higher reward; ties count ½."""
    chosen = np.array(reward([Completion(p.prompt, p.chosen) for p in pairs]))
    rejected = np.array(reward([Completion(p.prompt, p.rejected) for p in pairs]))
    right, share = 0.5 + 0.5 * np.sign(chosen - rejected), _shares(pairs)
    return float((right * share).sum() / share.sum())


def _shares(pairs: Sequence[Pair]) -> np.ndarray:
    """What part of a row of the data every pair is, shape (n,): 1 unless labels are soft."""
    return np.array([pair.share for pair in pairs])


def _prompts(pairs: Sequence[Pair]) -> int:
    return len({pair.prompt for pair in pairs})


def _logistic(design: csr_array | np.ndarray, counts: np.ndarray, penalty: float) -> np.ndarray:
    """argmin of the count-weighted mean of −log σ(design @ x) plus penalty/2 · Σ x², shape (parameters,).

    Raises:
        ArithmeticError: the search has not converged.
    """
    weight = counts / counts.sum()
    transposed = design.T.tocsr() if isinstance(design, csr_array) else design.T

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        margin = design @ x
        # d/dm of −log σ(m) is σ(m) − 1
        gradient = transposed @ (weight * (expit(margin) - 1.0)) + penalty * x
        return float(-weight @ log_expit(margin) + penalty / 2 * x @ x), gradient

    n = design.shape[1]
    fit = minimize(
        objective,
        np.zeros(n),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-MAX_REWARD, MAX_REWARD)] * n,
        options={"maxiter": ITERATIONS, "maxfun": 2 * ITERATIONS, "ftol": 1e-15, "gtol": 1e-10},
    )
    slope = objective(fit.x)[1]
    inward = np.where(slope > 0, fit.x > -MAX_REWARD, fit.x < MAX_REWARD)  # at a bound it may point outwards
    largest = float(np.abs(np.where(inward, slope, 0.0)).max(initial=0.0))
    if not largest <= STATIONARY:
        raise ArithmeticError(
            f"the fit of a reward has not converged: gradient {largest:.3g} after {fit.nit} steps "
            f"({fit.message})"
        )
    return np.asarray(fit.x)
