"""An algorithm with other values in its fields, as far as its own bounds allow them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

from pydantic import ValidationError

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.runner.settings import adapter, names


def float_fields(algorithm: Algorithm) -> list[str]:
    """The fields that the runner stacks when configurations train as one computation."""
    return [f.name for f in fields(algorithm) if f.init and isinstance(getattr(algorithm, f.name), float)]


def other_values(algorithm: Algorithm, name: str) -> list[object]:
    """Valid values of a field other than its own, nearest kind first; none for kinds without variations."""
    value = getattr(algorithm, name)
    if isinstance(value, bool):
        candidates: list[object] = [not value]
    elif isinstance(value, int):
        candidates = [value + 1, value - 1, 2 * value]
    elif isinstance(value, float):
        candidates = [value * 3, value * 1.5, value / 2, value / 3] if value else [0.5, 0.05, 2.0]
    else:
        hint = get_type_hints(type(algorithm), include_extras=True)[name]
        bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        candidates = (
            [choice for choice in get_args(bare) if choice != value] if get_origin(bare) is Literal else []
        )
    return [candidate for candidate in candidates if _valid(algorithm, name, candidate)]


def variations(algorithm: Algorithm) -> Iterator[tuple[str, list[Algorithm]]]:
    """(field, the algorithm with that field changed, once per other value)."""
    for f in fields(algorithm):
        if f.init:
            yield f.name, [replace(algorithm, **{f.name: value}) for value in other_values(algorithm, f.name)]


def three_runs(algorithm: Algorithm) -> list[Algorithm]:
    """The algorithm at three settings of all its float fields."""
    runs = [algorithm, algorithm, algorithm]
    for name in float_fields(algorithm):
        values = [getattr(algorithm, name), *other_values(algorithm, name)]
        runs = [replace(run, **{name: values[i % len(values)]}) for i, run in enumerate(runs)]
    return runs


def _valid(algorithm: Algorithm, name: str, value: object) -> bool:
    written = dict(zip([f.name for f in fields(algorithm)], names(type(algorithm)), strict=False))[name]
    try:
        adapter(type(algorithm)).validate_python({written: value})
    except ValidationError:
        return False
    return True
