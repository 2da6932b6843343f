"""Learning rates: IPO spikes on a language model, and obeys an exact law on a tabular policy."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from xpo_bench.report.curves import Curves, Points
from xpo_bench.report.experiments.base import (
    Data,
    Experiment,
    Plot,
    Row,
    algorithms_of,
    column,
    gathered,
    margins,
    rows_of,
)
from xpo_bench.report.format import listed, number
from xpo_bench.report.records import Record
from xpo_bench.report.render.axes import decades, mark_edges
from xpo_bench.report.render.drawing import Drawing, Entry, Panel
from xpo_bench.report.render.labels import Label
from xpo_bench.report.render.style import LineStyles
from xpo_bench.report.render.svg import SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOWN = 0.01
"""Fraction of its first value below which a loss has come down again after a spike."""
ROUNDING = 1e-6
"""Nats from the target below which the ratio of two distances is rounding."""
FALLEN = 1e-8
"""Fraction of the first loss below which its axis ends."""
LAW = ("monotone", "oscillating", "divergent")
KINDS = dict(zip(LAW, ("below η = ¼", "up to ½", "above"), strict=True))
TABULAR, LANGUAGE = "tabular", "language model"


def measure(cells: Sequence[Record], curves: Curves) -> Data:
    """Loss along training at several rates, on the language model and on the tabular policy, where the law is
    |1 − 4η|.
    """
    curve: list[Row] = []
    runs: list[Row] = []
    law: list[Row] = []
    for r in cells:
        points = [p for p in curves(r.key) if p.get("loss") is not None]
        if len(points) < 2:
            continue
        tabular = r.task.model.get("name") == "tabular"
        label = {
            "policy": TABULAR if tabular else LANGUAGE,
            "algorithm": r.algorithm.name,
            "optimizer": r.train.get("optimizer"),
            "lr": _rate(r),
            "steps": r.task.budget.get("steps"),
        }
        left = _distances(r, points) if tabular else [None] * len(points)
        curve += [
            label | {"step": p["step"], "loss": p["loss"], "distance": d}
            for p, d in zip(points, left, strict=True)
        ]
        if tabular:
            law.append(_law(r, points))
        else:
            runs.append(_spike(r, [float(p["loss"]) for p in points]))
    return {"learning_rates": curve, "learning_rates_runs": runs, "learning_rates_law": law}


def _rate(r: Record) -> float:
    return float(r.train["lr"])


def _spike(r: Record, losses: Sequence[float]) -> Row:
    """How far the loss rises above what it had reached before."""
    top = max(range(len(losses)), key=losses.__getitem__)
    lowest = min(losses[: top + 1])  # a spike rises from where the loss had come down to
    return {
        "algorithm": r.algorithm.name,
        "optimizer": r.train.get("optimizer"),
        "lr": _rate(r),
        "first loss": losses[0],
        "lowest before the peak": lowest,
        "peak": losses[top],
        "spike": losses[top] / lowest,
        "last loss": losses[-1],
        "status": r.status,
    }


def _distances(r: Record, points: Points) -> list[float]:
    """How far IPO's margin is from its target 1/(2τ) at every point, nats."""
    target = 1 / (2 * float(r.algorithm.config["tau"]))
    return [target - margin for margin, _ in margins(points)]


def _law(r: Record, points: Points) -> Row:
    """The factor by which the distance of IPO's margin from its target changes in a step.

    The loss is (m − 1/(2τ))² with m = z_w − z_l, so that a step of rate η moves either logit by 2η times the
    distance, and the distance becomes 1 − 4η of itself.
    """
    rate = _rate(r)
    if r.status != "ok":
        return {"lr": rate, "steps": r.steps, "1-4 lr": 1 - 4 * rate, "curve": LAW[2]}
    left, steps = _distances(r, points), [p["step"] for p in points]
    factors = [
        b / a
        for a, b, s, t in zip(left, left[1:], steps, steps[1:], strict=False)
        if t == s + 1 and abs(a) > ROUNDING
    ]
    measured = statistics.fmean(factors) if factors else None
    curve = None if measured is None else LAW[2] if abs(measured) > 1 else LAW[1] if measured < 0 else LAW[0]
    return {"lr": rate, "steps": steps[-1], "1-4 lr": 1 - 4 * rate, "measured": measured, "curve": curve}


def findings(data: Data) -> list[str]:
    """At which rates IPO spikes or diverges, and how near its law it is."""
    out = []
    for r in data["learning_rates_runs"]:
        if r["algorithm"] == "ipo" and r["optimizer"] == "sgd" and (r["spike"] > 2 or r["status"] != "ok"):
            down = r["last loss"] < DOWN * r["first loss"]
            ends = f"and {'converges to' if down else 'stays at'} {number(r['last loss'])}"
            out.append(
                f"IPO at rate {r['lr']:g} on the language model: the loss spikes {number(r['spike'])}-fold "
                f"{'and diverges' if r['status'] == 'diverged' else ends}."
            )
    for curve in LAW:
        rates = [f"{r['lr']:g}" for r in data["learning_rates_law"] if r.get("curve") == curve]
        if rates:
            out.append(f"IPO on the tabular policy is {curve} at {listed(rates)}.")
    off = [
        abs(r["measured"] - r["1-4 lr"]) for r in data["learning_rates_law"] if r.get("measured") is not None
    ]
    if off:
        out.append(
            f"Its distance from the target changes by the factor 1 − 4η in a step, within {number(max(off))}."
        )
    return out


