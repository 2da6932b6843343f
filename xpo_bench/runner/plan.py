"""Plans: the cells that a request asks for, each with the key that identifies its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.examples import Dataset, Pair
from xpo_bench.contract.metric import Metric
from xpo_bench.contract.settings import Budget, ModelSpec, Optimizer
from xpo_bench.contract.task import Task
from xpo_bench.data.adhoc import AdHoc, task_name
from xpo_bench.data.dataset import about, fingerprint
from xpo_bench.data.validation import validation_split
from xpo_bench.errors import UsageError, unknown
from xpo_bench.plugins import NAME, PluginInfo, Registry, check_spec
from xpo_bench.random_streams import stream
from xpo_bench.runner import keys
from xpo_bench.runner.model_choice import check_processes, model_and_budget
from xpo_bench.runner.request import Request
from xpo_bench.runner.settings import Settings, TrainOverrides, dump, grid, names, validate
from xpo_bench.train.batching import usable

IN_MEMORY = PluginInfo("in-memory", "in-memory", "0", "__main__")
TABLE_ABILITIES = frozenset({"enumerable", "generate", "reward"})
ABILITIES = frozenset({"generate", "reward"})
"""What the tabular policy and all others offer to algorithms."""


@dataclass
class TaskSetup:
    """A task with its options, model and budget settled; data is loaded once per seed.

    Args:
        rows_shipped: its rows were sent to this machine, which may be unable to read them.
        validation: hold out a part of the training rows in place of the held-out rows, for trials.
        metrics: of plugins, by name, which are measured beside the suite's own.
    """

    task: Task
    name: str
    info: PluginInfo
    model: ModelSpec
    budget: Budget
    options: Mapping[str, Any]
    truncate: str
    device: str
    processes: int = 1
    rows_shipped: bool = False
    validation: bool = False
    metrics: Mapping[str, tuple[Metric, PluginInfo]] = field(default_factory=dict)
    _data: dict[int, tuple[Dataset, str]] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        """Rows stay behind where they can be read: a process that is sent a setup does that itself."""
        return vars(self) | ({} if self.rows_shipped else {"_data": {}})

    def take(self, seed: int, dataset: Dataset, print_: str) -> None:
        """Use rows that another process has read, with the fingerprint that they had there."""
        self._data[seed] = (dataset, print_)

    def dataset(self, seed: int) -> Dataset:
        """The clean rows at a seed."""
        return self._load(seed)[0]

    def data_fingerprint(self, seed: int) -> str:
        return self._load(seed)[1]

    def _load(self, seed: int) -> tuple[Dataset, str]:
        if seed not in self._data:
            dataset = self.task.data(seed, self.model)
            if self.validation:
                divided = validation_split(
                    dataset, stream(seed, self.name, "validation"), not self.model.tabular
                )
                if divided is None:
                    raise UsageError(
                        f"task {self.name}: its training data cannot be divided into training and validation"
                    )
                dataset = divided
            if not dataset.train:
                raise UsageError(f"task {self.name}: no training rows in {dataset.source}")
            if not usable(dataset.train):
                raise UsageError(
                    f"task {self.name}: every training row of {dataset.source} is a tie (p_chosen 0.5): nothing to learn"
                )
            print_ = fingerprint(dataset)
            # seeds that draw nothing share one copy in memory
            same = next((known for known in self._data.values() if known[1] == print_), None)
            self._data[seed] = same or (dataset, print_)
        return self._data[seed]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the key says of the task, data apart."""
        return {
            "name": self.name,
            "version": self.task.version,
            "options": self.options,
            "model": dump(self.model) | {"fingerprint": keys.model_fingerprint(self.model.name)},
            "budget": dump(self.budget),
            "truncate": self.truncate,
            "device": self.device.split(":")[0],
            "processes": self.processes,
            "source": keys.source(type(self.task)),
            **(
                {"metrics": {name: keys.source(m.function) for name, (m, _) in self.metrics.items()}}
                if self.metrics
                else {}
            ),
        }

    def learning_rate(self, algorithm: str, optimizer: Optimizer, asked: float | None) -> float:
        """`--lr`, else the task's table, else the budget's default.

        The table holds for the kind of policy, trained whole, and the optimizer that it was measured with.
        """
        own = self.task.model
        kind = self.model.name == own.name if self.model.tabular else not own.tabular
        measured = kind and optimizer == self.task.budget.optimizer and self.model.lora_rank == own.lora_rank
        return asked or (self.task.learning_rates.get(algorithm) if measured else None) or self.budget.lr


@dataclass(frozen=True)
class Cell:
    """One algorithm configuration on one task at one seed.

    Args:
        protocol: {name, role, trial} of cells of the tuned protocol; it does not change numbers and is not in
            the key.
    """

    key: str
    setup: TaskSetup
    algorithm: Algorithm
    config: Mapping[str, Any]
    info: PluginInfo
    seed: int
    lr: float
    optimizer: Optimizer
    experiment: str | None
    protocol: Mapping[str, Any] | None = None

    @property
    def label(self) -> str:
        return f"{self.algorithm.name} on {self.setup.name}, seed {self.seed}"


