"""Input that is wrong: one line each, before anything is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trained_models import Evaluate, write_rows

from xpo_bench import UsageError

JUDGES = Path(__file__).parent / "judges.py"


def refused(evaluate: Evaluate, *checkpoints: object, **words: Any) -> str:
    with pytest.raises(UsageError) as error:
        evaluate(*checkpoints, **words)
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory, stories: Path) -> Path:
    """Models: `narrow` of the same tokens, `more` of more tokens, and `told` with a tokenizer for these."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    root = tmp_path_factory.mktemp("other")
    config = LlamaConfig.from_pretrained(stories)
    config.hidden_size, config.intermediate_size, config.head_dim = 32, 64, 4
    LlamaForCausalLM(config).save_pretrained(root / "narrow")
    AutoTokenizer.from_pretrained(stories).save_pretrained(root / "narrow")
    config.vocab_size = 520
    LlamaForCausalLM(config).save_pretrained(root / "more")
    LlamaForCausalLM(config).save_pretrained(root / "told")
    tokenizer = AutoTokenizer.from_pretrained(stories)
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(root / "told")
    return root


def test_an_adapter_of_another_base(evaluate: Evaluate, adapter: Path, other: Path) -> None:
    narrow = other / "narrow"
    assert "was trained on" in (text := refused(evaluate, adapter / "lora", reference=narrow))
    assert "--base" in text
    assert "has other weights" in refused(evaluate, adapter / "lora", base=narrow)


def test_an_adapter_whose_base_has_moved(
    evaluate: Evaluate, adapter: Path, other: Path, stories: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in (adapter / "lora").iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    config = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "/gone/model"})
    )
    assert "say where it is with --base" in refused(evaluate, moved)
    shapes = refused(evaluate, moved, base=other / "narrow")
    assert "width" in shapes
    assert evaluate(moved, base=stories).ok


def test_a_copy_of_the_base_is_the_base(
    evaluate: Evaluate, adapter: Path, stories: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in stories.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(
        json.dumps(config | {"transformers_version": "4.57.0", "use_cache": False})
    )
    assert evaluate(adapter / "lora", reference=copy).ok
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    assert "another configuration" in refused(evaluate, adapter / "lora", reference=copy)


def test_a_token_that_training_added_where_there_was_room(
    evaluate: Evaluate, other: Path, stories: Path, tmp_path: Path
) -> None:
    """As trainers add a pad token: the logits are the same, and so is the text that is read."""
    from transformers import AutoTokenizer

    added = evaluate(other / "told", reference=other / "more", out=tmp_path / "added").cells[0]
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in (other / "told").iterdir():
        (plain / file.name).write_bytes(file.read_bytes())
    AutoTokenizer.from_pretrained(stories).save_pretrained(plain)
    same = evaluate(f"told={plain}", reference=other / "more", out=tmp_path / "same").cells[0]
    assert added["metrics"] == same["metrics"]


def test_another_vocabulary(evaluate: Evaluate, other: Path) -> None:
    assert "520" in refused(evaluate, other / "more")
    assert "513" in refused(evaluate, other / "told")


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ("raises", "raised ValueError: no key for the service"),
        ("nan", "returned nan"),
        ("words", "returned 'good'"),
        ("too_few", "returned 1 rewards for 4 completions"),
        ("lonely", "takes (completion"),
        ("nothing", "is no function"),
        ("absent", "has no 'absent'"),
    ],
)
def test_judges_that_fail(evaluate: Evaluate, trained: Path, judge: str, message: str) -> None:
    assert message in refused(evaluate, trained / "sharded", judge=f"{JUDGES}:{judge}")


@pytest.mark.parametrize(
    ("judge", "message"), [("too_sure", "want the probability"), ("no_answer", "want a finite number")]
)
def test_a_judge_of_two_that_fails_does_so_before_anything_is_measured(
    evaluate: Evaluate, trained: Path, tmp_path: Path, judge: str, message: str
) -> None:
    assert message in refused(evaluate, trained / "sharded", judge=f"{JUDGES}:{judge}")
    assert not (tmp_path / "out" / "measured").exists()


def test_a_reward_model_without_a_head(
    evaluate: Evaluate, trained: Path, stories: Path, tmp_path: Path
) -> None:
    assert "has 2 outputs" in refused(evaluate, trained / "sharded", judge=stories)
    headless = tmp_path / "headless"
    headless.mkdir()
    for file in stories.iterdir():
        (headless / file.name).write_bytes(file.read_bytes())
    config = json.loads((headless / "config.json").read_text())
    labels = {"id2label": {"0": "reward"}, "label2id": {"reward": 0}}
    (headless / "config.json").write_text(json.dumps(config | labels))
    assert "has no head for rewards" in refused(evaluate, trained / "sharded", judge=headless)


def test_sets_with_nothing_in_them(evaluate: Evaluate, trained: Path, tmp_path: Path) -> None:
    empty = write_rows(tmp_path / "empty.jsonl", [])
    assert "empty data set" in refused(evaluate, trained / "sharded", data=empty)
    assert "empty data set" in refused(evaluate, trained / "sharded", base_data=empty)
    same = write_rows(tmp_path / "same.jsonl", [("a", "b", "b")])
    assert "chosen == rejected" in refused(evaluate, trained / "sharded", data=same)
    assert "no usable row" in refused(evaluate, trained / "sharded", data=same, on_bad_row="skip")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"reference": ""}, "--reference is missing"),
        ({"data": ""}, "--data is missing"),
        ({"beta": "dpo=0.1"}, "unknown name 'dpo'"),
        ({"beta": "-1"}, "want a number above 0"),
        ({"pairs": 0}, "--pairs 0"),
        ({"dtype": "float16"}, "--dtype float16"),
        ({"kl": 3}, "unknown argument 'kl'"),
        ({"device": "cuda:7"}, "--device cuda:7"),
        ({"base": "."}, "holds no checkpoint"),
    ],
)
def test_words_that_mean_nothing(
    evaluate: Evaluate, trained: Path, words: dict[str, Any], message: str
) -> None:
    assert message in refused(evaluate, trained / "sharded", **words)
