"""Runs of a small language model, by itself and beside others, and what of them has to be equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from xpo_bench import Budget, Dataset, ModelSpec, Pair, plugins
from xpo_bench.train.job import Job, Outcome
from xpo_bench_plugins.algorithms.dpo import DPO

SPEC = ModelSpec(name="tiny", hidden_size=16, intermediate_size=32, layers=2, heads=2, context=64)
# completions of unequal lengths, a repeated prompt, and an epoch that ends inside a batch
ROWS = tuple(
    Pair(f"say {x}", x * n, "no" * m)
    for x, n, m in [("a", 3, 1), ("b", 1, 4), ("c", 7, 2), ("c", 2, 2), ("e", 5, 5)]
)
HELDOUT = (Pair("say f", "ff", "nono"), Pair("say g", "g", "n"))
SEEDS = (0, 1, 5)
ALGORITHMS = sorted(name for name, (cls, _) in plugins.load().algorithms.items() if not cls.requires)
TIMED = {"pairs_per_s", "tokens_per_s", "prepare_s", "overhead", "peak_memory_mb", "total_flops"}


def job(name: str, seed: int, **budget: Any) -> Job:
    cls, _ = plugins.load().algorithm(name)
    settings: dict[str, Any] = {
        "steps": 8,
        "batch_size": 2,
        "dtype": "float64",
        "clip": 1.0,
        "optimizer": "adamw",
    }
    settings |= {"kl_prompts": 2, "kl_samples": 2, "max_new_tokens": 4} | budget
    return Job(
        cls(),
        "test",
        seed,
        3e-3,
        settings["optimizer"],
        Dataset(train=ROWS, heldout=HELDOUT),
        Budget(**settings),
    )


def numbers(outcome: Outcome) -> dict[str, Any]:
    return {
        "status": outcome.status,
        "metrics": {
            k: v
            for k, v in outcome.metrics.items()
            if v is not None and k.removeprefix("heldout_") not in TIMED
        },
        "curve": [{k: v for k, v in row.items() if k not in TIMED} for row in outcome.curve],
    }


def assert_close(outcome: Outcome, other: Outcome) -> None:
    """Equal but for rounding, which Adam magnifies where gradients vanish."""
    mine, theirs = numbers(outcome), numbers(other)
    assert mine["status"] == theirs["status"]
    assert mine["metrics"] == pytest.approx(theirs["metrics"], rel=1e-5, abs=1e-8)
    assert len(mine["curve"]) == len(theirs["curve"])
    for row, same in zip(mine["curve"], theirs["curve"], strict=True):
        assert row == pytest.approx(same, rel=1e-5, abs=1e-8)


Together = Callable[[Sequence[Job]], list[Outcome]]
ByItself = Callable[[Job], Outcome]
OTHER_BUDGETS: list[dict[str, Any]] = [
    {"optimizer": "sgd"},
    {"batch_size": 8},
    {"micro_batch": 1},
    {"label_noise": 0.4},
]


def assert_each_is_itself(jobs: Sequence[Job], together: Together, by_itself: ByItself) -> None:
    """Every run of several is the one that trains alone."""
    for j, outcome in zip(jobs, together(jobs), strict=True):
        assert_close(outcome, by_itself(j))


def assert_company_changes_no_bit(name: str, together: Together) -> None:
    """On full batches; the rows of a batch or a stage depend on the seed, and with them the padding."""
    first, second, third = (job(name, seed, batch_size=8) for seed in SEEDS)
    fast = Job(third.algorithm, "test", 7, 0.1, "adamw", third.dataset, third.budget)
    assert numbers(together([first, second, third])[0]) == numbers(together([second, fast, first])[2])


def assert_divergence_is_its_own(together: Together, by_itself: ByItself) -> None:
    """A run that diverges stands still, and the one beside it is the one that trains alone."""
    calm = job("dpo", 0)
    wild = Job(DPO(), "test", 1, 1e300, "sgd", calm.dataset, calm.budget)
    jobs = [Job(DPO(), "test", 0, 1e-2, "sgd", calm.dataset, calm.budget), wild]
    first, second = together(jobs)
    assert (first.status, second.status) == ("ok", "diverged")
    assert_close(first, by_itself(jobs[0]))