@dataclass
class Plan:
    """The cells in order, and what was left out and why."""

    cells: list[Cell] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    unreachable: list[dict[str, str]] = field(default_factory=list)

    @property
    def hash(self) -> str:
        return keys.digest(sorted(cell.key for cell in self.cells), 12)

    def part(self, number: int, count: int) -> Plan:
        """Every `count`-th cell from the `number`-th on: parts that differ by one cell at most and have some
        of everything.
        """
        return Plan(self.cells[number - 1 :: count], self.skipped, self.unreachable)


def make_plan(
    asked: Sequence[Request],
    registry: Registry,
    progress: Callable[[str, str | None], None] = lambda *_: None,
) -> Plan:
    """Cross algorithms, tasks, hyperparameters and seeds.

    Args:
        progress: is told each task whose data has been read, and a line on how, where that is not plain.

    Raises:
        UsageError: an unknown name or setting, bad data, or an algorithm named explicitly that does not fit.
    """
    plan = Plan()
    seen: set[str] = set()
    for request in asked:
        algorithms = _algorithms(request, registry)
        _check_targets(request.settings, algorithms, registry)
        for setup in _setups(request, registry, plan):
            progress(setup.name, about(setup.dataset(request.seeds[0])))
            for cell in _cells(request, setup, algorithms, plan):
                if cell.key not in seen:
                    seen.add(cell.key)
                    plan.cells.append(cell)
    return plan


Chosen = tuple[type[Algorithm], PluginInfo, Mapping[str, Any], bool]
"""(class, plugin, fixed field values, named explicitly)"""


def _algorithms(request: Request, registry: Registry) -> list[Chosen]:
    out: list[Chosen] = []
    for item in request.algos:
        if isinstance(item, Algorithm):
            out.append((type(item), IN_MEMORY, dump(item), True))
        elif isinstance(item, type) and issubclass(item, Algorithm):
            out.append((item, IN_MEMORY, {}, True))
        elif item == "all":
            out += [(cls, info, {}, False) for _, (cls, info) in sorted(registry.algorithms.items())]
        elif str(item).endswith(".py"):
            raise UsageError(
                f"--algos {item}: takes names of installed plugins; `xpo-bench check {item}` takes a file, "
                "and xpo_bench.run its classes"
            )
        else:
            out.append((*registry.algorithm(str(item)), {}, True))
    for cls, info, *_ in out:
        if info is IN_MEMORY:
            try:
                check_spec(cls)
            except (TypeError, ValueError) as error:
                raise UsageError(str(error)) from None
    unique: dict[Any, Chosen] = {}
    for chosen in out:
        unique.setdefault((chosen[0], keys.canonical(chosen[2])), chosen)
    if not unique:
        raise UsageError("no algorithm is available: `xpo-bench list plugins` shows why")
    return list(unique.values())


def _check_targets(settings: Settings, algorithms: Sequence[Chosen], registry: Registry) -> None:
    asked = {cls.name for cls, *_ in algorithms}
    for target in settings:
        name = target.removesuffix(".train")
        if target == "task" or name in asked:
            continue
        if name in registry.algorithms:
            raise UsageError(
                f"--set {target}: {name} is not among the algorithms of this run ({', '.join(sorted(asked))})"
            )
        raise UsageError(unknown("target of --set", name, asked | {"task"}))


def _setups(request: Request, registry: Registry, plan: Plan) -> list[TaskSetup]:
    from xpo_bench.errors import UnreachableError

    entries: list[tuple[type[Task], PluginInfo, str | None, Mapping[str, Any]]] = []
    if request.data:
        heldout = validate(Budget, {"heldout": request.budget.get("heldout", 0.0)}, "run").heldout
        adhoc = {
            "source": request.data,
            "world": request.world,
            "on_bad_row": request.on_bad_row,
            "heldout": heldout,
            "columns": request.columns,
            "rankings": request.rankings,
        }
        entries.append((AdHoc, IN_MEMORY, task_name(request.data), adhoc))
    elif request.world:
        raise UsageError("--world goes with --data: it describes the prompts of an ad-hoc preference set")
    elif request.columns or request.rankings:
        option = "--columns" if request.columns else "--rankings"
        raise UsageError(f"{option} goes with --data: the tasks know the columns of their sets")
    for item in request.tasks:
        if isinstance(item, Task):
            entries.append((type(item), IN_MEMORY, None, dump(item)))
        elif isinstance(item, type):
            entries.append((item, IN_MEMORY, None, {}))
        else:
            entries.append((*registry.task(str(item)), None, {}))
    if not entries:
        raise UsageError("no task: name one with --tasks, --suite or --data")
    out = []
    for cls, info, name, values in entries:
        if request.rows is not None:
            if "rows" not in names(cls):
                raise UsageError(
                    f"--rows goes with --data and the tasks on text sets: task {cls.name} makes its own rows"
                )
            values = {**values, "rows": request.rows}
        for setting in grid(request.settings.get("task", {})):
            setup = replace(
                _setup(request, cls, info, name or cls.name, values, setting), metrics=registry.metrics
            )
            try:
                setup.dataset(request.seeds[0])
            except UnreachableError as error:
                plan.unreachable.append({"task": setup.name, "reason": str(error)})
                continue
            out.append(setup)
    return out


