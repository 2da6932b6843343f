"""Steps of one model: against other loops, packed against padded, and what memory they take."""

from __future__ import annotations

import copy
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import torch

from benchmarks.gpu.loops import DTYPE, WARM_UP, Steps, synchronise, trl_loop, two_forward_loop
from benchmarks.gpu.sizes import Place
from benchmarks.peers.cases import Case
from benchmarks.peers.contenders import batches_of, job_of
from xpo_bench import ModelSpec, Pair
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.loading import load_model
from xpo_bench.train.job import Job
from xpo_bench.train.memory import is_out_of_memory
from xpo_bench.train.reference_scores import ReferenceScorer
from xpo_bench.train.trainer import GroupTrainer


def speed(place: Place) -> None:
    """Pairs per second and MFU of DPO steps, the contenders in turn; ours have their reference beforehand.

    MFU is the model's operations without padding (forward, backward, and the reference's forward where a step
    makes it) by seconds, by what a matrix product reaches here.
    """
    sizes, device = place.sizes, place.device
    peak = product_rate(device, sizes.square)
    place.note(case="matrix product", contender=f"{sizes.square}³, {DTYPE}", tflops=peak / 1e12)
    for size, (spec, batch) in sizes.models.items():
        case, job = _case(spec, batch, sizes.pairs(batch * (sizes.steps + WARM_UP)), device, peers=True)
        batches = batches_of(case, job)
        contenders: dict[str, Callable[[], Steps]] = {
            "ours": partial(ours, case, job),
            "two forward passes": partial(two_forward_loop, case, batches),
        }
        if find_spec("trl"):
            contenders["trl"] = partial(trl_loop, case, batches)
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(sizes.rounds):
            for name, contender in contenders.items():
                found = _tried(contender)
                if isinstance(found, str):
                    place.note(case=size, contender=name, round=number + 1, failed=found)
                    continue
                rates[name].append(found.pairs_per_s(batch))
                place.note(
                    case=size,
                    contender=name,
                    round=number + 1,
                    parameters=case.policy.network.weights.size,
                    pairs_per_step=batch,
                    pairs_per_s=rates[name][-1],
                    ms_per_step=found.median_s * 1e3,
                    mfu=found.operations / found.median_s / peak,
                    loss=found.loss,
                    rows=case.policy.notes["rows"] if name == "ours" else "padded",
                )
        medians = {name: statistics.median(values) for name, values in rates.items() if values}
        for name in medians.keys() - {"ours"} if "ours" in medians else ():
            place.note(case=size, contender=f"ours over {name}", ratio=medians["ours"] / medians[name])
        del case, contenders
        release()


def packed(place: Place) -> None:
    """The same steps with rows packed and padded, in turn."""
    sizes, device = place.sizes, place.device
    size, (spec, batch) = next(iter(sizes.models.items()))
    pairs = sizes.pairs(batch * (sizes.steps + WARM_UP))
    rates: dict[bool, list[float]] = {True: [], False: []}
    cases = {packing: _case(spec, batch, pairs, device, packing=packing) for packing in rates}
    for _ in range(sizes.rounds):
        for packing, (case, job) in cases.items():
            found = ours(case, job)
            rates[packing].append(found.pairs_per_s(batch))
            place.note(
                case=size,
                asked="packed" if packing else "padded",
                rows=case.policy.notes["rows"],
                attention=case.policy.notes.get("attention"),
                pairs_per_s=rates[packing][-1],
                ms_per_step=found.median_s * 1e3,
                peak_mb=found.peak_mb,
                loss=found.loss,
            )
    place.note(
        case="packed over padded", ratio=statistics.median(rates[True]) / statistics.median(rates[False])
    )


def memory(place: Place) -> None:
    """Peak memory of steps with all weights, with activations computed again, and with adapters."""
    sizes = place.sizes
    for size, (spec, batch) in sizes.models.items():
        pairs = sizes.pairs(batch * WARM_UP)

        def note(case: Case, job: Job, trains: str, size: str = size) -> None:
            found = _tried(partial(ours, case, job))
            told = {"failed": found} if isinstance(found, str) else {"peak_mb": found.peak_mb}
            place.note(case=size, trains=trains, parameters=case.policy.network.weights.size, **told)

        case, job = _case(spec, batch, pairs, place.device)
        note(case, job, "all weights")
        case.policy.recompute_layers()
        note(case, job, "all weights, activations computed again")
        del case
        release()
        if find_spec("peft"):
            case, job = _case(replace(spec, lora_rank=8, lora_alpha=16), batch, pairs, place.device)
            note(case, job, "adapters of rank 8")
            del case
            release()


# --------------------------------------------------------------------------- one contender


def ours(case: Case, job: Job) -> Steps:
    """The steps of our trainer; reference scores, evaluation and sampling are off its clock."""
    losses: list[float | None] = []
    flops: list[float] = []
    case.policy.restore(case.initial)

    def progress(step: int, steps: int, loss: float | None) -> None:
        losses.append(loss)
        flops.append(trainer.clock.flops)

    scorer = ReferenceScorer(case.policy, case.initial, {})
    device = str(case.policy.device)
    trainer = GroupTrainer(case.policy, [job], scorer, device=device, progress=progress)
    trainer.plain_loop = None  # its comparisons are off the clock, and take as long as the steps
    (outcome,) = trainer.run()
    if outcome.status != "ok":
        raise RuntimeError(f"our run is {outcome.status}")
    operations = (flops[-1] - flops[0]) / max(1, len(flops) - 1)
    peak = trainer.memory.peak_mb if trainer.memory else None
    return Steps(trainer.clock.step_s, operations, losses[-1], peak)


def _case(
    spec: ModelSpec,
    batch: int,
    pairs: tuple[Pair, ...],
    device: str,
    *,
    packing: bool = True,
    peers: bool = False,
) -> tuple[Case, Job]:
    """A model at its first weights with pairs, and one cell of DPO that is evaluated as little as may be.

    Args:
        peers: others need a model as well; ours computes its attention in another way.
    """
    model, tokenizer = load_model(spec, 0)
    fresh = copy.deepcopy(model).to(device) if peers else None
    policy = CausalLM(model, tokenizer, spec, dtype=DTYPE, device=device, packing=packing)
    job = job_of(pairs, len(pairs) // batch, 0, dtype=DTYPE, batch=batch)
    return Case("gpu", policy, policy.snapshot(), fresh, pairs), job


def _tried(contender: Callable[[], Steps]) -> Steps | str:
    """What a contender took, or what it failed with where memory ran out: the others may fit."""
    try:
        return contender()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return "out of memory"
    finally:
        release()


def product_rate(device: str, side: int) -> float:
    """Operations per second of a product of random square matrices in bfloat16, the best of three."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(3):
        synchronise(device)
        begun = time.perf_counter()
        for _ in range(10):
            a @ b
        synchronise(device)
        best = max(best, 10 * 2 * side**3 / (time.perf_counter() - begun))
    return best


def release() -> None:
    """Hand memory that nobody holds back to the device."""
    gc.collect()
    torch.cuda.empty_cache()  # nothing, where there is no GPU
