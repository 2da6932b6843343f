"""The notebook's entry, with the same words as the command line; the command line calls it too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from xpo_bench import plugins
from xpo_bench.errors import UsageError, unknown
from xpo_bench.metrics.registry import learn
from xpo_bench.result import Result as Result  # tests and tools have it from here
from xpo_bench.runner.words import FILE_KEYS, Execution, Output, Search

if TYPE_CHECKING:
    from xpo_bench.runner.progress import Reporter


def run(
    algos: Any = None,
    tasks: Any = None,
    *,
    out: str | Path | None = None,
    fresh: bool = False,
    device: str = "auto",
    disable: Any = (),
    file: str | Path | None = None,
    reporter: Reporter | None = None,
    target_kl: float | None = None,
    executor: str = "local",
    address: str | None = None,
    workers: int | None = None,
    protocol: str = "default",
    trials: int | None = None,
    studies: int | None = None,
    select: str | None = None,
    metrics: Iterable[Callable[..., Any]] = (),
    track: str | Iterable[str] = (),
    cell_timeout: float | None = None,
    deterministic: bool = False,
    shard: str | None = None,
    wait: bool = False,
    spread: bool = False,
    quiet: bool = False,
    **words: Any,
) -> Result:
    """Run a benchmark and return its records.

    Args:
        algos: names, or `Algorithm` classes and instances that need no packaging; or `"all"`.
        tasks: names, or `Task` classes and instances; the quick suite when nothing is named.
        out: run directory; by default `results/runs/` and twelve digits of the plan's hash.
        fresh: recompute cells that are already there.
        device: of the policies: `auto`, the first GPU or the CPU; `cpu`, `cuda` or `cuda:1`.
        target_kl: search, for every algorithm, the value of its regulariser at which the final KL is this
            many nats.
        executor: `local` or `ray`. address: of a Ray cluster, `auto`, `local` or HOST:PORT.
        workers: processes that run cells side by side, 1 by default; all that a Ray cluster has room for.
        metrics: functions marked by `xpo_bench.metric` that need no packaging, beside those of the installed
            plugins.
        track: names of trackers that follow the run, such as `"csv"`.
        cell_timeout: seconds after which a cell, or those that train as one computation with it, is ended.
        protocol: `"tuned"` also runs every algorithm at the best of `trials` configurations (16 by default),
            its own among them, chosen on a validation split by the metric `select`; `studies` repeats the
            search with other trials and seeds, so that its spread is part of what is reported.
        deterministic: let torch take deterministic algorithms alone, which matters on CUDA; a cell that has
            none fails.
        shard: `3/8` runs the third of eight parts of the plan; `xpo-bench merge` joins their run directories.
        wait: for another process that writes the run directory, in place of an error.
        spread: without `workers`, let several processes train small language models where that is quicker, as
            the command does; classes of algorithms and tasks must then be in modules that can be imported.
        quiet: no progress bar in a notebook; elsewhere there is none.
        words: the flags of `xpo-bench run`, with underscores: `set`, `seeds`, `data`, `model`, `steps`, ...

    Raises:
        UsageError: a word, a configuration or a data set is wrong.

    Example:
        >>> result = xpo_bench.run(["dpo", "ipo"], ["bandit"], seeds=3, set={"dpo.beta": [0.1, 0.5]})
        >>> result.show()
    """
    # what trains, and torch with it, is imported when it is asked for: a notebook has its Result at once
    from xpo_bench.runner import environment
    from xpo_bench.runner import run as ways
    from xpo_bench.runner.execute import Session
    from xpo_bench.runner.executors.placement import configured
    from xpo_bench.runner.notebook_progress import NotebookReporter, in_notebook
    from xpo_bench.runner.request import requests

    for word in words:
        if word not in (*FILE_KEYS, "trust_remote_code"):
            raise UsageError(unknown("argument", word, FILE_KEYS))
    words = {"algos": algos, "tasks": tasks} | words
    if not file and (tasks or words.get("data")):  # a suite says itself how many
        words.setdefault("seeds", 3)
    if reporter is None and not quiet and in_notebook():
        reporter = NotebookReporter()
    registry = _with_metrics(plugins.load(frozenset(_names(disable))), metrics)
    search = Search(target_kl=target_kl, protocol=protocol, trials=trials, studies=studies, select=select)
    target = Path(out) if out else None
    output = Output(out=target, track=_names(track), shard=shard, wait=wait, fresh=fresh)
    ways.check(search, output)
    for name in output.track:
        registry.tracker(name)
    where = Execution(
        device=device,
        executor=cast(Literal["local", "ray"], executor),  # anything else is refused
        address=address,
        workers=workers,
        cell_timeout=cell_timeout,
        deterministic=deterministic,
    )
    with configured(where, spread) as execution:
        resolved = execution.device(device)
        asked = requests(words, Path(file) if file else None, resolved)
        execution.check(device, resolved, max((request.gpus_per_cell for request in asked), default=1))
        session = Session(registry, reporter, execution, fresh, wait, output.track)
        # other processes switch torch themselves; here it is switched back afterwards
        with environment.deterministic(deterministic and execution.in_process):
            result = Result(**vars(ways.run(asked, search, output, session)))
    plain = search == Search() and not shard
    if plain and result.planned and any(request.suite_label for request in asked):
        from xpo_bench.report.experiments.files import write_figures

        write_figures(result.out, result.cells)
    return result


def evaluate(
    checkpoints: str | Path | Iterable[str | Path],
    *,
    reference: str | Path,
    data: str | Path,
    note: Callable[[str], None] | None = None,
    **words: Any,
) -> Result:
    """Measure models that were trained elsewhere, as `xpo-bench evaluate` does.

    Args:
        checkpoints: `[NAME=]CHECKPOINT`, one or several: directories of models, adapters or training runs, or
            hub ids.
        reference: the model that training began from. data: the preference set.
        note: told in one line, now and then, what is being done.
        words: the options of `xpo-bench evaluate`, with underscores: `judge`, `base_data`, `beta`, `out`, ...

    Raises:
        UsageError: a word, a checkpoint or the data set is wrong.

    Example:
        >>> result = xpo_bench.evaluate("dpo=out/dpo", reference="OWNER/MODEL", data="prefs.jsonl")
        >>> result.show()
    """
    from xpo_bench.evaluating.asking import words_of
    from xpo_bench.evaluating.run import evaluate as measured
    from xpo_bench.runner.devices import of_this_machine

    several = [checkpoints] if isinstance(checkpoints, str | Path) else checkpoints
    asked = words_of({"checkpoints": tuple(map(str, several)), "reference": reference, "data": data} | words)
    device = of_this_machine().resolve(asked.device)
    return Result(**vars(measured(asked, device, note or (lambda _: None))))


def _names(given: str | Iterable[str]) -> tuple[str, ...]:
    """Names separated by commas, or several names, in order."""
    parts = given.split(",") if isinstance(given, str) else given
    return tuple(name.strip() for name in parts if name.strip())


def _with_metrics(registry: plugins.Registry, functions: Iterable[Callable[..., Any]]) -> plugins.Registry:
    """The registry with metrics that were handed over in it, all of them known by name from here on."""
    known = dict(registry.metrics)
    for function in functions:
        try:
            metric = plugins.check_metric(function)
        except (TypeError, ValueError) as error:
            raise UsageError(f"metrics: {error}") from None
        if metric.name in known:
            raise UsageError(
                f"metrics: the name {metric.name!r} is given twice, or is that of a metric of "
                f"{known[metric.name][1].origin}"
            )
        known[metric.name] = (metric, plugins.IN_MEMORY)
    learn(metric for metric, _ in known.values())
    return replace(registry, metrics=known)
