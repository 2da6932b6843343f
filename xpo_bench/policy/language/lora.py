"""Low-rank adapters: a frozen model and small trained matrices beside its linear layers (Hu et al. 2022,
LoRA).

A layer W becomes W + (α/r)·B·A with A of shape (r, in) and B of shape (out, r). B starts at 0, so the initial
policy is the model itself. A snapshot holds the adapters alone, and the reference is the same model with the
adapters of the start: there is no second copy of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

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


class AdaptedLayers:
    """The layers of a model that have adapters, which several runs can use at once, each with its own.

    While they are `shared`, a layer computes the product with its frozen W once for the tokens of all runs,
    and adds (α/r)·B_i·A_i·x to those of run i: two batched products. What enters a layer must hold equally
    many tokens of each run, one run behind the other.

    Args:
        model: with adapters of `add_adapters`, whose forward passes are the same as before unless `shared`.

    Raises:
        ValueError: a layer with adapters is no plain linear one.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        from peft.tuners.lora import Linear, LoraLayer

        found = [(name, m) for name, m in model.named_modules() if isinstance(m, LoraLayer)]
        other = {type(m).__name__ for _, m in found if type(m) is not Linear or m.lora_variant}
        if other:
            raise ValueError(f"adapters on {', '.join(sorted(other))}")
        self.layers = [_AdaptedLayer(name, layer) for name, layer in found]

    @property
    def names(self) -> set[str]:
        """Names of the parameters of all adapters."""
        return {name for layer in self.layers for name in layer.names}

    @contextlib.contextmanager
    def shared(self, state: Mapping[str, Tensor]) -> Iterator[None]:
        """Compute with the adapters of several runs for a while.

        Args:
            state: all adapters by the names of their parameters, with a leading runs axis.
        """
        try:
            for layer in self.layers:
                layer.take(state)
            yield
        finally:
            for layer in self.layers:
                layer.pair = None


class _AdaptedLayer:
    """One linear layer, whose forward pass is replaced."""

    def __init__(self, name: str, layer: Any) -> None:
        known = getattr(layer.forward, "__self__", None)
        self.plain: Any = known.plain if isinstance(known, _AdaptedLayer) else layer.forward
        self.base = layer.base_layer
        self.names = tuple(f"{name}.{which}.default.weight" for which in ("lora_A", "lora_B"))
        self.scale: float = layer.scaling["default"]
        self.pair: tuple[Tensor, Tensor] | None = None
        layer.forward = self.forward

    def take(self, state: Mapping[str, Tensor]) -> None:
        down, up = (state[name] for name in self.names)
        self.pair = down.transpose(1, 2), up.transpose(1, 2)  # (runs, in, r) and (runs, r, out)

    def forward(self, x: Tensor, *more: Any, **words: Any) -> Tensor:
        if self.pair is None:
            plain: Tensor = self.plain(x, *more, **words)
            return plain
        down, up = self.pair
        out: Tensor = self.base(x)
        low = torch.bmm(x.reshape(len(down), -1, x.shape[-1]).to(down.dtype), down)
        whole = out.reshape(len(down), -1, out.shape[-1])
        return torch.baddbmm(whole, low, up, alpha=self.scale).view(out.shape).to(out.dtype)
