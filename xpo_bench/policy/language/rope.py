"""Position encodings that depend on the longest row of a forward pass.

LongRoPE takes one set of frequencies up to the length that the model was first trained on and another one
beyond, for the whole batch; dynamic NTK scaling takes frequencies of its own for every length beyond, and
keeps them for shorter ones that follow. What a row scores must not depend on what else is scored, so that
rows are computed with rows of their own regime alone.

Source: Ding et al. 2024, LongRoPE (arXiv:2402.13753), section 4.3; for dynamic scaling, transformers'
`modeling_rope_utils`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

FOREVER = 2**31


@dataclass(frozen=True)
class LengthDependence:
    """Where a model's position encoding changes with the length of a row.

    Args:
        longrope: the lengths beyond which other frequencies are taken. dynamic: those beyond which each
            length has its own.
        modules: modules that remember the longest row they have seen.
    """

    longrope: tuple[int, ...] = ()
    dynamic: tuple[int, ...] = ()
    modules: tuple[torch.nn.Module, ...] = ()

    @classmethod
    def of(cls, model: PreTrainedModel) -> LengthDependence:
        """What a Hugging Face model says of it, in its configuration."""
        found: dict[str, set[int]] = {"longrope": set(), "dynamic": set()}
        for config, rope in _ropes(model.config):
            kind = str(rope.get("rope_type", rope.get("type", "")))
            longest = getattr(config, "max_position_embeddings", None)
            own = getattr(config, "original_max_position_embeddings", None)
            first = rope.get("original_max_position_embeddings") or own or longest
            if kind == "longrope" and isinstance(first, int | float):
                found["longrope"].add(int(first))
            elif "dynamic" in kind and longest:
                found["dynamic"].add(int(longest))
        modules = (
            tuple(m for m in model.modules() if hasattr(m, "max_seq_len_cached")) if found["dynamic"] else ()
        )
        return cls(tuple(sorted(found["longrope"])), tuple(sorted(found["dynamic"])), modules)

    @property
    def first(self) -> int:
        """The longest row whose positions are encoded as those of the shortest."""
        return min((*self.longrope, *self.dynamic), default=FOREVER)

    def regime(self, length: int) -> int:
        """Rows of one regime may stand in one forward pass; 0 for rows of up to `first` tokens."""
        # dynamic NTK: base·(s·L/L₀ − s + 1)^(d/(d−2)) for every length L beyond L₀, so each is its own
        if self.dynamic and length > self.dynamic[0]:
            return length
        # LongRoPE: one set of factors up to each limit, another beyond it
        return -sum(length > limit for limit in self.longrope)

    def changes(self, start: int, end: int) -> bool:
        """Whether a row that grows from `start` tokens to `end` passes a length at which its encoding
        changes.
        """
        return start < end and self.regime(start) != self.regime(end)

    def forget(self) -> None:
        """Before a forward pass: what an earlier and longer row has left behind.

        A module keeps the frequencies of the longest row so far, by which it would turn shorter rows too.
        """
        for module in self.modules:
            for name in [n for n in (*module._buffers, *vars(module)) if n.endswith("original_inv_freq")]:
                original, prefix = getattr(module, name), name.removesuffix("original_inv_freq")
                current = getattr(module, f"{prefix}inv_freq")
                module.register_buffer(
                    f"{prefix}inv_freq", original.to(current.device).clone(), persistent=False
                )
                if hasattr(module, f"{prefix}max_seq_len_cached"):
                    setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)


def _ropes(config: PretrainedConfig) -> Iterator[tuple[PretrainedConfig, Mapping[str, object]]]:
    """Every statement about rotary embeddings in a configuration and those inside it, with its place."""
    for value in list(vars(config).values()):
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            yield from _ropes(value)
    for name in ("rope_parameters", "rope_scaling"):
        stated = getattr(config, name, None)
        if isinstance(stated, Mapping):
            yield config, stated
            yield from ((config, inner) for inner in stated.values() if isinstance(inner, Mapping))
