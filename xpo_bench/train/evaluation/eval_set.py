"""Evaluation of a group of runs at one point, on clean pairs and off the training clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xpo_bench.contract.examples import Completion, Example, Pair, Single
from xpo_bench.contract.metric import Evaluation, WorldEvaluation
from xpo_bench.contract.scoring import Scores, Step
from xpo_bench.policy.base import Policy

Array = np.ndarray
EvaluatedSlice = tuple[Any, slice, Mapping[str, Tensor]]
"""A stacked algorithm, its runs, and what it carries from step to step."""
LANES = 32
"""torch computes what is left over from whole vectors by other code, and `sigmoid` then differs in the last
bit: rows are padded to a multiple, so that the company of a run does not decide which of its rows are left
over."""


@dataclass
class EvalSet:
    """The evaluation rows of every run, encoded, with their log-probabilities under the initial policy.

    `stage_ref` holds those of both sides under the reference of the stage at hand, where that is another
    policy.
    """

    rows: list[Sequence[Example]]
    paired: bool
    chosen: Any
    rejected: Any
    chosen_ref: Scores
    rejected_ref: Scores
    p_chosen: Array
    valid: Array
    valid_rejected: Array
    stage_ref: tuple[Scores, Scores] | None = None

    @classmethod
    def build(
        cls, policy: Policy, rows: list[Sequence[Example]], truncate: str, score_initial: Any
    ) -> EvalSet | None:
        """Encode the rows of every run; None when some run has none."""
        if any(not run for run in rows):
            return None
        paired = isinstance(rows[0][0], Pair)
        distinct = {id(run): run for run in rows}  # runs of one seed share their rows
        sides = {key: _sides(run, paired) for key, run in distinct.items()}
        chosen, rejected = ([sides[id(run)][side] for run in rows] for side in (0, 1))
        p = _pad(
            [
                [np.nan if (v := getattr(e, "p_chosen", None)) is None else v for e in run]
                for run in distinct.values()
            ],
            np.nan,
        )
        place = {key: i for i, key in enumerate(distinct)}
        filler = _filler(rows)
        stacked = []
        for side in (0, 1):
            encoded = {key: policy.encode(sides[key][side] or filler, truncate) for key in distinct}
            stacked.append(policy.stack([encoded[id(run)] for run in rows]))
        a, b = stacked
        return cls(
            rows,
            paired,
            a,
            b,
            score_initial([side or filler for side in chosen], a, None),
            score_initial([side or filler for side in rejected], b, None),
            p[[place[id(run)] for run in rows]],
            _valid(chosen),
            _valid(rejected),
        )

    def refer(self, policy: Policy | None) -> None:
        """Take the policy as it stands for the reference of implied preferences; None is the initial one."""
        self.stage_ref = None
        if policy is not None and self.paired:
            chosen, rejected = policy.score_sets([self.chosen, self.rejected])
            self.stage_ref = chosen, rejected


def _sides(run: Sequence[Example], paired: bool) -> tuple[list[Completion], list[Completion]]:
    """Chosen and rejected completions of a run's rows; of unpaired labels the desirable and the undesirable
    ones.
    """
    if not paired:
        return _labelled(run, True), _labelled(run, False)
    pairs = [e for e in run if isinstance(e, Pair)]
    return [Completion(e.prompt, e.chosen) for e in pairs], [Completion(e.prompt, e.rejected) for e in pairs]


def _labelled(run: Sequence[Example], wanted: bool) -> list[Completion]:
    return [
        Completion(e.prompt, e.completion) for e in run if isinstance(e, Single) and e.desirable == wanted
    ]


def _filler(rows: list[Sequence[Example]]) -> list[Completion]:
    # a set with one label only still needs one encodable row; it is never valid
    first = rows[0][0]
    return [Completion(first.prompt, first.completion if isinstance(first, Single) else first.chosen)]


def _pad(rows: list[list[float]], fill: float) -> Array:
    width = max(1, *(len(r) for r in rows)) if len(rows) > 1 else max(1, len(rows[0]))
    return np.array([r + [fill] * (width - len(r)) for r in rows], dtype=np.float64)


def _valid(completions: list[list[Completion]]) -> Array:
    sizes = np.array([len(run) for run in completions])
    valid: Array = np.arange(max(1, sizes.max())) < sizes[:, None]
    return valid


def array(values: Tensor) -> Array:
    """A float64 copy on the host."""
    return values.detach().to("cpu", torch.float64).numpy()


def evaluate(
    policy: Policy,
    eval_set: EvalSet,
    step: int,
    slices: Sequence[EvaluatedSlice],
    kl_strength: Array | None,
    world: WorldEvaluation | None,
    initial: bool = False,
) -> Evaluation:
    """Score an evaluation set under the current policy of every run.

    Args:
        slices: (stacked algorithm, its runs, its state), for the implied preferences.
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
        implied=_implied(eval_set, chosen, rejected, slices) if eval_set.paired else None,
        world=world,
        kl_strength=kl_strength,
        rounding=torch.finfo(chosen.token_logps.dtype).eps,
    )


