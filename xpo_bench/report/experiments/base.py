"""The article's experiments: what each measured, as rows, and what that says, from records and curves alone.

A row is a dictionary of numbers and texts; the same rows are printed as tables, written as CSV and drawn as
figures.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any

from rich.console import Console

from xpo_bench.metrics.names import current
from xpo_bench.report.format import mean_pm, number
from xpo_bench.report.runs import Record, group
from xpo_bench.report.summary import control
from xpo_bench.report.table import Column, bullet, draw, say
from xpo_bench.statistics import Estimate, estimate

Row = dict[str, Any]
Data = dict[str, list[Row]]
Curves = Callable[[Record], Sequence[Mapping[str, Any]]]
"""The evaluation points of a record, in order."""

EARLY, LATE = 0.1, 0.9
"""Where the late phase of an overfitting run begins and ends, as shares of its steps."""
CERTAIN = 0.99
STILL = 0.1
"""A policy has settled when its margin per token moved by less than this share of itself over the last fifth.
"""
DOWN = 0.01
"""Share of its first value below which a loss has come down again after a spike."""
STAYS = 0.1
"""KL in nats below which a policy has hardly left the reference."""
LAW = ("monotone", "oscillating", "divergent")


@dataclass(frozen=True)
class Experiment:
    """One experiment of the article.

    Args:
        tasks: whose cells belong to it. measure: cells and curves -> named rows, for tables, CSV and figures.
        tables: (heading, rows of the table) of what is printed. findings: the rows in sentences.
    """

    name: str
    title: str
    tasks: frozenset[str]
    measure: Callable[[Sequence[Record], Curves], Data]
    tables: Sequence[tuple[str, Callable[[Data], list[Row]]]]
    findings: Callable[[Data], list[str]]


# --------------------------------------------------------------------------- reading cells


REMEMBERED = 8192
"""Curves in memory at most: those of the rows that tables show, at 16 seeds."""


def curve_reader(root: Path) -> Curves:
    """Reads `RUN/curves/KEY.parquet`, and remembers some; a run without one has no points."""

    @lru_cache(maxsize=REMEMBERED)
    def read(key: str) -> Sequence[Mapping[str, Any]]:
        import pyarrow.parquet as pq

        path = root / "curves" / f"{key}.parquet"
        return [current(row) for row in pq.read_table(path).to_pylist()] if path.is_file() else []

    return lambda record: read(record["key"])


def _knob(record: Record) -> tuple[str, float | None]:
    """The declared regulariser and its value."""
    declared = record["algorithm"].get("regulariser")
    return (declared[0], record["algorithm"]["config"].get(declared[0])) if declared else ("", None)


def _budget(record: Record, name: str) -> Any:
    return (record["task"].get("budget") or {}).get(name)


def _margins(points: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """(margin summed over tokens, tokens) at every point of the curve of one pair, nats."""
    first = points[0]
    length = first["rejected_logp"] / math.log(first["rejected_prob"])
    return [
        ((p["chosen_logp"] - first["chosen_logp"]) - (p["rejected_logp"] - first["rejected_logp"]), length)
        for p in points
    ]


def _sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def _slope(x: Sequence[float], y: Sequence[float]) -> float | None:
    if len(x) < 2 or max(x) == min(x):
        return None
    return statistics.linear_regression(x, y).slope


# --------------------------------------------------------------------------- 1. overfit


def overfit(cells: Sequence[Record], curves: Curves) -> Data:
    """DPO on one pair: the course of π(rejected) per token, the loss, and σ(β·margin), and what its late
    phase does.
    """
    course: list[Row] = []
    late: list[Row] = []
    for r in cells:
        points = [p for p in curves(r) if p.get("rejected_prob") is not None]
        if r["algorithm"]["name"] != "dpo" or len(points) < 2:
            continue
        beta, over = float(r["algorithm"]["config"]["beta"]), str(_budget(r, "loss_over"))
        rows: list[Row] = []
        for p, (margin, length) in zip(points, _margins(points), strict=True):
            scored = margin / length if over == "token" else margin
            logp = p["rejected_logp"] / length
            rows.append(
                {
                    "loss over": over,
                    "seed": r["seed"],
                    "step": p["step"],
                    "loss": p.get("loss"),
                    "rejected_prob": p["rejected_prob"],
                    "rejected_logp per token": logp,
                    "chosen_prob": p["chosen_prob"],
                    "sigma": _sigma(beta * scored),
                }
            )
        course += rows
        steps = rows[-1]["step"]
        tail = [row for row in rows if EARLY * steps <= row["step"] <= LATE * steps]
        if len(tail) < 2 or not tail[0]["step"]:
            continue
        logps = [row["rejected_logp per token"] for row in (rows[0], tail[0], tail[-1])]
        fallen = [(logps[0] - logp) / math.log(10) for logp in logps[1:]]
        per_token = _slope([math.log(t["step"]) for t in tail], [t["rejected_logp per token"] for t in tail])
        known = tail[0]["loss"] and tail[-1]["loss"]
        late.append(
            {
                "loss over": over,
                "beta": beta,
                "from step": tail[0]["step"],
                "to step": tail[-1]["step"],
                "orders by then": fallen[0],
                "orders at the end": fallen[1],
                "slope": per_token
                if over == "token" or per_token is None
                else per_token * _margins(points)[0][1],
                "-1/beta": -1 / beta,
                "loss falls by": tail[0]["loss"] / tail[-1]["loss"] if known else None,
                f"sigma > {CERTAIN} at": next((row["step"] for row in rows if row["sigma"] > CERTAIN), None),
            }
        )
    return {"overfit": course, "overfit_late": late}


def _say_overfit(data: Data) -> list[str]:
    out = []
    for r in data["overfit_late"]:
        if r["slope"] is None:
            continue
        tokens = r["loss over"] == "token"
        fell = f"{number(r['orders by then'])} orders of magnitude by step {r['from step']} and {number(r['orders at the end'])}"
        slope = f"ln π(rejected){'' if tokens else ', summed over tokens,'} falls by {number(-r['slope'])} nats per unit of ln step"
        out.append(
            f"loss over {'tokens' if tokens else 'sequences'}: π(rejected token) falls by {fell} by step {r['to step']}; between "
            f"them {slope} (1/β = {number(1 / r['beta'])}) and the loss {number(r['loss falls by'])}-fold."
        )
    return out


# --------------------------------------------------------------------------- 2. dpo_vs_ipo


def dpo_vs_ipo(cells: Sequence[Record], curves: Curves) -> Data:
    """Courses of π(rejected) per token under DPO and IPO, and where each stands at the end."""
    course: list[Row] = []
    ends: list[Row] = []
    for r in cells:
        points = [p for p in curves(r) if p.get("rejected_prob") is not None]
        knob, value = _knob(r)
        if len(points) < 2 or value is None:
            continue
        name, per_token = r["algorithm"]["name"], [m / length for m, length in _margins(points)]
        course += [
            {
                "algorithm": name,
                "knob": knob,
                "value": value,
                "step": p["step"],
                "rejected_prob": p["rejected_prob"],
                "margin": m,
            }
            for p, m in zip(points, per_token, strict=True)
        ]
        before = next(
            m
            for p, m in zip(points[::-1], per_token[::-1], strict=True)
            if p["step"] <= 0.8 * points[-1]["step"]
        )
        ends.append(
            {
                "algorithm": f"{name} {knob}={value:g}",
                "lr": (r.get("train") or {}).get("lr"),
                "rejected_prob": points[-1]["rejected_prob"],
                "margin per token": per_token[-1],
                "1/(2 tau)": 1 / (2 * value) if knob == "tau" else None,
                "last fifth": per_token[-1] - before,
                "course": "settled"
                if abs(per_token[-1] - before) < STILL * abs(per_token[-1]) / 5
                else "still moving",
            }
        )
    return {"dpo_vs_ipo": course, "dpo_vs_ipo_ends": ends}


def _say_dpo_vs_ipo(data: Data) -> list[str]:
    out = []
    dpo = [r for r in data["dpo_vs_ipo_ends"] if r["algorithm"].startswith("dpo")]
    ipo = [r for r in data["dpo_vs_ipo_ends"] if r["1/(2 tau)"] is not None]
    if dpo:
        moving = [r["algorithm"] for r in dpo if r["course"] != "settled"]
        out.append(
            f"π(rejected token) is still moving under {_and(moving) if moving else 'no configuration of dpo'}."
        )
    if ipo:
        ends = [f"{number(r['margin per token'])} (target {number(r['1/(2 tau)'])})" for r in ipo]
        out.append(f"IPO's margin per token ends at {_and(ends)}.")
    return out


# --------------------------------------------------------------------------- 3. learning_rates


def learning_rates(cells: Sequence[Record], curves: Curves) -> Data:
    """Loss along training at several rates, on the language model and on the table, where the law is |1 −
    4η|.
    """
    course: list[Row] = []
    runs: list[Row] = []
    law: list[Row] = []
    for r in cells:
        points = [p for p in curves(r) if p.get("loss") is not None]
        if len(points) < 2:
            continue
        train = r.get("train") or {}
        rate, table = float(train["lr"]), (r["task"].get("model") or {}).get("name") == "tabular"
        label = {"policy": "table" if table else "language model", "algorithm": r["algorithm"]["name"]}
        label |= {"optimizer": train.get("optimizer"), "lr": rate, "steps": _budget(r, "steps")}
        left = _distances(r, points) if table else [None] * len(points)
        course += [
            label | {"step": p["step"], "loss": p["loss"], "distance": d}
            for p, d in zip(points, left, strict=True)
        ]
        losses = [float(p["loss"]) for p in points]
        if table:
            if r["status"] == "ok":
                law.append(_law(r, points, rate))
            else:
                law.append(
                    {"lr": rate, "steps": r["timing"].get("steps"), "1-4 lr": 1 - 4 * rate, "course": LAW[2]}
                )
            continue
        top = max(range(len(losses)), key=losses.__getitem__)
        runs.append(
            {
                "algorithm": label["algorithm"],
                "optimizer": label["optimizer"],
                "lr": rate,
                "first loss": losses[0],
                "lowest before the peak": min(losses[: top + 1]),
                "peak": losses[top],
                "spike": losses[top] / min(losses[: top + 1]),
                "last loss": losses[-1],
                "status": r["status"],
            }
        )
    return {"learning_rates": course, "learning_rates_runs": runs, "learning_rates_law": law}


def _distances(r: Record, points: Sequence[Mapping[str, Any]]) -> list[float]:
    """How far IPO's margin is from its target 1/(2τ) at every point, nats."""
    target = 1 / (2 * float(r["algorithm"]["config"]["tau"]))
    return [target - margin for margin, _ in _margins(points)]


