"""Which parts of a model get adapters: one rule for all architectures, or names that were asked for.

The rule: every linear layer that each token of a text passes. Experts that a router chooses are left out, and
so are routers, the output head, embeddings, and the towers of a multimodal model, which no text reaches. This
is not `all-linear` of peft: in most architectures experts are fused parameters, where that finds none; where
it knows them by name it takes them with their routers, and leaves out linear layers that have their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xpo_bench.contract.settings import ModelSpec
from xpo_bench.errors import UsageError, unknown
from xpo_bench.policy.language.model_facts import text_body, text_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EXPERTS = "experts"
"""What the module of routed experts is called in all architectures of transformers."""
ROUTING = frozenset({EXPERTS, "router", "gate", "shared_expert_gate"})
"""Parts of a module's name that stand for experts, or for what weighs them."""


@dataclass(frozen=True)
class Chosen:
    """What gets adapters, in the order of the model: linear layers, and fused parameters of experts."""

    layers: tuple[str, ...]
    parameters: tuple[str, ...] = ()


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Names of all linear layers (GPT-2's `Conv1D` is one) but the output head."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        # a grouped layer has a linear layer's class, and is none: its input is cut into groups
        if isinstance(module, torch.nn.Linear | Conv1D)
        and module is not head
        and "Grouped" not in type(module).__name__
    ]


def passed_by_all(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers that each token of a text passes."""
    names = [name for name in linear_layers(model) if not ROUTING & set(name.split("."))]
    if text_config(model.config) is model.config:
        return names
    body = text_body(model)
    within = next((name for name, module in model.named_modules() if module is body), "")
    return [name for name in names if name.startswith(f"{within}.")] if within else names


def expert_parameters(model: PreTrainedModel) -> dict[str, Tensor]:
    """The fused weights of routed experts, shape (experts, ., .), by name."""
    return {n: p for n, p in model.named_parameters() if p.dim() == 3 and n.split(".")[-2:-1] == [EXPERTS]}


def known_targets(model: PreTrainedModel) -> list[str]:
    """What `targets` may name: the last part of a layer's name, and `experts.NAME` of fused parameters."""
    layers = {name.rpartition(".")[2] for name in passed_by_all(model)}
    fused = {".".join(name.split(".")[-2:]) for name in expert_parameters(model)}
    return sorted(layers) + sorted(fused)


def choose(model: PreTrainedModel, targets: Sequence[str]) -> Chosen:
    """The layers of the rule, or those that were asked for by the end of their names.

    Raises:
        UsageError: a name that no layer has, with those that there are, or no layer at all.
    """
    layers, fused = passed_by_all(model), list(expert_parameters(model))
    if not targets:
        if not layers:
            raise UsageError("--lora: the model has no linear layer that every token passes")
        return Chosen(tuple(layers))
    for target in targets:
        if not any(_is(target, name) for name in layers) and not any(_is_fused(target, p) for p in fused):
            raise UsageError(f"--lora targets: {unknown('layer', target, known_targets(model))}")
    return Chosen(
        tuple(name for name in layers if any(_is(target, name) for target in targets)),
        tuple(p for p in fused if any(_is_fused(target, p) for target in targets)),
    )


def _is(target: str, layer: str) -> bool:
    """Whether a layer is the one, or ends with it behind a dot."""
    return layer == target or layer.endswith(f".{target}")


def _is_fused(target: str, parameter: str) -> bool:
    """Of experts, which have names of layers: only where `experts` is said."""
    return EXPERTS in target.split(".") and _is(target, parameter)


# --------------------------------------------------------------------------- what it comes to


def adapter_facts(model: PreTrainedModel, spec: ModelSpec) -> dict[str, object]:
    """What the record says of adapters."""
    asked = {"lora_targets": list(spec.lora_targets)} if spec.lora_targets else {}
    return {"lora_rank": spec.lora_rank, "lora_alpha": spec.lora_alpha, **asked, **reach(model)}


def adapted(model: PreTrainedModel) -> dict[str, int]:
    """Of a model with adapters: the name of what has some -> how many of the model's weights that is."""
    from peft.tuners.lora import LoraLayer

    sizes: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            fused = getattr(module, "parameter_name", None)
            key = f"{EXPERTS}.{fused}" if fused else name.rpartition(".")[2]
            weight = getattr(module.get_base_layer(), fused or "weight")
            sizes[key] = sizes.get(key, 0) + weight.numel()
    return sizes


def reach(model: PreTrainedModel) -> dict[str, object]:
    """Of a model with adapters, for its record: names of what has some, and its share of the weights."""
    sizes = adapted(model)
    total = sum(p.numel() for name, p in model.named_parameters() if ".lora_" not in name)
    return {"lora_modules": sorted(sizes), "lora_share": round(sum(sizes.values()) / total, 4)}


def shares(model: PreTrainedModel) -> dict[str, float]:
    """The model's weights by what adapters are on by default, and what is left out, as fractions of all."""
    adapted = {f"{name}.weight" for name in passed_by_all(model)}
    embeddings = {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings()) if m}
    found = dict.fromkeys(("adapted", "experts", "embeddings and head", "other"), 0)
    total = 0
    for name, p in model.named_parameters():
        total += p.numel()
        kind = (
            "adapted" if name in adapted
            else "embeddings and head" if id(p) in embeddings
            else "experts" if EXPERTS in name.split(".")
            else "other"
        )  # fmt: skip
        found[kind] += p.numel()
    return {kind: n / total for kind, n in found.items()}
