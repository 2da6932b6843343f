"""Conversational rows to text: messages rendered with the model's chat template.

A message is `{"role": "user", "content": "..."}`. Rows hold lists of them in `prompt, chosen, rejected` or
`prompt, completion`; without a prompt column, `chosen` and `rejected` are whole conversations and the prompt
is the messages that they share. The text of prompt and completion together is what the template makes of the
whole conversation, nothing added and nothing cut off; `templates.answer_start` says where the completion
begins. A prompt that ends in a message of the assistant is continued. Of a completion of several messages the
assistant's are scored.

`tools` (a list of schemas, or JSON), `chat_template_kwargs` and `system` are given to the template. Models
without a template, `tiny` and `tabular` get

    User: How are you?

    Assistant: Well.

where the prompt ends in `Assistant:` and the completion begins with the space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from xpo_bench.contract.examples import Text
from xpo_bench.contract.settings import ModelSpec
from xpo_bench.data.cells import structure
from xpo_bench.data.formats import BadRow, LeftOut, Row, shown
from xpo_bench.data.shown import REASONING, left_out, require_shown, require_shown_if_short, said, spoken_in
from xpo_bench.data.templates import Message, Template, answer_start, template_of

COMPLETIONS = ("chosen", "rejected", "completion")
OPTIONS = ("tools", "chat_template_kwargs")
NOT_TEXT = ("image", "images", "video", "videos", "audio", "audios", "documents")
"""Columns that would change the prompt, and cannot be rendered."""


class Chat:
    """Renders conversational rows of one data set for one model, whose template is looked up at the first."""

    def __init__(self, model: ModelSpec) -> None:
        self.model = model
        self._used = False

    @property
    def kind(self) -> Literal["model", "plain"] | None:
        """Renderer of the rows so far: the model's chat template or the plain one; None for text alone."""
        if not self._used:
            return None
        return "model" if self._template.rendered else "plain"

    @property
    def date(self) -> str | None:
        """The date that the template wrote where it asked for today's."""
        return self._template.date if self._used else None

    def row(self, row: Row) -> Mapping[str, Any]:
        """The row with its messages as text; a row without messages as it is.

        Raises:
            BadRow: something is no message, is not rendered, or the template refuses the conversation.
            LeftOut: chosen and rejected differ in their messages alone, not in what the template makes of
            them.
        """
        _refuse_media(row)
        row = _with_system(row)
        lists = [c for c in ("prompt", *COMPLETIONS) if isinstance(row.get(c), list | dict)]
        if not lists:
            told = next((name for name in OPTIONS if _given(row.get(name))), None)
            if told:
                raise BadRow(
                    "column not understood",
                    f"column {told} goes with messages, and prompt and completions are text",
                )
            return row
        present = [c for c in ("prompt", *COMPLETIONS) if row.get(c) is not None]
        if lists != present:
            text = next(c for c in present if c not in lists)
            raise BadRow(
                "not text",
                f"{lists[0]} is a list of messages but {text} is not; give both as text or both as messages",
            )
        found = {c: _messages(row[c], c) for c in lists}
        if "prompt" not in found and "chosen" in found and "rejected" in found:
            found = _implicit(found["chosen"], found["rejected"])
        if len(found) < 2 or "prompt" not in found:
            return row  # to be refused for its missing columns
        found["prompt"] = _under_system(found["prompt"], row.get("system"))
        if found.get("chosen") is not None and found.get("chosen") == found.get("rejected"):
            raise BadRow(
                "chosen equals rejected", "chosen == rejected; a pair needs two different completions"
            )
        prompt = found.pop("prompt")
        self._used = True
        texts = self._texts(prompt, found, _options(row))
        if "chosen" in texts and texts["chosen"] == texts.get("rejected"):
            raise LeftOut(
                "equal once rendered",
                "chosen and rejected are the same text once rendered; nothing is preferred",
            )
        return {**row, **texts}

    def _texts(
        self,
        prompt: Sequence[Message],
        completions: Mapping[str, Sequence[Message]],
        options: Mapping[str, object],
    ) -> dict[str, str]:
        if not prompt or not any(_visible(m) for m in prompt[-1:]):
            raise BadRow("empty prompt", "empty prompt; give a message with at least one visible character")
        for column, messages in completions.items():
            _check_completion(column, messages)
        template = self._template
        known = {column: _conversation(prompt, messages) for column, messages in completions.items()}
        wholes = {column: template.text(messages, options) for column, messages in known.items()}
        for column, messages in completions.items():
            require_shown_if_short(template, known[column], messages, wholes[column], column, options)
        start = answer_start(template, prompt, list(wholes.values()), options)
        whole = next(iter(wholes.values()))
        before = whole[:start]
        if left_out(prompt, before, history=True) and not left_out(prompt, whole, history=True):
            raise BadRow(
                "prompt changed by the chat template",
                "the chat template changes the prompt once a completion follows it, "
                "so the two cannot be separated; "
                "give prompt and completions as text",
            )
        require_shown(prompt, before, "prompt", history=True)
        out: dict[str, str] = {"prompt": Text(before, rendered=True) if template.rendered else before}
        for column, messages in completions.items():
            text = wholes[column][start:]
            require_shown(messages, text, column, history=False)
            spoken = spoken_in(template, known[column], messages, wholes[column], start, options)
            out[column] = text if spoken is None else Text(text, spoken=spoken)
        return out

    @cached_property
    def _template(self) -> Template:
        return template_of(self.model)


# --------------------------------------------------------------------------- columns


