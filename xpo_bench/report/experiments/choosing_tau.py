"""Choosing τ: how far every regulariser moves KL, and how near its sweep comes to the frontier."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xpo_bench.report.curves import Curves
from xpo_bench.report.experiments.base import Data, Experiment, Row, column, named, rows_of
from xpo_bench.report.format import listed
from xpo_bench.report.records import Record
from xpo_bench.report.render.style import COLOURS, MARKERS, canvas, line_style
from xpo_bench.report.runs import group
from xpo_bench.report.summary import Control, control

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STAYS = 0.1
"""KL in nats below which a policy has hardly left the reference."""
FRACTION = "fraction of frontier"


def measure(cells: Sequence[Record], curves: Curves) -> Data:
    """Reward and KL at every value of every algorithm's regulariser; how far the regulariser moves KL; the
    frontier.
    """
    points = [p for r in cells if (p := _point(r, curves))]
    moved: dict[tuple[str, str], Row] = {}
    for g, slope in control(group(r for r in cells if r.status == "ok")).items():
        name, labels = g.records[0].algorithm.name, _labels(g.records[0])
        here = [p for p in points if (p["algorithm"], p["labels"]) == (name, labels)]
        if here and (name, labels) not in moved:
            moved[name, labels] = _moved(here, slope)
    # a policy's reward plus its gap IS the frontier at its own KL
    frontier = sorted({(p["kl"], p["gold_reward"] + p["frontier_gap"]) for p in points})
    return {
        "choosing_tau": points,
        "choosing_tau_control": sorted(moved.values(), key=lambda r: (r["labels"], r["algorithm"])),
        "choosing_tau_frontier": [{"kl": kl, "gold_reward": reward} for kl, reward in frontier],
    }


def _point(r: Record, curves: Curves) -> Row | None:
    reward, gap, kl = (r.metrics.get(m) for m in ("gold_reward", "frontier_gap", "kl"))
    if r.status != "ok" or reward is None or gap is None or kl is None or r.swept is None:
        return None
    start = (p for p in curves(r.key) if p["step"] == 0 and p.get("gold_reward") is not None)
    before = next((float(p["gold_reward"]) for p in start), None)
    return {
        "labels": _labels(r),
        "algorithm": r.algorithm.name,
        "hyperparameter": r.swept[0],
        "value": r.swept[1],
        "seed": r.seed,
        "kl": kl,
        "gold_reward": reward,
        "frontier_gap": gap,
        FRACTION: _fraction(reward, gap, before),
        "converged": r.notes.kl_settled,
    }


def _moved(points: Sequence[Row], slope: Control) -> Row:
    """How far the regulariser of one algorithm moves KL, and the best reward that it reaches."""
    low, high = (end(column(points, "value")) for end in (min, max))
    ends = [statistics.fmean(p["kl"] for p in points if p["value"] == v) for v in (low, high)]
    best = max(points, key=lambda p: float(p["gold_reward"]))
    return {
        "algorithm": points[0]["algorithm"],
        "labels": points[0]["labels"],
        "hyperparameter": f"{points[0]['hyperparameter']} {low:g} to {high:g}",
        "control": slope["mean"],
        "ci low": slope["ci95"][0] if slope["ci95"] else None,
        "ci high": slope["ci95"][1] if slope["ci95"] else None,
        "optimum": slope["optimum"],
        "kl at the lowest": ends[0],
        "kl at the highest": ends[1],
        "converged runs": f"{sum(p['converged'] is True for p in points)}/{len(points)}",
        "best reward": best["gold_reward"],
        "at": best["value"],
        "its kl": best["kl"],
        FRACTION: best[FRACTION],
    }


def _fraction(reward: float, gap: float, before: float | None) -> float | None:
    """Gain in reward over the gain that the frontier allows at the same KL; None at the reference itself."""
    # reward + gap is the frontier at the policy's own KL, before the reward at KL = 0
    allowed = None if before is None else reward + gap - before
    return (reward - before) / allowed if before is not None and allowed and allowed > 1e-9 else None


def _labels(r: Record) -> str:
    noise = float(r.task.budget.get("label_noise") or 0)
    return f"{100 * noise:g} % flipped" if noise else "clean"


def findings(data: Data) -> list[str]:
    """Per kind of labels: control, the highest reward, and the largest fraction of the frontier's gain."""
    kinds = dict.fromkeys(column(data["choosing_tau_control"], "labels"))
    return [f"{labels} labels: {sentence}" for labels in kinds for sentence in _findings(data, labels)]


