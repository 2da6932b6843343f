"""The IPO paper's bandit: final policies on three actions, beside IPO's closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from xpo_bench.report.curves import Curves
from xpo_bench.report.experiments.base import Data, Experiment, Row, column
from xpo_bench.report.format import listed, mean_pm, number
from xpo_bench.report.records import Record
from xpo_bench.report.render.style import COLOURS, LINES, MARKERS, canvas
from xpo_bench.statistics import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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


def draw(data: Data) -> Figure | None:
    """Final π(action) against τ or β on the three worlds, beside IPO's closed form."""
    if not data["bandit"]:
        return None
    figure, panels = canvas(1, 3, 10.5, 3.6)
    for axes, world in zip(panels, PREFERRED, strict=True):
        _draw_world(axes, world, [r for r in data["bandit"] if r["world"] == world])
    panels[0].set_ylabel("final probability, mean over seeds ± 95 %")
    panels[-1].legend(title="lines: IPO's closed form", ncols=2, loc="upper left")
    return figure


def _draw_world(axes: Axes, world: str, rows: Sequence[Row]) -> None:
    # 81 points, evenly spread on the logarithmic axis
    taus = [0.08 * (1.2 / 0.08) ** (i / 80) for i in range(81)]
    for i, action in enumerate(PREFERRED[world]):
        colour = COLOURS[i]
        axes.plot(taus, [ipo_optimum(world, t)[action] for t in taus], color=colour, lw=1.2, ls=LINES[i])
        for ipo in (True, False):
            here = [r for r in rows if r["action"] == action and r["algorithm"].startswith("ipo") == ipo]
            axes.errorbar(
                # side by side, so that what coincides can still be told apart
                [r["value"] * (1 + 0.04 * (i - 1)) for r in here],
                column(here, "probability"),
                yerr=[r["half interval"] or 0.0 for r in here],
                fmt=MARKERS[i],
                ms=5,
                color=colour,
                mfc=colour if ipo else "white",
                capsize=2,
                label=f"{'IPO' if ipo else 'DPO'}: π({action})",
            )
    axes.set(title=TITLES[world], xlabel="τ of IPO, β of DPO (1/nats)", xscale="log", ylim=(-0.04, 1.04))
    axes.set_xticks([0.1, 0.5, 1.0], ["0.1", "0.5", "1"])
    axes.minorticks_off()


EXPERIMENT = Experiment(
    "bandit",
    "The IPO paper's bandit",
    frozenset(PREFERRED),
    measure,
    {"final policy, mean over seeds": table},
    findings,
    {"bandit": draw},
)
