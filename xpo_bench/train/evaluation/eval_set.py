"""Evaluation of a group of runs at one point, on clean pairs and off the training clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch.nn.functional import pad

from xpo_bench.contract.examples import Completion, Example, Pair, Single, side
from xpo_bench.contract.metric import Evaluation, WorldEvaluation
from xpo_bench.contract.scoring import Scores, Step
from xpo_bench.policy.base import Policy, Stacked
from xpo_bench.train.evaluation.exact import array
from xpo_bench.train.reference import Scorer
from xpo_bench.train.run_block import RunBlock

Array = np.ndarray
LANES = 32
"""torch computes what is left over from whole vectors by other code, and `sigmoid` then differs in the last
bit: rows are padded to a multiple, so that the runs trained in the same batch do not decide which rows of a
run are left over."""


@dataclass(kw_only=True)
class EvalSet:
    """The evaluation rows of every run, encoded, with their log-probabilities under the initial policy.

    `stage_ref` holds those of both sides under the reference of the stage at hand, where that is another
    policy.
    """

    rows: list[Sequence[Example]]
    paired: bool
    chosen: Stacked
    rejected: Stacked
    chosen_ref: Scores
    rejected_ref: Scores
    p_chosen: Array
    valid: Array
    valid_rejected: Array
    stage_ref: tuple[Scores, Scores] | None = None

    @classmethod
    def build(
        cls, policy: Policy, rows: list[Sequence[Example]], truncate: str, score_initial: Scorer
    ) -> EvalSet | None:
        """Encode the rows of every run; None when some run has none."""
        if any(not run for run in rows):
            return None
        paired = isinstance(rows[0][0], Pair)
        distinct = {id(run): run for run in rows}  # runs of one seed share their rows
        sides = {key: _sides(run, paired) for key, run in distinct.items()}
        chosen, rejected = ([sides[id(run)][side] for run in rows] for side in (0, 1))
        filler = _filler(rows)
        stacked = []
        for which in (0, 1):
            encoded = {key: policy.encode(sides[key][which] or filler, truncate) for key in distinct}
            stacked.append(policy.stack([encoded[id(run)] for run in rows]))
        return cls(
            rows=rows,
            paired=paired,
            chosen=stacked[0],
            rejected=stacked[1],
            chosen_ref=score_initial([side or filler for side in chosen], stacked[0], None),
            rejected_ref=score_initial([side or filler for side in rejected], stacked[1], None),
            p_chosen=_p_chosen(rows),
            valid=_valid(chosen),
            valid_rejected=_valid(rejected),
        )

    def refer(self, policy: Policy | None) -> None:
        """Take the policy as it stands for the reference of implied preferences; None is the initial one."""
        self.stage_ref = None
        if policy is not None and self.paired:
            chosen, rejected = policy.score_sets([self.chosen, self.rejected])
            self.stage_ref = chosen, rejected


def _p_chosen(rows: Sequence[Sequence[Example]]) -> Array:
    """The probability that chosen is preferred, NaN where it is not known and on padding, shape (R, E)."""
    known: dict[int, Array] = {}
    out = np.full((len(rows), max(map(len, rows))), np.nan)
    for values, run in zip(out, rows, strict=True):
        if id(run) not in known:  # runs of one seed share their rows
            p = [e.p_chosen if isinstance(e, Pair) else None for e in run]
            known[id(run)] = np.array([np.nan if v is None else v for v in p])
        values[: len(run)] = known[id(run)]
    return out


def _sides(run: Sequence[Example], paired: bool) -> tuple[list[Completion], list[Completion]]:
    """Chosen and rejected completions of a run's rows; of unpaired examples the desirable and the others."""
    if not paired:
        return _labelled(run, True), _labelled(run, False)
    pairs = [e for e in run if isinstance(e, Pair)]
    return side(pairs, "chosen"), side(pairs, "rejected")


def _labelled(run: Sequence[Example], wanted: bool) -> list[Completion]:
    return [
        Completion(e.prompt, e.completion) for e in run if isinstance(e, Single) and e.desirable == wanted
    ]


def _filler(rows: list[Sequence[Example]]) -> list[Completion]:
    # a set with one label only still needs one encodable row; it is never valid
    first = rows[0][0]
    return [Completion(first.prompt, first.completion if isinstance(first, Single) else first.chosen)]


def _valid(completions: list[list[Completion]]) -> Array:
    sizes = np.array([len(run) for run in completions])
    valid: Array = np.arange(max(1, sizes.max())) < sizes[:, None]
    return valid


class ScoresSets(Protocol):
    """What scores whole sets: a policy, or scores that were kept."""

    def score_sets(self, sets: Sequence[Stacked]) -> list[Scores]:
        """As `Scoring.score_sets`."""
        ...


def evaluate(
    policy: ScoresSets,
    eval_set: EvalSet,
    step: int,
    blocks: Sequence[RunBlock],
    kl_strength: Array | None,
    world: WorldEvaluation | None,
    initial: bool = False,
) -> Evaluation:
    """Score an evaluation set under the current policy of every run.

    Args:
        blocks: the runs by algorithm, for the implied preferences.
        initial: the policy is the initial one, whose scores are already known.
    """
    if initial:
        chosen, rejected = eval_set.chosen_ref, eval_set.rejected_ref
    else:
        chosen, rejected = policy.score_sets([eval_set.chosen, eval_set.rejected])
    return Evaluation(
        step=step,
        chosen_logp=array(chosen.sum),
        rejected_logp=array(rejected.sum),
        chosen_length=array(chosen.length),
        rejected_length=array(rejected.length),
        chosen_ref=array(eval_set.chosen_ref.sum),
        rejected_ref=array(eval_set.rejected_ref.sum),
        p_chosen=eval_set.p_chosen,
        valid=eval_set.valid,
        valid_rejected=eval_set.valid_rejected,
        paired=eval_set.paired,
        implied=_implied(eval_set, chosen, rejected, blocks) if eval_set.paired else None,
        world=world,
        kl_strength=kl_strength,
        rounding=torch.finfo(chosen.token_logps.dtype).eps,
    )


@torch.no_grad()
def _implied(eval_set: EvalSet, chosen: Scores, rejected: Scores, blocks: Sequence[RunBlock]) -> Array | None:
    """The probabilities that the algorithms claim, shape (runs, E); NaN rows where one claims none.

    Log-ratios are those that the loss is given: against the stage's reference, whatever the other metrics are
    against.
    """
    chosen_ref, rejected_ref = eval_set.stage_ref or (eval_set.chosen_ref, eval_set.rejected_ref)
    policy = {"chosen": _padded(chosen), "rejected": _padded(rejected)}
    reference = {"chosen": _padded(chosen_ref), "rejected": _padded(rejected_ref)}
    out = np.full(eval_set.valid.shape, np.nan)
    rows = eval_set.valid.shape[1]
    for block in blocks:
        step = Step(
            policy={g: _runs(s, block.runs) for g, s in policy.items()},
            reference={g: _runs(s, block.runs) for g, s in reference.items()},
            state=block.state,
        )
        claimed = block.stacked.implied_preference(step)
        if claimed is not None:
            out[block.runs] = array(claimed)[:, :rows]
    return None if np.isnan(out).all() else out


def _padded(scores: Scores) -> Scores:
    """The scores with masked rows added up to a multiple of LANES."""
    extra = -scores.mask.shape[-2] % LANES
    return scores.map(lambda values: pad(values, (0, 0, 0, extra))) if extra else scores


def _runs(scores: Scores, runs: slice) -> Scores:
    return scores.map(lambda values: values[runs], derived=lambda values: values[runs])
