"""Cells that spell structure as text: messages as JSON, as Python, or as pandas prints them.

Files without types (CSV) and tables that went through a data frame hold lists as text. One rule for every
format: a column in which cells spell messages is conversational when they are at least as many as its cells
of plain text. Whatever is in the minority is a bad row of its own, so that nothing is misread without a word;
text that merely begins with a bracket stays text.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping, Sequence

from xpo_bench.data.formats import BadRow, Row, shown

MIXED = "messages and text in one column"
ROLES = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}
"""Spellings of a `from` field."""
_LOOKS = re.compile(r"""(array\()?\[?\s*\{\s*(['"])(role|content|from|value)\2\s*:""")
_NAMES = re.compile(r"""(['"])(content|value)\1\s*:""")
_TOKEN = re.compile(
    r"""(?P<blank>\s+)|(?P<string>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|(?P<broken>['"])|(?P<array>array\()"""
    r"""|(?P<ends>,\s*dtype=[\w.<'"]+\s*\)|\))|(?P<bracket>[\[\]{}(,:])|(?P<other>[^\s'"\[\]{}(),:]+)""",
    re.DOTALL,
)
_VALUE_ENDS, _VALUE_STARTS = frozenset("}]'\""), frozenset("{['\"")


def structure(value: object) -> object:
    """The value of a cell: text that spells a list or an object becomes it, anything else stays."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{", "array(")):
        return value
    text = value.strip()
    for read in (
        json.loads,
        _printed,
    ):  # Python joins strings that follow one another: those are two items here
        try:
            found = read(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        return found if isinstance(found, list | dict) else value
    return value


def _printed(text: str) -> object:
    """Python's spelling, also that of numpy and pandas: no comma between items, `array([...], dtype=object)`.

    Commas are put between two values that follow one another; string literals are stepped over whole.

    Raises:
        ValueError, SyntaxError: it is something else.
    """
    out: list[str] = []
    last, arrays = "", 0
    for found in _TOKEN.finditer(text):
        kind, token = found.lastgroup, found[0]
        if kind == "blank":
            out.append(token)
        elif kind == "array":
            arrays += 1
        elif kind == "ends" and arrays:
            arrays -= 1
        elif kind == "broken":
            raise ValueError("a string has no end")
        else:
            # numpy prints [{'a': 1} {'b': 2}]: two values side by side are two items
            if last in _VALUE_ENDS and token[0] in _VALUE_STARTS:
                out.append(",")
            out.append(token)
            last = token[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's remarks on escapes within strings
        return ast.literal_eval("".join(out))


def is_message(value: object) -> bool:
    """An object with role and content, or ShareGPT's from and value; what they hold is checked later."""
    return isinstance(value, Mapping) and (
        {"role", "content"} <= value.keys() or {"from", "value"} <= value.keys()
    )


def spells_messages(value: object) -> bool:
    """Whether text is a message or begins like a list of messages, readable or not."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{", "array(")):
        return False
    if not _NAMES.search(value):
        return False
    found = structure(value)
    if isinstance(found, str):
        return bool(_LOOKS.match(value.lstrip())) and any(
            f"{q}{name}{q}" in value for q in "'\"" for name in ("content", "value")
        )
    return is_message(found) or (isinstance(found, list) and bool(found) and is_message(found[0]))


def read_conversations(
    rows: Sequence[tuple[int, Row | BadRow]], columns: Sequence[str]
) -> list[tuple[int, Row | BadRow]]:
    """The rows with messages in place of the text that spells them, column by column.

    Args:
        columns: those that may hold messages.
    """
    out = list(rows)
    for column in columns:
        spelled, texts, quoted = set(), [], []
        for i, (_, row) in enumerate(out):
            value = row.get(column) if not isinstance(row, BadRow) else None
            if isinstance(value, str) and value.strip() not in ("", "[]", "null"):
                if spells_messages(value):
                    spelled.add(i)
                elif _quoted(value) is not None:
                    quoted.append(i)
                else:
                    texts.append(i)
        if not spelled:
            continue
        talk = len(spelled) >= len(texts) + (len(quoted) if texts else 0)
        example = out[min(spelled) if talk else (texts or quoted)[0]][0]
        for i, (number, row) in enumerate(out):
            if not isinstance(row, BadRow) and isinstance(row.get(column), str):
                kind = "messages" if i in spelled else "quoted" if i in quoted and not texts else "text"
                out[i] = (number, _read(row, column, kind, talk, example))
    return out


def _quoted(value: str) -> str | None:
    """The text of a JSON string literal, which is how mixed columns spell texts beside messages."""
    if not value.startswith('"'):
        return None
    try:
        found = json.loads(value)
    except ValueError:
        return None
    return found if isinstance(found, str) else None


def _read(row: Row, column: str, kind: str, talk: bool, example: int) -> Row | BadRow:
    value = str(row[column])
    if value.strip() in ("", "null"):
        empty: list[object] | None = None if column == "prompt" else []
        return {**row, column: empty} if talk else row
    if (kind == "messages") is not talk and kind != "quoted":
        other = (
            f"it spells messages where row {example} holds text"
            if not talk
            else f"it is text where row {example} spells messages"
        )
        found = structure(value)
        if talk and isinstance(found, list):  # a list of something else: told message by message
            return {**row, column: found}
        return BadRow(
            MIXED,
            f"{column} is {shown(value, 40)}: {other}; give the column as text or as messages throughout",
        )
    if kind == "quoted":
        return {**row, column: _quoted(value)} if talk else row
    if kind == "text":
        return row
    found = structure(value)
    if isinstance(found, str):
        return BadRow(
            "unreadable messages",
            f"{column} looks like messages and cannot be read ({shown(value, 40)}); give valid JSON",
        )
    return {**row, column: found}


def conversation(value: object, column: str) -> object:
    """Messages in their one form: a list of objects with role and content; text and everything else as it is.

    A single message stands for a list of one, `from` and `value` are ShareGPT's names of the fields, and an
    object with `content` alone is a message of the side that the column belongs to.

    Raises:
        BadRow: a `from` that is no known role.
    """
    if isinstance(value, Mapping):
        if is_message(value):
            value = [value]
        elif set(value) == {"content"} or (
            value.get("content") is not None and value.get("role", "") is None
        ):
            value = [{**value, "role": "user" if column == "prompt" else "assistant"}]
    if isinstance(value, list) and any(
        isinstance(m, Mapping) and "from" in m and m.get("role") is None for m in value
    ):
        return [_renamed(m, column) for m in value]
    return value


def _renamed(message: object, column: str) -> object:
    if not isinstance(message, Mapping) or "from" not in message:
        return message
    role = ROLES.get(str(message["from"]).strip().lower())
    if role is None:
        raise BadRow(
            "bad message",
            f"{column} has a message from {shown(message['from'])}; want one of {', '.join(ROLES)}",
        )
    rest = {k: v for k, v in message.items() if k not in ("from", "value", "role", "content")}
    return {"role": role, "content": message.get("value"), **rest}
