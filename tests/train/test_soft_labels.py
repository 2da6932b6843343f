"""Soft labels are the expectation over hard ones: of every algorithm, without its knowing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest
from torch import Tensor

from xpo_bench import Algorithm, Pair, Single, Step, World, plugins
from xpo_bench.data.labels import flipped
from xpo_bench.train.job import Job, Outcome
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.kto import KTO

MakeJob = Callable[..., Job]
Train = Callable[[Sequence[Job]], list[Outcome]]

VOTES = 4
WON = {("x", "a", "b"): 3, ("x", "b", "c"): 2, ("x", "a", "c"): 4, ("y", "a", "b"): 3, ("y", "c", "a"): 4}
"""Comparison -> votes of `VOTES` for the first side."""
SOFT = tuple(Pair(*row, p_chosen=won / VOTES, p_tie=0.0) for row, won in WON.items())
HARD = tuple(
    row if vote < won else flipped(row)
    for row, won in zip((Pair(*texts) for texts in WON), WON.values(), strict=True)
    for vote in range(VOTES)
)
WORLD = World(
    actions={"x": ("a", "b", "c"), "y": ("a", "b", "c")},
    reference={"x": {"a": 0.2, "b": 0.5, "c": 0.3}, "y": {"a": 0.2, "b": 0.5, "c": 0.3}},
    reward={p: {"a": 1.0, "b": 0.5, "c": 0.0} for p in "xy"},
)
EVERY = plugins.load().algorithms


def policy(outcome: Outcome) -> dict[tuple[str, str], float]:
    assert outcome.status == "ok", outcome.status
    assert outcome.final_policy
    return {(prompt, text): p for prompt, of in outcome.final_policy.items() for text, p in of.items()}


@pytest.mark.parametrize("name", sorted(EVERY))
def test_votes_as_weights_are_votes_as_rows(name: str, job: MakeJob, train: Train) -> None:
    """The loss of a step is Σ_rows Σ_outcomes share·ℓ / rows: that of a hard row for every vote."""
    algorithm: Algorithm = EVERY[name][0]()
    weights, rows = (
        policy(train([job(algorithm, data, world=WORLD, labels=labels, steps=12)])[0])
        for data, labels in ((SOFT, "soft"), (HARD, "hard"))
    )
    assert weights == pytest.approx(rows, abs=1e-7)
    # nothing was compared with nothing
    assert max(abs(p - WORLD.reference[x][y]) for (x, y), p in weights.items()) > 1e-3


def test_rows_of_a_batch_are_rows_of_the_data_whatever_they_become(job: MakeJob, train: Train) -> None:
    """Both orientations stand in one step, for algorithms of pairs and of unpaired examples alike."""
    seen: list[tuple[list[float], list[float], float]] = []

    @dataclass(frozen=True)
    class Spy(DPO):
        def columns(self, examples: Sequence[Pair]) -> Mapping[str, Sequence[float]]:
            return {"row": [float(e.source or 0) for e in examples]}

        def loss(self, step: Step) -> Tensor:
            assert step.weight is not None
            seen.append(
                (
                    step.columns["row"][0].tolist(),
                    step.weight[0].tolist(),
                    float(step.totals["examples"][0, 0]),
                )
            )
            return super().loss(step)

    data = [Pair("x", "a", "b", p_chosen=p, source=str(i)) for i, p in enumerate((0.75, 1.0, 0.5, 0.8, 0.6))]
    outcome = train([job(Spy(), data, labels="soft", steps=5, batch_size=2)])[0]
    for rows, weights, total in seen[:5]:
        of_rows: dict[float, float] = {}
        for row, weight in zip(rows, weights, strict=True):
            if weight:
                of_rows[row] = of_rows.get(row, 0.0) + weight
        assert len(of_rows) == 2  # of which each is there whole
        assert list(of_rows.values()) == pytest.approx([1, 1])
        assert total == pytest.approx(2)
    visits = [{row for row, w in zip(rows, weights, strict=True) if w > 0} for rows, weights, _ in seen[:5]]
    assert sorted(row for visited in visits for row in visited) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert outcome.status == "ok"


def test_pairs_seen_are_rows_of_the_data(job: MakeJob, train: Train) -> None:
    """A run with soft labels has seen as many as one with hard labels: its budget is the same."""
    for algorithm in (DPO(), KTO()):
        hard, soft = (
            train([job(algorithm, SOFT[:1], labels=labels, steps=10, batch_size=1)])[0]
            for labels in ("hard", "soft")
        )
        seen = [o.metrics["pairs_per_s"] * o.timing["train_s"] for o in (hard, soft)]  # type: ignore[operator]
        assert seen[1] == pytest.approx(seen[0]) == pytest.approx(10)


def test_soft_labels_in_minibatches_are_unbiased(job: MakeJob, train: Train) -> None:
    """One row a step: DPO at β = 1 ends near the optimum of the full batch."""
    words = {"world": WORLD, "labels": "soft"}
    full, small = (
        policy(train([job(DPO(beta=1), SOFT, lr=lr, steps=n, batch_size=size, **words)])[0])
        for lr, n, size in ((0.1, 200, 5), (0.02, 1000, 1))
    )
    assert small == pytest.approx(full, abs=0.05)


def test_ties_pull_to_the_middle_and_are_left_out_by_hard_labels(job: MakeJob, train: Train) -> None:
    rows = [Pair("x", "a", "b"), Pair("x", "a", "b", p_chosen=0.5)]
    hard, soft, sampled = (
        policy(train([job(DPO(beta=1), rows, labels=labels, steps=400, lr=0.2)])[0])
        for labels in ("hard", "soft", "sampled")
    )
    assert soft["x", "a"] == pytest.approx(0.75, abs=1e-6)  # 1½ of 2 rows
    assert hard["x", "a"] > 0.99
    assert sampled["x", "a"] == pytest.approx(0.5, abs=1e-6) or sampled["x", "a"] > 0.99


def test_sampled_labels_are_one_draw_per_seed_and_row(job: MakeJob, train: Train) -> None:
    rows = [Pair(f"p{i}", "a", "b", p_chosen=0.6) for i in range(60)]
    runs = [
        policy(train([job(algorithm, rows, labels="sampled", seed=seed, steps=30)])[0])
        for algorithm, seed in ((DPO(), 0), (DPO(), 0), (KTO(), 0), (DPO(), 1))
    ]
    up = [[run[f"p{i}", "a"] > 0.5 for i in range(60)] for run in runs]
    assert up[0] == up[1] == up[2]  # of all algorithms alike, and the same again
    assert up[0] != up[3]
    assert 22 <= sum(up[0]) <= 50  # 36 of 60, 3.7 standard errors


def test_evaluation_does_not_depend_on_labels(job: MakeJob, train: Train) -> None:
    starts = [train([job(DPO(), SOFT, labels=labels)])[0].curve[0] for labels in ("hard", "soft", "sampled")]
    names = ("chosen_logp", "reward_accuracy", "calibration_error", "brier", "kl")
    assert len({tuple(start[name] for name in names) for start in starts}) == 1


def test_unpaired_labels_have_no_orientation(job: MakeJob, train: Train) -> None:
    rows = [Single("x", "a", True), Single("x", "b", False), Single("y", "a", True)]
    hard, soft = (policy(train([job(KTO(), rows, labels=labels)])[0]) for labels in ("hard", "soft"))
    assert hard == soft
