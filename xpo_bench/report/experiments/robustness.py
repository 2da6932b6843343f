"""Why RLHF is more robust: a reward with weight decay on one certain pair, and few votes per pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import zip_longest
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
    named,
    rows_of,
    sigma,
)
from xpo_bench.report.format import counted, listed, mean_pm, number
from xpo_bench.report.records import Record
from xpo_bench.report.render.axes import decades, decades_below, mark_edges, mark_points
from xpo_bench.report.render.drawing import ALONE, Drawing, Entry, Panel
from xpo_bench.report.render.labels import Label
from xpo_bench.report.render.style import BACKGROUND, OTHERS, SPEAKING, LineStyles
from xpo_bench.report.render.svg import SERIES
from xpo_bench.statistics import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAIR, VOTES = "one_pair", "votes"
PROMPT, REJECTED = "x", "b"
ARGUED = ("dpo", "ipo", "rlhf")
"""The algorithms that the article compares."""
PAIR_DECADES, VOTES_DECADES = 5, 3
"""How far the axes reach below their highest value: what is lower is as good as 0, or rounding."""


def reward_margin(weight_decay: float) -> float | None:
    """The margin d of a Bradley–Terry reward fitted to one certain preference: σ(−d) = λd/2; None without
    weight decay.
    """
    if weight_decay <= 0:
        return None
    # bisection: σ(−d) falls and λd/2 rises, and they have crossed at λd/2 = 1 > σ
    low, high = 0.0, 2 / weight_decay
    for _ in range(200):
        d = 0.5 * (low + high)
        low, high = (d, high) if sigma(-d) > weight_decay * d / 2 else (low, d)
    return low


def measure(cells: Sequence[Record], curves: Curves) -> Data:
    """π(rejected) on one certain pair by the reward's weight decay; frontier_gap by votes per pair."""
    pair = [_pair(r) for r in cells if r.task.name == PAIR and r.final_policy]
    return {"robustness": pair, "votes": _votes([r for r in cells if r.task.name == VOTES])}


def _pair(r: Record) -> Row:
    assert r.final_policy is not None
    decay = r.algorithm.config.get("reward_weight_decay")
    return {
        "algorithm": r.algorithm.name,
        "hyperparameter": f"{r.swept[0]}={r.swept[1]:g}" if r.swept else "",
        "reward_weight_decay": decay,
        "rejected probability": r.final_policy[PROMPT][REJECTED],
        "at the optimum": _optimum(r, decay),
        "kl": r.metrics.get("kl"),
    }


def _optimum(r: Record, decay: float | None) -> float:
    """π(rejected) where training converges: 0 where the margin grows without bound."""
    name, value = r.swept or ("", 0.0)
    if decay is not None and value:
        margin = reward_margin(float(decay))
        return 0.0 if margin is None else sigma(-margin / value)  # π ∝ exp(reward/β)
    return sigma(-1 / (2 * value)) if name == "tau" and value else 0.0  # IPO's margin is 1/(2τ)


def _votes(cells: Sequence[Record]) -> list[Row]:
    runs: dict[tuple[str, int], list[Record]] = {}
    for r in cells:
        if r.status == "ok" and "frontier_gap" in r.metrics:
            runs.setdefault((r.algorithm.name, int(r.task.options["votes"])), []).append(r)
    rows = []
    for (name, n), seeds in sorted(runs.items()):
        p = float(seeds[0].task.options["preference"])
        gap, kl = (estimate(r.metrics.get(m) for r in seeds) for m in ("frontier_gap", "kl"))
        assert gap is not None
        rows.append(
            {
                "algorithm": name,
                "votes": n,
                "unanimous": p**n + (1 - p) ** n,  # all n for one side, or all for the other
                "frontier_gap": gap.mean,
                "half interval": gap.half,
                "kl": kl.mean if kl else None,
                "seeds": gap.n,
            }
        )
    return rows


