"""Columns of conversations: tools, settings, system prompts, reasoning, parts; what a template drops."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_families import CHATML, FAMILIES, IM, LLAMA3, QWEN3
from chat_models import byte_level, fast
from narrow import as_a, present

from xpo_bench.contract.examples import Dataset, Pair, Text
from xpo_bench.contract.settings import DataSpec, ModelSpec
from xpo_bench.data.dataset import fingerprint, load_dataset
from xpo_bench.data.templates import stopped_clock
from xpo_bench.errors import DataError

TOOLS = (
    "{% if tools %}TOOLS {{ tools | tojson }}\n{% endif %}{% if mood %}MOOD {{ mood }}\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content %}{{ m.content }}{% endif %}"
    "{% for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NONE_IS_MISSING = TOOLS.replace("{% if m.content %}", "{% if m.content is not defined %}NOTHING{% else %}")
SCHEMA = [
    {
        "type": "function",
        "function": {"name": "weather", "description": "<b>", "parameters": {"type": "object"}},
    }
]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
PARTS_ALONE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


ROW = {"prompt": [user("q")], "chosen": [said("yes")], "rejected": [said("no")]}


class Read:
    """Reads rows for a model whose tokenizer has a template."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self, tokenizer: Any, *rows: Mapping[str, Any], day: date | None = None, **options: Any
    ) -> Dataset:
        place = self.folder / "model"
        tokenizer.save_pretrained(place)
        file = self.folder / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        model = ModelSpec(name=str(place)) if day is None else ModelSpec(name=str(place), template_date=day)
        return load_dataset(DataSpec(source=str(file), **options), 0.0, np.random.default_rng(0), model)


@pytest.fixture
def read(tmp_path: Path) -> Read:
    return Read(tmp_path)


def tokenizer(template: str) -> Any:
    return fast(byte_level(), template, eos="<|im_end|>", special=IM, plain=("<think>", "</think>"))


def whole(pair: Any) -> tuple[str, str]:
    assert isinstance(pair, Pair)
    return pair.prompt + pair.chosen, pair.prompt + pair.rejected


def by_trl(made: Any, row: Mapping[str, Any]) -> tuple[str, str]:
    from trl.data_utils import apply_chat_template

    row = dict(row)
    tools = row.pop("tools", None)
    found = apply_chat_template(row, made, tools=json.loads(tools) if isinstance(tools, str) else tools)
    return found["prompt"] + found["chosen"], found["prompt"] + found["rejected"]


COLUMNS: dict[str, dict[str, Any]] = {
    "tools": {"tools": SCHEMA},
    "tools as JSON": {"tools": json.dumps(SCHEMA)},
    "settings": {"chat_template_kwargs": {"mood": "glad"}},
    "both": {"tools": SCHEMA, "chat_template_kwargs": {"mood": "glad"}},
    "none": {"tools": [], "chat_template_kwargs": {}},
}


@pytest.mark.parametrize("which", COLUMNS)
def test_tools_and_settings_as_trl_renders_them(read: Read, which: str) -> None:
    made = tokenizer(TOOLS)
    row = {**ROW, **COLUMNS[which]}
    (pair,) = read(made, row).train
    assert whole(pair) == by_trl(made, row)
    assert ("TOOLS" in pair.prompt) == (which in ("tools", "tools as JSON", "both"))
    assert ("MOOD glad" in pair.prompt) == (which in ("settings", "both"))


def test_a_system_column_is_a_system_message(read: Read) -> None:
    (column,) = read(tokenizer(CHATML), {**ROW, "system": "Be brief."}).train
    (text,) = read(
        tokenizer(CHATML), {"prompt": "q", "chosen": "yes", "rejected": "no", "system": "Be brief."}
    ).train
    message = {**ROW, "prompt": [{"role": "system", "content": "Be brief."}, *ROW["prompt"]]}
    assert read(tokenizer(CHATML), message).train == (column,) == (text,)
    assert column.prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nq")


