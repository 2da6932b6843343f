"""The reference of an evaluation: scored once for all checkpoints, and then let go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xpo_bench.contract.examples import Completion, Example
from xpo_bench.errors import UsageError
from xpo_bench.evaluating.loading import Loader, NotFinite
from xpo_bench.evaluating.rows import BaseSet, selected
from xpo_bench.evaluating.sampling import Drawing, Samples, draw
from xpo_bench.policy.language.fit import EQUAL, Fitted
from xpo_bench.runner.references import References, fingerprint
from xpo_bench.train.evaluation.eval_set import EvalSet
from xpo_bench.train.job import RowFacts
from xpo_bench.train.reference_scores import ReferenceScorer

if TYPE_CHECKING:
    from xpo_bench.policy.language.causal_lm import CausalLM
    from xpo_bench.policy.language.tokenize import Encoded


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What checkpoints are measured on.

    Args:
        sets: `train` and, where rows are held out, `heldout`. numbers: of their rows in the file.
        base: name -> the encoded texts of a set, and their summed log-probabilities under the reference.
        samples: of the reference, where a judge compares with them.
        facts: what became of the rows. model: what the reference says of itself. vocabulary: its logits.
    """

    sets: Mapping[str, EvalSet]
    numbers: Mapping[str, tuple[int, ...]]
    base: Mapping[str, tuple[Encoded, np.ndarray, np.ndarray]]
    samples: Mapping[Drawing, Samples]
    facts: RowFacts
    model: Mapping[str, Any]
    vocabulary: int
    longest: int


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is prepared.

    Args:
        splits: name -> (rows, their numbers). most: rows of a split that are evaluated, None for all.
        drawings: what is sampled of the reference; nothing without a judge.
    """

    task: str
    splits: Mapping[str, tuple[Sequence[Example], Sequence[int]]]
    most: int | None
    truncate: str
    base: Sequence[BaseSet]
    drawings: Sequence[Drawing]


def prepare(loader: Loader, asked: Asked, kept: Path | None) -> Prepared:
    """Load the reference, score everything that is fixed, and let it go.

    Args:
        kept: where reference scores are kept for later evaluations.
    """
    try:
        policy = loader.policy(loader.reference)
    except NotFinite:
        raise UsageError(
            f"--reference {loader.reference.shown}: its weights are not finite; want another model"
        ) from None
    scorer, known = _scorer(policy, asked.truncate, kept)
    fits = {name: policy.fit(list(rows), asked.truncate) for name, (rows, _) in asked.splits.items() if rows}
    sets, numbers = {}, {}
    for name, fitted in fits.items():
        places = selected(fitted.examples, [*fitted.left_out], asked.task, asked.most, name == "heldout")
        built = EvalSet.build(policy, [[fitted.examples[i] for i in places]], asked.truncate, scorer)
        if built is not None:
            sets[name] = built
            numbers[name] = tuple(asked.splits[name][1][i] for i in places)
    base = {}
    for other in asked.base:
        encoded, logps, lengths = _base(policy, other, asked.truncate, scorer)
        base[other.name] = (encoded, logps, lengths)
    known.save()
    samples = {drawing: draw(policy, drawing) for drawing in dict.fromkeys(asked.drawings)}
    return Prepared(
        sets=sets,
        numbers=numbers,
        base=base,
        samples=samples,
        facts=_facts(fits.values()),
        model=policy.describe(),
        vocabulary=policy.network.vocabulary,
        longest=_longest(sets, base),
    )


def _scorer(policy: CausalLM, truncate: str, kept: Path | None) -> tuple[ReferenceScorer, References]:
    known = References(kept and kept / f"{fingerprint(policy, truncate)}.parquet")
    # the policy stands at the reference all the time: its own tensors serve as the snapshot, without a copy
    state = {name: p.detach() for name, p in policy.network.weights.named.items()}
    return ReferenceScorer(policy, state, known), known


def _base(
    policy: CausalLM, other: BaseSet, truncate: str, scorer: ReferenceScorer
) -> tuple[Encoded, np.ndarray, np.ndarray]:
    encoded = policy.encode(list(other.texts), truncate)
    fitting = [i for i in range(len(other.texts)) if encoded.row(i) is not None]
    texts: list[Completion] = [other.texts[i] for i in fitting]
    encoded = policy.encode(texts, truncate)
    found = scorer([texts], encoded, None)
    return encoded, found.sum[0].double().cpu().numpy(), found.length[0].double().cpu().numpy()


def _facts(fits: Any) -> RowFacts:
    reasons: dict[str, int] = {}
    truncated = merged = 0
    for fit in fits:
        assert isinstance(fit, Fitted)
        truncated, merged = truncated + fit.truncated, merged + fit.merged
        for reason, n in fit.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + n
    equal = reasons.pop(EQUAL, 0)
    return {
        "truncated": truncated,
        "boundary_merges": merged,
        "equal_ids": equal,
        "unfit": dict(sorted(reasons.items())),
    }


def _longest(sets: Mapping[str, EvalSet], base: Mapping[str, tuple[Encoded, Any, Any]]) -> int:
    encoded = [s for known in sets.values() for s in (known.chosen, known.rejected)]
    encoded += [e for e, *_ in base.values()]
    return max((len(row.ids) for e in encoded for row in e.rows), default=0)
