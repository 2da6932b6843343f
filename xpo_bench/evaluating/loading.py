"""Checkpoints as policies: one model in memory at a time."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpo_bench.contract.settings import ModelSpec
from xpo_bench.errors import UsageError
from xpo_bench.evaluating.named import Place, json_object, place_of
from xpo_bench.evaluating.tokens import Readers
from xpo_bench.evaluating.weights import ADAPTER, same_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from xpo_bench.policy.language.causal_lm import CausalLM


class NotFinite(Exception):
    """The weights of a model hold NaN or infinity, as those of a training that diverged."""


@dataclass(frozen=True)
class Loader:
    """Makes policies of places.

    Args:
        reference: the model that checkpoints are compared with. base: what adapters stand on, where it was
            said. batch_tokens: tokens of a forward pass; None leaves it to the device.
    """

    reference: Place
    readers: Readers
    base: Place | None
    dtype: str
    device: str
    batch_tokens: int | None
    trust: bool
    _bases: dict[Place, Place] = field(default_factory=dict, compare=False)

    def base_of(self, place: Place) -> Place:
        """The model that an adapter stands on.

        Raises:
            UsageError: it cannot be had, or another one was said.
        """
        if place not in self._bases:  # whole models may have to be read to tell
            self._bases[place] = self._base_of(place)
        return self._bases[place]

    def _base_of(self, place: Place) -> Place:
        named = _config(place).get("base_model_name_or_path")
        if self.base is not None:
            self._check_base(place, named)
            return self.base
        if not named:
            raise UsageError(f"{place.shown}: adapter_config.json names no base model; say which with --base")
        if named in (self.reference.shown, self.reference.model) or _same(named, self.reference):
            return self.reference
        try:
            found = place_of(_beside(place, named))
        except UsageError as error:
            raise UsageError(
                f"{place.shown}: its base {named!r} cannot be had ({error}); say where it is with --base"
            ) from error
        if same_model(found.folder, self.reference.folder):
            return self.reference
        raise UsageError(
            f"{place.shown}: was trained on {named}, and the reference {self.reference.shown} has "
            "other weights or another configuration; "
            f"want --reference {named}, or --base {named} if log-ratios are to hold the difference "
            "of both, too"
        )

    def _check_base(self, place: Place, named: object) -> None:
        """Refuse another base than the one that is named, where both can be looked at."""
        assert self.base is not None
        if (
            not isinstance(named, str)
            or named in (self.base.shown, self.base.model)
            or _same(named, self.base)
        ):
            return
        try:
            other = place_of(_beside(place, named))
        except UsageError:
            return  # moved or renamed: shapes are compared where the adapter is loaded
        if not same_model(other.folder, self.base.folder):
            raise UsageError(
                f"{place.shown}: was trained on {named}, and --base {self.base.shown} has "
                "other weights or another configuration"
            )

    def policy(self, place: Place) -> CausalLM:
        """The policy of a place. One that nobody holds any more is out of memory before it is loaded.

        Raises:
            NotFinite: weights that nothing can be computed with.
        """
        from xpo_bench.policy.language.causal_lm import CausalLM
        from xpo_bench.policy.language.model_facts import end_ids
        from xpo_bench.policy.language.pretrained import known_ids, quiet

        release(self.device)
        with quiet():
            model = self._model(place)
            if not all(bool(p.isfinite().all()) for p in model.parameters()):
                raise NotFinite(place.shown)
            ends = end_ids(model.config, getattr(model, "generation_config", None))
            tokenizer = self.readers.tokenizer(ends, known_ids(model))
            spec = ModelSpec(name=place.shown, eos=self.readers.eos, trust_remote_code=self.trust)
            policy = CausalLM(model, tokenizer, spec, dtype=self.dtype, device=self.device)
        if self.batch_tokens is not None:
            policy.scorer.tokens_per_forward = self.batch_tokens
            policy.sampler.tokens_per_batch = self.batch_tokens
        return policy

    def _model(self, place: Place) -> PreTrainedModel:
        from xpo_bench.policy.language.pretrained import load_weights

        if place.kind != ADAPTER:
            return _named(
                place, lambda: load_weights(ModelSpec(name=place.model, trust_remote_code=self.trust))
            )
        base = self.base_of(place)
        return adapted(self._model(base), place, base)


def adapted(model: PreTrainedModel, place: Place, base: Place) -> PreTrainedModel:
    """A model with an adapter merged into its weights, in their dtype.

    Raises:
        UsageError: peft is not installed, or the adapter is of another base, or has no weights to merge.
    """
    try:
        from peft import PeftModel
    except ImportError:
        raise UsageError(
            f"{place.shown}: an adapter needs the package peft; install it with: pip install "
            "'xpo-bench[lora]'"
        ) from None
    kind = _config(place).get("peft_type")
    _require_shapes(model, place, base)
    try:
        wrapped = PeftModel.from_pretrained(model, str(place.folder))
    except (RuntimeError, ValueError, KeyError) as error:
        from xpo_bench.policy.language.pretrained import first_sentence

        raise UsageError(
            f"{place.shown}: does not fit its base {base.shown}: {first_sentence(error)}; "
            "want the model that it was trained on (--base)"
        ) from error
    if not hasattr(wrapped, "merge_and_unload") or not hasattr(wrapped.base_model, "merge_and_unload"):
        raise UsageError(
            f"{place.shown}: an adapter of type {kind} has no weights that can be merged; want LoRA"
        )
    merged: PreTrainedModel = wrapped.merge_and_unload()
    return merged


def _require_shapes(model: PreTrainedModel, place: Place, base: Place) -> None:
    """Refuse an adapter of which a layer is missing in the base, or has another shape there."""
    from safetensors import safe_open

    layers = {name: module for name, module in model.named_modules() if hasattr(module, "weight")}
    for file in sorted(place.folder.glob("adapter_*.safetensors")):
        with safe_open(file, "pt") as opened:
            for key in opened.keys():  # noqa: SIM118
                for part, axis, side in ((".lora_A.", 1, -1), (".lora_B.", 0, 0)):
                    if part not in key:
                        continue
                    layer = key.partition(part)[0].removeprefix("base_model.model.")
                    found = layers.get(layer)
                    if found is None:
                        raise UsageError(
                            f"{place.shown}: adapts {layer}, which its base {base.shown} does not have; "
                            "want the model that it was trained on (--base)"
                        )
                    own = opened.get_slice(key).get_shape()[axis]
                    theirs = tuple(found.weight.shape)
                    if type(found).__name__ == "Linear" and own != theirs[side]:
                        raise UsageError(
                            f"{place.shown}: adapts {layer} of width {own}, and in its base "
                            f"{base.shown} it has "
                            f"{theirs[side]}; want the model that it was trained on (--base)"
                        )


def release(device: str) -> None:
    """Give the memory of a model that is no longer used back."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def _named(place: Place, load: Any) -> Any:
    """What `load` returns; errors name the place as the user did."""
    try:
        return load()
    except UsageError as error:
        raise UsageError(str(error).replace(repr(place.model), repr(place.shown))) from error


def _config(place: Place) -> dict[str, Any]:
    found = json_object(place.folder / "adapter_config.json")
    if found is None:
        raise UsageError(f"{place.shown}: adapter_config.json is incomplete or corrupt")
    return found


def _beside(place: Place, named: str) -> str:
    """A path that an adapter names, which may be relative to where it lies; other names as they are."""
    beside = place.folder / named
    return str(beside) if not Path(named).exists() and beside.is_dir() else named


def _same(named: str, place: Place) -> bool:
    """Whether a path is that of a place."""
    path = Path(named)
    return path.is_dir() and path.resolve() == place.folder.resolve()
