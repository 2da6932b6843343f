"""Choosing τ: how far every regulariser moves KL, and how near its sweep comes to the frontier."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from xpo_bench.report.curves import Curves
from xpo_bench.report.experiments.base import (
    Data,
    Experiment,
    Plot,
    Row,
    column,
    gathered,
    named,
    rows_of,
)
from xpo_bench.report.format import counted, listed
from xpo_bench.report.frontier import hull
from xpo_bench.report.records import Record
from xpo_bench.report.render.drawing import ALONE, Drawing, Entry, Panel
from xpo_bench.report.render.frontier import EXACT, plane
from xpo_bench.report.render.labels import Label
from xpo_bench.report.render.style import (
    BACKGROUND,
    FRONTIER,
    GREY,
    INK,
    OTHERS,
    PATTERNS,
    SPEAKING,
    LineStyle,
    LineStyles,
)
from xpo_bench.report.render.svg import SERIES
from xpo_bench.report.runs import group
from xpo_bench.report.summary import Control, control

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STAYS = 0.1
"""KL in nats below which a policy has hardly left the reference."""
FRACTION = "fraction of frontier"
PLANE = ("kl", "gold_reward", "frontier_gap")
ARGUED = ("dpo", "ipo", "rlhf")
"""The algorithms that the article compares."""


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
    frontier = _frontier([r for r in cells if _point(r, curves)], curves)
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


def _frontier(cells: Sequence[Record], curves: Curves) -> list[tuple[float, float]]:
    """The exact frontier at every KL that a policy had, at the end of training and on its way."""
    known = [
        p for r in cells for p in (r.metrics, *curves(r.key)) if all(p.get(m) is not None for m in PLANE)
    ]
    # a policy's reward plus its gap IS the frontier at its own KL
    return hull((p["kl"], p["gold_reward"] + p["frontier_gap"]) for p in known)


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


def draw_frontier(data: Data, styles: LineStyles) -> Drawing:
    """Reward against KL along every sweep, under the exact frontier; a panel per kind of labels."""
    rows, exact = data["choosing_tau"], data["choosing_tau_frontier"]
    names = loudest(data)
    line = list(zip(column(exact, "kl"), column(exact, "gold_reward"), strict=True))
    panels = []
    for kind in dict.fromkeys(column(rows, "labels")):
        sweeps = gathered([r for r in rows if r["labels"] == kind], "algorithm")
        paths = [
            (
                str(names.index(name)) if name in names else OTHERS,
                name,
                styles.algorithm(name) if name in names else BACKGROUND,
                _sweep(run),
            )
            for (name,), run in sorted(sweeps.items(), key=lambda sweep: sweep[0][0] in names)
        ]
        panels.append(
            Panel(partial(plane, exact=line, paths=paths, title=f"{kind} labels", marks=True), *ALONE)
        )
    legend = [Entry(EXACT, "exact frontier", FRONTIER)]
    legend += [Entry(str(i), name, styles.algorithm(name)) for i, name in enumerate(names)]
    if more := len({r["algorithm"] for r in rows} - set(names)):
        legend.append(Entry(OTHERS, counted(more, "other algorithm"), BACKGROUND))
    return Drawing(panels, legend)


def loudest(data: Data) -> list[str]:
    """At most eight algorithms: those that the article compares, then those with the highest reward under any
    kind of labels, each compared with the others of its kind.
    """
    rows = data["choosing_tau"]
    rank: dict[str, int] = {}
    for (_,), some in gathered(rows, "labels").items():
        best = {n: max(column(run, "gold_reward")) for (n,), run in gathered(some, "algorithm").items()}
        for place, name in enumerate(sorted(best, key=lambda n: -best[n])):
            rank[name] = min(place, rank.get(name, place))
    return sorted(rank, key=lambda name: (name not in ARGUED, rank[name], name))[:SPEAKING]


def _sweep(run: Sequence[Row]) -> list[tuple[float, float]]:
    """(KL, reward) by the regulariser's value, means over seeds, towards larger KL."""
    means = [
        (statistics.fmean(column(same, "kl")), statistics.fmean(column(same, "gold_reward")))
        for _, same in sorted(gathered(run, "value").items())
    ]
    return means if means[-1][0] >= means[0][0] else means[::-1]


def frontier_caption(data: Data) -> str:
    """What the figure compares."""
    return (
        "reward against KL along the sweep of every regulariser, a mark per value; thick: the exact frontier"
    )


def draw_control(data: Data, styles: LineStyles) -> Drawing:
    """How far every algorithm's regulariser moves KL: −d ln KL / d ln regulariser."""
    kinds = list(dict.fromkeys(column(data["choosing_tau_control"], "labels")))
    legend = [
        Entry(f"kind{i}", f"{kind} labels", _of_kind(LineStyle(INK, "o", width=0.8), i))
        for i, kind in enumerate(kinds)
    ]
    names = {r["algorithm"] for r in data["choosing_tau_control"]}
    panel = Panel(partial(_control, data=data, styles=styles), ALONE[0], 1.1 + 0.3 * len(names))
    return Drawing([panel], legend, columns=1)


def _of_kind(style: LineStyle, i: int) -> LineStyle:
    """Solid for the first kind of labels, dotted for the second: the colour is the algorithm's."""
    return replace(style, pattern=PATTERNS[2 * i % len(PATTERNS)], width=1.2)


def _control(ax: Axes, data: Data, styles: LineStyles) -> list[Label]:
    rows = data["choosing_tau_control"]
    names = sorted({r["algorithm"] for r in rows}, reverse=True)
    kinds = list(dict.fromkeys(column(rows, "labels")))
    loud = loudest(data)
    for r in rows:
        i, name = kinds.index(r["labels"]), r["algorithm"]
        y = names.index(name) + 0.18 * (1 - 2 * i)
        style = _of_kind(styles.algorithm(name) if name in loud else LineStyle(GREY, "o"), i)
        if r["control"] is None:
            text = f"{r['converged runs']} runs converged: unknown"
            ax.annotate(text, (0, y), (4, 0), textcoords="offset points", color=INK, fontsize=8, va="center")
            continue
        low, high = (r["control"] if r[end] is None else r[end] for end in ("ci low", "ci high"))
        ax.plot([low, high], [y, y], gid=f"{SERIES}kind{i}", **style.line)
        ax.plot(r["control"], y, gid=f"{SERIES}kind{i}", **style.mark)
    ends = [r[end] for r in rows for end in ("control", "ci low", "ci high") if r[end] is not None]
    # where nothing is known there is room for the words
    ax.set_xlim(min([-0.1, *ends]) - 0.05, max([1.5, *ends]) + 0.05)
    ax.axvline(0, color=INK, lw=0.8)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.set(title="control: −d ln KL / d ln regulariser", xlabel="95 % interval of the slope")
    return []


def control_caption(data: Data) -> str:
    """What the figure compares."""
    return "how far each regulariser moves KL; at 0 it does nothing, 2 is the slope of small deviations"


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
    {
        "choosing_tau": Plot(
            draw_frontier, frontier_caption, ("choosing_tau", "choosing_tau_frontier"), loudest
        ),
        "choosing_tau_control": Plot(draw_control, control_caption, ("choosing_tau_control",), loudest),
    },
)
