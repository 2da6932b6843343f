"""`xpo-bench data`: exact values on invented sets, bad rows that are reported and end nothing, real sets."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t

from xpo_bench.cli.waiting import Progress
from xpo_bench.contract.examples import Pair
from xpo_bench.policy.language.token_counts import token_rows
from xpo_bench.policy.language.tokenizers import IdTokenizer
from xpo_bench.report.preference_set.meaning import MEANING

Command = Callable[..., Any]

TEXT = {
    "bad_rows",
    "repeated_rows",
    "shared_completions",
    "split_overlap",
    "contradictory",
    "length_bias",
    "lengths",
}
PAIRED = TEXT | {"ties", "unanimous", "intransitive", "edit_distance", "equal_but_for_spaces"}
UNPAIRED = TEXT | {"balance", "prompts_with_both"}
MODEL = {"truncated", "left_out", "boundary_merges", "template", "end_token"}
FACTS = {
    "schema",
    "source",
    "revision",
    "kind",
    "layout",
    "columns",
    "rows",
    "used",
    "persons",
    "labels",
    "train",
    "heldout",
    "prompts",
    "model",
}


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., str]:
    """Writes rows to a file of the folder that commands run in, and returns its name."""

    def write(*rows: dict[str, Any], name: str = "set.jsonl") -> str:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return name

    return write


@pytest.fixture
def real() -> Path:
    """The directory of the real preference sets."""
    places = [os.environ.get("XPO_BENCH_DATA"), Path(__file__).parents[3] / "shared" / "data"]
    found = next(
        (Path(p).resolve() for p in places if p and (Path(p) / "ukpconvarg1.parquet").is_file()), None
    )
    if found is None:
        pytest.skip("ukpconvarg1.parquet is neither under XPO_BENCH_DATA nor in ../shared/data")
    return found


def pair(prompt: str, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


SET = [
    pair("x", "aaaa", "bb", votes_chosen=5, votes_rejected=0, split="train"),
    pair("x", "bb", "c", votes_chosen=3, votes_rejected=2, split="train"),
    pair("x", "c", "aaaa", split="train"),
    pair("x", "c", "aaaa", split="train"),
    pair("y", "dd", "ee", p_chosen=0.5, split="train"),
    pair("y", "dd", "f", split="train"),
    pair("z", "caf\u00e9", "cafe\u0301", split="test"),
    pair("y", "f", "dd", split="test"),
]


def test_every_value_of_an_invented_set(warm: Command, jsonl: Callable[..., str]) -> None:
    done = warm("data", jsonl(*SET), "--json")
    assert done.code == 0, done.err
    found = done.json
    facts = {key: found[key] for key in ("kind", "rows", "used", "train", "heldout", "prompts", "model")}
    assert facts == {
        "kind": "pairs",
        "rows": 8,
        "used": 8,
        "train": 6,
        "heldout": 2,
        "prompts": 3,
        "model": None,
    }

    assert found["labels"] == {"tabular": "soft", "linear": "soft", "language": "hard"}
    assert found["persons"] is None

    def value(name: str) -> dict[str, Any]:
        return {key: v for key, v in found[name].items() if key != "meaning"}

    assert value("bad_rows") == {"count": 0, "reasons": {}, "first": []}
    assert value("repeated_rows") == {"count": 1, "fraction": 1 / 8}
    assert value("shared_completions") == {"count": 0, "rows": 0, "fraction": 0}
    assert value("split_overlap") == {
        "heldout_rows": 2, "prompts": 1, "prompt_rows": 1, "completions": 2, "completion_rows": 1,
    }  # fmt: skip
    assert value("contradictory") == {"count": 1, "comparisons": 5, "fraction": 1 / 5, "rows": 2}
    assert value("ties") == {"count": 1, "fraction": 1 / 8}
    assert value("unanimous") == {"count": 1, "known": 3, "fraction": 1 / 3}
    assert value("intransitive") == {"count": 1, "compared": 1, "fraction": 1}
    assert value("equal_but_for_spaces") == {"count": 1, "fraction": 1 / 8}
    assert value("edit_distance")["tokens"] is None
    distance = value("edit_distance")["characters"]
    assert distance["median"] == 1
    assert (distance["near"], distance["max"]) == (0, 1)
    length = value("lengths")["characters"]
    assert (length["chosen"]["max"], length["rejected"]["max"], length["row"]["max"]) == (4, 5, 6)


def test_interval_of_length_bias_is_clustered_by_prompt(warm: Command, jsonl: Callable[..., str]) -> None:
    characters = warm("data", jsonl(*SET), "--json").json["length_bias"]["characters"]
    clusters = {"x": [1, 1, 0, 0], "y": [1, 0], "z": [0]}  # longer wins; the tie is left out
    every = np.concatenate([np.array(wins, dtype=float) for wins in clusters.values()])
    mean, n, count = every.mean(), len(every), len(clusters)
    sums = [float(np.sum(np.array(wins) - mean)) for wins in clusters.values()]
    se = math.sqrt(count / (count - 1) * sum(s**2 for s in sums)) / n
    half = t.ppf(0.975, count - 1) * se
    assert characters["accuracy"] == pytest.approx(3 / 7)
    assert characters["ci95"] == pytest.approx([mean - half, mean + half])
    assert (characters["n"], characters["clusters"]) == (7, 3)


def test_document_is_canonical_and_every_quantity_has_its_sentence(
    warm: Command, jsonl: Callable[..., str]
) -> None:
    done = warm("data", jsonl(*SET), "--model", "tiny", "--device", "cpu", "--json")
    found = done.json
    assert done.out.strip() == json.dumps(
        found, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    assert found.keys() == FACTS | PAIRED | MODEL | {"equal_ids", "ches", "ches_normalised"}
    for name in found.keys() - FACTS:
        meaning = found[name]["meaning"]
        assert meaning in MEANING.values()
        assert re.fullmatch(r"[^\n]{20,}[^.]\.", meaning), name
    for sentence in MEANING.values():
        assert not re.search(r"[a-z)]\. [A-Z]", sentence), "one sentence"


def test_table_has_every_quantity_and_its_sentence(warm: Command, jsonl: Callable[..., str]) -> None:
    done = warm("data", jsonl(*SET), "--model", "tiny", "--device", "cpu", "--quiet", COLUMNS="80")
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= 80
    said = "".join(done.out.split())
    for name in PAIRED | MODEL | {"ches", "ches_normalised"}:
        assert "".join(MEANING[name].split()) in said, name
    assert "8 pairs of 8 rows (6 train, 2 held out), 3 prompts" in done.out


def test_bad_rows_are_counted_and_the_first_five_are_named(warm: Command, jsonl: Callable[..., str]) -> None:
    rows = [
        pair("x", "a", "b"),
        *[pair("x", "a", "a")] * 4,
        pair("x", " ", "b"),
        pair("", "a", "b"),
        {"prompt": "x"},
    ]
    done = warm("data", jsonl(*rows), "--json")
    assert done.code == 0
    bad = done.json["bad_rows"]
    assert bad["count"] == 7
    assert bad["reasons"] == {
        "chosen equals rejected": 4,
        "empty completion": 1,
        "empty prompt": 1,
        "missing column": 1,
    }
    assert [row["row"] for row in bad["first"]] == [2, 3, 4, 5, 6]
    assert bad["first"][4]["message"].startswith("empty chosen")
    table = warm("data", "set.jsonl")
    assert table.code == 0
    assert "row 6: empty chosen" in " ".join(table.out.split())
    strict = warm("data", "set.jsonl", "--on-bad-row", "error")
    assert (strict.code, strict.out) == (2, "")
    assert len(strict.lines) == 1


UNREADABLE = {
    "no such file": ([], "missing.jsonl", "no such file"),
    "no rows": ([""], "set.jsonl", "empty data set"),
    "malformed": (['{"prompt": '], "set.jsonl", "malformed JSON"),
    "nothing usable": (
        ['{"prompt": "x", "chosen": "a", "rejected": "a"}'],
        "set.jsonl",
        "no usable row among 1",
    ),
}


@pytest.mark.parametrize(("lines", "name", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_one_line(
    warm: Command, tmp_path: Path, lines: list[str], name: str, message: str
) -> None:
    (tmp_path / "set.jsonl").write_text("\n".join(lines), "utf-8")
    done = warm("data", name)
    assert (done.code, done.out) == (2, "")
    assert len(done.lines) == 1
    assert message in done.err


def test_unknown_model_is_one_line(warm: Command, jsonl: Callable[..., str]) -> None:
    done = warm("data", jsonl(*SET), "--model", "./nowhere")
    assert done.code == 2
    assert done.lines == [
        "xpo-bench: --model ./nowhere: is not a directory; "
        "give a Hugging Face model directory, a hub id, "
        "tiny, tabular or linear"
    ]


def test_unpaired_rows_tell_balance_and_weights_of_kto(warm: Command, jsonl: Callable[..., str]) -> None:
    rows = [
        {"prompt": "x", "completion": "long one", "label": True},
        {"prompt": "x", "completion": "a", "label": False},
        {"prompt": "x", "completion": "a", "label": True},
        {"prompt": "y", "completion": "bb", "label": True},
        {"prompt": "y", "completion": "cc", "label": True},
    ]
    found = warm("data", jsonl(*rows), "--model", "tiny", "--json").json
    assert found.keys() == FACTS | UNPAIRED | MODEL
    assert found["kind"] == "singles"
    balance = found["balance"]
    assert (balance["desirable"], balance["undesirable"], balance["fraction"]) == (4, 1, 0.8)
    assert balance["desirable_weight"] is None
    assert balance["undesirable_weight"] == pytest.approx([3, 4])  # 4 / 1 / (4/3) to 4 / 1
    assert (found["contradictory"]["count"], found["contradictory"]["comparisons"]) == (1, 4)
    assert found["prompts_with_both"]["count"] == 1
    assert found["length_bias"]["characters"]["accuracy"] == pytest.approx((3 + 0.5) / 4)
    assert found["length_bias"]["tokens"]["accuracy"] == pytest.approx((3 + 0.5) / 4)


def test_what_a_model_makes_of_long_rows(warm: Command, jsonl: Callable[..., str]) -> None:
    far = "a" * 600  # of a context of 512 bytes
    rows = [pair("p" * 500, "a b c", "d"), pair("x", far + "1", far + "2"), pair("x", "ab", "a")]
    found = warm("data", jsonl(*rows), "--model", "tiny", "--pairs", "0", "--json").json
    assert "ches" not in found
    assert found["model"] == {"name": "tiny", "tokenizer": "bytes", "context": 512}
    assert found["equal_ids"]["count"] == 1
    # BOS and EOS count as tokens of prompt and completion
    assert found["truncated"] | {"meaning": ""} == {
        "count": 0, "fraction": 0, "context": 512, "truncate": "prompt", "meaning": "",
    }  # fmt: skip
    assert found["lengths"]["tokens"]["prompt"]["max"] == 501
    assert found["lengths"]["tokens"]["chosen"]["max"] == 602
    assert found["end_token"]["id"] == 257
    assert (found["end_token"]["ended"], found["end_token"]["completions"]) == (6, 6)
    dropped = warm(
        "data", "set.jsonl", "--model", "tiny", "--pairs", "0", "--truncate", "drop", "--json"
    ).json
    assert dropped["left_out"]["reasons"] == {"longer than the context": 1}


def test_ches_takes_a_fixed_sample_and_names_rows_of_the_file(
    warm: Command, jsonl: Callable[..., str]
) -> None:
    rows = [pair(f"prompt {i}", "abc " * (1 + i % 7), "abd " * (1 + i % 5)) for i in range(30)]
    name = jsonl(pair("x", "same", "same"), *rows)
    words = ("data", name, "--model", "tiny", "--device", "cpu", "--pairs", "10", "--json")
    found = warm(*words).json["ches"]
    assert (found["n"], found["of"]) == (10, 30)
    assert len(found["highest"]) == 5
    values = [row["value"] for row in found["highest"]]
    assert values == sorted(values, reverse=True)
    assert found["max"] == values[0]
    first = found["highest"][0]
    assert f"prompt {first['row'] - 2}'" in first["prompt"], (
        "rows are numbered as in the file, the bad one before them included"
    )
    assert found == warm(*words).json["ches"]
    every = warm("data", name, "--model", "tiny", "--device", "cpu", "--json").json["ches"]
    assert (every["n"], every["of"]) == (30, 30)


def test_conversations_tell_the_template_and_who_writes_the_end_token(
    warm: Command, jsonl: Callable[..., str], tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "</s>", "<|end|>", "<|user|>", "<|bot|>", "hi", "hello", "go", "away"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<|end|>", "<|user|>", "<|bot|>"],
    )  # fmt: skip
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|user|>' if m.role == 'user' else '<|bot|>' }} {{ m.content }} "
        "<|end|> {% endfor %}{% if add_generation_prompt %}<|bot|> {% endif %}"
    )
    tokenizer.save_pretrained(tmp_path / "model")
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    user, answers = [{"role": "user", "content": "hi"}], ("hello", "go away")
    chosen, rejected = ([{"role": "assistant", "content": text}] for text in answers)
    name = jsonl({"prompt": user, "chosen": chosen, "rejected": rejected})
    found = warm("data", name, "--model", "./model", "--device", "cpu", "--json").json
    assert (found["template"]["kind"], found["template"]["date"]) == ("model", None)
    assert (found["end_token"]["token"], found["end_token"]["by"]) == ("<|end|>", "the chat template")
    assert found["end_token"]["ended"] == 2
    assert found["model"]["context"] == 64
    assert found["ches"]["n"] == 1
    plain = warm("data", name, "--model", "tiny", "--pairs", "0", "--json").json
    assert plain["template"]["kind"] == "plain"
    assert plain["end_token"]["token"] == "EOS"


def test_progress_is_told_once_a_stage_takes_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(quiet=False) as soon:
        soon.tell("reading", 0, 0)
    assert capsys.readouterr().err == ""
    for quiet, said in ((False, "xpo-bench: tokenising: 1,024 of 4,096\n"), (True, "")):
        with Progress(quiet, first=0.01) as progress:
            progress.tell("tokenising", 1024, 4096)
            time.sleep(0.2)
        assert capsys.readouterr().err == said


def test_a_row_without_tokens_costs_itself_alone() -> None:
    rows = [Pair("1", "2", "3"), Pair("4", "not ids", "5"), Pair("6", "7 8", "9"), Pair("1", "99", "2")]
    found = token_rows(IdTokenizer(10), rows, eos=False)
    assert [row and row.completions for row in found.rows] == [((2,), (3,)), None, ((7, 8), (9,)), None]
    assert found.unreadable.keys() == {1, 3}
    assert "is outside the vocabulary" in found.unreadable[3]


def test_every_real_set(warm: Command, real: Path) -> None:
    counts = {
        "ukpconvarg1": (8_158, 8_151), "oasst_en100_pairs": (754, 754), "pandalm": (999, 945),
        "tulu_human_eval_pairs": (996, 961), "tulu_human_eval_unpaired": (2_300, 2_300),
    }  # fmt: skip
    for name, (rows, used) in counts.items():
        done = warm("data", name, "--json", XPO_BENCH_DATA=str(real))
        assert done.code == 0, done.err
        assert (done.json["rows"], done.json["used"]) == (rows, used)
    refused = warm("data", "tofu", XPO_BENCH_DATA=str(real))  # questions and answers without labels
    assert refused.code == 2
    assert len(refused.lines) == 1
    assert "split, question, answer" in refused.err


def test_real_votes_have_the_fractions_of_their_columns(warm: Command, real: Path) -> None:
    import pandas as pd

    frame = pd.read_parquet(real / "ukpconvarg1.parquet")
    frame = frame[frame.chosen != frame.rejected]
    found = warm("data", "ukpconvarg1", "--json", XPO_BENCH_DATA=str(real)).json
    assert found["ties"]["count"] == int((frame.p_chosen == 0.5).sum())
    assert found["unanimous"]["count"] == int((frame.p_chosen == 1).sum())
    assert found["repeated_rows"]["count"] == int(frame.duplicated(["prompt", "chosen", "rejected"]).sum())
    strict = frame[frame.p_chosen != 0.5]
    longer = np.sign(strict.chosen.str.len() - strict.rejected.str.len())
    assert found["length_bias"]["characters"]["accuracy"] == pytest.approx(float((longer + 1).mean() / 2))
    assert found["split_overlap"]["prompts"] == 0
