"""What every run of a group sees: rows, labels, references, stages; and what happens when it diverges."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from narrow import present
from torch import Tensor

from xpo_bench import Algorithm, Group, Pair, Single, Stage, Step, World
from xpo_bench.train.job import Job, Outcome
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.ipo import IPO
from xpo_bench_plugins.algorithms.kto import KTO

MakeJob = Callable[..., Job]
Train = Callable[[Sequence[Job]], list[Outcome]]

ROWS = tuple(Pair(f"p{i % 5}", "good", "bad", source=str(i)) for i in range(40))
WORLD = World(
    actions={f"p{i}": ("good", "bad") for i in range(5)},
    reference={f"p{i}": {"good": 0.9, "bad": 0.1} for i in range(5)},
)


def spies() -> tuple[type[Algorithm], type[Algorithm], dict[str, list[Any]]]:
    """An algorithm of pairs and one of unpaired examples that write down the rows and labels of each step."""
    seen: dict[str, list[Any]] = {"pairs": [], "singles": []}

    def look(name: str, step: Step) -> Tensor:
        seen[name].append(
            [
                (step.columns["id"][r].tolist(), step.columns["flipped"][r].tolist())
                for r in range(len(step.columns["id"]))
            ]
        )
        return step.log_ratio(next(iter(step.policy))) * 0.0

    @dataclass(frozen=True)
    class OfPairs(Algorithm):
        name: ClassVar[str] = "of-pairs"

        def columns(self, examples: Sequence[Any]) -> Mapping[str, Sequence[float]]:
            return {
                "id": [float(e.source) for e in examples],
                "flipped": [float(e.chosen == "bad") for e in examples],
            }

        def loss(self, step: Step) -> Tensor:
            return look("pairs", step)

    @dataclass(frozen=True)
    class OfSingles(Algorithm):
        name: ClassVar[str] = "of-singles"
        accepts: ClassVar[type] = Single
        groups: ClassVar[Mapping[str, Group]] = {"completion": Group(reference=True)}

        def columns(self, examples: Sequence[Any]) -> Mapping[str, Sequence[float]]:
            flipped = [float(e.desirable != (e.completion == "good")) for e in examples]
            return {"id": [float(e.source) for e in examples], "flipped": flipped}

        def loss(self, step: Step) -> Tensor:
            return look("singles", step)

    return OfPairs, OfSingles, seen


# --------------------------------------------------------------------------- rows and labels


@pytest.mark.parametrize(
    "budget", [{"batch_size": 7}, {"batch_size": 4096}, {"batch_size": 7, "sampling": "replacement"}]
)
def test_pairs_and_singles_see_the_same_rows(job: MakeJob, train: Train, budget: dict[str, Any]) -> None:
    of_pairs, of_singles, seen = spies()
    jobs = [
        job(cls(), ROWS, seed=seed, steps=30, label_noise=0.2, **budget)
        for cls in (of_pairs, of_singles)
        for seed in (0, 3)
    ]
    train(jobs)
    assert len(seen["pairs"]) == len(seen["singles"]) >= 30
    for pairs, singles in zip(seen["pairs"], seen["singles"], strict=True):
        for (ids, flips), (half_ids, half_flips) in zip(pairs, singles, strict=True):
            assert half_ids == [i for i in ids for _ in range(2)]  # both halves of a pair, side by side
            assert half_flips == [f for f in flips for _ in range(2)]
    assert seen["pairs"][0][0] != seen["pairs"][0][1]  # seeds differ


def test_a_seed_sees_the_same_rows_whatever_trains_beside_it(job: MakeJob, train: Train) -> None:
    of_pairs, _, seen = spies()
    train([job(of_pairs(), ROWS, seed=seed, batch_size=7, label_noise=0.2) for seed in (0, 1, 2)])
    together = [step[1] for step in seen["pairs"]]
    seen["pairs"].clear()
    train([job(of_pairs(), ROWS, seed=1, batch_size=7, label_noise=0.2)])
    assert [step[0] for step in seen["pairs"]] == together


def test_epochs_see_every_row_once(job: MakeJob, train: Train) -> None:
    of_pairs, _, seen = spies()
    train([job(of_pairs(), ROWS, batch_size=8, steps=10)])
    counts = Counter(row for step in seen["pairs"][:10] for row in step[0][0])
    assert counts == dict.fromkeys(map(float, range(40)), 2)


def flips(job: MakeJob, train: Train, seed: int, noise: float) -> dict[float, set[float]]:
    of_pairs, _, seen = spies()
    train([job(of_pairs(), ROWS, seed=seed, batch_size=7, steps=40, label_noise=noise)])
    out: dict[float, set[float]] = {}
    for step in seen["pairs"]:
        for row, flipped in zip(*step[0], strict=True):
            out.setdefault(row, set()).add(flipped)
    return out


def test_noise_flips_a_row_once_per_seed(job: MakeJob, train: Train) -> None:
    first = flips(job, train, 0, 0.3)
    assert len(first) == 40
    assert all(len(labels) == 1 for labels in first.values())  # the same label in every epoch
    flipped = {row for row, labels in first.items() if labels == {1.0}}
    assert 4 <= len(flipped) <= 20
    assert first == flips(job, train, 0, 0.3)
    assert first != flips(job, train, 1, 0.3)
    assert {row for row, labels in flips(job, train, 0, 0.1).items() if labels == {1.0}} < flipped
    assert all(labels == {0.0} for labels in flips(job, train, 0, 0.0).values())


def test_evaluation_is_clean(job: MakeJob, train: Train) -> None:
    noisy, clean = (train([job(DPO(), ROWS, world=WORLD, label_noise=noise)])[0] for noise in (0.3, 0.0))
    for outcome in (noisy, clean):
        start = outcome.curve[0]
        assert start["chosen_logp"] == pytest.approx(math.log(0.9), abs=1e-12)
        assert start["rejected_logp"] == pytest.approx(math.log(0.1), abs=1e-12)
        assert start["ranking_accuracy"] == 1.0
        assert start["reward_accuracy"] == 0.5
    assert noisy.metrics["displacement"] != clean.metrics["displacement"]


def test_ties_are_not_trained_on(job: MakeJob, train: Train) -> None:
    of_pairs, _, seen = spies()
    ties = tuple(Pair("p0", "good", "bad", 0.5, source=str(100 + i)) for i in range(9))
    train([job(of_pairs(), (*ROWS, *ties), world=WORLD, batch_size=8, steps=20)])
    assert {row for step in seen["pairs"] for row in step[0][0]} == set(map(float, range(40)))


def test_a_single_counts_as_half_a_pair(job: MakeJob, train: Train) -> None:
    for algorithm in (DPO(), KTO()):
        (outcome,) = train([job(algorithm, ROWS, batch_size=7, steps=11)])
        pairs_per_s = outcome.metrics["pairs_per_s"]
        assert pairs_per_s is not None
        assert pairs_per_s * present(outcome.timing["train_s"]) == pytest.approx(7 * 11)


# --------------------------------------------------------------------------- stages


def staged(plan: Sequence[Stage]) -> tuple[type[Algorithm], dict[str, list[Any]]]:
    """DPO with a list of stages, writing down when its data is shaped and the log-ratio of the first row."""
    seen: dict[str, list[Any]] = {"shaped": [], "ratio": [], "stage": []}

    @dataclass(frozen=True)
    class Staged(DPO):
        name: ClassVar[str] = "staged"

        def stages(self) -> Sequence[Stage]:
            return plan

        def shape_data(self, examples: Sequence[Any], tools: Any) -> Sequence[Any]:
            seen["shaped"].append(len(seen["ratio"]))
            return examples

        def stage_examples(self, stage: int, examples: Sequence[Any]) -> Sequence[Any]:
            seen["stage"].append(stage)
            return examples

        def loss(self, step: Step) -> Tensor:
            seen["ratio"].append(float(step.log_ratio("chosen")[0, 0].detach()))
            return super().loss(step)

    return Staged, seen


def test_a_reference_can_be_the_policy_at_the_stage_s_start(job: MakeJob, train: Train) -> None:
    cls, seen = staged([Stage(share=0.5, reference="previous"), Stage(share=0.5, reference="previous")])
    train([job(cls(), steps=10)])
    assert seen["ratio"][0] == seen["ratio"][5] == 0
    assert 0 not in (*seen["ratio"][1:5], *seen["ratio"][6:10])
    assert seen["shaped"] == [0]
    assert seen["stage"] == [0, 1]


def test_the_initial_reference_stays(job: MakeJob, train: Train) -> None:
    cls, seen = staged([Stage(share=0.5), Stage(share=0.5)])
    train([job(cls(), steps=10)])
    assert [ratio == 0 for ratio in seen["ratio"][:10]] == [True] + [False] * 9


def test_kl_is_against_the_initial_policy_whatever_the_stages_do(job: MakeJob, train: Train) -> None:
    cls, _ = staged([Stage(share=0.5, reference="previous")] * 2)
    (outcome,) = train([job(cls(), steps=40)])
    assert outcome.final_policy is not None
    p = outcome.final_policy["x"]["a"]
    assert outcome.metrics["kl"] == pytest.approx(
        p * math.log(2 * p) + (1 - p) * math.log(2 - 2 * p), rel=1e-9
    )


def test_refreshing_shapes_the_data_again(job: MakeJob, train: Train) -> None:
    cls, seen = staged([Stage(refresh=3)])
    train([job(cls(), steps=10)])
    assert seen["shaped"] == [0, 3, 6, 9]


def test_restart_forgets_the_optimizer_s_state(job: MakeJob, train: Train) -> None:
    outcomes = []
    for restart in (True, False):
        cls, _ = staged([Stage(share=0.5), Stage(share=0.5, restart=restart)])
        outcomes += train([job(cls(), steps=10)])
    once = train([job(DPO(), steps=10)])[0]
    assert outcomes[1].final_policy == once.final_policy
    assert outcomes[0].final_policy != once.final_policy


def test_the_rate_warms_up(job: MakeJob, train: Train) -> None:
    drift = []
    for warmup in (0.0, 0.5):
        (outcome,) = train([job(DPO(), optimizer="sgd", lr=1e-6, steps=10, warmup=warmup)])
        drift.append(present(outcome.metrics["displacement"]))
    # the sum of the rates: 10 steps, or (1 + 2 + 3 + 4 + 5)/5 + 5
    assert drift[1] / drift[0] == pytest.approx(0.8, rel=1e-4)


# --------------------------------------------------------------------------- divergence


def test_a_diverging_run_freezes_alone(job: MakeJob, train: Train) -> None:
    # on one pair gradient descent multiplies Δ − 1/(2τ) by 1 − 4·lr
    jobs = [
        job(IPO(tau=tau), optimizer="sgd", lr=lr, steps=400)
        for tau, lr in ((0.1, 0.2), (0.1, 2.0), (0.5, 0.1))
    ]
    together = train(jobs)
    assert [outcome.status for outcome in together] == ["ok", "diverged", "ok"]
    for single, outcome in zip(jobs, together, strict=True):
        (alone,) = train([single])
        assert alone.status == outcome.status
        assert alone.final_policy == outcome.final_policy
        assert {k: v for k, v in alone.metrics.items() if not k.endswith("_s")} == {
            k: v for k, v in outcome.metrics.items() if not k.endswith("_s")
        }
    for outcome, tau in ((together[0], 0.1), (together[2], 0.5)):
        assert outcome.final_policy is not None
        p = outcome.final_policy["x"]
        assert math.log(p["a"] / p["b"]) == pytest.approx(1 / (2 * tau), abs=1e-6)


def test_metrics_of_a_diverged_run_are_the_last_finite_ones(job: MakeJob, train: Train) -> None:
    (outcome,) = train([job(IPO(), optimizer="sgd", lr=2.0, steps=400)])
    assert outcome.status == "diverged"
    last = outcome.curve[-1]
    assert last["step"] is not None
    assert 0 < last["step"] < 400
    assert outcome.metrics["rejected_logp"] == last["rejected_logp"]
    assert all(value is None or math.isfinite(value) for value in outcome.metrics.values())
    assert all(value is None or math.isfinite(value) for row in outcome.curve for value in row.values())


def test_a_loss_that_is_not_finite_is_a_divergence(job: MakeJob, train: Train) -> None:
    @dataclass(frozen=True)
    class Falling(DPO):
        name: ClassVar[str] = "falling"
        offset: float = 0.0

        def loss(self, step: Step) -> Tensor:
            return super().loss(step) - (step.log_ratio("chosen") + self.offset).log()

    fine, bad = train([job(Falling(offset=1.0)), job(Falling(offset=-1.0))])
    assert (fine.status, bad.status) == ("ok", "diverged")
    assert bad.final_policy == {"x": {"a": 0.5, "b": 0.5}}  # not one step was taken
    assert bad.curve[-1]["step"] == 0


# --------------------------------------------------------------------------- what a loss may return


@pytest.mark.parametrize(
    "reduce", [Tensor.mean, lambda v: v.mean(-1), lambda v: v[..., :1], lambda v: v.unsqueeze(-1)]
)
def test_a_loss_of_the_wrong_shape_is_named(
    job: MakeJob, train: Train, reduce: Callable[[Tensor], Tensor]
) -> None:
    @dataclass(frozen=True)
    class Reduced(DPO):
        name: ClassVar[str] = "reduced"

        def loss(self, step: Step) -> Tensor:
            return reduce(super().loss(step))

    with pytest.raises(
        ValueError, match=r"^reduced: loss\(\) returned shape \(.*\), expected per-example \(2, 3\)"
    ):
        train([job(Reduced(), ROWS[:3]), job(Reduced(), ROWS[:3], seed=1)])


def test_weights_leave_out_what_is_not_there(job: MakeJob, train: Train) -> None:
    """Runs of one block with different numbers of rows: the padding of the smaller one changes nothing."""

    @dataclass(frozen=True)
    class Some(DPO):
        name: ClassVar[str] = "some"
        share: float = 1.0

        def shape_data(self, examples: Sequence[Any], tools: Any) -> Sequence[Any]:
            return examples[: round(len(examples) * self.share)]

    rows = [Pair("x", *pair) for pair in ("ab", "bc", "ac", "ad", "db")]
    for budget in ({}, {"batch_size": 2}, {"batch_size": 4}):
        jobs = [job(Some(share=share), rows, **budget) for share in (1.0, 0.4)]
        together = train(jobs)
        for single, outcome in zip(jobs, together, strict=True):
            assert train([single])[0].final_policy == outcome.final_policy


def test_gradients_reach_no_other_run(job: MakeJob, train: Train) -> None:
    moved, still = train([job(DPO(), lr=0.1), job(DPO(), lr=1e-300)])
    assert present(moved.metrics["kl"]) > 0.01
    assert still.metrics["kl"] == pytest.approx(0, abs=1e-15)
    assert torch.get_num_threads() == 1


def test_mass_on_actions_without_a_preference_is_followed(job: MakeJob, train: Train) -> None:
    """DPO keeps the ratio of unseen actions: normalisation takes from all what it moves between seen ones."""
    (outcome,) = train([job(DPO(), world=World(actions={"x": ("a", "b", "c", "d")}), steps=50)])
    unseen = [row["unseen_mass"] for row in outcome.curve]
    assert unseen[0] == pytest.approx(0.5)
    assert outcome.final_policy is not None
    left = outcome.final_policy["x"]
    assert left["c"] == pytest.approx(left["d"])
    assert outcome.metrics["unseen_mass"] == pytest.approx(left["c"] + left["d"])
    (all_seen,) = train([job(DPO(), steps=50)])
    assert "unseen_mass" not in all_seen.metrics
