"""Stepwise DPO: DPO in T stages, each starting from, and taking as reference, the policy of the stage before.

    stage t:  loss = −log σ(β Δ_t),   Δ_t with π_ref = the policy after stage t−1

The data is cut in T chunks of whole units, easy ones first. A unit is all rows of one `source`, else of one
prompt; when all pairs share one unit they are split at random, both orders of a pair staying together. A unit
is the easier the more of its pairs the initial policy already ranks right by per-token log-probability.

Args:
    beta: KL strength β of one stage, 1/nats.
    n_stages: set as `stages`; the number T of stages, among which the step budget is split equally.
    data: `"easy_to_hard"` gives every stage its own chunk, `"all"` gives every stage all data.

Pitfalls: on all data T stages at β end where one stage at β/T does, so at equal β more stages mean less
regularisation towards the initial policy; optimizer state and learning-rate schedule start anew at every
stage.

Source: Kim et al. 2024, §3.2.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt
from pydantic import Field
from typing_extensions import Doc

from xpo_bench import TIE, Algorithm, Completion, Example, Pair, Stage, Step, Tools, hookimpl, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SDPO(Algorithm):
    name: ClassVar[str] = "sdpo"
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {
        "beta": (0.01, 0.5)
    }  # DPO's: the same constant
    source: ClassVar[str] = "Kim et al. 2024, §3.2"
    paper: ClassVar[str] = "arXiv:2403.19270"

    beta: Annotated[float, Gt(0), Doc("KL strength of one stage, 1/nats")] = 0.1
    # a field of the name `stages` would hide the method
    n_stages: Annotated[int, Ge(1), Field(alias="stages"), Doc("number of stages")] = 2
    data: Annotated[Literal["easy_to_hard", "all"], Doc("a chunk of the data per stage, or all of it")] = (
        "easy_to_hard"
    )

    def stages(self) -> Sequence[Stage]:
        return (Stage(share=1 / self.n_stages, reference="previous", restart=True),) * self.n_stages

    def shape_data(self, examples: Sequence[Any], tools: Tools) -> Sequence[Example]:
        if self.data == "all":
            return examples
        units = _units(examples)
        if len(units) == 1:
            units = _split(examples, self.n_stages, tools.rng)
        right = _ranked_right([pair for unit in units for pair in unit], tools)
        ends = np.cumsum([len(unit) for unit in units])
        weight = np.array([pair.share for unit in units for pair in unit])
        parts = (np.split(values, ends[:-1]) for values in (right * weight, weight))
        share = [float(good.sum() / rows.sum()) for good, rows in zip(*parts, strict=True)]
        order = sorted(
            range(len(units)), key=lambda u: -share[u]
        )  # stable: equally easy units keep their order
        return [pair for u in order for pair in units[u]]

    def stage_examples(self, stage: int, examples: Sequence[Any]) -> Sequence[Example]:
        if self.data == "all":
            return examples
        return _chunks(_units(examples), self.n_stages)[stage]

    def loss(self, step: Step) -> Tensor:
        return -logsigmoid(self.beta * (step.log_ratio("chosen") - step.log_ratio("rejected")))


def _units(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """The pairs by source, or by prompt where they name no source, in order of first appearance."""
    units: dict[Hashable, list[Pair]] = {}
    for pair in pairs:
        units.setdefault(
            ("prompt", pair.prompt) if pair.source is None else ("source", pair.source), []
        ).append(pair)
    return list(units.values())


def _split(pairs: Sequence[Pair], parts: int, rng: np.random.Generator) -> list[list[Pair]]:
    """A random split in at most `parts` units, named in `source`; rows of the same texts stay together."""
    alike: dict[Hashable, list[Pair]] = {}
    for pair in pairs:
        alike.setdefault((pair.prompt, frozenset((pair.chosen, pair.rejected))), []).append(pair)
    rows = list(alike.values())
    shuffled = [rows[i] for i in rng.permutation(len(rows))]
    chunks = _chunks(shuffled, min(parts, len(rows)))
    return [[replace(pair, source=f"part {number}") for pair in chunk] for number, chunk in enumerate(chunks)]


def _chunks(units: Sequence[Sequence[Pair]], parts: int) -> list[list[Pair]]:
    """Consecutive units joined into `parts` chunks of about equal size, none empty.

    With fewer units than parts, neighbouring parts take the same unit.
    """
    n = len(units)
    if n < parts:
        return [list(units[part * n // parts]) for part in range(parts)]
    rows = np.cumsum([0] + [sum(pair.share for pair in unit) for unit in units])
    cuts = [0]
    for part in range(1, parts):
        # each cut goes to the nearest end of a unit, and leaves at least one unit for every later part
        nearest = int(np.abs(rows - rows[-1] * part / parts).argmin())
        cuts.append(min(max(nearest, cuts[-1] + 1), n - (parts - part)))
    return [[pair for unit in units[a:b] for pair in unit] for a, b in zip(cuts, [*cuts[1:], n], strict=True)]


def _ranked_right(pairs: Sequence[Pair], tools: Tools) -> np.ndarray:
    """1 where the initial policy prefers chosen per token, ½ at a tie up to rounding, else 0; (pairs,)."""
    texts = [Completion(p.prompt, p.chosen) for p in pairs] + [
        Completion(p.prompt, p.rejected) for p in pairs
    ]
    chosen, rejected = np.split(np.array(tools.logps(texts, reference=True, average=True)), 2)
    margin = chosen - rejected
    return np.asarray(np.where(np.abs(margin) <= TIE, 0.5, margin > 0))


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [SDPO]
