"""Plans: the cells that a request asks for, each with the key that identifies its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.examples import Dataset, Pair
from xpo_bench.contract.settings import Optimizer
from xpo_bench.errors import UnreachableError, UsageError, unknown
from xpo_bench.plugins import IN_MEMORY, PluginInfo, Registry, check_spec
from xpo_bench.runner import keys, label_choice
from xpo_bench.runner.algorithm_files import info_of, shown
from xpo_bench.runner.record import Checkpoint, Protocol
from xpo_bench.runner.run_document import Skipped, Unreachable
from xpo_bench.runner.settings import TrainOverrides, dump, grid, validate
from xpo_bench.runner.task_setup import TaskSetup, task_setups
from xpo_bench.runner.words import Request, Settings

TABLE_ABILITIES = frozenset({"enumerable", "generate", "reward", "tangent"})
LINEAR_ABILITIES = frozenset({"generate", "reward", "tangent"})
ABILITIES = frozenset({"generate", "reward"})
"""What the tabular policy, the linear one and all others offer to algorithms."""


@dataclass(frozen=True)
class Cell:
    """One algorithm configuration on one task at one seed.

    Args:
        protocol: {name, role, trial} of cells of the tuned protocol; it does not change numbers and is not in
            the key.
        suite: the built-in suite that `experiment` is a part of; None for a label of the user's.
        checkpoint: of `--target-kl`, the step at which the run is stopped and evaluated.
    """

    key: str
    setup: TaskSetup
    algorithm: Algorithm
    config: Mapping[str, object]
    info: PluginInfo
    seed: int
    lr: float
    optimizer: Optimizer
    experiment: str | None
    protocol: Protocol | None = None
    suite: str | None = None
    checkpoint: Checkpoint | None = None

    @property
    def stop(self) -> int | None:
        """The step at which the run is left, None at the end of its budget."""
        at = self.checkpoint
        return at["step"] if at and at["step"] < self.setup.budget.steps else None

    @property
    def label(self) -> str:
        return f"{self.algorithm.name} on {self.setup.name}, seed {self.seed}"


@dataclass
class Plan:
    """The cells in order, and what was left out and why."""

    cells: list[Cell] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    unreachable: list[Unreachable] = field(default_factory=list)

    @property
    def hash(self) -> str:
        return keys.digest(sorted(cell.key for cell in self.cells), 12)

    def part(self, number: int, count: int) -> Plan:
        """Every `count`-th cell from the `number`-th on: parts that differ by one cell at most and have some
        of everything.
        """
        # strided, not cut in blocks: a block could hold all cells of the slowest task
        return Plan(self.cells[number - 1 :: count], self.skipped, self.unreachable)


def make_plan(
    asked: Sequence[Request],
    registry: Registry,
    progress: Callable[[str, str | None], None] = lambda *_: None,
) -> Plan:
    """Cross algorithms, tasks, hyperparameters and seeds.

    Args:
        progress: gets each task whose data has been read, and a line on how, where that is not plain; and
            last a line on the labels of all.

    Raises:
        UsageError: an unknown name or setting, bad data, or an algorithm named explicitly that does not fit
            a task that was named, too, or no task of a suite.
    """
    plan = Plan()
    lost: dict[str, None] = {}  # named, in order
    fitted: set[str] = set()
    classes: dict[str, type[Algorithm]] = {}
    cells: dict[str, Cell] = {}  # in order; a cell that several requests ask for stands once
    for request in asked:
        algorithms = _algorithms(request, registry)
        _refuse_namesakes(algorithms, classes)
        _check_targets(request.settings, algorithms, registry)
        setups, unreachable = _reachable(task_setups(request, registry), request.seeds[0])
        plan.unreachable += unreachable
        lost |= dict.fromkeys(c.cls.name for c in algorithms if c.explicit and request.suite)
        for setup in setups:
            progress(setup.name, setup.about(request.seeds[0]))
            fitting, skipped = _fitting(algorithms, setup, request)
            plan.skipped += skipped
            fitted |= {chosen.cls.name for chosen in fitting}
            for cell in _cells(request, setup, fitting):
                cells.setdefault(cell.key, cell)
    _refuse_lost([name for name in lost if name not in fitted], plan.skipped)
    plan.cells = list(cells.values())
    return plan


def _refuse_lost(names: Sequence[str], skipped: Sequence[Skipped]) -> None:
    """Refuse algorithms that were named, and fit no task of the suite."""
    for entry in skipped:  # without any the data of no task could be had, which is told elsewhere
        if entry["algorithm"] in names:
            raise UsageError(
                f"{entry['algorithm']} fits no task of the suite: not {entry['task']}, for example: "
                f"{entry['reason']}"
            )


@dataclass(frozen=True)
class Chosen:
    """An algorithm of a request. `fixed`: fields of an instance. `explicit`: named, not one of `all`."""

    cls: type[Algorithm]
    info: PluginInfo
    fixed: Mapping[str, object]
    explicit: bool


def _algorithms(request: Request, registry: Registry) -> list[Chosen]:
    unique: dict[object, Chosen] = {}
    for item in request.algos:
        for chosen in _chosen(item, registry):
            # `dpo,all` names dpo twice; the first mention wins, so an explicit one stays explicit
            unique.setdefault((chosen.cls, keys.canonical(chosen.fixed)), chosen)
    if not unique:
        raise UsageError("no algorithm is available: `xpo-bench list plugins` shows why")
    return list(unique.values())


def _chosen(item: str | type[Algorithm] | Algorithm, registry: Registry) -> list[Chosen]:
    """What one of `--algos` stands for."""
    if isinstance(item, Algorithm):
        return [_of_class(type(item), dump(item), registry)]
    if isinstance(item, type) and issubclass(item, Algorithm):
        return [_of_class(item, {}, registry)]
    if item == "all":
        return [Chosen(cls, info, {}, False) for _, (cls, info) in sorted(registry.algorithms.items())]
    return [Chosen(*registry.algorithm(str(item)), {}, True)]


def _of_class(cls: type[Algorithm], fixed: Mapping[str, object], registry: Registry) -> Chosen:
    try:
        check_spec(cls)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None
    return Chosen(cls, info_of(cls, registry) or IN_MEMORY, fixed, True)


def _refuse_namesakes(chosen: Iterable[Chosen], known: dict[str, type[Algorithm]]) -> None:
    """Refuse two classes of one name: settings would be of both, and no table could tell them apart."""
    for cls in (each.cls for each in chosen):
        if known.setdefault(cls.name, cls) is not cls:
            places = [shown(c) or f"{c.__module__}.{c.__qualname__}" for c in (known[cls.name], cls)]
            raise UsageError(
                f"--algos: {' and '.join(places)} are both called {cls.name!r}; give one another name"
            )


def _check_targets(settings: Settings, algorithms: Sequence[Chosen], registry: Registry) -> None:
    """Refuse settings of what is not run."""
    asked = {chosen.cls.name for chosen in algorithms}
    for target in settings:
        name = target.removesuffix(".train")
        if target == "task" or name in asked:
            continue
        if name in registry.algorithms:
            raise UsageError(
                f"--set {target}: {name} is not among the algorithms of this run ({', '.join(sorted(asked))})"
            )
        raise UsageError(unknown("target of --set", name, asked | {"task"}))


def _reachable(setups: Sequence[TaskSetup], seed: int) -> tuple[list[TaskSetup], list[Unreachable]]:
    """The tasks whose data can be had, which has been read then, and why the others' cannot."""
    reachable, unreachable = [], []
    for setup in setups:
        try:
            setup.dataset(seed)
            reachable.append(setup)
        except UnreachableError as error:
            unreachable.append(Unreachable(task=setup.name, reason=str(error)))
    return reachable, unreachable


