"""Where a step takes a part of the rows, chance keeps the policy off its optimum, unless the rate falls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from runs import by_name
from scipy.optimize import minimize
from scipy.special import expit, log_expit, softmax

import xpo_bench
from xpo_bench import Pair
from xpo_bench.data.adhoc import TABULAR_BUDGET
from xpo_bench.train.job import Job, Outcome
from xpo_bench_plugins.algorithms.dpo import DPO

MakeJob = Callable[..., Job]
Train = Callable[[Sequence[Job]], list[Outcome]]

ITEMS = 6
SEEDS = range(4)


def games(rows: int) -> np.ndarray:
    """(winner, loser) of Bradley–Terry games, shape (rows, 2)."""
    rng = np.random.default_rng(1)
    reward = rng.normal(size=ITEMS)
    both = np.array([rng.choice(ITEMS, 2, replace=False) for _ in range(rows)])
    first = rng.random(rows) < expit(reward[both[:, 0]] - reward[both[:, 1]])
    return np.where(first[:, None], both, both[:, ::-1])


def optimum(played: np.ndarray) -> np.ndarray:
    """The policy of DPO's optimum under β = 1, by scipy."""
    wins = np.zeros((ITEMS, ITEMS))
    np.add.at(wins, tuple(played.T), 1.0)

    def loss(free: np.ndarray) -> float:
        theta = np.append(free, 0.0)
        return -float((wins * log_expit(theta[:, None] - theta[None, :])).sum() / wins.sum())

    return np.asarray(softmax(np.append(minimize(loss, np.zeros(ITEMS - 1), options={"gtol": 1e-9}).x, 0.0)))


def errors(outcomes: Sequence[Outcome], best: np.ndarray) -> list[float]:
    """How far the probability of a completion is off, at most."""
    policies = [outcome.final_policy["x"] for outcome in outcomes if outcome.final_policy]
    assert len(policies) == len(SEEDS)
    return [max(abs(p[f"y{i}"] - best[i]) for i in range(ITEMS)) for p in policies]


def test_a_falling_rate_ends_at_the_optimum_and_a_constant_one_does_not(job: MakeJob, train: Train) -> None:
    played = games(4000)
    rows = [Pair("x", f"y{a}", f"y{b}") for a, b in played.tolist()]
    words = {"steps": 1200, "batch_size": 512}
    constant, falling = (
        train([job(DPO(beta=1), rows, seed=s, anneal=anneal, **words) for s in SEEDS])
        for anneal in (0.0, TABULAR_BUDGET.anneal)
    )
    best = optimum(played)
    assert max(errors(constant, best)) > 0.006
    assert max(errors(falling, best)) < 0.002
    assert np.mean(errors(falling, best)) < np.mean(errors(constant, best)) / 5


def test_a_full_batch_keeps_its_rate_to_the_bit(job: MakeJob, train: Train) -> None:
    rows = [Pair("x", "a", "b"), Pair("x", "b", "c"), Pair("x", "c", "a")] * 3
    plain, asked = (train([job(DPO(), rows, steps=50, anneal=anneal)])[0] for anneal in (0.0, 0.9))
    assert plain.curve == asked.curve


@pytest.mark.parametrize(("size", "anneal"), [(2, TABULAR_BUDGET.anneal), (4096, 0.0)])
def test_the_record_says_whether_the_rate_falls(tmp_path: Path, size: int, anneal: float) -> None:
    """An ad-hoc set on a table has it by default, where it has more rows than a batch takes."""
    data = tmp_path / "rows.csv"
    data.write_text("prompt,chosen,rejected\n" + "x,a,b\n" * 3 + "x,b,a\n", "utf-8")
    words = {"steps": 4, "batch_size": size, "seeds": 1, "out": tmp_path / "run"}
    assert xpo_bench.run("dpo", data=str(data), **words).ok  # type: ignore[arg-type]
    assert by_name(tmp_path / "run")["dpo"]["task"]["budget"]["anneal"] == anneal
