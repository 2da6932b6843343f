"""What can be computed together for the model at hand, found out by computing it.

Every shortcut of the suite (the head alone, prompts that are shared, rows that are packed, a last layer at
some positions, padding, a cache) is right for some architectures and wrong for others. Each is tried on short
rows against the plain way: each row alone, without padding, mask or cache. What differs by more than rounding
is not used, and the record says so.

The rows are longer than every window that the configuration states, as far as `trial.LONGEST` allows. Beyond
that a window is believed.
"""

from __future__ import annotations

import torch

from xpo_bench.policy.language import flex
from xpo_bench.policy.language.model_facts import stated, text_config
from xpo_bench.policy.language.network import Network
from xpo_bench.policy.language.probes.capabilities import Capabilities
from xpo_bench.policy.language.probes.head import Head, require_runs
from xpo_bench.policy.language.probes.padding import alone_beyond, unseen
from xpo_bench.policy.language.probes.sampling import way_of_sampling
from xpo_bench.policy.language.probes.sharing import sharing, takes_positions, trims
from xpo_bench.policy.language.probes.trial import Trial
from xpo_bench.policy.language.windows import UNBOUNDED


def probe(network: Network, head: Head, *, context: int, packing: bool, name: str) -> Capabilities:
    """Try every shortcut on a model.

    Args:
        head: what `probe_head` found. context: the model's longest row in tokens. packing: let prompts share
            a row where it can. name: what errors call it.

    Raises:
        UsageError: it cannot be run on ids alone, or is not causal.
    """
    trial = Trial.of(network, context, name)
    with network.exactly(), torch.no_grad():
        require_runs(trial)
        beyond, trial = alone_beyond(trial)
        told = takes_positions(trial)
        reach, packed = sharing(trial, packing) if told else (0, False)
        beyond = unseen(trial, beyond)
        trimmed = trims(trial, reach, packed)
        way, shrinks = way_of_sampling(trial, told)
    failed = dict(trial.failed) | ({"head": head.raised} if head.raised else {})
    return Capabilities(
        takes_positions=told,
        reach=reach,
        packed=packed,
        alone_beyond=beyond,
        trims=trimmed,
        sampling=way,
        shrinks=shrinks,
        notes={
            **({"probes": failed} if failed else {}),
            **_rows(network, trial, reach, packed, beyond),
            **({"last_layer": "completions"} if trimmed else {}),
            "sampling": way or "none",
            **_router(network),
        },
    )


def _rows(network: Network, trial: Trial, reach: int, packed: bool, beyond: int) -> dict[str, object]:
    """How rows are put together, for the record."""
    notes: dict[str, object] = {
        "head": "selected" if network.selected else "full",
        "prefix": "shared" if reach else "separate",
        "rows": "packed" if packed else "padded" if beyond else "one by one",
    }
    if 0 < beyond < UNBOUNDED:
        notes["one_by_one_beyond"] = beyond
    if network.kernel is flex and (packed or trial.raised("packing")):
        notes["attention"] = "flex" if packed else f"no flex ({trial.raised('packing')})"
    return notes


def _router(network: Network) -> dict[str, object]:
    """Experts are trained without the auxiliary loss that balances them; the record says so."""
    config = text_config(network.model.config)
    names = ("num_experts", "n_routed_experts", "num_local_experts")
    counts = (stated(config, name) for name in vars(config) if name.endswith(names))
    several = any(isinstance(count, list) or (count or 0) > 1 for count in counts)
    return {"router": "auxiliary loss not added"} if several else {}