def _fitting(
    algorithms: Sequence[Chosen], setup: TaskSetup, request: Request
) -> tuple[list[Chosen], list[Skipped]]:
    """The algorithms that can run on a task, and why others of `all`, or of a suite, cannot."""
    fitting, skipped = [], []
    for chosen in algorithms:
        reason = misfit(chosen.cls, setup, setup.dataset(request.seeds[0]))
        if reason is None:
            fitting.append(chosen)
        elif chosen.explicit and request.suite is None:
            raise UsageError(f"{chosen.cls.name} does not fit task {setup.name}: {reason}")
        else:
            skipped.append(Skipped(algorithm=chosen.cls.name, task=setup.name, reason=reason))
    return fitting, skipped


def _cells(request: Request, setup: TaskSetup, algorithms: Sequence[Chosen]) -> Iterator[Cell]:
    """Algorithms x hyperparameters x training settings x seeds, on one task."""
    for chosen in algorithms:
        name = chosen.cls.name
        for values in grid(request.settings.get(name, {})):
            algorithm = validate(chosen.cls, {**chosen.fixed, **values}, name)
            for setting in grid(request.settings.get(f"{name}.train", {})):
                train = _train(setup, name, validate(TrainOverrides, setting, f"{name}.train"))
                for seed in request.seeds:
                    yield make_cell(
                        setup,
                        algorithm,
                        chosen.info,
                        train,
                        seed,
                        request.experiment,
                        suite=request.suite if request.suite_label else None,
                    )


