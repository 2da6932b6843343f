"""Values that a test knows more about than their types say."""

from __future__ import annotations

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
