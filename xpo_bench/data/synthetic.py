"""Synthetic worlds with a known truth, and labelled pairs drawn from them.

A world depends on its name and version alone, so that it is the same for every seed and on every machine;
only the pairs are drawn anew. The names in `__all__` are public: tasks of third parties may import them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from xpo_bench.contract.examples import Pair, World
from xpo_bench.data.draws import draw
from xpo_bench.data.preferences import preference
from xpo_bench.errors import DataError
from xpo_bench.random_streams import stream

__all__ = [
    "Annotators",
    "bradley_terry_world",
    "covered_actions",
    "nuisance",
    "pairs_of_reference",
    "preference",
    "sample_pairs",
    "world_stream",
]

LEAST_SPAN = 8.0
"""Least difference between the best and the worst reward of a prompt."""


def world_stream(name: str, version: str, *more: str | int) -> np.random.Generator:
    """The generator of everything about a task that no seed may change."""
    return stream(0, f"{name}@{version}", "world", *more)


@lru_cache(maxsize=32)
def bradley_terry_world(name: str, version: str, prompts: int, actions: int) -> World:
    """A world whose preferences follow P(a ≻ b | x) = σ(r(x, a) − r(x, b)) (Bradley and Terry, 1952).

    Rewards of a prompt run from 0 to a span between 8 and 10; the reference is the softmax of standard
    normal scores, so it is not uniform. Prompt i is the same whatever the number of prompts. Equal arguments
    give the same object, which nobody may change.

    Args:
        prompts, actions: the world's size; at least 1 and 2.
    """
    texts = tuple(f"y{a:0{len(str(actions - 1))}d}" for a in range(actions))
    reference: dict[str, dict[str, float]] = {}
    reward: dict[str, dict[str, float]] = {}
    for i in range(prompts):
        rng = world_stream(name, version, i, actions)
        score, taste = rng.standard_normal(actions), rng.standard_normal(actions)
        low = score.min()
        # affine in the score: the worst action has reward 0, the best one the span
        values = (score - low) / (score - low).max() * rng.uniform(LEAST_SPAN, LEAST_SPAN + 2)
        probabilities = np.exp(taste) / np.exp(taste).sum()
        reward[f"x{i}"] = dict(zip(texts, values.tolist(), strict=True))
        reference[f"x{i}"] = dict(zip(texts, probabilities.tolist(), strict=True))
    return World(actions=dict.fromkeys(reward, texts), reference=reference, reward=reward)


def covered_actions(world: World, name: str, version: str, coverage: float) -> dict[str, tuple[str, ...]]:
    """The `coverage` fraction of each prompt's actions, at least two, that may occur in data.

    A larger fraction contains a smaller one.
    """
    out: dict[str, tuple[str, ...]] = {}
    for i, (prompt, texts) in enumerate(world.actions.items()):
        order = _order(name, version, i, len(texts))
        out[prompt] = tuple(texts[a] for a in order[: max(2, round(coverage * len(texts)))])
    return out


@lru_cache(maxsize=1024)
def _order(name: str, version: str, prompt: int, actions: int) -> tuple[int, ...]:
    """In which order the actions of a prompt are covered."""
    shuffled = world_stream(name, version, "coverage", prompt, actions).permutation(actions)
    return tuple(shuffled.tolist())


Values = Mapping[str, Mapping[str, float]]
"""prompt -> action -> number."""


@dataclass(frozen=True, kw_only=True)
class Annotators:
    """Who labels the pairs of a world, and what else than the reward they go by.

    One of them, drawn at random, prefers a to b with probability σ((R(a) − R(b)) / temperature + bias·(l(a) −
    l(b))), where R is the reward plus an offset of their own, and l a length that the reward knows nothing
    of.

    Args:
        temperature: above 1 labels are closer to coins, below 1 closer to certain.
        length_bias: log-odds per standard deviation of length. length: l, standardised; needed with a bias.
        offsets: o of every annotator; none is one annotator who follows the reward alone.
    """

    temperature: float = 1.0
    length_bias: float = 0.0
    length: Values = field(default_factory=dict)
    offsets: tuple[Values, ...] = ()

    def probability(self, world: World, prompt: str, a: str, b: str, annotator: int | None = None) -> float:
        """The probability that a is labelled as preferred to b, by one annotator."""
        reward = world.reward[prompt]
        margin = reward[b] - reward[a]
        if annotator is not None:
            margin += self.offsets[annotator][prompt][b] - self.offsets[annotator][prompt][a]
        margin /= self.temperature
        if self.length_bias:
            margin += self.length_bias * (self.length[prompt][b] - self.length[prompt][a])
        # margin is that of b over a, so σ(−margin) = 1 / (1 + e^margin) is the probability of a
        return float(1 / (1 + np.exp(margin)))


def nuisance(world: World, name: str, version: str, *what: str | int) -> dict[str, dict[str, float]]:
    """A standard normal number per action, fixed by the world's version: lengths, tastes of an annotator."""
    return {
        prompt: dict(
            zip(
                texts,
                world_stream(name, version, i, len(texts), *what).standard_normal(len(texts)).tolist(),
                strict=True,
            )
        )
        for i, (prompt, texts) in enumerate(world.actions.items())
    }


