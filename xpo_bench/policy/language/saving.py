"""A language model written as others read it: `save_pretrained`, with adapters merged into its weights."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xpo_bench.checkpoints import ORIGIN
from xpo_bench.policy.language.pretrained import quiet
from xpo_bench.policy.language.sharding import full
from xpo_bench.policy.language.tokenizers import ModelTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from xpo_bench.policy.language.causal_lm import CausalLM


def save(policy: CausalLM, folder: Path, origin: Mapping[str, object], *, writes: bool = True) -> None:
    """Write a policy as it stands: weights, tokenizer, and `origin` with how it reads text; whole or not at
    all.

    Args:
        folder: replaced where it is there. writes: whether this process does; those that share the layers all
            call.
    """
    state = {name: full(values).detach().cpu().contiguous() for name, values in merged(policy.model).items()}
    if not writes:
        return
    with _replaced(folder) as place, quiet():
        model = policy.model
        cached, model.config.use_cache = model.config.use_cache, True  # which scoring has turned off
        try:
            model.save_pretrained(place, state_dict=state)
        finally:
            model.config.use_cache = cached
        tokenizer = policy.tokenizer
        if isinstance(tokenizer, ModelTokenizer):
            tokenizer.inner.save_pretrained(place)
        told = {**origin, "tokenizer": tokenizer.name, "eos": policy.spec.eos}
        (place / ORIGIN).write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@torch.no_grad()
def merged(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights of a model by the names that it has without adapters: W + (α/r)·B·A in the place of W."""
    found = dict(model.state_dict())
    for name, module in model.named_modules():
        delta = getattr(module, "get_delta_weight", None)
        if delta is None:
            continue
        found[f"{name}.weight"] = found.pop(f"{name}.base_layer.weight") + delta("default")
        if (bias := found.pop(f"{name}.base_layer.bias", None)) is not None:
            found[f"{name}.bias"] = bias
        for key in [key for key in found if key.startswith(f"{name}.lora_")]:
            del found[key]
    return found


@contextlib.contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A directory to write to, which takes the place of another once it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
