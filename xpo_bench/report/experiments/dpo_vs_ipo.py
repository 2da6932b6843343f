"""DPO against IPO on one pair: the one goes on falling at every β, the other converges where τ says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from xpo_bench.report.curves import Curves
from xpo_bench.report.experiments.base import (
    Data,
    Experiment,
    Plot,
    Row,
    algorithms_of,
    column,
    gathered,
    margins,
    rejected_points,
    rows_of,
)
from xpo_bench.report.format import listed, number
from xpo_bench.report.records import Record
from xpo_bench.report.render.axes import decades
from xpo_bench.report.render.drawing import Drawing, Entry, Panel
from xpo_bench.report.render.labels import Label
from xpo_bench.report.render.style import LEVEL, LineStyle, LineStyles
from xpo_bench.report.render.svg import SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STILL = 0.1
"""A policy has converged when its margin per token moved by less than this fraction of itself over the last
fifth, counted over all five.
"""
CONVERGED, MOVING = "converged", "still moving"
GREEK = {"beta": "β", "tau": "τ"}


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
                "lr": r.lr,
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


def draw(data: Data, styles: LineStyles) -> Drawing:
    """π(rejected) and the margin under DPO and IPO at three strengths, with IPO's targets."""
    runs = gathered(data["dpo_vs_ipo"], "algorithm", "hyperparameter", "value")
    values = {name: sorted({v for who, _, v in runs if who == name}) for name, _, _ in runs}
    looks = [styles.algorithm(name, values[name].index(value)) for name, _, value in runs]
    legend = [
        Entry(str(i), f"{name} {GREEK.get(what, what)} = {value:g}, rate {run[0]['lr']:g}", look)
        for i, (((name, what, value), run), look) in enumerate(zip(runs.items(), looks, strict=True))
    ]
    legend.append(Entry("target", "target of IPO, 1/(2τ)", LEVEL))
    titles = {"rejected_prob": "π(rejected), per token", "margin": "margin per token (nats)"}
    panels = [Panel(partial(_panel, runs=runs, what=w, looks=looks, title=t), 4.2) for w, t in titles.items()]
    return Drawing(panels, legend)


def _panel(
    ax: Axes, runs: Mapping[tuple[Any, ...], Sequence[Row]], what: str, looks: Sequence[LineStyle], title: str
) -> list[Label]:
    labels = []
    for i, (((name, hyperparameter, value), run), look) in enumerate(zip(runs.items(), looks, strict=True)):
        steps, shown = column(run, "step"), column(run, what)
        ax.plot(steps, shown, gid=f"{SERIES}{i}", **look.line)
        ax.plot(steps[-1:], shown[-1:], gid=f"{SERIES}{i}", clip_on=False, zorder=3, **look.mark)
        labels.append(
            Label(
                str(i), f"{name} {GREEK.get(hyperparameter, hyperparameter)}={value:g}", steps[-1], shown[-1]
            )
        )
        if hyperparameter == "tau" and what == "margin":
            ax.axhline(1 / (2 * value), gid=f"{SERIES}target", zorder=1, **LEVEL.line)
    ax.set(title=title, xlabel="SGD steps", xlim=(0, max(labels, key=lambda label: label.x).x))
    if what == "rejected_prob":
        ax.set_yscale("log")
        decades(ax.yaxis)
    return labels


def caption(data: Data) -> str:
    """What the figure compares, and at which rates."""
    rates = {
        name: sorted({r["lr"] for r in rows if r["lr"] is not None})
        for (name,), rows in gathered(data["dpo_vs_ipo"], "algorithm").items()
    }
    said = [f"{name} at {listed([f'{rate:g}' for rate in some])}" for name, some in rates.items() if some]
    return f"who goes on falling, and where IPO's margin stops; learning rates of SGD: {listed(said)}"


EXPERIMENT = Experiment(
    "dpo_vs_ipo",
    "DPO against IPO",
    frozenset({"overfit_pair"}),
    measure,
    {"at the end": rows_of("dpo_vs_ipo_ends")},
    findings,
    {"dpo_vs_ipo": Plot(draw, caption, ("dpo_vs_ipo", "dpo_vs_ipo_ends"), algorithms_of("dpo_vs_ipo"))},
)
