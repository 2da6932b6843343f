"""Which cells run as one computation, and how the trainer sees each of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from xpo_bench.runner.plan import Cell
from xpo_bench.train.job import Job

MAX_RUNS = 1024
"""Runs of one vectorised computation at most: beyond it nothing is gained, and an interruption costs all of
them.
"""

USUAL = 16
"""Adapters that are proposed for one forward pass, at most: more are hardly faster on a CPU."""


@dataclass(frozen=True)
class CellBatch:
    """Cells that run as one computation."""

    cells: tuple[Cell, ...]

    @property
    def label(self) -> str:
        names = list(dict.fromkeys(cell.algorithm.name for cell in self.cells))
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        count = f" ({len(self.cells)} runs)" if len(self.cells) > 1 else ""
        return f"{self.cells[0].setup.name}: {shown}{count}"


def job_of(cell: Cell) -> Job:
    """The cell as the trainer sees it."""
    setup = cell.setup
    return Job(
        cell.algorithm,
        setup.name,
        cell.seed,
        cell.lr,
        cell.optimizer,
        setup.dataset(cell.seed),
        setup.budget,
        tuple(metric for metric, _ in setup.metrics.values()),
        cell.stop,
    )


def fits_ensemble(cell: Cell) -> bool:
    """Whether a cell of a language model may be one of an ensemble: it samples and lists no completions."""
    dataset = cell.setup.dataset(cell.seed)
    listed = dataset.world is not None and dataset.world.exhaustive
    return (
        not cell.algorithm.requires
        and not listed
        and not any(stage.refresh or stage.solve for stage in cell.algorithm.stages())
    )


def groups(cells: Sequence[Cell]) -> list[CellBatch]:
    """Cells of tabular tasks with equal stages, optimizer, budget and world share a computation.

    Those of language models run alone, or with others of their task where its budget asks for an ensemble:
    with those of their algorithm, or with adapters on one model also with those of others.
    """
    together: dict[Hashable, list[Cell]] = {}
    for cell in cells:
        together.setdefault(_tabular(cell) if cell.setup.model.tabular else _language(cell), []).append(cell)
    out = []
    for members in together.values():
        # runs that differ in float hyperparameters alone stand side by side: the trainer stacks them into one
        # loss call; the sort is stable, so cells that tie keep the order of the plan
        ordered = sorted(members, key=lambda cell: (cell.algorithm.name, repr(job_of(cell).group()[1])))
        first = members[0].setup
        most = MAX_RUNS if first.model.tabular else first.budget.ensemble
        out += [CellBatch(tuple(ordered[i : i + most])) for i in range(0, len(ordered), most)]
    return out


def _tabular(cell: Cell) -> Hashable:
    """Equal for cells of tabular policies that can be computed as one."""
    setup, dataset, stages = cell.setup, cell.setup.dataset(cell.seed), cell.algorithm.stages()
    task: Hashable = id(setup)
    if dataset.world:  # tasks on one world that have as many rows are the same computation with other indices
        task = (repr(setup.model), repr(setup.budget), setup.device, len(dataset.train), len(dataset.heldout))
    # what samples from the policy, or solves for it, runs beside cells of its own algorithm alone
    on_policy = any(stage.refresh is not None or stage.solve for stage in stages)
    world = repr(dataset.world) if dataset.world else ""
    own = cell.algorithm.name if on_policy else ""
    return (task, cell.optimizer, cell.stop, repr(stages), world, own)


def _language(cell: Cell) -> Hashable:
    """Equal for cells of language models that can be computed as one."""
    return _copies(cell) if cell.setup.budget.ensemble > 1 and fits_ensemble(cell) else cell.key


def _copies(cell: Cell) -> Hashable:
    """Equal for cells that may be copies of one language model."""
    model = cell.setup.model
    # adapters share the model that they stand on, which is another one for each seed where it is random
    base = cell.seed if model.lora_rank and model.name == "tiny" else None
    algorithm = None if model.lora_rank else cell.algorithm.name
    stages = repr(cell.algorithm.stages())
    return (id(cell.setup), algorithm, base, cell.optimizer, cell.stop, stages)


def apart(cells: Sequence[Cell]) -> Iterator[str]:
    """What to say of cells that train adapters on one model one after the other, and need not."""
    together: dict[Hashable, list[Cell]] = {}
    for cell in cells:
        setup = cell.setup
        if setup.model.lora_rank and setup.budget.ensemble == 1 and fits_ensemble(cell):
            together.setdefault(_copies(cell), []).append(cell)
    for members in together.values():
        count = len(members)
        if count > 1:
            yield (
                f"{members[0].setup.name}: {count} runs train adapters on one model, one after the other; "
                f"--set task.ensemble={min(count, USUAL)} trains so many in one forward pass"
            )


def parts_of(batch: CellBatch) -> Iterator[CellBatch]:
    """A batch cut one level finer: per algorithm, then per cell."""
    by_algorithm: dict[str, list[Cell]] = {}
    for cell in batch.cells:
        by_algorithm.setdefault(cell.algorithm.name, []).append(cell)
    if len(by_algorithm) > 1:
        yield from (CellBatch(tuple(cells)) for cells in by_algorithm.values())
    else:
        yield from (CellBatch((cell,)) for cell in batch.cells)
