"""Which rows of several runs go through one network together, as many tokens of each run.

Every run's prompts are sorted by length, and those of one rank in all runs go together, so that little is
filled up. Short ones stand below one another under a mask; long ones are packed, where a mask would cost more
than the calls that do without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from xpo_bench.policy.language.layout import Block, blocks, packs
from xpo_bench.policy.language.scoring import Kind, Scorer
from xpo_bench.policy.language.tokenize import Row

LONG = 128
"""Tokens of a prompt and its completions, on average, from which they are packed."""


@dataclass
class Pass:
    """What goes through the network at once.

    Attributes:
        runs: which runs, as many tokens of each, one behind the other. rows: of all of them. places: (run,
            number of the row among the run's), None for a row that only fills up. parts: blocks of the rows.
        packed: in one row. whole: as they stand, and by themselves. tokens: that are fed, without what fills
            up.
    """

    runs: Sequence[int]
    packed: bool = False
    whole: bool = False
    rows: list[Row] = field(default_factory=list)
    places: list[tuple[int, int] | None] = field(default_factory=list)
    parts: list[Block] = field(default_factory=list)
    tokens: int = 0

    def add(self, run: int, block: Block, rows: Sequence[Row]) -> None:
        """A block of a run's rows."""
        first = len(self.rows)
        self.rows += [rows[i] for i in block.members]
        self.places += [(run, i) for i in block.members]
        self.parts.append(Block(tuple(range(first, len(self.rows))), block.start, block.length))
        self.tokens += block.length

    def fill(self, length: int) -> None:
        """A row of as many tokens that stands for nothing."""
        self.parts.append(Block((len(self.rows),), length, length))
        self.rows.append(Row((0,) * (length + 1), length))
        self.places.append(None)


def passes(rows: Sequence[Sequence[Row]], scorer: Scorer) -> Iterator[Pass]:
    """The rows of every run, each once, in forward passes of about twice `scorer.tokens_per_forward` tokens.

    Twice, because there are more products to call, and small ones.
    """
    limit = 2 * scorer.tokens_per_forward
    found = [blocks(run, limit, scorer.reach) for run in rows]
    lengths = [part.length for run in found for part in run]
    long = sum(lengths) > LONG * len(lengths)
    if not (scorer.packed and long):  # under a mask a completion is compared with its siblings, in vain
        cost = scorer.shape.per_context / scorer.shape.per_token
        found = [blocks(run, limit, scorer.reach, cost) for run in rows]
    kinds: dict[Kind, list[list[Block]]] = {}
    for r, parts in enumerate(found):
        for part in parts:
            kinds.setdefault(scorer.kind(rows[r], part), [[] for _ in rows])[r].append(part)
    for kind, by_run in sorted(kinds.items()):
        for run in by_run:
            run.sort(key=lambda part: -part.length)
        if not kind.together:
            yield from _by_themselves(rows, by_run)
        elif scorer.packed and long and not kind.beyond:
            yield from _packed(rows, by_run, limit, scorer.fill)
        else:
            yield from _padded(rows, by_run, limit)


def _by_themselves(rows: Sequence[Sequence[Row]], by_run: Sequence[Sequence[Block]]) -> Iterator[Pass]:
    for r, parts in enumerate(by_run):
        for part in parts:
            each = Pass((r,), whole=True)
            each.add(r, part, rows[r])
            yield each


def _padded(rows: Sequence[Sequence[Row]], by_run: Sequence[Sequence[Block]], limit: int) -> Iterator[Pass]:
    """As many blocks of each run, each a row of a batch; a run with fewer has rows of one token."""
    runs = [r for r, parts in enumerate(by_run) if parts]
    most = max(len(by_run[r]) for r in runs)
    start = 0
    while start < most:
        longest = max(by_run[r][start].length for r in runs if start < len(by_run[r]))
        size = max(1, limit // (longest * len(runs)))
        each = Pass(runs)
        for r in runs:
            here = by_run[r][start : start + size]
            for part in here:
                each.add(r, part, rows[r])
            for _ in range(min(size, most - start) - len(here)):
                each.fill(1)
        yield each
        start += size


def _packed(
    rows: Sequence[Sequence[Row]], by_run: Sequence[Sequence[Block]], limit: int, multiple: int
) -> Iterator[Pass]:
    """Blocks of each run of about as many tokens, one behind the other and filled up to as many."""
    runs = [r for r, parts in enumerate(by_run) if parts]
    cuts = [packs([part.length for part in by_run[r]], max(1, limit // len(runs))) for r in runs]
    for chosen in zip_longest(*cuts, fillvalue=[]):
        lengths = [sum(by_run[r][b].length for b in picked) for r, picked in zip(runs, chosen, strict=True)]
        span = max(lengths) + -max(lengths) % multiple
        each = Pass(runs, packed=True)
        for r, picked, length in zip(runs, chosen, lengths, strict=True):
            for b in picked:
                each.add(r, by_run[r][b], rows[r])
            if length < span:
                each.fill(span - length)
        yield each
