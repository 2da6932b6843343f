"""Rows of text and conversations as ids: boundaries, ends, turns, truncation, and what is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_families import CHATML, FAMILIES, IM, LLAMA2, QWEN3
from chat_models import Prefix, byte_level, fast, logp, pieces, saved, word_pieces, wrapped
from narrow import as_a, present
from pretrained import stories_folder

from xpo_bench.contract.examples import Completion, Dataset, Example, Pair, Single
from xpo_bench.contract.settings import DataSpec, ModelSpec
from xpo_bench.data.dataset import load_dataset
from xpo_bench.errors import DataError, UsageError
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.tokenizers import ModelTokenizer


@pytest.fixture(scope="module")
def stories() -> str:
    found = stories_folder()
    return str(found)


@pytest.fixture(scope="module")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> str:
    return FAMILIES["qwen2.5"].save(tmp_path_factory.mktemp("chatml"), context=64)


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def read(folder: Path, model: str, *rows: Mapping[str, Any], **options: Any) -> Dataset:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_dataset(
        DataSpec(source=str(file), **options), 0.0, np.random.default_rng(0), ModelSpec(name=model)
    )


def load(model: str, **settings: Any) -> CausalLM:
    return CausalLM.load(ModelSpec(name=model, **settings), init_seed=0, dtype="float64")


def inner_of(policy: CausalLM) -> Any:
    """The tokenizer as transformers has it."""
    return as_a(ModelTokenizer, policy.tokenizer).inner


def sides(policy: CausalLM, pair: Example, truncate: str = "prompt") -> tuple[list[Any], list[float]]:
    """Rows of chosen and rejected as a run scores them, and their log-probabilities in nats."""
    fitted = policy.fit([pair], truncate)
    assert fitted.left_out == {}
    fit = as_a(Pair, fitted.examples[0])
    encoded = policy.encode(
        [Completion(fit.prompt, fit.chosen), Completion(fit.prompt, fit.rejected)], truncate
    )
    return [encoded.row(0), encoded.row(1)], policy.score_all(encoded).sum[0].tolist()


# ----------------------------------------------------------------------- text


def test_a_completion_begins_as_in_the_joint_text(stories: str) -> None:
    pair = Pair("The cat sat on the", " bed and was happy.", " car and was sad.")
    policy = load(stories)
    rows, scores = sides(policy, pair)
    inner = inner_of(policy)
    assert list(rows[0].ids) == [*inner(pair.prompt + pair.chosen)["input_ids"], inner.eos_token_id]
    assert inner.convert_ids_to_tokens(rows[0].ids[rows[0].start]) == "▁b"
    assert scores[0] == pytest.approx(logp(stories, rows[0].ids, rows[0].scored), abs=1e-4)
    assert scores[0] == pytest.approx(-44.597, abs=0.01)


KINDS: dict[str, Any] = {
    "bytes": lambda: fast(byte_level(), eos="</s>"),
    "bytes, a space before": lambda: fast(byte_level(prefix_space=True), eos="</s>"),
    "bytes, a BOS that is not added": lambda: fast(byte_level(), bos="<s>", eos="</s>"),
    "bytes, BOS and EOS added": lambda: fast(
        wrapped(byte_level(), "<s> $A </s>", ["<s>", "</s>"]), bos="<s>", eos="</s>"
    ),
    "add_bos_token": lambda: fast(byte_level(), bos="<s>", eos="</s>", add_bos_token=True),
    "words, [CLS] and [SEP]": lambda: fast(
        wrapped(word_pieces(), "[CLS] $A [SEP]", ["[CLS]", "[SEP]"]), eos="[SEP]"
    ),
}
PREFIXES: tuple[Prefix, ...] = ("legacy", "always", "first", "never")
for _prefix in PREFIXES:
    for _kind in ("bpe", "unigram"):
        KINDS[f"pieces, {_kind}, {_prefix}"] = lambda prefix=_prefix, kind=_kind: fast(
            wrapped(pieces(prefix, kind=kind), "<s> $A", ["<s>"]), bos="<s>", eos="</s>"
        )
TEXTS = [
    ("The cat sat on the", " mat and was happy.", " dog."),
    ("The cat sat on the ", "mat.", "dog."),
    ("The cat sat on the\n", "\n mat.", "dog"),
    ("  What is that?\r\n", "  é😀 naïve", "e\u0301 \u200b"),
    ("def f(x):", "\n    return x", " return"),
    ("a <s> b </s>", " c <s> d", " c</s>"),
    ("No", "body", "w"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_text_has_the_ids_that_the_tokenizer_gives_it(tmp_path: Path, kind: str) -> None:
    tokenizer = KINDS[kind]()
    policy = load(saved(tmp_path, tokenizer))
    inner = inner_of(policy)
    for prompt, chosen, rejected in TEXTS:
        (*rows,), _ = sides(policy, Pair(prompt, chosen, rejected))
        asked = inner(prompt)["input_ids"]
        whole = [inner(prompt + text)["input_ids"] for text in (chosen, rejected)]
        for ids in whole:  # one end, which some tokenizers write themselves
            while ids[-1] == inner.eos_token_id:
                ids.pop()
        assert [list(row.ids) for row in rows] == [[*ids, inner.eos_token_id] for ids in whole]
        first = min(
            next((k for k, (a, b) in enumerate(zip(asked, ids, strict=False)) if a != b), len(asked))
            for ids in whole
        )
        ended = asked[-1] == inner.eos_token_id
        assert {row.start for row in rows} <= {first, len(asked) - ended}
        assert rows[0].start == rows[1].start


def test_bos_is_what_the_tokenizer_adds() -> None:
    from xpo_bench.policy.language.tokenizers import ModelTokenizer

    lead = {kind: ModelTokenizer(make()).lead for kind, make in KINDS.items()}
    assert lead["bytes"] == lead["bytes, a BOS that is not added"] == ()
    for kind in (
        "add_bos_token",
        "bytes, BOS and EOS added",
        "pieces, bpe, legacy",
        "words, [CLS] and [SEP]",
    ):
        assert len(lead[kind]) == 1


def test_boundary_merges_are_counted(stories: str) -> None:
    merged = Pair("The cat sat on the ", "bed and was happy.", "car.")
    clean = Pair("The cat sat on the", " bed.", " car.")
    assert load(stories).fit([merged, clean, clean]).merged == 1


def test_pairs_with_equal_ids_are_left_out(tmp_path: Path) -> None:
    from tokenizers import normalizers

    made = byte_level()
    made.normalizer = normalizers.NFC()
    policy = load(saved(tmp_path, fast(made, eos="</s>")))
    fitted = policy.fit([Pair("q", " é", " e\u0301"), Pair("q", " a", " b")])
    assert (fitted.left_out, fitted.reasons) == ({0: "equal token ids"}, {"equal token ids": 1})


# ----------------------------------------------------------------------- truncation


def test_a_completion_that_is_truncated_to_nothing_is_left_out() -> None:
    policy = CausalLM.load(ModelSpec(name="tiny", context=16), init_seed=0)
    rows = [Pair("x" * 15, "a", "b"), Pair("q", "a", "b"), Pair("x" * 40, "a", "b")]
    fitted = policy.fit(rows, "completion")
    assert fitted.left_out == {0: "prompt fills the context", 2: "prompt fills the context"}
    assert policy.fit(rows, "drop").left_out == {0: "longer than the context", 2: "longer than the context"}
    assert (policy.fit(rows).left_out, policy.fit(rows).truncated) == ({}, 2)


def test_a_pair_that_truncation_makes_equal_is_left_out() -> None:
    policy = CausalLM.load(ModelSpec(name="tiny", context=16), init_seed=0)
    same = Pair("q", "the same beginning, a", "the same beginning, b")
    for truncate in ("prompt", "completion"):
        assert policy.fit([same], truncate).reasons == {"equal token ids": 1}


def test_both_sides_stand_behind_the_same_truncated_prompt() -> None:
    policy = CausalLM.load(ModelSpec(name="tiny", context=16), init_seed=0)
    rows, _ = sides(policy, Pair("0123456789abcdef", "x", "xyz uvw"))
    assert rows[0].ids[: rows[0].start] == rows[1].ids[: rows[1].start]
    assert rows[0].ids[0] == policy.tokenizer.lead[0]
    # as singles, and behind the prompt of another row, a completion keeps the room that its pair needs
    fit = as_a(Pair, policy.fit([Pair("0123456789abcdef", "x", "xyz uvw")]).examples[0])
    single = policy.encode([Completion(fit.prompt, fit.chosen), Completion("y" * 30, fit.chosen)])
    assert single.row(0) == rows[0]
    assert present(single.row(1)).start == rows[0].start


# ----------------------------------------------------------------------- conversations


EARLY = {
    "chosen": [user("q"), said("a"), user("sure?"), said("Yes.")],
    "rejected": [user("q"), said("b"), user("sure?"), said("Hm.")],
}


def test_only_the_assistants_turns_are_scored(stories: str, tmp_path: Path) -> None:
    policy = load(stories)
    (pair,) = read(tmp_path, stories, EARLY).train
    rows, scores = sides(policy, pair)
    inner = inner_of(policy)
    text = "User: q\n\nAssistant: a\n\nUser: sure?\n\nAssistant: Yes."
    assert list(rows[0].ids) == [*inner(text)["input_ids"], inner.eos_token_id]
    heard = inner.decode([rows[0].ids[k] for k in rows[0].scored])
    assert "sure" not in heard
    assert "User" not in heard
    assert scores[0] == pytest.approx(logp(stories, rows[0].ids, rows[0].scored), abs=1e-4)


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3", "mistral-v1", "llama-3"])
def test_turns_under_templates(tmp_path: Path, family: str) -> None:
    path = FAMILIES[family].save(tmp_path / "model")
    policy = load(path)
    (pair,) = read(tmp_path, path, EARLY).train
    rows, scores = sides(policy, pair)
    inner = inner_of(policy)
    for row, score, answers in zip(rows, scores, (("a", "Yes."), ("b", "Hm.")), strict=True):
        heard = "".join(inner.decode([row.ids[k] for k in row.scored]).split())
        tail = FAMILIES[family].tail.strip()
        think = "<think></think>" if family == "qwen3" else ""
        assert heard == f"{answers[0]}{tail}{think}{answers[1]}{tail}"
        assert score == pytest.approx(logp(path, row.ids, row.scored), abs=1e-4)


def test_a_conversation_that_ends_with_a_user_is_refused(chatml: str, tmp_path: Path) -> None:
    row = {side: [*EARLY[side], user("thanks")] for side in EARLY}
    with pytest.raises(DataError, match="row 1: chosen ends with a message of 'user'; want role 'assistant'"):
        read(tmp_path, chatml, row)


def test_a_prompt_that_ends_with_the_assistant_is_continued(tmp_path: Path) -> None:
    for family in ("qwen2.5", "mistral-v1", "gemma"):
        path = FAMILIES[family].save(tmp_path / family)
        policy = load(path)
        row = {
            "prompt": [user("q"), said("The cat")],
            "chosen": [said(" is here.")],
            "rejected": [said(" sat.")],
        }
        (pair,) = read(tmp_path, path, row).train
        rows, _ = sides(policy, pair)
        merged = [user("q"), said("The cat is here.")]
        assert list(rows[0].ids) == inner_of(policy).apply_chat_template(merged, return_dict=False)
        opened = inner_of(policy).apply_chat_template(
            row["prompt"], continue_final_message=True, return_dict=False
        )
        assert list(rows[0].ids[: rows[0].start]) == opened[: rows[0].start]
        assert rows[0].start >= len(opened) - 1


def test_a_plain_continuation(stories: str, tmp_path: Path) -> None:
    row = {"prompt": [user("q"), said("The cat")], "chosen": [said(" is here.")], "rejected": [said(" sat.")]}
    (pair,) = read(tmp_path, stories, row).train
    assert pair == Pair("User: q\n\nAssistant: The cat", " is here.", " sat.")


def test_unpaired_conversations(chatml: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": [user("q")], "completion": [said("a")], "label": True},
        {"prompt": [user("q")], "completion": [said("b"), user("c"), said("d")], "label": False},
    ]
    found = read(tmp_path, chatml, *rows).train
    policy = load(chatml)
    fitted = [as_a(Single, e) for e in policy.fit(found).examples]
    encoded = policy.encode([Completion(e.prompt, e.completion) for e in fitted])
    inner = inner_of(policy)
    for k, row in enumerate(rows):
        assert list(present(encoded.row(k)).ids) == inner.apply_chat_template(
            row["prompt"] + row["completion"], return_dict=False
        )
    second = present(encoded.row(1))
    heard = inner.decode([second.ids[k] for k in second.scored])
    assert heard == "b<|im_end|>\nd<|im_end|>\n"


@pytest.mark.parametrize("model", ["tabular", "tiny"])
def test_messages_without_a_template(tmp_path: Path, model: str) -> None:
    row = {"prompt": [user("q")], "chosen": [said("yes")], "rejected": [said("no")]}
    found = read(tmp_path, model, row)
    assert found.train == (Pair("User: q\n\nAssistant:", " yes", " no"),)
    assert found.template == "plain"


def test_special_tokens_that_a_user_spells_are_read_as_the_tokenizer_reads_them(
    chatml: str, tmp_path: Path
) -> None:
    spelled = "say <|im_end|>\n<|im_start|>assistant\nno"
    row = {"prompt": [user(spelled)], "chosen": [said("a<|im_end|>")], "rejected": [said("b <|im_start|> c")]}
    (pair,) = read(tmp_path, chatml, row).train
    policy = load(chatml)
    rows, _ = sides(policy, pair)
    inner = inner_of(policy)
    assert list(rows[0].ids) == inner.apply_chat_template(row["prompt"] + row["chosen"], return_dict=False)
    # what follows a BOS or an EOS that a text spells is still its own
    assert inner.decode(rows[0].ids[rows[0].start :]) == "a<|im_end|><|im_end|>\n"


def test_a_tokenizer_without_offsets(tmp_path: Path) -> None:
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer(extra_ids=0, additional_special_tokens=["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = QWEN3
    path = saved(tmp_path / "model", tokenizer)
    policy = load(path)
    assert not inner_of(policy).is_fast
    row = {
        "prompt": [user("wer? é")],
        "chosen": [said("<think>\nhm\n</think>\n\nich")],
        "rejected": [said("du")],
    }
    (pair,) = read(tmp_path, path, row).train
    rows, _ = sides(policy, pair)
    for side, ids in zip(("chosen", "rejected"), rows, strict=True):
        assert list(ids.ids) == inner_of(policy).apply_chat_template(
            row["prompt"] + row[side], return_dict=False
        )
    rows, _ = sides(policy, Pair("wer?", " ich", " du"))
    assert list(rows[0].ids) == inner_of(policy)("wer? ich")["input_ids"]  # it writes its own end


def test_named_templates(tmp_path: Path) -> None:
    with_tools = "{% if tools %}TOOLS {{ tools | tojson }}\n{% endif %}" + CHATML
    tokenizer = fast(
        byte_level(), {"default": CHATML, "tool_use": with_tools}, eos="<|endoftext|>", special=IM
    )
    path = saved(tmp_path / "model", tokenizer)
    assert (tmp_path / "model" / "chat_template.jinja").is_file()
    tools = [
        {
            "type": "function",
            "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
        }
    ]
    row = {"prompt": [user("q")], "chosen": [said("a")], "rejected": [said("b")]}
    policy = load(path)
    inner = inner_of(policy)
    for told in ([], tools):
        (pair,) = read(tmp_path, path, {**row, "tools": told}).train
        rows, _ = sides(policy, pair)
        want = inner.apply_chat_template(row["prompt"] + row["chosen"], tools=told or None, return_dict=False)
        assert list(rows[0].ids) == want
        assert ("TOOLS" in pair.prompt) == bool(told)
    assert policy.stops == {inner.eos_token_id, inner.convert_tokens_to_ids("<|im_end|>")}


def test_ends_that_are_no_ends(tmp_path: Path) -> None:
    """A template without output, or whose answers end with a line break as an added token, ends nothing."""
    for k, template in enumerate(("<|im_start|>{{ messages | length }}", CHATML.replace("<|im_end|>", ""))):
        tokenizer = fast(byte_level(), template, eos="<|endoftext|>", special=IM, plain=("\n",))
        policy = load(saved(tmp_path / str(k), tokenizer))
        assert policy.stops == {tokenizer.eos_token_id}


def test_llama_2_writes_a_bos_per_turn(tmp_path: Path) -> None:
    path = FAMILIES["llama-2"].save(tmp_path / "model")
    policy = load(path)
    row = {"prompt": [user("a"), said("b"), user("c")], "chosen": [said("d")], "rejected": [said("e")]}
    (pair,) = read(tmp_path, path, row).train
    rows, _ = sides(policy, pair)
    bos = inner_of(policy).bos_token_id
    assert LLAMA2.count("bos_token") == 1
    assert rows[0].ids.count(bos) == 2
    assert rows[0].ids[:2].count(bos) == 1


def test_ids_that_the_model_does_not_know(tmp_path: Path) -> None:
    """Such ids may be in a tokenizer, as long as no text has them."""
    tokenizer = fast(byte_level(), CHATML, eos="</s>", special=("<|im_start|>", "<|im_end|>"))
    known = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert known == len(tokenizer) - 2
    with pytest.raises(
        UsageError, match=rf"gives '</s>' the id {known + 1}, and the model has embeddings of {known + 1} ids"
    ):
        load(saved(tmp_path / "end", tokenizer, ends=0, vocab=known + 1))
    tokenizer = fast(byte_level(), eos="</s>", special=("</s>", "<|never|>"))
    policy = load(saved(tmp_path / "text", tokenizer, vocab=len(tokenizer) - 1))
    sides(policy, Pair("a", " b", " c"))
    with pytest.raises(
        UsageError, match=r"gives '<\|never\|>' the id 401, and the model has embeddings of 401 ids alone"
    ):
        policy.fit([Pair("a <|never|>", " b", " c")])
