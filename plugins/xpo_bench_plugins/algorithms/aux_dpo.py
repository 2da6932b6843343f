"""AuxDPO: DPO with a free offset per completion, for what of the reward the policy class cannot express.

    loss = −log σ(β Δ + δ(y_w) − δ(y_l)),   minimised over the policy and over δ with A δ = 0
    (A δ) = Σ_x ρ(x) Σ_y π_ref(y|x) δ(x, y) ∇_θ log π_ref(y|x),   ρ the share of the prompt in the data

The implicit reward β lr of a policy class with few parameters is a thin set; DPO projects the reward of the
data on it, weighted by how often pairs are compared, and can end below the reference. RLHF does not see the
part δ of a reward in the null space of A, to first order, so it may be left free. This is the paper's form
with the constraint met exactly, solved in δ beforehand: together β lr and δ express every reward, hence at
the joint minimum their sum is the unconstrained Bradley–Terry fit r, and δ = r − its regression on ∇_θ log
π_ref, weighted by π_ref. β drops out of δ. What is trained is DPO with these offsets, whose minimiser in the
policy is that of the joint problem where log-ratios are linear in θ.

Args:
    beta: KL strength β, as in DPO, 1/nats.
    reward_weight_decay: strength of the quadratic penalty on the rewards of the fit, dimensionless; 0 is the
        paper's likelihood, without a finite optimum on certain preferences.
    refit: steps after which the null space is taken anew, at the policy as it stands, with the next batch of
        rows; 0 keeps that of the reference, as in the paper.

Pitfalls: the theory is local. With π_ref's null space the minimiser is one natural-gradient step of RLHF from
the reference, θ = F⁻¹ A r/β, right for large β only; taken anew at the current policy, it comes to rest where
the gradient of max E r − β·KL within the class is 0. On a tabular policy A δ = 0 leaves a constant per
prompt, and the loss is DPO's. The soft penalty on batches that the paper uses on language models is not here:
an offset per example, free but for as many constraints as a batch has, can explain every label by itself.

Source: Gopalan et al. 2025 (Why DPO is a misspecified estimator), the AuxDPO loss; Kakade 2001 (the natural
policy gradient).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Gt
from typing_extensions import Doc

from xpo_bench import Algorithm, Completion, Example, Pair, Stage, Step, Tools, hookimpl, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class OffsetPair(Pair):
    """A pair with δ(y_w) − δ(y_l), dimensionless log-odds."""

    offset: float = 0.0


@dataclass(frozen=True)
class AuxDPO(Algorithm):
    name: ClassVar[str] = "aux_dpo"
    spec: ClassVar[int] = 3
    requires: ClassVar[frozenset[str]] = frozenset({"reward", "tangent"})
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    kl_strength: ClassVar[str | None] = "beta"
    # DPO's: the same constant
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (0.01, 0.5)}
    source: ClassVar[str] = "Gopalan et al. 2025"
    paper: ClassVar[str] = "arXiv:2510.20413"

    beta: Annotated[float, Gt(0), Doc("KL strength, 1/nats")] = 0.1
    reward_weight_decay: Annotated[
        float, Ge(0), Doc("quadratic penalty on the fitted rewards, dimensionless")
    ] = 0.01
    refit: Annotated[
        int, Ge(0), Doc("steps after which the null space is that of the current policy; 0: the reference's")
    ] = 0

    def stages(self) -> Sequence[Stage]:
        return (Stage(refresh=self.refit or None),)

    def shape_data(self, examples: Sequence[Any], tools: Tools) -> Sequence[Example]:
        everything: Sequence[Any] = tools.examples
        reward = tools.fit_reward(everything, self.reward_weight_decay)
        rows: defaultdict[str, float] = defaultdict(float)
        for pair in everything:
            rows[pair.prompt] += pair.share
        # with soft labels the shares of a row sum to 1: every prompt as often as it has rows
        named = [prompt for prompt, count in rows.items() for _ in range(round(count))]
        expressed = tools.fit_tangent(reward, named)

        def delta(side: str) -> np.ndarray:
            completions = [Completion(pair.prompt, getattr(pair, side)) for pair in examples]
            return np.subtract(reward(completions), expressed(completions))

        offsets = delta("chosen") - delta("rejected")
        share = np.array([pair.share for pair in examples])
        tools.note("offset_size", float((share * np.abs(offsets)).sum() / share.sum()))
        return [
            OffsetPair(p.prompt, p.chosen, p.rejected, p.p_chosen, p.source, p.person, offset)
            for p, offset in zip(examples, offsets.tolist(), strict=True)
        ]

    def columns(self, examples: Sequence[Any]) -> Mapping[str, Sequence[float]]:
        return {"offset": [pair.offset for pair in examples]}

    def loss(self, step: Step) -> Tensor:
        margin = self.beta * (step.log_ratio("chosen") - step.log_ratio("rejected"))
        return -logsigmoid(margin + step.columns["offset"])


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [AuxDPO]
