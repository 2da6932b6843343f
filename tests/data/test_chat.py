"""Conversational rows: templates, the plain fallback, implicit prompts, and messages that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpo_bench.contract.examples import Dataset, Pair, Single, Text
from xpo_bench.contract.settings import DataSpec, ModelSpec
from xpo_bench.data.dataset import load_dataset
from xpo_bench.errors import DataError

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


ROW = {"prompt": [user("q")], "chosen": [said("yes")], "rejected": [said("no")]}
PLAIN = Pair("User: q\n\nAssistant:", " yes", " no")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        import pandas as pd

        pd.DataFrame(rows).to_parquet(path)
    else:
        path.write_text(
            json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(r) + "\n" for r in rows)
        )
    return path


def read(path: Path, model: ModelSpec = ModelSpec(), **options: Any) -> Dataset:  # noqa: B008
    return load_dataset(DataSpec(source=str(path), **options), 0.0, np.random.default_rng(0), model)


@pytest.fixture(params=[".jsonl", ".json", ".parquet"])
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def saved(path: Path, template: str) -> ModelSpec:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(path)
    return ModelSpec(name=str(path))


def test_plain_fallback_in_every_format(tmp_path: Path, suffix: str) -> None:
    for model in (ModelSpec(), ModelSpec(name="tiny", tokenizer="bytes")):
        assert read(write(tmp_path / f"d{suffix}", [ROW]), model).train == (PLAIN,)


def test_implicit_prompt_in_every_format(tmp_path: Path, suffix: str) -> None:
    row = {c: [*ROW["prompt"], *ROW[c]] for c in ("chosen", "rejected")}
    assert read(write(tmp_path / f"d{suffix}", [row])).train == (PLAIN,)


def test_singles(tmp_path: Path) -> None:
    row = {"prompt": [user("a"), said("b"), user("c")], "completion": [said("d")], "label": True}
    dataset = read(write(tmp_path / "d.jsonl", [row]))
    assert dataset.train == (Single("User: a\n\nAssistant: b\n\nUser: c\n\nAssistant:", " d", True),)


def test_prompt_and_completion_are_what_the_template_makes_of_the_whole_conversation(tmp_path: Path) -> None:
    dataset = read(write(tmp_path / "d.jsonl", [ROW]), saved(tmp_path / "model", TEMPLATE))
    assert dataset.train == (Pair("<s><|user|>q</s>\n<|assistant|>", "yes</s>\n", "no</s>\n"),)
    assert isinstance(dataset.train[0].prompt, Text)
    assert dataset.train[0].prompt.rendered
    assert (dataset.template, dataset.template_date) == ("model", None)


def test_template_that_changes_the_prompt_is_refused_by_row(tmp_path: Path) -> None:
    changing = "{% if messages[0].content == 'long' %}{{ messages | length }}{% endif %}"
    model = saved(tmp_path / "model", changing + TEMPLATE)
    bad = {**ROW, "prompt": [user("long")]}
    with pytest.raises(
        DataError, match=r"row 2: the chat template changes the prompt once a completion follows it"
    ):
        read(write(tmp_path / "d.jsonl", [ROW, bad]), model)
    assert len(read(write(tmp_path / "d.jsonl", [ROW, bad]), model, on_bad_row="skip").train) == 1


def test_template_that_refuses_a_row(tmp_path: Path) -> None:
    model = saved(
        tmp_path / "model",
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE,
    )
    bad = {**ROW, "prompt": [{"role": "system", "content": "s"}, user("q")]}
    dataset = read(write(tmp_path / "d.jsonl", [ROW, bad]), model, on_bad_row="skip")
    assert (len(dataset.train), dataset.dropped) == (1, {"refused by the chat template": 1})


BAD = [
    ({"chosen": [said("no")]}, "chosen == rejected"),
    ({"prompt": []}, "empty prompt"),
    ({"prompt": [user(" ")]}, "empty prompt"),
    ({"rejected": [said("")]}, "empty rejected"),
    ({"rejected": []}, "empty rejected"),
    ({"chosen": None}, "missing column chosen"),
    ({"prompt": None}, "missing column prompt"),
    ({"chosen": [user("x")]}, "chosen begins with a message of 'user'"),
    ({"chosen": [{"role": "assistant", "content": None}]}, "chosen message 1 has no content"),
    ({"p_chosen": 0.2}, "p_chosen is 0.2"),
]
UNTYPED = [
    ({"prompt": "q"}, "chosen is a list of messages but prompt is not"),
    ({"chosen": ["yes"]}, "chosen message 1 is 'yes'; want an object with role and content"),
    ({"chosen": [{"content": "yes"}]}, "chosen message 1 has no role"),
    ({"chosen": [said(3)]}, "content of chosen message 1 is not text but int"),
    ({"chosen": [said([{"type": "image"}])]}, "content of chosen message 1 is not text but list"),
]


@pytest.mark.parametrize(("change", "reason"), BAD, ids=str)
def test_bad_rows_in_every_format(tmp_path: Path, suffix: str, change: dict[str, Any], reason: str) -> None:
    refused(write(tmp_path / f"d{suffix}", [ROW, {**ROW, **change}]), reason)


@pytest.mark.parametrize(("change", "reason"), UNTYPED, ids=str)
def test_bad_rows_in_formats_without_column_types(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    for suffix in (".jsonl", ".json"):
        refused(write(tmp_path / f"d{suffix}", [ROW, {**ROW, **change}]), reason)


def refused(path: Path, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        read(path)
    assert f"{path} row 2: {reason}" in str(caught.value).replace(f"{path} line", f"{path} row")
    dataset = read(path, on_bad_row="skip")
    assert (len(dataset.train), sum(dataset.dropped.values())) == (1, 1)
