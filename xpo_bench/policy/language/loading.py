"""The model and the tokenizer that a specification names, before a policy is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xpo_bench.contract.settings import ModelSpec
from xpo_bench.errors import UsageError
from xpo_bench.policy.language.lora import add_adapters
from xpo_bench.policy.language.pretrained import load_pretrained
from xpo_bench.policy.language.tiny import tiny_model, tiny_tokenizer
from xpo_bench.policy.language.tokenizers import Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_model(spec: ModelSpec, init_seed: int) -> tuple[PreTrainedModel, Tokenizer]:
    """Build `tiny`, or load a packaged model, a hub id or a local path; with adapters where they are asked
    for.

    Args:
        init_seed: seed of random weights, also those of adapters; without effect on pretrained ones.

    Raises:
        UnreachableError: a hub id that cannot be had from here.
        UsageError: anything else that is not a causal language model.
    """
    if spec.name == "tiny":
        model, tokenizer = tiny_model(spec, init_seed), tiny_tokenizer(spec)
    else:
        model, tokenizer = load_pretrained(spec)
    if spec.lora_rank:
        add_adapters(model, spec.lora_rank, spec.lora_alpha, init_seed, spec.lora_targets)
    return model, tokenizer


def recompute_layers(model: PreTrainedModel, name: str) -> None:
    """Let a model keep no activations inside its layers; the backward pass computes them again.

    Args:
        name: what errors call it.

    Raises:
        UsageError: a model whose layers cannot.
    """
    newer = hasattr(model, "activation_checkpointing_enable")
    kind = "activation" if newer else "gradient"
    try:
        getattr(model, f"{kind}_checkpointing_enable")(
            **{f"{kind}_checkpointing_kwargs": {"use_reentrant": False}}
        )
    except (ValueError, AttributeError):
        raise UsageError(
            f"model {name!r} has no gradient checkpointing; leave out task.checkpointing"
        ) from None
    # layers recompute in training mode alone; `module.train()` would turn dropout on further inside too
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True
