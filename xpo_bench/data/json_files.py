"""Rows of .jsonl and .json files."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import IO

from xpo_bench.data.formats import COLUMNS, HELDOUT_SPLITS, Row
from xpo_bench.data.reading import Numbered, Reading, first_line
from xpo_bench.errors import DataError


def jsonl(file: IO[bytes], reading: Reading) -> Numbered:
    return _lines(io.TextIOWrapper(file, encoding="utf-8-sig"), reading.where)


def _lines(lines: Iterable[str], where: str) -> Numbered:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, _object(_decode(line.strip(), f"{where} line {number}"), f"{where} line {number}")


def json_rows(file: IO[bytes], reading: Reading) -> Numbered:
    """A list of objects, an object that wraps one, one list for each split, or one object per line."""
    text, where = file.read().decode("utf-8-sig"), reading.where
    if _is_lines(text):
        yield from _lines(text.splitlines(), where)
        return
    content = _decode(text, where)
    if reading.field is not None and isinstance(content, dict):
        content = content.get(reading.field)
    if isinstance(content, dict):
        content = _wrapped(content, where)
    if not isinstance(content, list):
        raise DataError(
            f"{where}: holds {_word(content)}; want a list of objects, "
            "a row each (one object per line is .jsonl)"
        )
    for number, item in enumerate(content, 1):
        yield number, _object(item, f"{where} row {number}")


def _is_lines(text: str) -> bool:
    """Whether the first line is a whole object and another one follows."""
    head, _, rest = text.lstrip().partition("\n")
    if not head.startswith("{") or not rest.lstrip().startswith("{"):
        return False
    try:
        json.loads(head)
    except (ValueError, RecursionError):
        return False
    return True


def _wrapped(content: dict[str, object], where: str) -> object:
    """The rows of `{"data": [...]}`, or of `{"train": [...], "test": [...]}` with their split."""
    # lists of objects are rows; a list of texts beside them, such as "tags", is not
    lists = {
        k: v
        for k, v in content.items()
        if isinstance(v, list) and v and all(isinstance(item, dict) for item in v)
    }
    # {"data": []} is an empty set; {"prompt": [], "chosen": []} is a table of columns, refused later
    every = [value for value in content.values() if isinstance(value, list)]
    if every and not any(every) and not content.keys() & COLUMNS:
        return []
    splits = {"train", *HELDOUT_SPLITS}
    if lists and lists.keys() <= splits:
        return [{"split": split, **item} for split, items in lists.items() for item in items]
    if len(lists) == 1 and not lists.keys() & COLUMNS:
        return next(iter(lists.values()))
    if len(lists) > 1 and not lists.keys() & COLUMNS:
        raise DataError(
            f"{where}: holds several lists ({', '.join(list(lists)[:6])}); want one, or one for each split"
        )
    return content


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"column {next(n for n in names if names.count(n) > 1)!r} is given twice")
    return found


def _decode(text: str, where: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno} column {error.colno}"
        raise DataError(f"{where}: malformed JSON at {place} ({error.msg})") from None
    except RecursionError:
        raise DataError(f"{where}: malformed JSON (nested too deeply)") from None
    except ValueError as error:
        raise DataError(f"{where}: malformed JSON ({first_line(error)})") from None


def _word(value: object) -> str:
    """What JSON calls a value's type."""
    if isinstance(value, dict):
        rows = [v for v in value.values() if isinstance(v, list | dict)]
        return "an object of columns" if rows and len(rows) == len(value) else "an object"
    kinds = {list: "a list", str: "text", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number")


def _object(value: object, where: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(
            f"{where}: holds {_word(value)}; want an object with columns, such as prompt, chosen, rejected"
        )
    return value
