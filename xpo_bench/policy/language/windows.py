"""How far the tokens of a row see: every way in which a configuration states a window, a chunk or a budget of
attention.

A row that is no longer than all of them is computed as if there were none, and only such rows share prompts
or are packed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from xpo_bench.policy.language.model_facts import text_config

if TYPE_CHECKING:
    from transformers import PretrainedConfig

UNBOUNDED = 2**31

STATED = re.compile(
    r"(^|_)(window|windows|window_size|window_len|window_length|window_sizes|context_window"
    r"|chunk_size|chunk_len|chunk_length|local_attention|local_blocks|block_size|local_radius"
    r"|index_topk|indexer_budget|index_kpool|sparse_topk)$"
    r"|sliding_windows?(_size)?$|compress(ion)?_(rate|ratio)s?(_|$)|local_window"
)
"""Names under which configurations state how many tokens attention sees, or compresses into one."""

OTHER = re.compile(r"^(vision|audio|image|video|mamba|ssm|conv)_")
"""Names that are about something else."""


def windows(config: PretrainedConfig) -> list[int]:
    """Every window, chunk and budget that a configuration states for text, in tokens, smallest first."""
    text = text_config(config)
    parts = [text]
    if (layers := getattr(text, "per_layer_config", None)) is not None:
        parts += [layers[i] for i in range(int(getattr(text, "num_hidden_layers", 0) or 0))]
    return sorted({value for part in parts for value in _stated(vars(part))})


def budgets(config: PretrainedConfig) -> list[int]:
    """Lengths from which a row may be computed otherwise: windows, and how many tokens so many blocks of so
    many are.
    """
    # a configuration may state how many blocks of how many tokens are read: their product is a length too
    found = windows(config)
    return sorted({*found, *(one * other for one in found for other in found if one != other)})


def reach(config: PretrainedConfig) -> int:
    """The longest row whose every token sees all before it: a model with windows or chunks of attention ends
    earlier.
    """
    return min(windows(config), default=UNBOUNDED)


def _stated(fields: Mapping[str, object]) -> Iterator[int]:
    for name, value in fields.items():
        if OTHER.search(name):
            continue
        if STATED.search(name):
            yield from _numbers(value)
        elif isinstance(value, Mapping) and not name.startswith(("id2label", "label2id")):
            yield from _stated({str(key): inner for key, inner in value.items()})


def _numbers(value: object) -> Iterator[int]:
    """Whole numbers above 0 in a value, a list of them per layer, or a mapping by kind of layer."""
    if isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _numbers(inner)
    elif isinstance(value, int) and not isinstance(value, bool) and value > 0:
        yield value
