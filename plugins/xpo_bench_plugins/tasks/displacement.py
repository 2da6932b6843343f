"""displacement: pairs that differ in one token, on a tiny Llama that has learnt the chosen completions.

32 prompts of four random tokens, completions of eight; the rejected completion is the chosen one with its
third token replaced. A supervised warm start on the chosen completions, the same for all algorithms, leaves
them at −1 nat and the rejected ones at −13. Texts are token ids. There is one learning rate for all
algorithms: no validation is possible on data that are to be memorised, and the signs below were the same at
1e-4, 3e-4 and 1e-3.

What to expect of `displacement`, the change of the chosen log-probability since step 0, on every seed: it
FALLS under `dpo` and `ipo` (by 2 to 3 nats) and under `npo` (by tens: nothing is retained), and RISES under
`dpop` (slightly), `cpo`, `orpo` and `sft`. The two completions have the same prompt and nearly all of their
hidden states, so what pushes the rejected one down pushes the chosen one along, and a loss of the margin
alone pays nothing for it. Under `dpo` the two tokens before the difference fall most: they are the same in
both, cancel in the margin, and nothing holds them. DPOP's penalty and the likelihood term of the other three
do. `ranking_accuracy` is 1 under all but `npo`, so accuracy does not see it.

How far the chosen completions have been learnt decides: with half of the warm start (−8 nats) `dpo` and `ipo`
at 1e-3 raise them, and with three times as much (−.1) `cpo` and `dpop` at 1e-4 lower them, by .03. The sign
is not a law of the loss alone.

Source: Pal et al. (2024) for pairs of low edit distance; Razin et al. (2024) for likelihood displacement by
hidden states that are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from xpo_bench import Budget, Dataset, ModelSpec, Pair, Task, hookimpl
from xpo_bench.data.synthetic import world_stream

PAIRS = 32
PROMPT = 4
"""Tokens of a prompt."""
COMPLETION = 8
"""Tokens of a completion."""
CHANGED = 2
"""Position of the token in which the two completions of a pair differ, from 0."""
VOCABULARY = 64


@dataclass(frozen=True)
class Displacement(Task):
    """Pairs one token apart: which losses lower the likelihood of what was chosen."""

    name: ClassVar[str] = "displacement"
    version: ClassVar[str] = "1"
    cannot_see: ClassVar[str] = "lengths: all completions have the same number of tokens"
    model: ClassVar[ModelSpec] = ModelSpec(
        name="tiny", tokenizer="ids", vocab_size=VOCABULARY, context=32, eos=False
    )
    budget: ClassVar[Budget] = Budget(
        steps=40,
        batch_size=PAIRS,
        optimizer="adamw",
        lr=3e-4,
        dtype="float32",
        warm_start=100,
        kl_prompts=PAIRS,
        kl_samples=8,
        max_new_tokens=COMPLETION,
    )

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """The version's pairs, as space-separated token ids; only initial weights depend on the seed."""
        rng = world_stream(self.name, self.version)
        pairs = []
        for _ in range(PAIRS):
            prompt = rng.integers(VOCABULARY, size=PROMPT).tolist()
            chosen = rng.integers(VOCABULARY, size=COMPLETION).tolist()
            rejected = list(chosen)
            rejected[CHANGED] = (chosen[CHANGED] + int(rng.integers(1, VOCABULARY))) % VOCABULARY
            pairs.append(Pair(text(prompt), text(chosen), text(rejected)))
        return Dataset(train=tuple(pairs), rows=PAIRS)


def text(ids: Sequence[int]) -> str:
    """Token ids as the text that the tokenizer reads."""
    return " ".join(map(str, ids))


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Displacement]
