"""How text is read: one tokenizer for all models of an evaluation, or a refusal that says what differs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from xpo_bench.checkpoints import locate
from xpo_bench.errors import UsageError
from xpo_bench.evaluating.named import Place, origin_of
from xpo_bench.evaluating.weights import ADAPTER
from xpo_bench.policy.language.tokenizers import ByteTokenizer, IdTokenizer, ModelTokenizer, Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
"""Files of which a directory with a tokenizer has one."""
ALL_FILES = (*FILES, "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
PROBES = (
    "Hello, world!",
    "  two  spaces\n\tand a tab",
    "naïve café, 12345 € — 東京",
    "def f(x):\n    return x",
)
"""Texts that two tokenizers of one vocabulary have to read alike."""


class Readers:
    """The tokenizers of an evaluation: that of the checkpoints, and the model that the others share it with.

    Args:
        reference: the model that all are compared with. places: the checkpoints.

    Attributes:
        source: the model whose tokenizer reads the data.

    Raises:
        UsageError: a checkpoint reads text otherwise than the reference or another checkpoint.
    """

    def __init__(self, reference: Place, places: Sequence[Place], trust: bool) -> None:
        self.trust = trust
        self.source = next((p for p in places if has_tokenizer(p)), reference)
        self.notes: list[str] = []
        if self.plain(self.source):
            self._require_plain([reference, *places])
            return
        mine = self._inner(self.source)
        for place in [reference, *places]:
            if has_tokenizer(place) and place.model != self.source.model:
                self._compare(place, mine, strict=place is not reference)

    def tokenizer(self, stops: Sequence[int], known: int) -> Tokenizer:
        """What turns text into ids, for a model with these further ids that end a text.

        Args:
            known: ids that the model knows.
        """
        kind = self.plain(self.source)
        if kind == "bytes":
            return ByteTokenizer()
        return IdTokenizer(known) if kind == "ids" else ModelTokenizer(self._inner(self.source), stops, known)

    @property
    def eos(self) -> bool:
        """Whether completions end with the end-of-sequence token; policies of this suite say so."""
        return bool(origin_of(self.source).get("eos", True))

    def plain(self, place: Place) -> str | None:
        """`bytes` or `ids` of a policy of this suite that reads text so; None of all others."""
        found = origin_of(place).get("tokenizer")
        return str(found) if found in ("bytes", "ids") else None

    def _require_plain(self, places: Sequence[Place]) -> None:
        kind = self.plain(self.source)
        for place in places:
            if self.plain(place) != kind:
                raise UsageError(
                    f"{place.shown}: reads text otherwise than {self.source.shown}, which reads {kind}; "
                    "want the reference that was saved with the policy"
                )

    def _inner(self, place: Place) -> PreTrainedTokenizerBase:
        return _load(place.model, place.shown, self.trust)

    def _compare(self, place: Place, mine: PreTrainedTokenizerBase, strict: bool) -> None:
        """Refuse another vocabulary; `strict`: another template or end of text, too."""
        if _files(place) == _files(self.source):
            return
        shown, other = self.source.shown, self._inner(place)
        theirs, ours = other.get_vocab(), mine.get_vocab()
        if theirs.items() < ours.items() and _knows(place, max(ours.values())):
            # a token that was added where the model had logits to spare: nothing is read otherwise by it
            self.notes.append(
                f"tokens: those of {shown}, since {place.shown} has no "
                + ", ".join(repr(t) for t in sorted(ours.keys() - theirs.keys(), key=ours.__getitem__)[:3])
            )
        else:
            _require_same_vocabulary(place.shown, theirs, shown, ours)
        for text in PROBES:
            if list(other(text)["input_ids"]) != list(mine(text)["input_ids"]):
                raise UsageError(
                    f"{place.shown}: its tokenizer reads {text[:20]!r} otherwise than that of "
                    f"{shown}, so that "
                    "their probabilities are of other tokens; want models of one tokenizer"
                )
        for what, a, b in (
            ("chat template", other.chat_template, mine.chat_template),
            ("end-of-sequence token", other.eos_token, mine.eos_token),
        ):
            if a != b and strict:
                raise UsageError(
                    f"{place.shown}: has another {what} than {shown}, so that both would be given "
                    "other texts; "
                    "evaluate them apart"
                )
            if a != b:
                self.notes.append(
                    f"{what}: that of {shown}, since the reference {place.shown} has another or none"
                )


def has_tokenizer(place: Place) -> bool:
    """Whether a model comes with its tokenizer, which trainers need not save."""
    if locate(place.model).gguf or origin_of(place).get("tokenizer") in ("bytes", "ids"):
        return True
    return any((place.folder / name).is_file() for name in FILES)


def _knows(place: Place, token: int) -> bool:
    """Whether a model has a logit of a token; an adapter has those of its base, which is compared itself."""
    if place.kind == ADAPTER:
        return True
    try:
        config = json.loads((place.folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return False
    size = config.get("vocab_size", config.get("text_config", {}).get("vocab_size", 0))
    return isinstance(size, int) and token < size


def _require_same_vocabulary(a: str, of_a: dict[str, int], b: str, of_b: dict[str, int]) -> None:
    if of_a == of_b:
        return
    if len(of_a) != len(of_b):
        raise UsageError(
            f"{a}: its tokenizer has {len(of_a):,} tokens and that of {b} {len(of_b):,}; a KL needs one "
            "vocabulary: want a reference with the tokenizer of the checkpoint"
        )
    token = next(t for t in sorted(of_b, key=of_b.__getitem__) if of_a.get(t) != of_b[t])
    theirs = f"{token!r} as {of_a[token]}" if token in of_a else f"no {token!r}"
    raise UsageError(
        f"{a}: its tokenizer has {theirs} and that of {b} has it as {of_b[token]}; a KL needs one "
        "vocabulary: "
        "want a reference with the tokenizer of the checkpoint"
    )


def _files(place: Place) -> str:
    """A hash of the files of a tokenizer: equal ones need not be compared."""
    digest = blake2b(digest_size=16)
    for name in ALL_FILES:
        path = place.folder / name
        if path.is_file():
            digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=8)
def _load(model: str, shown: str, trust: bool) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    from xpo_bench.policy.language.pretrained import first_sentence, quiet

    options = {**locate(model).options(), "trust_remote_code": trust}
    try:
        with quiet():
            found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(locate(model).place, **options)
    except Exception as error:  # tokenizers fail in many ways
        raise UsageError(f"{shown}: its tokenizer cannot be read: {first_sentence(error)}") from error
    return found
