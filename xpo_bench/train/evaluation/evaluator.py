"""What is measured of a group of runs while it trains, off the training clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TypeAlias

import numpy as np

from xpo_bench.contract.examples import Example
from xpo_bench.contract.metric import Array, WorldEvaluation
from xpo_bench.metrics.accuracy import accuracy_of_halves
from xpo_bench.metrics.attained import Reached
from xpo_bench.metrics.curve import Curve
from xpo_bench.metrics.regret import optimum_kl
from xpo_bench.policy.base import Enumeration, Members, Notes, Policy, Snapshot
from xpo_bench.train.evaluation.at_budgets import AtBudgets
from xpo_bench.train.evaluation.eval_set import EvalSet, evaluate
from xpo_bench.train.evaluation.exact import Enumerated, FinalPolicy, Tables, exhaustive
from xpo_bench.train.evaluation.on_policy import OnPolicy, quarters
from xpo_bench.train.evaluation.scale import log_ratio_scale
from xpo_bench.train.evaluation.trail import Trail
from xpo_bench.train.items import Items, joined
from xpo_bench.train.job import Job
from xpo_bench.train.reference import Scorer
from xpo_bench.train.row_selection import Rows
from xpo_bench.train.run_block import RunBlock

OnEvaluation: TypeAlias = Callable[[int, int, dict[str, float]], None]
"""(run, step, metrics): called at every evaluation point."""


class Evaluator:
    """The curves of a group of runs: on training rows, on held-out rows, and on samples of a language model.

    Args:
        policy: at the task's initial distribution. jobs: one per run. clean: evaluation rows of every run.
        rows: where held-out rows come from. truncate: what is truncated in rows longer than the context.
        score_initial: scores under the initial policy.
        initial: a snapshot of it, for what is sampled.
        on_evaluation: called with (run, step, metrics) at every evaluation point.
    """

    def __init__(
        self,
        policy: Policy,
        jobs: Sequence[Job],
        *,
        clean: list[list[Example]],
        rows: Rows,
        truncate: str,
        score_initial: Scorer,
        initial: Snapshot,
        on_evaluation: OnEvaluation | None,
    ) -> None:
        self.policy, self.jobs, self.on_evaluation = policy, jobs, on_evaluation
        self.steps = jobs[0].budget.steps
        scale = np.array([log_ratio_scale(job.algorithm) for job in jobs])
        closed_form = any(stage.solve for stage in jobs[0].algorithm.stages())
        self.curve, self.heldout_curve = (
            Curve(self.steps, jobs[0].metrics, scale=scale, closed_form=closed_form) for _ in range(2)
        )
        self.flops: dict[int, float] = {}
        self.halves: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.eval_set = EvalSet.build(policy, list(clean), truncate, score_initial)
        heldout: list[Sequence[Example]] = [rows.heldout(job) for job in jobs]
        self.heldout_set = (
            EvalSet.build(policy, heldout, truncate, score_initial) if self._seen(heldout) else None
        )
        sets = {"train": self.eval_set, "heldout": self.heldout_set}
        self.trails = {
            name: Trail(name, present, along=name == "heldout") for name, present in sets.items() if present
        }
        self.exact = _exact(policy, jobs)
        self.world: WorldEvaluation | None = None
        self.on_policy: list[OnPolicy] = []
        if self.exact is None and isinstance(policy, Members):
            for r, job in enumerate(jobs):
                with policy.member(r) as model:
                    self.on_policy.append(OnPolicy(model, job, policy.state_of(initial, r)))
                    self.on_policy[-1].points.add(job.last)
        self.kl_strength = _kl_strengths(jobs)
        self.optimum_kl: np.ndarray | None = None
        initial = self.exact.evaluation() if self.exact else None
        if self.kl_strength is not None and initial is not None:
            self.optimum_kl = optimum_kl(initial, self.kl_strength)
        stages, world = jobs[0].algorithm.stages(), jobs[0].dataset.world
        self.at_budgets = AtBudgets(
            all(stage.solve for stage in stages), world.beta if world else math.nan, initial
        )

    def _seen(self, heldout: Sequence[Sequence[Example]]) -> bool:
        """Whether held-out metrics mean anything: a table knows nothing of prompts that it never saw."""
        if not all(heldout):
            return False
        if not isinstance(self.policy, Enumeration) or self.policy.generalises:
            return True
        return all(
            {e.prompt for e in rows} <= {e.prompt for e in job.dataset.train}
            for rows, job in zip(heldout, self.jobs, strict=True)
        )

    # ---------------------------------------------------------------- one point

    def evaluate(
        self, step: int, alive: np.ndarray, blocks: Sequence[RunBlock], flops: float | None = None
    ) -> None:
        """Evaluate every run at one point.

        Args:
            alive: runs that have not diverged, shape (R,). blocks: the runs by algorithm.
            flops: what the cell has been charged so far, where its operations are counted.
        """
        if flops is not None:
            self.flops[step] = flops
        self.world = world = self.exact.evaluation() if self.exact else None
        sampled: dict[str, np.ndarray] = {}
        if self.on_policy and step in self.on_policy[0].points:
            sampled = self._sampled(step, alive)
        if self.eval_set:
            # at step 0 the policy is the reference, whose scores are known
            found = evaluate(self.policy, self.eval_set, step, blocks, self.kl_strength, world, step == 0)
            self.curve.add(found, alive, sampled)
            self.trails["train"].add(found, self.curve.recorded)
        if self.heldout_set and self._heldout_due(step):
            found = evaluate(self.policy, self.heldout_set, step, blocks, None, None, step == 0)
            self.heldout_curve.add(found, alive)
            self.trails["heldout"].add(found, self.heldout_curve.recorded)
            if found.paired:
                self.halves[step] = accuracy_of_halves(found)
        if self.on_evaluation and self.eval_set:
            for r, metrics in enumerate(self.curve.last()):
                if metrics:
                    self.on_evaluation(r, step, metrics)

    def saturated(self, runs: np.ndarray) -> None:
        """Which runs' gradients have vanished at the end, shape (R,)."""
        for curve in (self.curve, self.heldout_curve):
            curve.judge(runs)

    def refer(self, to_current: bool) -> None:
        """A stage begins: implied preferences are against the policy as it stands, or the initial one."""
        for known in (self.eval_set, self.heldout_set):
            if known is not None:
                known.refer(self.policy if to_current else None)

    def _sampled(self, step: int, alive: np.ndarray) -> dict[str, np.ndarray]:
        """What samples of every run tell, NaN for the diverged, shape (R,) each."""
        out: dict[str, np.ndarray] = {}
        assert isinstance(self.policy, Members)
        for r in np.flatnonzero(alive):
            with self.policy.member(int(r)):
                for name, value in self.on_policy[r].measure(step).items():
                    out.setdefault(name, np.full(len(alive), np.nan))[r] = value
        return out

    def _heldout_due(self, step: int) -> bool:
        if self.policy.enumerable or step == self.jobs[0].last:
            return True
        return step in quarters(self.steps)

    # ---------------------------------------------------------------- the end

    def finals(self) -> list[dict[str, float | None]]:
        """Final metrics per run, training and held-out, without what does not apply."""
        out = final_values(len(self.jobs), self.curve, self.heldout_curve)
        for name, values in self._at_budgets().items():
            for r, value in enumerate(values):
                if math.isfinite(value):
                    out[r][name] = float(value)
        for metrics in out:
            add_gap(metrics)
        return out

    def _at_budgets(self) -> dict[str, Array]:
        """The metrics that are read where the paths meet a KL, shape (R,) each."""
        if not self.eval_set:
            return {}
        history = self.curve.history()
        out = self.at_budgets.attained(history, self.world) | self.at_budgets.win_rates(history)
        if self.heldout_set:
            found = self.at_budgets.accuracies(self._reached, self.heldout_curve.history())
            out |= {f"heldout_{name}": values for name, values in found.items()}
        return out

    @cached_property
    def _reached(self) -> Mapping[float, Reached]:
        """Where the paths reach the budgets among the evaluations of held-out pairs; asked for at the end."""
        if not self.eval_set or not self.heldout_set:
            return {}
        return self.at_budgets.reached(self.curve.history(), self.heldout_curve.history())

    @cached_property
    def _right_at(self) -> Mapping[str, Array]:
        """Which held-out pairs were right there, shape (R, E) each."""
        return self.trails["heldout"].at(self._reached) if "heldout" in self.trails else {}

    def items(self, r: int) -> Items | None:
        """What became of every evaluated item of one run at its last finite evaluation."""
        parts = [trail.items(r, self._right_at if trail.along else {}) for trail in self.trails.values()]
        return joined(parts) if parts else None

    def rows(self, r: int, losses: Mapping[int, np.ndarray]) -> list[dict[str, float | None]]:
        """The curve of one run: a row per finite evaluation, held-out metrics prefixed, losses if known."""
        if not self.eval_set:
            return []
        rows = curve_rows(r, self.curve, self.heldout_curve)
        by_step = {row["step"]: row for row in rows}
        for step, halves in self.halves.items():
            for name, values in zip(("validation_accuracy", "test_accuracy"), halves, strict=True):
                if step in by_step and math.isfinite(values[r]):
                    by_step[step][name] = float(values[r])
        for step, flops in self.flops.items():
            if step in by_step:
                by_step[step]["total_flops"] = flops
        for step, values in losses.items():
            if step in by_step and math.isfinite(values[r]):
                by_step[step]["loss"] = float(values[r])
        return rows

    def notes(self, r: int) -> Notes:
        """Facts for the record of one run."""
        notes: Notes = dict(self.curve.notes(r))
        if self.optimum_kl is not None and math.isfinite(self.optimum_kl[r]):
            notes["optimum_kl"] = float(self.optimum_kl[r])
        budget = self.at_budgets.budget_kl
        if budget is not None and math.isfinite(budget[r]):
            notes["budget_kl"] = float(budget[r])
        if isinstance(self.exact, Enumerated):
            notes["kl"] = "exact"
        errors = self.curve.third_party.errors | {
            f"heldout_{name}": e for name, e in self.heldout_curve.third_party.errors.items()
        }
        if errors:
            notes["metric_errors"] = errors
        return notes | (self.on_policy[r].notes if self.on_policy else {})

    def final_policy(self, r: int) -> FinalPolicy | None:
        """The distribution of one run at the end, where it is exact and small enough for a record."""
        return self.exact.final_policy(r) if self.exact else None


