"""TDPO: DPO with the difference of the sequential KL divergences of both completions in its margin.

    TDPO1:  loss = −log σ(β (Δ − (D_l − D_w)))
    TDPO2:  loss = −log σ(β (Δ − α (D_l − sg(D_w))))
    Δ = log-ratio of chosen − log-ratio of rejected, D = Σ_t KL(π_ref(.|x, y_<t) ‖ π(.|x, y_<t)) along a
    completion

sg stops the gradient: TDPO2 leaves the KL along the chosen completion alone and pulls the policy back along
    the rejected one.

Pitfalls: D is a sum over tokens, as Δ is, and its direction is from the reference to the policy. It needs the
full distributions of both at every token, so the reference runs beside the policy at every step. With a
tabular policy, where a completion is one token, D is that of the prompt, the same on both sides: TDPO1 is DPO
there, and TDPO2 has DPO's value with a KL penalty in
    its gradient. What
the losses claim about a pair holds D too, which evaluation does not compute: no preference is implied.

Source: Zeng et al. 2024, Token-level Direct Preference Optimization, arXiv:2404.11999, and
github.com/Vance0124/Token-level-Direct-Preference-Optimization.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn.functional import logsigmoid
from typing_extensions import Doc

from xpo_bench import Algorithm, Group, Step, hookimpl

GROUPS = {"chosen": Group(reference=True, token_kl=True), "rejected": Group(reference=True, token_kl=True)}


@dataclass(frozen=True)
class TDPO1(Algorithm):
    """DPO less the difference of the KL divergences along the rejected and the chosen completion."""

    name: ClassVar[str] = "tdpo1"
    spec: ClassVar[int] = 2
    groups: ClassVar[Mapping[str, Group]] = GROUPS
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    source: ClassVar[str] = "Zeng et al. 2024"

    beta: Annotated[float, Gt(0), Doc("KL strength, 1/nats")] = 0.1

    def loss(self, step: Step) -> Tensor:
        away = step.policy["rejected"].sequence_kl - step.policy["chosen"].sequence_kl
        return -logsigmoid(self.beta * (_difference(step) - away))


@dataclass(frozen=True)
class TDPO2(Algorithm):
    """TDPO1 that weighs the KL divergences, and lets the one along the chosen completion be."""

    name: ClassVar[str] = "tdpo2"
    spec: ClassVar[int] = 2
    groups: ClassVar[Mapping[str, Group]] = GROUPS
    regulariser: ClassVar[tuple[str, int] | None] = ("beta", +1)
    source: ClassVar[str] = "Zeng et al. 2024"

    beta: Annotated[float, Gt(0), Doc("KL strength, 1/nats")] = 0.1
    alpha: Annotated[float, Ge(0), Doc("weight of the KL divergences in the margin, dimensionless")] = 0.5

    def loss(self, step: Step) -> Tensor:
        away = step.policy["rejected"].sequence_kl - step.policy["chosen"].sequence_kl.detach()
        return -logsigmoid(self.beta * (_difference(step) - self.alpha * away))


def _difference(step: Step) -> Tensor:
    return step.log_ratio("chosen") - step.log_ratio("rejected")


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [TDPO1, TDPO2]
