"""How a model reads text, without its weights: tokenizer, context and end of sequence."""

from __future__ import annotations

from collections.abc import Sequence

from xpo_bench.checkpoints import locate
from xpo_bench.contract.examples import Completion, Example
from xpo_bench.contract.settings import ModelSpec
from xpo_bench.errors import UnreachableError, UsageError
from xpo_bench.policy.language.fit import Fitted, fit
from xpo_bench.policy.language.model_facts import context_length, end_ids
from xpo_bench.policy.language.pretrained import first_sentence, quiet
from xpo_bench.policy.language.tiny import tiny_tokenizer
from xpo_bench.policy.language.tokenize import Encoded, encode
from xpo_bench.policy.language.tokenizers import ModelTokenizer, Tokenizer

FITS = 8
"""Data sets of which it is remembered how their rows fit."""


class Reader:
    """A tokenizer, and what rows may be.

    Args:
        context: the longest row that the model takes, in tokens. eos: completions end with EOS.
    """

    def __init__(self, tokenizer: Tokenizer, context: int, eos: bool) -> None:
        self.tokenizer, self.context, self.eos = tokenizer, context, eos
        self._fits: dict[tuple[int, str], tuple[Sequence[Example], Fitted]] = {}

    @property
    def stops(self) -> frozenset[int]:
        """Ids that end a sample; none where completions do not end with EOS either."""
        return self.tokenizer.stops if self.eos else frozenset()

    def encode(self, completions: Sequence[Completion], truncate: str = "prompt") -> Encoded:
        """Tokenise completions once; see `tokenize.encode` for the boundary, truncation and EOS."""
        return encode(self.tokenizer, completions, context=self.context, eos=self.eos, truncate=truncate)

    def fit(self, examples: Sequence[Example], truncate: str = "prompt") -> Fitted:
        """What becomes of the rows of a data set; see `fit.fit`. They are tokenised once."""
        key = (id(examples), truncate)
        if key not in self._fits:
            if len(self._fits) >= FITS:
                self._fits.pop(next(iter(self._fits)))
            fitted = fit(self.tokenizer, examples, context=self.context, eos=self.eos, truncate=truncate)
            self._fits[key] = (examples, fitted)  # the rows are kept alive, so that their id stays theirs
        return self._fits[key][1]


def load_reader(spec: ModelSpec) -> Reader:
    """Tokenizer and context of a model; its weights are neither read nor fetched.

    Raises:
        UnreachableError: a hub id that cannot be had from here.
        UsageError: what is there is no model that transformers knows.
    """
    if spec.name == "tiny":
        return Reader(tiny_tokenizer(spec), spec.context, spec.eos)
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    found = locate(spec.name)
    options = {**found.options(), "trust_remote_code": spec.trust_remote_code}
    with quiet():
        try:
            config = AutoConfig.from_pretrained(found.place, **options)
            inner = AutoTokenizer.from_pretrained(found.place, **options)
        except Exception as error:  # configurations and tokenizers fail in many ways
            reason = first_sentence(error)
            if found.local or not isinstance(error, OSError):
                raise UsageError(
                    f"model {spec.name!r}: its tokenizer or configuration cannot be read: {reason}"
                ) from error
            raise UnreachableError(f"model {spec.name!r} cannot be reached: {reason}") from error
        try:
            words = {key: value for key, value in found.options().items() if key != "gguf_file"}
            generation = GenerationConfig.from_pretrained(found.place, **words)
        except (OSError, ValueError):  # many models have none
            generation = None
    tokenizer = ModelTokenizer(inner, end_ids(config, generation))
    return Reader(tokenizer, context_length(config, inner), spec.eos)
