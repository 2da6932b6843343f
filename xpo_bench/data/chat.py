"""Conversational rows to text: messages rendered with the model's chat template.

A message is `{"role": "user", "content": "..."}`. Rows hold lists of them in `prompt, chosen, rejected` or
`prompt, completion`; without a prompt column, `chosen` and `rejected` are whole conversations and the prompt is
the messages that they share. The prompt's text ends in the template's generation prompt, and the text of a
completion is what the template adds after it. Models without a template, `tiny` and `tabular` get

    User: How are you?

    Assistant: Well.

where the prompt ends in `Assistant:` and the completion begins with the space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from xpo_bench.checkpoints import locate
from xpo_bench.data.formats import BadRow, Row, shown
from xpo_bench.errors import DataError, UnreachableError
from xpo_bench.types import ModelSpec

Message = Mapping[str, Any]
Template = Callable[[Sequence[Message], bool], str]
"""(messages, end in the generation prompt) -> text"""
COMPLETIONS = ("chosen", "rejected", "completion")


class Chat:
    """Renders the conversational rows of one data set for one model; the template is looked up at the first of them."""

    def __init__(self, model: ModelSpec) -> None:
        self.model = model

    def row(self, row: Row) -> Row:
        """The row with its messages as text; a row without messages as it is.

        Raises:
            BadRow: something is no message, or the template refuses the conversation.
            DataError: the template rewrites the prompt once a completion follows.
        """
        lists = [c for c in ("prompt", *COMPLETIONS) if isinstance(row.get(c), list)]
        if not lists:
            return row
        present = [c for c in ("prompt", *COMPLETIONS) if row.get(c) is not None]
        if lists != present:
            text = next(c for c in present if c not in lists)
            raise BadRow("not text", f"{lists[0]} is a list of messages but {text} is not; give both as text or both as messages")
        found = {c: _messages(row[c], c) for c in lists}
        if "prompt" not in found and "chosen" in found and "rejected" in found:
            found = _implicit(found["chosen"], found["rejected"])
        if "prompt" not in found:
            return row  # to be refused for its missing columns
        prompt = found.pop("prompt")
        return {**row, **self._texts(prompt, found)}

    def _texts(self, prompt: Sequence[Message], completions: Mapping[str, Sequence[Message]]) -> dict[str, str]:
        if not _visible(prompt):
            raise BadRow("empty prompt", "empty prompt; give a message with at least one visible character")
        for column, messages in completions.items():
            if not _visible(messages):
                raise BadRow("empty completion", f"empty {column}; give a message with at least one visible character")
            if messages[0]["role"] != "assistant":
                role = shown(messages[0]["role"])
                raise BadRow("bad message", f"{column} begins with a message of {role}; want role 'assistant'")
        before = self._render(prompt, True)
        out = {"prompt": before.removeprefix(self._bos)}
        for column, messages in completions.items():
            whole = self._render([*prompt, *messages], False)
            if not whole.startswith(before):
                raise DataError(
                    f"model {self.model.name!r}: its chat template changes the prompt once a completion follows it, so the two "
                    "cannot be told apart; give prompt and completions as text"
                )
            out[column] = self._ended(whole[len(before) :])
        return out

    def _ended(self, text: str) -> str:
        """A completion without what the template writes after the end-of-sequence token: the policy ends rows itself."""
        bare = text.rstrip()
        return bare if self._eos and bare.endswith(self._eos) else text

    def _render(self, messages: Sequence[Message], generation_prompt: bool) -> str:
        if self._tokenizer is None:
            return plain(messages, generation_prompt)
        try:
            return str(
                self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=generation_prompt)
            )
        except Exception as error:  # templates raise what they like
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise BadRow("refused by the chat template", f"the model's chat template refuses the messages ({reason})") from None

    @property
    def _bos(self) -> str:
        return (self._tokenizer and self._tokenizer.bos_token) or ""

    @property
    def _eos(self) -> str:
        return (self._tokenizer and self._tokenizer.eos_token) or ""

    @cached_property
    def _tokenizer(self) -> Any:
        """The model's tokenizer when it has a chat template, else None."""
        model = self.model
        if model.tabular or model.name == "tiny" or model.tokenizer != "own":
            return None
        from transformers import AutoTokenizer

        found = locate(model.name)
        try:
            tokenizer = AutoTokenizer.from_pretrained(found.place, trust_remote_code=model.trust_remote_code, **found.options())
        except Exception as error:  # tokenizers fail in many ways
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            kind = DataError if found.local else UnreachableError
            raise kind(f"the chat template of model {model.name!r} cannot be read: {reason}") from None
        return tokenizer if tokenizer.chat_template else None


def plain(messages: Sequence[Message], generation_prompt: bool) -> str:
    """The fallback for models without a template: `User: ...`, a blank line, `Assistant: ...`."""
    text = "\n\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in messages)
    return f"{text}\n\nAssistant:" if generation_prompt else text


def _messages(value: Sequence[Any], column: str) -> list[Message]:
    for number, message in enumerate(value, 1):
        where = f"{column} message {number}"
        if not isinstance(message, dict):
            raise BadRow("bad message", f"{where} is {shown(message)}; want an object with role and content")
        for key in ("role", "content"):
            if message.get(key) is None:
                raise BadRow("bad message", f"{where} has no {key}; want an object with role and content")
            if not isinstance(message[key], str):
                raise BadRow("not text", f"{key} of {where} is not text but {type(message[key]).__name__}; give a string")
    return [{k: v for k, v in message.items() if v is not None} for message in value]


def _implicit(chosen: list[Message], rejected: list[Message]) -> dict[str, list[Message]]:
    """The shared messages as prompt; the last message of each conversation is always left to its completion."""
    if chosen == rejected:
        raise BadRow("chosen equals rejected", "chosen == rejected; a pair needs two different completions")
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if not shared:
        raise BadRow("missing column", "missing column prompt, and chosen and rejected share no first message; want a prompt")
    return {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}


def _visible(messages: Sequence[Message]) -> bool:
    return bool(messages) and all(m["content"].strip() for m in messages[-1:])