def votes_table(data: Data) -> list[Row]:
    """A row per algorithm, a column per number of votes."""
    out: dict[str, Row] = {}
    for r in data["votes"]:
        row = out.setdefault(r["algorithm"], {"algorithm": r["algorithm"]})
        row[f"{r['votes']} votes"] = mean_pm(Estimate(r["frontier_gap"], r["half interval"], r["seeds"]))
    if out:
        fractions = {f"{r['votes']} votes": number(r["unanimous"]) for r in data["votes"]}
        out["unanimous"] = {"algorithm": "(fraction unanimous)"} | fractions
    return list(out.values())


def findings(data: Data) -> list[str]:
    """What each algorithm leaves the rejected completion, and who loses least from few and many votes."""
    pair = []
    for (name,), rows in gathered(data["robustness"], "algorithm").items():
        rows = sorted(rows, key=lambda r: float(r["reward_weight_decay"] or 0))
        shown = [number(r["rejected probability"]) for r in rows]
        if len(rows) > 1:
            shown = [f"{p} (decay {r['reward_weight_decay']:g})" for p, r in zip(shown, rows, strict=True)]
        pair.append(f"{name} {shown[0]}" if len(rows) == 1 else f"{name} from {shown[0]} to {shown[-1]}")
    out = [f"one certain pair, π(rejected): {'; '.join(pair)}."] if pair else []
    numbers = column(data["votes"], "votes")
    for n in (min(numbers), max(numbers)) if numbers else ():
        ranked = sorted((r for r in data["votes"] if r["votes"] == n), key=lambda r: float(r["frontier_gap"]))
        best = listed([named(r["algorithm"], r["frontier_gap"]) for r in ranked[:3]])
        worst = named(ranked[-1]["algorithm"], ranked[-1]["frontier_gap"])
        unanimous = f"{counted(n, 'vote')} a pair ({number(100 * ranked[0]['unanimous'])} % unanimous)"
        out.append(f"{unanimous}: frontier_gap from {best} to {worst}.")
    return out


def draw(data: Data, styles: LineStyles) -> Drawing:
    """π(rejected) on one certain pair against the weight decay of the reward."""
    runs = gathered(data["robustness"], "algorithm")
    legend = [
        Entry(
            str(i),
            f"{name} ({run[0]['hyperparameter']}){'' if _fits(run) else ', fits no reward'}",
            styles.algorithm(name),
        )
        for i, ((name,), run) in enumerate(runs.items())
    ]
    return Drawing([Panel(partial(_pairs, runs=runs, styles=styles), *ALONE)], legend, columns=1)


def _fits(run: Sequence[Row]) -> bool:
    return run[0]["reward_weight_decay"] is not None


def _pairs(ax: Axes, runs: Mapping[tuple[Any, ...], Sequence[Row]], styles: LineStyles) -> list[Label]:
    decays = sorted({r["reward_weight_decay"] for run in runs.values() if _fits(run) for r in run})
    lines = []
    for i, ((name,), some) in enumerate(runs.items()):
        run = sorted(some, key=lambda r: float(r["reward_weight_decay"] or 0))
        y, style = column(run, "rejected probability"), styles.algorithm(name)
        x = (
            [decays.index(r["reward_weight_decay"]) for r in run]
            if _fits(run)
            else [0, max(1, len(decays) - 1)]
        )
        y = y if _fits(run) else y[:1] * 2  # a level line: no decay changes it
        ax.plot(x, y, gid=f"{SERIES}{i}", **style.line)
        lines.append((str(i), name, style if _fits(run) else replace(style, marker=""), x, y))
    every = [v for *_, y in lines for v in y]
    floor = decades_below(max(every), PAIR_DECADES, every)
    ax.set_xticks(range(len(decays)), [f"{d:g}" for d in decays])
    ax.set(xlabel="weight decay of the fitted reward", yscale="log", ylim=(floor / 2, 2 * max(every)))
    ax.set(title="π(rejected) on one certain pair", xlim=(-0.15, max(1, len(decays) - 1)))
    decades(ax.yaxis)
    for series, _, style, x, y in lines:
        mark_edges(ax, series, style, x, y)
        mark_points(ax, series, style, x, y)
    return [Label(series, name, x[-1], y[-1]) for series, name, _, x, y in lines]


