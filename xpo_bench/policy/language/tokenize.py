"""Prompts and completions as rows of token ids: those of the joint text, where each completion begins, what
is truncated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from xpo_bench.contract.examples import Completion, Text
from xpo_bench.errors import DataError, UsageError
from xpo_bench.policy.language.tokenizers import Joint, Tokenizer, common_prefix, prompt_key

TRUNCATIONS = ("prompt", "completion", "drop")
NO_CONTEXT = (
    "an empty prompt needs a tokenizer that puts a beginning-of-sequence token before a text; "
    "this model's does not"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt and one completion as ids; `ids[start:]` is the completion. Equal rows are scored once.

    Args:
        unscored: (first, last) places in `ids`, last excluded, of completion tokens that are read and not
            scored: turns of a conversation that are not the assistant's. The last token of a row is always
            scored.
    """

    ids: tuple[int, ...]
    start: int
    unscored: tuple[tuple[int, int], ...] = ()

    @property
    def tail(self) -> int:
        """Tokens of the completion, read or scored."""
        return len(self.ids) - self.start

    @property
    def length(self) -> int:
        """Tokens of the completion that are scored."""
        return self.tail - sum(last - first for first, last in self.unscored)

    @property
    def scored(self) -> Sequence[int]:
        """Places in `ids` of the scored tokens, in order."""
        everything = range(self.start, len(self.ids))
        if not self.unscored:
            return everything
        return [k for k in everything if not any(first <= k < last for first, last in self.unscored)]


