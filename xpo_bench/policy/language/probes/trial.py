"""Rows to try ways of computing on, and whether two of them agree."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xpo_bench.policy.language.layout import Block
from xpo_bench.policy.language.model_facts import text_config, vocabulary_of
from xpo_bench.policy.language.network import Network
from xpo_bench.policy.language.tokenize import Row
from xpo_bench.policy.language.windows import budgets, reach

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LONGEST = 640
"""Tokens of the longest row that is tried. A window that is longer is taken from the configuration unseen."""
USUAL = 48
"""Tokens of the longest row that is tried on a model without windows."""
BEYOND = 16
"""Tokens by which rows exceed a window: enough to show what happens behind it."""
ROUNDING = 1e-5
"""What two ways of computing may differ by, as a fraction of the largest number, or 30 times what padding
alone changes.
"""
DIFFERS = "differs"
"""What the record says of a way of computing that gives other numbers."""


@dataclass(frozen=True)
class Trial:
    """Rows to try things on.

    Args:
        name: what errors call the model. context: tokens of a row of whatever is tried, at most.
        limits: lengths from which a row may be computed otherwise. within: the longest row whose every token
            sees all before it.
        ids: what rows are made of. rows: as long as the windows allow. near: those within every window.
        noise: what padding alone changes, as a fraction of the largest number.
        failed: what was tried and is not used: `differs`, or the class of the exception. It is added to.
    """

    network: Network
    name: str
    context: int
    limits: tuple[int, ...]
    within: int
    ids: tuple[int, ...]
    rows: tuple[Row, ...]
    near: tuple[Row, ...]
    noise: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, network: Network, context: int, name: str) -> Trial:
        """Rows that are longer than every window that the model states, as far as `LONGEST` allows."""
        config = network.model.config
        context = min(context, network.positions.first)
        # beyond `first` positions are encoded otherwise, and rows go by themselves whatever is found out here
        limits, within = tuple(budgets(config)), reach(config)
        tried = [limit + BEYOND for limit in limits if limit + BEYOND <= min(LONGEST, context)]
        longest = min(max([USUAL, *tried]), context)
        ids = tuple(plain_ids(network.model, longest + 64))
        rows = rows_of(ids, longest)
        near = rows if longest <= within else rows_of(ids, within)
        return cls(network, name, context, limits, within, ids, rows, near)

    @property
    def model(self) -> str:
        """The model, as errors call it."""
        return f"model {self.name!r} ({type(self.network.model).__name__})"

    def row_ids(self, row: Row) -> Tensor:
        """A row as the model's input, shape (1, L)."""
        return torch.tensor([row.ids], device=self.network.device)

    def features(self, rows: Sequence[Row], parts: Sequence[Block], **how: bool) -> Tensor:
        """Features of rows by one forward pass, shape (K, width)."""
        return self.network.completion_features(rows, parts, **how)[0]

    def alone(self, rows: Sequence[Row]) -> Tensor:
        """Features of rows that are computed one by one: what all else has to agree with."""
        return torch.cat([self.features([row], [block(row)], whole=True) for row in rows])

    def together(self, rows: Sequence[Row], **how: bool) -> Tensor:
        """Features of rows that are computed as one batch, padded on the right."""
        return self.features(rows, [block(row, i) for i, row in enumerate(rows)], **how)

    def agrees(
        self, what: str, attempt: Callable[[], Tensor], expected: Tensor, scale: float | None = None
    ) -> bool:
        """Whether a way of computing gives what is expected; what it raised goes on record otherwise.

        Args:
            scale: the number that differences are a fraction of; the largest expected one by default, and
                what padding changes is then allowed for.
        """
        try:
            found = attempt()
        except Exception as error:  # whatever a model that takes no such mask, or a compiler, raises
            self.failed[what] = type(error).__name__
            return False
        # a model that padding moves further, such as one with float32 norms at float64, is allowed 30
        # times that, and never more than a thousandth
        noise = self.noise if scale is None else 0.0
        if close(found, expected, max(ROUNDING, min(30 * noise, 1e-3)), scale):
            return True
        self.failed[what] = DIFFERS
        return False

    def raised(self, what: str) -> str | None:
        """The class of the exception that a way of computing ended with, None where it ended without."""
        found = self.failed.get(what)
        return None if found == DIFFERS else found


def close(found: Tensor, expected: Tensor, fraction: float, scale: float | None = None) -> bool:
    """Whether numbers agree up to a fraction of the largest."""
    if found.shape != expected.shape:
        return False
    largest = float(expected.abs().max()) if scale is None else scale
    return bool(((found - expected).abs() <= largest * fraction).all())  # false for NaN


def block(row: Row, index: int = 0) -> Block:
    """A row that shares its prompt with no other."""
    return Block((index,), row.start, len(row.ids) - 1)


def plain_ids(model: PreTrainedModel, count: int, seed: int = 0) -> list[int]:
    """Ids that stand for nothing special, as far as the configuration says what does, drawn from a seed."""
    config = text_config(model.config)
    known = min(size for size in (*vocabulary_of(model), 256) if size > 0)
    special = {
        value
        for source in (model.config, config)
        for name, value in vars(source).items()
        if name.endswith(("token_id", "token_index")) and isinstance(value, int)
    }
    usual = [i for i in range(known) if i not in special] or list(range(known))
    rng = random.Random(seed)
    return [rng.choice(usual) for _ in range(count)]


def rows_of(ids: Sequence[int], longest: int) -> tuple[Row, ...]:
    """Rows of at most so many tokens: two prompts with three and two completions, the first of them as long
    as may be.
    """
    start = max(1, longest * 3 // 4)
    short = max(1, min(3, longest - 2))
    lengths = [
        (0, start, max(1, longest - start), 0),
        (1, short, 4, 3),
        (0, start, 5, 7),
        (1, short, 2, 13),
        (0, start, 3, 17),
    ]
    prompts = (tuple(ids[:start]), tuple(ids[5 : 5 + short]))
    found = [
        Row((*prompts[which], *ids[start + shift : start + shift + max(1, min(more, longest - at))]), at)
        for which, at, more, shift in lengths
    ]
    return tuple(dict.fromkeys(found))
