"""What only language models need around training: the warm start, shared reference scores, sampled metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from xpo_bench.contract.examples import Completion, Pair
from xpo_bench.contract.scoring import Scores
from xpo_bench.contract.settings import Budget, ModelSpec
from xpo_bench.metrics.gold import gold_gain, win_rate
from xpo_bench.metrics.kl import kl_from_samples
from xpo_bench.random_streams import stream, torch_stream
from xpo_bench.train.batching import row_schedule
from xpo_bench.train.clock import Clock
from xpo_bench.train.job import Job
from xpo_bench.train.optim import ModuleOptimizer

GOLD_POINTS = (0, 0.05, 0.1, 0.2, 0.4, 0.7, 1)
"""Shares of the steps at which the policy is sampled where a gold reward is known: early ones, where most of
the KL is.
"""


def initial_identity(model: ModelSpec, budget: Budget, job: Job) -> tuple[Any, ...]:
    """Cells with equal identities start from the same weights: random ones and warm starts depend on the
    seed.
    """
    seeded = model.name == "tiny" or budget.warm_start > 0
    return (model.name, job.seed if seeded else None, budget.warm_start)


def prepare_initial(policy: Any, job: Job, truncate: str) -> None:
    """The supervised warm start on the corpus or the chosen completions: the same for all algorithms of a
    task and seed.

    Processes that share the layers of the model all take it, on the same rows.
    """
    budget = job.budget
    if not budget.warm_start:
        return
    good = list(job.dataset.corpus) or [
        Completion(e.prompt, e.chosen if isinstance(e, Pair) else e.completion)
        for e in job.dataset.train
        if isinstance(e, Pair) or e.desirable
    ]
    encoded = policy.encode(good, truncate)
    fit = torch.tensor([i for i in range(len(good)) if encoded.row(i) is not None], dtype=torch.long)
    rng = stream(job.seed, job.task, "order", "warm start")
    schedule = row_schedule(len(fit), budget.batch_size, budget.warm_start, "epochs", rng)
    optimizer = ModuleOptimizer("adamw", policy.parameters(), budget.warm_start_lr, 1.0, policy.sharding)
    copies = policy.sharding.count if policy.sharding else 1
    for t in range(budget.warm_start):
        index = (fit if schedule is None else fit[torch.from_numpy(schedule[t]).long()])[None]
        loss = -policy.score({"chosen": (encoded, index)}, grad=True)["chosen"].mean.mean()
        optimizer.step(policy.gradients(loss / copies), 1.0, None)


@dataclass(frozen=True)
class CachedScore:
    """Log-probabilities of one completion, shape (T,), and the seconds that scoring it took."""

    token_logps: Tensor
    seconds: float


class ScoreCache(Protocol):
    """Reference scores by completion; a dictionary is one."""

    def __contains__(self, item: object, /) -> bool: ...
    def __getitem__(self, item: Completion, /) -> CachedScore: ...
    def __setitem__(self, item: Completion, score: CachedScore, /) -> None: ...


class ReferenceScorer:
    """Scores under the initial policy, each completion once per (task, initial policy), whichever cell asks
    first.

    `uncharged_cost` adds up what the scores would have cost a cell that ran alone: the seconds of those that
    were found in the cache, and the operations of all, which are not counted where they are computed.
    """

    def __init__(self, policy: Any, initial: Any, cache: ScoreCache) -> None:
        self.policy, self.initial, self.cache = policy, initial, cache
        self.uncharged_cost = (0.0, 0.0)

    def __call__(
        self, completions: Sequence[Sequence[Completion]], encoded: Any, used: Tensor | None
    ) -> Scores:
        """Scores of shape (1, E, T); rows that are not `used` are masked."""
        items = completions[0]
        wanted = range(len(encoded)) if used is None else used.tolist()
        missing = [i for i in wanted if items[i] not in self.cache]
        known = [self.cache[items[i]] for i in wanted if items[i] in self.cache]
        operations = self.policy.operations(encoded, wanted)
        self.uncharged_cost = (
            self.uncharged_cost[0] + sum(k.seconds for k in known),
            self.uncharged_cost[1] + operations,
        )
        if self.policy.anywhere(bool(missing)):
            self._compute(items, encoded, missing)
        found = {i: self.cache[items[i]].token_logps for i in wanted}
        width = max((len(values) for values in found.values()), default=1)
        dtype, device = self.policy.value_dtype, self.policy.device
        token_logps = torch.zeros(1, len(items), max(width, 1), dtype=dtype, device=device)
        mask = torch.zeros(1, len(items), max(width, 1), dtype=torch.bool, device=device)
        for i, values in found.items():
            token_logps[0, i, : len(values)] = values
            mask[0, i, : len(values)] = True
        return Scores(token_logps, mask)

    def _compute(self, items: Sequence[Completion], encoded: Any, missing: Sequence[int]) -> None:
        clock = Clock(str(self.policy.device))
        counted = self.policy.flops
        with clock.charge("prepare_s"), self.policy.using(self.initial):
            fresh = self.policy.score_all(encoded, torch.tensor(missing, dtype=torch.long))
        self.policy.flops = counted
        for i in missing:
            length = int(fresh.mask[0, i].sum())
            self.cache[items[i]] = CachedScore(
                fresh.token_logps[0, i, :length].clone(), clock.prepare_s / len(missing)
            )


class OnPolicy:
    """Samples of the policy while it trains: Monte Carlo KL, entropy, and the gold reward where the task
    knows it.

    The prompts are fixed and so are the random numbers, so that what differs along a run, and from the
    initial policy's samples at step 0, is the policy. Without a gold reward only the final policy is sampled.
    """

    def __init__(self, policy: Any, job: Job, initial: Any) -> None:
        self.policy, self.job, self.initial = policy, job, initial
        prompts = list(dict.fromkeys(e.prompt for e in job.dataset.train))
        order = stream(job.seed, job.task, "data", "kl prompts").permutation(len(prompts))
        self.prompts = [prompts[i] for i in sorted(order[: job.budget.kl_prompts])]
        self.reference: np.ndarray | None = None
        self.notes: dict[str, Any] = {}
        steps = job.budget.steps
        self.points = {round(share * steps) for share in GOLD_POINTS} if job.dataset.gold else {steps}

    def measure(self) -> dict[str, float]:
        """Metrics `kl`, `kl_se` (nats, clustered by prompt), `token_entropy` (nats per token),
        `sample_length` (tokens).

        With a gold reward also `gold_reward`, `gold_gain` and `win_rate`, against the samples of the first
        call.
        """
        budget, job = self.job.budget, self.job
        sampled = self.policy.sample(
            self.prompts,
            budget.kl_samples,
            max_new_tokens=budget.max_new_tokens,
            generator=torch_stream(job.seed, job.task, "generate", job.algorithm.name),
        )
        found = self.policy.sequence_kl(sampled, self.initial)
        kl, se = kl_from_samples(found.per_sample_kl.numpy(), found.prompt_index.numpy())
        self.notes = {
            "kl": "monte carlo",
            "kl_prompts": len(self.prompts),
            "kl_samples": budget.kl_samples,
            "kl_max_new_tokens": budget.max_new_tokens,
            "kl_finished": float(sampled.finished.float().mean()),
        }
        out = {"kl": kl, "kl_se": se, "token_entropy": found.entropy, "sample_length": found.mean_length}
        if job.dataset.gold is None:
            return out
        items = zip(sampled.prompt_index.tolist(), sampled.texts, strict=True)
        rewards = [job.dataset.gold(Completion(self.prompts[i], text)) for i, text in items]
        gold = np.array(rewards).reshape(len(self.prompts), budget.kl_samples)
        if self.reference is None:
            self.reference = gold
        return out | {
            "gold_reward": float(gold.mean()),
            "gold_gain": gold_gain(gold, self.reference),
            "win_rate": win_rate(gold, self.reference),
        }
