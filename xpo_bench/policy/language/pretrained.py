"""Pretrained causal language models and their tokenizers, from safetensors or GGUF: weights are never
unpickled.
"""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from xpo_bench.checkpoints import PICKLED, Checkpoint, locate
from xpo_bench.contract.settings import ModelSpec
from xpo_bench.errors import UnreachableError, UsageError
from xpo_bench.policy.language.model_facts import end_ids, vocabulary_of
from xpo_bench.policy.language.tokenizers import IdTokenizer, ModelTokenizer, Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_pretrained(spec: ModelSpec) -> tuple[PreTrainedModel, Tokenizer]:
    """A pretrained model with float32 weights on the CPU, and its tokenizer. The global generator is not
    advanced.

    Args:
        spec: `name` is a packaged model (`smollm2`), a directory or a hub id.

    Raises:
        UnreachableError: a hub id that cannot be had from here.
        UsageError: anything else that is not a causal language model, or pickled weights only.
    """
    from transformers import AutoTokenizer

    if spec.tokenizer == "bytes":
        raise UsageError(f"model {spec.name!r}: tokenizer 'bytes' is for model tiny; use 'own' or 'ids'")
    found = locate(spec.name)
    with _one_line(spec, found):
        model = load_weights(spec)
        known = known_ids(model)
        if spec.tokenizer == "ids":
            return model, IdTokenizer(known)
        ends = end_ids(model.config, getattr(model, "generation_config", None))
        options = {**found.options(), "trust_remote_code": spec.trust_remote_code}
        inner = AutoTokenizer.from_pretrained(found.place, **options)
        return model, ModelTokenizer(inner, ends, known)


def load_weights(spec: ModelSpec) -> PreTrainedModel:
    """The model of `load_pretrained` without a tokenizer, which its directory may lack.

    Raises:
        UnreachableError, UsageError: as there.
    """
    found = locate(spec.name)
    if found.local and not found.gguf:
        _require_weights(spec.name, Path(found.place))
    with _one_line(spec, found):
        return _weights(spec, found, {**found.options(), "trust_remote_code": spec.trust_remote_code})


def known_ids(model: PreTrainedModel) -> int:
    """Ids that a model has both an embedding and a logit for."""
    vocabulary, embeddings = vocabulary_of(model)
    return min(vocabulary, embeddings) or max(vocabulary, embeddings)


@contextlib.contextmanager
def _one_line(spec: ModelSpec, found: Checkpoint) -> Iterator[None]:
    """Turn whatever is raised while a model is loaded into an error of one line."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # configurations, weights and tokenizers fail in many ways
        reason = first_sentence(error)
        if found.local or not isinstance(error, OSError) or _says_no_such_model(error):
            raise UsageError(
                f"model {spec.name!r} cannot be loaded as a causal language model: {reason}"
            ) from error
        raise UnreachableError(f"model {spec.name!r} cannot be reached: {reason}") from error


def _weights(spec: ModelSpec, found: Checkpoint, options: dict[str, object]) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    with contextlib.ExitStack() as context:
        # weights that a checkpoint lacks are drawn, and refused below
        context.enter_context(torch.random.fork_rng(devices=[]))
        if found.gguf:  # its progress bar knows no switch
            context.enter_context(contextlib.redirect_stderr(io.StringIO()))
        model, info = AutoModelForCausalLM.from_pretrained(
            found.place,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            # where peft is installed, adapters are looked for
            adapter_kwargs={"local_files_only": options["local_files_only"]},
            **options,
        )
        lacking = sorted(info.get("missing_keys", ()))
        if lacking:
            raise UsageError(
                f"model {spec.name!r} is not a causal language model: its weights lack {lacking[0]}"
            )
        return _plain(model) if found.gguf else model


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    """A model as if it had never been quantised: one that was read from GGUF refuses to be saved."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh = type(model)(config)
    fresh.load_state_dict(model.state_dict())
    fresh.generation_config = model.generation_config
    return fresh


def _require_weights(name: str, folder: Path) -> None:
    """Refuse a path that is no directory, no model, or holds pickled weights alone."""
    if not folder.is_dir():
        raise UsageError(f"model path {name!r} is not a directory")
    if not (folder / "config.json").is_file():
        raise UsageError(f"model path {name!r} is not a model: it has no config.json")
    files = sorted(file.name for file in folder.iterdir())
    pickled = [file for file in files if file.endswith(PICKLED)]
    if pickled and not any(file.endswith(".safetensors") for file in files):
        raise UsageError(
            f"model path {name!r} holds pickled weights only ({pickled[0]}), which run code when they are "
            "read; want model.safetensors, as save_pretrained writes it"
        )


def _says_no_such_model(error: BaseException | None) -> bool:
    """Whether the hub was reached, or need not be, to know that there is no such model."""
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    while error is not None:
        if isinstance(error, HFValidationError | RepositoryNotFoundError):
            return True
        error = error.__cause__ or error.__context__
    return False


def first_sentence(error: Exception, limit: int = 200) -> str:
    """What an error says, in one line; its class where it says nothing."""
    text = " ".join(str(error).split()).split(". ")[0] or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence log lines of transformers and the hub client, warnings and progress bars."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    verbosity, hub_verbosity, bars = (
        logging.get_verbosity(),
        hub_logging.get_verbosity(),
        logging.is_progress_bar_enabled(),
    )
    logging.set_verbosity_error()
    hub_logging.set_verbosity(40)  # errors only
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if bars:
            logging.enable_progress_bar()
