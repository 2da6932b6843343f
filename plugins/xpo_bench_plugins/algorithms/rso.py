"""RSO: pairs sampled from the estimated optimal policy by statistical rejection, then a DPO-like loss.

Data, from the initial policy and a reward r fitted to the training preferences: draw k candidates per
prompt, accept candidate c with probability exp((r_c − r_max)/β) until n are accepted, pair the accepted at
random within the prompt, label each pair by reward.

    sigmoid_norm:  loss = −log σ(γ Δ)             hinge_norm:  loss = max(0, 1 − γ Δ),   Δ = lr_w − lr_l

Args:
    beta: KL strength β of the policy that the accepted candidates follow, 1/nats.
    gamma: scale γ of the log-ratios in the loss, 1/nats.
    candidates, kept: k candidates drawn and n accepted per prompt.
    loss_kind: set as `loss`; `"sigmoid_norm"` or `"hinge_norm"`.
    temperature, top_k, distinct: how candidates are drawn; the paper's .7, 40 and distinct texts change the
        law of the accepted candidates, which is π ∝ π_ref exp(r/β) at the defaults.
    ranker: what is fitted: `"bradley_terry"` rewards, or a `"pairwise"` preference model, whose reward is the
        log-odds against a baseline candidate.
    reward_weight_decay: strength of the quadratic penalty on rewards, dimensionless.

Pitfalls: candidates are distinguished by INDEX; a table keyed by text drops multiplicity and biases the law.
r_max is taken again after every pass, over the candidates still left. With few candidates the accepted ones
follow the optimum only approximately. They follow π*, the policy that is fitted to them need not: labels by
the larger reward, as in the paper, are certain, so that the loss has no finite optimum on them and β and γ
only set how far it gets. Hence no KL strength, and no `regret`. Where the reward is near certain all
survivors may be the same text: rounds with new candidates are added until one pair differs, and counted.

Source: Liu et al. 2023, Alg. 1, eq. 8 and 10.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt
from pydantic import Field
from typing_extensions import Doc

from xpo_bench import Algorithm, Completion, Example, Pair, Step, Tools, hookimpl, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor

Scorer = Callable[[Sequence[Completion]], np.ndarray]
Judge = Callable[[Completion, Completion], bool]

MAX_ROUNDS = 500
"""Rounds of sampling with new candidates until at least one pair has two different texts."""

PROMPTS_TOGETHER = 8
"""Prompts whose candidates are drawn at a time."""


@dataclass(frozen=True)
class RSO(Algorithm):
    name: ClassVar[str] = "rso"
    requires: ClassVar[frozenset[str]] = frozenset({"generate", "reward"})
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    source: ClassVar[str] = "Liu et al. 2023, Alg. 1, eq. 8 and 10"
    paper: ClassVar[str] = "arXiv:2309.06657"

    beta: Annotated[float, Gt(0), Doc("KL strength of the sampled policy, 1/nats")] = 0.5
    gamma: Annotated[float, Gt(0), Doc("scale of the log-ratios in the loss, 1/nats")] = 0.05
    candidates: Annotated[int, Ge(2), Doc("completions drawn per prompt")] = 64
    kept: Annotated[int, Ge(2), Doc("completions accepted per prompt, at most")] = 8
    # a field of the name `loss` would hide the method
    loss_kind: Annotated[
        Literal["sigmoid_norm", "hinge_norm"], Field(alias="loss"), Doc("form of the loss")
    ] = "sigmoid_norm"
    temperature: Annotated[float, Gt(0), Doc("sampling temperature, dimensionless")] = 1.0
    top_k: Annotated[int, Ge(0), Doc("sample from so many likeliest tokens or actions; 0 is all")] = 0
    distinct: Annotated[bool, Doc("leave out candidates that repeat a text")] = False
    ranker: Annotated[
        Literal["bradley_terry", "pairwise"],
        Doc("a reward per completion, or a preference model of pairs of completions"),
    ] = "bradley_terry"
    reward_weight_decay: Annotated[
        float, Ge(0), Doc("quadratic penalty on the fitted rewards, dimensionless")
    ] = 0.01

    def shape_data(self, examples: Sequence[Any], tools: Tools) -> Sequence[Example]:
        score, prefers = self._judge(examples, tools)
        prompts = list(dict.fromkeys(pair.prompt for pair in examples))
        pairs: list[Pair] = []
        accepted = tests = identical = rounds = 0
        while (
            not pairs and rounds < MAX_ROUNDS
        ):  # one round, unless every survivor of every prompt is the same text
            rounds += 1
            for pool in self._pools(prompts, tools):
                if len(pairs) >= tools.rows:  # more than training can visit
                    break
                rewards = score(pool)
                indices, tested = statistical_rejection_sampling(rewards, self.kept, self.beta, tools.rng)
                accepted, tests = accepted + len(indices), tests + tested
                order = tools.rng.permutation(indices)
                for i, j in zip(order[0::2], order[1::2], strict=False):
                    if pool[i].text == pool[j].text:
                        identical += 1
                        continue
                    chosen, rejected = (i, j) if prefers(pool[i], pool[j]) else (j, i)
                    pairs.append(Pair(pool[chosen].prompt, pool[chosen].text, pool[rejected].text))
        tools.note("acceptance_rate", accepted / tests)
        tools.note("identical_pairs", identical)
        tools.note("sampling_rounds", rounds)
        if not pairs:
            raise ValueError(
                f"rso: none of the pairs sampled in {rounds} rounds has two different texts "
                f"({identical} dropped); "
                "raise rso.beta, rso.kept or rso.candidates"
            )
        return pairs

    def _pools(self, prompts: Sequence[str], tools: Tools) -> Iterator[Sequence[Completion]]:
        """The candidates of every prompt; several prompts are sampled together, which is faster."""
        for start in range(0, len(prompts), PROMPTS_TOGETHER):
            together = prompts[start : start + PROMPTS_TOGETHER]
            for drawn in tools.generate(together, self.candidates, self.temperature, self.top_k):
                yield list(dict.fromkeys(drawn)) if self.distinct else drawn

    def _judge(self, examples: Sequence[Any], tools: Tools) -> tuple[Scorer, Judge]:
        """The reward of a pool's candidates, shape (k,), and whether the first of two is labelled chosen.

        A pairwise ranker gives a reward against a baseline candidate drawn from the pool, and labels pairs
        itself. At equal rewards the first is chosen; the order of a pair is random.
        """
        if self.ranker == "pairwise":
            log_odds = tools.fit_ranker(examples, self.reward_weight_decay)

            def against_baseline(pool: Sequence[Completion]) -> np.ndarray:
                baseline = pool[int(tools.rng.integers(len(pool)))]
                return np.array(log_odds(pool, [baseline] * len(pool)))

            return against_baseline, lambda a, b: log_odds([a], [b])[0] >= 0
        reward = tools.fit_reward(examples, self.reward_weight_decay)
        return lambda pool: np.array(reward(pool)), lambda a, b: reward([a])[0] >= reward([b])[0]

    def loss(self, step: Step) -> Tensor:
        margin = self.gamma * (step.log_ratio("chosen") - step.log_ratio("rejected"))
        if self.loss_kind == "hinge_norm":
            return (1 - margin).relu()  # eq. 10
        return -logsigmoid(margin)  # eq. 8


def statistical_rejection_sampling(
    rewards: np.ndarray, n: int, beta: float, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Accept up to n candidates, by index, each with probability exp((r − r_max)/β).

    Passes over the candidates still left are repeated, with r_max taken anew before each, until n are
    accepted or none is left.

    Args:
        rewards: reward of each candidate, shape (k,). n: how many to accept. beta: KL strength, 1/nats.

    Returns:
        indices of the accepted candidates in order of acceptance, and the number of acceptance tests made.

    Source: Liu et al. 2023, Alg. 1.
    """
    left = np.arange(len(rewards))
    accepted: list[int] = []
    tests = 0
    while len(accepted) < n and len(left):
        # π_ref·exp(r/β)/M with M = exp(r_max/β), the least bound over the candidates that are left
        probability = np.exp((rewards[left] - rewards[left].max()) / beta)
        hits = np.flatnonzero(rng.random(len(left)) < probability)[: n - len(accepted)]
        accepted += left[hits].tolist()
        # the pass ends with the acceptance that completes the n
        tests += int(hits[-1]) + 1 if len(accepted) == n else len(left)
        left = np.delete(left, hits)
    return np.array(accepted, dtype=np.int64), tests


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [RSO]
