"""Options of a command from the fields that they set: name, type, choices, bounds and help."""

from __future__ import annotations

from collections.abc import Callable
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

import click

from xpo_bench.cli.base import comma_names
from xpo_bench.runner.words import Described, Request, Settings, described

Command = Callable[..., object]


def words(cls: type, first: str = "", last: str = "") -> Callable[[Command], Command]:
    """A decorator that gives a command an option for every word of a class, from one field to another."""
    entries = list(described(cls).values())
    if first:
        entries = list(dropwhile(lambda entry: entry.field != first, entries))
    if last:
        entries = [*takewhile(lambda entry: entry.field != last, entries), described(cls)[last]]

    def decorate(function: Command) -> Command:
        for entry in reversed(entries):  # as if each were written above the function
            if entry.word.option:
                # a word of the plan that is not given is left to the plan file, the suite and the task
                default = None if cls is Request else entry.default
                function = _option(entry, default)(function)
        return function

    return decorate


def _option(entry: Described, default: object) -> Callable[[Command], Command]:
    names = [f"--{entry.name.replace('_', '-')}", entry.field]
    sentence = entry.sentence[:1].upper() + entry.sentence[1:]
    shown = f"  [default: {entry.word.default}]" if entry.word.default else ""
    more: dict[str, Any] = {"help": f"{sentence}.{shown}", "metavar": entry.word.metavar}
    if entry.kind is bool:
        return click.option(*names, is_flag=True, default=default, **more)
    # `--set` may be given many times: each has one A.FIELD, a comma separates the values of a sweep
    if entry.kind == Settings:
        return click.option(*names, multiple=True, **more)
    if entry.kind == tuple[str, ...]:
        return click.option(*names, callback=comma_names, **more)
    return click.option(*names, type=_type(entry), default=default, **more)


def _type(entry: Described) -> Any:
    if entry.choices:
        return click.Choice(entry.choices)
    if entry.kind is int:
        return click.IntRange(min=entry.at_least) if entry.at_least is not None else int
    if entry.kind is float:
        return click.FloatRange(min=entry.above, min_open=True) if entry.above is not None else float
    return click.Path(path_type=Path) if entry.kind is Path else str
