"""The papers' identities, end to end: plugin, runner, record."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow import numbers, present
from runs import FEW_SAMPLES

import xpo_bench
from xpo_bench.runner.record import Record

REFERENCE = (0.4, 0.3, 0.2, 0.1)
REWARD = (0.0, 0.5, 1.0, 1.5)


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def write_pairs(path: Path, pairs: Sequence[tuple[str, str]]) -> str:
    path.write_text("".join(json.dumps({"prompt": "x", "chosen": w, "rejected": r}) + "\n" for w, r in pairs))
    return str(path)


def population(path: Path, per_pair: int = 600) -> str:
    """Bradley–Terry preferences of the four-action world, both orders in proportion."""
    pairs: list[tuple[str, str]] = []
    for i, a in enumerate("abcd"):
        for j, b in list(enumerate("abcd"))[i + 1 :]:
            wins = round(per_pair * sigma(REWARD[i] - REWARD[j]))
            pairs += [(a, b)] * wins + [(b, a)] * (per_pair - wins)
    return write_pairs(path, pairs)


def world(path: Path) -> str:
    names = "abcd"
    path.write_text(
        json.dumps(
            {
                "x": {
                    "reference": dict(zip(names, REFERENCE, strict=True)),
                    "reward": dict(zip(names, REWARD, strict=True)),
                }
            }
        )
    )
    return str(path)


def cells(tmp_path: Path, **words: Any) -> list[Record]:
    words.setdefault("seeds", 1)
    result = xpo_bench.run(out=tmp_path / "run", **words)
    assert [c["status"] for c in result.cells] == ["ok"] * result.planned
    return result.cells


def policy(cell: Record, names: str = "abcd") -> np.ndarray:
    probabilities = present(cell["final_policy"])["x"]
    return np.array([probabilities[n] for n in names])


def gibbs(beta: float) -> np.ndarray:
    weights = np.array(REFERENCE) * np.exp(np.array(REWARD) / beta)
    return np.asarray(weights / weights.sum())


def test_population_dpo_reaches_the_exact_optimum(tmp_path: Path) -> None:
    found = cells(
        tmp_path,
        algos="dpo",
        data=population(tmp_path / "p.jsonl"),
        world=world(tmp_path / "w.json"),
        model="tabular",
        set={"dpo.beta": [0.5, 1.0]},
    )
    known_kl = {0.5: 0.535643, 1.0: 0.140957}
    for cell in found:
        beta, m = cell["algorithm"]["config"]["beta"], numbers(cell["metrics"])
        assert np.abs(policy(cell) - gibbs(beta)).max() < 1e-3
        # rounding 600·σ to whole rows moves the optimum by so much
        assert abs(m["kl"] - known_kl[beta]) < 2e-3
        assert m["regret"] < 1e-5
        assert m["frontier_gap"] < 1e-5
        assert cell["notes"]["optimum_kl"] == pytest.approx(known_kl[beta], abs=1e-6)


def test_population_ipo_reaches_its_closed_form(tmp_path: Path) -> None:
    """π ∝ π_ref·exp(p*(y ≻ μ)/τ) with p*(y ≻ y) = ½ counted (Azar et al. 2023)."""
    (cell,) = cells(
        tmp_path,
        algos="ipo",
        data=population(tmp_path / "p.jsonl"),
        world=world(tmp_path / "w.json"),
        model="tabular",
        set={"ipo.tau": 0.5},
    )
    beaten = np.array([np.mean([sigma(a - b) for b in REWARD]) for a in REWARD])
    expected = np.array(REFERENCE) * np.exp(beaten / 0.5)
    assert np.abs(policy(cell) - expected / expected.sum()).max() < 1e-3


def test_ipo_on_two_actions_stops_where_tau_says_and_dpo_does_not(tmp_path: Path) -> None:
    found = cells(
        tmp_path,
        algos="dpo,ipo",
        data=write_pairs(tmp_path / "p.jsonl", [("a", "b")]),
        model="tabular",
        set={"ipo.tau": [0.1, 0.5, 1.0], "dpo.beta": [0.1, 0.5]},
    )
    expected = {0.1: 0.993307, 0.5: 0.731059, 1.0: 0.622459}
    for cell in found:
        p = policy(cell, "ab")[0]
        if cell["algorithm"]["name"] == "ipo":
            assert p == pytest.approx(expected[cell["algorithm"]["config"]["tau"]], abs=1e-4)
            assert cell["metrics"]["collapsed"] == 0
        else:
            assert p > 0.999
            assert numbers(cell["metrics"])["rejected_drift"] < -0.1


@pytest.mark.parametrize(("rate", "course"), [(0.1, "monotone"), (0.4, "oscillating"), (0.6, "divergent")])
def test_ipo_course_under_gradient_descent(tmp_path: Path, rate: float, course: str) -> None:
    """h_t = (1/2τ)(1 − (1−4η)^t) on one pair: the loss is the square of what is left."""
    import pyarrow.parquet as pq

    words: dict[str, Any] = {"algos": "ipo", "model": "tabular", "optimizer": "sgd", "lr": rate, "steps": 20}
    result = xpo_bench.run(
        out=tmp_path / "run", seeds=1, data=write_pairs(tmp_path / "p.jsonl", [("a", "b")]), **words
    )
    curve = pq.read_table(tmp_path / "run" / "curves" / f"{result.cells[0]['key']}.parquet").to_pydict()
    for step, loss in zip(curve["step"], curve["loss"], strict=True):
        assert loss == pytest.approx(25 * (1 - 4 * rate) ** (2 * step), rel=1e-6, abs=1e-12), (course, step)


def test_sdpo_stages_multiply_the_tilt(tmp_path: Path) -> None:
    """On full population data T stages at β end where one stage at β/T does."""
    common: dict[str, Any] = {
        "data": population(tmp_path / "p.jsonl"),
        "world": world(tmp_path / "w.json"),
        "model": "tabular",
    }
    (staged,) = cells(
        tmp_path,
        algos="sdpo",
        set={"sdpo.stages": 2, "sdpo.beta": 1.0, "sdpo.data": "all"},
        steps=4000,
        **common,
    )
    assert np.abs(policy(staged) - gibbs(0.5)).max() < 1e-3


def test_rlhf_is_the_gibbs_policy_of_its_fitted_reward(tmp_path: Path) -> None:
    (cell,) = cells(
        tmp_path,
        algos="rlhf",
        data=population(tmp_path / "p.jsonl"),
        world=world(tmp_path / "w.json"),
        model="tabular",
        set={"rlhf.beta": 1.0, "rlhf.reward_weight_decay": 0.0},
    )
    assert np.abs(policy(cell) - gibbs(1.0)).max() < 1e-3


def test_regularised_reward_keeps_rlhf_finite_on_a_certain_preference(tmp_path: Path) -> None:
    found = cells(
        tmp_path,
        algos="rlhf",
        data=write_pairs(tmp_path / "p.jsonl", [("a", "b")]),
        model="tabular",
        set={"rlhf.beta": 1.0, "rlhf.reward_weight_decay": [0.0, 0.1, 1.0]},
    )
    rejected = {c["algorithm"]["config"]["reward_weight_decay"]: policy(c, "ab")[1] for c in found}
    assert rejected[0.0] < 1e-8 < 1e-3 < rejected[0.1] < rejected[1.0] < 0.5
    for decay, p in rejected.items():
        if (
            decay
        ):  # stationarity of the penalised Bradley–Terry fit: σ(−d) = decay·d/2, and d is the margin at β = 1
            margin = math.log((1 - p) / p)
            assert sigma(-margin) == pytest.approx(decay * margin / 2, rel=1e-4)


def test_ppo_approaches_the_closed_form(tmp_path: Path) -> None:
    found = cells(
        tmp_path,
        algos="ppo,rlhf",
        data=population(tmp_path / "p.jsonl", 60),
        world=world(tmp_path / "w.json"),
        model="tabular",
        lr=0.02,
        steps=1500,
        set={"ppo.beta": 1.0, "rlhf.beta": 1.0, "ppo.samples": 64},
    )
    on_policy, exact = (policy(c) for c in found)
    assert np.abs(on_policy - exact).max() < 0.02


def test_online_dpo_with_drawn_labels_approaches_the_closed_form(tmp_path: Path) -> None:
    """And with labels by the larger reward, which are certain, it does not: it goes on to the best action."""
    found = cells(
        tmp_path,
        algos="online_dpo,rlhf",
        data=population(tmp_path / "p.jsonl", 60),
        world=world(tmp_path / "w.json"),
        model="tabular",
        lr=0.01,
        steps=1500,
        set={
            "online_dpo.beta": 1.0,
            "rlhf.beta": 1.0,
            "online_dpo.pairs": 128,
            "online_dpo.labels": ["bradley_terry", "larger"],
        },
    )
    drawn, larger, exact = (policy(c) for c in found)
    assert np.abs(drawn - exact).max() < 0.03
    assert np.abs(exact - REFERENCE).max() > 0.13
    assert larger[3] > 0.9 > 0.3 > exact[3]
    assert "regret" not in found[0]["metrics"]  # β is a KL strength under one kind of label only


def test_kto_sides_with_the_majority_where_dpo_and_ipo_stop(tmp_path: Path) -> None:
    """Contradictory labels at p = .8: KTO → 1, DPO → σ(logit(p)/β), IPO → σ((2p−1)/(2τ))."""
    found = cells(
        tmp_path,
        algos="kto,dpo,ipo",
        data=write_pairs(tmp_path / "p.jsonl", [("a", "b")] * 8 + [("b", "a")] * 2),
        model="tabular",
        set={"dpo.beta": 1.0, "ipo.tau": 1.0, "kto.beta": 1.0},
        steps=4000,
    )
    share = {c["algorithm"]["name"]: policy(c, "ab")[0] for c in found}
    # Adam at a constant rate leaves small bursts around a minimum, here of up to 2e-3
    assert share["dpo"] == pytest.approx(0.8, abs=3e-3)
    assert share["ipo"] == pytest.approx(sigma(0.3), abs=3e-3)
    assert share["kto"] > 0.99
    assert next(c for c in found if c["algorithm"]["name"] == "kto")["algorithm"]["z0"] == "exact"


def test_dpo_collapses_on_one_pair_of_a_language_model_and_ipo_holds(tmp_path: Path) -> None:
    found = cells(tmp_path, algos="dpo,ipo", tasks="overfit_pair", set=FEW_SAMPLES)
    dpo, ipo = (numbers(cell["metrics"]) for cell in found)
    assert dpo["collapsed"] == 1
    assert dpo["collapse_step"] <= 50
    assert ipo["collapsed"] == 0
    assert abs(ipo["rejected_drift"]) < 0.1
    assert dpo["rejected_drift"] < -0.1
    # both start from the same random weights
    initial = dpo["chosen_logp"] - dpo["displacement"]
    assert initial == pytest.approx(ipo["chosen_logp"] - ipo["displacement"], abs=1e-4)
