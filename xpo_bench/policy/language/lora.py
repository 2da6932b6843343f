"""Low-rank adapters: a frozen model and small trained matrices beside its linear layers (Hu et al. 2022,
LoRA).

A layer W becomes W + (α/r)·B·A with A of shape (r, in) and B of shape (out, r). B starts at 0, so the initial
policy is the model itself. A snapshot holds the adapters alone, and the reference is the same model with the
adapters of the start: there is no second copy of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from xpo_bench.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def add_adapters(model: PreTrainedModel, rank: int, alpha: int, seed: int) -> None:
    """Freeze a model and add adapters to all its linear layers but the output head, in place.

    The global generator is neither read nor advanced.

    Raises:
        UsageError: peft is not installed, or finds no layer that it can adapt.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UsageError(
            "--lora needs the package peft; install it with: pip install 'xpo-bench[lora]'"
        ) from None
    # "all-linear" leaves the head out
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", lora_dropout=0.0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            inject_adapter_in_model(config, model)
        except ValueError as error:
            raise UsageError(f"--lora: {error}") from None
