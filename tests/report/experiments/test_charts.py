"""The article's charts by the rules of charts, on rows that try them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from matplotlib.figure import Figure
from pictures import assert_nothing_crosses, drawn, edges, joined, lines, points, texts

from xpo_bench.report.experiments import EXPERIMENTS, dpo_vs_ipo
from xpo_bench.report.experiments.base import Data, Row
from xpo_bench.report.render.drawing import Drawing
from xpo_bench.report.render.style import GREY, SPEAKING, LineStyles

ALL = ("bon", "cdpo", "cpo", "dpo", "dpop", "ipo", "kto", "npo", "orpo", "ppo", "rlhf", "sft")


def drawing(name: str, stem: str, data: Data) -> Drawing:
    plot = EXPERIMENTS[name].figures[stem]
    return plot.draw(data, LineStyles.of([plot.speaking(data)], ALL))


def figure(name: str, stem: str, data: Data) -> Figure:
    return drawn(drawing(name, stem, data))


# --------------------------------------------------------------------------- votes


def votes(lowest: float, names: Sequence[str] = ALL) -> Data:
    """Gaps that fall with the votes, those of the first algorithm to `lowest`."""
    rows: list[Row] = []
    for i, name in enumerate(names):
        for n in (1, 2, 5, 10, 20):
            gap = (0.3 + 0.01 * i) / n if i or n < 10 else lowest
            rows.append({"algorithm": name, "votes": n, "unanimous": 0.8**n + 0.2**n, "frontier_gap": gap})
    return {"votes": rows}


def test_votes_spend_no_decade_on_rounding() -> None:
    (ax,) = figure("robustness", "votes", votes(lowest=1e-15)).axes
    bottom, top = ax.get_ylim()
    assert math.log10(top / bottom) < 3.5
    ((_, _, y),) = edges(ax)  # it leaves the axes once
    assert y == 0
    assert "bon ↓ 1.0e−15" in texts(ax)
    # with nothing but numbers, no decade is empty
    (ax,) = figure("robustness", "votes", votes(lowest=0.01)).axes
    assert ax.get_ylim()[0] > 0.01 / 2
    assert not edges(ax)


def test_eight_algorithms_speak_of_votes_with_those_that_the_article_compares() -> None:
    names = [e.label for e in drawing("robustness", "votes", votes(lowest=0.001)).legend]
    assert names[:3] == ["dpo", "ipo", "rlhf"]
    assert names[3] == "bon"  # the smallest gap
    assert names[SPEAKING:] == ["4 other algorithms"]


# --------------------------------------------------------------------------- dpo_vs_ipo


def curves_of(rates: dict[str, float]) -> Data:
    return {
        "dpo_vs_ipo": [
            {
                "algorithm": name, "hyperparameter": "beta" if name == "dpo" else "tau", "value": value,
                "lr": rate, "step": step, "rejected_prob": 0.1 ** (1 + step), "margin": step / value,
            }
            for name, rate in rates.items() for value in (0.1, 0.5, 1.0) for step in range(4)
        ],
        "dpo_vs_ipo_ends": [],
    }  # fmt: skip


def test_dpo_vs_ipo_states_the_rates_of_its_records() -> None:
    data = curves_of({"dpo": 1e-2, "ipo": 1e-4})
    assert dpo_vs_ipo.caption(data).endswith("learning rates of SGD: dpo at 0.01 and ipo at 0.0001")
    names = [e.label for e in drawing("dpo_vs_ipo", "dpo_vs_ipo", data).legend]
    assert names[0] == "dpo β = 0.1, rate 0.01"
    assert names[5] == "ipo τ = 1, rate 0.0001"
    assert dpo_vs_ipo.caption(curves_of({"dpo": 0.3})).endswith("SGD: dpo at 0.3")


def test_dpo_vs_ipo_has_a_colour_per_algorithm_and_dashes_per_strength() -> None:
    data = curves_of({"dpo": 1e-2, "ipo": 1e-4})
    _, margin = figure("dpo_vs_ipo", "dpo_vs_ipo", data).axes
    trained = [line for line in joined(margin) if len(points(line)) == 4]
    assert len(trained) == 6
    assert len({line.get_color() for line in trained}) == 2
    assert {"dpo β=0.1", "dpo β=1", "ipo τ=0.5"} <= set(texts(margin))


# --------------------------------------------------------------------------- choosing_tau


@pytest.fixture
def sweeps() -> Data:
    """Twelve sweeps on the frontier 3 + 2√KL or a little below it, of values that lie far apart."""
    rows: list[dict[str, Any]] = []
    for i, name in enumerate(ALL):
        for value, kl in ((0.1, 2.7), (0.3, 0.9 + 0.01 * i), (1.0, 0.1), (3.0, 0.003)):
            rows.append(
                {
                    "labels": "clean", "algorithm": name, "value": value, "seed": 0, "kl": kl,
                    "gold_reward": 3 + 2 * math.sqrt(kl) * (1 - 0.01 * i),
                }
            )  # fmt: skip
    kls = sorted({0.0, *(r["kl"] for r in rows)})
    exact = [{"kl": kl, "gold_reward": 3 + 2 * math.sqrt(kl)} for kl in kls]
    return {"choosing_tau": rows, "choosing_tau_frontier": exact, "choosing_tau_control": []}


def test_no_sweep_runs_above_the_exact_frontier(sweeps: Data) -> None:
    (ax,) = figure("choosing_tau", "choosing_tau", sweeps).axes
    assert len(joined(ax)) == len(ALL) + 1
    assert_nothing_crosses(ax)


def test_eight_sweeps_speak_and_have_their_names_beside_them(sweeps: Data) -> None:
    (ax,) = figure("choosing_tau", "choosing_tau", sweeps).axes
    names = [e.label for e in drawing("choosing_tau", "choosing_tau", sweeps).legend]
    assert names == [
        "exact frontier",
        "dpo",
        "ipo",
        "rlhf",
        "bon",
        "cdpo",
        "cpo",
        "dpop",
        "kto",
        "4 other algorithms",
    ]
    assert sorted(texts(ax)) == sorted(names[1:-1])


def test_control_has_colours_for_the_same_eight(sweeps: Data) -> None:
    sweeps["choosing_tau_control"] = [
        {"algorithm": name, "labels": "clean", "control": 1.0, "ci low": 0.5, "ci high": 1.5} for name in ALL
    ]
    (ax,) = figure("choosing_tau", "choosing_tau_control", sweeps).axes
    assert [text.get_text() for text in ax.get_yticklabels()] == sorted(ALL, reverse=True)
    colours = [line.get_color() for line in joined(ax) if len(set(points(line))) == 2]
    assert len(colours) == len(ALL)
    assert colours.count(GREY) == len(ALL) - SPEAKING
    assert len(set(colours)) == SPEAKING + 1


# --------------------------------------------------------------------------- robustness, learning rates


def test_what_is_as_good_as_never_is_marked_at_the_edge() -> None:
    rows = [
        {
            "algorithm": name, "hyperparameter": "beta=1", "reward_weight_decay": decay,
            "rejected probability": p,
        }
        for name, decay, p in (
            ("dpo", None, 2e-4), ("rlhf", 0.0, 1e-10), ("rlhf", 0.1, 0.1), ("rlhf", 1.0, 0.3),
        )
    ]  # fmt: skip
    (ax,) = figure("robustness", "robustness", {"robustness": rows, "votes": []}).axes
    assert ax.get_ylim()[0] > 1e-7
    ((_, _, y),) = edges(ax)
    assert y == 0
    assert "the lowest, 1.0e-10, is beyond the axis" in EXPERIMENTS["robustness"].figures[
        "robustness"
    ].caption({"robustness": rows, "votes": []})
    (level,) = lines(ax, "0")
    assert {y for _, y in points(level)} == {2e-4}  # dpo fits no reward: a level line


def test_losses_of_two_units_stand_in_two_panels_and_one_alone_in_none() -> None:
    label = {"policy": "language model", "optimizer": "sgd", "steps": 2, "distance": None}
    rows = [
        label | {"algorithm": name, "lr": rate, "step": step, "loss": scale * 0.1**step}
        for name, rates, scale in (("ipo", (0.1, 0.2), 25.0), ("kto", (0.1, 0.2), 0.5), ("dpo", (0.1,), 0.7))
        for rate in rates
        for step in range(3)
    ]
    found = figure("learning_rates", "learning_rates", {"learning_rates": rows})
    assert [ax.get_title("left") for ax in found.axes] == ["loss of ipo (nats²), sgd", "loss of kto, sgd"]
    assert texts(found.axes[0]) == ["0.1", "0.2"]