@pytest.mark.parametrize("column", ["image", "images", "videos", "documents"])
def test_what_cannot_be_rendered_is_refused_by_name(read: Read, column: str) -> None:
    with pytest.raises(DataError, match=f"row 1: column {column} would change the prompt"):
        read(tokenizer(CHATML), {**ROW, column: ["something"]})
    assert len(read(tokenizer(CHATML), {**ROW, column: []}).train) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tools": "not JSON"}, "tools is text that is no JSON; want a list of tool schemas"),
        ({"chat_template_kwargs": [1]}, r"chat_template_kwargs is \[1\]; want an object of settings"),
        ({"system": 3}, "system is not text but int"),
    ],
)
def test_columns_that_are_not_understood(read: Read, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=f"row 1: {reason}"):
        read(tokenizer(TOOLS), {**ROW, **change})


def test_tools_need_messages_and_a_template(read: Read, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column tools goes with messages"):
        read(tokenizer(TOOLS), {"prompt": "q", "chosen": "a", "rejected": "b", "tools": SCHEMA})
    (tmp_path / "rows.jsonl").write_text(json.dumps({**ROW, "tools": SCHEMA}) + "\n")
    with pytest.raises(DataError, match="column tools takes a chat template, and this model has none"):
        load_dataset(
            DataSpec(source=str(tmp_path / "rows.jsonl")),
            0.0,
            np.random.default_rng(0),
            ModelSpec(name="tiny"),
        )


# ----------------------------------------------------------------------- tool calls


@pytest.mark.parametrize("template", [TOOLS, NONE_IS_MISSING])
@pytest.mark.parametrize(
    "message", [{"role": "assistant", "tool_calls": [CALL]}, said(None, tool_calls=[CALL])]
)
def test_conversations_with_tools(read: Read, template: str, message: dict[str, Any]) -> None:
    made = tokenizer(template)
    result = {"role": "tool", "content": "22 C"}
    row = {
        "prompt": [user("weather?"), message, result],
        "chosen": [said("It is 22.")],
        "rejected": [said("No.")],
    }
    assert whole(read(made, row).train[0]) == by_trl(made, row)
    answer = {"prompt": [user("weather?")], "chosen": [message], "rejected": [said("No.")]}
    pair = as_a(Pair, read(made, answer).train[0])
    assert whole(pair) == by_trl(made, answer)
    assert '"city": "Paris"' in pair.chosen
    turns = {
        "prompt": [user("weather?")],
        "chosen": [message, result, said("It is 22.")],
        "rejected": [said("No.")],
    }
    pair = as_a(Pair, read(made, turns).train[0])
    assert whole(pair) == by_trl(made, turns)
    chosen = as_a(Text, pair.chosen)
    heard = "".join(chosen[first:last] for first, last in present(chosen.spoken))
    assert "22 C" not in heard
    assert "Paris" in heard
    assert heard.endswith("It is 22.<|im_end|>\n")


# an empty <think> before the last answer alone, as under Qwen3
LAST_THINKS = TOOLS.replace(
    "{% if m.content %}",
    "{% if loop.last and m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{% if m.content %}",
)


@pytest.mark.parametrize("text", [None, "", "end", "weather", "a"])
def test_a_call_whose_rendering_changes_once_a_turn_follows(read: Read, text: str | None) -> None:
    made = tokenizer(LAST_THINKS)
    first = said(
        text,
        tool_calls=[{"type": "function", "function": {"name": "weather", "arguments": {"kind": "weather"}}}],
    )
    result = {"role": "tool", "content": "22 C, weather a end"}
    row = {
        "prompt": [user("weather?")],
        "chosen": [first, result, said("It is 22.")],
        "rejected": [said("No.")],
    }
    pair = as_a(Pair, read(made, row).train[0])
    assert whole(pair) == by_trl(made, row)
    chosen = as_a(Text, pair.chosen)
    call = '<tool_call>{"name": "weather", "arguments": {"kind": "weather"}}</tool_call><|im_end|>\n'
    heard = [chosen[first:last] for first, last in present(chosen.spoken)]
    assert heard == [(text or "") + call, "<think>\n\n</think>\n\nIt is 22.<|im_end|>\n"]


def test_a_call_that_the_template_drops_is_refused(read: Read) -> None:
    message = said("", tool_calls=[CALL])
    for row in ({**ROW, "chosen": [message]}, {**ROW, "prompt": [user("q"), message, user("and?")]}):
        with pytest.raises(
            DataError, match=r"row 1: the chat template leaves out 'weather' of (chosen|prompt) message"
        ):
            read(tokenizer(CHATML), row)


# ----------------------------------------------------------------------- what a template drops

R1 = FAMILIES["deepseek-r1"].tokenizer
ZEPHYR = FAMILIES["zephyr"].tokenizer
DROPPED: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "reasoning": (R1, {"chosen": [said("<think>\nhm\n</think>\n\nyes")]}, "'hm' of chosen message 1"),
    "reasoning of earlier turns": (
        lambda: tokenizer(QWEN3),
        {"chosen": [said("<think>\nhm\n</think>\n\nyes"), user("sure?"), said("Yes.")]},
        "'hm' of chosen message 1",
    ),
    "a reasoning key": (
        lambda: tokenizer(CHATML),
        {"chosen": [said("yes", reasoning_content="hm")]},
        "'hm' of chosen",
    ),
    "a developer": (
        ZEPHYR,
        {"prompt": [{"role": "developer", "content": "Be brief."}, user("q")]},
        r"'Be brief.' of prompt message 1 \(role 'developer'\)",
    ),
    "a letter of a developer": (
        ZEPHYR,
        {"prompt": [{"role": "developer", "content": "a"}, user("q")]},
        "'a' of prompt message 1",
    ),
    "a letter of reasoning": (
        R1,
        {"chosen": [said("<think>e</think>yes")], "rejected": [said("eyes")]},
        "'e' of chosen message 1",
    ),
    "a letter of a system prompt": (
        FAMILIES["mistral-v3"].tokenizer,
        {"prompt": [{"role": "system", "content": "I"}, user("q")]},
        "'I' of prompt message 1",
    ),
    "a tool": (
        ZEPHYR,
        {"prompt": [user("q"), said("a"), {"role": "tool", "content": "22 C"}]},
        r"'22 C' of prompt message 3",
    ),
    "a system prompt": (
        FAMILIES["mistral-v3"].tokenizer,
        {"prompt": [{"role": "system", "content": "Be brief."}, user("q")]},
        "'Be brief.'|the chat template changes the prompt once a completion follows it",
    ),
    "a system prompt that is refused": (
        FAMILIES["gemma"].tokenizer,
        {"prompt": [{"role": "system", "content": "Be brief."}, user("q")]},
        r"the model's chat template refuses the messages \(System role not supported\)",
    ),
}


