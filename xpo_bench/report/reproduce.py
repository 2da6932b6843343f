"""The command that computes a cell again, from its record."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from xpo_bench.contract.settings import TEMPLATE_DATE
from xpo_bench.contract.task import Task
from xpo_bench.errors import UsageError
from xpo_bench.plugins import Registry
from xpo_bench.report.format import clean
from xpo_bench.report.runs import Record
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
    algorithm, task = record["algorithm"], record["task"]
    if algorithm.get("plugin") == IN_MEMORY:
        return "# a class given to xpo_bench.run() in Python: no plugin offers it to the command line"
    words = ["xpo-bench", "run", "--algos", algorithm["name"]]
    options, budget, model = (dict(task.get(part) or {}) for part in ("options", "budget", "model"))
    cls: type[Task] | None = registry.tasks[task["name"]][0] if task["name"] in registry.tasks else None
    if cls is None and options.get("source"):
        words += _adhoc(options)
    else:
        words += ["--tasks", task["name"]]
    own = cls.model.name if cls else "tabular"
    if (name := _model(model)) != own:
        words += ["--model", name]
    if rank := model.get("lora_rank"):
        words += ["--lora", f"r={rank},alpha={model.get('lora_alpha', 2 * rank)}"]
    if (day := (task.get("data") or {}).get("template_date")) not in (None, TEMPLATE_DATE.isoformat()):
        words += ["--template-date", str(day)]
    words += ["--seeds", f"{record['seed']},"]
    train = dict(record.get("train") or {})
    if processes := train.pop("processes", None):
        words += ["--gpus-per-cell", str(processes)]
    if train.get("optimizer") == budget.get("optimizer"):
        train.pop("optimizer", None)
    for target, fields in ((algorithm["name"], algorithm["config"]), (f"{algorithm['name']}.train", train)):
        words += _set(target, fields)
    usual = _usual(cls, name, bool(options.get("source")))
    settings = {k: v for k, v in budget.items() if k not in usual or usual[k] != v}
    if cls is not None:
        try:
            defaults = dump(cls())
        except TypeError:  # an option without a default
            defaults = {}
        settings |= {k: v for k, v in options.items() if k not in defaults or defaults[k] != v}
    heldout = settings.pop("heldout", 0.0)
    if cls is None and heldout:
        words += ["--heldout", repr(heldout)]
    words += _set("task", settings)
    words += ["--device", str((record.get("environment") or {}).get("device", "cpu"))]
    return clean(" ".join(shlex.quote(clean(word)) for word in words))


def _adhoc(options: Mapping[str, Any]) -> list[str]:
    words = ["--data", str(options["source"])]
    for name in ("world", "rows", "on_bad_row", "rankings"):
        if options.get(name) not in (None, "", "error"):
            words += [f"--{name.replace('_', '-')}", str(options[name])]
    if columns := options.get("columns"):
        words += ["--columns", ",".join(f"{new}={old}" for new, old in columns.items())]
    return words


def _model(model: Mapping[str, Any]) -> str:
    name = str(model.get("name", "tabular"))
    return f"{name}:{model['rank']}" if name == "linear" and model.get("rank") else name


def _usual(cls: type[Task] | None, model: str, adhoc: bool) -> Mapping[str, Any]:
    """The budget that the task would choose by itself under that model; nothing where that cannot be told."""
    from xpo_bench.data.adhoc import AdHoc

    try:
        if cls is None:
            return dump(policy_and_budget(Request(model=model), AdHoc(source=""))[1]) if adhoc else {}
        return dump(policy_and_budget(Request(model=model), cls())[1])
    except (UsageError, TypeError):
        return {}


def _set(target: str, fields: Mapping[str, Any]) -> list[str]:
    """`--set` words; a value that they cannot spell (none at all, or a text with commas) is left to its
    default.
    """
    words = []
    for name, value in fields.items():
        text = (
            repr(value)
            if isinstance(value, float)
            else str(value).lower()
            if isinstance(value, bool)
            else str(value)
        )
        if value is not None and text and "," not in text:
            words += ["--set", f"{target}.{name}={text}"]
    return words
