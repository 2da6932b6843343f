"""The command that computes a cell again, from its record."""

from __future__ import annotations

import shlex

from xpo_bench.contract.settings import TEMPLATE_DATE
from xpo_bench.contract.task import Task
from xpo_bench.errors import UsageError
from xpo_bench.plugins import Registry
from xpo_bench.report.format import clean
from xpo_bench.report.records import Record, Settings
from xpo_bench.runner.model_choice import policy_and_budget
from xpo_bench.runner.request import Request
from xpo_bench.runner.settings import dump

IN_MEMORY = "in-memory"


def command(record: Record, registry: Registry) -> str:
    """`xpo-bench run ...` for one cell, quoted for a shell; of classes that are not packaged, a line that
    says so.

    The hyperparameters and the learning rate are all spelt out; of the task, what differs from its own
    choice.
    """
    algorithm, task = record.algorithm, record.task
    if evaluated := record.raw.get("evaluated"):
        return _evaluation(record, evaluated)
    if algorithm.plugin == IN_MEMORY:
        return "# a class given to xpo_bench.run() in Python: no plugin offers it to the command line"
    cls: type[Task] | None = registry.tasks[task.name][0] if task.name in registry.tasks else None
    adhoc = cls is None and bool(task.options.get("source"))
    words = ["xpo-bench", "run", "--algos", algorithm.name]
    words += _adhoc(task.options) if adhoc else ["--tasks", task.name]
    words += _model_words(task.model, cls)
    if task.data.template_date not in (None, TEMPLATE_DATE.isoformat()):
        words += ["--template-date", str(task.data.template_date)]
    words += ["--seeds", f"{record.seed},"]
    train = dict(record.train)
    if processes := train.pop("processes", None):
        words += ["--gpus-per-cell", str(processes)]
    # an algorithm may have an optimizer of its own; the task's needs no word
    usual = _usual(cls, _model(task.model), bool(task.options.get("source")))
    if train.get("optimizer") == usual.get("optimizer"):
        train.pop("optimizer", None)
    if record.raw.get("notes", {}).get("solved"):  # a closed form has neither
        train = {}
    words += _set(algorithm.name, algorithm.config) + _set(f"{algorithm.name}.train", train)
    words += _task_words(record, cls)
    words += ["--device", record.environment.device]
    stopped = record.checkpoint if record.checkpoint and record.checkpoint.reached else None
    remark = f" # its checkpoint at step {stopped.step}" if stopped else ""
    return clean(" ".join(shlex.quote(clean(word)) for word in words)) + remark


def _evaluation(record: Record, evaluated: Settings) -> str:
    """`xpo-bench evaluate ...` of one row: its checkpoints, each by its path."""
    task, budget = record.task, record.task.budget
    words = ["xpo-bench", "evaluate"]
    words += [f"{record.algorithm.name}={point['path']}" for point in evaluated["checkpoints"]]
    words += ["--reference", evaluated["reference"]["path"], *_adhoc(task.options)]
    if task.options.get("heldout"):
        words += ["--heldout", repr(task.options["heldout"])]
        words += ["--split-by", str(task.options["split_by"])]
    for source in evaluated.get("base_data", ()):
        words += ["--base-data", source]
    if evaluated.get("judge"):
        words += ["--judge", evaluated["judge"]]
    if beta := record.algorithm.config.get("beta"):
        words += ["--beta", repr(beta)]
    for name in ("pairs", "truncate"):
        if (value := task.options.get(name)) is not None:
            words += [f"--{name}", str(value)]
    bases = {p["base"]["path"] for p in evaluated["checkpoints"] if "base" in p}
    for base in bases - {evaluated["reference"]["path"]}:
        words += ["--base", base]
    for name in ("kl_prompts", "kl_samples", "max_new_tokens", "dtype"):
        words += [f"--{name.replace('_', '-')}", str(budget[name])]
    words += ["--seed", str(record.seed), "--device", record.environment.device]
    return clean(" ".join(shlex.quote(clean(word)) for word in words))


def _model_words(model: Settings, cls: type[Task] | None) -> list[str]:
    name, words = _model(model), []
    if name != (cls.model.name if cls else "tabular"):
        words += ["--model", name]
    if rank := model.get("lora_rank"):
        words += ["--lora", f"r={rank},alpha={model.get('lora_alpha', 2 * rank)}"]
    return words


def _task_words(record: Record, cls: type[Task] | None) -> list[str]:
    """What of the budget and the options the task would not choose by itself."""
    task = record.task
    usual = _usual(cls, _model(task.model), bool(task.options.get("source")))
    # the rate and the update rule are spelt out as the algorithm's
    budget = {k: v for k, v in task.budget.items() if k not in ("lr", "optimizer")}
    changed = {k: v for k, v in budget.items() if k not in usual or usual[k] != v}
    if cls is not None:
        try:
            defaults = dump(cls())
        except TypeError:  # an option without a default
            defaults = {}
        changed |= {k: v for k, v in task.options.items() if k not in defaults or defaults[k] != v}
    # a task splits its own rows; of an ad-hoc set the command line says how
    heldout = changed.pop("heldout", 0.0)
    words = ["--heldout", repr(heldout)] if cls is None and heldout else []
    by = task.options.get("split_by", "row")  # as all were before there was the option
    if words and by != "prompt":
        words += ["--split-by", str(by)]
    return words + _set("task", changed)


def _adhoc(options: Settings) -> list[str]:
    words = ["--data", str(options["source"])]
    for name in ("world", "rows", "on_bad_row", "rankings"):
        if options.get(name) not in (None, "", "error"):
            words += [f"--{name.replace('_', '-')}", str(options[name])]
    if columns := options.get("columns"):
        words += ["--columns", ",".join(f"{new}={old}" for new, old in columns.items())]
    return words


def _model(model: Settings) -> str:
    name = str(model.get("name", "tabular"))
    return f"{name}:{model['rank']}" if name == "linear" and model.get("rank") else name


def _usual(cls: type[Task] | None, model: str, adhoc: bool) -> Settings:
    """The budget that the task would choose by itself under that model; nothing where that cannot be told."""
    from xpo_bench.data.adhoc import AdHoc

    try:
        if cls is None:
            return dump(policy_and_budget(Request(model=model), AdHoc(source=""))[1]) if adhoc else {}
        return dump(policy_and_budget(Request(model=model), cls())[1])
    except (UsageError, TypeError):
        return {}


def _set(target: str, fields: Settings) -> list[str]:
    """`--set` words; a value that they cannot spell (none at all, or a text with commas) is left to its
    default.
    """
    words = []
    for name, value in fields.items():
        # repr of a float is the shortest text that reads back as the same bits
        text = str(value).lower() if isinstance(value, bool) else repr(value)
        text = value if isinstance(value, str) else text
        if value is not None and text and "," not in text:
            words += ["--set", f"{target}.{name}={text}"]
    return words