def _given(value: object) -> bool:
    """Whether a column says something: not missing, empty, or nothing but missing values."""
    if isinstance(value, dict):
        return any(_given(v) for v in value.values())
    if isinstance(value, str):
        return bool(value.strip()) and value.strip() not in ("[]", "{}", "null")
    return value is not None and value != []


def _refuse_media(row: Row) -> None:
    column = next((c for c in NOT_TEXT if _given(row.get(c))), None)
    if column:
        raise BadRow(
            "column not understood",
            f"column {column} would change the prompt, and only text can be rendered; leave it out",
        )


def _with_system(row: Row) -> Row:
    """A row of text with a system prompt as messages: a system prompt is part of a conversation."""
    system = row.get("system")
    if not _given(system):
        return {k: v for k, v in row.items() if k != "system"} if "system" in row else row
    if not isinstance(system, str):
        raise BadRow("not text", f"system is not text but {type(system).__name__}; give a string")
    present = [c for c in ("prompt", *COMPLETIONS) if row.get(c) is not None]
    if not present or not all(isinstance(row[c], str) for c in present):
        return row
    roles = {"prompt": "user"}
    return {**row, **{c: [{"role": roles.get(c, "assistant"), "content": row[c]}] for c in present}}


def _under_system(prompt: list[Message], system: object) -> list[Message]:
    if not system:
        return prompt
    if prompt and prompt[0]["role"] == "system":
        if said(prompt[0]) == system:
            return prompt
        raise BadRow(
            "two system prompts", "column system differs from the prompt's system message; give one of them"
        )
    return [{"role": "system", "content": system}, *prompt]


def _options(row: Row) -> dict[str, object]:
    """What `tools` and `chat_template_kwargs` tell the template."""
    out: dict[str, object] = {}
    wanted = (
        ("tools", list, "a list of tool schemas"),
        ("chat_template_kwargs", dict, "an object of settings"),
    )
    for column, kind, want in wanted:
        value = row.get(column)
        if not _given(value):
            continue
        value = structure(value)
        if isinstance(value, str):
            raise BadRow("column not understood", f"{column} is text that is no JSON; want {want}")
        if not isinstance(value, kind):
            raise BadRow("column not understood", f"{column} is {shown(value)}; want {want}")
        out |= {"tools": _filled(value)} if isinstance(value, list) else _filled(value)
    return out


def _filled(value: object) -> Any:
    """A value without the keys that a table of one schema added as missing."""
    if isinstance(value, dict):
        return {k: _filled(v) for k, v in value.items() if v is not None}
    return [_filled(v) for v in value] if isinstance(value, list) else value


# --------------------------------------------------------------------------- messages


def _messages(value: Any, column: str) -> list[Message]:
    out: list[Message] = []
    for number, message in enumerate([value] if isinstance(value, dict) else value, 1):
        where = f"{column} message {number}"
        if not isinstance(message, dict):
            raise BadRow("bad message", f"{where} is {shown(message)}; want an object with role and content")
        message = _filled(message)
        role, content = message.get("role"), message.get("content")
        if role is None:
            raise BadRow("bad message", f"{where} has no role; want an object with role and content")
        if not isinstance(role, str):
            raise BadRow("not text", f"role of {where} is not text but {type(role).__name__}; give a string")
        if content is None and not message.get("tool_calls"):
            raise BadRow("bad message", f"{where} has no content; want an object with role and content")
        # a message that lacks its content stays without: templates write an empty one in other ways
        out.append(message if content is None else {**message, "content": _content(content, where)})
    return out


def _content(content: object, where: str) -> str:
    """The text of a message; parts of type text are joined."""
    if isinstance(content, list):
        parts = [
            p.get("text") if isinstance(p, dict) and p.get("type", "text") == "text" else p for p in content
        ]
        if parts and all(isinstance(part, str) for part in parts):
            return "".join(map(str, parts))
        raise BadRow(
            "not text",
            f"content of {where} is not text but list {shown(content)}; give a string or parts of text",
        )
    if not isinstance(content, str):
        raise BadRow(
            "not text", f"content of {where} is not text but {type(content).__name__}; give a string"
        )
    return content


def _implicit(chosen: list[Message], rejected: list[Message]) -> dict[str, list[Message]]:
    """The common messages as prompt; the last message of each conversation always stays its completion."""
    if chosen == rejected:
        raise BadRow("chosen equals rejected", "chosen == rejected; a pair needs two different completions")
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if not shared:
        raise BadRow(
            "missing column",
            "missing column prompt, and chosen and rejected share no first message; want a prompt",
        )
    return {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}


def _check_completion(column: str, messages: Sequence[Message]) -> None:
    if not messages or not _visible(messages[-1]):
        raise BadRow(
            "empty completion", f"empty {column}; give a message with at least one visible character"
        )
    for which, message in (("begins", messages[0]), ("ends", messages[-1])):
        if message["role"] != "assistant":
            raise BadRow(
                "bad message",
                f"{column} {which} with a message of {shown(message['role'])}; want role 'assistant'",
            )


def _visible(message: Message) -> bool:
    return bool(
        said(message).strip() or message.get("tool_calls") or any(message.get(key) for key in REASONING)
    )


def _conversation(prompt: Sequence[Message], completion: Sequence[Message]) -> list[Message]:
    """The whole conversation; an assistant's message at the prompt's end continues in the completion."""
    if prompt[-1]["role"] != "assistant":
        return [*prompt, *completion]
    # one message, as the template would otherwise close the first and open a second one
    first = {**prompt[-1], **completion[0], "content": said(prompt[-1]) + said(completion[0])}
    return [*prompt[:-1], first, *completion[1:]]