def _train(setup: TaskSetup, algorithm: str, own: TrainOverrides) -> tuple[float, Optimizer]:
    """Learning rate and optimizer: the algorithm's own, else `--lr`, the task's table, the budget."""
    optimizer = own.optimizer or setup.budget.optimizer
    return own.lr or setup.learning_rate(algorithm, optimizer), optimizer


def misfit(cls: type[Algorithm], setup: TaskSetup, dataset: Dataset) -> str | None:
    """Why an algorithm cannot run on a task, or None when it can."""
    exact = {"tabular": TABLE_ABILITIES, "linear": LINEAR_ABILITIES}
    lacking = sorted(cls.requires - exact.get(setup.model.name, ABILITIES))
    if lacking:
        return f"needs a policy that offers {', '.join(lacking)} (the tabular policy does)"
    if cls.accepts is Pair and dataset.kind != "pairs":
        return "needs preference pairs, the data has single labels"
    return label_choice.misfit(cls, setup.budget.labels)


def stepped(algorithm: Algorithm) -> bool:
    """Whether some stage of an algorithm is trained by steps; a closed form has no learning rate."""
    return any(not stage.solve for stage in algorithm.stages())


def make_cell(
    setup: TaskSetup,
    algorithm: Algorithm,
    info: PluginInfo,
    train: tuple[float, Optimizer],
    seed: int,
    experiment: str | None,
    protocol: Protocol | None = None,
    suite: str | None = None,
    checkpoint: Checkpoint | None = None,
) -> Cell:
    """The cell of a validated configuration, with its key. `train`: learning rate and optimizer."""
    lr, optimizer = train
    config = dump(algorithm)
    # what can change the cell's numbers, and nothing else: not where records go, how many workers there are,
    # or what role the tuned protocol gives it; `data` is a hash of the rows at this seed, not the name of a
    # file
    identity = {
        "task": setup.identity,
        "data": setup.data_fingerprint(seed),
        "algorithm": {"name": algorithm.name, "config": config, "source": keys.source(type(algorithm))},
        "plugin": [info.distribution, info.version],
        "train": {"lr": lr, "optimizer": optimizer} if stepped(algorithm) else None,
        "seed": seed,
        "experiment": experiment,
        "suite": suite,
        "host": keys.host_source(),
    } | ({"checkpoint": checkpoint} if checkpoint else {})
    return Cell(
        keys.digest(identity),
        setup,
        algorithm,
        config,
        info,
        seed,
        lr,
        optimizer,
        experiment,
        protocol,
        suite,
        checkpoint,
    )
