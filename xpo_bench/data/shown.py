"""What a rendering shows of a conversation: omitted parts, and the assistant's stretches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from xpo_bench.data.formats import BadRow, shown
from xpo_bench.data.templates import Message, Template, answer_start, shared_start

REASONING = ("reasoning_content", "reasoning", "thinking")
"""Keys of a message whose text belongs to the answer."""
SHORT = 12
"""Characters of a text that could stand in a template by chance."""


def said(message: Message) -> str:
    """The text of a message; nothing where it has tool calls alone."""
    return str(message.get("content", ""))


def require_shown(messages: Sequence[Message], text: str, where: str, *, history: bool) -> None:
    """Refuse a row of which the template omits something: its score would not depend on it."""
    found = left_out(messages, text, history=history)
    if found:
        raise _left_out(messages, *found, where)


def _left_out(messages: Sequence[Message], number: int, part: str, where: str) -> BadRow:
    return BadRow(
        "left out by the chat template",
        f"the chat template leaves out {shown(' '.join(part.split()), 40)} of {where} message {number} "
        f"(role {messages[number - 1]['role']!r}), so its score would be the same whatever it says; "
        "leave it out, or use another template",
    )


def require_shown_if_short(
    template: Template,
    messages: Sequence[Message],
    own: Sequence[Message],
    whole: str,
    where: str,
    options: Mapping[str, object],
) -> None:
    """Refuse a row of which a text so short that it stands in the rendering by chance is left out.

    Such a text is changed: the rendering has to change with it.

    Args:
        messages: the whole conversation. own: the completion's, the last of them. whole: the rendering of
            all.
        where: the completion's column.
    """
    first = len(messages) - len(own)
    for number, message in enumerate(messages):
        inside = number >= first
        for part, changed in _changed(message, history=not inside):
            other = [*messages[:number], {**message, "content": changed}, *messages[number + 1 :]]
            try:
                same = template.text(other, options) == whole
            except BadRow:  # a template that checks what it is told reads it
                same = False
            if same:
                told = (messages[first:], number + 1 - first) if inside else (messages, number + 1)
                raise _left_out(*told, part, where if inside else "prompt")


def _changed(message: Message, *, history: bool) -> Iterator[tuple[str, str]]:
    """Short texts of a message, and the message's content with each changed."""
    content = said(message)
    reasoning, closed, answer = (
        content.rpartition("</think>") if message["role"] == "assistant" else ("", "", content)
    )
    thought = reasoning.rpartition("<think>")[2]
    if 0 < len(_squeezed(answer)) < SHORT:
        yield answer, content + "~"
    if not history and 0 < len(_squeezed(thought)) < SHORT:
        yield thought, f"{reasoning}~{closed}{answer}"


def left_out(messages: Sequence[Message], text: str, *, history: bool) -> tuple[int, str] | None:
    """Number and text of the first part of a message that a rendering lacks, in the order of messages.

    Spaces do not count, since templates strip and indent, nor how a template of tools escapes text. From
    earlier answers (`history`) templates drop the reasoning, on purpose: a model reads none either when it
    answers.
    """
    found, place = _squeezed(text), 0
    for number, message in enumerate(messages, 1):
        for part in _parts(message, history):
            ends = [at + len(form) for form in _forms(part) if (at := found.find(form, place)) >= 0]
            if not ends:
                return number, part
            place = min(ends)
    return None


def _parts(message: Message, history: bool) -> list[str]:
    """Parts that a rendering must contain, in this order; templates write or read the marks of reasoning."""
    content, thoughts = said(message), []
    if message["role"] == "assistant":
        reasoning, closed, content = content.rpartition("</think>")
        thoughts = [reasoning.rpartition("<think>")[2]] if closed else []
        if not history and content.lstrip().startswith("<think>"):  # reasoning that does not end
            content = content.partition("<think>")[2]
    told = [str(message[key]) for key in REASONING if message.get(key)][:1]
    made = [
        call.get("function") or call for call in message.get("tool_calls") or [] if isinstance(call, dict)
    ]
    calls = [str(call.get("name", "")) for call in made]
    return [content, *calls] if history else [*told, *thoughts, content, *calls]


def _forms(part: str) -> list[str]:
    return [
        _squeezed(part),
        _squeezed(json.dumps(part, ensure_ascii=False)[1:-1]),
        _squeezed(json.dumps(part)[1:-1]),
    ]


def _answer_end(part: str, whole: str, begin: int) -> int:
    """End of an answer of which the template omits something once another turn follows.

    Such as an empty `<think>`: the end lies behind the longest suffix of `part`, in which the answer is the
    last, with which `whole` goes on at `begin`.
    """
    place = next(place for place in range(begin, len(part) + 1) if whole.startswith(part[place:], begin))
    return begin + len(part) - place


def _squeezed(text: str) -> str:
    return "".join(text.split())


def spoken_in(
    template: Template,
    messages: Sequence[Message],
    own: Sequence[Message],
    whole: str,
    start: int,
    options: Mapping[str, object],
) -> list[tuple[int, int]] | None:
    """The assistant's stretches of a completion, from its start; None where all of it is.

    Args:
        messages: the whole conversation. own: the completion's, the last of them; the first may begin in the
            prompt.
        start: where the completion begins in `whole`.

    Raises:
        BadRow: the template rewrites an earlier turn once another follows it, so the turns cannot be told
        apart.
    """
    first = len(messages) - len(own)
    if all(message["role"] == "assistant" for message in own):
        return None
    out: list[tuple[int, int]] = []
    begin, end = start, start
    for number in range(first, len(messages)):
        if messages[number]["role"] != "assistant":
            continue
        if number > first and messages[number - 1]["role"] == "assistant":
            begin = end
        elif number > first:
            begin = answer_start(template, messages[:number], [whole], options)
        last = number == len(messages) - 1
        part = whole if last else template.text(messages[: number + 1], options)
        end = len(whole) if last else template.token_start(whole, shared_start([part, whole]))
        message = own[number - first]
        if not last and left_out([message], whole[begin:end], history=True):
            end = _answer_end(part, whole, begin)
        if begin < start or begin > end or left_out([message], whole[begin:end], history=not last):
            raise BadRow(
                "turns cannot be separated",
                "the chat template rewrites an answer once another turn follows it; "
                "want completions of one message",
            )
        out.append((begin - start, end - start))
    return out