Metrics: TypeAlias = dict[str, float | None]


def final_values(runs: int, curve: Curve, heldout: Curve) -> list[Metrics]:
    """Final metrics per run of both curves, held-out ones prefixed, without what does not apply."""
    out: list[Metrics] = [{} for _ in range(runs)]
    for prefix, known in (("", curve), ("heldout_", heldout)):
        for name, values in known.final().items():
            for r, value in enumerate(values):
                if math.isfinite(value):
                    out[r][prefix + name] = float(value)
                # "never" and "undefined" are results: the other metrics that do not apply are left out
                elif name == "collapse_slope" or (name == "collapse_step" and prefix + "collapsed" in out[r]):
                    out[r][prefix + name] = None
    return out


def add_gap(metrics: Metrics) -> None:
    """Add the difference of the two accuracies where both are known."""
    own, heldout = metrics.get("reward_accuracy"), metrics.get("heldout_reward_accuracy")
    if own is not None and heldout is not None:
        metrics["generalization_gap"] = own - heldout


def curve_rows(r: int, curve: Curve, heldout: Curve) -> list[Metrics]:
    """A row per finite evaluation of one run, held-out metrics prefixed."""
    rows: list[Metrics] = [dict(row) for row in curve.rows(r)]
    by_step = {row["step"]: row for row in rows}
    for row in heldout.rows(r):
        by_step[row["step"]].update({f"heldout_{k}": v for k, v in row.items() if k != "step"})
    return rows


def _exact(policy: Policy, jobs: Sequence[Job]) -> Tables | Enumerated | None:
    """Where the exact distributions of the runs come from, if they can be had."""
    if isinstance(policy, Enumeration):
        return Tables(policy, [job.dataset.train for job in jobs])
    dataset = jobs[0].dataset
    world = exhaustive(dataset)
    return None if world is None else Enumerated(policy, dataset, world)


def _kl_strengths(jobs: Sequence[Job]) -> np.ndarray | None:
    """β of the objective E r − β·KL of each run, NaN where it has none; None where no run has one."""
    fields = [(job.algorithm, job.algorithm.kl_strength) for job in jobs]
    found = [getattr(algorithm, field) if field else np.nan for algorithm, field in fields]
    return None if all(np.isnan(found)) else np.array(found, dtype=np.float64)
