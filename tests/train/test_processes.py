"""How the rows of a step are shared among processes."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from xpo_bench.train import processes
from xpo_bench.train.processes import ALONE, Processes


@pytest.mark.parametrize(("rows", "unit", "micro", "count"), [*product((1, 2, 3, 8, 10), (1, 2), (0, 1, 3), (1, 2, 3, 4))])
def test_shares_are_the_rows_once_each_in_equally_many_pieces(rows: int, unit: int, micro: int, count: int) -> None:
    shares = [Processes(rank, count).pieces(rows, unit, micro) for rank in range(count)]
    assert len({len(pieces) for pieces in shares}) == 1
    taken = [range(rows)[piece.rows] for pieces in shares for piece in pieces if piece.rows and not piece.padding]
    assert [row for part in taken for row in part] == list(range(rows))
    assert all(part[0] % unit == 0 for part in taken)
    assert all(len(part) <= micro * unit for part in taken) or not micro
    sizes = [sum(-(-len(range(rows)[p.rows]) // unit) for p in pieces if p.rows and not p.padding) for pieces in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("rows", "unit", "count"), [*product((1, 2, 3, 8), (1, 2), (1, 2, 3))])
def test_what_a_process_scores_is_what_its_pieces_take(rows: int, unit: int, count: int) -> None:
    for rank in range(count):
        one = Processes(rank, count)
        used = set(range(rows)[one.used(rows, unit)])
        assert used == {row for piece in one.pieces(rows, unit, 1) if piece.rows for row in range(rows)[piece.rows]}


def test_alone_nothing_is_exchanged() -> None:
    values = [torch.ones(2), torch.zeros(3)]
    assert all(a is b for a, b in zip(ALONE.sum(values), values, strict=True))
    assert ALONE.from_first(values) is values
    assert ALONE.first


def test_buckets_keep_order_dtype_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "BUCKET", 5)
    values = [
        torch.zeros(n, dtype=d) for n, d in ((2, torch.float32), (3, torch.float32), (1, torch.float32), (9, torch.float64))
    ]
    found = [[len(tensor) for tensor in bucket] for bucket in processes._buckets(values)]
    assert found == [[2, 3], [1], [9]]