@pytest.mark.parametrize("which", DROPPED)
def test_what_a_template_drops_is_refused_by_row(read: Read, which: str) -> None:
    make, change, reason = DROPPED[which]
    with pytest.raises(DataError, match=f"row 2: .*({reason})"):
        read(make(), ROW, {**ROW, **change})
    kept = read(make(), ROW, {**ROW, **change}, on_bad_row="skip")
    assert (len(kept.train), sum(kept.dropped.values())) == (1, 1)


@pytest.mark.parametrize("family", ["deepseek-r1", "nemotron", "qwen3", "glm-4.5"])
def test_reasoning_templates_are_served(read: Read, family: str) -> None:
    made = FAMILIES[family].tokenizer()
    assert whole(read(made, ROW).train[0]) == by_trl(made, ROW)
    if family != "deepseek-r1":  # it drops the reasoning of every answer
        thoughts = (("chosen", "hm, so"), ("rejected", "no"))
        thought = {**ROW, **{side: [said(f"<think>\n{text}\n</think>\n\nyes")] for side, text in thoughts}}
        pair = as_a(Pair, read(made, thought).train[0])
        assert whole(pair) == by_trl(made, thought)
        assert "hm, so" in pair.chosen
        endless = {**ROW, "chosen": [said("<think>\nhm, so, because")]}
        assert whole(read(made, endless).train[0]) == by_trl(made, endless)
    # a model reads no reasoning of earlier answers when it answers: what is dropped of them is no loss
    earlier = {**ROW, "prompt": [user("q"), said("<think>\nhm\n</think>\n\na"), user("c")]}
    assert whole(read(made, earlier).train[0]) == by_trl(made, earlier)