def pair_caption(data: Data) -> str:
    """What the figure compares."""
    lowest = min(column(data["robustness"], "rejected probability"))
    cut = max(column(data["robustness"], "rejected probability")) * 10.0**-PAIR_DECADES
    beyond = f"; the lowest, {number(lowest)}, is beyond the axis" if 0 < lowest < cut else ""
    return f"what the weight decay of the reward leaves the rejected completion of one certain pair{beyond}"


def draw_votes(data: Data, styles: LineStyles) -> Drawing:
    """frontier_gap of every algorithm against the number of votes per pair."""
    names = loudest(data["votes"])
    legend = [Entry(str(i), name, styles.algorithm(name)) for i, name in enumerate(names)]
    if more := len({r["algorithm"] for r in data["votes"]} - set(names)):
        legend.append(Entry(OTHERS, counted(more, "other algorithm"), BACKGROUND))
    return Drawing([Panel(partial(_gaps, data=data, names=names, styles=styles), *ALONE)], legend, columns=1)


def loudest(rows: Sequence[Row]) -> list[str]:
    """At most eight algorithms: those that the article compares, then those with the smallest gaps.

    These are taken by turns at the fewest and at the most votes.
    """
    votes = column(rows, "votes")
    ranked = [
        [r["algorithm"] for r in sorted(rows, key=lambda r: float(r["frontier_gap"])) if r["votes"] == n]
        for n in (min(votes), max(votes))
    ]
    known = [name for name in ARGUED if name in column(rows, "algorithm")]
    by_turns = [name for pair in zip_longest(*ranked) for name in pair if name is not None]
    return list(dict.fromkeys([*known, *by_turns]))[:SPEAKING]


def _gaps(ax: Axes, data: Data, names: Sequence[str], styles: LineStyles) -> list[Label]:
    from matplotlib.ticker import NullLocator

    lines = []
    runs = {name: run for (name,), run in gathered(data["votes"], "algorithm").items()}
    for name in sorted(runs, key=lambda name: name in names):
        series = str(names.index(name)) if name in names else OTHERS
        style = styles.algorithm(name) if name in names else BACKGROUND
        x, y = column(runs[name], "votes"), column(runs[name], "frontier_gap")
        ax.plot(x, y, gid=SERIES + series, **style.line)
        lines.append((series, name, style, x, y))
    every = column(data["votes"], "frontier_gap")
    top = max(every)
    unanimous = {r["votes"]: r["unanimous"] for r in data["votes"]}
    ax.set(yscale="log", ylim=(decades_below(top, VOTES_DECADES, every) / 1.3, top * 1.3))
    ax.set(xscale="log", xlim=(min(unanimous) * 0.93, max(unanimous)))
    ax.set_xticks(list(unanimous), [f"{n}\n{100 * part:.0f} %" for n, part in unanimous.items()])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set(xlabel="votes per pair (true preference .8); fraction unanimous", title="frontier_gap (reward)")
    decades(ax.yaxis)
    for series, _, style, x, y in lines:
        mark_edges(ax, series, style, x, y)
        mark_points(ax, series, style, x, y)
    return [Label(series, name, x[-1], y[-1]) for series, name, _, x, y in lines if series != OTHERS]


def votes_caption(data: Data) -> str:
    """What the figure compares."""
    return "finite data: the reward left behind at the policy's own KL, by the votes that each pair has"


EXPERIMENT = Experiment(
    "robustness",
    "Why RLHF is more robust",
    frozenset({PAIR, VOTES}),
    measure,
    {"one certain pair": rows_of("robustness"), "frontier_gap against votes per pair": votes_table},
    findings,
    {
        "robustness": Plot(draw, pair_caption, ("robustness",), algorithms_of("robustness")),
        "votes": Plot(draw_votes, votes_caption, ("votes",), lambda data: loudest(data["votes"])),
    },
)
