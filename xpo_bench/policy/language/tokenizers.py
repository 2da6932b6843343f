"""Tokenizers: text to the ids that a model would read, and back.

The boundary between prompt and completion is where it is in the ids of the joint text. A completion that is
encoded alone can begin with a token that the joint text does not have: tokenizers that mark the start of a
text put a "▁" before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

from xpo_bench.contract.examples import Text
from xpo_bench.errors import DataError, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Joint(NamedTuple):
    """Prompt and completion as the ids of one text.

    Args:
        ids: of prompt and completion. start: where the completion's begin.
        own: ids that the prompt has by itself. `start < own` where prompt and completion merge: the
            completion then begins with the first id that differs from the prompt's own.
    """

    ids: list[int]
    start: int
    own: int


class Tokenizer(Protocol):
    """Text to ids, and back."""

    @property
    def name(self) -> str: ...
    @property
    def lead(self) -> tuple[int, ...]:
        """Ids that the tokenizer itself puts before a text: its BOS, or nothing."""
        ...

    @property
    def eos(self) -> int | None: ...
    @property
    def stops(self) -> frozenset[int]:
        """Ids that end a completion when they are drawn, as far as the tokenizer knows them."""
        ...

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each prompt by itself: with `lead`, unless a chat template wrote it."""
        ...

    def joint(self, pairs: Sequence[tuple[str, str]]) -> list[Joint]:
        """Ids of each (prompt, completion) as one text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special tokens left out."""
        ...


class _Separate:
    """Tokenizers by which a text has the same ids wherever it stands."""

    lead: tuple[int, ...] = ()

    def ids(self, text: str) -> list[int]:
        raise TypeError(f"{type(self).__name__} does not define ids()")

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        return [led(self.lead, self.ids(text)) for text in texts]

    def joint(self, pairs: Sequence[tuple[str, str]]) -> list[Joint]:
        out = []
        for prompt, text in pairs:
            before = led(self.lead, self.ids(prompt))
            out.append(Joint([*before, *self.ids(text)], len(before), len(before)))
        return out


