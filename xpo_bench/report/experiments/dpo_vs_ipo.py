"""DPO against IPO on one pair: the one goes on falling at every β, the other converges where τ says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xpo_bench.report.curves import Curves
from xpo_bench.report.experiments.base import (
    Data,
    Experiment,
    Row,
    column,
    gathered,
    margins,
    rejected_points,
    rows_of,
)
from xpo_bench.report.format import listed, number
from xpo_bench.report.records import Record
from xpo_bench.report.render.style import COLOURS, Style, canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STILL = 0.1
"""A policy has converged when its margin per token moved by less than this fraction of itself over the last
fifth, counted over all five.
"""
CONVERGED, MOVING = "converged", "still moving"


def measure(cells: Sequence[Record], curves: Curves) -> Data:
    """Curves of π(rejected) per token under DPO and IPO, and where each stands at the end."""
    points: list[Row] = []
    ends: list[Row] = []
    for r in cells:
        known = rejected_points(curves(r.key))
        if len(known) < 2 or r.swept is None:
            continue
        name, value = r.swept
        per_token = [margin / length for margin, length in margins(known)]
        points += [
            {
                "algorithm": r.algorithm.name,
                "hyperparameter": name,
                "value": value,
                "step": p["step"],
                "rejected_prob": p["rejected_prob"],
                "margin": m,
            }
            for p, m in zip(known, per_token, strict=True)
        ]
        last = known[-1]
        reverse = zip(known[::-1], per_token[::-1], strict=True)
        # from the last evaluation before the last fifth to the end
        moved = per_token[-1] - next(m for p, m in reverse if p["step"] <= 0.8 * last["step"])
        ends.append(
            {
                "algorithm": f"{r.algorithm.name} {name}={value:g}",
                "lr": r.lr,
                "rejected_prob": last["rejected_prob"],
                "margin per token": per_token[-1],
                "1/(2 tau)": 1 / (2 * value) if name == "tau" else None,
                "last fifth": moved,
                "curve": CONVERGED if abs(moved) < STILL * abs(per_token[-1]) / 5 else MOVING,
            }
        )
    return {"dpo_vs_ipo": points, "dpo_vs_ipo_ends": ends}


def findings(data: Data) -> list[str]:
    """Who is still moving, and where IPO's margin ends beside its target."""
    out = []
    dpo = [r for r in data["dpo_vs_ipo_ends"] if r["algorithm"].startswith("dpo")]
    ipo = [r for r in data["dpo_vs_ipo_ends"] if r["1/(2 tau)"] is not None]
    if dpo:
        moving = [r["algorithm"] for r in dpo if r["curve"] == MOVING]
        whom = listed(moving) if moving else "no configuration of dpo"
        out.append(f"π(rejected token) is still moving under {whom}.")
    if ipo:
        ends = [f"{number(r['margin per token'])} (target {number(r['1/(2 tau)'])})" for r in ipo]
        out.append(f"IPO's margin per token ends at {listed(ends)}.")
    return out


def draw(data: Data) -> Figure | None:
    """π(rejected) and the margin under DPO and IPO at three strengths."""
    if not data["dpo_vs_ipo"]:
        return None
    figure, (rejected, margin) = canvas(1, 2, 9, 3.4)
    values = sorted({r["value"] for r in data["dpo_vs_ipo"]})
    runs = gathered(data["dpo_vs_ipo"], "algorithm", "hyperparameter", "value")
    for (name, hyperparameter, value), run in runs.items():
        greek = {"beta": "β", "tau": "τ"}.get(hyperparameter, hyperparameter)
        style: Style = {
            "color": COLOURS[values.index(value) % len(COLOURS)],
            "ls": "-" if name == "dpo" else "--",
        }
        for axes, what in ((rejected, "rejected_prob"), (margin, "margin")):
            axes.plot(column(run, "step"), column(run, what), label=f"{name} {greek} = {value:g}", **style)
        if hyperparameter == "tau":
            margin.axhline(1 / (2 * value), color=style["color"], lw=0.8, ls=":")
    rejected.set(title="Rejected token", ylabel="π(rejected), geometric mean over tokens", yscale="log")
    margin.set(title="Margin (dotted: IPO's target 1/(2τ))", ylabel="margin per token (nats)")
    for axes in (rejected, margin):
        axes.set_xlabel("SGD steps")
    rejected.legend(ncols=2, loc="lower left")
    return figure


EXPERIMENT = Experiment(
    "dpo_vs_ipo",
    "DPO against IPO",
    frozenset({"overfit_pair"}),
    measure,
    {"at the end": rows_of("dpo_vs_ipo_ends")},
    findings,
    {"dpo_vs_ipo": draw},
)
