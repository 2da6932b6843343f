"""Supervised fine-tuning on the chosen completions: the floor against which every overhead is measured.

    loss = NLL(chosen) = −logp_w / length_w

Pitfalls: the mean over tokens is taken per sequence and then over examples; pooling all tokens of a batch
gives long completions more weight. The rejected completion is never scored, and neither is the reference.

Source: maximum likelihood; Ouyang et al. 2022, the supervised step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from xpo_bench import Algorithm, Group, Step, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SFT(Algorithm):
    name: ClassVar[str] = "sft"
    groups: ClassVar[Mapping[str, Group]] = {"chosen": Group()}
    source: ClassVar[str] = "Ouyang et al. 2022"
    paper: ClassVar[str] = "arXiv:2203.02155"

    def loss(self, step: Step) -> Tensor:
        return -step.policy["chosen"].mean


@hookimpl
def xpo_algorithms() -> list[type[Algorithm]]:
    return [SFT]
