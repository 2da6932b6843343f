"""What every algorithm declares: defaults, bounds, documented fields, published ranges."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from xpo_bench import Algorithm, Pair
from xpo_bench.plugins import load

BUILT_IN = {
    name: cls
    for name, (cls, info) in load().algorithms.items()
    if info.module.startswith("xpo_bench_plugins.")
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "dpo": {"beta": 0.1},
    "ipo": {"tau": 0.1, "normalize": "tokens"},
    "cdpo": {"beta": 0.1, "label_smoothing": 0.1},
    "robust": {"beta": 0.1, "label_smoothing": 0.1},
    "cpo": {"beta": 0.1, "nll_weight": 1.0},
    "simpo": {"beta": 2.0, "gamma": 1.0},
    "kto": {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0},
    "npo": {"beta": 0.1, "retain_weight": 0.0},
    "orpo": {"odds_weight": 0.1},
    "sdpo": {"beta": 0.1, "stages": 2, "data": "easy_to_hard"},
    "rso": {
        "beta": 0.5,
        "gamma": 0.05,
        "candidates": 64,
        "kept": 8,
        "loss": "sigmoid_norm",
        "temperature": 1.0,
        "top_k": 0,
        "distinct": False,
        "ranker": "bradley_terry",
        "reward_weight_decay": 0.01,
    },
    "dpop": {"beta": 0.3, "penalty_weight": 50.0},
    "slic": {"margin": 1.0, "nll_weight": 0.1},
    "sft": {},
    "rlhf": {"beta": 0.1, "reward_weight_decay": 0.01},
    "ppo": {"beta": 0.1, "reward_weight_decay": 0.01, "samples": 4, "clip": 0.2, "epochs": 1},
    "online_dpo": {"beta": 0.1, "labels": "larger", "pairs": 1, "reward_weight_decay": 0.01, "epochs": 1},
    "exo": {"beta": 0.1, "label_smoothing": 0.001},
    "nca": {"beta": 0.1},
    "bco": {"beta": 0.1, "momentum": 0.9, "matching": "none"},
    "alphapo": {"beta": 2.0, "gamma": 1.0, "alpha": 0.25},
    "tpo": {"beta": 0.1, "gold_weight": 1.0, "gamma": 0.0, "normalize": "none", "gold": "best"},
    "rloo": {"beta": 0.1, "reward": "fitted", "reward_weight_decay": 0.01, "samples": 4},
    "grpo": {
        "beta": 0.04,
        "reward": "fitted",
        "reward_weight_decay": 0.01,
        "samples": 8,
        "clip": 0.2,
        "epochs": 1,
        "scale": "std",
        "lengths": "mean",
    },
    "nash_md": {
        "tau": 0.1,
        "mixture": 0.125,
        "preference": "fitted",
        "reward_weight_decay": 0.01,
        "samples": 8,
    },
    "ipo_md": {
        "tau": 0.1,
        "mixture": 0.125,
        "preference": "fitted",
        "reward_weight_decay": 0.01,
        "samples": 8,
        "epochs": 1,
    },
    "sppo": {
        "eta": 10.0,
        "iterations": 3,
        "preference": "fitted",
        "reward_weight_decay": 0.01,
        "samples": 8,
    },
    "dpo_norm": {"beta": 5.0},
    "dpo_davidson": {"beta": 0.1, "nu": 2.0, "fit_nu": False},
    "dpo_rao_kupper": {"beta": 0.1, "theta": 3.0, "fit_theta": False},
    "rpo": {"beta": 0.1, "nll_weight": 1.0, "nll": "mean"},
    "apo_zero": {"beta": 0.1},
    "apo_down": {"beta": 0.1},
    "simper": {},
    "wpo": {"beta": 0.1},
    "chi_po": {"beta": 0.1, "clip": 10.0},
    "r_dpo": {"beta": 0.1, "length_penalty": 0.01},
    "ld_dpo": {"beta": 0.1, "tail_weight": 0.5},
    "sampo": {"beta": 0.1},
    "aux_dpo": {"beta": 0.1, "reward_weight_decay": 0.01, "refit": 0},
    "bon": {"candidates": 16, "kept": 64, "reward_weight_decay": 0.01},
}
KL_STRENGTH = {"dpo", "robust", "rlhf", "ppo", "rloo", "wpo", "aux_dpo"}
REFERENCE_FREE = {
    "cpo",
    "simpo",
    "orpo",
    "slic",
    "sft",
    "ppo",
    "bon",
    "simper",
    "alphapo",
    "tpo",
    "rloo",
    "nash_md",
}
SIGNED = {("alphapo", "alpha")}
"""Numbers that may be below 0."""


def adapter(cls: type[Algorithm]) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def test_all_are_here() -> None:
    assert set(BUILT_IN) == set(DEFAULTS)


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_defaults_in_the_words_of_the_command_line(name: str) -> None:
    cls = BUILT_IN[name]
    ours = adapter(cls)
    assert ours.dump_python(ours.validate_python({}), by_alias=True) == DEFAULTS[name]
    assert ours.validate_python(DEFAULTS[name]) == cls()


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_unknown_and_meaningless_values_are_refused(name: str) -> None:
    ours = adapter(BUILT_IN[name])
    with pytest.raises(ValidationError):
        ours.validate_python({"no_such_field": 1})
    for key, value in DEFAULTS[name].items():
        wrong: list[Any] = ["nonsense"]
        if isinstance(value, float):
            wrong += [math.nan, math.inf] + ([] if (name, key) in SIGNED else [-1.0])
        elif isinstance(value, int) and not isinstance(value, bool):
            wrong += [-1, 1.5]
        for bad in wrong:
            with pytest.raises(ValidationError):
                ours.validate_python({key: bad})
    for smoothing in (0.5, 0.7):
        if "label_smoothing" in DEFAULTS[name]:
            with pytest.raises(ValidationError):
                ours.validate_python({"label_smoothing": smoothing})


@pytest.mark.parametrize(("name", "config"), [("sdpo", {"stages": 3}), ("rso", {"loss": "hinge_norm"})])
def test_words_that_are_also_methods(name: str, config: dict[str, Any]) -> None:
    cls = BUILT_IN[name]
    ours = adapter(cls)
    made = ours.validate_python(config)
    assert ours.dump_python(made, by_alias=True).items() >= config.items()
    assert ours.validate_python(ours.dump_python(made, by_alias=True)) == made
    inner: dict[str, Any] = {"n_stages": 3} if name == "sdpo" else {"loss_kind": "hinge_norm"}
    assert cls(**inner) == made
    with pytest.raises(ValidationError):
        ours.validate_python(inner)  # there is one word for it, not two
    assert callable(made.stages)
    assert callable(made.loss)


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_declarations(name: str) -> None:
    cls = BUILT_IN[name]
    assert cls.name == name
    assert cls.paper.startswith(("arXiv:", "https://"))
    assert (cls.kl_strength == "beta") == (name in KL_STRENGTH)
    assert (name in REFERENCE_FREE) == (not any(group.reference for group in cls.groups.values()))
    assert cls.batch_coupled == (name == "kto")
    assert (cls.accepts is Pair) == (name not in {"kto", "npo", "bco"})


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_module_docstring_states_equation_pitfalls_and_source(name: str) -> None:
    import sys

    text = sys.modules[BUILT_IN[name].__module__].__doc__ or ""
    assert "=" in text
    assert "Pitfalls:" in text
    assert "Source:" in text