def _findings(data: Data, labels: str) -> list[str]:
    out = []
    rows = [r for r in data["choosing_tau_control"] if r["labels"] == labels]
    known = sorted((r for r in rows if r["control"] is not None), key=lambda r: -float(r["control"]))
    if known:
        out.append(f"control: {listed([named(r['algorithm'], r['control']) for r in known])}.")
    if loose := [r["algorithm"] for r in rows if r["control"] is None]:
        out.append(f"not every run has converged, so that control is unknown, under {listed(loose)}.")
    best = sorted(rows, key=lambda r: -float(r["best reward"]))[:3]
    near = listed([named(f"{r['algorithm']} at {r['at']:g}", r["best reward"]) for r in best])
    out.append(f"highest gold_reward: {near}.")
    gains = [
        r
        for r in data["choosing_tau"]
        if r["labels"] == labels and r[FRACTION] is not None and r["kl"] > STAYS
    ]
    if gains:
        best = sorted(gains, key=lambda r: -float(r[FRACTION]))[:3]
        near = listed([named(f"{r['algorithm']} at {r['value']:g}", r[FRACTION]) for r in best])
        out.append(f"largest fraction of the frontier's gain at a KL above {STAYS:g}: {near}.")
    return out


def draw_frontier(data: Data) -> Figure | None:
    """Reward against KL along every algorithm's sweep, with the exact frontier."""
    rows, exact = data["choosing_tau"], data["choosing_tau_frontier"]
    if not rows:
        return None
    labels = list(dict.fromkeys(column(rows, "labels")))
    figure, panels = canvas(1, len(labels), 5.2 * len(labels), 4.6)
    names = sorted({r["algorithm"] for r in rows})
    x, y = column(exact, "kl"), column(exact, "gold_reward")
    for axes, kind in zip(panels, labels, strict=True):
        axes.plot(x, y, color="#000000", lw=2.2, label="exact frontier", zorder=1)
        for i, name in enumerate(names):
            own = [r for r in rows if (r["algorithm"], r["labels"]) == (name, kind)]
            _draw_sweep(axes, i, name, sorted(own, key=lambda r: float(r["value"])))
        axes.set(
            title=f"{kind} labels",
            xlabel="KL(π‖π_ref), regulariser swept (nats)",
            xscale="log",
            xlim=(1e-3, None),
        )
    panels[0].set_ylabel("E[reward]")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def _draw_sweep(axes: Axes, i: int, name: str, run: Sequence[Row]) -> None:
    x, y, style = column(run, "kl"), column(run, "gold_reward"), line_style(i)
    # lines join a sweep only for the eye: a chord of the frontier lies above it on this scale
    axes.plot(x, y, color=style["color"], ls=style["ls"], lw=0.8, alpha=0.35)
    axes.plot(x, y, **(style | {"ls": ""}), ms=5, label=name)


def draw_control(data: Data) -> Figure | None:
    """How far every algorithm's regulariser moves KL: −d ln KL / d ln regulariser."""
    rows = data["choosing_tau_control"]
    if not rows:
        return None
    names = sorted({r["algorithm"] for r in rows}, reverse=True)
    figure, (axes,) = canvas(1, 1, 7, 5)
    for i, kind in enumerate(dict.fromkeys(column(rows, "labels"))):
        here = [r for r in rows if r["labels"] == kind]
        _draw_slopes(axes, i, here, [names.index(r["algorithm"]) + 0.16 * (1 - 2 * i) for r in here])
    axes.axvline(0, color="#000000", lw=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.set(
        title="How far the regulariser moves KL (95 % interval of the slope)",
        xlabel="control: −d ln KL / d ln regulariser",
    )
    axes.legend(loc="upper right")
    return figure


def _draw_slopes(axes: Axes, i: int, rows: Sequence[Row], heights: Sequence[float]) -> None:
    known = [(r, y) for r, y in zip(rows, heights, strict=True) if r["control"] is not None]
    spread = [
        [abs(r["control"] - (r["control"] if r[end] is None else r[end])) for r, _ in known]
        for end in ("ci low", "ci high")
    ]
    axes.errorbar(
        [r["control"] for r, _ in known],
        [y for _, y in known],
        xerr=spread,
        fmt=MARKERS[i],
        color=COLOURS[i],
        ms=5,
        capsize=2,
        label=f"{rows[0]['labels']} labels",
    )
    for r, y in zip(rows, heights, strict=True):
        if r["control"] is None:
            text, place = f"not converged ({r['converged runs']} runs converged)", (4, -2)
            axes.annotate(
                text, (0, y), xytext=place, textcoords="offset points", color=COLOURS[i], fontsize=7
            )


EXPERIMENT = Experiment(
    "choosing_tau",
    "Choosing τ",
    frozenset({"bandit"}),
    measure,
    {
        "how far the regulariser moves KL, and the best reward that it reaches": rows_of(
            "choosing_tau_control"
        )
    },
    findings,
    {"choosing_tau": draw_frontier, "choosing_tau_control": draw_control},
)
