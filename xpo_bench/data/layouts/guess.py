"""A guess at what unknown columns mean, for the error that shows how to map them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from xpo_bench.data.formats import PAIRED, UNPAIRED, Row

GUESSES: dict[str, tuple[str, ...]] = {
    name: tuple(words.split())
    for name, words in {
        "prompt": "prompt question q instruction query input context history post request problem text user "
        "title",
        "chosen": "chosen good better preferred accepted accept winner win winning positive pos best liked "
        "correct",
        "rejected": "rejected bad worse dispreferred unpreferred reject loser lose losing negative neg worst "
        "disliked incorrect",
        "completion": "completion response answer output generation reply text content",
        "label": "label rating thumbs feedback desirable kto_tag is_good liked is_safe is_correct target "
        "score",
        "winner": "winner preference preferred verdict choice vote label better",
    }.items()
}
"""What is looked for -> words of column names, the likeliest first."""
SIDES = (("a", "b"), ("1", "2"), ("0", "1"), ("A", "B"), ("first", "second"), ("left", "right"), ("x", "y"))
COMMA = "\\,"
"""A comma within the name of a column."""
NO_ANSWER = frozenset({
    "model", "score", "rating", "id", "source", "author", "name", "tokens", "safe", "level", "category",
    "winner", "rank", "votes",
})  # fmt: skip
"""Words of columns that come in pairs and hold no answers."""


def advice(row: Row) -> str:
    """The `--columns` text that may map a row's columns; empty where the columns exist without values."""
    nested = (f"{name}.{key}" for name, value in row.items() if isinstance(value, dict) for key in value)
    names = [*map(str, row), *nested]
    wanted = UNPAIRED if "completion" in row else PAIRED
    missing = [name for name in wanted if name not in names]
    if not missing:
        return ""
    spare = [name for name in names if name not in wanted]
    found = _pairs(names) or _unpaired(names)
    if not found and len(missing) < 3 and all(_find(name, spare) for name in missing):
        found = {name: str(_find(name, spare)) for name in missing}
    words = ",".join(f"{new}={old.replace(',', COMMA)}" for new, old in found.items() if new != old)
    if words:
        return f"perhaps --columns {shlex.quote(words) if words.isprintable() else ascii(words)}"
    if not spare:
        return ""
    words = ",".join(f"{name}=COLUMN" for name in missing)
    return f"if other columns hold {'it' if len(missing) == 1 else 'them'}: --columns {words}"


def _pairs(names: Sequence[str]) -> dict[str, str]:
    prompt = _find("prompt", names)
    chosen, rejected = _find("chosen", names), _find("rejected", names)
    if prompt and chosen and rejected and len({prompt, chosen, rejected}) == 3:
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    for first, second in SIDES:
        for name in names:
            stem = name.removesuffix(first)
            other = stem + second
            # score_a and score_b are a pair of columns too, and no answers
            if name == stem or other not in names or NO_ANSWER & set(_words(stem)):
                continue
            verdict = _find("winner", [n for n in names if n not in (name, other)])
            rest = [n for n in names if n not in (name, other, verdict)]
            prompt = _find("prompt", rest) or "COLUMN"
            if verdict:
                return {"prompt": prompt, "response_a": name, "response_b": other, "winner": verdict}
            return {"prompt": prompt, "chosen": name, "rejected": other}
    return {}


def _unpaired(names: Sequence[str]) -> dict[str, str]:
    label = _find("label", names)
    prompt = _find("prompt", [n for n in names if n != label])
    completion = _find("completion", [n for n in names if n not in (label, prompt)])
    return (
        {"prompt": prompt, "completion": completion, "label": label}
        if prompt and completion and label
        else {}
    )


def _find(what: str, names: Sequence[str]) -> str | None:
    """The column whose name, or a word of it, says what is looked for; the plainest name first."""
    for guess in GUESSES[what]:
        exact = next((name for name in names if name.strip().lower() == guess), None)
        # `prompt` before `prompt_id`: a whole name says more than a part of one
        if exact:
            return exact
    for guess in GUESSES[what]:
        part = next((name for name in names if guess in _words(name)), None)
        if part:
            return part
    return None


def _words(name: str) -> list[str]:
    return re.split(r"[\W_]+", name.lower())
