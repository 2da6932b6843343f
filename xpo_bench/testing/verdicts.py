"""What a check says when it does not simply pass."""

from __future__ import annotations

from torch import Tensor
from torch.testing import assert_close


class CheckFailed(AssertionError):
    """The algorithm breaks what the check states; the message says how, in one line."""


class Raised(CheckFailed):
    """The algorithm raised an exception of its own, so that what the check states was not reached."""


class NotApplicable(Exception):
    """The check has nothing to say about this algorithm; the message says why."""


def require(condition: bool, message: str) -> None:
    """Fail unless the condition holds."""
    if not condition:
        raise CheckFailed(message)


def require_close(got: Tensor, expected: Tensor, message: str) -> None:
    """Fail unless two tensors agree up to rounding; NaN agrees with NaN, which another check is for."""
    try:
        assert_close(got, expected, equal_nan=True)
    except AssertionError:
        if got.shape != expected.shape:
            raise CheckFailed(
                f"{message}: shape {tuple(got.shape)} instead of {tuple(expected.shape)}"
            ) from None
        distance = (got.detach() - expected.detach()).abs().nan_to_num().max()
        raise CheckFailed(f"{message}, by up to {float(distance):.3g}") from None