class ByteTokenizer(_Separate):
    """UTF-8 bytes as ids 0..255, then BOS 256, EOS 257 and padding 258."""

    name = "bytes"
    lead: tuple[int, ...] = (256,)
    eos: int | None = 257
    stops = frozenset({257})
    pad = 258

    def ids(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")


@dataclass(frozen=True)
class IdTokenizer(_Separate):
    """Whitespace-separated token ids below `vocab_size`, with neither BOS nor, by default, EOS."""

    vocab_size: int
    name: str = "ids"
    eos: int | None = None

    @property
    def stops(self) -> frozenset[int]:
        return frozenset() if self.eos is None else frozenset({self.eos})

    def ids(self, text: str) -> list[int]:
        try:
            ids = [int(word) for word in text.split()]
        except ValueError:
            raise DataError(f"{text[:60]!r} is not a list of token ids separated by spaces") from None
        wrong = [i for i in ids if not 0 <= i < self.vocab_size]
        if wrong:
            raise DataError(
                f"token id {wrong[0]} in {text[:60]!r} is outside the vocabulary 0..{self.vocab_size - 1}"
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


class ModelTokenizer:
    """The tokenizer that ships with a Hugging Face model.

    Args:
        stops: further ids that end a completion, such as those of the model's generation settings.
        vocabulary: ids that the model knows; any number by default.

    Raises:
        UsageError: here or where a text is tokenised, an id that the model does not know.
    """

    name = "own"

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[int] = (), vocabulary: int | None = None
    ) -> None:
        self.inner = tokenizer
        self.vocabulary = vocabulary
        self.bos: int | None = tokenizer.bos_token_id
        self.eos: int | None = tokenizer.eos_token_id
        self._stops = frozenset(stops)
        if self.eos is not None:
            require_known([self.eos], self.vocabulary, self)

    @cached_property
    def lead(self) -> tuple[int, ...]:
        """What the tokenizer puts before a text, found by asking it."""
        bare, whole = self._ids(["a"])[0], list(self.inner("a", verbose=False)["input_ids"])
        require_known(whole, self.vocabulary, self)
        # what stands before the bare ids; a tokenizer may put EOS behind them too
        places = (k for k in range(len(whole) - len(bare) + 1) if whole[k : k + len(bare)] == bare)
        return tuple(whole[: next(places, 0)])

    @cached_property
    def stops(self) -> frozenset[int]:
        """EOS, what was given, and what the chat template writes at the end of an answer."""
        own = [i for i in (self.eos, self.terminator) if i is not None]
        return self._stops.union(own)

    @cached_property
    def terminator(self) -> int | None:
        """The special token that the chat template writes after an answer; None where it writes none."""
        if not self.inner.chat_template:
            return None
        answer = "Yes"
        # templates of some vision models read lists of parts alone
        for form in (answer, [{"type": "text", "text": answer}]):
            said = [{"role": "user", "content": form}, {"role": "assistant", "content": form}]
            try:
                whole = str(self.inner.apply_chat_template(said, tokenize=False))
            except (
                Exception
            ):  # templates raise what they like; rows that one refuses say so where they are read
                continue
            shown, found, tail = whole.rpartition(answer)
            if answer in shown and found:
                return self._first_special(tail)
        return None

    def _first_special(self, text: str) -> int | None:
        """The first added token of a text that is no space: some tokenizers add line breaks too."""
        added = {i: str(token) for i, token in self.inner.added_tokens_decoder.items()}
        special = {i for i, token in added.items() if not token.isspace()} | set(self.inner.all_special_ids)
        return next((i for i in self._ids([text])[0] if i in special), None) if text else None

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._led(text, ids) for text, ids in zip(texts, self._ids(texts), strict=True)]

    def joint(self, pairs: Sequence[tuple[str, str]]) -> list[Joint]:
        prompts = {prompt_key(prompt): prompt for prompt, _ in pairs}
        alone = dict(zip(prompts, self.prompts(list(prompts.values())), strict=True))
        out = []
        for (prompt, _), ids in zip(pairs, self._ids([prompt + text for prompt, text in pairs]), strict=True):
            whole, own = self._led(prompt, ids), alone[prompt_key(prompt)]
            out.append(Joint(whole, common_prefix(own, whole), len(own)))
        return out

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.inner.decode(list(ids), skip_special_tokens=True))

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of the texts alone, nothing added."""
        if not texts:
            return []
        # the tokenizer takes no subclass of str
        plain = [str(text) for text in texts]
        found = [list(ids) for ids in self.inner(plain, add_special_tokens=False, verbose=False)["input_ids"]]
        for ids in found:
            require_known(ids, self.vocabulary, self)
        return found

    def _led(self, prompt: str, ids: list[int]) -> list[int]:
        """The ids with what the tokenizer puts before a text, once: not before what a template wrote, nor
        before the same.
        """
        return ids if prompt_key(prompt)[1] else led(self.lead, ids)


def require_known(ids: Sequence[int], known: int | None, tokenizer: Tokenizer) -> None:
    """Refuse ids that a model has no embedding for.

    Args:
        known: ids that the model knows; None or 0 for any number.

    Raises:
        UsageError: an id is beyond them.
    """
    if known and ids and max(ids) >= known:
        inner = getattr(tokenizer, "inner", None)
        token = f" {inner.convert_ids_to_tokens(max(ids))!r}" if inner is not None else ""
        raise UsageError(
            f"the tokenizer gives{token} the id {max(ids)}, and the model has embeddings of {known} ids "
            "alone; want the model's own tokenizer, or a model whose embeddings were resized to it"
        )


def prompt_key(prompt: str) -> tuple[str, bool]:
    """What decides the ids of a prompt: its text, and whether a chat template wrote it."""
    return str(prompt), isinstance(prompt, Text) and prompt.rendered


def led(lead: Sequence[int], ids: list[int]) -> list[int]:
    """Ids behind what the tokenizer puts before a text; it stands there once, though a text may spell it."""
    lead = list(lead)
    while lead and ids[: len(lead)] == lead:
        ids = ids[len(lead) :]
    return lead + ids


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids two rows begin with in common."""
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
