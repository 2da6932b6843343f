"""Plans: the cells that a request asks for, each with the key that identifies its numbers."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from xpo_bench.algorithm import Algorithm
from xpo_bench.checkpoints import locate
from xpo_bench.data.adhoc import LM_BUDGET, TABULAR_BUDGET, AdHoc, task_name
from xpo_bench.data.dataset import fingerprint
from xpo_bench.errors import UsageError, unknown
from xpo_bench.plugins import NAME, PluginInfo, Registry
from xpo_bench.runner import keys
from xpo_bench.runner.config import Settings, TrainOverrides, add_setting, dump, grid, names, parse_set, validate
from xpo_bench.task import Task
from xpo_bench.types import Budget, Dataset, ModelSpec, Optimizer, Pair

HERE = PluginInfo("in-memory", "in-memory", "0", "__main__")
LORA = re.compile(r"r=(?P<rank>[1-9]\d{0,4})(,alpha=(?P<alpha>[1-9]\d{0,5}))?")
TABLE_ABILITIES = frozenset({"enumerable", "generate", "reward"})
ABILITIES = frozenset({"generate", "reward"})
"""What the tabular policy and all others offer to algorithms."""


@dataclass(frozen=True)
class Request:
    """What a user asks for, in the words of the flags; None leaves a choice to the task."""

    algos: Sequence[str | type[Algorithm] | Algorithm] = ()
    tasks: Sequence[str | type[Task] | Task] = ()
    suite: str | None = None
    data: str | None = None
    world: str | None = None
    rows: int | None = None
    on_bad_row: str = "error"
    truncate: str = "prompt"
    model: str | None = None
    lora: str | None = None
    trust_remote_code: bool = False
    settings: Settings = field(default_factory=dict)
    seeds: Sequence[int] = (0,)
    budget: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    gpus_per_cell: int = 1
    experiment: str | None = None


@dataclass
class TaskSetup:
    """A task with its options, model and budget settled; data is loaded once per seed."""

    task: Task
    name: str
    info: PluginInfo
    model: ModelSpec
    budget: Budget
    options: Mapping[str, Any]
    truncate: str
    device: str
    processes: int = 1
    _data: dict[int, tuple[Dataset, str]] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        """Rows stay behind: a process that is sent a setup reads them itself."""
        return vars(self) | {"_data": {}}

    def dataset(self, seed: int) -> Dataset:
        """The clean rows at a seed."""
        return self._load(seed)[0]

    def data_fingerprint(self, seed: int) -> str:
        return self._load(seed)[1]

    def _load(self, seed: int) -> tuple[Dataset, str]:
        if seed not in self._data:
            dataset = self.task.data(seed, self.model)
            if not dataset.train:
                raise UsageError(f"task {self.name}: no training rows in {dataset.source}")
            print_ = fingerprint(dataset)
            # seeds that draw nothing share one copy in memory
            same = next((known for known in self._data.values() if known[1] == print_), None)
            self._data[seed] = same or (dataset, print_)
        return self._data[seed]

    @property
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
            "source": keys.class_source(type(self.task)),
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
    """One algorithm configuration on one task at one seed."""

    key: str
    setup: TaskSetup
    algorithm: Algorithm
    config: Mapping[str, Any]
    info: PluginInfo
    seed: int
    lr: float
    optimizer: Optimizer
    experiment: str | None

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


# --------------------------------------------------------------------------- from words to requests


def parse_seeds(text: str) -> tuple[int, ...]:
    """`3` is seeds 0, 1, 2; a list or a trailing comma names seeds (`0,7`, `42,`)."""
    try:
        seeds = tuple(int(part) for part in text.split(",") if part.strip()) if "," in text else tuple(range(int(text)))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds {text}: expected a count such as 3, or distinct seeds such as 0,7 or 42,")
    return seeds


FILE_KEYS = (
    "algos", "tasks", "suite", "data", "world", "model", "set", "seeds", "steps", "sampling", "heldout", "batch_size",
    "optimizer", "lr", "loss_over", "label_noise", "dtype", "experiment", "rows", "on_bad_row", "truncate",
    "lora", "gpus_per_cell",
)  # fmt: skip
BUDGET_KEYS = ("steps", "sampling", "heldout", "batch_size", "optimizer", "lr", "loss_over", "label_noise", "dtype")


def read_file(path: Path) -> list[dict[str, Any]]:
    """The blocks of a TOML plan: the top level's words, overridden by each `[[runs]]` block's own."""
    try:
        if path.stat().st_size > 1 << 20:
            raise UsageError(f"{path}: larger than 1 MiB; a plan is a short TOML file")
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); name a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    blocks = document.pop("runs", [{}])
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise UsageError(f"{path}: [[runs]] must be tables of plan words")
    out = []
    for block in blocks:
        merged = {k.replace("-", "_"): v for k, v in (document | block).items()}
        for key in merged:
            if key not in FILE_KEYS:
                raise UsageError(f"{path}: {unknown('word', key, FILE_KEYS)}")
        out.append(merged)
    return out


def suites() -> dict[str, Path]:
    """The built-in suites, by name."""
    root = resources.files("xpo_bench.runner") / "suites"
    return {entry.name.removesuffix(".toml"): Path(str(entry)) for entry in root.iterdir() if entry.name.endswith(".toml")}


def _words(value: Any, where: str) -> tuple[Any, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | tuple):
        return tuple(value)
    if isinstance(value, Algorithm | Task | type):
        return (value,)
    raise UsageError(f"{where}: expected names separated by commas, got {value!r}")


def requests(words: Mapping[str, Any], file: Path | None = None, device: str = "cpu") -> list[Request]:
    """Requests from flags or keyword arguments, a plan file and a suite: flags override the file, both the suite."""
    words = {k: v for k, v in words.items() if v is not None and v != ()}
    blocks = [_override(block, words) for block in read_file(file)] if file else [dict(words)]
    out = []
    for block in blocks:
        if "data" in block and "tasks" in block:
            raise UsageError("--data and --tasks exclude each other: --data makes a task of its own")
        suite = block.get("suite")
        if suite is None and "tasks" not in block and "data" not in block:
            suite = "quick"
        if suite is not None and "tasks" not in block and "data" not in block:
            if suite not in suites():
                raise UsageError(unknown("suite", str(suite), suites()))
            for part in read_file(suites()[suite]):
                merged = _override(*_narrow(part, block))
                if merged.get("algos") != ():
                    out.append(_request(merged, suite, device))
        else:
            out.append(_request(block, None, device))
    return out


def _override(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The words of two sources: the upper one wins, field by field in `set`."""
    merged = {**below, **above}
    if "set" in below and "set" in above:
        settings = {target: dict(fields) for target, fields in _settings(below["set"]).items()}
        for target, fields in _settings(above["set"]).items():
            settings.setdefault(target, {}).update(fields)
        merged["set"] = settings
    return merged