@torch.no_grad()
def _implied(
    eval_set: EvalSet, chosen: Scores, rejected: Scores, slices: Sequence[EvaluatedSlice]
) -> Array | None:
    """The probabilities that the algorithms claim, shape (runs, E); NaN rows where one claims none.

    Log-ratios are those that the loss is given: against the stage's reference, whatever the other metrics are
    against.
    """
    chosen_ref, rejected_ref = eval_set.stage_ref or (eval_set.chosen_ref, eval_set.rejected_ref)
    out = np.full(eval_set.valid.shape, np.nan)
    rows = eval_set.valid.shape[1]
    policy, reference = (
        {"chosen": _padded(chosen), "rejected": _padded(rejected)},
        {"chosen": _padded(chosen_ref), "rejected": _padded(rejected_ref)},
    )
    for algorithm, runs, state in slices:
        step = Step(
            {g: _runs(s, runs) for g, s in policy.items()},
            {g: _runs(s, runs) for g, s in reference.items()},
            state=state,
        )
        claimed = algorithm.implied_preference(step)
        if claimed is not None:
            out[runs] = array(claimed)[:, :rows]
    return None if np.isnan(out).all() else out


def _padded(scores: Scores) -> Scores:
    """The scores with masked rows added up to a multiple of LANES."""
    extra = -scores.mask.shape[-2] % LANES
    if not extra:
        return scores
    pad = torch.nn.functional.pad
    return Scores(pad(scores.token_logps, (0, 0, 0, extra)), pad(scores.mask, (0, 0, 0, extra)))


def _runs(scores: Scores, runs: slice) -> Scores:
    part = Scores(scores.token_logps[runs], scores.mask[runs])
    for name in ("sum", "mean", "length"):  # keep what is already derived
        if name in scores.__dict__:
            part.__dict__[name] = scores.__dict__[name][runs]
    return part


def world_evaluation(policy: Any, prompt_weight: Array, seen: Array | None = None) -> WorldEvaluation:
    """The exact distributions of a tabular policy; `seen` marks the actions of the training data, shape
    (runs, P, A).
    """
    layout = policy.layout
    logp = array(policy.log_probs())
    if (
        policy.value_dtype != torch.float64
    ):  # rounded logarithms are those of no distribution: KL and rewards need one
        logp = logp - np.logaddexp.reduce(logp, axis=-1, keepdims=True)
    return WorldEvaluation(
        logp=logp,
        ref_logp=layout.log_reference,
        mask=layout.mask,
        reward=layout.reward,
        prompt_weight=prompt_weight,
        seen=seen,
    )


def prompt_weights(policy: Any, rows: Sequence[Sequence[Example]]) -> Array:
    """Uniform weight on the prompts that each run's training rows contain, shape (runs, P)."""
    place = {prompt: i for i, prompt in enumerate(policy.layout.prompts)}
    weights = np.zeros((len(rows), len(place)))
    for run, examples in enumerate(rows):
        used = {place[e.prompt] for e in examples}
        weights[run, list(used)] = 1.0 / len(used)
    return weights


def seen_actions(policy: Any, rows: Sequence[Sequence[Example]]) -> Array:
    """Actions that each run's training rows contain, shape (runs, P, A), bool."""
    layout = policy.layout
    known: dict[int, Array] = {}
    for examples in rows:  # runs of one seed share their rows
        if id(examples) not in known:
            flat = np.zeros(layout.mask.size, dtype=bool)
            texts = (
                (e.prompt, t)
                for e in examples
                for t in ((e.chosen, e.rejected) if isinstance(e, Pair) else (e.completion,))
            )
            flat[[layout.position[key] for key in texts]] = True
            known[id(examples)] = flat.reshape(layout.mask.shape)
    return np.stack([known[id(examples)] for examples in rows])
