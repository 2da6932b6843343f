"""Rows of token ids that TRL tokenizes to the ids that the suite reads, and a tiny model of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpo_bench import ModelSpec, Pair
from xpo_bench.policy.language.causal_lm import CausalLM

SPEC = ModelSpec(
    name="tiny",
    tokenizer="ids",
    vocab_size=24,
    hidden_size=16,
    intermediate_size=32,
    layers=2,
    heads=2,
    context=32,
)
# every completion ends with TRL's end of sequence, which it would append
PAIRS = (
    Pair("3 4", "5 6 7 8 23", "9 10 23"),
    Pair("4 4 4", "5 23", "9 9 9 9 9 9 9 23"),
    Pair("12", "13 14 23", "15 16 17 23"),
    Pair("18 3 5 7", "8 8 8 8 8 23", "20 23"),
)


def word(token: int) -> str:
    return f"t{token:02d}"


def words_tokenizer() -> Any:
    """Ids written as words, none of which is part of another, so that TRL reads the ids that we read."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word(i): i for i in range(24)}, unk_token=word(0)))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=word(23), pad_token=word(0))


def columns(row: Any) -> dict[str, Any]:
    """A row as TRL takes it; a blank ends the prompt, whose last word would else run into the completion."""

    def words(ids: str) -> str:
        return " ".join(word(int(i)) for i in ids.split())

    prompt = words(row.prompt) + " "
    if isinstance(row, Pair):
        return {"prompt": prompt, "chosen": words(row.chosen), "rejected": words(row.rejected)}
    return {"prompt": prompt, "completion": words(row.completion), "label": row.desirable}


def random_pairs(count: int, seed: int = 0) -> tuple[Pair, ...]:
    """Random pairs of several lengths; every completion ends with the end of sequence."""
    rng = np.random.default_rng(seed)

    def ids(low: int, high: int) -> str:
        return " ".join(str(i) for i in rng.integers(1, 23, rng.integers(low, high)))

    return tuple(Pair(ids(1, 6), ids(1, 8) + " 23", ids(1, 8) + " 23") for _ in range(count))


def hub_rows(rows: Sequence[Any]) -> Any:
    """Rows as the data set of a trainer."""
    from datasets import Dataset

    return Dataset.from_list([columns(row) for row in rows])


def saved_model(folder: Path) -> Path:
    """The tiny model, with its tokenizer, as trainers load it."""
    CausalLM.load(SPEC, init_seed=0).model.save_pretrained(folder)
    words_tokenizer().save_pretrained(folder)
    return folder


def quiet_options(folder: Path, **options: Any) -> dict[str, Any]:
    """Options of TRL's configs for a short run on a CPU that computes what the suite does.

    AdamW at a constant rate in single precision, without decay or clipping, rows in their order.
    """
    common = {
        "output_dir": str(folder),
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "max_length": None,
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "train_sampling_strategy": "sequential",
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 4,
        "dataloader_pin_memory": False,
    }
    return {**common, **options}
