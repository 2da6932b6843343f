"""EXO: the reverse KL divergence from the smoothed label of a pair to the policy's own choice within it.

    loss = q log(q/(1−ε)) + (1−q) log((1−q)/ε),   q = σ(β Δ)

q is the probability of the chosen completion among the two under π/π_ref to the power β. This is EXO for
preferences, of two completions per prompt; the form on K completions with rewards is not implemented, since
rows hold pairs.

Args:
    beta: scale β of the log-ratios, 1/nats.
    label_smoothing: probability ε that a label is wrong, above 0: at 0 the divergence is infinite.

Pitfalls: the divergence is taken FROM the policy, where DPO's cross-entropy is taken from the label: swapped,
with ε as smoothing, it is cDPO. The minimum is at β Δ = log((1−ε)/ε), a finite margin. Labels that
contradict one another, p to 1−p, end at β Δ = (2p−1) log((1−ε)/ε), as IPO's do, and not at log(p/(1−p)). The
gradient is q(1−q) (β Δ − log((1−ε)/ε)), so it vanishes on pairs far on the WRONG side.

Source: Ji et al. 2024, eq. 16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Gt, Lt
from typing_extensions import Doc

from xpo_bench import Algorithm, Step, hookimpl, logsigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EXO(Algorithm):
    name: ClassVar[str] = "exo"
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {
        "beta": (0.01, 0.5)
    }  # DPO's: the same constant
    source: ClassVar[str] = "Ji et al. 2024, eq. 16"
    paper: ClassVar[str] = "arXiv:2402.00856"

    beta: Annotated[float, Gt(0), Doc("scale of the log-ratios, 1/nats")] = 0.1
    label_smoothing: Annotated[float, Gt(0), Lt(0.5), Doc("probability that a label is wrong")] = 0.001

    def loss(self, step: Step) -> Tensor:
        import torch

        logit = self._logit(step)
        epsilon = torch.as_tensor(self.label_smoothing, dtype=logit.dtype, device=logit.device)
        # q log q as exp(log q)·log q: finite at both ends, where q itself rounds to 0 or 1
        log_q, log_rest = logsigmoid(logit), logsigmoid(-logit)
        chosen = log_q.exp() * (log_q - torch.log1p(-epsilon))
        return chosen + log_rest.exp() * (log_rest - epsilon.log())

    def implied_preference(self, step: Step) -> Tensor:
        return self._logit(step).sigmoid()

    def _logit(self, step: Step) -> Tensor:
        return self.beta * (step.log_ratio("chosen") - step.log_ratio("rejected"))


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [EXO]
