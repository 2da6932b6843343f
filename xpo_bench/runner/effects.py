"""No option is without effect: what some cell of a plan reads of a request; a refusal of what none does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from xpo_bench.errors import UsageError
from xpo_bench.runner.plan import Cell, stepped
from xpo_bench.runner.settings import names
from xpo_bench.runner.words import BUDGET_KEYS, Request

Reads = Callable[[Cell], bool]


def check_effects(asked: Sequence[Request], cells: Sequence[Cell]) -> None:
    """Refuse an option that changes no cell.

    Args:
        asked: every request of a command. cells: those of its plan, at least one.

    Raises:
        UsageError: the option, why nothing reads it, and what would be right.
    """
    for request in asked:
        _check_rates(request, cells)
    for name in dict.fromkeys(name for request in asked for name in _given(request)):
        reads, why = READERS.get(name, (None, ""))
        option_of_task = any(name in names(type(cell.setup.task)) for cell in cells)
        if reads is not None and not option_of_task and not any(reads(cell) for cell in cells):
            raise UsageError(f"{_written(name, asked)}: without effect here; {why}")


def _given(request: Request) -> Iterator[str]:
    """The words of a request that are not as if they were not given, and the settings of its tasks."""
    for name in (*BUDGET_KEYS, "trust_remote_code"):
        if getattr(request, name) not in (None, False):
            yield name
    if request.truncate != "prompt":
        yield "truncate"
    if request.save_policies is not None:
        yield "save_policies"
    yield from request.settings.get("task", {})


def _written(name: str, asked: Sequence[Request]) -> str:
    """The option as a user writes it."""
    setting = any(name in request.settings.get("task", {}) for request in asked)
    return f"--set task.{name}" if setting else f"--{name.replace('_', '-')}"


def _check_rates(request: Request, cells: Sequence[Cell]) -> None:
    """Refuse a rate or an update rule that no algorithm takes: a closed form, or where each has its own."""
    there = {cell.algorithm.name: cell.algorithm for cell in cells}
    trained = {name for name, algorithm in there.items() if stepped(algorithm)}
    own = {
        target.removesuffix(".train"): v
        for target, v in request.settings.items()
        if target.endswith(".train")
    }
    for name in own:
        if name in there and name not in trained:
            raise UsageError(
                f"--set {name}.train: without effect; {name} is a closed form, no step trains it"
            )
    given = set(_given(request))
    for word in ("lr", "optimizer"):
        if word in given and trained and all(word in own.get(name, {}) for name in trained):
            raise UsageError(
                f"{_written(word, [request])}: without effect; every algorithm of this run has its own "
                f"({', '.join(f'{name}.train.{word}' for name in sorted(trained))})"
            )


def _language(cell: Cell) -> bool:
    return not cell.setup.model.tabular


def _trained(cell: Cell) -> bool:
    return stepped(cell.algorithm)


def _by_rows(cell: Cell) -> bool:
    return not cell.setup.budget.batch_tokens


def _remote(cell: Cell) -> bool:
    return _language(cell) and cell.setup.model.name != "tiny"


def _warmed(cell: Cell) -> bool:
    return _language(cell) and cell.setup.budget.warm_start > 0


TABLE = "the policies are tables, whose completions are one token; name a language model by --model"
WHOLE = "every step takes all rows; lower task.batch_size"
CLOSED = "a closed form is not trained by steps; name another algorithm by --algos"
SAMPLES = "no policy of this run is sampled to measure it; name a language model by --model"
READERS: Mapping[str, tuple[Reads, str]] = {
    "truncate": (_language, TABLE),
    "save_policies": (
        _language,
        "a tabular policy is in its record (final_policy); name a language model by --model",
    ),
    "loss_over": (_language, TABLE),
    "packing": (_language, TABLE),
    "ensemble": (_language, TABLE),
    "checkpointing": (_language, TABLE),
    "warm_start": (_language, TABLE),
    "warm_start_lr": (_warmed, "there is no warm start; add --set task.warm_start=STEPS"),
    "trust_remote_code": (_remote, "no model of a hub id or directory is loaded; name one by --model"),
    "kl_prompts": (_language, SAMPLES),
    "kl_samples": (_language, SAMPLES),
    "max_new_tokens": (_language, SAMPLES),
    "lr": (_trained, CLOSED),
    "optimizer": (_trained, CLOSED),
    "anneal": (lambda cell: cell.setup.budget.anneal > 0, WHOLE),
    "batch_size": (_by_rows, "task.batch_tokens cuts the batches; leave one of both out"),
}
"""Option -> the cells that read it, and what would be right where none does. An option that is not here is
read by every cell, or refused elsewhere where it cannot be.
"""
