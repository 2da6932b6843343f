"""The words of a run: what a user may ask for, each with its type, its sentence, and how its option is shown.

Options of `xpo-bench run`, words of a plan file and arguments of `xpo_bench.run` are these fields. One
with the name of a field of `Budget` or `DataSpec` has its choices, and its sentence unless it has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from functools import lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt
from typing_extensions import Doc

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.settings import Budget, DataSpec
from xpo_bench.contract.task import Task

Settings = dict[str, dict[str, list[object]]]
"""target -> field -> values; target is `task`, `NAME` or `NAME.train`."""


class Lora(NamedTuple):
    """Adapters as they are asked for: `targets` are ends of names of layers, none for the suite's rule."""

    rank: int
    alpha: int
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Word:
    """How a field is asked for.

    Args:
        name: as a user writes it, where that is not the field's. metavar, default: in the help of its option.
        option: whether the command line has it. file: whether a plan file has it.
    """

    name: str = ""
    metavar: str | None = None
    default: str = ""
    option: bool = True
    file: bool = True


# words that `evaluate` has as well
OnBadRow = Annotated[
    str, Word(default="error"), Doc("refuse a data set with bad rows, or skip and count them")
]
Truncate = Annotated[
    str,
    Word(default="prompt"),
    Doc("what is truncated in rows longer than the context; drop leaves them out"),
]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be computed; None leaves a choice to the task."""

    algos: Annotated[
        Sequence[str | type[Algorithm] | Algorithm],
        Doc("algorithms, separated by commas, FILE.py:CLASS among them, or all"),
    ] = ()
    tasks: Annotated[Sequence[str | type[Task] | Task], Doc("tasks, separated by commas")] = ()
    suite: Annotated[
        str | None,
        Word(default="quick"),
        Doc(
            "a built-in set of tasks: quick, exact or full; exact-1.0, which stays as it is; or article, six "
            "experiments with figures"
        ),
    ] = None
    data: Annotated[
        str | None,
        Word(metavar="FILE_OR_HUB_ID"),
        Doc(
            "make a task of any preference set: .jsonl, .json, .csv, .tsv, .parquet, "
            "a name under XPO_BENCH_DATA, or a hub id"
        ),
    ] = None
    world: Annotated[
        str | None,
        Word(metavar="FILE.json"),
        Doc("with --data: reference probabilities and rewards per prompt"),
    ] = None
    rows: Annotated[
        int | None,
        Word(metavar="N", default="all"),
        Doc("read only the first N rows of a data set, of each split if it has any"),
    ] = None
    on_bad_row: OnBadRow = "error"
    columns: Annotated[
        Mapping[str, str] | None,
        Word(metavar="NAME=COLUMN[,...]"),
        Doc(
            "with --data: what columns mean, such as chosen=response_a,rejected=response_b; "
            "known layouts need none"
        ),
    ] = None
    rankings: Annotated[
        str | None,
        Word(default="all"),
        Doc("with --data: make all pairs of a ranking, or its best answer against each other one"),
    ] = None
    strength: Annotated[
        str | None,
        Word(metavar="K[,centre=C]"),
        Doc(
            "with --data: make probabilities of strengths, p_chosen = sigmoid(K*(s-C)); s is a column "
            "strength, that of a layout, or score_chosen - score_rejected"
        ),
    ] = None
    truncate: Truncate = "prompt"
    model: Annotated[
        str | None,
        Word(metavar="tabular|linear[:RANK]|tiny|HUB_ID|PATH"),
        Doc("the policy; by default the task's own"),
    ] = None
    lora: Annotated[
        Lora | None,
        Word(metavar="r=R[,alpha=A][,targets=X+Y]"),
        Doc(
            "train adapters of rank R on a frozen language model (needs peft): on the linear layers that "
            "every token passes, or on those that are named"
        ),
    ] = None
    template_date: Annotated[
        date | None,
        Word(metavar="YYYY-MM-DD", default="2024-07-26, so that keys do not change"),
        Doc("the day that a chat template is told, where it writes today's date"),
    ] = None
    trust_remote_code: Annotated[
        bool, Word(file=False), Doc("run code that the model's hub repository ships")
    ] = False
    settings: Annotated[
        Settings,
        Word("set", "A.FIELD=V1,V2"),
        Doc(
            "a hyperparameter (dpo.beta=0.1), a training setting (dpo.train.lr=1e-3) or a task setting "
            "(task.steps=200); commas sweep, several --set form a grid"
        ),
    ] = field(default_factory=dict)
    seeds: Annotated[
        Sequence[int],
        Word(metavar="N|LIST", default="3"),
        Doc("3 is seeds 0, 1, 2; 0,7 or 42, names seeds"),
    ] = (0,)
    steps: int | None = None
    batch_size: int | None = None
    sampling: str | None = None
    heldout: Annotated[
        float | None,
        Word(metavar="F"),
        Doc("with --data: fraction of rows held out of a set whose split column holds out none"),
    ] = None
    split_by: Annotated[
        str | None,
        Word(metavar="prompt|row|COLUMN", default="prompt"),
        Doc(
            "with --heldout: hold out whole prompts, or rows, whose prompts training may see too, or all "
            "rows of values of a column, such as person"
        ),
    ] = None
    optimizer: str | None = None
    lr: Annotated[
        float | None,
        Doc("learning rate of all algorithms; by default each has its own from the task's table"),
    ] = None
    loss_over: str | None = None
    label_noise: Annotated[float | None, Word(metavar="P")] = None
    labels: Annotated[
        str | None,
        Word(default="soft for votes, probabilities and ties on a tabular or linear policy, else hard"),
    ] = None
    dtype: str | None = None
    gpus_per_cell: Annotated[
        int,
        Word(metavar="N", default="1"),
        Doc(
            "train a language model by N processes, "
            "each with the whole model on a device of its own (no sharding)"
        ),
    ] = 1
    save_policies: Annotated[
        str | None,
        Word(metavar="DIR"),
        Doc(
            "write every trained language model to a directory of its own in DIR, as save_pretrained does; "
            "`xpo-bench evaluate` reads it"
        ),
    ] = None
    experiment: Annotated[str | None, Word(option=False), Doc("a label of all cells")] = None
    versions: Annotated[
        Mapping[str, str],
        Word(option=False),
        Doc("versions that tasks must have: a frozen suite refuses another world"),
    ] = field(default_factory=dict)
    suite_label: Annotated[
        bool, Word(option=False, file=False), Doc("the label is the suite's own, not one that a user wrote")
    ] = False
    device: Annotated[str, Word(option=False, file=False)] = "cpu"

    @property
    def budget(self) -> dict[str, object]:
        """What the words say of the budget of every task."""
        given = {name: getattr(self, name) for name in BUDGET_KEYS}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Search:
    """Which configurations are run beside, or in place of, those that are asked for."""

    target_kl: Annotated[
        float | None,
        Word(metavar="K"),
        Doc("search the value of each regulariser at which the final KL is K nats, and run it"),
    ] = None
    protocol: Annotated[
        str,
        Word(metavar="default|tuned", default="default"),
        Doc("with tuned, also run each algorithm at the best of its trials, chosen on a validation split"),
    ] = "default"
    trials: Annotated[
        int | None,
        Word(metavar="N", default="16"),
        Doc("with --protocol tuned: configurations per algorithm"),
    ] = None
    studies: Annotated[
        int | None,
        Word(metavar="S", default="1"),
        Doc(
            "with --protocol tuned: independent searches, with trials and seeds of their own; their spread "
            "is part of the interval of the tuned row"
        ),
    ] = None
    select: Annotated[
        str | None,
        Word(metavar="METRIC", default="heldout_reward_accuracy"),
        Doc("with --protocol tuned: what trials are chosen by"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Where cells run, and for how long."""

    device: Annotated[
        str, Word(default="auto"), Doc("the device of the policies: auto, cpu, cuda or cuda:1")
    ] = "auto"
    executor: Annotated[
        Literal["local", "ray"],
        Word(default="local"),
        Doc("where cells run: on this machine, or as tasks of a Ray cluster (needs the extra ray)"),
    ] = "local"
    address: Annotated[
        str | None,
        Word(metavar="auto|local|HOST:PORT", default="auto"),
        Doc(
            "with --executor ray: the cluster that this machine is part of, one of its own for this run, "
            "or another"
        ),
    ] = None
    workers: Annotated[
        int | None,
        Ge(1),
        Word(
            metavar="N",
            default="1, and one for each core where small language models take long; "
            "with --executor ray all that the cluster has room for",
        ),
        Doc(
            "processes side by side, each with its own GPU or share of the cores; "
            "1 runs cells in this process"
        ),
    ] = None
    cell_timeout: Annotated[
        float | None, Gt(0), Word(metavar="S"), Doc("end a cell after S seconds, as a timeout")
    ] = None
    deterministic: Annotated[
        bool, Doc("let torch take deterministic algorithms alone: the same bits on the same GPU, slower")
    ] = False


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where the records of a run go, and which part of it is computed."""

    out: Annotated[
        Path | None,
        Word(metavar="DIR", default="results/runs/ and the plan's hash"),
        Doc("run directory; an existing one is extended"),
    ] = None
    track: Annotated[
        tuple[str, ...],
        Word(metavar="NAME[,NAME]"),
        Doc(
            "follow every cell live in RUN/tracking: csv, tensorboard, wandb (offline), "
            "or a tracker of a plugin"
        ),
    ] = ()
    shard: Annotated[
        str | None,
        Word(metavar="I/N"),
        Doc("run the I-th of N parts of the plan; `xpo-bench merge` joins their directories"),
    ] = None
    wait: Annotated[
        bool, Doc("wait for another process that writes the run directory, in place of an error")
    ] = False
    fresh: Annotated[bool, Doc("compute cells again that are already there")] = False


# --------------------------------------------------------------------------- what is derived of them


@dataclass(frozen=True)
class Described:
    """A word with all that its field says, and what `Budget` or `DataSpec` say of the field of that name.

    Args:
        kind: its type, without None. choices: empty where it is free.
        at_least, above: bounds of its own; those of a budget's fields are checked with the whole budget.
    """

    name: str
    field: str
    kind: object
    sentence: str
    word: Word
    choices: tuple[str, ...]
    at_least: Any
    above: Any
    default: object


@lru_cache
def described(cls: type) -> dict[str, Described]:
    """The words of a class by the name of their field, in order."""
    hints = get_type_hints(cls, include_extras=True)
    return {f.name: _described(f.name, hints[f.name], f.default) for f in fields(cls)}


def _described(name: str, hint: object, default: object) -> Described:
    own, notes = _parts(hint)
    kinds, below = [own], list[object]()
    for cls in (Budget, DataSpec):
        if name in {f.name for f in fields(cls)}:
            kind, more = _parts(get_type_hints(cls, include_extras=True)[name])
            kinds.append(kind)
            below += more
    word = next((note for note in notes if isinstance(note, Word)), Word())
    # the sentence and the choices of a budget field stand once, at the field, and serve the option too
    sentence = next((note.documentation for note in (*notes, *below) if isinstance(note, Doc)), "")
    choices = next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())
    at_least = next((note.ge for note in notes if isinstance(note, Ge)), None)
    above = next((note.gt for note in notes if isinstance(note, Gt)), None)
    return Described(word.name or name, name, own, sentence, word, choices, at_least, above, default)


def _parts(hint: object) -> tuple[object, tuple[object, ...]]:
    """A type without `Annotated` and without None, and the notes on it."""
    notes: tuple[object, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        notes = tuple(rest)
    if get_origin(hint) in (Union, UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not NoneType]
        # `float | None` is shown as a float: None means that the word is not given
        hint = kinds[0] if len(kinds) == 1 else hint
    return hint, notes


_BUDGET = {f.name for f in fields(Budget)}
BUDGET_KEYS = tuple(f.name for f in fields(Request) if f.name in _BUDGET)
"""Words that set a field of every task's budget; the other fields are settings, such as `task.clip`."""
FILE_KEYS = tuple(entry.name for entry in described(Request).values() if entry.word.file)
"""Words of a plan file."""
