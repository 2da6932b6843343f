"""What LaTeX prints of an escaped text."""

from __future__ import annotations

import re

from xpo_bench.report.render.latex_text import COMMANDS

SPELT = {command: c for c, command in COMMANDS.items()}
_TOKEN = re.compile("|".join(map(re.escape, sorted(SPELT, key=len, reverse=True))) + r"|\{\}|.", re.DOTALL)


def printed(source: str) -> str:
    """The text again; of characters that look the same, one for all."""
    tokens = _TOKEN.findall(source)
    return alike("".join("" if token == "{}" else SPELT.get(token, token) for token in tokens))


def alike(text: str) -> str:
    """A text with a hyphen for every minus, and one letter and one space for those spelt alike."""
    return text.translate(str.maketrans("−µ\u2009", "-μ\u202f"))
