"""gold_text: short stories with a reward for every text, so that samples of a policy can be judged.

A prompt is the first sentence of a children's story, a completion its next two, drawn once from a pretrained
story model (`benchmarks/gold_text_samples.py`) and part of the version. The reward counts pleasant things
that happen, less unpleasant ones, each word once, and takes off for words said again:

    r = (distinct pleasant words) − (distinct unpleasant words) − 4 · (fraction of words that repeat one of
    the previous 8)

Labels follow Bradley and Terry: P(a ≻ b) = σ((r_a − r_b) / temperature). All algorithms start from the model
after a supervised warm start on the completions of the training prompts. Samples of the policy give
`gold_reward`, `gold_gain` over the initial policy, `win_rate`, `sample_length` and `kl`, also along the run
(`--json`, curves).

What to expect: gold_reward rises with √KL, then stops and falls where a method leans on what only the labels,
or a fitted reward, seem to say: long and repetitive texts. Methods that sample (`rso`, `ppo`, `online_dpo`,
`bon`) earn more per KL.

Learning rates: on validation rows 1e-5 and 1e-4 do not differ significantly and 1e-3 is worse for most (253
rows of a pretrained model of 260,000 weights, in results/learning_rates.json). At 1e-5 hardly anything moves
(.03 nats), so all but `npo`, which nothing stops at 1e-4 (221 nats), use 1e-4.

Source: this suite, after Gao et al. (2022) for the gold reward; word lists by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt, Interval
from typing_extensions import Doc

from xpo_bench import Budget, Completion, Dataset, ModelSpec, Pair, Task, hookimpl, stream

WORD = re.compile(r"[a-z']+")


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(WORD.findall(text.lower()))


PLEASANT = words(
    """
    amazing beautiful best better bright brave cake careful colorful cozy curious cute dance danced
    dancing delicious enjoy enjoyed excited family favorite fluffy friend friendly friends fun funny
    gentle gift glad good grateful great happily happy help helped hug hugged joy juicy kind kindness
    laugh laughed laughing love loved lovely loves lucky magic magical nice perfect play played playing
    pretty proud rainbow safe share shared sharing shiny sing singing smile smiled smiling soft special
    strong sunny surprise sweet tasty thank thanked together treasure treat warm wonderful yummy
    """
)
UNPLEASANT = words(
    """
    afraid alone angry bad bored boring break broke broken cold cried cry crying danger dangerous dark
    dirty fell fight grumpy hard hungry hurt hurts ill jealous lonely lost loud mad mean mess messy
    monster naughty pain rotten sad sadly scared scary sick sorry stuck terrible tired trouble ugly
    unhappy upset wet worried worry wrong yelled
    """
)
WINDOW = 8
"""Words back in which a word counts as repeated."""
REPETITION = 4.0
"""Reward that a text loses when all its words are repetitions."""


def reward(text: str) -> float:
    """The gold reward of a text; 0 without words."""
    said, seen = WORD.findall(text.lower()), words(text)
    if not said:
        return 0.0
    repeated = sum(word in said[max(0, i - WINDOW) : i] for i, word in enumerate(said))
    return len(seen & PLEASANT) - len(seen & UNPLEASANT) - REPETITION * repeated / len(said)


def gold(completion: Completion) -> float:
    """The gold reward of a completion, whatever its prompt."""
    return reward(completion.text)


@cache
def stories() -> Mapping[str, tuple[str, ...]]:
    """Prompt -> its completions, in the order of the file."""
    lines = files("xpo_bench_plugins").joinpath("data/gold_text.jsonl").read_text().splitlines()
    return {row["prompt"]: tuple(row["completions"]) for row in map(json.loads, lines)}


@dataclass(frozen=True)
class GoldText(Task):
    """Text with a known reward: over-optimisation can be seen."""

    name: ClassVar[str] = "gold_text"
    version: ClassVar[str] = "1"
    model: ClassVar[ModelSpec] = ModelSpec(name="tiny", context=512)
    budget: ClassVar[Budget] = Budget(
        steps=100,
        batch_size=8,
        optimizer="adamw",
        lr=1e-4,
        warmup=0.1,
        clip=1.0,
        dtype="float32",
        warm_start=200,
        warm_start_lr=2e-3,
        eval_pairs=64,
        heldout_pairs=256,
        max_new_tokens=96,
    )

    learning_rates: ClassVar[Mapping[str, float]] = {"npo": 1e-5}

    temperature: Annotated[float, Gt(0), Doc("of the Bradley–Terry labels, in units of reward")] = 1.0
    heldout_prompts: Annotated[
        int, Interval(ge=1, le=200), Doc("prompts of which every pair is held out")
    ] = 64

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """Completions of every prompt, matched and labelled at this seed; held-out prompts never change."""
        rng = stream(seed, self.name, "data")
        held = set(stream(0, self.name, "world").permutation(len(stories()))[: self.heldout_prompts].tolist())
        train: list[Pair] = []
        heldout: list[Pair] = []
        corpus: list[Completion] = []
        for i, (prompt, texts) in enumerate(stories().items()):
            (heldout if i in held else train).extend(self._pairs(prompt, texts, rng))
            if i not in held:
                corpus += [Completion(prompt, text) for text in texts]
        order = rng.permutation(len(train))
        return Dataset(
            train=tuple(train[k] for k in order),
            heldout=tuple(heldout),
            rows=len(train) + len(heldout),
            corpus=tuple(corpus),
            gold=gold,
        )

    def _pairs(self, prompt: str, texts: tuple[str, ...], rng: np.random.Generator) -> list[Pair]:
        order = rng.permutation(len(texts)).tolist()
        out = []
        for i, j in zip(order[0::2], order[1::2], strict=False):
            a, b = texts[i], texts[j]
            p = float(1 / (1 + np.exp((reward(b) - reward(a)) / self.temperature)))
            out.append(Pair(prompt, a, b, p) if rng.random() < p else Pair(prompt, b, a, 1 - p))
        return out


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [GoldText]
