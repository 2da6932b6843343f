"""The IPO paper's bandit: final policies on three actions, beside IPO's closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from xpo_bench.report.curves import Curves
from xpo_bench.report.experiments.base import Data, Experiment, Plot, Row, algorithms_of, column
from xpo_bench.report.format import listed, mean_pm, number
from xpo_bench.report.records import Record
from xpo_bench.report.render.drawing import Drawing, Entry, Panel
from xpo_bench.report.render.labels import Label
from xpo_bench.report.render.style import LineStyles
from xpo_bench.report.render.svg import SERIES
from xpo_bench.statistics import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PREFERRED: Mapping[str, Mapping[str, float]] = {
    "deterministic": {"a": 2 / 3, "b": 0.0, "c": -2 / 3},
    "cycle": {"a": 0.0, "b": 0.0, "c": 0.0},
    "dominated": {"a": 0.0, "b": 0.0, "c": -1.0},
}
"""World -> action -> its log-ratio at IPO's optimum in units of 1/(2τ), up to a constant: the least-squares
solution of (log-ratio of winner − log-ratio of loser = 1/(2τ)) over the rows of the world."""
TITLES = {
    "deterministic": "Total order: a ≻ b ≻ c",
    "cycle": "Cycle: a ≻ b ≻ c ≻ a",
    "dominated": "c never wins, a and b tie",
}
PROMPT = "x"
"""The one prompt of these worlds."""


def ipo_optimum(world: str, tau: float) -> dict[str, float]:
    """IPO's policy in closed form on the three-action worlds with a uniform reference: π ∝ exp(x/(2τ))."""
    weights = {y: math.exp(x / (2 * tau)) for y, x in PREFERRED[world].items()}
    return {y: w / sum(weights.values()) for y, w in weights.items()}


def measure(cells: Sequence[Record], curves: Curves) -> Data:
    """Final probabilities of the actions over seeds, beside IPO's closed form."""
    policies: dict[tuple[str, str, str, float], list[Mapping[str, float]]] = {}
    for r in cells:
        if r.status == "ok" and r.final_policy and r.swept and r.task.name in PREFERRED:
            name, value = r.swept
            place = (r.task.name, r.algorithm.name, name, value)
            policies.setdefault(place, []).append(r.final_policy[PROMPT])
    rows: list[Row] = []
    for (world, algorithm, name, value), runs in policies.items():
        exact = ipo_optimum(world, value) if algorithm == "ipo" else {}
        for action in PREFERRED[world]:
            over_seeds = estimate(policy[action] for policy in runs)
            assert over_seeds is not None  # there is a run
            expected = exact.get(action)
            rows.append(
                {
                    "world": world,
                    "algorithm": f"{algorithm} {name}={value:g}",
                    "value": value,
                    "action": action,
                    "probability": over_seeds.mean,
                    "half interval": over_seeds.half,
                    "closed form": expected,
                    "off by": None if expected is None else over_seeds.mean - expected,
                    "seeds": over_seeds.n,
                }
            )
    return {"bandit": rows}


def table(data: Data) -> list[Row]:
    """A row per world and configuration, a column per action."""
    out: dict[tuple[str, str], Row] = {}
    for r in data["bandit"]:
        row = out.setdefault((r["world"], r["algorithm"]), {"world": r["world"], "algorithm": r["algorithm"]})
        row[f"pi({r['action']})"] = mean_pm(Estimate(r["probability"], r["half interval"], r["seeds"]))
        row[f"exact {r['action']}"] = r["closed form"]
    return list(out.values())


def findings(data: Data) -> list[str]:
    """How near IPO is to its closed form, and what DPO leaves the action that never wins."""
    out = []
    for world in PREFERRED:
        rows = [r for r in data["bandit"] if r["world"] == world]
        ipo = [r for r in rows if r["off by"] is not None]
        least = {r["algorithm"]: r["probability"] for r in rows if r["action"] == "c" and r["off by"] is None}
        if ipo:
            inside = sum(
                r["half interval"] is not None and abs(r["off by"]) <= r["half interval"] for r in ipo
            )
            out.append(
                f"{world}: IPO is within {number(max(abs(r['off by']) for r in ipo))} of its closed form "
                f"({inside} of {len(ipo)} probabilities inside their 95 % interval)."
            )
        if least and world != "cycle":
            left = listed([f"{number(p)} ({name.split()[-1]})" for name, p in least.items()])
            out.append(f"{world}: DPO leaves action c a probability of {left}.")
    return out


def draw(data: Data, styles: LineStyles) -> Drawing:
    """Final π(action) against τ or β on the three worlds, beside IPO's closed form."""
    names = [name for name in ("dpo", "ipo") if any(r["algorithm"].startswith(name) for r in data["bandit"])]
    legend = [
        Entry(name, f"{name}, mean over seeds ± 95 %", replace(styles.algorithm(name), width=0))
        for name in names
    ]
    actions = list(next(iter(PREFERRED.values())))
    for i, action in enumerate(actions):
        legend.append(Entry(f"exact-{action}", f"IPO's closed form, π({action})", styles.algorithm("ipo", i)))
    panels = [
        Panel(
            partial(
                _world,
                world=w,
                rows=[r for r in data["bandit"] if r["world"] == w],
                names=names,
                styles=styles,
            )
        )
        for w in PREFERRED
    ]
    return Drawing(
        panels, [replace(e, style=replace(e.style, marker="")) if "closed" in e.label else e for e in legend]
    )


def _world(
    ax: Axes, world: str, rows: Sequence[Row], names: Sequence[str], styles: LineStyles
) -> list[Label]:
    # 81 points, evenly spread on the logarithmic axis
    taus = [0.08 * (1.2 / 0.08) ** (i / 80) for i in range(81)]
    labels = []
    for i, action in enumerate(PREFERRED[world]):
        exact = [ipo_optimum(world, t)[action] for t in taus]
        ax.plot(taus, exact, gid=f"{SERIES}exact-{action}", **styles.algorithm("ipo", i).line)
        for name in names:
            here = [r for r in rows if r["action"] == action and r["algorithm"].startswith(name)]
            bars = ax.errorbar(
                # side by side, so that what coincides can still be told apart
                [r["value"] * (1 + 0.05 * (i - 1)) for r in here],
                column(here, "probability"),
                yerr=[r["half interval"] or 0.0 for r in here],
                capsize=2,
                elinewidth=0.8,
                **(styles.algorithm(name).mark | {"ls": ""}),
            )
            for artist in bars.get_children():
                artist.set_gid(SERIES + name)
            if here:
                labels.append(Label(name, f"{name} π({action})", taus[-1], here[-1]["probability"]))
    ax.set(title=TITLES[world], xlabel="τ of IPO, β of DPO (1/nats)", xscale="log", ylim=(-0.04, 1.04))
    ax.set_xlim(taus[0], taus[-1])
    ax.set_ylabel("final probability")
    ax.set_xticks([0.1, 0.2, 0.5, 1.0], ["0.1", "0.2", "0.5", "1"])
    ax.minorticks_off()
    return labels


def caption(data: Data) -> str:
    """What the figure compares."""
    return "final probabilities of the three actions under DPO and IPO; lines: IPO's closed form"


EXPERIMENT = Experiment(
    "bandit",
    "The IPO paper's bandit",
    frozenset(PREFERRED),
    measure,
    {"final policy, mean over seeds": table},
    findings,
    {"bandit": Plot(draw, caption, ("bandit",), algorithms_of("bandit"))},
)
