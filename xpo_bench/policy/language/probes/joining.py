"""Whether adapters of several runs can go through the model at hand together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from xpo_bench.policy.language.adapters import Adapters
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.lora_targets import EXPERTS, adapted
from xpo_bench.policy.language.passes import LONG
from xpo_bench.policy.language.probes.trial import ROUNDING, close, plain_ids, rows_of
from xpo_bench.policy.language.tokenize import Encoded, Row

ON_EXPERTS = "adapters on experts"
"""Why adapters on fused parameters of experts are neither joined nor mapped: peft changes such a parameter in
place while a forward pass lasts."""
SHORT = 24
"""Tokens of the longest row of what is tried first; rows of twice `LONG` come next, which are packed."""


def joins_adapters(single: CausalLM) -> str | None:
    """Compute two runs together and each by itself; None where they agree, else why they cannot be joined.

    They do not where a layer takes its tokens in another order or number, as experts do, or is no plain
    linear one. Where activations are computed twice, the second time is after the runs have gone.
    """
    if "checkpointing" in single.notes:
        return "checkpointing"
    if any(str(name).startswith(f"{EXPERTS}.") for name in adapted(single.model)):
        return ON_EXPERTS
    try:
        with torch.no_grad(), single.network.exactly(), single.tally.paused():
            agree = all(_agrees(single, rows) for rows in _tried(single))
    except Exception as error:  # whatever a layer raises that meets another number of tokens
        return type(error).__name__
    return None if agree else "differs"


def _tried(single: CausalLM) -> Iterator[Sequence[Row]]:
    ids = plain_ids(single.model, 2 * LONG + 64)
    for longest in (SHORT, 2 * LONG):
        if longest <= min(single.context, single.scorer.alone_beyond):
            yield rows_of(ids, longest)


def _agrees(single: CausalLM, rows: Sequence[Row]) -> bool:
    rng = torch.Generator().manual_seed(0)
    start = single.snapshot()
    states = [{name: _moved(p, rng) for name, p in start.items()} for _ in range(2)]
    mine = [_encoded(rows), _encoded(rows[:2])]  # runs with more rows and with fewer
    together = Adapters(single, states).score_all(mine).token_logps
    for run, encoded, state in zip(together, mine, states, strict=True):
        with single.using(state):
            (alone,) = single.score_all(encoded).token_logps
        # what the adapters change is small beside the numbers themselves: differences are a part of it
        (frozen,) = single.score_all(encoded).token_logps
        found = run[: alone.shape[0], : alone.shape[1]]
        if not close(found - frozen, alone - frozen, 100 * ROUNDING):
            return False
    return True


def _moved(p: Tensor, rng: torch.Generator) -> Tensor:
    return p + 0.05 * torch.randn(p.shape, generator=rng).to(p)


def _encoded(rows: Sequence[Row]) -> Encoded:
    return Encoded(tuple(rows), torch.arange(len(rows)))
