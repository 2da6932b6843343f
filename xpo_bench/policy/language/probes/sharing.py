"""Whether completions may share their prompt, prompts a row, and the last layer be left out of prompts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xpo_bench.policy.language import flex
from xpo_bench.policy.language.layout import Block, blocks
from xpo_bench.policy.language.network import KERNELS
from xpo_bench.policy.language.probes.trial import Trial, block
from xpo_bench.policy.language.tokenize import Row
from xpo_bench.policy.language.windows import UNBOUNDED


def takes_positions(trial: Trial) -> bool:
    """Whether the model can be told positions, and takes 0, 1, 2, ... where it is not told."""
    network = trial.network
    if "position_ids" not in network.takes:
        return False
    ids = trial.row_ids(trial.rows[0])
    # some models begin at 2, or count padding: sharing restarts positions, which must then mean the same
    positions = torch.arange(ids.shape[1], device=ids.device)[None]
    untold = network.features(input_ids=ids)[0]
    return trial.agrees(
        "positions", lambda: network.features(input_ids=ids, position_ids=positions)[0], untold
    )


def sharing(trial: Trial, packing: bool) -> tuple[int, bool]:
    """The longest row that may share its prompt, 0 where none may, and whether prompts share a row.

    The model's attention is left set to what packs rows where that is right, and to its own otherwise.
    """
    network = trial.network
    within = min(trial.within, network.positions.first)
    own = getattr(network.model.config, "_attn_implementation", None)
    alone, parts = trial.alone(trial.near), _shared(trial.near)
    if packing and own == "sdpa" and network.device.type in KERNELS:
        network.kernel.use(network.model)
        if trial.agrees("packing", lambda: _packed(trial, parts), alone):
            return within, True
        network.model.set_attn_implementation(own)
    shares = trial.agrees("sharing", lambda: trial.features(trial.near, parts), alone)
    return within if shares else 0, False


def trims(trial: Trial, reach: int, packed: bool) -> bool:
    """Whether features at completion positions stay the same when the last layer is computed there alone.

    What is not computed is NaN, so that whatever reads it shows, and each part of the layer must be met
    exactly once.
    """
    if not trial.network.last_layer.weights:
        return False
    separate = [block(row, i) for i, row in enumerate(trial.rows)]
    if not _trimmed(trial, trial.rows, separate, packed=False):
        return False
    return not reach or _trimmed(trial, trial.near, _shared(trial.near), packed=packed)


def _shared(rows: Sequence[Row]) -> list[Block]:
    """All rows with one prompt in one block, whether that pays or not."""
    return blocks(rows, UNBOUNDED, UNBOUNDED)


def _packed(trial: Trial, parts: Sequence[Block]) -> Tensor:
    if trial.network.kernel is flex:  # it is compiled for the backward pass by itself, and may fail there
        with torch.enable_grad():
            trial.network.weights.gradients(trial.features(trial.near, parts, packed=True).sum())
    return trial.features(trial.near, parts, packed=True)


def _trimmed(trial: Trial, rows: Sequence[Row], parts: Sequence[Block], packed: bool) -> bool:
    everywhere = trial.features(rows, parts, packed=packed)

    def there() -> Tensor:
        found = trial.features(rows, parts, packed=packed, trims=True, poison=True)
        once = set(trial.network.last_layer.calls) == {1}
        return found if once else torch.full_like(found, float("nan"))

    return trial.agrees("trimming", there, everywhere)
