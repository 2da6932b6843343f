"""The summary of a run: a row per configuration, with means, intervals and the control of sweeps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from xpo_bench.metrics.kl import STILL
from xpo_bench.metrics.kl import control as control_slope
from xpo_bench.report.records import Raw, Record
from xpo_bench.report.runs import SeedGroup, canonical, group, identity_of
from xpo_bench.statistics import MANY, Estimate, censored, iqm, quantile

Regularisers = Mapping[str, tuple[str, int] | None]
NONE_GIVEN: Regularisers = {}
CENSORED = ("collapse_step", "heldout_collapse_step")


def summarise(
    records: Sequence[Raw | Record], regularisers: Regularisers | None = None
) -> list[dict[str, Any]]:
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
                "algorithm": first.algorithm.name,
                "config": dict(first.algorithm.config),
                "train": dict(first.train),
                "task": first.task.name,
                "experiment": first.experiment,
                "label": g.label,
                "setting": g.task,
                "n": len(g.records),
                "status": g.status,
                "metrics": metrics,
            }
        )
    return out


def _as_json(over: Estimate | None) -> dict[str, Any]:
    if over is None:
        return {"mean": None, "ci95": None, "n": 0}
    return {"mean": over.mean, "ci95": list(over.interval) if over.interval else None, "n": over.n}


def _robust(values: Iterable[float | None]) -> dict[str, Any]:
    """From `MANY` seeds on: the interquartile mean, which single odd runs do not move, with its 95 %
    bootstrap interval.
    """
    known = [float(v) for v in values if v is not None and math.isfinite(v)]
    if len(known) < MANY:
        return {}
    middle, low, high = iqm(known)  # with fewer, a bootstrap's interval is too short
    return {"iqm": middle, "iqm_ci95": [low, high]}


# --------------------------------------------------------------------------- control


class Control(TypedDict):
    """How far a regulariser moves the final KL, with its 95 % interval; `optimum`: the exact one's slope."""

    mean: float | None
    ci95: list[float] | None
    n: int
    optimum: float | None


@dataclass
class Sweep:
    """Groups that differ in a declared regulariser alone, with the value of each."""

    regulariser: str
    direction: int
    members: list[tuple[SeedGroup, float]] = field(default_factory=list)


def sweeps_of(groups: Sequence[SeedGroup], regularisers: Regularisers | None = None) -> list[Sweep]:
    """Every sweep of a declared regulariser.

    A sweep holds the groups of one algorithm, task and experiment that differ in that field alone, at two or
    more positive values.
    """
    sweeps: dict[str, Sweep] = {}
    for g in groups:
        algorithm = g.records[0].algorithm
        declared = (regularisers or NONE_GIVEN).get(algorithm.name) or algorithm.regulariser
        value = algorithm.config.get(declared[0]) if declared else None
        # on logarithmic axes a value of 0 has no place, and a switch is no strength
        if not declared or isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            continue
        rest = {k: v for k, v in algorithm.config.items() if k != declared[0]}
        others = identity_of(g.records[0]) | {"algorithm": [algorithm.name, rest, algorithm.version]}
        sweep = sweeps.setdefault(canonical(others), Sweep(declared[0], int(declared[1])))
        sweep.members.append((g, float(value)))
    return [s for s in sweeps.values() if len({value for _, value in s.members}) > 1]


def control(
    groups: Sequence[SeedGroup], regularisers: Regularisers | None = None
) -> dict[SeedGroup, Control]:
    """`control` of every sweep, as a metric of each group of the sweep.

    The value is null unless every run is ok, has converged (`notes.kl_settled`) and has a kl above rounding.
    `optimum` is the same slope over the exact optimum's KL (`notes.optimum_kl`), where known.
    """
    out: dict[SeedGroup, Control] = {}
    for sweep in sweeps_of(groups, regularisers):
        of_sweep = _control(sweep)
        out |= {g: of_sweep for g, _ in sweep.members}
    return out


def _control(sweep: Sweep) -> Control:
    runs = [(value, r) for g, value in sweep.members for r in g.records]
    unknown = Control(mean=None, ci95=None, n=len(runs), optimum=None)
    converged = all(r.status == "ok" and r.notes.kl_settled is True for _, r in runs)
    kl = _positive(r.metrics.get("kl") for _, r in runs)
    if not converged or kl is None:
        return unknown
    values = [value for value, _ in runs]
    # minus the slope of ln KL on ln value: 0 where the regulariser does nothing
    mean, se = control_slope(kl, values, sweep.direction)
    # two parameters are fitted, slope and intercept
    half = quantile(len(runs) - 2) * se if len(runs) > 2 else None
    exact = _positive(r.notes.optimum_kl for _, r in runs)
    return Control(
        mean=mean,
        ci95=None if half is None else [mean - half, mean + half],
        n=len(runs),
        optimum=control_slope(exact, values, sweep.direction)[0] if exact else None,
    )


def _positive(values: Iterable[float | None]) -> list[float] | None:
    """The values of a KL, or None when one of them is unknown or no more than rounding, whose logarithm says
    nothing.
    """
    every = list(values)
    known = [float(v) for v in every if v is not None and v > STILL]
    return known if len(known) == len(every) else None