def _narrow(part: dict[str, Any], above: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A suite's block, the words above it; where a block names its algorithms, only those asked for stay, with their settings."""
    own, asked = _words(part.get("algos"), "--algos"), _words(above.get("algos"), "--algos")
    if not own or not asked:
        return part, above
    called = [getattr(item, "name", item) for item in asked]
    kept = own if "all" in called else asked if own == ("all",) else tuple(name for name in own if name in called)
    settings = _settings(part.get("set"))
    if kept != ("all",):
        names = [getattr(item, "name", item) for item in kept]
        settings = {to: v for to, v in settings.items() if to == "task" or to.removesuffix(".train") in names}
    return {**part, "set": settings}, {**above, "algos": kept}


def _settings(value: Any) -> Settings:
    """Settings from `--set` words, from a flat table of a plan file or call, or as they are."""
    if not value:
        return {}
    if not isinstance(value, Mapping):
        return parse_set([value] if isinstance(value, str) else value)
    if all(isinstance(fields, dict) for fields in value.values()):
        return dict(value)
    settings: Settings = {}
    for left, values in value.items():
        add_setting(settings, left, values if isinstance(values, list | tuple) else [values])
    return settings


def _request(words: Mapping[str, Any], suite: str | None, device: str) -> Request:
    seeds = words.get("seeds", 1)
    processes = words.get("gpus_per_cell", 1)
    if type(processes) is not int or processes < 1:
        raise UsageError(f"--gpus-per-cell {processes}: expected a whole number of processes, 1 or more")
    algos = _words(words.get("algos"), "--algos")
    if not algos:
        if suite is None:
            raise UsageError("--algos is missing: name algorithms such as --algos dpo,ipo, or --algos all")
        algos = ("all",)
    return Request(
        algos=algos,
        tasks=_words(words.get("tasks"), "--tasks"),
        suite=suite,
        data=words.get("data"),
        world=words.get("world"),
        rows=words.get("rows"),
        on_bad_row=words.get("on_bad_row", "error"),
        truncate=words.get("truncate", "prompt"),
        model=words.get("model"),
        lora=words.get("lora"),
        trust_remote_code=bool(words.get("trust_remote_code", False)),
        settings=_settings(words.get("set")),
        seeds=tuple(seeds) if isinstance(seeds, list | tuple) else parse_seeds(str(seeds)),
        budget={k: words[k] for k in BUDGET_KEYS if k in words},
        device=device,
        gpus_per_cell=processes,
        experiment=words.get("experiment"),
    )


# --------------------------------------------------------------------------- from requests to cells


def make_plan(asked: Sequence[Request], registry: Registry, progress: Callable[[str], None] = lambda _: None) -> Plan:
    """Cross algorithms, tasks, hyperparameters and seeds.

    Raises:
        UsageError: an unknown name or setting, bad data, or an algorithm named explicitly that does not fit.
    """
    plan = Plan()
    seen: set[str] = set()
    for request in asked:
        algorithms = _algorithms(request, registry)
        _check_targets(request.settings, algorithms, registry)
        for setup in _setups(request, registry, plan):
            progress(setup.name)
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
            out.append((type(item), HERE, dump(item), True))
        elif isinstance(item, type) and issubclass(item, Algorithm):
            out.append((item, HERE, {}, True))
        elif item == "all":
            out += [(cls, info, {}, False) for _, (cls, info) in sorted(registry.algorithms.items())]
        else:
            out.append((*registry.algorithm(str(item)), {}, True))
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
            raise UsageError(f"--set {target}: {name} is not among the algorithms of this run ({', '.join(sorted(asked))})")
        raise UsageError(unknown("target of --set", name, asked | {"task"}))


def _setups(request: Request, registry: Registry, plan: Plan) -> list[TaskSetup]:
    from xpo_bench.errors import UnreachableError

    entries: list[tuple[type[Task], PluginInfo, str | None, Mapping[str, Any]]] = []
    if request.data:
        heldout = validate(Budget, {"heldout": request.budget.get("heldout", 0.0)}, "run").heldout
        adhoc = {"source": request.data, "world": request.world, "on_bad_row": request.on_bad_row, "heldout": heldout}
        entries.append((AdHoc, HERE, task_name(request.data), adhoc))
    elif request.world:
        raise UsageError("--world goes with --data: it describes the prompts of an ad-hoc preference set")
    for item in request.tasks:
        if isinstance(item, Task):
            entries.append((type(item), HERE, None, dump(item)))
        elif isinstance(item, type):
            entries.append((item, HERE, None, {}))
        else:
            entries.append((*registry.task(str(item)), None, {}))
    if not entries:
        raise UsageError("no task: name one with --tasks, --suite or --data")
    out = []
    for cls, info, name, values in entries:
        if request.rows is not None:
            if "rows" not in names(cls):
                raise UsageError(f"--rows goes with --data and the tasks on text sets: task {cls.name} makes its own rows")
            values = {**values, "rows": request.rows}
        for setting in grid(request.settings.get("task", {})):
            setup = _setup(request, cls, info, name or cls.name, values, setting)
            try:
                setup.dataset(request.seeds[0])
            except UnreachableError as error:
                plan.unreachable.append({"task": setup.name, "reason": str(error)})
                continue
            out.append(setup)
    return out


def _setup(
    request: Request, cls: type[Task], info: PluginInfo, name: str, values: Mapping[str, Any], setting: Mapping[str, Any]
) -> TaskSetup:
    option_names, budget_names = set(names(cls)), set(names(Budget))
    for key in setting:
        if key not in option_names | budget_names:
            raise UsageError(unknown(f"setting of task {name}", key, option_names | budget_names))
    options = {k: v for k, v in setting.items() if k in option_names}
    task = validate(cls, dict(values) | options, "task")
    if not NAME.fullmatch(name):
        raise UsageError(f"task name {name!r} must match {NAME.pattern}")
    model, budget = _model_and_budget(request, task)
    changes = dict(request.budget) | {k: v for k, v in setting.items() if k in budget_names and k not in option_names}
    unused = [k for k in ("heldout",) if k in changes and not request.data]
    if unused:
        raise UsageError("--heldout goes with --data: the built-in tasks have a held-out split of their own")
    budget = validate(Budget, dump(budget) | changes, "task")
    if model.tabular and (budget.batch_tokens or budget.checkpointing):
        field = "batch_tokens" if budget.batch_tokens else "checkpointing"
        raise UsageError(f"task.{field}: the policy of task {name} is {model.name}; it needs a language model (--model)")
    if budget.batch_tokens and budget.sampling == "replacement":
        raise UsageError("task.batch_tokens: batches cut by tokens are taken from epochs (--sampling epochs)")
    check_processes(request.gpus_per_cell, request.device, name, model, budget)
    return TaskSetup(task, name, info, model, budget, dump(task), request.truncate, request.device, request.gpus_per_cell)


def check_processes(count: int, device: str, task: str, model: ModelSpec, budget: Budget) -> None:
    """Refuse a number of processes per cell that cannot train this model on this machine."""
    if count == 1:
        return
    words = f"--gpus-per-cell {count}"
    if model.tabular:
        raise UsageError(
            f"{words}: the policy of task {task} is {model.name}, which takes one process; it is for language models"
        )
    if budget.ensemble > 1:
        raise UsageError(f"{words}: not with task.ensemble={budget.ensemble}; the copies of an ensemble train in one process")
    if budget.batch_size < count:
        raise UsageError(
            f"{words}: batches of task {task} have {budget.batch_size} rows, not one for each process (--batch-size)"
        )
    there = len(devices_from(device, count))
    if there < count:
        raise UsageError(f"{words}: this machine has {there} from {device} on; every process needs one of its own")


def devices_from(device: str, count: int) -> list[str]:
    """At most `count` devices, the given one and those after it; `cpu` as often as is asked."""
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return [device] * count
    import torch

    first = int(number or 0)
    return [f"cuda:{i}" for i in range(first, min(first + count, torch.cuda.device_count()))]


def _model_and_budget(request: Request, task: Task) -> tuple[ModelSpec, Budget]:
    model, budget = policy_and_budget(request, task)
    if request.lora is None:
        return model, budget
    if model.tabular:
        raise UsageError(f"--lora: the policy of task {task.name} is {model.name}; adapters need a language model (--model)")
    rank, alpha = parse_lora(request.lora)
    return replace(model, lora_rank=rank, lora_alpha=alpha), budget


def parse_lora(text: str) -> tuple[int, int]:
    """Rank and alpha of `r=16` or `r=16,alpha=32`; alpha is twice the rank by default.

    Raises:
        UsageError: anything else.
    """
    found = LORA.fullmatch(str(text).replace(" ", ""))
    if not found:
        raise UsageError(f"--lora {text}: expected a rank such as r=16, or r=16,alpha=32")
    rank = int(found["rank"])
    return rank, int(found["alpha"] or 2 * rank)


def policy_and_budget(request: Request, task: Task) -> tuple[ModelSpec, Budget]:
    """The policy that a request gives a task, without adapters, and the budget that goes with it before any setting."""
    own = task.model
    if request.model is None:
        return own, task.budget
    if request.model == own.name:
        return own, task.budget
    kind, _, rank = request.model.partition(":")
    if kind in ("tabular", "linear"):
        if rank and (kind == "tabular" or not rank.isdecimal() or int(rank) == 0):
            raise UsageError(f"--model {request.model}: give tabular, linear, or linear:R with a rank R of at least 1")
        return ModelSpec(name=kind, rank=int(rank or 0)), task.budget if own.tabular else TABULAR_BUDGET
    check_model(request.model)
    model = ModelSpec(name=request.model, tokenizer="bytes" if request.model == "tiny" else "own")
    model = replace(model, trust_remote_code=request.trust_remote_code)
    return model, (task.lm_budget or LM_BUDGET) if own.tabular else task.budget


def check_model(name: str) -> None:
    """Refuse a path that cannot be a model and a packaged one that is not installed, before anything is computed."""
    found = locate(name)
    path = Path(found.place)
    if found.local and not found.gguf and not (path / "config.json").is_file():
        problem = "has no config.json" if path.is_dir() else "is not a directory"
        raise UsageError(f"--model {name}: {problem}; give a Hugging Face model directory, a hub id, tiny, tabular or linear")


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


def _cell(request: Request, setup: TaskSetup, algorithm: Algorithm, info: PluginInfo, train: TrainOverrides, seed: int) -> Cell:
    asked = float(request.budget["lr"]) if "lr" in request.budget else None
    optimizer = train.optimizer or setup.budget.optimizer
    lr = train.lr or setup.learning_rate(algorithm.name, optimizer, asked)
    config = dump(algorithm)
    identity = {
        "task": setup.identity,
        "data": setup.data_fingerprint(seed),
        "algorithm": {"name": algorithm.name, "config": config, "source": keys.class_source(type(algorithm))},
        "plugin": [info.distribution, info.version],
        "train": {"lr": lr, "optimizer": optimizer},
        "seed": seed,
        "experiment": request.experiment,
        "host": keys.host_source(),
    }
    return Cell(keys.digest(identity), setup, algorithm, config, info, seed, lr, optimizer, request.experiment)
