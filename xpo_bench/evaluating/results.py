"""Measured checkpoints as the outcome of a run: the curve over their steps, the items of the last, and texts
that became less probable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.examples import Single
from xpo_bench.contract.metric import Evaluation, History
from xpo_bench.contract.scoring import Scores, Step
from xpo_bench.evaluating.measured import Measured, Sums
from xpo_bench.evaluating.reference import Prepared
from xpo_bench.metrics.accuracy import accuracy_of_halves
from xpo_bench.metrics.attained import BUDGETS, WIN_RATE, Reached
from xpo_bench.metrics.curve import Curve
from xpo_bench.metrics.forgetting import base_logp_change, base_logp_change_per_token
from xpo_bench.runner.record import LostPair
from xpo_bench.train.evaluation.at_budgets import AtBudgets
from xpo_bench.train.evaluation.eval_set import EvalSet, evaluate
from xpo_bench.train.evaluation.evaluator import add_gap, curve_rows, final_values
from xpo_bench.train.evaluation.scale import log_ratio_scale
from xpo_bench.train.evaluation.trail import Trail
from xpo_bench.train.items import Items, joined
from xpo_bench.train.job import Outcome
from xpo_bench.train.run_block import RunBlock

if TYPE_CHECKING:
    from torch import Tensor

LOST = 10
"""Pairs that are named whose chosen completions lost most."""


@dataclass(frozen=True)
class Trained(Algorithm):
    """A model that was trained elsewhere: nothing is known of its loss."""

    name: ClassVar[str] = "trained"


@dataclass(frozen=True)
class TrainedWithBeta(Algorithm):
    """A model that was trained elsewhere, by a loss whose implied preference is σ(β·Δ)."""

    name: ClassVar[str] = "trained"
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", 1)
    beta: float = 0.1

    def implied_preference(self, step: Step) -> Tensor | None:
        """σ(β·Δ), Δ the difference of the log-ratios (Rafailov et al. 2023, eq. 6)."""
        return torch.sigmoid(self.beta * (step.log_ratio("chosen") - step.log_ratio("rejected")))


def trained(name: str, beta: float | None) -> Algorithm:
    """What stands for the algorithm of a checkpoint: its name, and β where it was said."""
    cls = Trained if beta is None else TrainedWithBeta
    made: type[Algorithm] = type(cls.__name__, (cls,), {"name": name, "__module__": cls.__module__})
    return made() if beta is None else made(beta=beta)  # type: ignore[call-arg]


@dataclass(frozen=True)
class Replayed:
    """Scores that were computed before, in the place of the policy that they are of."""

    known: EvalSet
    sums: Sums

    def score_sets(self, sets: Sequence[object]) -> list[Scores]:
        """The scores of both sides: their sums, and the lengths that the reference's have."""
        return [
            _with_sums(self.known.chosen_ref, self.sums["chosen"]),
            _with_sums(self.known.rejected_ref, self.sums["rejected"]),
        ]


