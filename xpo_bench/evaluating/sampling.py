"""Samples of a checkpoint: its KL, entropy and length, and what a judge says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xpo_bench.evaluating.judging import Judge
from xpo_bench.metrics.gold import gold_gain, win_rate
from xpo_bench.metrics.kl import kl_from_samples
from xpo_bench.random_streams import stream, torch_stream

if TYPE_CHECKING:
    from xpo_bench.contract.examples import Dataset
    from xpo_bench.policy.language.causal_lm import CausalLM
    from xpo_bench.policy.language.sampling import Sampled, SequenceKL


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What is sampled: the prompts and the random numbers that `run` takes for the KL of a policy.

    Args:
        samples: of each prompt. limit: tokens of a sample. stream: whose random numbers.
    """

    prompts: tuple[str, ...]
    samples: int
    limit: int
    seed: int
    task: str
    stream: str


@dataclass(frozen=True)
class Samples:
    """Texts that were drawn, all of a prompt next to each other."""

    prompts: tuple[str, ...]
    texts: tuple[str, ...]


def kl_prompts(dataset: Dataset, seed: int, task: str, most: int) -> tuple[str, ...]:
    """The prompts that are sampled, in the order of the file."""
    prompts = list(dict.fromkeys(e.prompt for e in dataset.train))
    order = stream(seed, task, "data", "kl prompts").permutation(len(prompts))
    return tuple(prompts[i] for i in sorted(order[:most]))


def sample(policy: CausalLM, drawing: Drawing) -> Sampled:
    """Draw."""
    return policy.sample(
        drawing.prompts,
        drawing.samples,
        max_new_tokens=drawing.limit,
        generator=torch_stream(drawing.seed, drawing.task, "generate", drawing.stream),
    )


def draw(policy: CausalLM, drawing: Drawing) -> Samples:
    """Draw, and keep the texts alone."""
    return texts_of(drawing, sample(policy, drawing))


def texts_of(drawing: Drawing, sampled: Sampled) -> Samples:
    index = sampled.prompt_index.tolist()
    return Samples(tuple(drawing.prompts[i] for i in index), sampled.texts)


def sampled_metrics(found: SequenceKL) -> dict[str, float]:
    """`kl`, `kl_se`, `token_entropy` and `sample_length` of what was computed along samples."""
    kl, se = kl_from_samples(found.per_sample_kl.numpy(), found.prompt_index.numpy())
    return {"kl": kl, "kl_se": se, "token_entropy": found.entropy, "sample_length": found.mean_length}


def sampled_notes(drawing: Drawing, sampled: Sampled) -> dict[str, Any]:
    """How it was sampled, for the record."""
    return {
        "kl": "monte carlo",
        "kl_prompts": len(drawing.prompts),
        "kl_samples": drawing.samples,
        "kl_max_new_tokens": drawing.limit,
        "kl_finished": float(sampled.finished.float().mean()),
    }


def judged(
    judge: Judge, drawing: Drawing, own: Samples, reference: Samples, known: Sequence[float]
) -> dict[str, float]:
    """`gold_reward`, `gold_gain` and `win_rate` against the reference's samples of the same prompts.

    Args:
        known: rewards of the reference's samples, of a judge that gives rewards.
    """
    shape = (len(drawing.prompts), drawing.samples)
    if judge.kind == "pair":
        # each sample meets the one that was drawn of the same random numbers
        won = judge.wins(own.prompts, own.texts, reference.texts)
        return {"win_rate": float(np.mean(won))}
    mine = np.array(judge.rewards(own.prompts, own.texts)).reshape(shape)
    theirs = np.array(known).reshape(shape)
    return {
        "gold_reward": float(mine.mean()),
        "gold_gain": gold_gain(mine, theirs),
        "win_rate": win_rate(mine, theirs),
    }