def _law(r: Record, points: Sequence[Mapping[str, Any]], rate: float) -> Row:
    """The course of IPO's margin on the table: the factor by which its distance from the target changes in a
    step.
    """
    left = _distances(r, points)
    steps = [p["step"] for p in points]
    factors = [
        b / a
        for a, b, s, t in zip(left, left[1:], steps, steps[1:], strict=False)
        if t == s + 1 and abs(a) > 1e-6
    ]
    measured = statistics.fmean(factors) if factors else None
    course = None if measured is None else LAW[2] if abs(measured) > 1 else LAW[1] if measured < 0 else LAW[0]
    return {"lr": rate, "steps": steps[-1], "1-4 lr": 1 - 4 * rate, "measured": measured, "course": course}


def _say_learning_rates(data: Data) -> list[str]:
    out = []
    for r in data["learning_rates_runs"]:
        if r["algorithm"] == "ipo" and r["optimizer"] == "sgd" and (r["spike"] > 2 or r["status"] != "ok"):
            settled = r["last loss"] < DOWN * r["first loss"]
            end = (
                "and diverges"
                if r["status"] == "diverged"
                else f"and {'settles' if settled else 'stays'} at {number(r['last loss'])}"
            )
            out.append(
                f"IPO at rate {r['lr']:g} on the language model: the loss spikes {number(r['spike'])}-fold {end}."
            )
    for course in LAW:
        rates = [f"{r['lr']:g}" for r in data["learning_rates_law"] if r.get("course") == course]
        if rates:
            out.append(f"IPO on the table is {course} at {_and(rates)}.")
    worst = [
        abs(r["measured"] - r["1-4 lr"]) for r in data["learning_rates_law"] if r.get("measured") is not None
    ]
    if worst:
        out.append(
            f"Its distance from the target changes by the factor 1 − 4η in a step, within {number(max(worst))}."
        )
    return out


