"""Several algorithms against one baseline: Student's t over seeds, corrected for how many there are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import ndtr, stdtr

from xpo_bench.report.stats import LEVEL, Estimate, Group, quantile

ROUNDING = 1e-12
"""Differences of means up to this size are none."""


def p_value(difference: Estimate, variance: float = 0.0) -> float | None:
    """Two-sided p of "no difference" by Student's t over the runs; None from a single run.

    Without more variance it is below 0.05 exactly where the 95 % interval excludes zero; runs that agree then leave no
    doubt either way.

    Args:
        variance: of the mean, from a source that all runs share, so that their spread does not show it.

    Source: degrees of freedom after Satterthwaite 1946, the shared variance taken as known.
    """
    if difference.half is None:
        return None
    if abs(difference.mean) <= ROUNDING:
        return 1.0
    free = float(difference.n - 1)
    spread = (difference.half / quantile(difference.n - 1)) ** 2
    total = spread + variance
    if total == 0:
        return 0.0
    statistic = abs(difference.mean) / math.sqrt(total)
    # scipy.stats has both tails behind a second of imports
    return 2 * float(stdtr(free * (total / spread) ** 2, -statistic) if spread else ndtr(-statistic))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down method, in the order given.

    Source: Holm 1979. statsmodels has it too, and would cost every table a second of imports.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = largest
    return adjusted


@dataclass(frozen=True)
class Comparison:
    """Algorithms against one baseline: `tested` holds p of each, as it is and corrected; single runs are not in it."""

    tested: Mapping[Group, tuple[float, float]]

    def excludes_zero(self, g: Group) -> bool:
        """Whether the 95 % interval of its difference excludes zero, taken alone."""
        return g in self.tested and self.tested[g][0] < 1 - LEVEL

    def holds(self, g: Group) -> bool:
        """Whether the difference is told apart from zero after the correction."""
        return g in self.tested and self.tested[g][1] < 1 - LEVEL

    @property
    def compared(self) -> str:
        """How many comparisons were made."""
        return f"{len(self.tested)} comparisons"

    @property
    def corrected(self) -> str:
        """What to say of the correction; nothing where there is one comparison."""
        return f"Holm's correction for {self.compared}" if len(self.tested) > 1 else ""


def compare(differences: Sequence[tuple[Group, Estimate]], variance: Mapping[Group, float] | None = None) -> Comparison:
    """Test the difference of each group from the baseline they share; `variance` is that of `p_value`."""
    found = [(g, p) for g, e in differences if (p := p_value(e, (variance or {}).get(g, 0.0))) is not None]
    adjusted = holm([p for _, p in found])
    return Comparison({g: (p, q) for (g, p), q in zip(found, adjusted, strict=True)})
