"""What a step on a pair does to its chosen answer, and which similarity of the two answers foresees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from xpo_bench import Completion, Pair, stream
from xpo_bench_plugins.tasks.gold_text import GoldText

if TYPE_CHECKING:
    import torch

    from xpo_bench.policy.language.ches import CausalLM

PAIRS, WARM_STEPS = 32, 40


def foresight(seed: int) -> Mapping[str, float]:
    """Spearman's rank correlation, over pairs of `gold_text`, of two similarities with displacement.

    Displacement is what a small step on the margin of one pair takes from its chosen answer, to first order:
    −⟨∇ log π(w), ∇ log π(w) − ∇ log π(l)⟩, on a small language model after a warm start. `ches` and `edit`
    are the correlations of CHES and of minus the normalised edit distance with it, both positive where a
    similarity foresees displacement; `lead` is the first minus the second.

    Source: Razin et al. 2024, section 5.
    """
    from rapidfuzz.distance import Levenshtein
    from scipy.stats import spearmanr

    from xpo_bench.policy.language.ches import CausalLM, ches

    task = GoldText()
    data = task.data(seed, task.model)
    rows = [row for row in data.train if isinstance(row, Pair)]
    pairs = [rows[i] for i in stream(seed, "claims", "ches").permutation(len(rows))[:PAIRS]]
    policy = CausalLM.load(task.model, init_seed=seed)
    warm_start(policy, data.corpus, seed)
    taken = [displacement(policy, pair) for pair in pairs]
    found = {
        "ches": ches(policy, pairs).sums,
        "edit": np.array([-Levenshtein.normalized_distance(pair.chosen, pair.rejected) for pair in pairs]),
    }
    out = {name: float(spearmanr(score, taken).statistic) for name, score in found.items()}
    return out | {"lead": out["ches"] - out["edit"]}


def warm_start(policy: CausalLM, corpus: Sequence[Completion], seed: int) -> None:
    """Supervised steps on the corpus, 16 completions each."""
    import torch

    optimizer = torch.optim.AdamW(policy.parameters(), lr=2e-3)
    rng = stream(seed, "claims", "warm start")
    for _ in range(WARM_STEPS):
        encoded = policy.encode([corpus[i] for i in rng.integers(len(corpus), size=16)])
        loss = -policy.score({"all": (encoded, None)}, grad=True)["all"].mean.mean()
        for parameter, gradient in zip(policy.parameters(), _gradients(policy, loss), strict=True):
            parameter.grad = gradient
        optimizer.step()


def displacement(policy: CausalLM, pair: Pair) -> float:
    """Minus the change of log π(chosen), nats per unit of step on the pair's margin."""
    encoded = policy.encode([Completion(pair.prompt, pair.chosen), Completion(pair.prompt, pair.rejected)])
    chosen, rejected = policy.score({"both": (encoded, None)}, grad=True)["both"].sum[0]
    of_chosen = _gradients(policy, chosen, keep=True)
    of_rejected = _gradients(policy, rejected)
    return -sum(float((w * (w - l)).sum()) for w, l in zip(of_chosen, of_rejected, strict=True))  # noqa: E741


def _gradients(policy: CausalLM, value: torch.Tensor, keep: bool = False) -> Sequence[torch.Tensor]:
    import torch

    return torch.autograd.grad(value, list(policy.parameters()), retain_graph=keep)
