"""Metrics of a language model's own samples, along its training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpo_bench.contract.examples import Completion
from xpo_bench.metrics.gold import gold_gain, win_rate
from xpo_bench.metrics.kl import kl_from_samples
from xpo_bench.policy.base import Notes, Sampling, Snapshot
from xpo_bench.random_streams import stream, torch_stream
from xpo_bench.train.job import Job

if TYPE_CHECKING:
    from xpo_bench.policy.language.sampling import Sampled

GOLD_POINTS = (0, 0.05, 0.1, 0.2, 0.4, 0.7, 1)
"""Fractions of the steps at which a policy with a gold reward is sampled: most of the KL is early."""


def quarters(steps: int) -> list[int]:
    """The steps of a language model's run at which held-out pairs are scored: 0, its quarters, the last."""
    return [round(k * steps / 4) for k in range(5)]


class OnPolicy:
    """Samples of the policy while it trains: Monte Carlo KL, entropy, and the gold reward where it is known.

    Common random numbers: the prompts are fixed, and so are the numbers that the draws are made of. The
    samples at two points then differ by the policy alone, and what is compared, such as the gold reward now
    and at step 0, has Var(a − b) = Var a + Var b − 2 Cov(a, b), far less than independent draws have.

    A policy is sampled where held-out pairs are scored, so that accuracy is known at a KL: at the quarters of
    the run. At step 0 its KL is 0, and nothing is sampled without a gold reward.
    """

    def __init__(self, policy: Sampling, job: Job, initial: Snapshot) -> None:
        self.policy, self.job, self.initial = policy, job, initial
        prompts = list(dict.fromkeys(e.prompt for e in job.dataset.train))
        order = stream(job.seed, job.task, "data", "kl prompts").permutation(len(prompts))
        self.prompts = [prompts[i] for i in sorted(order[: job.budget.kl_prompts])]
        self.reference: np.ndarray | None = None
        self.notes: Notes = {}
        steps = job.budget.steps
        self.points = set(quarters(steps))
        if job.dataset.gold is not None:
            self.points |= {round(fraction * steps) for fraction in GOLD_POINTS}

    def measure(self, step: int) -> dict[str, float]:
        """Metrics of one point, of new samples.

        `kl` and `kl_se` (nats, clustered by prompt), `token_entropy` (nats per token), `sample_length`
        (tokens). With a gold reward also `gold_reward`, `gold_gain` and `win_rate`, against the samples of
        the first call.
        """
        budget, job = self.job.budget, self.job
        if step == 0 and job.dataset.gold is None:
            return {"kl": 0.0}
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
        return out | self._gold(sampled)

    def _gold(self, sampled: Sampled) -> dict[str, float]:
        """The gold reward of samples; nothing where the task knows none."""
        gold = self.job.dataset.gold
        if gold is None:
            return {}
        items = zip(sampled.prompt_index.tolist(), sampled.texts, strict=True)
        rewards = [gold(Completion(self.prompts[i], text)) for i, text in items]
        found = np.array(rewards).reshape(len(self.prompts), self.job.budget.kl_samples)
        if self.reference is None:
            self.reference = found
        return {
            "gold_reward": float(found.mean()),
            "gold_gain": gold_gain(found, self.reference),
            "win_rate": win_rate(found, self.reference),
        }
