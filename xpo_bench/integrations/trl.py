"""TRL's DPOTrainer with the loss of any plugin: `PreferenceTrainer`.

What TRL does stays TRL's: data, collation, the forward passes, the reference, Accelerate, PEFT, checkpoints
and trackers. What is replaced is the loss, which is the plugin's, over scores per token of those passes.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.examples import Single
from xpo_bench.contract.scoring import Scores, Step
from xpo_bench.errors import UsageError
from xpo_bench.integrations import shaping
from xpo_bench.integrations.objective import choose, require_trainable, strength
from xpo_bench.integrations.passes import Sides, by_side, interleaved_rows, recorded
from xpo_bench.integrations.progress import AlgorithmProgress
from xpo_bench.integrations.scores import mismatched_rows, padded, scores_of
from xpo_bench.random_streams import stream
from xpo_bench.train.update import per_example

try:
    from trl import DPOConfig, DPOTrainer
    from trl.models.utils import disable_gradient_checkpointing
except ImportError as error:
    raise ImportError(
        f"xpo_bench.integrations.trl needs TRL 1.16 or a later 1.x ({error}): pip install 'xpo-bench[trl]'"
    ) from error

LOSS_OPTIONS = (
    "loss_type",
    "loss_weights",
    "beta",
    "label_smoothing",
    "ld_alpha",
    "f_divergence_type",
    "f_alpha_divergence_coef",
    "use_weighting",
    "discopop_tau",
)
"""Fields of DPOConfig that say which of TRL's losses is trained with."""
TRAINER_OPTIONS = frozenset(inspect.signature(DPOTrainer.__init__).parameters) - {"self"}
REWARDS = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins")


class PreferenceTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's `DPOTrainer` with the loss of any algorithm of the suite, packaged or not.

    Example:
        >>> trainer = PreferenceTrainer(
        ...     algorithm="ipo", beta=0.1, model="gpt2", args=DPOConfig("out"), train_dataset=pairs
        ... )
        >>> trainer.train()

    Args:
        algorithm: a plugin's name (`xpo-bench list algos`), a subclass of `xpo_bench.Algorithm`, or an
            instance of one.
        options: arguments of DPOTrainer by name, and the algorithm's hyperparameters; `beta` also stands for
            the declared regulariser of an algorithm without a field of that name, IPO's τ.

    Raises:
        UsageError: an unknown hyperparameter, an option of DPOConfig that chooses another loss, or an
            algorithm that a trainer cannot train with.
    """

    _tag_names: ClassVar[list[str]] = ["trl", "xpo-bench"]

    def __init__(
        self,
        model: Any = None,
        ref_model: Any = None,
        args: DPOConfig | None = None,
        *,
        algorithm: str | type[Algorithm] | Algorithm,
        **options: Any,
    ) -> None:
        settings = {name: value for name, value in options.items() if name not in TRAINER_OPTIONS}
        self.algorithm = choose(algorithm, settings)
        require_trainable(self.algorithm)
        if model is None:
            raise UsageError("PreferenceTrainer: model= is missing: a path, a hub id or a loaded model")
        if args is not None:
            _require_no_other_loss(args, self.algorithm)
        self.uses_reference = any(group.reference for group in self.algorithm.groups.values())
        if not self.uses_reference and ref_model is not None:
            raise UsageError(f"{self.algorithm.name}: has no reference, so that ref_model= would not be read")
        # TRL loads no reference model where log-probabilities are computed ahead, and here none are needed
        args = copy.copy(args) if args is not None else DPOConfig(f"{_name(model)}-{self.algorithm.name}")
        args.precompute_ref_log_probs = not self.uses_reference
        super().__init__(model, ref_model, args, **{k: v for k, v in options.items() if k in TRAINER_OPTIONS})
        args.precompute_ref_log_probs = self.precompute_ref_logps = False
        collator: Any = self.data_collator
        self.data_collator: Any = shaping.Carrying(collator)
        # TRL's own terms of the loss: none
        self.loss_types: list[str] = []
        self.loss_weights: list[float] = []
        beta = strength(self.algorithm)
        self.beta = 1.0 if beta is None else beta
        self._name = f"xpo-bench {self.algorithm.name}"
        self._paper = {"title": self.algorithm.source, "id": self.algorithm.paper.removeprefix("arXiv:")}
        self.progress = AlgorithmProgress(self.algorithm, self.accelerator)
        self.add_callback(self.progress)

    # ---------------------------------------------------------------- data

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        prepared = super()._prepare_dataset(dataset, processing_class, args, dataset_name)
        if not shaping.shapes(self.algorithm):
            return prepared
        if not hasattr(prepared, "add_column") or not hasattr(prepared, "__len__"):
            raise UsageError(
                f"{self.algorithm.name}: looks at all rows of its data, and a stream has no end; "
                "give a Dataset in place of an IterableDataset"
            )
        rng = stream(args.seed, dataset_name, "generate", self.algorithm.name)
        return shaping.shaped(self.algorithm, prepared, self._tokenizer.decode, rng)

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        return dataset  # called for algorithms without a reference alone

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        known = self._signature_columns
        for dataset in (self.train_dataset, self.eval_dataset):
            for each in dataset.values() if isinstance(dataset, dict) else (dataset,):
                names = getattr(each, "column_names", None) or ()
                known += [name for name in names if name.startswith(shaping.ADDED) and name not in known]

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        unit = 2 if self.algorithm.accepts is Single else 1
        self.progress.begin_step([_counts(batch, unit) for batch in batches], device)
        return batches, items

    def _load_callback_state(self) -> None:
        # a callback that is restored is made anew by transformers; ours reads its state where training begins
        name = type(self.progress).__name__
        kept = self.state.stateful_callbacks.pop(name, None)
        super()._load_callback_state()
        if kept is not None:
            self.state.stateful_callbacks[name] = kept

    # ---------------------------------------------------------------- loss

    def _compute_loss(self, model: nn.Module, inputs: Mapping[str, Any], return_outputs: bool) -> Any:
        inputs, added = shaping.taken(inputs)
        asked = dict(inputs)
        if not self.uses_reference:
            nothing = torch.zeros(len(inputs["input_ids"]) // 2, device=inputs["input_ids"].device)
            asked |= {"ref_chosen_logps": nothing, "ref_rejected_logps": nothing}
        reference_model = self._reference_model
        with recorded(model) as passes, recorded(reference_model) as references:
            self.precompute_ref_logps = not self.uses_reference
            try:
                out = super()._compute_loss(model, asked, return_outputs)
            finally:
                self.precompute_ref_logps = False
        rest, outputs = out if return_outputs else (out, None)
        training = self.model.training
        if not self.uses_reference:
            for name in REWARDS:  # there is nothing that a reward could be against
                self._metrics["train" if training else "eval"].pop(name, None)
        mask = inputs["completion_mask"]
        sides = Sides(
            policy=by_side(passes[0], mask),
            reference=by_side(references[-1], mask) if self.uses_reference else {},
        )
        step = self._step(model, inputs, added, sides, training)
        values = per_example(self.algorithm, step, grad=torch.is_grad_enabled())
        # TRL's rest is its auxiliary loss of mixtures of experts, or 0
        loss = self.progress.reduced(values, training) + rest
        if training:
            self.progress.saw(step)
        return (loss, outputs) if return_outputs else loss

    @property
    def _reference_model(self) -> nn.Module:
        return self.ref_model if self.ref_model is not None else self.model  # type: ignore[no-any-return]

    def _step(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor],
        added: Mapping[str, Tensor],
        sides: Sides,
        training: bool,
    ) -> Step:
        """What the contract's loss sees of a micro-batch."""
        policy, reference = {}, {}
        rows: list[Any] | None = None
        further = shaping.further_groups(self.algorithm)
        for name, group in self.algorithm.groups.items():
            if group.mismatched or name in further:
                if group.mismatched:
                    rows = rows or interleaved_rows(inputs)
                    wanted = mismatched_rows(rows)
                else:
                    wanted = shaping.ids_of(added, name)
                policy[name], against = self._extra(model, wanted, group.grad, group.reference)
                if against is not None:
                    reference[name] = against
                continue
            policy[name] = sides.of("policy", name, self.algorithm)
            if not group.grad:
                policy[name] = policy[name].detach()
            if group.reference:
                reference[name] = sides.of("reference", name, self.algorithm)
        dtype = next(iter(policy.values())).token_logps.dtype
        columns = self._columns(added, len(inputs["input_ids"]) // 2, dtype)
        return Step(
            policy=policy,
            reference=reference,
            columns=columns,
            totals=self.progress.totals(columns, next(iter(policy.values())), training),
            shared=None if self.progress.processes.alone else self.progress.processes.total,
            state=self.progress.state_for(dtype),
        )

    def _columns(self, added: Mapping[str, Tensor], pairs: int, dtype: torch.dtype) -> dict[str, Tensor]:
        device = self.accelerator.device
        out = {
            name.removeprefix(shaping.COLUMN): values.to(device, dtype).reshape(1, -1)
            for name, values in added.items()
            if name.startswith(shaping.COLUMN)
        }
        if not shaping.shapes(self.algorithm) and self.algorithm.accepts is Single:
            out["desirable"] = torch.tensor([1.0, 0.0], dtype=dtype, device=device).repeat(pairs)[None]
        return out

    def _extra(
        self, model: nn.Module, rows: list[Any], grad: bool, against: bool
    ) -> tuple[Scores, Scores | None]:
        """Scores of completions that are no side of the batch's pairs, by forward passes of their own."""
        limit = self.args.max_length
        pad = self._tokenizer.pad_token_id
        cut = [
            (prompt[max(0, len(prompt) + len(own) - limit) :] if limit else prompt, own)
            for prompt, own in rows
        ]
        batch = padded(cut, pad, self.accelerator.device)
        mask = batch["completion_mask"]
        labels = batch["input_ids"].masked_fill(mask == 0, -100)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        kwargs = self.args.gradient_checkpointing_kwargs
        with contextlib.ExitStack() as context:
            if not grad:
                context.enter_context(torch.no_grad())
                context.enter_context(disable_gradient_checkpointing(self.model, kwargs))
            found = model(**inputs, use_cache=False, labels=labels, fused_lm_head=True).log_probs
        scores = scores_of(found[:, 1 - mask.shape[1] :], mask)
        if not against:
            return scores, None
        with recorded(self._reference_model) as references:
            self.compute_ref_log_probs(self._reference_model, batch)
        return scores, scores_of(references[-1][:, 1 - mask.shape[1] :], mask)


def _name(model: Any) -> str:
    """The last part of a model's name, by which TRL calls the directory of a run that is told none."""
    told = model if isinstance(model, str) else str(getattr(model.config, "_name_or_path", "") or "model")
    return told.rstrip("/").split("/")[-1]


def _counts(batch: Mapping[str, Any], unit: int) -> dict[str, float]:
    """Examples of a micro-batch, and the sums of its columns."""
    pairs = len(batch["input_ids"]) // 2
    out = {"examples": float(pairs * unit)}
    if unit == 2:
        out["desirable"] = float(pairs)
    for name, values in batch.items():
        if name.startswith(shaping.COLUMN):
            out[name.removeprefix(shaping.COLUMN)] = float(values.sum())
    return out


def _require_no_other_loss(args: DPOConfig, algorithm: Algorithm) -> None:
    """Refuse options that would be ignored, or that change what the loss is against."""
    own = strength(algorithm)
    for field in fields(args):
        if field.name not in LOSS_OPTIONS:
            continue
        value = getattr(args, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if value == default or (field.name == "beta" and value == own):
            continue
        raise UsageError(
            f"DPOConfig.{field.name}={value!r} is for TRL's own losses and would not be read: "
            f"give PreferenceTrainer the hyperparameters of {algorithm.name} by name"
        )
    if args.precompute_ref_log_probs:
        raise UsageError(
            "DPOConfig.precompute_ref_log_probs keeps sums over tokens, and a loss may read each token's "
            "log-probability; leave it False"
        )
    if args.sync_ref_model:
        raise UsageError(
            "DPOConfig.sync_ref_model moves the reference, which losses of the suite take as the initial "
            "policy; leave it False"
        )
