"""The model that a trainer holds, scored and sampled where it lies: nothing of it is moved or changed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from xpo_bench.contract.scoring import Scores
from xpo_bench.errors import UsageError
from xpo_bench.policy.language.flops import Tally
from xpo_bench.policy.language.model_facts import context_length, end_ids
from xpo_bench.policy.language.network import Network
from xpo_bench.policy.language.probes.capabilities import Capabilities
from xpo_bench.policy.language.probes.head import Head, probe_head
from xpo_bench.policy.language.probes.probe import probe
from xpo_bench.policy.language.probes.sampling import way_of_sampling
from xpo_bench.policy.language.probes.sharing import takes_positions
from xpo_bench.policy.language.probes.trial import Trial
from xpo_bench.policy.language.reader import Reader
from xpo_bench.policy.language.requests import arrange, pick
from xpo_bench.policy.language.sampling import Sampled, Sampler
from xpo_bench.policy.language.scoring import Scorer
from xpo_bench.policy.language.tokenize import Encoded, Row
from xpo_bench.policy.language.tokenizers import IdTokenizer, ModelTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COARSE = 1e-4
"""Spacing at 1 of the weights' dtype above which rounding hides whether two ways of computing agree."""
Around = Callable[[], AbstractContextManager[object]]
"""Makes what a model is computed within."""


class LiveNetwork(Network):
    """A model that somebody else trains.

    Args:
        mixed: dtype that the trainer computes the body in by autocast; None where it does not.
        around: entered around every computation, such as what disables an adapter.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        device: torch.device,
        *,
        selected: bool,
        mixed: torch.dtype | None,
        around: Around = contextlib.nullcontext,
    ) -> None:
        own = next(model.parameters()).dtype
        super().__init__(model, device, "float64" if own == torch.float64 else "float32", selected=selected)
        self.mixed, self.around = mixed, around

    @property
    def _half(self) -> bool:
        return self.mixed is not None and not self._exact

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.mixed or torch.bfloat16, enabled=self._half)

    def features(self, *, use_cache: bool = False, **inputs: object) -> tuple[Tensor, Any]:
        with self.around():
            return super().features(use_cache=use_cache, **inputs)

    def logits(self, features: Tensor) -> Tensor:
        with self.around():
            logits = super().logits(features)
        # of weights that are half precision themselves: the softmax at least is not taken in it
        return logits if logits.dtype == torch.float64 else logits.float()


@dataclass(frozen=True)
class TrainedIds(IdTokenizer):
    """Ids as text, and what ends a text: a trainer's rows are ids, which no tokenizer need read again."""

    ends: frozenset[int] = frozenset()

    @property
    def stops(self) -> frozenset[int]:
        return self.ends