# --------------------------------------------------------------------------- 4. bandit

PREFERRED: Mapping[str, Mapping[str, float]] = {
    "deterministic": {"a": 2 / 3, "b": 0.0, "c": -2 / 3},
    "cycle": {"a": 0.0, "b": 0.0, "c": 0.0},
    "dominated": {"a": 0.0, "b": 0.0, "c": -1.0},
}
"""World -> action -> its log-ratio at IPO's optimum in units of 1/(2τ), up to a constant: the least-squares
solution of (log-ratio of winner − log-ratio of loser = 1/(2τ)) over the rows of the world."""


def ipo_optimum(world: str, tau: float) -> dict[str, float]:
    """IPO's policy in closed form on the three-action worlds with a uniform reference."""
    weights = {y: math.exp(x / (2 * tau)) for y, x in PREFERRED[world].items()}
    return {y: w / sum(weights.values()) for y, w in weights.items()}


def bandit(cells: Sequence[Record], curves: Curves) -> Data:
    """Final probabilities of the actions over seeds, beside IPO's closed form."""
    gathered: dict[tuple[str, str, str, float], list[Record]] = {}
    for r in cells:
        knob, value = _knob(r)
        if (
            r["status"] == "ok"
            and r.get("final_policy")
            and value is not None
            and r["task"]["name"] in PREFERRED
        ):
            gathered.setdefault((r["task"]["name"], r["algorithm"]["name"], knob, float(value)), []).append(r)
    rows: list[Row] = []
    for (world, name, knob, value), runs in gathered.items():
        exact = ipo_optimum(world, value) if name == "ipo" else {}
        for action in PREFERRED[world]:
            found = estimate(r["final_policy"]["x"][action] for r in runs)
            assert found is not None
            expected = exact.get(action)
            rows.append(
                {
                    "world": world,
                    "algorithm": f"{name} {knob}={value:g}",
                    "knob value": value,
                    "action": action,
                    "probability": found.mean,
                    "half interval": found.half,
                    "closed form": expected,
                    "off by": None if expected is None else found.mean - expected,
                    "seeds": found.n,
                }
            )
    return {"bandit": rows}


