"""Which policy a request gives a task, and whether several processes can train it."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from pathlib import Path

from xpo_bench.checkpoints import locate
from xpo_bench.contract.settings import Budget, ModelSpec
from xpo_bench.contract.task import Task
from xpo_bench.data.adhoc import LM_BUDGET, TABULAR_BUDGET
from xpo_bench.errors import UsageError
from xpo_bench.runner.devices import devices_from
from xpo_bench.runner.words import Lora, Request

LORA = re.compile(
    r"r=(?P<rank>[1-9]\d{0,4})(,alpha=(?P<alpha>[1-9]\d{0,5}))?(,targets=(?P<targets>[\w.]+(\+[\w.]+)*))?"
)


def check_processes(count: int, device: str, task: str, model: ModelSpec, budget: Budget) -> None:
    """Refuse a number of processes per cell that cannot train this model on this machine."""
    if budget.fsdp and count == 1:
        raise UsageError(
            "task.fsdp: one process has nobody to share the layers with; add --gpus-per-cell 2 or more"
        )
    if budget.fsdp and model.lora_rank:
        raise UsageError(
            "task.fsdp: not with --lora; adapters train on a model that every process holds whole"
        )
    if count == 1:
        return
    words = f"--gpus-per-cell {count}"
    if model.tabular:
        raise UsageError(
            f"{words}: the policy of task {task} is {model.name}, which takes one process; "
            "it is for language models"
        )
    if budget.ensemble > 1:
        raise UsageError(
            f"{words}: not with task.ensemble={budget.ensemble}; "
            "the copies of an ensemble train in one process"
        )
    if budget.batch_size < count:
        raise UsageError(
            f"{words}: batches of task {task} have {budget.batch_size} rows, not one for each process "
            "(--batch-size)"
        )
    if device == "cuda":  # of a cluster, which has been asked for as many
        return
    there = len(devices_from(device, count))
    if there < count:
        raise UsageError(
            f"{words}: this machine has {there} from {device} on; every process needs one of its own"
        )


def model_and_budget(request: Request, task: Task) -> tuple[ModelSpec, Budget]:
    """The policy that a request gives a task, and the budget that goes with it before any setting."""
    model, budget = policy_and_budget(request, task)
    if request.template_date is not None:
        if model.tabular or model.name == "tiny":
            raise UsageError(
                f"--template-date: the policy of task {task.name} is {model.name}, which has no chat template"
            )
        model = replace(model, template_date=request.template_date)
    if request.lora is None:
        return model, budget
    if model.tabular:
        raise UsageError(
            f"--lora: the policy of task {task.name} is {model.name}; "
            "adapters need a language model (--model)"
        )
    asked = request.lora
    return replace(model, lora_rank=asked.rank, lora_alpha=asked.alpha, lora_targets=asked.targets), budget


def parse_date(text: str) -> date:
    """A day such as 2026-01-31.

    Raises:
        UsageError: anything else.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--template-date {text}: expected a day such as 2026-01-31") from None


def parse_lora(text: str) -> Lora:
    """`r=16`, `r=16,alpha=32` or `r=16,targets=q_proj+v_proj`; alpha is twice the rank by default.

    Raises:
        UsageError: anything else.
    """
    found = LORA.fullmatch(str(text).replace(" ", ""))
    if not found:
        raise UsageError(
            f"--lora {text}: expected a rank such as r=16, or r=16,alpha=32,targets=q_proj+v_proj"
        )
    rank = int(found["rank"])
    targets = tuple(dict.fromkeys((found["targets"] or "").split("+"))) if found["targets"] else ()
    return Lora(rank, int(found["alpha"] or 2 * rank), targets)


def policy_and_budget(request: Request, task: Task) -> tuple[ModelSpec, Budget]:
    """As `model_and_budget`, without adapters."""
    own = task.model
    if request.model is None or request.model == own.name:
        trusted = own.trust_remote_code or (request.trust_remote_code and not own.tabular)
        return replace(own, trust_remote_code=trusted), task.budget
    kind, _, rank = request.model.partition(":")
    if kind in ("tabular", "linear"):
        if rank and (kind == "tabular" or not rank.isdecimal() or int(rank) == 0):
            raise UsageError(
                f"--model {request.model}: give tabular, linear, or linear:R with a rank R of at least 1"
            )
        return ModelSpec(name=kind, rank=int(rank or 0)), task.budget if own.tabular else TABULAR_BUDGET
    model = language_model(request.model, request.trust_remote_code)
    return model, (task.lm_budget or LM_BUDGET) if own.tabular else task.budget


def model_spec(name: str, trust_remote_code: bool) -> ModelSpec:
    """The policy of a name, for what is asked of no task.

    Raises:
        UsageError: no such path, or a packaged model that is not installed.
    """
    if name.partition(":")[0] in ("tabular", "linear"):
        return ModelSpec()
    return language_model(name, trust_remote_code)


def language_model(name: str, trust_remote_code: bool) -> ModelSpec:
    """The specification of a language model: `tiny`, a packaged model, a path or a hub id."""
    check_model(name)
    model = ModelSpec(name=name, tokenizer="bytes" if name == "tiny" else "own")
    return replace(model, trust_remote_code=trust_remote_code)


def check_model(name: str) -> None:
    """Refuse a path that cannot be a model, and a packaged one that is not installed."""
    found = locate(name)
    path = Path(found.place)
    if found.local and not found.gguf and not (path / "config.json").is_file():
        problem = "has no config.json" if path.is_dir() else "is not a directory"
        raise UsageError(
            f"--model {name}: {problem}; "
            "give a Hugging Face model directory, a hub id, tiny, tabular or linear"
        )
