"""Low-rank adapters: a frozen model and small trained matrices beside its linear layers (Hu et al. 2022,
LoRA).

A layer W becomes W + (α/r)·B·A with A of shape (r, in) and B of shape (out, r). B starts at 0, so the initial
policy is the model itself. A snapshot holds the adapters alone, and the reference is the same model with the
adapters of the start: there is no second copy of it.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from xpo_bench.errors import UsageError
from xpo_bench.policy.language.lora_targets import choose, known_targets, linear_layers
from xpo_bench.policy.language.pretrained import first_sentence

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def add_adapters(
    model: PreTrainedModel, rank: int, alpha: int, seed: int, targets: Sequence[str] = ()
) -> None:
    """Freeze a model and add adapters to the linear layers that every token passes, in place.

    The global generator is neither read nor advanced.

    Args:
        targets: ends of names of layers, in place of that rule.

    Raises:
        UsageError: peft is not installed, a target is no layer of the model, or there is nothing to adapt.
    """
    try:
        from peft import LoraConfig  # noqa: F401
    except ImportError:
        raise UsageError(
            "--lora needs the package peft; install it with: pip install 'xpo-bench[lora]'"
        ) from None
    chosen, known = choose(model, targets), known_targets(model)
    # layers that the rule leaves out get adapters for a moment: the numbers that are drawn for the others are
    # those that they were when all had some
    drawn = list(chosen.layers) if targets else linear_layers(model)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(seed)
        try:
            if drawn:
                _inject(model, rank, alpha, layers=drawn)
            if chosen.parameters:
                _inject(model, rank, alpha, parameters=chosen.parameters)
        except ValueError as error:
            told = first_sentence(error)
            others = [name for name in known if f"'{name}'" not in str(error)]
            hint = f"; --lora r=R,targets={'+'.join(others[:3])} names layers" if others else ""
            raise UsageError(f"--lora: {told}{hint}") from None
    for name in set(drawn) - set(chosen.layers):
        model.set_submodule(name, model.get_submodule(name).get_base_layer())


def _inject(
    model: PreTrainedModel, rank: int, alpha: int, layers: Sequence[str] = (), parameters: Sequence[str] = ()
) -> None:
    """Adapters on exactly these layers, or on exactly these parameters."""
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=[],
        target_parameters=list(parameters) or None,
        lora_dropout=0.0,
    )
    # by the keys of a state: names of modules are rewritten where peft knows the experts of a model
    keys = {f"{name}.lora_A.weight": torch.empty(0) for name in layers}
    inject_adapter_in_model(config, model, state_dict=keys or None)


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
