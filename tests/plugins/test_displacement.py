"""The task `displacement`: pairs one token apart, and the sign of what happens to the chosen completions."""

from __future__ import annotations

from pathlib import Path

import pytest
from narrow import present
from runs import FEW_SAMPLES

import xpo_bench
from xpo_bench import Pair
from xpo_bench_plugins.tasks.displacement import CHANGED, COMPLETION, PAIRS, Displacement

FALLS, RISES = ("dpo", "ipo", "npo"), ("dpop", "cpo", "orpo", "sft")


def test_pairs_differ_in_one_token_and_are_the_same_for_every_seed() -> None:
    data = Displacement().data(0, Displacement.model)
    assert data == Displacement().data(1, Displacement.model)
    assert len(data.train) == PAIRS == len({pair.prompt for pair in data.train})
    for pair in data.train:
        assert isinstance(pair, Pair)
        chosen, rejected = pair.chosen.split(), pair.rejected.split()
        assert len(chosen) == len(rejected) == COMPLETION
        assert [i for i in range(COMPLETION) if chosen[i] != rejected[i]] == [CHANGED]
        assert all(
            0 <= int(token) < Displacement.model.vocab_size
            for token in (*pair.prompt.split(), *chosen, *rejected)
        )


def test_one_learning_rate_for_all() -> None:
    assert not Displacement.learning_rates


@pytest.mark.parametrize("seeds", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_signs_on_every_seed(tmp_path: Path, seeds: int) -> None:
    result = xpo_bench.run(
        algos=[*FALLS, *RISES], tasks="displacement", seeds=seeds, set=FEW_SAMPLES, out=tmp_path
    )
    assert [c["status"] for c in result.cells] == ["ok"] * (7 * seeds)
    changes: dict[str, list[float]] = {}
    for cell in result.cells:
        m = cell["metrics"]
        changes.setdefault(cell["algorithm"]["name"], []).append(present(m["displacement"]))
        start = present(m["chosen_logp"]) - present(m["displacement"])
        assert -2 < start < -0.5, "the warm start decides what happens"
        if cell["algorithm"]["name"] != "npo":
            assert m["ranking_accuracy"] == 1  # which does not see it
    assert {name: [v < 0 for v in found] for name, found in changes.items()} == {
        **dict.fromkeys(FALLS, [True] * seeds),
        **dict.fromkeys(RISES, [False] * seeds),
    }
    # far from zero, so that the sign is no accident: DPOP, whose penalty holds the chosen where they were,
    # rises least
    assert max(v for name in FALLS for v in changes[name]) < -1
    assert min(v for name in ("cpo", "orpo", "sft") for v in changes[name]) > 0.2
    assert min(changes["dpop"]) > 0.01
