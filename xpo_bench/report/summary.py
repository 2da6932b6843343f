"""The summary of a run: a row per configuration, with means, intervals and the control of sweeps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xpo_bench.metrics.kl import STILL
from xpo_bench.metrics.kl import control as control_slope
from xpo_bench.report.runs import Record, SeedGroup, canonical, group, identity_of
from xpo_bench.statistics import MANY, Estimate, censored, iqm, quantile

Regularisers = Mapping[str, tuple[str, int] | None]
CENSORED = ("collapse_step", "heldout_collapse_step")


def summarise(records: Sequence[Record], regularisers: Regularisers | None = None) -> list[dict[str, Any]]:
    """One row per algorithm x config x task x experiment: what `--json` prints as `summary`.

    Args:
        regularisers: algorithm -> (field, direction), for `control`; by default what the records declare.

    Returns:
        rows of `algorithm, config, train, task, experiment, label, n, status` and `metrics`: name ->
        {"mean", "ci95": [low, high] or None, "n"}; for collapse_step {"share", "median", "n"}.
    """
    groups = group(records)
    sweeps = control(groups, regularisers)
    out = []
    for g in groups:
        first = g.records[0]
        metrics: dict[str, Any] = {}
        for name in g.names:
            if name in CENSORED:
                metrics[name] = censored(g.values(name).values())
            else:
                metrics[name] = _as_json(g.estimate(name)) | _robust(g.values(name).values())
        if g in sweeps:
            metrics["control"] = sweeps[g]
        out.append(
            {
                "algorithm": first["algorithm"]["name"],
                "config": dict(first["algorithm"]["config"]),
                "train": dict(first.get("train") or {}),
                "task": first["task"]["name"],
                "experiment": first.get("experiment"),
                "label": g.label,
                "setting": g.task,
                "n": len(g.records),
                "status": g.status,
                "metrics": metrics,
            }
        )
    return out


def _as_json(found: Estimate | None) -> dict[str, Any]:
    if found is None:
        return {"mean": None, "ci95": None, "n": 0}
    return {"mean": found.mean, "ci95": list(found.interval) if found.interval else None, "n": found.n}


def _robust(values: Iterable[float | None]) -> dict[str, Any]:
    """From `MANY` seeds on: the interquartile mean, which single odd runs do not move, with its 95 %
    bootstrap interval.
    """
    known = [float(v) for v in values if v is not None and math.isfinite(v)]
    if len(known) < MANY:
        return {}
    middle, low, high = iqm(known)
    return {"iqm": middle, "iqm_ci95": [low, high]}


# --------------------------------------------------------------------------- control


def control(
    groups: Sequence[SeedGroup], regularisers: Regularisers | None = None
) -> dict[SeedGroup, dict[str, Any]]:
    """`control` of every sweep of a declared regulariser, as a metric of each group of the sweep.

    A sweep holds the groups of one algorithm, task and experiment that differ in that field alone, at two or
    more positive values. The value is null unless every run is ok, settled (`notes.kl_settled`) and has a
    kl above rounding. `optimum` is the same slope over the exact optimum's KL (`notes.optimum_kl`), where
    known.
    """
    out: dict[SeedGroup, dict[str, Any]] = {}
    sweeps: dict[str, list[tuple[SeedGroup, float, int]]] = {}
    for g in groups:
        first = g.records[0]
        declared = (regularisers or {}).get(first["algorithm"]["name"]) or first["algorithm"].get(
            "regulariser"
        )
        value = first["algorithm"]["config"].get(declared[0]) if declared else None
        if not declared or isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            continue
        identity = identity_of(first)
        name, config, version = identity["algorithm"]
        rest = identity | {
            "algorithm": [name, {k: v for k, v in config.items() if k != declared[0]}, version]
        }
        sweeps.setdefault(canonical(rest), []).append((g, float(value), int(declared[1])))
    for members in sweeps.values():
        if len({value for _, value, _ in members}) > 1:
            row = _control(members)
            out |= {g: row for g, _, _ in members}
    return out


def _control(members: Sequence[tuple[SeedGroup, float, int]]) -> dict[str, Any]:
    runs = [(value, r) for g, value, _ in members for r in g.records]
    direction = members[0][2]
    nothing = {"mean": None, "ci95": None, "n": len(runs), "optimum": None}
    settled = all(r["status"] == "ok" and (r.get("notes") or {}).get("kl_settled") is True for _, r in runs)
    kl = _positive(r["metrics"].get("kl") for _, r in runs)
    if not settled or kl is None:
        return nothing
    knob = [value for value, _ in runs]
    mean, se = control_slope(kl, knob, direction)
    half = quantile(len(runs) - 2) * se if len(runs) > 2 else None
    exact = _positive((r.get("notes") or {}).get("optimum_kl") for _, r in runs)
    optimum = control_slope(exact, knob, direction)[0] if exact else None
    return nothing | {
        "mean": mean,
        "ci95": None if half is None else [mean - half, mean + half],
        "optimum": optimum,
    }


def _positive(values: Iterable[float | None]) -> list[float] | None:
    """The values of a KL, or None when one of them is unknown or no more than rounding, whose logarithm says
    nothing.
    """
    found = list(values)
    known = [float(v) for v in found if v is not None and v > STILL]
    return known if len(known) == len(found) else None
