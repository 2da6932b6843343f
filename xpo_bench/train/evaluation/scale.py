"""The scale of an algorithm's log-ratios: what its drift is measured by."""

from __future__ import annotations

from typing import get_type_hints

from typing_extensions import Doc

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.metric import USUAL_SCALE


def log_ratio_scale(algorithm: Algorithm) -> float:
    """1/β in nats, β the strength per nat that the algorithm declares; 10 nats where it declares none.

    With β the optimum of max E r − β·KL has log-ratios r/β, those of DPO stand at logit(p)/β and those of IPO
    at 1/(2τ). β is the field `kl_strength`, else the regulariser. One that loosens as it grows (`candidates`
    of best-of-n), or whose sentence calls it dimensionless (the weight of a likelihood), is no strength per
    nat.
    """
    name = algorithm.kl_strength or _regulariser(algorithm)
    # a name that no field has is for the conformance checks to report, and no reason for a run to fail
    value = getattr(algorithm, name, None) if name else None
    return 1 / value if isinstance(value, float) and value > 0 else USUAL_SCALE


def _regulariser(algorithm: Algorithm) -> str | None:
    if algorithm.regulariser is None:
        return None
    name, direction = algorithm.regulariser
    try:
        hint = get_type_hints(type(algorithm), include_extras=True).get(name)
    except NameError:  # a class written in a function may name types that only that function knows
        hint = None
    sentences = [note.documentation for note in getattr(hint, "__metadata__", ()) if isinstance(note, Doc)]
    return name if direction > 0 and not any("dimensionless" in text for text in sentences) else None