class LiveModel:
    """Scores and samples of a model in training.

    Args:
        model: the trained model, unwrapped; of an adapter the model that it was put into.
        tokenizer: says what ends a text. mixed, around: as of `LiveNetwork`.
        like: a model of the same architecture, of which it is known what it can do.

    Raises:
        UsageError: the model cannot be run on ids alone.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        *,
        mixed: torch.dtype | None = None,
        around: Around = contextlib.nullcontext,
        like: LiveModel | None = None,
    ) -> None:
        device, name = next(model.parameters()).device, type(model).__name__
        self.model, self.tokenizer, tally = model, tokenizer, Tally()
        self.context = context_length(model.config, tokenizer)
        known = like if like is not None and type(like.model) is type(model) else None
        with left_alone(model):
            self.head: Head = known.head if known else probe_head(model, device, name)
            self.network = LiveNetwork(model, device, selected=self.head.selected, mixed=mixed, around=around)
            self.able: Capabilities = known.able if known else self._able(name)
        self.scorer = Scorer(self.network, self.able, tally)
        ends = ModelTokenizer(
            tokenizer, end_ids(model.config, getattr(model, "generation_config", None))
        ).stops
        ids = TrainedIds(self.network.vocabulary, ends=ends)
        self.sampler = Sampler(
            self.network, self.able, Reader(ids, self.context, eos=True), self.scorer.shape, tally, name
        )

    def _able(self, name: str) -> Capabilities:
        """What the model can do: all is tried, unless its weights are too coarse for the tries."""
        coarse = torch.finfo(next(self.model.parameters()).dtype).eps
        if coarse < COARSE:
            # rows are not packed: that would set the model's attention to another implementation
            return probe(self.network, self.head, context=self.context, packing=False, name=name)
        # what two ways differ by is rounding here: rows are scored the plain way, and one way of sampling has
        # to be right up to the rounding
        with self.network.exactly(), torch.no_grad():
            trial = replace(Trial.of(self.network, self.context, name), noise=coarse)
            told = takes_positions(trial)
            way, shrinks = way_of_sampling(trial, told)
        return Capabilities(takes_positions=told, sampling=way, shrinks=shrinks)

    @torch.no_grad()
    def score(self, sides: Sequence[Sequence[Row]]) -> list[Scores]:
        """Log-probabilities of several sets of rows, shape (1, N, T) each; a set without rows has N = 0."""
        encoded = {str(i): Encoded.of(rows) for i, rows in enumerate(sides) if rows}
        picked = pick({name: ([each], None) for name, each in encoded.items()}, 1)
        with left_alone(self.model):
            found = arrange(self.scorer.token_logps(picked.rows[0]), picked)
        nothing = torch.zeros(1, 0, 1)
        return [found.get(str(i), Scores(nothing, nothing.bool())) for i in range(len(sides))]

    def sample(
        self, prompts: Sequence[Sequence[int]], samples: int, max_new_tokens: int, generator: torch.Generator
    ) -> Sampled:
        """Samples behind prompts of ids; see `Sampler.sample`."""
        texts = [" ".join(map(str, ids)) for ids in prompts]
        with left_alone(self.model):
            return self.sampler.sample(texts, samples, max_new_tokens=max_new_tokens, generator=generator)


@contextlib.contextmanager
def left_alone(model: torch.nn.Module) -> Iterator[None]:
    """Compute without dropout for a while, and leave no trace: modes, what is trained, and the generators of
    random numbers are put back.
    """
    modes = {module: module.training for module in model.modules()}
    trained = {p: p.requires_grad for p in model.parameters()}
    device = next(model.parameters()).device
    devices = [device] if device.type == "cuda" else []
    model.eval()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, flag in trained.items():
            parameter.requires_grad_(flag)


def unwrapped(trainer: Any) -> tuple[PreTrainedModel, Any]:
    """The Hugging Face model that a trainer trains, and the adapter's wrapper around it, None without one.

    Raises:
        UsageError: processes share the layers of the model, or an adapter lies outside of it.
    """
    zero = getattr(getattr(trainer.accelerator.state, "deepspeed_plugin", None), "zero_stage", 0)
    if trainer.is_fsdp_enabled or zero == 3:
        raise UsageError(
            "PreferenceDiagnostics reads whole weights, and here every process has a share of them (FSDP or "
            "ZeRO-3); `xpo-bench evaluate` measures the checkpoints"
        )
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not hasattr(model, "peft_config"):
        return model, None
    if any(config.is_prompt_learning for config in model.peft_config.values()):
        raise UsageError(
            "PreferenceDiagnostics: prompt-learning adapters put virtual tokens before a row, which the "
            "suite does not score"
        )
    return (model.get_base_model() if hasattr(model, "get_base_model") else model), model


@contextlib.contextmanager
def without_adapter(model: Any) -> Iterator[None]:
    """The policy that an adapter's training began with: TRL's copy of the adapter if there is one, else the
    base.
    """
    if "ref" not in model.peft_config:
        with model.disable_adapter():
            yield
        return
    active = model.active_adapter
    model.set_adapter("ref")
    try:
        yield
    finally:
        model.set_adapter(active)