def _bandit_table(data: Data) -> list[Row]:
    """A row per world and configuration, a column per action."""
    out: dict[tuple[str, str], Row] = {}
    for r in data["bandit"]:
        row = out.setdefault((r["world"], r["algorithm"]), {"world": r["world"], "algorithm": r["algorithm"]})
        row[f"pi({r['action']})"] = mean_pm(Estimate(r["probability"], r["half interval"], r["seeds"]))
        row[f"exact {r['action']}"] = r["closed form"]
    return list(out.values())


def _say_bandit(data: Data) -> list[str]:
    out = []
    for world in PREFERRED:
        rows = [r for r in data["bandit"] if r["world"] == world]
        ipo = [r for r in rows if r["off by"] is not None]
        least = {
            r["algorithm"]: r["probability"] for r in rows if r["action"] == "c" and r["closed form"] is None
        }
        if ipo:
            inside = sum(
                r["half interval"] is not None and abs(r["off by"]) <= r["half interval"] for r in ipo
            )
            off = f"IPO is within {number(max(abs(r['off by']) for r in ipo))} of its closed form"
            out.append(f"{world}: {off} ({inside} of {len(ipo)} probabilities inside their 95 % interval).")
        if least and world != "cycle":
            left = _and([f"{number(p)} ({name.split()[-1]})" for name, p in least.items()])
            out.append(f"{world}: DPO leaves action c a probability of {left}.")
    return out


# --------------------------------------------------------------------------- 5. robustness


def reward_margin(weight_decay: float) -> float | None:
    """The margin d of a Bradley–Terry reward fitted to one certain preference: σ(−d) = λd/2; None without
    weight decay.
    """
    if weight_decay <= 0:
        return None
    low, high = 0.0, 2 / weight_decay
    for _ in range(200):
        d = 0.5 * (low + high)
        low, high = (d, high) if _sigma(-d) > weight_decay * d / 2 else (low, d)
    return low


