"""How the rows of a step are shared among processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from xpo_bench import ModelSpec, Pair, Step
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.train import data_parallel
from xpo_bench.train.data_parallel import ALONE, Processes
from xpo_bench.train.job import Job
from xpo_bench.train.reference_scores import ReferenceScorer
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench_plugins.algorithms.dpo import DPO


@pytest.mark.parametrize(
    ("rows", "unit", "micro", "count"), [*product((1, 2, 3, 8, 10), (1, 2), (0, 1, 3), (1, 2, 3, 4))]
)
def test_shares_are_the_rows_once_each_in_equally_many_pieces(
    rows: int, unit: int, micro: int, count: int
) -> None:
    shares = [Processes(rank, count).pieces(rows, unit, micro) for rank in range(count)]
    assert len({len(pieces) for pieces in shares}) == 1
    taken = [
        range(rows)[piece.rows] for pieces in shares for piece in pieces if piece.rows and not piece.padding
    ]
    assert [row for part in taken for row in part] == list(range(rows))
    assert all(part[0] % unit == 0 for part in taken)
    assert all(len(part) <= micro * unit for part in taken) or not micro
    sizes = [
        sum(-(-len(range(rows)[p.rows]) // unit) for p in pieces if p.rows and not p.padding)
        for pieces in shares
    ]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("rows", "unit", "count"), [*product((1, 2, 3, 8), (1, 2), (1, 2, 3))])
def test_what_a_process_scores_is_what_its_pieces_take(rows: int, unit: int, count: int) -> None:
    for rank in range(count):
        one = Processes(rank, count)
        used = set(range(rows)[one.used(rows, unit)])
        assert used == {
            row for piece in one.pieces(rows, unit, 1) if piece.rows for row in range(rows)[piece.rows]
        }


def test_alone_nothing_is_exchanged() -> None:
    values = [torch.ones(2), torch.zeros(3)]
    assert all(a is b for a, b in zip(ALONE.sum(values), values, strict=True))
    assert ALONE.from_first(values) is values
    assert ALONE.first


def test_buckets_keep_order_dtype_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_parallel, "BUCKET", 5)
    values = [
        torch.zeros(n, dtype=d)
        for n, d in ((2, torch.float32), (3, torch.float32), (1, torch.float32), (9, torch.float64))
    ]
    found = [[len(tensor) for tensor in bucket] for bucket in data_parallel._buckets(values)]
    assert found == [[2, 3], [1], [9]]


class Echo(Processes):
    """The first of two processes, of which the other has nothing to add."""

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return list(tensors)

    def from_first(self, value: Any) -> Any:
        return value


@dataclass(frozen=True)
class Coupled(DPO):
    """Says that it takes something over its batch, and may do so."""

    name: ClassVar[str] = "coupled"
    batch_coupled: ClassVar[bool] = True
    sums: bool = False

    def loss(self, step: Step) -> Tensor:
        if self.sums:
            step.all_reduce(step.log_ratio("chosen").sum(-1, keepdim=True))
        return super().loss(step)


@pytest.mark.parametrize("sums", [True, False])
def test_a_batch_coupled_loss_has_to_sum_over_processes(job: Callable[..., Job], sums: bool) -> None:
    spec = ModelSpec(
        name="tiny", tokenizer="bytes", hidden_size=16, intermediate_size=32, layers=1, heads=2, context=48
    )
    rows = (Pair("ask", "yes", "no"), Pair("tell", "sure", "never"))
    settings = {"steps": 1, "batch_size": 2, "kl_prompts": 1, "kl_samples": 1, "max_new_tokens": 1}
    policy = CausalLM.load(spec, init_seed=0, dtype="float64", device="cpu")
    scorer = ReferenceScorer(policy, policy.snapshot(), {})
    trainer = GroupTrainer(policy, [job(Coupled(sums=sums), rows, **settings)], scorer, processes=Echo(0, 2))
    if sums:
        assert [outcome.status for outcome in trainer.run()] == ["ok"]
    else:
        with pytest.raises(
            ValueError, match=r"coupled: declares batch_coupled but sums nothing by step.all_reduce\(\)"
        ):
            trainer.run()