def _setup(
    request: Request,
    cls: type[Task],
    info: PluginInfo,
    name: str,
    values: Mapping[str, Any],
    setting: Mapping[str, Any],
) -> TaskSetup:
    option_names, budget_names = set(names(cls)), set(names(Budget))
    for key in setting:
        if key not in option_names | budget_names:
            raise UsageError(unknown(f"setting of task {name}", key, option_names | budget_names))
    options = {k: v for k, v in setting.items() if k in option_names}
    task = validate(cls, dict(values) | options, "task")
    if not NAME.fullmatch(name):
        raise UsageError(f"task name {name!r} must match {NAME.pattern}")
    model, budget = model_and_budget(request, task)
    changes = dict(request.budget) | {
        k: v for k, v in setting.items() if k in budget_names and k not in option_names
    }
    unused = [k for k in ("heldout",) if k in changes and not request.data]
    if unused:
        raise UsageError("--heldout goes with --data: the built-in tasks have a held-out split of their own")
    budget = validate(Budget, dump(budget) | changes, "task")
    field = next((name for name in ("batch_tokens", "checkpointing", "fsdp") if getattr(budget, name)), None)
    if model.tabular and field:
        raise UsageError(
            f"task.{field}: the policy of task {name} is {model.name}; it needs a language model (--model)"
        )
    if budget.batch_tokens and budget.sampling == "replacement":
        raise UsageError("task.batch_tokens: batches cut by tokens are taken from epochs (--sampling epochs)")
    check_processes(request.gpus_per_cell, request.device, name, model, budget)
    return TaskSetup(
        task, name, info, model, budget, dump(task), request.truncate, request.device, request.gpus_per_cell
    )


def _cells(request: Request, setup: TaskSetup, algorithms: Sequence[Chosen], plan: Plan) -> list[Cell]:
    out = []
    for cls, info, fixed, explicit in algorithms:
        reason = misfit(cls, setup, setup.dataset(request.seeds[0]))
        if reason and explicit:
            raise UsageError(f"{cls.name} does not fit task {setup.name}: {reason}")
        if reason:
            plan.skipped.append({"algorithm": cls.name, "task": setup.name, "reason": reason})
            continue
        for values in grid(request.settings.get(cls.name, {})):
            algorithm = validate(cls, dict(fixed) | values, cls.name)
            for train in grid(request.settings.get(f"{cls.name}.train", {})):
                overrides = validate(TrainOverrides, train, f"{cls.name}.train")
                for seed in request.seeds:
                    out.append(_cell(request, setup, algorithm, info, overrides, seed))
    return out


def misfit(cls: type[Algorithm], setup: TaskSetup, dataset: Dataset) -> str | None:
    """Why an algorithm cannot run on a task, or None when it can."""
    lacking = sorted(cls.requires - (TABLE_ABILITIES if setup.model.name == "tabular" else ABILITIES))
    if lacking:
        return f"needs a policy that offers {', '.join(lacking)} (the tabular policy does)"
    if cls.accepts is Pair and dataset.kind != "pairs":
        return "needs preference pairs, the data has single labels"
    return None


def _cell(
    request: Request,
    setup: TaskSetup,
    algorithm: Algorithm,
    info: PluginInfo,
    train: TrainOverrides,
    seed: int,
) -> Cell:
    asked = float(request.budget["lr"]) if "lr" in request.budget else None
    optimizer = train.optimizer or setup.budget.optimizer
    lr = train.lr or setup.learning_rate(algorithm.name, optimizer, asked)
    return make_cell(setup, algorithm, info, (lr, optimizer), seed, request.experiment)


def make_cell(
    setup: TaskSetup,
    algorithm: Algorithm,
    info: PluginInfo,
    train: tuple[float, Optimizer],
    seed: int,
    experiment: str | None,
    protocol: Mapping[str, Any] | None = None,
) -> Cell:
    """The cell of a validated configuration, with its key. `train`: learning rate and optimizer."""
    lr, optimizer = train
    config = dump(algorithm)
    identity = {
        "task": setup.identity,
        "data": setup.data_fingerprint(seed),
        "algorithm": {"name": algorithm.name, "config": config, "source": keys.source(type(algorithm))},
        "plugin": [info.distribution, info.version],
        "train": {"lr": lr, "optimizer": optimizer},
        "seed": seed,
        "experiment": experiment,
        "host": keys.host_source(),
    }
    return Cell(
        keys.digest(identity), setup, algorithm, config, info, seed, lr, optimizer, experiment, protocol
    )
