"""What is measured of a run while a trainer makes it: the suite's metrics on a fixed sample of its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from xpo_bench.contract.metric import USUAL_SCALE, Evaluation
from xpo_bench.contract.scoring import Scores
from xpo_bench.errors import UsageError
from xpo_bench.integrations.batches import TrainedRows
from xpo_bench.integrations.live import LiveModel, left_alone
from xpo_bench.metrics.collapse import collapsed, rejected_drift
from xpo_bench.metrics.curve import Curve
from xpo_bench.metrics.kl import kl_from_samples
from xpo_bench.policy.language.sampling import sequence_kl
from xpo_bench.policy.language.scoring import Scorer
from xpo_bench.policy.language.weights import State
from xpo_bench.random_streams import torch_stream
from xpo_bench.train.evaluation.exact import array
from xpo_bench.train.evaluation.scale import log_ratio_scale

SHOWN = ("displacement", "accuracy_lc", "kl", "kl_se", "token_entropy")
"""Metrics of one evaluation that are logged, beside `collapsed` and `rejected_drift` of all so far."""


@dataclass(frozen=True)
class Sizes:
    """How much is evaluated: prompts and samples of the Monte Carlo KL, and how long a sample may be."""

    kl_prompts: int
    kl_samples: int
    max_new_tokens: int
    seed: int


class Diagnostics:
    """The evaluations of one run.

    Args:
        policy: the model in training. reference: the policy that training began with, as a copy of the
            trained weights or as a model's scorer.
        rows: what is evaluated. scale: size of the log-ratios, as in `History`, nats.
        steps: of the run.
        initial_scores: of the chosen and the rejected rows under the reference.
    """

    def __init__(
        self,
        policy: LiveModel,
        reference: State | Scorer,
        rows: TrainedRows,
        sizes: Sizes,
        *,
        scale: float,
        steps: int,
        initial_scores: Sequence[Scores],
    ) -> None:
        self.policy, self.reference, self.rows, self.sizes = policy, reference, rows, sizes
        self.initial = [array(scores.sum) for scores in initial_scores]
        self.curve = Curve(steps, scale=np.array([scale]))
        room = policy.context - sizes.max_new_tokens
        self.prompts = [ids for ids in rows.prompts if 0 < len(ids) <= room][: sizes.kl_prompts]
        if not self.prompts:
            raise UsageError(
                f"PreferenceDiagnostics: no prompt of the sample leaves room for {sizes.max_new_tokens} "
                f"tokens in the context of {policy.context}; want a smaller max_new_tokens"
            )

    def measure(self, step: int) -> dict[str, float]:
        """The metrics that apply after `step` steps; none once log-probabilities are not finite."""
        chosen, rejected = self.policy.score([self.rows.chosen, self.rows.rejected])
        finite = all(bool(torch.isfinite(scores.sum).all()) for scores in (chosen, rejected))
        ev = self._evaluation(step, chosen, rejected)
        self.curve.add(ev, None, self._sampled() if finite else None)
        (point,) = self.curve.last()
        if not point:
            return {}
        history = self.curve.history()
        whole = {name: float(f(history)[0]) for name, f in _CURVE.items()}
        found = whole | {name: point[name] for name in SHOWN if name in point}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _evaluation(self, step: int, chosen: Scores, rejected: Scores) -> Evaluation:
        pairs = len(self.rows.chosen)
        return Evaluation(
            step=step,
            chosen_logp=array(chosen.sum),
            rejected_logp=array(rejected.sum),
            chosen_length=array(chosen.length),
            rejected_length=array(rejected.length),
            chosen_ref=self.initial[0],
            rejected_ref=self.initial[1],
            p_chosen=np.full((1, pairs), np.nan),
            valid=np.ones((1, pairs), bool),
            valid_rejected=np.ones((1, len(self.rows.rejected)), bool),
            paired=self.rows.paired,
            rounding=torch.finfo(chosen.token_logps.dtype).eps,
        )

    def _sampled(self) -> dict[str, np.ndarray]:
        sizes = self.sizes
        # common random numbers: the samples of two evaluations differ by the policy alone
        generator = torch_stream(sizes.seed, "trainer", "generate")
        sampled = self.policy.sample(self.prompts, sizes.kl_samples, sizes.max_new_tokens, generator)
        with left_alone(self.policy.model):
            found = sequence_kl(self.policy.scorer, sampled, self.reference)
        kl, se = kl_from_samples(found.per_sample_kl.numpy(), found.prompt_index.numpy())
        out = {"kl": kl, "kl_se": se, "token_entropy": found.entropy}
        return {name: np.array([value]) for name, value in out.items()}


_CURVE = {"collapsed": collapsed, "rejected_drift": rejected_drift}


def scale_of(trainer: Any) -> float:
    """1/β in nats, by which the drift of a trainer's run is judged (`log_ratio_scale`)."""
    if hasattr(trainer, "algorithm"):
        return log_ratio_scale(trainer.algorithm)
    # β of CPO and ORPO is the scale of a margin or the weight of a term, and no strength per nat
    holds = any(cls.__name__ in ("DPOTrainer", "KTOTrainer") for cls in type(trainer).__mro__)
    beta = getattr(trainer, "beta", None)
    return 1 / beta if holds and isinstance(beta, float) and beta > 0 else USUAL_SCALE