def robustness(cells: Sequence[Record], curves: Curves) -> Data:
    """π(rejected) on one certain pair against the reward's weight decay; frontier_gap against votes per pair."""
    pair: list[Row] = []
    for r in cells:
        if r["task"]["name"] != "one_pair" or not r.get("final_policy"):
            continue
        config, (knob, value) = r["algorithm"]["config"], _knob(r)
        decay, exact = config.get("reward_weight_decay"), None
        if decay is not None and value:
            margin = reward_margin(float(decay))
            exact = 0.0 if margin is None else _sigma(-margin / value)
        elif knob == "tau" and value:
            exact = _sigma(-1 / (2 * value))
        pair.append(
            {
                "algorithm": r["algorithm"]["name"],
                "knob": f"{knob}={value:g}",
                "reward_weight_decay": decay,
                "rejected probability": r["final_policy"]["x"]["b"],
                "at the optimum": exact if exact is not None else 0.0,
                "kl": r["metrics"].get("kl"),
            }
        )
    return {"robustness": pair, "votes": _votes([r for r in cells if r["task"]["name"] == "votes"])}


def _votes(cells: Sequence[Record]) -> list[Row]:
    gathered: dict[tuple[str, int], list[Record]] = {}
    for r in cells:
        if r["status"] == "ok" and "frontier_gap" in r["metrics"]:
            gathered.setdefault((r["algorithm"]["name"], int(r["task"]["options"]["votes"])), []).append(r)
    rows = []
    for (name, n), runs in sorted(gathered.items()):
        p = float(runs[0]["task"]["options"]["preference"])
        gap, kl = (estimate(r["metrics"].get(m) for r in runs) for m in ("frontier_gap", "kl"))
        assert gap is not None
        row = {"algorithm": name, "votes": n, "unanimous": p**n + (1 - p) ** n, "frontier_gap": gap.mean}
        rows.append(row | {"half interval": gap.half, "kl": kl.mean if kl else None, "seeds": gap.n})
    return rows


def _votes_table(data: Data) -> list[Row]:
    """A row per algorithm, a column per number of votes."""
    out: dict[str, Row] = {}
    for r in data["votes"]:
        row = out.setdefault(r["algorithm"], {"algorithm": r["algorithm"]})
        row[f"{r['votes']} votes"] = mean_pm(Estimate(r["frontier_gap"], r["half interval"], r["seeds"]))
    if out:
        shares = {f"{r['votes']} votes": number(r["unanimous"]) for r in data["votes"]}
        out["unanimous"] = {"algorithm": "(share unanimous)"} | shares
    return list(out.values())


def _say_robustness(data: Data) -> list[str]:
    out = []
    by: dict[str, list[Row]] = {}
    for r in data["robustness"]:
        by.setdefault(r["algorithm"], []).append(r)
    told = []
    for name, rows in by.items():
        rows = sorted(rows, key=lambda r: r["reward_weight_decay"] or 0)
        shown = [number(r["rejected probability"]) for r in rows]
        if len(rows) > 1:
            shown = [f"{p} (decay {r['reward_weight_decay']:g})" for p, r in zip(shown, rows, strict=True)]
        told.append(f"{name} {shown[0]}" if len(rows) == 1 else f"{name} from {shown[0]} to {shown[-1]}")
    if told:
        out.append(f"one certain pair, π(rejected): {'; '.join(told)}.")
    votes = data["votes"]
    if votes:
        for n in (min(r["votes"] for r in votes), max(r["votes"] for r in votes)):
            ranked = sorted((r for r in votes if r["votes"] == n), key=lambda r: r["frontier_gap"])
            best = _and([_with(r["algorithm"], r["frontier_gap"]) for r in ranked[:3]])
            unanimous = (
                f"{n} vote{'s' if n > 1 else ''} a pair ({number(100 * ranked[0]['unanimous'])} % unanimous)"
            )
            worst = _with(ranked[-1]["algorithm"], ranked[-1]["frontier_gap"])
            out.append(f"{unanimous}: frontier_gap from {best} to {worst}.")
    return out


# --------------------------------------------------------------------------- 6. choosing_tau


