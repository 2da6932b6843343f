"""Pairs per second, interleaved, after a check that all contenders do the same work."""

from __future__ import annotations

import gc
import math
import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch

from benchmarks.peers.cases import Case, require
from benchmarks.peers.contenders import BATCH, Dtype, bare, batches_of, job_of, ours, peer, peer_trainer
from xpo_bench.contract.examples import Completion, Pair
from xpo_bench.policy.language.pretrained import quiet

PEERS = ("trl", "trl-precomputed")
WARM_UP = 2
"""First steps of a measurement, which are not timed."""

CHECK_STEPS, CHECK_LR = 4, 1e-4
TOLERANCES = {"float32": (1e-5, 1e-3), "bfloat16": (5e-3, 0.05)}
"""Relative and absolute, in nats; TRL takes log-probabilities of bfloat16 logits."""


def compare(case: Case, first: Sequence[Pair]) -> dict[str, float]:
    """Compare log-probabilities and losses with TRL's on one batch.

    Returns:
        The largest differences, in nats, and the loss after the last but one of the large steps.
    """
    items = [Completion(pair.prompt, text) for pair in first for text in (pair.chosen, pair.rejected)]
    case.policy.restore(case.initial)
    found = case.policy.score_all(case.policy.encode(items)).sum.reshape(-1, 2)
    mine: list[float] = []
    relative, absolute = TOLERANCES[case.policy.dtype]
    ours(case, job_of(first, CHECK_STEPS, 0, CHECK_LR, cast(Dtype, case.policy.dtype)), mine)
    theirs: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = peer_trainer(case, [first] * CHECK_STEPS, folder, precomputed=True, lr=CHECK_LR)
        table = trainer.train_dataset[:BATCH]
        known = torch.tensor([table["ref_chosen_logps"], table["ref_rejected_logps"]]).T
        compute = trainer.compute_loss

        def noted(*args: Any, **more: Any) -> Any:
            loss = compute(*args, **more)
            theirs.append(float(loss))
            return loss

        trainer.compute_loss = noted
        trainer.train()
    logps = float((found - known).abs().max())
    require(
        torch.allclose(found, known, rtol=relative, atol=absolute),
        f"{case.name}: log-probabilities differ by {logps:g}",
    )
    require(len(mine) == len(theirs) == CHECK_STEPS, f"{case.name}: {len(mine)} and {len(theirs)} losses")
    losses = max(abs(a - b) for a, b in zip(mine, theirs, strict=True))
    require(losses < absolute, f"{case.name}: losses differ by {losses:g}: {mine} and {theirs}")
    require(
        abs(mine[-1] - math.log(2)) > 0.01,
        f"{case.name}: the loss stays at ln 2, which compares nothing",
    )
    return {"logps_difference": logps, "loss_difference": losses, "loss": mine[-1]}


def measure(case: Case, rounds: int, steps: int, note: Callable[[str], None]) -> dict[str, Any]:
    """Medians and extremes over the rounds, for every contender of a case."""
    taken = steps + WARM_UP
    rates: dict[str, list[float]] = {name: [] for name in ("ours", *PEERS, "bare")}
    lengths: list[tuple[int, int, int]] = []
    checked: dict[str, float] = {}
    for number in range(rounds):
        rng = random.Random(f"{case.name} {number}")
        job = job_of(
            rng.sample(case.pairs, taken * BATCH), taken, number, dtype=cast(Dtype, case.policy.dtype)
        )
        batches = batches_of(case, job)
        if not number:
            note(f"{case.name}: comparing with TRL")
            with quiet():
                checked = compare(case, batches[0])
        for pair in (pair for batch in batches for pair in batch):
            chosen, rejected = case.rows(pair)
            lengths.append((chosen.start, chosen.length, rejected.length))
        contenders: dict[str, Callable[[], list[float]]] = {
            "ours": partial(ours, case, job),
            "trl": partial(peer, case, batches, precomputed=False),
            "trl-precomputed": partial(peer, case, batches, precomputed=True),
            "bare": partial(bare, case, batches),
        }
        for name in rng.sample(list(contenders), len(contenders)):
            note(f"{case.name}, round {number + 1} of {rounds}: {name}")
            gc.collect()
            with quiet():
                seconds = contenders[name]()
            require(len(seconds) == taken, f"{case.name}: {name} takes {len(seconds)} steps")
            require(
                torch.get_num_threads() == 1,
                f"{case.name}: {name} computes on {torch.get_num_threads()} threads",
            )
            rates[name].append(steps * BATCH / sum(seconds[WARM_UP:]))
    return {
        "case": case.name,
        "dtype": case.policy.dtype,
        "parameters": sum(p.numel() for p in case.fresh.parameters()),
        "pairs_per_step": BATCH,
        "steps": steps,
        "rounds": rounds,
        "prefix": case.policy.notes["prefix"],
        "tokens": dict(
            zip(
                ("prompt", "chosen", "rejected"),
                map(statistics.mean, zip(*lengths, strict=True)),
                strict=True,
            )
        ),
        "left_out": case.left_out,
        "compared": checked,
        "pairs_per_s": {name: spread(values) for name, values in rates.items()},
        "ours_over": {name: spread(quotients(rates["ours"], rates[name])) for name in PEERS},
        "step_over_bare": spread(quotients(rates["bare"], rates["ours"])),
    }


def quotients(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """One quotient a round."""
    return [a / b for a, b in zip(over, under, strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
