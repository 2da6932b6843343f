"""Small tokenizers of the kinds that models have, and small random models for them; none is downloaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

Prefix = Literal["legacy", "always", "first", "never"]

WORDS = (
    "No, nobody. The cat sat on the mat, and the dog was happy because the sun was out. Yes, "
    "no, maybe; what is that? "
    "She said: 'I am not sure.' He asked the user and the assistant for a system. 1 2 3 4 5 6 7 8 9 0 + - = "
    "A big red bed and a small blue car stood in the old house near the river. def f(x): return x + 1\n\n"
    "Knowledge cutoff today date: 26 Jul 2024. think tools function name arguments city weather Paris Rome.\n"
)
CORPUS = [line for line in WORDS.splitlines() if line] * 4 + WORDS.lower().split(". ")


@cache
def _bytes_json(size: int, prefix_space: bool) -> str:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=alphabet)
    )
    return str(made.to_str())


def byte_level(*, size: int = 400, prefix_space: bool = False) -> Tokenizer:
    """Byte-level BPE, as GPT-2, Llama 3 and Qwen have it."""
    return Tokenizer.from_str(_bytes_json(size, prefix_space))


@cache
def _pieces_json(prefix: Prefix, kind: str) -> str:
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    special = ["<unk>", "<s>", "</s>", *fallback]
    made = Tokenizer(
        models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
        if kind == "bpe"
        else models.Unigram()
    )
    made.normalizer = normalizers.Replace(" ", "▁")
    lines = [line.replace(" ", "▁") for line in CORPUS]
    if kind == "bpe":
        made.train_from_iterator(
            lines, trainers.BpeTrainer(vocab_size=520, special_tokens=special, show_progress=False)
        )
    else:
        made.train_from_iterator(
            lines,
            trainers.UnigramTrainer(
                vocab_size=420, special_tokens=special, unk_token="<unk>", show_progress=False
            ),
        )
        told = json.loads(made.to_str())
        made = Tokenizer.from_str(json.dumps(told | {"model": told["model"] | {"byte_fallback": True}}))
    if prefix == "legacy":  # a "▁" before every stretch between special tokens
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        made.normalizer = None
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix, split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    return str(made.to_str())


def pieces(prefix: Prefix = "legacy", *, kind: str = "bpe") -> Tokenizer:
    """Like SentencePiece: "▁" for spaces and, by `prefix`, before texts; bytes for unknown characters."""
    return Tokenizer.from_str(_pieces_json(prefix, kind))


@cache
def _words_json() -> str:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    made.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    )
    return str(made.to_str())


def word_pieces() -> Tokenizer:
    """WordPiece behind BERT's normalizer."""
    return Tokenizer.from_str(_words_json())


def wrapped(made: Tokenizer, single: str, names: Sequence[str]) -> Tokenizer:
    """A tokenizer that puts special tokens around a text, such as `"<s> $A"`."""
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    ids = [(name, made.token_to_id(name)) for name in names]
    made.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    return made


def fast(
    made: Tokenizer,
    template: str | dict[str, str] | None = None,
    *,
    special: Sequence[str] = (),
    plain: Sequence[str] = (),
    bos: str | None = None,
    eos: str | None = None,
    **settings: Any,
) -> Any:
    """What transformers makes of a tokenizer.

    Args:
        special: added tokens that are special. plain: added tokens that are not, such as `<think>`.
    """
    from transformers import PreTrainedTokenizerFast

    names = list(dict.fromkeys([*special, *(name for name in (bos, eos) if name)]))
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    made.add_tokens([AddedToken(name, special=False, normalized=False) for name in plain])
    told = {name: value for name, value in (("bos_token", bos), ("eos_token", eos)) if value}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **told, **settings)
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def saved(
    folder: Path, tokenizer: Any, *, ends: int | list[int] | None = None, context: int = 512, vocab: int = 0
) -> str:
    """A small random Llama with this tokenizer, saved as a checkpoint; its path.

    Args:
        ends: `eos_token_id` of its generation settings; the tokenizer's by default. vocab: ids of the model,
            the tokenizer's by default.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab or len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=context,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id if ends is None else ends,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@lru_cache(maxsize=1)
def _eager(folder: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager"
    ).eval()


@torch.no_grad()
def logp(folder: str, ids: Sequence[int], places: Sequence[int]) -> float:
    """Summed log-probability of the ids at `places`, nats: one row through plain transformers in float64."""
    logits = _eager(folder)(torch.tensor([list(ids)])).logits[0].log_softmax(-1)
    return float(sum(logits[k - 1, ids[k]] for k in places))