def test_text_that_is_escaped_by_the_template_is_there(read: Read) -> None:
    made = tokenizer(CHATML.replace("{{ m.content }}", "{{ m.content | tojson }}"))
    row = {**ROW, "prompt": [user('say "é"\n<b>')]}
    assert whole(read(made, row).train[0]) == by_trl(made, row)


@pytest.mark.parametrize("template", [CHATML, PARTS_ALONE])
def test_parts_of_text(read: Read, template: str) -> None:
    parts = [{"type": "text", "text": "the "}, {"type": "text", "text": "cat"}]
    row = {
        "prompt": [user(parts)],
        "chosen": [said([{"type": "text", "text": "yes"}])],
        "rejected": [said("no")],
    }
    (pair,) = read(tokenizer(template), row).train
    assert pair == Pair(
        "<|im_start|>user\nthe cat<|im_end|>\n<|im_start|>assistant\n", "yes<|im_end|>\n", "no<|im_end|>\n"
    )
    with pytest.raises(DataError, match="row 1: content of prompt message 1 is not text but list"):
        read(tokenizer(template), {**row, "prompt": [user([{"type": "image"}, *parts])]})


def test_pairs_that_are_equal_once_rendered_are_left_out(read: Read) -> None:
    made = FAMILIES["gemma"].tokenizer()
    found = read(made, ROW, {**ROW, "chosen": [said("yes ")], "rejected": [said("yes")]})
    assert (len(found.train), found.dropped) == (1, {"equal once rendered": 1})


# ----------------------------------------------------------------------- the date


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.dated])
def test_the_date_is_pinned(read: Read, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Tomorrow:
            return cls(2031, 2, 3)

    make = FAMILIES[family].tokenizer
    first = read(make(), ROW)
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Tomorrow)
    again = read(make(), ROW)
    assert fingerprint(first) == fingerprint(again)
    assert first.template_date == "2024-07-26"
    assert "2024" in first.train[0].prompt
    other = read(make(), ROW, day=date(2031, 2, 3))
    assert other.template_date == "2031-02-03"
    assert other.train[0] != first.train[0]
    assert whole(other.train[0]) == by_trl(make(), ROW)  # whose day is that day


def test_a_template_without_a_date_was_told_none(read: Read) -> None:
    assert read(tokenizer(CHATML), ROW).template_date is None


def test_a_date_of_the_row_counts(read: Read) -> None:
    made = fast(byte_level(), LLAMA3, bos="<s>", eos="</s>")
    (pair,) = read(made, {**ROW, "chat_template_kwargs": {"date_string": "1 Jan 1970"}}).train
    assert "Today Date: 1 Jan 1970" in pair.prompt


@pytest.mark.parametrize(
    "form", ["%d %b %Y", "%Y-%m-%d", "%B %-d, %Y", "%A %H:%M:%S %p", "%%d %j week %W", "%D %F", "no date"]
)
def test_the_stopped_clock_writes_what_strftime_writes(form: str) -> None:
    day = date(2024, 7, 6)
    made = fast(byte_level(), stopped_clock(day) + "{{ strftime_now(" + repr(form) + ") }}")
    assert made.apply_chat_template([user("q")], tokenize=False) == day.strftime(form)
