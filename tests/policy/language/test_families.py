"""Conversations under the templates of many families: the ids of transformers, and nothing else is scored."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_families import FAMILIES
from chat_models import logp

from xpo_bench.contract.examples import Completion, Pair
from xpo_bench.contract.settings import DataSpec, ModelSpec
from xpo_bench.data.dataset import load_dataset
from xpo_bench.policy.language.causal_lm import CausalLM

DAY = datetime(2024, 7, 26)
Messages = list[dict[str, Any]]


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


SYSTEM = {"role": "system", "content": "Be brief."}
ROWS: dict[str, dict[str, Messages]] = {
    "one turn": {
        "prompt": [user("What is the cat?")],
        "chosen": [said("The cat is happy.")],
        "rejected": [said("No idea.")],
    },
    "three turns": {
        "prompt": [user("Hello there"), said("Hi."), user("Who are you?\n")],
        "chosen": [said("I am the cat, é😀.")],
        "rejected": [said("Nobody.\n\nAt all.")],
    },
    "one begins with the other": {
        "prompt": [user("Yes?")],
        "chosen": [said("Yes, yes.")],
        "rejected": [said("Yes")],
    },
}
NOT_UNDER_WORD_PIECES = "three turns"


class Stopped(datetime):
    """A clock that stands at the day that templates are told."""

    @classmethod
    def now(cls, tz: Any = None) -> Stopped:
        return cls(DAY.year, DAY.month, DAY.day)


@pytest.fixture(autouse=True)
def _stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Stopped)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[str, Any, CausalLM]]:
    """Checkpoint, tokenizer as transformers reads it, and policy of a family."""
    from transformers import AutoTokenizer

    known: dict[str, tuple[str, Any, CausalLM]] = {}

    def get(name: str) -> tuple[str, Any, CausalLM]:
        if name not in known:
            path = FAMILIES[name].save(tmp_path_factory.mktemp(name))
            policy = CausalLM.load(ModelSpec(name=path), init_seed=0, dtype="float64")
            known[name] = path, AutoTokenizer.from_pretrained(path), policy
        return known[name]

    return get


def read(folder: Path, path: str, *rows: Mapping[str, Any], **options: Any) -> tuple[Pair, ...]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = load_dataset(
        DataSpec(source=str(file), **options), 0.0, np.random.default_rng(0), ModelSpec(name=path)
    ).train
    assert all(isinstance(pair, Pair) for pair in found)
    return found  # type: ignore[return-value]


def rendered(tokenizer: Any, messages: Messages, **options: Any) -> list[int]:
    return list(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options))


def shared(*rows: Sequence[int]) -> int:
    return next(
        (k for k, ids in enumerate(zip(*rows, strict=False)) if len(set(ids)) > 1), min(map(len, rows))
    )


CASES = [(f, r) for f in FAMILIES for r in ROWS if (f, r) != ("word-pieces", NOT_UNDER_WORD_PIECES)]


@pytest.mark.parametrize(("family", "which"), CASES)
def test_ids_boundary_and_scores(served: Any, tmp_path: Path, family: str, which: str) -> None:
    path, tokenizer, policy = served(family)
    row = ROWS[which]
    (pair,) = read(tmp_path, path, row)
    fitted = policy.fit([pair])
    assert fitted.left_out == {}
    (pair,) = fitted.examples
    encoded = policy.encode([Completion(pair.prompt, pair.chosen), Completion(pair.prompt, pair.rejected)])
    want = [rendered(tokenizer, row["prompt"] + row[side]) for side in ("chosen", "rejected")]
    assert [list(encoded.row(k).ids) for k in (0, 1)] == want

    # both sides begin where a rendering first differs from the generation prompt's ids
    asked = rendered(tokenizer, row["prompt"], add_generation_prompt=True)
    start = min(shared(asked, ids) for ids in want)
    assert [encoded.row(k).start for k in (0, 1)] == [start, start]
    merges = want[0][:start] != asked
    assert merges == (FAMILIES[family].short or fitted.merged > 0)

    bos = tokenizer.bos_token_id
    if bos is not None and bos not in (
        tokenizer.eos_token_id,
        tokenizer.convert_tokens_to_ids("<|im_start|>"),
    ):
        turns = sum(m["role"] == "user" for m in row["prompt"]) if family == "llama-2" else 1
        assert all(ids.count(bos) <= turns for ids in want)
    for ids, side in zip(want, ("chosen", "rejected"), strict=True):
        text = "".join(tokenizer.decode(ids[start:]).split())
        assert text.endswith("".join((row[side][-1]["content"] + FAMILIES[family].tail).split()))

    scores = policy.score_all(encoded).sum[0].tolist()
    exact = [logp(path, ids, range(start, len(ids))) for ids in want]
    assert scores == pytest.approx(exact, abs=1e-4)  # rotations and norms are computed in float32


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_that_end_a_sample(served: Any, family: str) -> None:
    _, tokenizer, policy = served(family)
    ends = [
        *FAMILIES[family].ends,
        tokenizer.eos_token,
        *([FAMILIES[family].stop] if FAMILIES[family].stop else []),
    ]
    assert policy.stops == {tokenizer.convert_tokens_to_ids(end) for end in ends}


@pytest.mark.parametrize("family", ["llama-2", "gemma", "glm-4.5", "deepseek-r1"])
def test_samples_end_where_the_template_ends_an_answer(served: Any, tmp_path: Path, family: str) -> None:
    path, tokenizer, policy = served(family)
    (pair,) = read(tmp_path, path, ROWS["one turn"])
    stops = policy.stops
    drawn = policy.sample(
        [pair.prompt], 48, max_new_tokens=40, generator=torch.Generator().manual_seed(0), temperature=30.0
    )
    asked = rendered(tokenizer, ROWS["one turn"]["prompt"], add_generation_prompt=True)
    for k, ids in enumerate(drawn.ids):
        assert not stops.intersection(ids[:-1])
        assert bool(drawn.finished[k]) == (ids[-1] in stops)
        start = list(drawn.encoded.row(k).ids[: drawn.encoded.row(k).start])
        if FAMILIES[family].short:
            assert start == asked[: len(start)]
            assert len(start) < len(asked)
        else:
            assert start == asked
    assert drawn.finished.any()
    # what was drawn is what is scored
    again = policy.generate(0, [pair.prompt], 4, np.random.default_rng(0), max_new_tokens=8)[0]
    rows = policy.encode(again)
    for k, completion in enumerate(again):
        assert rows.row(k).ids[rows.row(k).start :] == completion.text.ids
