"""Requests: the words of flags, plan files and suites, each read once, before tasks and plugins are."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.task import Task
from xpo_bench.data.layouts import check_columns
from xpo_bench.data.strengths import parse_link
from xpo_bench.errors import UsageError, unknown
from xpo_bench.runner.algorithm_files import algorithm_of, is_file_word
from xpo_bench.runner.model_choice import parse_date, parse_lora
from xpo_bench.runner.settings import settings_of
from xpo_bench.runner.words import FILE_KEYS
from xpo_bench.runner.words import Request as Request

MOST_SEEDS = 100_000
SEARCH = " search"
"""How the labels of cells end that a search tries on its way, which tables leave out."""


def parse_seeds(asked: object) -> tuple[int, ...]:
    """`3` is seeds 0, 1, 2; a list or a trailing comma names seeds (`0,7`, `42,`)."""
    # the trailing comma keeps a list of one seed, [3], apart from the count 3
    text = ",".join(map(str, asked)) + "," if isinstance(asked, list | tuple) else str(asked)
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if numbers and "," not in text:
        # one more than the limit is enough for the refusal below; a range of 10^12 would fill the memory
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
        # flags are spelled with hyphens, fields with underscores; a plan may have either
        merged = {k.replace("-", "_"): v for k, v in (document | block).items()}
        for key in merged:
            if key not in FILE_KEYS:
                raise UsageError(f"{path}: {unknown('word', key, FILE_KEYS)}")
        _check_twice(merged)
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


def names_of(value: object, where: str) -> tuple[object, ...]:
    """Names separated by commas, or a list of names, classes and instances, as they are."""
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | tuple):
        return tuple(value)
    if isinstance(value, Algorithm | Task | type):
        return (value,)
    raise UsageError(f"{where}: expected names separated by commas, got {value!r}")


def requests(words: Mapping[str, object], file: Path | None = None, device: str = "cpu") -> list[Request]:
    """Requests from flags or keyword arguments, a plan file and a suite: flags override the file, both the
    suite.
    """
    words = {k: v for k, v in words.items() if v is not None and v != ()}
    _check_twice(words)
    words = _with_classes(words)
    blocks = [_override(_with_classes(b), words) for b in read_file(file)] if file else [dict(words)]
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
                # (): the block names algorithms of its own, and none of them was asked for
                if merged.get("algos") != ():
                    own = "experiment" in part and "experiment" not in block
                    out.append(replace(_request(merged, suite, device), suite_label=own))
        else:
            out.append(_request(block, None, device))
    return out


def _with_classes(words: Mapping[str, object]) -> dict[str, object]:
    """The words with the classes of files, such as my_loss.py:RDPO, in place of their names."""
    if not words.get("algos"):
        return dict(words)
    named = names_of(words["algos"], "--algos")
    return {**words, "algos": tuple(algorithm_of(str(n)) if is_file_word(n) else n for n in named)}


def _override(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    """The words of two sources: the upper one wins, field by field in `set`.

    A word and the setting of that name are one thing, so that `--steps` wins over `task.steps` below it, and
    the other way round.
    """
    settings = {target: dict(fields) for target, fields in settings_of(below.get("set")).items()}
    over = settings_of(above.get("set"))
    own = settings.get("task", {})
    settings["task"] = {name: values for name, values in own.items() if name not in above}
    for target, fields in over.items():
        settings.setdefault(target, {}).update(fields)
    kept = {name: value for name, value in below.items() if name not in over.get("task", {})}
    return {**kept, **above, "set": {target: fields for target, fields in settings.items() if fields}}


def _check_twice(words: Mapping[str, object]) -> None:
    """Refuse a word beside the setting of its name, of which one would be without effect."""
    for name in settings_of(words.get("set")).get("task", {}):
        if name in words:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"--set task.{name}: the same as {option}, which is given, too; leave one out")


def _narrow(part: dict[str, object], above: dict[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """A suite's block, the words above it; where a block names its algorithms, only those asked for stay,
    with their settings.
    """
    own, asked = names_of(part.get("algos"), "--algos"), names_of(above.get("algos"), "--algos")
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
    settings = settings_of(part.get("set"))
    if kept != ("all",):
        names = [getattr(item, "name", item) for item in kept]
        # settings of algorithms that are left out would be refused as settings of what is not run
        settings = {to: v for to, v in settings.items() if to == "task" or to.removesuffix(".train") in names}
    return {**part, "set": settings}, {**above, "algos": kept}


def _request(words: Mapping[str, object], suite: str | None, device: str) -> Request:
    _check_combination(words)
    read = {FIELDS.get(name, name): READERS.get(name, _as_it_is)(value) for name, value in words.items()}
    read |= {"algos": _algos(words.get("algos"), suite), "tasks": names_of(words.get("tasks"), "--tasks")}
    return Request(**read | {"suite": suite, "device": device})


def _algos(value: object, suite: str | None) -> tuple[object, ...]:
    algos = names_of(value, "--algos")
    if not algos and suite is None:
        raise UsageError("--algos is missing: name algorithms such as --algos dpo,ipo, or --algos all")
    return algos or ("all",)


def _check_combination(words: Mapping[str, object]) -> None:
    """Refuse words that go with `--data` alone: tasks know their files, columns and splits themselves."""
    if words.get("data"):
        task = settings_of(words.get("set")).get("task", {})
        asked = words.get("split_by") is not None or "split_by" in task
        if asked and not (words.get("heldout") or "heldout" in task):
            raise UsageError("--split-by goes with --heldout F: without it no row is held out by it")
        if words.get("split_by") == "":
            raise UsageError("--split-by: nothing is named; want prompt, row or a column of the set")
        return
    if words.get("world"):
        raise UsageError("--world goes with --data: it describes the prompts of an ad-hoc preference set")
    if words.get("on_bad_row"):
        raise UsageError("--on-bad-row goes with --data: the tasks know which of their rows are left out")
    for name in ("columns", "rankings", "strength"):
        if words.get(name):
            raise UsageError(f"--{name} goes with --data: the tasks know the columns of their sets")
    if words.get("split_by") is not None:
        raise UsageError("--split-by goes with --data and --heldout: the tasks have splits of their own")


def _label(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f'experiment = {value!r}: expected a label, such as "warm starts"')
    if value.endswith(SEARCH):
        raise UsageError(
            f"experiment = {value!r}: labels that end in {SEARCH!r} are those of cells which a search only "
            f"tried, and no table shows them; call it {value.removesuffix(SEARCH)!r}"
        )
    return value


def _versions(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(v, str) for v in value.values()):
        raise UsageError(f'versions = {value!r}: expected a table of texts, such as {{ bandit = "1" }}')
    return {str(task): version for task, version in value.items()}


def _processes(value: object) -> int:
    if type(value) is not int or value < 1:
        raise UsageError(f"--gpus-per-cell {value}: expected a whole number of processes, 1 or more")
    return value


def _as_it_is(value: object) -> object:
    return value


READERS: Mapping[str, Callable[[Any], Any]] = {
    "columns": check_columns,
    "strength": lambda value: parse_link(value).words,
    "lora": parse_lora,
    "template_date": lambda value: parse_date(str(value)),
    "trust_remote_code": bool,
    "set": settings_of,
    "seeds": parse_seeds,
    "gpus_per_cell": _processes,
    "experiment": _label,
    "versions": _versions,
}
"""What a word becomes that is no plain value; budgets are validated with the task's own."""
FIELDS = {"set": "settings"}
