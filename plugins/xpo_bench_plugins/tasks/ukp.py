"""ukp: which of two arguments convinces, by five crowd votes a pair.

8,158 pairs of human-written arguments on 16 sides of debates; whole topics are held out. `p_chosen` is the
fraction of votes, so calibration has an empirical truth; ties (1/2) are not trained on and stay for
calibration. The longer argument wins 72 % of the pairs: compare `reward_accuracy` with `accuracy_lc`. Read as
`ukpconvarg1` from the directory that `XPO_BENCH_DATA` names; the few pairs of equal texts are left out and
counted. `source` is the topic.

What to expect: with random weights (`tiny`) training accuracy rises and held-out topics stay near the length
baseline; a pretrained `--model` does better on both.

Source: Habernal and Gurevych (2016), ACL; CC BY 4.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from xpo_bench import Budget, Task, hookimpl
from xpo_bench_plugins.text_set import TextSet


@dataclass(frozen=True)
class Ukp(TextSet):
    """Real text with crowd votes; held-out topics."""

    # the policy's 1,024 bytes hold the longest row, so that nothing is truncated
    name: ClassVar[str] = "ukp"
    source: ClassVar[str] = "ukpconvarg1"
    # 16 prompts in all, so more samples of each than the usual 4
    budget: ClassVar[Budget] = replace(TextSet.budget, kl_samples=8)
    learning_rates: ClassVar[Mapping[str, float]] = {
        "cdpo": 1e-05,
        "cpo": 1e-05,
        "dpo": 1e-05,
        "dpop": 1e-05,
        "ipo": 1e-05,
        "kto": 1e-05,
        "npo": 1e-05,
        "orpo": 1e-05,
        "robust": 1e-05,
        "sdpo": 1e-05,
        "sft": 1e-05,
        "simpo": 1e-05,
        "slic": 1e-05,
    }


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Ukp]
