"""Learning rates: IPO spikes on a language model, and obeys an exact law on a tabular policy."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xpo_bench.report.curves import Curves, Points
from xpo_bench.report.experiments.base import (
    Data,
    Experiment,
    Row,
    column,
    gathered,
    margins,
    rows_of,
)
from xpo_bench.report.format import listed, number
from xpo_bench.report.records import Record
from xpo_bench.report.render.style import canvas, line_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOWN = 0.01
"""Fraction of its first value below which a loss has come down again after a spike."""
ROUNDING = 1e-6
"""Nats from the target below which the ratio of two distances is rounding."""
LAW = ("monotone", "oscillating", "divergent")
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


def draw(data: Data) -> Figure | None:
    """Loss against steps at several rates on the language model; IPO's distance from its target on the
    tabular policy.
    """
    rows = sorted(data["learning_rates"], key=lambda r: (r["algorithm"], r["optimizer"], r["lr"], r["step"]))
    if not rows:
        return None
    figure, (language, tabular) = canvas(1, 2, 10.5, 4)
    _draw_language(language, [r for r in rows if r["policy"] == LANGUAGE and r["loss"] > 1e-8])
    _draw_tabular(tabular, [r for r in rows if r["policy"] == TABULAR])
    return figure


def _draw_language(axes: Axes, rows: Sequence[Row]) -> None:
    for i, ((name, optimizer, rate), run) in enumerate(
        gathered(rows, "algorithm", "optimizer", "lr").items()
    ):
        label = f"{name} {optimizer} {rate:g}"
        axes.plot(column(run, "step"), column(run, "loss"), label=label, ms=3, **line_style(i))
    axes.set(
        title="Language model, one pair", xlabel="steps", ylabel="loss (IPO: nats², DPO: nats)", yscale="log"
    )
    axes.set_ylim(1e-8, 1e13)
    axes.legend(title="algorithm, optimizer, rate", loc="upper right", ncols=2)


def _draw_tabular(axes: Axes, rows: Sequence[Row]) -> None:
    # the run that goes on until nothing is finite would flatten the others
    runs = gathered(rows, "lr", "steps")
    shortest = min((steps for _, steps in runs), default=0)
    for i, ((rate, _), run) in enumerate((key, run) for key, run in runs.items() if key[1] == shortest):
        # |1 − 4η| < 1 below η = ½, and 1 − 4η > 0 below η = ¼
        kind = LAW[0] if rate < 1 / 4 else LAW[1] if rate < 1 / 2 else LAW[2]
        axes.plot(
            column(run, "step"), column(run, "distance"), label=f"{rate:g} {kind}", ms=3, **line_style(i)
        )
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set(
        title="IPO by gradient descent on a tabular policy",
        xlabel="steps",
        ylabel="1/(2τ) − margin (nats; linear within ±0.1)",
    )
    axes.set_ylim(-3e7, 3e4)
    axes.legend(title="rate η", loc="lower right", ncols=3)


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
    {"learning_rates": draw},
)
