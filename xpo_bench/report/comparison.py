"""Several algorithms against one baseline: Student's t over seeds, corrected for how many there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t as student

from xpo_bench.report.stats import LEVEL, Estimate, Group


def p_value(difference: Estimate) -> float | None:
    """Two-sided p of "no difference" by Student's t over the runs; None from a single run.

    Below 0.05 exactly where the 95 % interval excludes zero; runs that agree leave no doubt either way.
    """
    if difference.half is None:
        return None
    if difference.half == 0:
        return float(difference.mean == 0)
    free = difference.n - 1
    return float(2 * student.sf(abs(difference.mean) / difference.half * student.ppf(0.5 + LEVEL / 2, free), free))


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


def compare(differences: Sequence[tuple[Group, Estimate]]) -> Comparison:
    """Test the difference of each group from the baseline they share."""
    found = [(g, p) for g, e in differences if (p := p_value(e)) is not None]
    adjusted = holm([p for _, p in found])
    return Comparison({g: (p, q) for (g, p), q in zip(found, adjusted, strict=True)})
