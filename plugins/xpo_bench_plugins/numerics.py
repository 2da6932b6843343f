"""Functions of log-probabilities that stay finite wherever log-probabilities do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 40.0
"""The exponent from which exp continues as a straight line; exp(40) = 2.4e17."""


def bounded_expm1(values: Tensor) -> Tensor:
    """exp(x) − 1 up to x = `LARGEST`, its tangent beyond: value and gradient are finite in float32."""
    low = values.clamp(max=LARGEST)
    # clamp passes no gradient above LARGEST, the second term none below
    return low.expm1() + low.exp().detach() * (values - low)
