"""Renderers of conversations: a model's chat template, or the suite's plain one for models without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, Protocol

from xpo_bench.checkpoints import locate
from xpo_bench.contract.settings import ModelSpec
from xpo_bench.data.formats import BadRow
from xpo_bench.errors import DataError, UnreachableError

Message = Mapping[str, Any]
"""`role`, and `content` as text (missing where a message has tool calls alone), and what else a template may
read.
"""
CLOCK = "strftime_now"
"""What templates call for today's date."""


class Template(Protocol):
    """Conversations to text.

    Attributes:
        rendered: whether the text holds every token: the tokenizer then adds none, and no end-of-sequence
            token follows.
        date: the day that it was told, where it asked for today's.
    """

    rendered: bool
    date: str | None

    def text(
        self,
        messages: Sequence[Message],
        options: Mapping[str, object],
        *,
        generate: bool = False,
        continued: bool = False,
    ) -> str:
        """Messages as one text.

        Args:
            options: further variables of the template, such as `tools`.
            generate: end where the assistant is to answer. continued: end inside the last message, which is
                to be continued.

        Raises:
            BadRow: the template refuses the conversation.
        """
        ...

    def token_start(self, text: str, place: int) -> int:
        """The last place up to this one at which a token of the text begins."""
        ...


@dataclass
class PlainTemplate:
    """`User: ...`, a blank line, `Assistant: ...`, for policies without a chat template."""

    rendered = False
    date: str | None = None

    def text(
        self,
        messages: Sequence[Message],
        options: Mapping[str, object],
        *,
        generate: bool = False,
        continued: bool = False,
    ) -> str:
        told = next((name for name, value in options.items() if value), None)
        if told:
            raise BadRow(
                "column not understood",
                f"column {told} takes a chat template, and this model has none; leave it out",
            )
        for message in messages:
            if not message.get("content"):
                raise BadRow(
                    "not text",
                    f"a message of {message['role']} has no text, and this model has no chat template",
                )
        text = "\n\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in messages)
        return f"{text}\n\nAssistant:" if generate else text

    def token_start(self, text: str, place: int) -> int:
        return place


@dataclass
class ModelTemplate:
    """The chat template of a tokenizer.

    Args:
        day: what it is told where it asks for today's date: one day for all runs, or their data would change
            overnight.
    """

    tokenizer: Any
    day: date
    date: str | None = None
    rendered = True

    def text(
        self,
        messages: Sequence[Message],
        options: Mapping[str, object],
        *,
        generate: bool = False,
        continued: bool = False,
    ) -> str:
        try:
            return self._render(messages, options, generate, continued, in_parts=self._takes_parts)
        except Exception as error:  # templates raise what they like
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise BadRow(
                "refused by the chat template", f"the model's chat template refuses the messages ({reason})"
            ) from None

    def token_start(self, text: str, place: int) -> int:
        if not getattr(self.tokenizer, "is_fast", False):
            return place
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
            "offset_mapping"
        ]
        return max((first for first, _ in found if first <= place), default=0)

    def _render(
        self,
        messages: Sequence[Message],
        options: Mapping[str, object],
        generate: bool,
        continued: bool,
        *,
        in_parts: bool,
    ) -> str:
        template = self.tokenizer.get_chat_template(None, options.get("tools"))
        if CLOCK in template:
            self.date = self.day.isoformat()
            template = stopped_clock(self.day) + template
        return str(
            self.tokenizer.apply_chat_template(
                [_in_parts(m) if in_parts else dict(m) for m in messages],
                chat_template=template,
                tokenize=False,
                add_generation_prompt=generate,
                continue_final_message=continued,
                **options,
            )
        )

    @cached_property
    def _takes_parts(self) -> bool:
        """Whether the template reads contents as lists of parts alone, as those of some vision models do."""
        asked = [{"role": "user", "content": "Yes"}]
        for in_parts in (False, True):
            try:
                if "Yes" in self._render(asked, {}, True, False, in_parts=in_parts):
                    return in_parts
            except (
                Exception
            ):  # templates raise what they like; rows that one refuses are told of where they are rendered
                continue
        return False


def stopped_clock(day: date) -> str:
    """The head of a template by which `strftime_now` answers with one day, at midnight.

    It is written in the template's own language, since transformers passes no functions to templates (from
    5.23 on a function becomes a text).
    """
    letters = [
        *(f"%-{letter}" for letter in "dmHIMSjy"),
        *(f"%{letter}" for letter in "aAwdbBmyYHIpMSfzZjUWcxXGuVDFeT"),
    ]
    # "%%" stands aside meanwhile
    forms = {"%%": "\0", **{letter: day.strftime(letter) for letter in letters}, "\0": "%"}
    told = "".join(f" | replace({form!r}, {value!r})" for form, value in forms.items())
    return "{%- macro " + CLOCK + "(form) -%}{{ form" + told + " }}{%- endmacro -%}"


def _in_parts(message: Message) -> dict[str, object]:
    if "content" not in message:
        return dict(message)
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def template_of(model: ModelSpec) -> Template:
    """The chat template of a model, else the plain one.

    Raises:
        DataError, UnreachableError: the model's tokenizer cannot be read.
    """
    if model.tabular or model.name == "tiny" or model.tokenizer != "own":
        return PlainTemplate()
    from transformers import AutoTokenizer

    found = locate(model.name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            found.place, trust_remote_code=model.trust_remote_code, **found.options()
        )
    except Exception as error:  # tokenizers fail in many ways
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        kind = DataError if found.local else UnreachableError
        raise kind(f"the chat template of model {model.name!r} cannot be read: {reason}") from None
    return ModelTemplate(tokenizer, model.template_date) if tokenizer.chat_template else PlainTemplate()


def answer_start(
    template: Template, prompt: Sequence[Message], wholes: Sequence[str], options: Mapping[str, object]
) -> int:
    """Where the answers begin in the renderings of conversations that go on from one prompt.

    Behind the generation prompt, where all renderings begin with it. Some templates write a generation prompt
    that no answer keeps (an opened `<think>`): then where the renderings and the generation prompt part, but
    not behind the place at which the text of an answer begins, whatever that is; at the beginning of a token.

    Args:
        prompt: messages; where the last is the assistant's, the answers continue it.
        wholes: the renderings.

    Raises:
        BadRow: the template refuses the prompt.
    """
    continued = prompt[-1]["role"] == "assistant"
    before = template.text(prompt, options, generate=not continued, continued=continued)
    if all(whole.startswith(before) for whole in wholes):
        return len(before)
    parts = [before, *wholes]
    if not continued:
        parts += [
            template.text([*prompt, {"role": "assistant", "content": answer}], options)
            for answer in ("Yes", "no")
        ]
    place = shared_start(parts)
    return min(template.token_start(whole, place) for whole in wholes)


def shared_start(texts: Sequence[str]) -> int:
    """How many characters all texts begin with in common."""
    low, high = min(texts), max(texts)  # every other text lies between the two
    return next(
        (k for k, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high))
    )