def draw(data: Data, styles: LineStyles) -> Drawing:
    """Loss against steps at several rates, a panel per algorithm and optimizer of which there are several
    rates; IPO's distance from its target on the tabular policy.
    """
    rows = sorted(data["learning_rates"], key=lambda r: (r["algorithm"], r["optimizer"], r["lr"], r["step"]))
    language = [r for r in rows if r["policy"] == LANGUAGE]
    panels = [
        Panel(partial(_losses, runs=runs, name=name, optimizer=optimizer, styles=styles))
        for (name, optimizer), some in gathered(language, "algorithm", "optimizer").items()
        if len(runs := gathered(some, "lr", "steps")) > 1
    ]
    if tabular := [r for r in rows if r["policy"] == TABULAR]:
        panels.append(Panel(partial(_distances_left, rows=tabular, styles=styles)))
    kinds = [
        Entry(f"kind{i}", f"{kind} {what}", replace(styles.algorithm("ipo", i), marker=""))
        for i, (kind, what) in enumerate(KINDS.items())
    ]
    return Drawing(panels, kinds if tabular else [])


def _losses(
    ax: Axes, runs: Mapping[tuple[Any, ...], Sequence[Row]], name: str, optimizer: str, styles: LineStyles
) -> list[Label]:
    every = [r for run in runs.values() for r in run]
    top = max(column(every, "loss"))
    # what is left of the first loss to eight digits is rounding
    floor = max(
        min(v for v in column(every, "loss") if v > 0), FALLEN * max(run[0]["loss"] for run in runs.values())
    )
    labels = []
    for i, ((rate, _), run) in enumerate(runs.items()):
        style = styles.algorithm(name, i)
        positive = [r for r in run if r["loss"] > 0]
        steps, losses = column(positive, "step"), column(positive, "loss")
        ax.plot(steps, losses, **style.line)
        shown = [(s, v) for s, v in zip(steps, losses, strict=True) if v >= floor]
        ax.plot(*zip(shown[-1], strict=True), **style.mark)
        labels.append(Label(str(i), f"{rate:g}", *shown[-1], beside=True))
    unit = {"ipo": " (nats²)", "dpo": " (nats)"}.get(name, "")
    ax.set(
        xlabel="steps", yscale="log", ylim=(floor / 2, top * 3), title=f"loss of {name}{unit}, {optimizer}"
    )
    ax.set_xlim(0, max(column(every, "step")) * 1.04)
    for i, run in enumerate(runs.values()):
        mark_edges(ax, str(i), styles.algorithm(name), column(run, "step"), column(run, "loss"))
    decades(ax.yaxis)
    return labels


def _distances_left(ax: Axes, rows: Sequence[Row], styles: LineStyles) -> list[Label]:
    """A straight line per rate: the distance changes by the same factor, |1 − 4η|, in every step."""
    # the run that goes on until nothing is finite would flatten the others
    runs = gathered(rows, "lr", "steps")
    shortest = min(steps for _, steps in runs)
    labels = []
    for (rate, steps), run in runs.items():
        if steps != shortest:
            continue
        # |1 − 4η| < 1 below η = ½, and 1 − 4η > 0 below η = ¼
        kind = 0 if rate < 1 / 4 else 1 if rate < 1 / 2 else 2
        known = [r for r in run if abs(r["distance"]) > ROUNDING]
        x, y = column(known, "step"), [abs(r["distance"]) for r in known]
        ax.plot(x, y, gid=f"{SERIES}kind{kind}", **styles.algorithm("ipo", kind).line)
        labels.append(Label(f"kind{kind}", f"{rate:g}", x[-1], y[-1], beside=x[-1] < shortest))
    ax.set(yscale="log", xlabel="steps", title="|1/(2τ) − margin| (nats), tabular, by rate")
    ax.set_xlim(0, shortest)
    decades(ax.yaxis)
    return labels


def caption(data: Data) -> str:
    """What the figure compares."""
    return (
        "loss by learning rate on a language model, and on a tabular policy the distance from IPO's target, "
        "which changes by the factor |1 − 4η| in a step of rate η"
    )


EXPERIMENT = Experiment(
    "learning_rates",
    "Learning rates",
    frozenset({"overfit_rates", "one_pair"}),
    measure,
    {
        "language model": rows_of("learning_rates_runs"),
        "IPO on a tabular policy": rows_of("learning_rates_law"),
    },
    findings,
    {"learning_rates": Plot(draw, caption, ("learning_rates",), algorithms_of("learning_rates"))},
)