@dataclass(frozen=True)
class Encoded:
    """Completions as rows of ids, tokenised once.

    Args:
        rows: the distinct rows.
        item: the row of each completion, −1 where it was dropped, shape `(E,)`.
        truncated: completions of which the prompt or the completion was truncated to fit the context.
        dropped: completions left out because they do not fit the context.
        merged: completions that share a token with their prompt.
    """

    rows: tuple[Row, ...]
    item: Tensor
    truncated: int = 0
    dropped: int = 0
    merged: int = 0
    _items: list[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_items", self.item.tolist())

    def __len__(self) -> int:
        return len(self._items)

    def row(self, index: int) -> Row | None:
        """The row of completion `index`; None for index −1 and for what was dropped."""
        item = self._items[index] if index >= 0 else -1
        return self.rows[item] if item >= 0 else None

    @cached_property
    def width(self) -> int:
        """The longest completion in scored tokens, at least 1."""
        return max((row.length for row in self.rows), default=1)

    @staticmethod
    def of(rows: Iterable[Row | None], *, truncated: int = 0, merged: int = 0) -> Encoded:
        """Collect rows, None standing for what was dropped; equal rows are kept once."""
        distinct: dict[Row, int] = {}
        item = [-1 if row is None else distinct.setdefault(row, len(distinct)) for row in rows]
        return Encoded(
            tuple(distinct), torch.tensor(item, dtype=torch.long), truncated, item.count(-1), merged
        )


def prompt_ids(tokenizer: Tokenizer, prompts: Sequence[str]) -> list[list[int]]:
    """Ids of each prompt by itself: what a model reads before it writes.

    Raises:
        DataError: a prompt has no tokens, so the first completion token has no context.
    """
    texts = {prompt_key(text): text for text in prompts}
    found = dict(zip(texts, tokenizer.prompts(list(texts.values())), strict=True))
    if not all(found.values()):
        raise DataError(NO_CONTEXT)
    return [found[prompt_key(text)] for text in prompts]


@dataclass(frozen=True)
class Tokens:
    """One completion behind its prompt, before anything is truncated.

    Args:
        prompt: ids of the prompt. completion: ids of the completion, EOS included. unscored: as in `Row`,
            counted from the completion's first id. own: ids that the prompt has by itself: more than `prompt`
            where the two merge.
    """

    prompt: list[int]
    completion: list[int]
    unscored: tuple[tuple[int, int], ...]
    own: int


def tokens(tokenizer: Tokenizer, completions: Sequence[Completion], eos: bool) -> list[Tokens]:
    """Ids of completions, those of the joint text of each with its prompt.

    Where the two merge into one token, the completion begins with the first id that differs from the prompt's
    own. A completion that a policy drew has the ids that were drawn. EOS follows a completion once, unless a
    chat template wrote the prompt: then the template ended the completion too.

    Raises:
        DataError: a prompt or a completion without tokens.
    """
    drawn = [c for c in completions if _drawn(c) is not None]
    joint = [c for c in completions if _drawn(c) is None]
    alone = dict(
        zip(
            (prompt_key(c.prompt) for c in drawn),
            prompt_ids(tokenizer, [c.prompt for c in drawn]),
            strict=True,
        )
    )
    found = {(prompt_key(c.prompt), str(c.text)): c for c in joint}
    known = dict(zip(found, tokenizer.joint([(c.prompt, c.text) for c in found.values()]), strict=True))
    out = []
    for c in completions:
        ids = _drawn(c)
        if ids is not None:
            prompt = alone[prompt_key(c.prompt)]
            out.append(Tokens(prompt, list(ids), (), len(prompt)))
        else:
            out.append(_tokens(tokenizer, c, known[prompt_key(c.prompt), str(c.text)], eos))
    return out


def _drawn(c: Completion) -> tuple[int, ...] | None:
    return c.text.ids if isinstance(c.text, Text) else None


def _tokens(tokenizer: Tokenizer, c: Completion, joint: Joint, eos: bool) -> Tokens:
    rendered = prompt_key(c.prompt)[1]
    shift = c.text.shift if isinstance(c.text, Text) else 0
    # `shift` lets both sides of a pair begin at one place, though the prompt merges with one of them alone
    start = min(joint.start, joint.own - shift)
    prompt, completion = joint.ids[:start], joint.ids[start:]
    spoken = c.text.spoken if isinstance(c.text, Text) else None
    unscored = () if spoken is None else _unscored(tokenizer, c, joint.ids, start, spoken)
    if eos and not rendered and tokenizer.eos is not None:  # once, where the data spells it too
        while completion and completion[-1] == tokenizer.eos:
            completion.pop()
        completion.append(tokenizer.eos)
    if not prompt:
        raise DataError(NO_CONTEXT)
    if not completion:
        raise DataError(f"completion {c.text[:60]!r} has no tokens")
    return Tokens(prompt, completion, unscored, joint.own)


def _unscored(
    tokenizer: Tokenizer, c: Completion, ids: Sequence[int], start: int, spoken: Sequence[tuple[int, int]]
) -> tuple[tuple[int, int], ...]:
    """Tokens of a completion that are not the assistant's, counted from the completion's first id.

    A character's place among the ids is where the ids of the text up to it end; a token that reaches over the
    border counts as what stands behind it.
    """
    # 0 and the end of the text are known places; every other edge is found by encoding the text up to it
    edges = sorted({place for span in spoken for place in span} - {0, len(c.text)})
    parts = tokenizer.joint([(c.prompt, c.text[:edge]) for edge in edges])
    place = {0: start, len(c.text): len(ids)}
    place |= {edge: common_prefix(part.ids, ids) for edge, part in zip(edges, parts, strict=True)}
    out, last = [], start
    for first, end in spoken:
        if place[first] > last:
            out.append((last - start, place[first] - start))
        last = place[end]
    return tuple(out)


def truncate_left(ids: Sequence[int], keep: int, lead: Sequence[int]) -> list[int]:
    """The last `keep` ids of a prompt (at least one); what the tokenizer puts before every text stays before
    it.
    """
    if len(ids) <= keep:
        return list(ids)
    lead = list(lead)[:keep] if list(ids[: len(lead)]) == list(lead) else []
    return [*lead, *ids[len(ids) - keep + len(lead) :]]


def fit_row(
    found: Tokens, context: int, truncate: str, lead: Sequence[int], reserve: int = 0
) -> tuple[Row | None, bool]:
    """The row of a completion within the context, and whether it was truncated; None where it is dropped.

    Args:
        reserve: tokens that the prompt leaves to completions when it is truncated, if the completion itself
            has fewer.
    """
    prompt, text = found.prompt, found.completion
    room = max(len(text), reserve)
    if len(prompt) + (room if truncate == "prompt" else len(text)) <= context:
        return _row(prompt, text, found), False
    if truncate == "drop" or (truncate == "completion" and len(prompt) >= context):
        return None, False
    if truncate == "completion":
        text = text[: context - len(prompt)]
    else:
        text = text[: context - 1]
        prompt = truncate_left(prompt, context - min(room, context - 1), lead)
    row = _row(prompt, text, found)
    return (row, True) if row.length else (None, False)


def _row(prompt: Sequence[int], text: Sequence[int], found: Tokens) -> Row:
    start, end = len(prompt), len(prompt) + len(text)
    unscored = tuple((start + a, min(start + b, end)) for a, b in found.unscored if start + a < end)
    # truncated within another's turn: what nobody scores need not be read
    if unscored and unscored[-1][1] == end:
        end = unscored[-1][0]
        unscored = unscored[:-1]
    return Row((*prompt, *text[: end - start]), start, unscored)


def encode(
    tokenizer: Tokenizer,
    completions: Sequence[Completion],
    *,
    context: int,
    eos: bool,
    truncate: str = "prompt",
) -> Encoded:
    """Tokenise completions, each distinct one once.

    Args:
        context: the longest row in tokens.
        eos: end completions with EOS where no chat template ended them. A completion that is truncated loses
            it.
        truncate: what is truncated in rows longer than the context: `prompt` loses its left end (a completion
            that leaves no room for one prompt token loses its right end), `completion` its right end (dropped
            when nothing would remain), `drop` leaves the row out.

    Raises:
        UsageError: `truncate` is none of these, or (DataError) a prompt or completion without tokens.
    """
    if truncate not in TRUNCATIONS:
        raise UsageError(f"truncate is {truncate!r}; it must be one of {', '.join(TRUNCATIONS)}")
    distinct = list(dict.fromkeys(completions))
    made: dict[Completion, Row | None] = {}
    cut: set[Completion] = set()
    merged: set[Completion] = set()
    for c, found in zip(distinct, tokens(tokenizer, distinct, eos), strict=True):
        drawn = isinstance(c.text, Text) and c.text.ids is not None
        reserve = c.text.reserve if isinstance(c.text, Text) else 0
        # a sample was drawn behind a prompt truncated on its left, whatever is done to rows of data
        made[c], was_cut = fit_row(found, context, "prompt" if drawn else truncate, tokenizer.lead, reserve)
        if was_cut:
            cut.add(c)
        if len(found.prompt) < found.own:
            merged.add(c)
    return Encoded.of(
        (made[c] for c in completions),
        truncated=sum(c in cut for c in completions),
        merged=sum(c in merged for c in completions),
    )
