"""DPO on one pair: gradient flow never stops, since the margin grows as ln(t)/β."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from xpo_bench.report.curves import Curves, Points
from xpo_bench.report.experiments.base import (
    Data,
    Experiment,
    Plot,
    Row,
    column,
    gathered,
    margins,
    rejected_points,
    rows_of,
    sigma,
    slope,
)
from xpo_bench.report.format import number
from xpo_bench.report.records import Record
from xpo_bench.report.render.axes import decades
from xpo_bench.report.render.drawing import Drawing, Entry, Panel
from xpo_bench.report.render.labels import Label
from xpo_bench.report.render.style import GUIDE, LEVEL, LineStyle, LineStyles
from xpo_bench.report.render.svg import SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EARLY, LATE = 0.1, 0.9
"""Where the late phase of an overfitting run begins and ends, as fractions of its steps."""
CERTAIN = 0.99


def measure(cells: Sequence[Record], curves: Curves) -> Data:
    """Curves of π(rejected) per token, of the loss and of σ(β·margin), and what their late phase does."""
    points: list[Row] = []
    late: list[Row] = []
    for r in cells:
        known = rejected_points(curves(r.key))
        if r.algorithm.name != "dpo" or len(known) < 2:
            continue
        rows = _curve(r, known)
        points += rows
        late += _late(r, rows, tokens=margins(known)[0][1])
    return {"overfit": points, "overfit_late": late}


def _curve(r: Record, points: Points) -> list[Row]:
    beta, over = float(r.algorithm.config["beta"]), str(r.task.budget.get("loss_over"))
    return [
        {
            "loss over": over,
            "seed": r.seed,
            "step": p["step"],
            "loss": p.get("loss"),
            "rejected_prob": p["rejected_prob"],
            "rejected_logp per token": p["rejected_logp"] / length,
            "chosen_prob": p["chosen_prob"],
            "sigma": sigma(beta * (margin / length if over == "token" else margin)),
        }
        for p, (margin, length) in zip(points, margins(points), strict=True)
    ]


def _late(r: Record, rows: Sequence[Row], tokens: float) -> list[Row]:
    beta, steps = float(r.algorithm.config["beta"]), rows[-1]["step"]
    tail = [row for row in rows if EARLY * steps <= row["step"] <= LATE * steps]
    if len(tail) < 2 or not tail[0]["step"]:
        return []
    # ln π per token, at step 0 and at both ends of the late phase
    start, early, end = (row["rejected_logp per token"] for row in (rows[0], tail[0], tail[-1]))
    per_token = slope([math.log(t["step"]) for t in tail], column(tail, "rejected_logp per token"))
    # a loss over sequences pushes the sum over tokens: its slope against ln step is the one of theory
    summed = (
        per_token if r.task.budget.get("loss_over") == "token" or per_token is None else per_token * tokens
    )
    known = tail[0]["loss"] and tail[-1]["loss"]
    return [
        {
            "loss over": rows[0]["loss over"],
            "beta": beta,
            "from step": tail[0]["step"],
            "to step": tail[-1]["step"],
            "orders by then": (start - early) / math.log(10),
            "orders at the end": (start - end) / math.log(10),
            "slope": summed,
            "-1/beta": -1 / beta,
            "loss falls by": tail[0]["loss"] / tail[-1]["loss"] if known else None,
            f"sigma > {CERTAIN} at": next((row["step"] for row in rows if row["sigma"] > CERTAIN), None),
        }
    ]


def findings(data: Data) -> list[str]:
    """How far the rejected token falls, and how fast against ln step."""
    out = []
    for r in data["overfit_late"]:
        if r["slope"] is None:
            continue
        tokens = r["loss over"] == "token"
        fell = (
            f"{number(r['orders by then'])} orders of magnitude by step {r['from step']} and "
            f"{number(r['orders at the end'])} by step {r['to step']}"
        )
        out.append(
            f"loss over {'tokens' if tokens else 'sequences'}: π(rejected token) falls by {fell}; "
            f"between them ln π(rejected){'' if tokens else ', summed over tokens,'} falls by "
            f"{number(-r['slope'])} nats per unit of ln step (1/β = {number(1 / r['beta'])}) "
            f"and the loss {number(r['loss falls by'])}-fold."
        )
    return out


def draw(data: Data, styles: LineStyles) -> Drawing:
    """Loss, π(rejected) and σ(β·margin) of DPO on one pair against steps."""
    overs = list(dict.fromkeys(column(data["overfit"], "loss over")))
    looks = {over: styles.algorithm("dpo", i) for i, over in enumerate(overs)}
    titles = {
        "loss": "loss (nats)",
        "rejected_prob": "π(rejected), per token",
        "sigma": "σ(β·margin)",
    }
    legend = [Entry(str(i), f"dpo, loss over {over}s", looks[over]) for i, over in enumerate(overs)]
    beta = next((1 / -late["-1/beta"] for late in data["overfit_late"]), None)
    if beta:
        legend.append(Entry("guide", f"slope −1/β = −{1 / beta:g}", GUIDE))
    legend.append(Entry("certain", f"{CERTAIN:g}", LEVEL))
    panels = [
        Panel(partial(_panel, data=data, what=what, looks=looks, title=t)) for what, t in titles.items()
    ]
    return Drawing(panels, legend)


def _panel(ax: Axes, data: Data, what: str, looks: Mapping[str, LineStyle], title: str) -> list[Label]:
    labels = []
    for i, (over, style) in enumerate(looks.items()):
        runs = gathered([r for r in data["overfit"] if r["loss over"] == over and r["step"] > 0], "seed")
        for run in runs.values():
            known = [r for r in run if r[what]]
            ax.plot(column(known, "step"), column(known, what), gid=f"{SERIES}{i}", **style.line)
        if known:
            labels.append(Label(str(i), f"{over}s", known[-1]["step"], known[-1][what]))
    ax.set(xscale="log", xlabel="SGD steps", title=title)
    if what == "sigma":
        ax.axhline(CERTAIN, gid=f"{SERIES}certain", **LEVEL.line)
    else:
        ax.set_yscale("log")
        decades(ax.yaxis)
    if what == "rejected_prob":
        _guide(ax, data)
    decades(ax.xaxis)
    return labels


def _guide(ax: Axes, data: Data) -> None:
    """The law π ∝ step^(−1/β), drawn well above the curve over tokens."""
    late = next((r for r in data["overfit_late"] if r["loss over"] == "token"), None)
    if late:
        end = max((r for r in data["overfit"] if r["loss over"] == "token"), key=lambda r: float(r["step"]))
        steps = [max(1, late["from step"]), end["step"]]
        guide = [end["rejected_prob"] * 3e3 * (step / end["step"]) ** late["-1/beta"] for step in steps]
        ax.plot(steps, guide, gid=f"{SERIES}guide", **GUIDE.line)


def caption(data: Data) -> str:
    """What the figure compares."""
    return "the loss over tokens and over sequences, on one pair that nothing contradicts"


EXPERIMENT = Experiment(
    "overfit",
    "DPO overfits one pair",
    frozenset({"overfit_pair"}),
    measure,
    {"late phase": rows_of("overfit_late")},
    findings,
    {"overfit": Plot(draw, caption, ("overfit",), lambda _: ["dpo"])},
)