def _with_sums(like: Scores, sums: Sequence[float]) -> Scores:
    """Scores of other sums and the same tokens: of a completion only these two are ever read again."""
    values = torch.zeros_like(like.token_logps)
    values[0, :, 0] = torch.tensor(sums, dtype=values.dtype)
    return Scores(values, like.mask)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a series of checkpoints comes to.

    Args:
        outcome: as that of a run. lost: the pairs whose chosen completions lost most at the last checkpoint.
        drift: (first, last) step between which `rejected_drift` is read; None where it is not.
    """

    outcome: Outcome
    lost: list[LostPair]
    drift: tuple[int, int] | None


class Curves:
    """The curves of one series, from its measured checkpoints."""

    def __init__(self, algorithm: Algorithm, prepared: Prepared, last: int) -> None:
        self.algorithm, self.prepared = algorithm, prepared
        scale = np.array([log_ratio_scale(algorithm)])
        self.curves = {name: Curve(last, scale=scale) for name in ("train", "heldout")}
        self.trails = {
            name: Trail(name, known, along=name == "heldout") for name, known in prepared.sets.items()
        }
        self.halves: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.last_evaluation: dict[str, Evaluation] = {}

    def add(self, step: int, measured: Measured) -> None:
        """Take the next checkpoint."""
        for name, known in self.prepared.sets.items():
            found = self._evaluation(known, measured.sets[name], step)
            extra = (
                {k: np.array([v]) for k, v in self._sampled(measured).items()} if name == "train" else None
            )
            self.curves[name].add(found, extra=extra)
            self.trails[name].add(found, self.curves[name].recorded)
            if self.curves[name].recorded[0]:
                self.last_evaluation[name] = found
            if name == "heldout" and found.paired:
                self.halves[step] = accuracy_of_halves(found)

    def _evaluation(self, known: EvalSet, sums: Sums, step: int) -> Evaluation:
        block = RunBlock(jobs=(), runs=slice(0, 1), stacked=self.algorithm, shaped=[])
        return evaluate(Replayed(known, sums), known, step, [block], None, None)

    def _sampled(self, measured: Measured) -> dict[str, float]:
        return dict(measured.samples) | base_metrics(self.prepared, measured)

    # ------------------------------------------------------------------ the end

    def metrics(self) -> dict[str, float | None]:
        """Final metrics, with those that are read at a KL that the checkpoints enclose."""
        (out,) = final_values(1, self.curves["train"], self.curves["heldout"])
        reached = self._reached()
        if reached:
            found = self._at.accuracies(reached, self.curves["heldout"].history())
            out |= {f"heldout_{name}": float(v[0]) for name, v in found.items() if math.isfinite(v[0])}
        won = self._at.win_rates(self.history)
        out |= {
            WIN_RATE[budget]: float(won[WIN_RATE[budget]][0])
            for budget in BUDGETS
            if WIN_RATE[budget] in won and self._begins_within(budget)
        }
        add_gap(out)
        return out

    _at = AtBudgets(False, math.nan, None)

    @property
    def history(self) -> History:
        return self.curves["train"].history()

    def _begins_within(self, budget: float) -> bool:
        """Whether the first checkpoint is within a KL: of what came before it, nothing is known."""
        kl = self.history.series.get("kl")
        return kl is not None and bool(kl[0, 0] <= budget)

    def _reached(self) -> dict[float, Reached]:
        if "heldout" not in self.prepared.sets:
            return {}
        found = self._at.reached(self.history, self.curves["heldout"].history())
        return {budget: where for budget, where in found.items() if self._begins_within(budget)}

    def rows(self) -> list[dict[str, float | None]]:
        """The curve: a row per checkpoint."""
        rows = curve_rows(0, self.curves["train"], self.curves["heldout"])
        for row in rows:
            halves = self.halves.get(int(row["step"] or 0), ())
            for name, value in zip(("validation_accuracy", "test_accuracy"), halves, strict=False):
                if math.isfinite(value[0]):
                    row[name] = float(value[0])
        return rows

    def items(self) -> Items:
        """What became of every row at the last checkpoint."""
        reached = self._reached()
        return joined([t.items(0, t.at(reached) if t.along else {}) for t in self.trails.values()])

    def drift(self) -> tuple[int, int] | None:
        """(first, last) step between which changes at the end are read; None where they are not."""
        before, _ = self.history.last_fifth("rejected_logp")
        if math.isnan(before[0]):
            return None
        last = float(self.history.final_step[0])
        return round(last - float(self.history.window[0])), round(last)

    def lost(self) -> list[LostPair]:
        """The rows whose chosen completions lost most log-probability, the first lost most."""
        out: list[LostPair] = []
        for name, found in self.last_evaluation.items():
            ratio = (found.chosen_logp - found.chosen_ref)[0]
            rows = found.chosen_rows[0]
            length = found.chosen_length[0]
            for place in np.flatnonzero(rows & np.isfinite(ratio) & (ratio < 0)).tolist():
                out.append(
                    {
                        "row": self._number(name, place, found.paired),
                        "split": "heldout" if name == "heldout" else "train",
                        "chosen_log_ratio": float(ratio[place]),
                        "rejected_log_ratio": float((found.rejected_logp - found.rejected_ref)[0, place])
                        if found.paired
                        else None,
                        "chosen_length": int(length[place]),
                    }
                )
        return sorted(out, key=lambda pair: pair["chosen_log_ratio"])[:LOST]

    def _number(self, name: str, place: int, paired: bool) -> int:
        """The row number of a chosen completion."""
        numbers = self.prepared.numbers[name]
        if paired:
            return numbers[place]
        rows = zip(numbers, self.prepared.sets[name].rows[0], strict=True)
        good = [n for n, e in rows if isinstance(e, Single) and e.desirable]
        return good[place]


def base_metrics(prepared: Prepared, measured: Measured) -> dict[str, float]:
    """What was forgotten, over all sets; nothing where there is none."""
    each = base_notes(prepared, measured)
    if not each:
        return {}
    names = ("base_logp_change", "base_logp_change_per_token")
    return {name: float(np.mean([known[name] for known in each.values()])) for name in names}


def base_notes(prepared: Prepared, measured: Measured) -> dict[str, dict[str, float]]:
    """Set -> texts, and what was forgotten of them."""
    return {
        name: {
            "texts": len(reference),
            "base_logp_change": base_logp_change(measured.base[name], reference),
            "base_logp_change_per_token": base_logp_change_per_token(measured.base[name], reference, lengths),
        }
        for name, (_, reference, lengths) in prepared.base.items()
    }


def result_of(
    algorithm: Algorithm, prepared: Prepared, steps: Sequence[int | None], measured: Sequence[Measured]
) -> Result:
    """What a series of measured checkpoints comes to.

    Args:
        steps: of the checkpoints, increasing; the only one of a series may be unknown.
    """
    known = [step for step in steps if step is not None]
    curves = Curves(algorithm, prepared, known[-1] if known else 1)
    for step, found in zip(steps, measured, strict=True):
        curves.add(1 if step is None else step, found)
    last = next((m for m in reversed(measured) if m.finite), measured[-1])
    metrics = curves.metrics()
    notes = dict(last.notes) | curves.curves["train"].notes(0)
    if len(measured) == 1:  # "never" and "undefined" are said of curves
        metrics = {name: value for name, value in metrics.items() if value is not None}
        notes.pop("rejected_state_reason", None)
        notes["rejected_state_reason"] = ONE
    if prepared.base:
        notes["base_data"] = base_notes(prepared, last)
    below = float(curves.history.final("below_threshold")[0])
    if math.isfinite(below):
        notes["below_threshold"] = below
    outcome = Outcome(
        status="ok" if all(m.finite for m in measured) else "diverged",
        metrics=metrics,
        curve=curves.rows() if known else [],
        timing={"evaluate_s": sum(m.seconds for m in measured), "steps": known[-1] if known else None},
        notes=notes,
        data=prepared.facts,
        items=curves.items(),
    )
    return Result(outcome=outcome, lost=curves.lost(), drift=curves.drift())


ONE = "one checkpoint, which does not tell where it goes"