def sample_pairs(
    world: World,
    actions: Mapping[str, tuple[str, ...]],
    pairs: int,
    rng: np.random.Generator,
    *,
    cover: bool = True,
    annotators: Annotators | None = None,
) -> tuple[Pair, ...]:
    """Labelled pairs of a Bradley–Terry world.

    Prompts take turns. Two different actions are drawn uniformly and labelled by one draw; `p_chosen` is the
    true probability for the ordering drawn, whoever labelled it, so it is below 1/2 where the draw went
    against the reward. The pairs are the same whoever labels them.

    Args:
        actions: the actions that may occur, per prompt. pairs: rows to draw.
        cover: the first rows of each prompt contain each of its actions once, so that all of them occur.
        annotators: who labels; by default somebody who follows the true preference probability.

    Raises:
        DataError: too few pairs to contain every action.
    """
    prompts = list(actions)
    needed = len(prompts) * max((len(texts) + 1) // 2 for texts in actions.values()) if cover else 0
    if pairs < needed:
        raise DataError(f"{pairs} pairs cannot contain every action; want at least {needed}")
    decks = [_deck(len(actions[prompt]), rng) if cover else [] for prompt in prompts]
    who = annotators or Annotators()
    turns = rng.spawn(1)[0]  # who labels a row must not change which rows there are
    # in turn, not at random: every prompt has the same number of rows, up to one. A number is drawn for every
    # row, whoever labels, so that all annotators see the same draws
    drawn = draw(rng, [len(actions[prompt]) for prompt in prompts], decks, pairs)
    # one whole number for prompt, both actions and annotator
    shape = (len(prompts), widest := max(map(len, actions.values())), widest, max(1, len(who.offsets)))
    labeller = turns.integers(len(who.offsets), size=pairs) if who.offsets else np.zeros(pairs, np.int64)
    where = (np.arange(pairs) % len(prompts), drawn.first, drawn.second, labeller)
    rows = np.ravel_multi_index(where, shape).tolist()
    known = _remembered(world, actions, who)
    for row in set(rows) - known.keys():
        number, i, j, annotator = map(int, np.unravel_index(row, shape))
        texts = actions[prompt := prompts[number]]
        known[row] = _labels(world, prompt, texts[i], texts[j], who, annotator if who.offsets else None)
    return tuple(
        ab if u < labelled else ba
        for u, (labelled, ab, ba) in zip(drawn.uniform.tolist(), map(known.__getitem__, rows), strict=True)
    )


def pairs_of_reference(world: World, pairs: int, rng: np.random.Generator) -> tuple[Pair, ...]:
    """Labelled pairs of what the reference writes: two different actions drawn from it, prompts in turn.

    Labelled by one draw of the true preference, which is the row's `p_chosen`; a fair coin has none, since
    training leaves out rows that say ½. Actions that the reference hardly knows are hardly compared.
    """
    prompts = list(world.actions)
    reference = {x: np.array([world.reference[x][y] for y in world.actions[x]]) for x in prompts}
    rows = []
    for row in range(pairs):
        x = prompts[row % len(prompts)]
        texts = world.actions[x]
        i, j = rng.choice(len(texts), 2, replace=False, p=reference[x] / reference[x].sum()).tolist()
        a, b = texts[i], texts[j]
        p = preference(world, x, a, b)
        chosen, rejected, q = (a, b, p) if rng.random() < p else (b, a, 1 - p)
        rows.append(Pair(x, chosen, rejected, None if q == 0.5 else q))
    return tuple(rows)


Labels = tuple[float, Pair, Pair]
"""How probable it is that the first action is labelled as preferred, the pair that says so, and the other."""
REMEMBERED = 1 << 15
"""Labels of one world that are kept from one set of pairs to the next at most."""


def _remembered(world: World, actions: Mapping[str, tuple[str, ...]], who: Annotators) -> dict[int, Labels]:
    """The labels that are known already: all seeds draw from the same few, unless the world is large."""
    size = sum(map(len, world.reward.values())) * (1 + len(who.offsets))
    if size > REMEMBERED or type(who) is not Annotators:  # a subclass may label by something else
        return {}
    known = _known(*_content(world, actions, who))
    if len(known) > REMEMBERED:
        known.clear()
    return known


@lru_cache(maxsize=8)
def _known(*content: object) -> dict[int, Labels]:
    """An empty dictionary that stays the same one for equal content."""
    return {}


def _content(world: World, actions: Mapping[str, tuple[str, ...]], who: Annotators) -> Iterator[object]:
    """Everything that labels depend on, to be compared."""
    for values in (world.reward, *((who.length,) if who.length_bias else ()), *who.offsets):
        yield tuple((prompt, tuple(of.items())) for prompt, of in values.items())
    yield tuple(actions.items())
    yield (who.temperature, who.length_bias)


def _labels(world: World, prompt: str, a: str, b: str, who: Annotators, annotator: int | None) -> Labels:
    p, labelled = preference(world, prompt, a, b), who.probability(world, prompt, a, b, annotator)
    source = None if annotator is None else f"annotator {annotator}"
    return labelled, Pair(prompt, a, b, p, source), Pair(prompt, b, a, 1 - p, source)


def _deck(n: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Pairs of indices that contain each of n indices at least once."""
    order = rng.permutation(n).tolist()
    if n % 2:
        # an odd number leaves one index without a partner: the first one plays twice
        order.append(order[0])
    return list(zip(order[::2], order[1::2], strict=True))
