"""A run that is stopped is the checkpoint of the whole run, to the bit, and no shorter run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest

from xpo_bench import Pair, Stage
from xpo_bench.train.job import Outcome
from xpo_bench_plugins.algorithms.dpo import DPO

ROWS = tuple(Pair(f"x{i % 3}", "abc"[i % 2], "abc"[2 - i % 2]) for i in range(12))


@dataclass(frozen=True)
class TwoStages(DPO):
    name: ClassVar[str] = "two-stages"

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(share=0.5), Stage(share=0.5, reference="previous"))


@pytest.mark.parametrize("algorithm", [DPO(), TwoStages()])
@pytest.mark.parametrize("step", [1, 7, 10, 13])
def test_the_numbers_are_those_of_the_whole_run(
    job: Callable[..., Any], train: Callable[..., list[Outcome]], algorithm: DPO, step: int
) -> None:
    whole = job(algorithm, ROWS, batch_size=4, warmup=0.5, steps=20)
    # every step is an evaluation point of twenty
    (at_end,), (stopped,) = train([whole]), train([replace(whole, stop=step)])
    assert stopped.status == "ok"
    assert stopped.timing["steps"] == step
    assert stopped.curve[-1]["step"] == step
    rows = [row for row in at_end.curve if (row["step"] or 0) <= step]
    # the loss at the end is that of the policy as it stands, on the rows of the last step
    assert [row | {"loss": None} for row in stopped.curve] == [row | {"loss": None} for row in rows]
    assert stopped.metrics["kl"] == rows[-1]["kl"]
    assert stopped.final_policy != at_end.final_policy


def test_a_stop_off_the_calendar_is_evaluated(
    job: Callable[..., Any], train: Callable[..., list[Outcome]]
) -> None:
    whole = job(DPO(), ROWS, batch_size=4, steps=1000)
    (stopped,) = train([replace(whole, stop=333)])
    assert [row["step"] for row in stopped.curve][-2:] == [300, 333]