def choosing_tau(cells: Sequence[Record], curves: Curves) -> Data:
    """Reward and KL at every value of every algorithm's regulariser; how far the regulariser moves KL; the
    frontier.
    """
    points: list[Row] = []
    for r in cells:
        knob, value = _knob(r)
        reward, gap, kl = (r["metrics"].get(m) for m in ("gold_reward", "frontier_gap", "kl"))
        if r["status"] != "ok" or reward is None or gap is None or kl is None or value is None:
            continue
        before = next(
            (p["gold_reward"] for p in curves(r) if p["step"] == 0 and p.get("gold_reward") is not None), None
        )
        points.append(
            {
                "labels": _labels(r),
                "algorithm": r["algorithm"]["name"],
                "knob": knob,
                "value": float(value),
                "seed": r["seed"],
                "kl": kl,
                "gold_reward": reward,
                "frontier_gap": gap,
                "share of frontier": _share(reward, gap, before),
                "settled": (r.get("notes") or {}).get("kl_settled"),
            }
        )
    found = control(group([r for r in cells if r["status"] == "ok"]))
    moved: dict[tuple[str, str], Row] = {}
    for g, row in found.items():
        name, labels = g.records[0]["algorithm"]["name"], _labels(g.records[0])
        here = [p for p in points if (p["algorithm"], p["labels"]) == (name, labels)]
        if (name, labels) in moved or not here:
            continue
        low, high = (f(p["value"] for p in here) for f in (min, max))
        ends = [statistics.fmean(p["kl"] for p in here if p["value"] == v) for v in (low, high)]
        best = max(here, key=lambda p: p["gold_reward"])
        moved[name, labels] = {
            "algorithm": name,
            "labels": labels,
            "knob": f"{here[0]['knob']} {low:g} to {high:g}",
            "control": row["mean"],
            "ci low": row["ci95"][0] if row["ci95"] else None,
            "ci high": row["ci95"][1] if row["ci95"] else None,
            "optimum": row["optimum"],
            "kl at the lowest": ends[0],
            "kl at the highest": ends[1],
            "settled runs": f"{sum(p['settled'] is True for p in here)}/{len(here)}",
            "best reward": best["gold_reward"],
            "at": best["value"],
            "its kl": best["kl"],
            "share of frontier": best["share of frontier"],
        }
    # a policy's reward plus its gap IS the frontier at its own KL
    frontier = sorted({(p["kl"], p["gold_reward"] + p["frontier_gap"]) for p in points})
    return {
        "choosing_tau": points,
        "choosing_tau_control": sorted(moved.values(), key=lambda r: (r["labels"], r["algorithm"])),
        "choosing_tau_frontier": [{"kl": kl, "gold_reward": reward} for kl, reward in frontier],
    }


def _share(reward: float, gap: float, before: float | None) -> float | None:
    """Gain in reward over the gain that the frontier allows at the same KL; None at the reference itself."""
    allowed = None if before is None else reward + gap - before
    return (reward - before) / allowed if before is not None and allowed and allowed > 1e-9 else None


def _labels(r: Record) -> str:
    noise = float(_budget(r, "label_noise") or 0)
    return f"{100 * noise:g} % flipped" if noise else "clean"


def _say_choosing_tau(data: Data) -> list[str]:
    out = []
    for labels in dict.fromkeys(r["labels"] for r in data["choosing_tau_control"]):
        rows = [r for r in data["choosing_tau_control"] if r["labels"] == labels]
        known = sorted((r for r in rows if r["control"] is not None), key=lambda r: -r["control"])
        if known:
            out.append(
                f"{labels} labels: control: {_and([_with(r['algorithm'], r['control']) for r in known])}."
            )
        if loose := [r["algorithm"] for r in rows if r["control"] is None]:
            out.append(
                f"{labels} labels: not every run has settled, so that control is unknown, under {_and(loose)}."
            )
        best = sorted(rows, key=lambda r: -r["best reward"])[:3]
        near = _and([_with(f"{r['algorithm']} at {r['at']:g}", r["best reward"]) for r in best])
        out.append(f"{labels} labels: highest gold_reward: {near}.")
        shares = [
            r
            for r in data["choosing_tau"]
            if r["labels"] == labels and r["share of frontier"] is not None and r["kl"] > STAYS
        ]
        if shares:
            best = sorted(shares, key=lambda r: -r["share of frontier"])[:3]
            near = _and([_with(f"{r['algorithm']} at {r['value']:g}", r["share of frontier"]) for r in best])
            out.append(
                f"{labels} labels: largest share of the frontier's gain at a KL above {STAYS:g}: {near}."
            )
    return out


