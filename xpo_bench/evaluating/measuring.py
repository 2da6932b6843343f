"""One checkpoint measured: its scores of all rows, its samples, their KL, and what a judge says of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xpo_bench.errors import UsageError
from xpo_bench.evaluating.judging import Judge
from xpo_bench.evaluating.loading import Loader, NotFinite
from xpo_bench.evaluating.measured import Measured, Sums
from xpo_bench.evaluating.named import Place
from xpo_bench.evaluating.reference import Prepared
from xpo_bench.evaluating.sampling import (
    Drawing,
    Samples,
    judged,
    sample,
    sampled_metrics,
    sampled_notes,
    texts_of,
)

if TYPE_CHECKING:
    from xpo_bench.policy.language.causal_lm import CausalLM
    from xpo_bench.policy.language.sampling import Predicted, Sampled

Tell = Callable[[str], None]
"""Told what is being done."""


@dataclass(frozen=True)
class _Own:
    """What a policy leaves: its scores, and its samples with what it predicts along them."""

    sets: dict[str, Sums]
    base: dict[str, list[float]]
    model: dict[str, Any]
    sampled: Sampled | None = None
    predicted: Predicted | None = None


@dataclass
class Measurer:
    """Measures checkpoints against one prepared reference."""

    loader: Loader
    prepared: Prepared
    judge: Judge | None
    tell: Tell
    _rewards: dict[Drawing, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Let the judge see the reference's samples: one that fails does so before anything is measured."""
        for drawing, samples in self.prepared.samples.items():
            assert self.judge is not None
            if self.judge.kind == "reward":
                self._rewards[drawing] = self.judge.rewards(samples.prompts, samples.texts)
            else:
                self._rewards[drawing] = ()
                self.judge.wins(samples.prompts[:1], samples.texts[:1], samples.texts[:1])  # a try

    def measure(self, place: Place, drawing: Drawing) -> Measured:
        """Measure one checkpoint; three models at most are loaded for it, one after the other.

        Raises:
            UsageError: another vocabulary than the reference's, a context too short for the rows, or a judge
                that fails.
        """
        start = time.monotonic()
        own = self._own(place, drawing)
        samples: dict[str, float] = {}
        notes: dict[str, Any] = {}
        if own.sampled is not None:  # the policy is out of memory by now
            self.tell(f"{place.shown}: KL along its samples")
            samples, notes = self._kl(own), sampled_notes(drawing, own.sampled)
            samples["finished"] = notes["kl_finished"]
            if self.judge is not None:
                self.tell(f"{place.shown}: judging its samples")
                samples |= self._judged(drawing, texts_of(drawing, own.sampled))
        return Measured(own.sets, own.base, samples, notes, own.model, time.monotonic() - start)

    def _own(self, place: Place, drawing: Drawing) -> _Own:
        """What the policy itself is needed for; nothing of it is kept but what it predicts."""
        from xpo_bench.policy.language.sampling import predict

        self.tell(f"{place.shown}: loading")
        try:
            policy = self.loader.policy(place)
        except NotFinite:
            return self._nothing()
        self._check(policy, place)
        self.tell(f"{place.shown}: scoring")
        sets, base = self._scores(policy)
        if not all(np.isfinite([*s["chosen"], *s["rejected"]]).all() for s in sets.values()):
            return _Own(sets, base, policy.describe())  # what has lost its numbers cannot be sampled
        self.tell(f"{place.shown}: sampling")
        sampled = sample(policy, drawing)
        return _Own(sets, base, policy.describe(), sampled, predict(policy.scorer, sampled))

    def _nothing(self) -> _Own:
        """What is known of weights that are not finite."""
        sets: dict[str, Sums] = {}
        for name, known in self.prepared.sets.items():
            chosen, rejected = (s.mask.shape[1] for s in (known.chosen_ref, known.rejected_ref))
            sets[name] = {"chosen": [math.nan] * chosen, "rejected": [math.nan] * rejected}
        base = {name: [math.nan] * len(logps) for name, (_, logps, _) in self.prepared.base.items()}
        return _Own(sets, base, {})

    def _kl(self, own: _Own) -> dict[str, float]:
        """The KL from the reference along samples."""
        from xpo_bench.policy.language.sampling import kl_of_predicted

        assert own.sampled is not None
        assert own.predicted is not None
        reference = self.loader.policy(self.loader.reference)
        return sampled_metrics(kl_of_predicted(own.predicted, own.sampled, reference.scorer))

    def _scores(self, policy: CausalLM) -> tuple[dict[str, Sums], dict[str, list[float]]]:
        known, base = self.prepared.sets, self.prepared.base
        wanted = [side for s in known.values() for side in (s.chosen, s.rejected)]
        found = policy.score_sets([*wanted, *(encoded for encoded, *_ in base.values())])
        sums = [scores.sum[0].double().cpu().tolist() for scores in found]
        sets: dict[str, Sums] = {
            name: {"chosen": sums[2 * i], "rejected": sums[2 * i + 1]} for i, name in enumerate(known)
        }
        return sets, dict(zip(base, sums[2 * len(known) :], strict=True))

    def _judged(self, drawing: Drawing, own: Samples) -> dict[str, float]:
        assert self.judge is not None
        return judged(self.judge, drawing, own, self.prepared.samples[drawing], self._rewards[drawing])

    def _check(self, policy: CausalLM, place: Place) -> None:
        """Refuse a model of another vocabulary than the reference's, or of too short a context."""
        own, theirs = policy.network.vocabulary, self.prepared.vocabulary
        if own != theirs:
            raise UsageError(
                f"{place.shown}: has logits of {own:,} tokens, and the reference "
                f"{self.loader.reference.shown} of "
                f"{theirs:,}; a KL needs one vocabulary"
            )
        if policy.context < self.prepared.longest:
            raise UsageError(
                f"{place.shown}: reads {policy.context:,} tokens at most, and a row has "
                f"{self.prepared.longest:,}; "
                f"want a reference of the same context, or --rows that are shorter"
            )
