"""Tasks with their options, policy and budget chosen, and the rows of each seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from xpo_bench.contract.examples import Dataset
from xpo_bench.contract.metric import Metric
from xpo_bench.contract.settings import Budget, Labels, ModelSpec, Optimizer
from xpo_bench.contract.task import Task
from xpo_bench.data.adhoc import AdHoc, task_name
from xpo_bench.data.dataset import about, fingerprint
from xpo_bench.data.labels import decided
from xpo_bench.data.registered import RegisteredRows, registered
from xpo_bench.data.splits import unseen_prompts
from xpo_bench.data.statistics import Overlap, overlap
from xpo_bench.data.validation import validation_split
from xpo_bench.errors import UsageError, unknown
from xpo_bench.plugins import IN_MEMORY, NAME, PluginInfo, Registry
from xpo_bench.random_streams import stream
from xpo_bench.runner import keys
from xpo_bench.runner.label_choice import labels_of
from xpo_bench.runner.model_choice import check_processes, model_and_budget
from xpo_bench.runner.settings import dump, grid, names, validate
from xpo_bench.runner.words import Request
from xpo_bench.train.budget import in_batches


@dataclass
class TaskSetup:
    """A task with its options, model and budget settled; data is loaded once per seed.

    Args:
        lr: the learning rate that was asked for, of all algorithms without a rate of their own; None leaves
            it to the task.
        rows_shipped: its rows were sent to this machine, which may be unable to read them.
        validation: hold out a part of the training rows in place of the held-out rows, for trials.
        metrics: of plugins, by name, which are measured beside the suite's own.
        save_policies: directory of trained language models, which changes no number.
        labels: what was asked for; None leaves it to the rows and the policy. The budget's are chosen when
            rows are read first.
    """

    task: Task
    name: str
    info: PluginInfo
    model: ModelSpec
    budget: Budget
    options: Mapping[str, object]
    truncate: str
    device: str
    processes: int = 1
    lr: float | None = None
    rows_shipped: bool = False
    validation: bool = False
    metrics: Mapping[str, tuple[Metric, PluginInfo]] = field(default_factory=dict)
    save_policies: str | None = None
    labels: Labels | None = None
    _data: dict[int, tuple[Dataset, str]] = field(default_factory=dict)
    _overlaps: dict[str, Overlap] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, object]:
        """Rows stay behind where they can be read: a process that is sent a setup does that itself."""
        here_alone = self.rows_shipped or isinstance(self.task, RegisteredRows)
        return vars(self) | ({} if here_alone else {"_data": {}})

    def take(self, seed: int, dataset: Dataset, print_: str) -> None:
        """Use rows that another process has read, with the fingerprint that they had there."""
        self._data[seed] = (dataset, print_)

    def dataset(self, seed: int) -> Dataset:
        """The clean rows at a seed."""
        return self._load(seed)[0]

    @property
    def read(self) -> list[Dataset]:
        """The rows at every seed that were read."""
        return [dataset for dataset, _ in self._data.values()]

    def data_fingerprint(self, seed: int) -> str:
        return self._load(seed)[1]

    def overlap(self, seed: int) -> Overlap:
        """What the held-out rows at a seed share with the training rows; counted once per set of rows."""
        dataset, print_ = self._load(seed)
        if print_ not in self._overlaps:
            self._overlaps[print_] = overlap(dataset.train, dataset.heldout)
        return self._overlaps[print_]

    def about(self, seed: int) -> str | None:
        """One line on what is unusual about the rows at a seed, and about their split; None where nothing
        is.
        """
        dataset, told = self.dataset(seed), about(self.dataset(seed))
        rows = len(dataset.heldout)
        unseen = rows - self.overlap(seed).prompt_rows if self.model.name == "tabular" else 0
        if not unseen:
            return told
        whole = bool(self.options.get("heldout")) and self.options.get("split_by", "row") != "row"
        split = unseen_prompts(unseen, rows, whole)
        return f"{told}; {split}" if told else f"{dataset.source}: {split}"

    def _load(self, seed: int) -> tuple[Dataset, str]:
        if seed not in self._data:
            dataset = self.task.data(seed, self.model)
            if self.validation:
                # a fraction of the training rows stands in for the held-out ones, which trials must never see
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
            if not decided(dataset.train):
                raise UsageError(
                    f"task {self.name}: every training row of {dataset.source} is a tie (p_chosen 0.5): "
                    "nothing to learn"
                )
            if not self._data:
                self.budget = self._settled(dataset)
            print_ = fingerprint(dataset)
            # seeds that draw nothing share one copy in memory
            same = next((known for known in self._data.values() if known[1] == print_), None)
            self._data[seed] = same or (dataset, print_)
        return self._data[seed]

    def _settled(self, dataset: Dataset) -> Budget:
        """The budget with what is left to the rows, and without what they make no use of."""
        labels = labels_of(self.labels, dataset, self.model)
        anneal = self.budget.anneal if in_batches(self.budget, len(dataset.train)) else 0.0
        return replace(self.budget, labels=labels, anneal=anneal)

    @cached_property
    def identity(self) -> dict[str, object]:
        """What the key says of the task, data apart."""
        return {
            "name": self.name,
            "version": self.task.version,
            "options": self.options,
            "model": dump(self.model) | {"fingerprint": keys.model_fingerprint(self.model.name)},
            # the rate and the update rule of a cell are its own: it does not matter who asked for them
            "budget": {k: v for k, v in dump(self.budget).items() if k not in ("lr", "optimizer")},
            "truncate": self.truncate,
            "device": self.device.split(":")[0],  # which GPU does not matter, whether it is one does
            "processes": self.processes,
            "source": keys.source(type(self.task)),
            **(
                {"metrics": {name: keys.source(m.function) for name, (m, _) in self.metrics.items()}}
                if self.metrics
                else {}
            ),
        }

    def learning_rate(self, algorithm: str, optimizer: Optimizer) -> float:
        """`--lr` or `task.lr`, else the task's table, else the budget's default.

        The table holds for the kind of policy, trained whole, and the optimizer that it was measured with.
        """
        own = self.task.model
        kind = self.model.name == own.name if self.model.tabular else not own.tabular
        measured = kind and optimizer == self.task.budget.optimizer and self.model.lora_rank == own.lora_rank
        return self.lr or (self.task.learning_rates.get(algorithm) if measured else None) or self.budget.lr


@dataclass(frozen=True)
class Named:
    """A task as a request names it: its class, where that is from, its name and the options given so far."""

    cls: type[Task]
    info: PluginInfo
    name: str
    options: Mapping[str, object]


def task_setups(request: Request, registry: Registry) -> list[TaskSetup]:
    """Every task of a request at every combination of its settings; nothing has been read yet.

    Raises:
        UsageError: no task, an unknown one, or a setting or policy that it cannot have.
    """
    named = _named(request, registry)
    if not named:
        raise UsageError("no task: name one with --tasks, --suite or --data")
    _check_versions(named, request)
    settings = grid(request.settings.get("task", {}))
    return [_setup(request, _cut(task, request), setting, registry) for task in named for setting in settings]


def _named(request: Request, registry: Registry) -> list[Named]:
    out = []
    if request.data:
        words = {"heldout": request.budget.get("heldout", 0.0)}
        adhoc = {
            "source": request.data,
            "world": request.world,
            "on_bad_row": request.on_bad_row,
            "heldout": validate(Budget, words, "run").heldout,
            "split_by": "prompt" if request.split_by is None else request.split_by,
            "columns": request.columns,
            "rankings": request.rankings,
            "strength": request.strength,
        }
        out.append(Named(AdHoc, IN_MEMORY, task_name(request.data), adhoc))
    for asked in request.tasks:
        task = _rows_of(asked, registry) or asked
        if isinstance(task, RegisteredRows):
            out.append(Named(RegisteredRows, IN_MEMORY, task.registered, dump(task)))
        elif isinstance(task, Task):
            out.append(Named(type(task), IN_MEMORY, task.name, dump(task)))
        elif isinstance(task, type):
            out.append(Named(task, IN_MEMORY, task.name, {}))
        else:
            cls, info = registry.task(str(task))
            out.append(Named(cls, info, cls.name, {}))
    return out


def _rows_of(asked: object, registry: Registry) -> RegisteredRows | None:
    """The rows that were registered under a name."""
    rows = registered(asked) if isinstance(asked, str) else None
    if rows and asked in registry.tasks:
        raise UsageError(
            f"task {asked!r}: rows are registered under the name of an installed task; register them under "
            "another one"
        )
    return rows


def _check_versions(named: Sequence[Named], request: Request) -> None:
    """Refuse a task whose world is not the one that a frozen suite is about."""
    for task in named:
        wanted = request.versions.get(task.name, task.cls.version)
        if wanted != task.cls.version:
            raise UsageError(
                f"task {task.name}: wanted in version {wanted}, installed is {task.cls.version}, whose "
                "numbers do not compare; install a release that has it"
            )


def _cut(task: Named, request: Request) -> Named:
    """The task with `--rows`, where the request has them."""
    if request.rows is None:
        return task
    if "rows" not in names(task.cls):
        raise UsageError(
            f"--rows goes with --data and the tasks on text sets: task {task.cls.name} makes its own rows"
        )
    return Named(task.cls, task.info, task.name, {**task.options, "rows": request.rows})


def _setup(request: Request, named: Named, setting: Mapping[str, object], registry: Registry) -> TaskSetup:
    name, options = named.name, set(names(named.cls))
    known = options | set(names(Budget))
    for key in setting:
        if key not in known:
            raise UsageError(unknown(f"setting of task {name}", key, known))
    # a name that is both is an option of the task: its class knows what it means there
    own = {key: value for key, value in setting.items() if key in options}
    task = validate(named.cls, {**named.options, **own}, "task")
    if not NAME.fullmatch(name):
        raise UsageError(f"task name {name!r} must match {NAME.pattern}")
    model, budget = model_and_budget(request, task)
    changes = request.budget | {key: value for key, value in setting.items() if key not in options}
    if "heldout" in changes and not request.data:
        raise UsageError("--heldout goes with --data: the built-in tasks have a held-out split of their own")
    own_budget, budget = budget, validate(Budget, dump(budget) | changes, "task")
    _check_budget(name, model, budget)
    budget = _as_read(model, budget, own_budget)
    check_processes(request.gpus_per_cell, request.device, name, model, budget)
    return TaskSetup(
        task,
        name,
        named.info,
        model,
        budget,
        dump(task),
        "prompt" if model.tabular else request.truncate,
        request.device,
        request.gpus_per_cell,
        budget.lr if "lr" in changes else None,
        metrics=registry.metrics,
        save_policies=request.save_policies,
        labels=budget.labels if "labels" in changes or budget.labels != "hard" else None,
    )


UNREAD_BY_TABLES = (
    "loss_over",
    "packing",
    "ensemble",
    "warm_start",
    "warm_start_lr",
    "kl_prompts",
    "kl_samples",
    "max_new_tokens",
)
"""Fields of a budget that no tabular policy reads: its completions are one token, exact without samples."""


def _as_read(model: ModelSpec, budget: Budget, own: Budget) -> Budget:
    """The budget with what the policy does not read as the task has it: equal numbers have equal keys."""
    unread = UNREAD_BY_TABLES if model.tabular else () if budget.warm_start else ("warm_start_lr",)
    return replace(budget, **{name: getattr(own, name) for name in unread})


def _check_budget(name: str, model: ModelSpec, budget: Budget) -> None:
    """Refuse fields of a budget that this policy, or another field, has no use for."""
    language = ("batch_tokens", "checkpointing", "fsdp")
    field = next((field for field in language if getattr(budget, field)), None)
    if model.tabular and field:
        raise UsageError(
            f"task.{field}: the policy of task {name} is {model.name}; it needs a language model (--model)"
        )
    if budget.batch_tokens and budget.sampling == "replacement":
        raise UsageError("task.batch_tokens: batches cut by tokens are taken from epochs (--sampling epochs)")