def _with(name: str, value: float) -> str:
    return f"{name} ({number(value)})"


def _and(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


# --------------------------------------------------------------------------- all of them

LANGUAGE = frozenset({"overfit_pair"})
EXPERIMENTS: Mapping[str, Experiment] = {
    e.name: e
    for e in (
        Experiment(
            "overfit",
            "DPO overfits one pair",
            LANGUAGE,
            overfit,
            [("late phase", itemgetter("overfit_late"))],
            _say_overfit,
        ),
        Experiment(
            "dpo_vs_ipo",
            "DPO against IPO",
            LANGUAGE,
            dpo_vs_ipo,
            [("at the end", itemgetter("dpo_vs_ipo_ends"))],
            _say_dpo_vs_ipo,
        ),
        Experiment(
            "learning_rates",
            "Learning rates",
            frozenset({"overfit_rates", "one_pair"}),
            learning_rates,
            [
                ("language model", itemgetter("learning_rates_runs")),
                ("IPO on a table", itemgetter("learning_rates_law")),
            ],
            _say_learning_rates,
        ),
        Experiment(
            "bandit",
            "The IPO paper's bandit",
            frozenset(PREFERRED),
            bandit,
            [("final policy, mean over seeds", _bandit_table)],
            _say_bandit,
        ),
        Experiment(
            "robustness",
            "Why RLHF is more robust",
            frozenset({"one_pair", "votes"}),
            robustness,
            [
                ("one certain pair", itemgetter("robustness")),
                ("frontier_gap against votes per pair", _votes_table),
            ],
            _say_robustness,
        ),
        Experiment(
            "choosing_tau",
            "Choosing τ",
            frozenset({"bandit"}),
            choosing_tau,
            [
                (
                    "how far the knob moves KL, and the best reward that it reaches",
                    itemgetter("choosing_tau_control"),
                )
            ],
            _say_choosing_tau,
        ),
    )
}
"""By name, in the article's order."""


def of_experiments(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of every experiment that some record belongs to, in the article's order."""
    found: dict[str, list[Record]] = {name: [] for name in EXPERIMENTS}
    for r in records:
        name = r.get("experiment")
        if name in found and r["task"]["name"] in EXPERIMENTS[name].tasks:
            found[name].append(r)
    return {name: cells for name, cells in found.items() if cells}


def measure(experiment: Experiment, cells: Sequence[Record], curves: Curves) -> Data:
    """The rows of an experiment, in the order of tasks, algorithms and settings whatever that of the cells."""
    return experiment.measure([r for g in group(cells) for r in g.records], curves)


def print_experiments(console: Console, records: Sequence[Record], root: Path) -> list[Record]:
    """The tables and findings of the experiments among the records of a run directory; returns the other
    records.

    Cells of an experiment that went wrong are among the others, so that what is printed of those names them.
    """
    curves = curve_reader(root)
    told = of_experiments(records)
    for i, (name, cells) in enumerate(told.items()):
        e = EXPERIMENTS[name]
        data = measure(e, cells, curves)
        say(console, f"{i + 1}. {name}: {e.title}", "bold")
        for heading, table in e.tables:
            if rows := table(data):
                draw(console, heading, columns(rows))
        for sentence in e.findings(data):
            bullet(console, sentence)
        console.print()
    return others(records)


def others(records: Sequence[Record]) -> list[Record]:
    """The records that no experiment tells of: those without one, and cells that went wrong."""
    told = of_experiments(records)
    fine = [
        r
        for cells in told.values()
        for r in cells
        if r["status"] == "ok" or r["task"].get("expected_divergence")
    ]
    mine = {id(r) for r in fine if r["status"] in ("ok", "diverged")}
    return [r for r in records if id(r) not in mine]


def columns(rows: Sequence[Row]) -> list[Column]:
    """Rows as columns of a table; a column without any value is left out."""
    out = []
    for header in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(header) for row in rows]
        if all(v is None for v in values):
            continue
        texts = any(isinstance(v, str) for v in values)
        cells = [v if isinstance(v, str) else f"{v}" if isinstance(v, int) else number(v) for v in values]
        out.append(Column(header.replace(" ", "\n", 1) if len(header) > 12 else header, cells, left=texts))
    return out
