"""bandit: pairs drawn from a Bradley–Terry world whose reward is known.

A few prompts with a few actions each, rewards that span at least 8 in every prompt, and a reference that is
not uniform, so that forgetting the reference costs something. The exact optimum, KL and reward–KL frontier
are known.

What to expect: preferences near certainty (σ(8) > .999) reward methods that stop at a finite margin; π ∝
π_ref·exp(r/b) has frontier_gap 0 for every b. With `coverage` < 1 a fraction of the actions never occurs in
the data, and only methods that evaluate a reward elsewhere can tell them apart; `unseen_mass` is what the
policy gives to the others.

Training labels can be worse than the truth, while evaluation stays clean: colder or hotter (`temperature`),
in favour of length (`length_bias`), by people of different tastes (`annotators` with a `disagreement`), or
flipped (`--label-noise`).

Source: the contextual-bandit view of Rafailov et al. (2023), sections 3 and 4; preferences after Bradley and
Terry (1952).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt, Interval
from typing_extensions import Doc

from xpo_bench import Budget, Dataset, ModelSpec, Task, World, hookimpl, stream
from xpo_bench.data.synthetic import Annotators, bradley_terry_world, covered_actions, nuisance, sample_pairs

WORLD = "bandit"
"""Names the world and the draws, which other tasks use too."""


@dataclass(frozen=True)
class Bandit(Task):
    """Exact world with known reward; pairs are drawn anew for each seed."""

    name: ClassVar[str] = "bandit"
    version: ClassVar[str] = "1"
    budget: ClassVar[Budget] = Budget(steps=2000, batch_size=256, lr=0.05, sampling="epochs")
    learning_rates: ClassVar[Mapping[str, float]] = {
        "alphapo": 0.05,
        "apo_down": 0.05,
        "apo_zero": 0.002,
        "aux_dpo": 0.05,
        "bco": 0.05,
        "bon": 0.01,
        "cdpo": 0.05,
        "chi_po": 0.05,
        "cpo": 0.01,
        "dpo": 0.05,
        "dpo_davidson": 0.05,
        "dpo_norm": 0.002,
        "dpo_rao_kupper": 0.05,
        "dpop": 0.01,
        "exo": 0.05,
        "grpo": 0.01,
        "ipo": 0.01,
        "ipo_md": 0.05,
        "kto": 0.002,
        "ld_dpo": 0.05,
        "nash_md": 0.002,
        "nca": 0.002,
        "npo": 0.05,
        "online_dpo": 0.002,
        "orpo": 0.01,
        "ppo": 0.01,
        "r_dpo": 0.05,
        "rloo": 0.002,
        "robust": 0.05,
        "rpo": 0.01,
        "rso": 0.01,
        "sampo": 0.05,
        "sdpo": 0.25,
        "sft": 0.01,
        "simper": 0.05,
        "simpo": 0.05,
        "slic": 0.01,
        "sppo": 0.002,
        "tpo": 0.05,
        "wpo": 0.25,
    }

    prompts: Annotated[int, Interval(ge=1, le=1000), Doc("prompts of the world")] = 8
    actions: Annotated[int, Interval(ge=2, le=1000), Doc("actions of every prompt")] = 6
    pairs: Annotated[int, Gt(0), Doc("training pairs")] = 1024
    heldout_pairs: Annotated[int, Interval(ge=0), Doc("held-out pairs")] = 256
    coverage: Annotated[
        float,
        Interval(gt=0, le=1),
        Doc("fraction of each prompt's actions that occur in the data, at least two"),
    ] = 1.0
    temperature: Annotated[
        float, Gt(0), Doc("of the training labels: above 1 closer to coins, below 1 closer to certain")
    ] = 1.0
    length_bias: Annotated[
        float, Doc("log-odds that training labels give a standard deviation of length, which earns nothing")
    ] = 0.0
    annotators: Annotated[
        int, Interval(ge=1, le=1000), Doc("annotators of the training pairs, one drawn at random for each")
    ] = 1
    disagreement: Annotated[
        float, Interval(ge=0), Doc("standard deviation of an annotator's own rewards around the true ones")
    ] = 0.0

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """The world of the version, and pairs drawn at this seed; `p_chosen` is the true probability.

        Raises:
            xpo_bench.errors.DataError: too few pairs to contain every covered action.
        """
        world = bradley_terry_world(WORLD, self.version, self.prompts, self.actions)
        covered = covered_actions(world, WORLD, self.version, self.coverage)
        rng = stream(seed, WORLD, "data")
        return Dataset(
            train=sample_pairs(world, covered, self.pairs, rng, annotators=self._annotators(world)),
            heldout=sample_pairs(world, covered, self.heldout_pairs, rng, cover=False),
            rows=self.pairs + self.heldout_pairs,
            world=world,
        )

    def _annotators(self, world: World) -> Annotators:
        """Who labels the training pairs; held-out pairs are labelled by the true preference."""
        offsets = [
            nuisance(world, WORLD, self.version, "annotator", k)
            for k in range(self.annotators if self.disagreement else 0)
        ]
        scaled = [
            {x: {y: self.disagreement * v for y, v in of.items()} for x, of in one.items()} for one in offsets
        ]
        return Annotators(
            temperature=self.temperature,
            length_bias=self.length_bias,
            length=nuisance(world, WORLD, self.version, "length") if self.length_bias else {},
            offsets=tuple(scaled),
        )


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Bandit]
