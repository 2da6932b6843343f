"""overfit_pair: one chosen and one rejected completion of one prompt, on a tiny randomly initialised Llama.

Texts are token ids. Four tokens each, nothing in common, so each can be pushed alone. What to expect: DPO
drives the rejected log-probability down without end and is collapsed by step 20 or so; IPO settles at its
margin. `--loss-over token` makes each completion token a row of the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xpo_bench import Budget, Dataset, ModelSpec, Pair, Task, hookimpl


@dataclass(frozen=True)
class OverfitPair(Task):
    """A single pair of token sequences; only the initial weights depend on the seed."""

    name: ClassVar[str] = "overfit_pair"
    version: ClassVar[str] = "1"
    cannot_see: ClassVar[str] = "lengths: all completions have the same number of tokens"
    model: ClassVar[ModelSpec] = ModelSpec(
        name="tiny",
        tokenizer="ids",
        vocab_size=32,
        hidden_size=256,
        intermediate_size=512,
        layers=2,
        heads=4,
        context=32,
        eos=False,
    )
    budget: ClassVar[Budget] = Budget(
        steps=300,
        batch_size=1,
        optimizer="adam",
        lr=1e-3,
        dtype="float32",
        kl_prompts=1,
        kl_samples=256,
        max_new_tokens=4,
    )

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """The one pair, as space-separated token ids."""
        return Dataset(train=(Pair("5 8 9 10 5 3", "16 29 18 17", "26 14 31 0"),), rows=1)


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [OverfitPair]
