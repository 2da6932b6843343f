"""The last layer of a model, computed only where a completion token is predicted.

Behind the keys and values of the last layer nothing at a prompt position is read: no later layer sees it, and
no output head. The output projection of its attention and its MLP, which compute each position by itself, are
given the positions that predict; what they return is zero elsewhere.

With n tokens of which k predict, the layer's matrices but those of queries, keys and values cost k/n of what
they would. The residual stream carries h = x + o(attention) + mlp, so zeros leave it at x where nobody reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.hooks import RemovableHandle

MLPS = ("mlp", "feed_forward", "ffn")
ATTENTIONS = ("self_attn", "attn", "attention", "self_attention")
PROJECTIONS = ("o_proj", "c_proj", "out_proj", "dense")
"""What Hugging Face models call a layer's MLP, its attention, and the projection of what that gives."""


class LastLayer:
    """What is computed position by position in the last layer of a model, restricted where that is asked for.

    Args:
        body: a model without its head; a list of layers is looked for in it.

    Attributes:
        weights: how many numbers are in the matrices of what can be restricted; 0 where nothing was found.
        at: where it is computed while it is restricted. blank: what stands elsewhere.
    """

    def __init__(self, body: Module) -> None:
        self.at = torch.empty(0, dtype=torch.long)
        self.blank = 0.0
        self.parts = [_Restricted(self, part) for part in _parts(body)]
        self.weights: int = sum(
            p.numel() for part in self.parts for p in part.module.parameters() if p.dim() > 1
        )

    @property
    def calls(self) -> list[int]:
        """How often each part was called since the restriction began."""
        return [part.calls for part in self.parts]

    @contextmanager
    def only(self, at: Tensor, *, poison: bool = False) -> Iterator[None]:
        """Compute it at these positions of the flattened batch alone, each named once.

        Args:
            poison: leave NaN elsewhere, which spoils everything that reads there.
        """
        self.at, self.blank = at, float("nan") if poison else 0.0
        # hooks slow every call down: there are none where nothing is restricted
        handles = [handle for part in self.parts for handle in part.hooks()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class _Restricted:
    """A module that computes each position by itself, through hooks before and behind it."""

    def __init__(self, owner: LastLayer, module: Module) -> None:
        self.owner, self.module, self.calls = owner, module, 0

    def hooks(self) -> Iterator[RemovableHandle]:
        """Restrict it until they are removed."""
        self.calls = 0
        yield self.module.register_forward_pre_hook(self._gather)
        yield self.module.register_forward_hook(self._scatter)

    def _gather(self, module: Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (features,) = inputs
        self.calls += 1
        self._batch = features.shape[:2]
        # (B, L, width) to the positions that predict, as one row: (1, K, width)
        return (features.flatten(0, 1).index_select(0, self.owner.at)[None],)

    def _scatter(self, module: Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        # and back to their places, so that the residual connection around the module fits
        flat = output.new_full((self._batch.numel(), output.shape[-1]), self.owner.blank)
        return flat.index_copy(0, self.owner.at, output[0]).view(*self._batch, -1)


def _parts(body: Module) -> list[Module]:
    """The MLP of the last layer and the output projection of its attention, where they go by a known name."""
    stacks = [module for module in body.modules() if isinstance(module, torch.nn.ModuleList) and len(module)]
    if not stacks:
        return []
    # the longest list of modules is that of the layers; shorter ones hold experts
    layer = max(stacks, key=len)[-1]
    attention = _child(layer, ATTENTIONS)
    return [part for part in (_child(layer, MLPS), _child(attention, PROJECTIONS)) if part is not None]


def _child(module: Module | None, names: tuple[str, ...]) -> Module | None:
    return next((getattr(module, name) for name in names if hasattr(module, name)), None)
