"""A callback for Hugging Face trainers that says where a preference run goes: `PreferenceDiagnostics`."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from xpo_bench.errors import UsageError
from xpo_bench.integrations.batches import sample_rows
from xpo_bench.integrations.diagnostics import Diagnostics, Sizes, scale_of
from xpo_bench.integrations.live import Around, LiveModel, unwrapped, without_adapter
from xpo_bench.policy.language.scoring import Scorer
from xpo_bench.policy.language.weights import State
from xpo_bench.random_streams import stream

logger = logging.getLogger(__name__)
SHARE = 0.02
"""Part of a run's time above which the callback says that it takes more."""
ENOUGH = 3
"""Evaluations after which that can be told."""


class PreferenceDiagnostics(TrainerCallback):  # type: ignore[misc]
    """Logs, while a preference trainer runs, whether and how far the policy goes wrong.

    Through the trainer's own logger, at the start, every so many steps and at the last one: `collapsed`,
    `rejected_drift`, `displacement`, `accuracy_lc`, `kl` with `kl_se`, `token_entropy`, as docs/metrics.md
    defines them, on a fixed sample of the rows that are trained on. What cannot be told yet is not logged:
    `rejected_drift` needs two evaluations in the second half of the run so far.

    Training is the same to the bit with it and without. Of several processes the first one evaluates, on the
    whole model, while the others wait for it in their next exchange.

    Args:
        every: steps between evaluations.
        pairs: rows that are evaluated; of unpaired data completions.
        kl_prompts, kl_samples, max_new_tokens: prompts, samples of each and tokens of a sample that the KL is
            estimated from.
        max_kl: KL in nats at which training stops, once `kl` − 2 `kl_se` is above it; None never stops.
        reference: the policy that the KL and log-ratios are against, a model; by default the one that
            training begins with, of which a copy of the trained weights is kept, unless the trainer holds an
            equal model.
        prefix: of the names in the log.
        seed: of the sample and the draws.

    Attributes:
        seconds: spent evaluating. share: of the time since training began, on the first process.

    Raises:
        UsageError: an argument out of its range; when training begins: a trainer whose batches are no
            preferences, weights that are shared among processes, a run that is resumed without a reference.

    Example:
        >>> callbacks = [PreferenceDiagnostics(max_kl=10.0)]
        >>> trainer = DPOTrainer(model=model, args=args, train_dataset=pairs, callbacks=callbacks)
    """

    def __init__(
        self,
        every: int = 100,
        *,
        pairs: int = 32,
        kl_prompts: int = 16,
        kl_samples: int = 1,
        max_new_tokens: int = 32,
        max_kl: float | None = None,
        reference: Any = None,
        prefix: str = "",
        seed: int = 0,
    ) -> None:
        sizes = {
            "every": every,
            "pairs": pairs,
            "kl_prompts": kl_prompts,
            "kl_samples": kl_samples,
            "max_new_tokens": max_new_tokens,
        }
        for name, value in sizes.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"PreferenceDiagnostics: {name} is {value!r}, want a whole number from 1 on")
        if max_kl is not None and not max_kl > 0:
            raise UsageError(f"PreferenceDiagnostics: max_kl is {max_kl!r}, want nats above 0, or None")
        if reference is not None and not isinstance(reference, torch.nn.Module):
            raise UsageError(
                f"PreferenceDiagnostics: reference is {reference!r}, want a model, such as "
                "AutoModelForCausalLM.from_pretrained(...)"
            )
        self.every, self.pairs, self.max_kl, self.prefix = every, pairs, max_kl, prefix
        self.sizes = Sizes(kl_prompts, kl_samples, max_new_tokens, seed)
        self.reference = reference
        self.trainer: Any = None
        self.diagnostics: Diagnostics | None = None
        self.seconds, self._began, self._measured = 0.0, 0.0, 0

    @property
    def share(self) -> float:
        """Part of the time since training began that evaluations took."""
        return self.seconds / max(1e-9, time.perf_counter() - self._began)

    # ---------------------------------------------------------------- events of the trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Choose the rows, keep the reference, and evaluate the start."""
        self.seconds, self._began, self._measured = 0.0, time.perf_counter(), 0
        self.trainer, self.diagnostics = _trainer_of(state), None
        if state.is_world_process_zero and not self.prefix and _is(self.trainer, "KTOTrainer"):
            logger.warning(
                "KTOTrainer logs a `kl` of its own, the z0 of its loss, which is another quantity: "
                "give PreferenceDiagnostics a prefix to tell them apart in a chart"
            )
        unwrapped(self.trainer)  # what cannot be evaluated is refused by every process
        if state.is_world_process_zero:
            with self._charged():
                self.diagnostics = self._begin(state)
        self._evaluate(state, control)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate where it is due."""
        if state.global_step % self.every == 0 or state.global_step >= state.max_steps:
            self._evaluate(state, control)

    # ---------------------------------------------------------------- evaluations

    def _begin(self, state: TrainerState) -> Diagnostics:
        trainer = self.trainer
        model, adapter = unwrapped(trainer)
        tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
        mixed = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(trainer.accelerator.mixed_precision)
        rows = sample_rows(trainer, self.pairs, stream(self.sizes.seed, "trainer", "order", "evaluation"))
        policy = LiveModel(model, tokenizer, mixed=mixed)
        resumed = state.global_step > 0
        known = self._reference_model(policy, adapter, resumed)
        reference: State | Scorer = policy.network.weights.snapshot() if known is None else known.scorer
        # the policy stands at its beginning, unless it is resumed: its scores are the reference's, to the bit
        first = known if known is not None and (resumed or self.reference is not None) else policy
        return Diagnostics(
            policy,
            reference,
            rows,
            self.sizes,
            scale=scale_of(trainer),
            steps=state.max_steps,
            initial_scores=first.score([rows.chosen, rows.rejected]),
        )

    def _reference_model(self, policy: LiveModel, adapter: Any, resumed: bool) -> LiveModel | None:
        """A model that is the reference; None where that is the policy as it stands."""

        def live(model: Any, around: Around = contextlib.nullcontext) -> LiveModel:
            mixed = policy.network.mixed
            return LiveModel(model, policy.tokenizer, mixed=mixed, around=around, like=policy)

        if self.reference is not None:
            return live(self.reference.to(policy.network.device))
        own = getattr(self.trainer, "ref_model", None)
        if own is not None:
            own = self.trainer.accelerator.unwrap_model(own)
            if resumed or _equal(own, policy.model):
                return live(own)
        if not resumed:
            return None
        if adapter is not None:
            return live(policy.model, lambda: without_adapter(adapter))
        raise UsageError(
            "PreferenceDiagnostics: the run is resumed, and the policy that it began with is not in memory; "
            "give it as reference="
        )

    def _evaluate(self, state: TrainerState, control: TrainerControl) -> None:
        stop = False
        if self.diagnostics is not None:
            with self._charged():
                found = self.diagnostics.measure(state.global_step)
            self._measured += 1
            stop = self._above(found)
            self._log(found, state, control)
            self._tell_share(state)
        if self.max_kl is not None:
            control.should_training_stop |= self._agreed(stop)

    def _log(self, found: dict[str, float], state: TrainerState, control: TrainerControl) -> None:
        if not found:
            logger.warning("step %s: log-probabilities are not finite, nothing is logged", state.global_step)
            return
        due = control.should_log
        # not the subclass's own: TRL's adds its averages to whatever is logged, and begins them anew
        Trainer.log(self.trainer, {self.prefix + name: value for name, value in found.items()})
        # whoever logs takes the trainer's own log of this step for done
        control.should_log = due

    def _above(self, found: dict[str, float]) -> bool:
        """Whether the KL is above its budget by more than two standard errors."""
        if (
            self.max_kl is None
            or "kl" not in found
            or found["kl"] - 2 * found.get("kl_se", 0.0) <= self.max_kl
        ):
            return False
        logger.warning(
            "training stops: KL %.3g ± %.2g nats, above max_kl=%g",
            found["kl"],
            found.get("kl_se", 0),
            self.max_kl,
        )
        return True

    def _agreed(self, stop: bool) -> bool:
        """The first process's word, in all of them: one that went on alone would wait for ever."""
        from accelerate.utils import broadcast_object_list

        box = [stop]
        if self.trainer.accelerator.num_processes > 1:
            broadcast_object_list(box, from_process=0)
        return box[0]

    @contextlib.contextmanager
    def _charged(self) -> Any:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - begin

    def _tell_share(self, state: TrainerState) -> None:
        if self._measured == ENOUGH and self.share > SHARE and state.global_step:
            longer = round(self.every * self.share / SHARE)
            logger.warning(
                "PreferenceDiagnostics has taken %.1f %% of the time so far; every=%s would take 2 %%",
                100 * self.share,
                longer,
            )


def _trainer_of(state: TrainerState) -> Any:
    """The trainer whose event is being handled.

    A callback is told the trainer's model, data and optimizer, and not the trainer, whose logger it needs. It
    is called from the trainer's own methods, which are looked for among the callers.
    """
    frame = sys._getframe(1)
    while frame is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, Trainer) and found.state is state:
            return found
        frame = frame.f_back  # type: ignore[assignment]
    raise UsageError(
        "PreferenceDiagnostics is called by no transformers.Trainer: add it to a trainer's callbacks"
    )


def _is(trainer: Any, name: str) -> bool:
    """Whether a trainer is one of a name; the library that it is from need not be there."""
    return any(cls.__name__ == name for cls in type(trainer).__mro__)


def _equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two models hold the same weights, to the bit."""
    mine, theirs = dict(one.named_parameters()), dict(other.named_parameters())
    return mine.keys() == theirs.keys() and all(
        p.shape == theirs[name].shape and torch.equal(p.to(theirs[name].device), theirs[name])
        for name, p in mine.items()
    )
