"""A guess at what unknown columns mean, for the error that shows how to map them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from xpo_bench.data.formats import PAIRED, UNPAIRED, Row

GUESSES: dict[str, tuple[str, ...]] = {
    name: tuple(words.split())
    for name, words in {
        "prompt": "prompt question q instruction query input context history post request problem text user title",
        "chosen": "chosen good better preferred accepted accept winner win winning positive pos best liked correct",
        "rejected": "rejected bad worse dispreferred unpreferred reject loser lose losing negative neg worst disliked "
        "incorrect",
        "completion": "completion response answer output generation reply text content",
        "label": "label rating thumbs feedback desirable kto_tag is_good liked target score",
        "winner": "winner preference preferred verdict choice vote label better",
    }.items()
}
"""What is looked for -> words of column names, the likeliest first."""
SIDES = (("a", "b"), ("1", "2"), ("0", "1"), ("A", "B"), ("first", "second"), ("left", "right"), ("x", "y"))


def advice(row: Row) -> str:
    """The `--columns` words that may map a row's columns; nothing where the columns are there and hold nothing."""
    names = list(map(str, row))
    wanted = UNPAIRED if "completion" in row else PAIRED
    missing = [name for name in wanted if name not in names]
    if not missing:
        return ""
    spare = [name for name in names if name not in wanted]
    found = _pairs(names) or _unpaired(names)
    if not found and len(missing) < 3 and all(_find(name, spare) for name in missing):
        found = {name: str(_find(name, spare)) for name in missing}
    words = ",".join(f"{new}={old}" for new, old in found.items() if new != old)
    if words:
        return f"perhaps --columns {shlex.quote(words) if words.isprintable() else ascii(words)}"
    return f"--columns {','.join(f'{name}=COLUMN' for name in missing)} reads other names" if spare else ""


def _pairs(names: Sequence[str]) -> dict[str, str]:
    prompt = _find("prompt", names)
    chosen, rejected = _find("chosen", names), _find("rejected", names)
    if prompt and chosen and rejected and len({prompt, chosen, rejected}) == 3:
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    for first, second in SIDES:
        for name in names:
            stem = name.removesuffix(first)
            other = stem + second
            if name != stem and other in names:
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
        if exact:
            return exact
    for guess in GUESSES[what]:
        part = next((name for name in names if guess in re.split(r"[\W_]+", name.lower())), None)
        if part:
            return part
    return None
