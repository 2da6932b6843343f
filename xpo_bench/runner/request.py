"""Requests: what a user asks for, from flags, plan files and suites, before any task or plugin is looked at."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.task import Task
from xpo_bench.data.layouts import check_columns
from xpo_bench.errors import UsageError, unknown
from xpo_bench.runner.settings import Settings, add_setting, parse_set


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
    columns: Mapping[str, str] | None = None
    rankings: str | None = None
    truncate: str = "prompt"
    model: str | None = None
    lora: str | None = None
    trust_remote_code: bool = False
    template_date: str | None = None
    settings: Settings = field(default_factory=dict)
    seeds: Sequence[int] = (0,)
    budget: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    gpus_per_cell: int = 1
    experiment: str | None = None


MOST_SEEDS = 100_000


def parse_seeds(asked: Any) -> tuple[int, ...]:
    """`3` is seeds 0, 1, 2; a list or a trailing comma names seeds (`0,7`, `42,`)."""
    text = ",".join(map(str, asked)) + "," if isinstance(asked, list | tuple) else str(asked)
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if numbers and "," not in text:
        numbers = list(range(min(numbers[0], MOST_SEEDS + 1)))
    if not numbers or min(numbers) < 0 or max(numbers) >= 2**63 or len(set(numbers)) < len(numbers):
        raise UsageError(
            f"--seeds {text[:80]}: expected a count such as 3, or distinct seeds such as 0,7 or 42,"
        )
    if len(numbers) > MOST_SEEDS:
        raise UsageError(
            f"--seeds {text[:80]}: more than {MOST_SEEDS:,} seeds; name them in parts, such as 0,1,2"
        )
    return tuple(numbers)


def parse_shard(text: str) -> tuple[int, int]:
    """`3/8` is the third of eight parts."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UsageError(f"--shard {text}: expected a part such as 3/8, the third of eight")
    return int(number), int(count)


FILE_KEYS = (
    "algos", "tasks", "suite", "data", "world", "model", "set", "seeds", "steps", "sampling", "heldout", "batch_size",
    "optimizer", "lr", "loss_over", "label_noise", "dtype", "experiment", "rows", "on_bad_row", "truncate",
    "lora", "gpus_per_cell", "template_date", "columns", "rankings",
)  # fmt: skip
BUDGET_KEYS = (
    "steps",
    "sampling",
    "heldout",
    "batch_size",
    "optimizer",
    "lr",
    "loss_over",
    "label_noise",
    "dtype",
)


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
    except RecursionError:
        raise UsageError(f"{path}: not valid TOML: nested too deeply") from None
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
    return {
        entry.name.removesuffix(".toml"): Path(str(entry))
        for entry in root.iterdir()
        if entry.name.endswith(".toml")
    }


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
    """Requests from flags or keyword arguments, a plan file and a suite: flags override the file, both the
    suite.
    """
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
    """A suite's block, the words above it; where a block names its algorithms, only those asked for stay,
    with their settings.
    """
    own, asked = _words(part.get("algos"), "--algos"), _words(above.get("algos"), "--algos")
    if not own or not asked:
        return part, above
    called = [getattr(item, "name", item) for item in asked]
    kept = (
        own
        if "all" in called
        else asked
        if own == ("all",)
        else tuple(name for name in own if name in called)
    )
    settings = _settings(part.get("set"))
    if kept != ("all",):
        names = [getattr(item, "name", item) for item in kept]
        settings = {to: v for to, v in settings.items() if to == "task" or to.removesuffix(".train") in names}
    return {**part, "set": settings}, {**above, "algos": kept}


def _settings(value: Any) -> Settings:
    """Settings from `--set` words, from a table of a plan file or call, flat or nested, or as they are.

    Raises:
        UsageError: a value of another kind.
    """
    if not value:
        return {}
    if isinstance(value, str | list | tuple):
        return parse_set([value] if isinstance(value, str) else value)
    if not isinstance(value, Mapping):
        raise UsageError(
            f'set = {value}: expected a table such as {{ "dpo.beta" = [0.1, 0.5] }}, or words ALGORITHM.FIELD=VALUE'
        )
    settings: Settings = {}
    for left, values in value.items():
        nested = (
            {f"{left}.{field}": v for field, v in values.items()}
            if isinstance(values, Mapping)
            else {left: values}
        )
        for name, found in nested.items():
            add_setting(settings, name, found if isinstance(found, list | tuple) else [found])
    return settings


def _request(words: Mapping[str, Any], suite: str | None, device: str) -> Request:
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
        columns=None if words.get("columns") is None else check_columns(words["columns"]),
        rankings=words.get("rankings"),
        truncate=words.get("truncate", "prompt"),
        model=words.get("model"),
        lora=words.get("lora"),
        trust_remote_code=bool(words.get("trust_remote_code", False)),
        template_date=None if words.get("template_date") is None else str(words["template_date"]),
        settings=_settings(words.get("set")),
        seeds=parse_seeds(words.get("seeds", 1)),
        budget={k: words[k] for k in BUDGET_KEYS if k in words},
        device=device,
        gpus_per_cell=processes,
        experiment=words.get("experiment"),
    )
