"""Metrics: pure numpy functions of one documented input. Importing the package fills the table of metrics."""

from __future__ import annotations

from xpo_bench.metrics import (
    accuracy,
    attained,
    calibration,
    collapse,
    displacement,
    forgetting,
    general,
    gold,
    kl,
    registry,
    regret,
    resting,
    throughput,
    unlearning,
)

__all__ = [
    "accuracy",
    "attained",
    "calibration",
    "collapse",
    "displacement",
    "forgetting",
    "general",
    "gold",
    "kl",
    "regret",
    "resting",
    "throughput",
    "unlearning",
]

registry.take(
    [
        accuracy,
        attained,
        calibration,
        collapse,
        resting,
        displacement,
        forgetting,
        gold,
        kl,
        regret,
        general,
        throughput,
        unlearning,
    ]
)
