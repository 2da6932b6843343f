"""Values that a test knows more about than their types say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def present(value: T | None) -> T:
    """A value that is not None."""
    assert value is not None
    return value


def as_a(kind: type[T], value: object) -> T:
    """A value of a kind."""
    assert isinstance(value, kind)
    return value


def numbers(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """The metrics that have a number: one without, asked for by name, is a KeyError."""
    return {name: value for name, value in metrics.items() if value is not None}
