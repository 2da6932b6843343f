"""How a model reads text, without its weights: tokenizer, context and end of sequence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

from xpo_bench.checkpoints import locate
from xpo_bench.contract.settings import ModelSpec
from xpo_bench.errors import UnreachableError, UsageError
from xpo_bench.policy.language.causal_lm import context_length
from xpo_bench.policy.language.pretrained import end_ids, quiet
from xpo_bench.policy.language.tiny import tiny_tokenizer
from xpo_bench.policy.language.tokenizers import ModelTokenizer, Tokenizer


class Reader(NamedTuple):
    """A tokenizer and the longest row that the model takes, in tokens."""

    tokenizer: Tokenizer
    context: int


def load_reader(spec: ModelSpec) -> Reader:
    """Tokenizer and context of a model; its weights are neither read nor fetched.

    Raises:
        UnreachableError: a hub id that cannot be had from here.
        UsageError: what is there is no model that transformers knows.
    """
    if spec.name == "tiny":
        return Reader(tiny_tokenizer(spec), spec.context)
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    found = locate(spec.name)
    options = {**found.options(), "trust_remote_code": spec.trust_remote_code}
    with quiet():
        try:
            config = AutoConfig.from_pretrained(found.place, **options)
            inner = AutoTokenizer.from_pretrained(found.place, **options)
        except Exception as error:  # configurations and tokenizers fail in many ways
            reason = " ".join(str(error).split()).split(". ")[0][:200] or type(error).__name__
            if found.local or not isinstance(error, OSError):
                raise UsageError(
                    f"model {spec.name!r}: its tokenizer or configuration cannot be read: {reason}"
                ) from error
            raise UnreachableError(f"model {spec.name!r} cannot be reached: {reason}") from error
        try:
            words = {key: value for key, value in found.options().items() if key != "gguf_file"}
            generation = GenerationConfig.from_pretrained(found.place, **words)
        except Exception:  # many models have none
            generation = None
    tokenizer = ModelTokenizer(inner, end_ids(SimpleNamespace(config=config, generation_config=generation)))
    return Reader(tokenizer, context_length(config, tokenizer))
