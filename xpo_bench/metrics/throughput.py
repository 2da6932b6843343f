"""Speed and cost, from counts and seconds of the training clock: pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from xpo_bench.contract.metric import metric
from xpo_bench.metrics.kl import kl_from_samples

MEASURED = frozenset({"pairs_per_s", "tokens_per_s", "overhead", "prepare_s", "peak_memory_mb", "mfu"})
"""Metrics that a clock or the machine decides: two runs that differ in them alone came to the same."""

__all__ = [
    "MEASURED",
    "acceptance_rate",
    "kl_from_samples",
    "overhead",
    "pairs_per_s",
    "peak_memory_mb",
    "prepare_s",
    "tokens_per_s",
    "total_flops",
]


@metric("1/s", better="higher", kind="run")
def pairs_per_s(pairs: float, seconds: float) -> float | None:
    """Training pairs per second of the training clock; an unpaired example is half a pair.

    The device is synchronised, and evaluation excluded.

    Where several runs train as one computation it is that of all of them together. None without training
    time. Source: the usual definition.
    """
    return pairs / seconds if seconds > 0 else None


@metric("1/s", better="higher", kind="run")
def tokens_per_s(tokens: float, seconds: float) -> float | None:
    """Tokens processed per second of the training clock: shared prompts count once, padding never.

    None without training time. Source: the usual definition.
    """
    return tokens / seconds if seconds > 0 else None


@metric("s", better="lower", kind="run")
def prepare_s(charged: Iterable[float]) -> float:
    """Seconds of sampling, reward-model fitting and reference scoring, charged as if the algorithm ran alone.

    Source: this suite.
    """
    return float(sum(charged))


@metric("–", better="higher", kind="run")
def acceptance_rate(accepted: int, tests: int) -> float | None:
    """RSO: accepted candidates over acceptance tests made. None before the first test.

    Source: Liu et al. 2023, Alg. 1.
    """
    return accepted / tests if tests else None


@metric("ratio", better="lower", kind="run")
def overhead(step_s: Sequence[float], sft_s: Sequence[float]) -> float | None:
    """Step time over that of a plain loop on the same rows: the median of ratios taken along the run.

    The plain loop pads the rows that the algorithm scores with a graph, feeds them to the model, gathers
    their log-probabilities and follows the gradient; its optimizer update is the one of the step beside it,
    without clipping. Sampling of on-policy data counts as part of the step, work done once in advance
    (`prepare_s`) does not. Below 1 where shared prompts and packed rows save more than the rest costs. None
    where nothing was compared; language models only. Source: this suite.
    """
    ratios = [a / b for a, b in zip(step_s, sft_s, strict=True) if b > 0]
    return median(ratios) if ratios else None


@metric("FLOP", better="lower", kind="run")
def total_flops(forward: float, backward: float) -> float:
    """Floating-point operations of training and its preparation, as if the algorithm ran alone.

    Two per weight and token forward, four backward, and attention by the tokens attended to; padding,
    recomputation and evaluation are not counted. Language models only. Source: Kaplan et al. 2020, table 1;
    Chowdhery et al. 2022, appendix B.
    """
    return forward + backward


@metric("MB", better="lower", kind="run")
def peak_memory_mb(peaks: Iterable[float]) -> float | None:
    """Peak memory of training, 10⁶ bytes: the model's tensors, and what its steps take beyond them.

    The second part is the growth over what was in use before the first step, so that neither libraries nor
    cells that ran before in the process count: of allocated memory on an accelerator, else of resident
    memory, which the allocator rounds by some MB. None where the system does not tell. Language models only.
    Source: the usual definition.
    """
    return max(peaks, default=None)
