"""The rows of a data set in tokens, before anything is truncated: lengths, edit distances, and how
completions end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xpo_bench.contract.examples import Example
from xpo_bench.errors import DataError
from xpo_bench.policy.language.fit import sides_of
from xpo_bench.policy.language.tokenize import Tokens, tokens
from xpo_bench.policy.language.tokenizers import Tokenizer


@dataclass(frozen=True)
class TokenRow:
    """One row in tokens.

    Args:
        prompt: tokens of the prompt. completions: ids of each completion, chosen before rejected, the end
            token included.
    """

    prompt: int
    completions: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class TokenRows:
    """Rows in tokens.

    Args:
        rows: one for each example; None where the tokenizer makes no token of a prompt or a completion.
        unreadable: index -> why.
    """

    rows: tuple[TokenRow | None, ...]
    unreadable: Mapping[int, str] = field(default_factory=dict)


def token_rows(tokenizer: Tokenizer, examples: Sequence[Example], eos: bool) -> TokenRows:
    """Tokenise rows as scoring does; a row of which the tokenizer makes nothing costs itself alone."""
    try:
        return TokenRows(tuple(_row(part) for part in _sides(tokenizer, examples, eos)))
    except DataError as error:
        if len(examples) == 1:
            return TokenRows((None,), {0: str(error)})
    half = len(examples) // 2  # the rows that cannot be read are few: found by halving
    first, second = (token_rows(tokenizer, part, eos) for part in (examples[:half], examples[half:]))
    unreadable = {**first.unreadable, **{half + i: why for i, why in second.unreadable.items()}}
    return TokenRows(first.rows + second.rows, unreadable)


def _sides(tokenizer: Tokenizer, examples: Sequence[Example], eos: bool) -> list[list[Tokens]]:
    each = [sides_of(e) for e in examples]
    distinct = list(dict.fromkeys(c for side in each for c in side))
    found = dict(zip(distinct, tokens(tokenizer, distinct, eos), strict=True))
    return [[found[c] for c in side] for side in each]


def _row(sides: Sequence[Tokens]) -> TokenRow:
    return TokenRow(max(len(side.prompt) for side in sides), tuple(tuple(side.completion) for side in sides))
