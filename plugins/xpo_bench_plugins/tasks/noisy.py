"""noisy: the bandit with one training label in five flipped.

The world and the clean draws are those of `bandit` at the same seed, so the two tasks differ in the label
noise alone; the evaluation stays clean. What to expect: methods that trust every label follow the noise,
those that model a flip rate (`cdpo`, `robust`) or bound their margin (`ipo`) lose less. Another rate:
`--label-noise P`.

Source: the noise model of Chowdhury et al. (2024), section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from xpo_bench import Budget, Task, hookimpl
from xpo_bench_plugins.tasks.bandit import Bandit


@dataclass(frozen=True)
class Noisy(Bandit):
    """The bandit under label noise of .2."""

    name: ClassVar[str] = "noisy"
    budget: ClassVar[Budget] = replace(Bandit.budget, label_noise=0.2)
    learning_rates: ClassVar[Mapping[str, float]] = {
        "alphapo": 0.01,
        "apo_down": 0.05,
        "apo_zero": 0.01,
        "aux_dpo": 0.002,
        "bco": 0.05,
        "bon": 0.01,
        "cdpo": 0.05,
        "chi_po": 0.002,
        "cpo": 0.01,
        "dpo": 0.002,
        "dpo_davidson": 0.002,
        "dpo_norm": 0.002,
        "dpo_rao_kupper": 0.05,
        "dpop": 0.002,
        "exo": 0.05,
        "ipo": 0.01,
        "kto": 0.01,
        "ld_dpo": 0.002,
        "nca": 0.01,
        "npo": 0.01,
        "online_dpo": 0.002,
        "orpo": 0.01,
        "ppo": 0.05,
        "r_dpo": 0.002,
        "robust": 0.002,
        "rpo": 0.01,
        "rso": 0.01,
        "sampo": 0.002,
        "sdpo": 0.05,
        "sft": 0.01,
        "simper": 0.05,
        "simpo": 0.01,
        "slic": 0.25,
        "tpo": 0.05,
        "wpo": 0.002,
    }


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Noisy]
