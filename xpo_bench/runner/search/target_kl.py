"""`--target-kl K`: the value of each algorithm's regulariser at which its final KL from the initial policy is
K nats, and the checkpoint at which each run passes K.

Algorithms at equal hyperparameters stand at different distances from the reference, and at equal β even those
that share a β. At equal KL they can be compared: what does each earn for the same departure?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from math import exp, log

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.errors import UsageError
from xpo_bench.plugins import Registry
from xpo_bench.runner.plan import Cell, Plan, make_plan
from xpo_bench.runner.record import Record
from xpo_bench.runner.search import checkpoint
from xpo_bench.runner.search.checkpoint import CLOSE, Curve, Run, Stopped, Subject
from xpo_bench.runner.settings import swept, validate
from xpo_bench.runner.words import Request

VALUES = 7
"""Values of the regulariser that are tried together: a tabular policy trains them as one computation."""
ROUNDS = 5
"""Rounds at most; each narrows the bracket by a factor of VALUES + 1."""
REACH = 1e4
"""The first bracket: the default value divided and multiplied by this."""


@dataclass(frozen=True)
class Found:
    """What the search came to for one algorithm on one task.

    Args:
        value: of the regulariser, or None where the target cannot be reached. kl: mean over seeds at that
            value.
        reason: why it cannot be reached, or what to know of the value.
        checkpoint: where a run passes the target on its way; None of a closed form, which has no way.
    """

    algorithm: str
    task: str
    field: str | None
    value: float | None
    kl: float | None
    reason: str | None = None
    checkpoint: Stopped | None = None

    def document(self) -> dict[str, object]:
        """JSON-ready."""
        return asdict(self)


@dataclass
class Search:
    """The search for one algorithm on one task: a bracket in ln(value) that shrinks around the target.

    KL falls along the direction that the algorithm declares, up to noise, so the bracket lies between the
    neighbours where it crosses the target.
    """

    cls: type[Algorithm]
    request: Request
    task: str
    target: float
    low: float
    high: float
    tried: dict[float, tuple[float, bool | None]]
    done: bool = False
    reason: str | None = None

    @property
    def field(self) -> str:
        assert self.cls.regulariser is not None
        return self.cls.regulariser[0]

    @property
    def direction(self) -> int:
        assert self.cls.regulariser is not None
        return self.cls.regulariser[1]

    def values(self) -> list[float]:
        """What to try next, geometric inside the bracket; the ends too in the first round."""
        if not self.tried:
            points = [self.low + (self.high - self.low) * k / (VALUES + 1) for k in range(VALUES + 2)]
        else:
            points = [self.low + (self.high - self.low) * k / (VALUES + 1) for k in range(1, VALUES + 1)]
        return [v for v in (float(f"{exp(x):.6g}") for x in points) if self._valid(v) and v not in self.tried]

    def _valid(self, value: float) -> bool:
        try:
            validate(self.cls, {self.field: value}, self.cls.name)
        except UsageError:
            return False
        return True

    def read(self, records: Sequence[Record]) -> None:
        """Take the records of a round, and narrow the bracket or end the search."""
        by_value: dict[float, list[Record]] = {}
        for record in records:
            by_value.setdefault(record["algorithm"]["config"][self.field], []).append(record)
        for value, runs in by_value.items():
            kls = [
                kl for run in runs if run["status"] == "ok" and (kl := run["metrics"].get("kl")) is not None
            ]
            # the mean over seeds; a value at which a single seed diverges counts as not tried
            if len(kls) == len(runs):
                # absent where it cannot be told, as of a KL that is known at the end alone
                converged = [run["notes"].get("kl_settled") for run in runs]
                self.tried[value] = (sum(kls) / len(kls), None if None in converged else all(converged))
        if not self.tried:
            self.done, self.reason = True, "no run with a finite KL"
            return
        best = min(self.tried, key=self._distance)
        # |ln(KL / target)|: as far from the target at half of it as at twice it
        if self._distance(best) <= log(1 + CLOSE):
            self.done = True
            return
        # the first crossing from the tightest value on: with noise there may be several, and the one at the
        # smallest departure is the one that the regulariser is meant to hold
        tighter = sorted(self.tried, reverse=self.direction > 0)  # KL rises along this order
        for inner, outer in pairwise(tighter):
            if self.tried[inner][0] <= self.target <= self.tried[outer][0]:
                self.low, self.high = sorted((log(inner), log(outer)))
                return
        # no two neighbours enclose the target: it lies beyond one end of what was tried, where a
        # smaller bracket would not help
        kls = [kl for kl, _ in self.tried.values()]
        self.done = True
        self.reason = (
            f"KL stays between {min(kls):.3g} and {max(kls):.3g} nats for {self.field} "
            f"from {min(self.tried):.3g} to {max(self.tried):.3g}"
        )

    def _distance(self, value: float) -> float:
        kl = self.tried[value][0]
        return abs(log(kl / self.target)) if kl > 0 else float("inf")

    @property
    def nearest(self) -> float | None:
        """The value whose final KL came nearest to the target."""
        return min(self.tried, key=self._distance) if self.tried else None

    def result(self) -> Found:
        """The value nearest to the target, where it is near and its runs have converged."""
        if self.reason:
            return Found(
                self.cls.name, self.task, self.field, None, None, f"cannot be reached: {self.reason}"
            )
        value = min(self.tried, key=self._distance)
        kl, converged = self.tried[value]
        if self._distance(value) > log(1 + CLOSE):
            reason = (
                f"cannot be reached within {CLOSE:.0%}: the nearest is KL {kl:.3g} at {self.field} {value:g}"
            )
            return Found(self.cls.name, self.task, self.field, None, kl, reason)
        if converged is False:
            reason = (
                f"not converged in this budget: KL {kl:.3g} at {self.field} {value:g} is still changing; "
                "more --steps"
            )
            return Found(self.cls.name, self.task, self.field, None, kl, reason)
        note = None if converged else "KL is known at the end only, so whether it has converged is not"
        return Found(self.cls.name, self.task, self.field, value, kl, note)


def find(
    base: Plan,
    asked: Sequence[Request],
    target: float,
    registry: Registry,
    run: Run,
    curve: Curve,
    note: Callable[[str], None],
) -> tuple[Plan, list[Found]]:
    """Search for every algorithm on every task of a plan, all of a round together.

    Returns:
        the plan of the final cells, for each algorithm and task the configuration that holds the target, or
        where there is none a run that is stopped there; and what was found.

    Raises:
        UsageError: the target is not above 0, or `--set` fixes a regulariser that is to be searched.
    """
    if not target > 0:
        raise UsageError(f"--target-kl {target:g}: want a KL in nats above 0, such as 1")
    for request in asked:
        if field := swept(request.settings):
            raise UsageError(f"--target-kl searches at one setting: give {field} one value")
    searches, found = _searches(base, asked, target)
    for number in range(ROUNDS):
        tried = [(search, values) for search in searches if not search.done and (values := search.values())]
        if not tried:
            break
        note(f"target kl {target:g}: round {number + 1} of at most {ROUNDS}, {len(tried)} searches")
        plans = [
            make_plan([_with(search, values, f"kl={target:g} search")], registry) for search, values in tried
        ]
        # one plan for all searches of a round, so that their cells train side by side; the records come back
        # in plan order and are dealt out again by the number of cells of each
        records = iter(run(Plan([cell for plan in plans for cell in plan.cells])))
        for (search, _), plan in zip(tried, plans, strict=True):
            search.read([next(records) for _ in plan.cells])
    results = [(search, search.result()) for search in searches]
    found += [result for _, result in results]
    finals = [
        _with(search, [result.value], f"kl={target:g}")
        for search, result in results
        if result.value is not None
    ]
    subjects = [_subject(base, entry, searches) for entry in found]
    stopped, where = checkpoint.find(subjects, target, run, curve, note)
    found = [replace(entry, checkpoint=at) for entry, at in zip(found, where, strict=True)]
    return Plan([*make_plan(finals, registry).cells, *stopped], base.skipped, base.unreachable), found


def _subject(base: Plan, found: Found, searches: Sequence[Search]) -> Subject:
    """What is stopped on its way: the cells of an algorithm on a task as they were asked for."""
    place = (found.algorithm, found.task)
    first = next(cell for cell in base.cells if (cell.algorithm.name, cell.setup.name) == place)
    cells = [
        cell
        for cell in base.cells
        if cell.setup is first.setup
        and cell.config == first.config
        and cell.algorithm.name == found.algorithm
    ]
    nearest = next((s.nearest for s in searches if (s.cls.name, s.task) == place), None)
    return Subject(cells, found.field, nearest, found.value is not None)


def _searches(base: Plan, asked: Sequence[Request], target: float) -> tuple[list[Search], list[Found]]:
    """One search per algorithm and task of the plan, and the result for what has no regulariser to search."""
    searches: dict[tuple[str, str], Search] = {}
    found: dict[tuple[str, str], Found] = {}
    for cell in base.cells:
        cls, key = type(cell.algorithm), (cell.algorithm.name, cell.setup.name)
        if key in searches or key in found:
            continue
        reason, request = _unfit(cell), _request_of(cell, asked)
        if reason:
            found[key] = Found(*key, cls.regulariser[0] if cls.regulariser else None, None, None, reason)
            continue
        assert cls.regulariser is not None
        name = cls.regulariser[0]
        if name in request.settings.get(cls.name, {}):
            raise UsageError(f"--target-kl chooses {cls.name}.{name}; leave it out of --set")
        # the bracket is centred on the declared default, REACH times smaller and larger
        middle = log(getattr(cell.algorithm, name))
        searches[key] = Search(
            cls, request, cell.setup.name, target, middle - log(REACH), middle + log(REACH), {}
        )
    return list(searches.values()), list(found.values())


def _unfit(cell: Cell) -> str | None:
    declared = cell.algorithm.regulariser
    if declared is None:
        return "declares no regulariser"
    value = getattr(cell.algorithm, declared[0])
    if not isinstance(value, float):
        return f"its regulariser {declared[0]} is not a real number"
    return (
        None if value > 0 else f"its regulariser {declared[0]} is 0 by default, without a scale to search on"
    )


def _request_of(cell: Cell, asked: Sequence[Request]) -> Request:
    """The request for this algorithm and task alone."""
    source = next(
        (r for r in asked if not r.tasks or cell.setup.name in {getattr(t, "name", t) for t in r.tasks}),
        asked[0],
    )
    tasks = () if source.data else (cell.setup.name,) if cell.setup.info.installed else (cell.setup.task,)
    algorithm = cell.algorithm.name if cell.info.installed else cell.algorithm
    kept = {
        k: v
        for k, v in source.settings.items()
        if k in ("task", cell.algorithm.name, f"{cell.algorithm.name}.train")
    }
    return replace(source, algos=(algorithm,), tasks=tasks, settings=kept, suite=None)


def _with(search: Search, values: Sequence[float], experiment: str) -> Request:
    settings = dict(search.request.settings)
    settings[search.cls.name] = {**settings.get(search.cls.name, {}), search.field: list(values)}
    return replace(search.request, settings=settings, experiment=experiment)
