"""Why RLHF is more robust: a reward with weight decay on one certain pair, and few votes per pair."""

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
    named,
    rows_of,
    sigma,
)
from xpo_bench.report.format import counted, listed, mean_pm, number
from xpo_bench.report.records import Record
from xpo_bench.report.render.style import COLOURS, LINES, MARKERS, Style, canvas, line_style
from xpo_bench.statistics import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAIR, VOTES = "one_pair", "votes"
PROMPT, REJECTED = "x", "b"


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


def draw(data: Data) -> Figure | None:
    """π(rejected) on one certain pair against the weight decay of the reward."""
    rows = data["robustness"]
    if not rows:
        return None
    figure, (axes,) = canvas(1, 1, 6, 3.4)
    decays = sorted({r["reward_weight_decay"] for r in rows if r["reward_weight_decay"] is not None})
    for i, ((name,), run) in enumerate(gathered(rows, "algorithm").items()):
        style: Style = {"color": COLOURS[i % len(COLOURS)], "ls": LINES[i % len(LINES)]}
        run = sorted(run, key=lambda r: float(r["reward_weight_decay"] or 0))
        probabilities, label = column(run, "rejected probability"), f"{name} ({run[0]['hyperparameter']})"
        if run[0]["reward_weight_decay"] is None:
            axes.axhline(probabilities[0], label=f"{label}, has no reward", **style)
        else:
            x = [decays.index(r["reward_weight_decay"]) for r in run]
            axes.plot(x, probabilities, marker=MARKERS[i], label=label, **style)
    axes.set_xticks(range(len(decays)), [f"{d:g}" for d in decays])
    axes.set(
        title="One certain pair",
        xlabel="weight decay of the fitted reward",
        ylabel="π(rejected) at the end",
        yscale="log",
    )
    axes.legend()
    return figure


def draw_votes(data: Data) -> Figure | None:
    """frontier_gap of every algorithm against the number of votes per pair."""
    rows = data["votes"]
    if not rows:
        return None
    figure, (axes,) = canvas(1, 1, 8, 4.6)
    for i, ((name,), run) in enumerate(gathered(rows, "algorithm").items()):
        axes.plot(column(run, "votes"), column(run, "frontier_gap"), label=name, ms=4, lw=1, **line_style(i))
    unanimous = {r["votes"]: r["unanimous"] for r in rows}
    label = "fraction of unanimous\npairs"
    axes.plot(list(unanimous), list(unanimous.values()), color="#000000", lw=2.2, label=label)
    axes.set(
        xlabel="votes per pair (true preference .8)",
        ylabel="frontier_gap (reward)",
        xscale="log",
        yscale="log",
    )
    axes.set_xticks(list(unanimous), [str(n) for n in unanimous])
    axes.minorticks_off()
    axes.set_title("Finite data: reward left behind at the policy's own KL")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    return figure


EXPERIMENT = Experiment(
    "robustness",
    "Why RLHF is more robust",
    frozenset({PAIR, VOTES}),
    measure,
    {"one certain pair": rows_of("robustness"), "frontier_gap against votes per pair": votes_table},
    findings,
    {"robustness": draw, "votes": draw_votes},
)
