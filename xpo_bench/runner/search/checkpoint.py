"""The checkpoint at a KL: where a run on its way first passes K nats, found on its curve and evaluated there.

What a regulariser is meant to hold may still be moving when the steps end, and some algorithms have none. On
its way such a run still stands K nats from the reference at one step, and there it can be compared. The runs
that are stopped follow the schedule of the whole run (stages, warm-up, order of the rows), so that they are
checkpoints of it and no shorter runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, log
from typing import Any, TypedDict

from xpo_bench.runner.plan import Cell, Plan, make_cell
from xpo_bench.runner.record import Checkpoint, Record
from xpo_bench.runner.settings import validate

CLOSE = 0.02
"""Relative distance from the target that is near enough."""
REFINEMENTS = 6
"""Evaluations at most between the two of the curve that enclose the target; two or three are usual."""

Run = Callable[[Plan], Sequence[Record]]
"""Executes a plan and returns its records in plan order."""
Curve = Callable[[str], Sequence[Mapping[str, Any]]]
"""Key of a cell -> its evaluations in order."""


class Stopped(TypedDict):
    """Where the runs of one algorithm on one task pass the target.

    `value` is that of the regulariser, None where there is none; `steps` where each seed was evaluated, `of`
    the whole run; `kl` the mean there; `reached` whether every seed passes; `keys` the cells.
    """

    value: float | None
    steps: list[int]
    of: int
    kl: float | None
    reached: bool
    keys: list[str]


@dataclass
class Path:
    """The KL of one run along its steps, as far as it was evaluated."""

    cell: Cell
    target: float
    points: dict[int, float]
    step: int | None = None
    """The checkpoint, once it is found."""
    looks: int = 0

    def near(self, step: int) -> bool:
        """Whether it has just passed the target there."""
        return self.target <= self.points[step] <= self.target * (1 + CLOSE)

    def _distance(self, step: int) -> float:
        kl = self.points[step]
        return abs(log(kl / self.target)) if kl > 0 else inf

    @property
    def bracket(self) -> tuple[int, int] | None:
        """The evaluations between which it first passes the target; None where it never does.

        A run that only comes near enough, such as one that is held there, counts at the first that is.
        """
        steps = sorted(self.points)
        for enough in (self.target, self.target / (1 + CLOSE)):
            for low, high in zip([0, *steps], steps, strict=False):
                if self.points[high] >= enough:
                    return low, high
        return None

    def look(self) -> int | None:
        """The next step to evaluate, between the two that enclose the target; None once it is found, or where
        there is none.
        """
        enclosing = self.bracket
        if enclosing is None:
            return None
        low, high = enclosing
        if self.near(high) or high - low < 2 or self.points[high] < self.target:
            self.step = high
            return None
        self.looks += 1
        step = round(self._crossing(low, high) if self.looks % 3 else (low + high) / 2)
        return min(max(step, low + 1), high - 1)

    def _crossing(self, low: int, high: int) -> float:
        """Where the KL between two evaluations comes to the middle of what is near enough.

        KL ∝ step^p between the two, as it is early in a run (p = 2 for steps of equal length); linear from
        the start of the run. A curve of another shape may keep such a line on one side of it, so that every
        third look is at the middle instead.
        """
        a, b, aim = self.points[low], self.points[high], self.target * (1 + CLOSE / 2)
        if low and a > 0 and b > aim:
            return float(low * (high / low) ** (log(aim / a) / log(b / a)))
        return low + (aim - a) / (b - a) * (high - low)

    def settle(self) -> None:
        """Take the nearer of the two evaluations that enclose the target."""
        if enclosing := self.bracket:
            self.step = min((s for s in enclosing if s > 0), key=self._distance)


@dataclass
class Subject:
    """One algorithm on one task.

    Args:
        cells: as they were asked for, one per seed. regulariser: the field that was searched. nearest: its
            value whose final KL came nearest to the target, tried where the default does not get there.
        settled: whether the search has an answer of its own, beside which the checkpoint is shown.
    """

    cells: Sequence[Cell]
    regulariser: str | None
    nearest: float | None
    settled: bool
    paths: list[Path] = field(default_factory=list)

    @property
    def closed(self) -> bool:
        """Whether it is a closed form, which is at its end from the first step on and has no way there."""
        return all(stage.solve for stage in self.cells[0].algorithm.stages())

    @property
    def reached(self) -> bool:
        return bool(self.paths) and all(path.bracket for path in self.paths)

    def at(self, value: float | None, experiment: str) -> list[Cell]:
        """Its cells with a value of the regulariser, the default for None."""
        changes = {} if value is None or self.regulariser is None else {self.regulariser: value}
        return [_like(cell, experiment, changes=changes) for cell in self.cells]


def find(
    subjects: Sequence[Subject], target: float, run: Run, curve: Curve, note: Callable[[str], None]
) -> tuple[list[Cell], list[Stopped | None]]:
    """Stop every subject where it passes the target.

    Returns:
        the cells of the checkpoints of subjects without a settled answer, to be run and reported; and what
        was found of every subject, None of a closed form with a settled answer. Checkpoints beside a settled
        answer have been run, and count as part of the search.
    """
    search = f"kl={target:g} search"
    _follow([(s, s.at(None, search)) for s in subjects], target, run, curve)
    # a default that is held nearer than the target never gets there: a looser run may
    again = [
        (s, s.at(s.nearest, search))
        for s in subjects
        if s.nearest is not None and not s.reached and not s.closed
    ]
    before = [s.paths for s, _ in again]
    _follow(again, target, run, curve)
    for (s, _), default in zip(again, before, strict=True):
        if not s.reached:
            s.paths = default
    open_ = [path for s in subjects if not s.closed for path in s.paths]
    note(f"target kl {target:g}: checkpoints of {len(open_)} runs")
    _refine(open_, target, search, run)
    cells: list[Cell] = []
    beside: list[Cell] = []
    found: list[Stopped | None] = []
    for s in subjects:
        stopped = list(_stopped(s, target))
        if s.settled and (s.closed or not s.reached):
            found.append(None if s.closed else _document(s, []))
            continue
        (beside if s.settled else cells).extend(stopped)
        found.append(_document(s, stopped))
    if beside:
        run(Plan(beside))
    return cells, found


def _follow(pairs: Sequence[tuple[Subject, Sequence[Cell]]], target: float, run: Run, curve: Curve) -> None:
    """Run whole runs, and read where their KL goes."""
    if not pairs:
        return
    records = iter(run(Plan([cell for _, cells in pairs for cell in cells])))
    for subject, cells in pairs:
        subject.paths = [_path(cell, next(records), target, curve) for cell in cells]


def _path(cell: Cell, record: Record, target: float, curve: Curve) -> Path:
    points = {int(row["step"]): float(row["kl"]) for row in curve(cell.key) if row.get("kl") is not None}
    end, steps = record["metrics"].get("kl"), record["timing"].get("steps")
    if end is not None and steps and record["status"] == "ok":
        points[int(steps)] = end  # a KL that is sampled at the end alone may not be on the curve
    return Path(cell, target, {0: 0.0} | points)


def _refine(paths: Sequence[Path], target: float, experiment: str, run: Run) -> None:
    """Evaluate between the evaluations of the curves, until every checkpoint is near enough or found."""
    for _ in range(REFINEMENTS):
        looks = [(path, step) for path in paths if path.step is None and (step := path.look()) is not None]
        if not looks:
            return
        cells = [_like(path.cell, experiment, stop=_at(path, target, step)) for path, step in looks]
        for (path, step), record in zip(looks, run(Plan(cells)), strict=True):
            kl = record["metrics"].get("kl") if record["status"] == "ok" else None
            if kl is None:  # what fails when it is stopped is left where its curve was evaluated
                path.settle()
            else:
                path.points[step] = kl
                if path.near(step):
                    path.step = step
    for path in paths:
        if path.step is None:
            path.settle()


def _stopped(subject: Subject, target: float) -> Iterator[Cell]:
    """The cells to report: each seed at its checkpoint, or at its end where it never passes the target."""
    experiment = f"kl={target:g} search" if subject.settled else f"kl={target:g}"
    for path in subject.paths:
        yield _like(path.cell, experiment, stop=_at(path, target, path.step))


def _at(path: Path, target: float, step: int | None) -> Checkpoint:
    steps = path.cell.setup.budget.steps
    return {
        "target_kl": target,
        "step": steps if step is None else step,
        "steps": steps,
        "reached": step is not None,
    }


def _like(
    cell: Cell,
    experiment: str,
    *,
    changes: Mapping[str, object] | None = None,
    stop: Checkpoint | None = None,
) -> Cell:
    """A cell of the same task, seed and training, with other values, or stopped."""
    algorithm = cell.algorithm
    if changes:
        algorithm = validate(type(algorithm), {**cell.config, **changes}, algorithm.name)
    train = (cell.lr, cell.optimizer)
    return make_cell(cell.setup, algorithm, cell.info, train, cell.seed, experiment, checkpoint=stop)


def _document(subject: Subject, cells: Sequence[Cell]) -> Stopped:
    of = subject.cells[0].setup.budget.steps
    steps = [path.step if path.step is not None else of for path in subject.paths]
    # of a run that never passes, the last KL that is known
    kls = [p.points[s if s in p.points else max(p.points)] for p, s in zip(subject.paths, steps, strict=True)]
    value = subject.paths[0].cell.config.get(subject.regulariser) if subject.regulariser else None
    return {
        "value": float(value) if isinstance(value, int | float) else None,
        "steps": steps,
        "of": of,
        "kl": sum(kls) / len(kls),
        "reached": all(path.step is not None for path in subject.paths),
        "keys": [cell.key for cell in cells],
    }
