"""The words of an evaluation as they were given, checked and read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any

from xpo_bench.data.layouts import check_columns
from xpo_bench.errors import UsageError, unknown
from xpo_bench.evaluating.words import Words
from xpo_bench.runner.model_choice import parse_date
from xpo_bench.runner.words import described


def words_of(given: Mapping[str, Any]) -> Words:
    """The words; those that are None are left to their defaults.

    Raises:
        UsageError: an unknown word, or a value that it cannot have.
    """
    known = {f.name for f in fields(Words)}
    for name in given:
        if name not in known:
            raise UsageError(unknown("argument", name, known))
    out = {name: value for name, value in given.items() if value is not None}
    for name in ("reference", "data", "judge", "base", "beta"):
        if name in out:
            out[name] = str(out[name])
    several = out.get("base_data", ())
    out["base_data"] = (str(several),) if isinstance(several, str | Path) else tuple(map(str, several))
    if "columns" in out:
        out["columns"] = check_columns(out["columns"])
    if "template_date" in out and not isinstance(out["template_date"], date):
        out["template_date"] = parse_date(str(out["template_date"]))
    if "out" in out:
        out["out"] = Path(out["out"])
    words = Words(**out)
    for entry in described(Words).values():
        _check(entry.name, getattr(words, entry.field), entry.choices, entry.at_least)
    if not 0 <= words.heldout < 1:
        raise UsageError(f"--heldout {words.heldout}: want a fraction in [0, 1)")
    return words


def _check(name: str, value: object, choices: tuple[str, ...], least: Any) -> None:
    option = f"--{name.replace('_', '-')}"
    if choices and value not in choices:
        raise UsageError(f"{option} {value}: want {', '.join(choices)}")
    if least is None or value is None:
        return
    if not isinstance(value, int) or value < least:
        raise UsageError(f"{option} {value}: want a whole number of at least {least}")
