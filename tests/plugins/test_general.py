"""general: what reward-based losses come to on a preference that no reward explains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow import as_a, numbers, present
from scipy.optimize import brentq, minimize
from scipy.special import log_expit

import xpo_bench
from xpo_bench import Completion, ModelSpec, Pair
from xpo_bench.data.dataset import fingerprint
from xpo_bench.errors import DataError
from xpo_bench.policy.reward_model import fit_ranker
from xpo_bench.runner.record import Record
from xpo_bench_plugins.tasks.cycle import Cycle
from xpo_bench_plugins.tasks.general import General

TABULAR = ModelSpec()


def cells(path: Path, task: Any, **words: Any) -> dict[str, Record]:
    words = {"algos": ["dpo", "ipo"], "seeds": 1, **words}
    result = xpo_bench.run(tasks=[task], out=path, **words)
    assert [c["status"] for c in result.cells] == ["ok"] * len(words["algos"])
    return {c["algorithm"]["name"]: c for c in result.cells}


def policy(cell: Record) -> list[float]:
    return list(present(cell["final_policy"])["x"].values())


def test_the_rows_are_the_preference_itself() -> None:
    dataset = General().data(0, TABULAR)
    assert dataset == General().data(7, TABULAR)
    rows = [as_a(Pair, e) for e in dataset.train]
    assert len(rows) == dataset.rows == 30
    for (a, b), p in present(dataset.world).preference["x"].items():
        won = sum((e.chosen, e.rejected) == (a, b) for e in rows)
        assert won == pytest.approx(10 * p)
        assert {e.p_chosen for e in rows if (e.chosen, e.rejected) == (a, b)} == {p}
    # so that the pairwise ranker fitted to them asks the true preference
    ranked = fit_ranker(rows, 0.0)([Completion("x", t) for t in "abc"], [Completion("x", t) for t in "bca"])
    np.testing.assert_allclose(1 / (1 + np.exp(-np.array(ranked))), [0.9, 0.8, 0.7], atol=1e-5)


def test_its_options_change_the_preference_and_the_fingerprint() -> None:
    finer = General(ab=0.95).data(0, TABULAR)
    assert finer.rows == 60
    assert fingerprint(finer) != fingerprint(General().data(0, TABULAR))
    with pytest.raises(DataError, match="want two decimals at most"):
        General(ab=0.123).data(0, TABULAR)


def bradley_terry() -> np.ndarray:
    """The rewards that fit the three win rates best, by their own likelihood."""

    def loss(r: np.ndarray) -> float:
        margins = np.array([r[0] - r[1], r[1] - r[2], r[2] - r[0]])
        p = np.array([0.9, 0.8, 0.7])
        return float(-(p * log_expit(margins) + (1 - p) * log_expit(-margins)).sum() + 1e-9 * (r @ r))

    found: np.ndarray = np.array(minimize(loss, np.zeros(3), tol=1e-14).x)
    return np.asarray(found - found.mean())


def test_dpo_and_ipo_end_at_the_borda_winner_and_can_be_exploited(tmp_path: Path) -> None:
    found = cells(tmp_path, "general", set={"dpo.beta": 0.1, "ipo.tau": 0.1})
    tilted = np.exp(bradley_terry() / 0.1)
    dpo, ipo = policy(found["dpo"]), policy(found["ipo"])
    assert dpo == pytest.approx(tilted / tilted.sum(), abs=1e-3)
    assert dpo[0] == pytest.approx(0.97, abs=1e-2)
    # IPO: h solves Σ_j (h_i − h_j) = Σ_j (p_ij − ½)/τ, so 3h = (.4 − .2, .3 − .4, .2 − .3)/τ
    h = np.array([0.2, -0.1, -0.1]) / 3 / 0.1
    assert ipo == pytest.approx(np.exp(h) / np.exp(h).sum(), abs=1e-3)
    for name, p in (("dpo", dpo), ("ipo", ipo)):
        metrics = numbers(found[name]["metrics"])
        assert int(np.argmax(p)) == 0  # the Borda winner
        against = np.array([[0.5, 0.9, 0.3], [0.1, 0.5, 0.8], [0.7, 0.2, 0.5]]) @ p
        assert metrics["exploitability"] == pytest.approx(against.max() - 0.5, abs=1e-12)
        assert metrics["borda"] == pytest.approx(np.dot(p, (0.6, 0.45, 0.45)), abs=1e-12)
    assert numbers(found["dpo"]["metrics"])["exploitability"] > 0.18


def test_ipo_goes_as_far_as_dpo_at_a_smaller_tau(tmp_path: Path) -> None:
    tau = brentq(lambda t: np.exp(0.1 / t) / (np.exp(0.1 / t) + 2) - 0.97, 0.01, 0.1)
    found = cells(tmp_path, "general", algos=["ipo"], set={"ipo.tau": tau, "task.steps": 4000})
    assert policy(found["ipo"]) == pytest.approx([0.97, 0.015, 0.015], abs=1e-2)


@pytest.mark.parametrize("task", [Cycle(), General(ab=0.9, bc=0.9, ca=0.9)], ids=["certain", "symmetric"])
def test_a_symmetric_cycle_cannot_tell_the_nash_policy_from_the_borda_winner(
    task: Any, tmp_path: Path
) -> None:
    """Both are the uniform policy there, and that is where both losses stay."""
    for cell in cells(tmp_path, task).values():
        assert policy(cell) == pytest.approx([1 / 3] * 3, abs=1e-9)
        if isinstance(task, General):
            assert numbers(cell["metrics"])["exploitability"] == pytest.approx(0, abs=1e-9)
            assert numbers(cell["metrics"])["borda"] == pytest.approx(0.5, abs=1e-9)


def test_it_is_judged_by_exploitability(tmp_path: Path) -> None:
    result = xpo_bench.run(algos=["dpo", "ipo"], tasks=["general"], seeds=2, steps=200, out=tmp_path)
    (verdict,) = result.document()["verdicts"]
    assert verdict["metric"] == "exploitability"
    assert [row["said"] for row in verdict["rows"]] == ["best", "worse"]
    assert verdict["rows"][0]["label"] == "ipo"  # which at τ = .1 has not gone as far
