"""The notebook's entry, with the same words as the command line; the command line calls it too."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpo_bench import plugins
from xpo_bench.errors import UsageError, unknown
from xpo_bench.metrics.registry import learn
from xpo_bench.report.summary import summarise
from xpo_bench.runner import environment
from xpo_bench.runner.executors.placement import ExecutionConfig, spread
from xpo_bench.runner.lock import occupied
from xpo_bench.runner.observers import Observers, facts
from xpo_bench.runner.plan import IN_MEMORY, Plan, make_plan
from xpo_bench.runner.record import now
from xpo_bench.runner.remarks import remarks
from xpo_bench.runner.request import Request, parse_shard, requests
from xpo_bench.runner.store import SCHEMA, Store

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

    from xpo_bench.runner.executors.dispatcher import Dispatcher
    from xpo_bench.runner.progress import Reporter


PROTOCOLS = ("default", "tuned")


@dataclass
class Result:
    """The records of one run, and what was not planned.

    Attributes:
        cells: one record per planned cell that has one, in plan order.
        skipped: combinations that `all` left out. unreachable: tasks whose data cannot be had.
        planned: number of cells that were asked for.
        targets: with `target_kl`, the value found for every algorithm on every task, or why there is none.
        tuning: of the tuned protocol, for every algorithm on every task its trials and the one chosen.
    """

    out: Path
    cells: list[dict[str, Any]]
    planned: int
    skipped: list[dict[str, str]] = field(default_factory=list)
    unreachable: list[dict[str, str]] = field(default_factory=list)
    computed: int = 0
    targets: list[dict[str, Any]] = field(default_factory=list)
    tuning: list[dict[str, Any]] = field(default_factory=list)

    def summary(self) -> list[dict[str, Any]]:
        """Mean, 95 % interval over seeds and n of every metric, per algorithm x config x task."""
        return summarise(self.cells)

    def to_pandas(self) -> pd.DataFrame:
        """One row per cell: identity, configuration, status and metrics as columns."""
        import pandas as pd

        rows = []
        for r in self.cells:
            row = {
                "algorithm": r["algorithm"]["name"],
                "task": r["task"]["name"],
                "seed": r["seed"],
                "status": r["status"],
                "key": r["key"],
            }
            row |= {f"config.{k}": v for k, v in r["algorithm"]["config"].items()}
            rows.append(row | r["metrics"])
        return pd.DataFrame(rows)

    def to_datasets(self) -> dict[str, Dataset]:
        """Hugging Face data sets `cells`, a row per cell, and `curves`, a row per evaluation: what `xpo-bench
        export` writes.
        """
        from xpo_bench.report.curves import curve_reader
        from xpo_bench.report.render.dataset import datasets_of

        return datasets_of(self.cells, curve_reader(self.out))

    def show(self, width: int | None = None) -> None:
        """Print the tables."""
        from rich.console import Console

        from xpo_bench.report import table
        from xpo_bench.report.content import assemble
        from xpo_bench.report.render.terminal import print_report

        left = {"skipped": self.skipped, "unreachable": self.unreachable}
        searched = {"targets": self.targets, "tuning": self.tuning}
        print_report(Console(width=width), assemble(self.out, self.cells, left | searched, rows=table.ROWS))

    def document(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "schema": SCHEMA,
            "run": str(self.out),
            "cells": self.cells,
            "summary": self.summary(),
            "skipped": self.skipped,
            "unreachable": self.unreachable,
        } | {name: found for name, found in (("targets", self.targets), ("tuning", self.tuning)) if found}

    @property
    def ok(self) -> bool:
        """Every asked-for cell is ok, or diverged where its task expects it; and there is at least one."""
        good = [
            c
            for c in self.cells
            if c["status"] == "ok" or (c["status"] == "diverged" and c["task"]["expected_divergence"])
        ]
        return bool(self.cells) and len(good) == self.planned and not self.unreachable


def run(
    algos: Any = None,
    tasks: Any = None,
    *,
    out: str | Path | None = None,
    fresh: bool = False,
    device: str = "cpu",
    disable: Any = (),
    file: str | Path | None = None,
    reporter: Reporter | None = None,
    target_kl: float | None = None,
    executor: str = "local",
    address: str | None = None,
    workers: int | None = None,
    protocol: str = "default",
    trials: int | None = None,
    select: str | None = None,
    metrics: Iterable[Callable[..., Any]] = (),
    track: str | Iterable[str] = (),
    cell_timeout: float | None = None,
    deterministic: bool = False,
    shard: str | None = None,
    wait: bool = False,
    **words: Any,
) -> Result:
    """Run a benchmark and return its records.

    Args:
        algos: names, or `Algorithm` classes and instances that need no packaging; or `"all"`.
        tasks: names, or `Task` classes and instances; the quick suite when nothing is named.
        out: run directory; by default `results/runs/` and twelve digits of the plan's hash.
        fresh: recompute cells that are already there.
        target_kl: search, for every algorithm, the value of its regulariser at which the final KL is this
            many nats.
        executor: `local` or `ray`. address: of a Ray cluster, `auto`, `local` or HOST:PORT.
        workers: processes that run cells side by side, 1 by default; all that a Ray cluster has room for.
        metrics: functions marked by `xpo_bench.metric` that need no packaging, beside those of the installed
            plugins.
        track: names of trackers that follow the run, such as `"csv"`.
        cell_timeout: seconds after which a cell, or those that train as one computation with it, is ended.
        protocol: `"tuned"` also runs every algorithm at the best of `trials` configurations (16 by default),
            its own among them, chosen on a validation split by the metric `select`.
        deterministic: let torch take deterministic algorithms alone, which matters on CUDA; a cell that has
            none fails.
        shard: `3/8` runs the third of eight parts of the plan; `xpo-bench merge` joins their run directories.
        wait: for another process that writes the run directory, in place of an error.
        words: the flags of `xpo-bench run`, with underscores: `set`, `seeds`, `data`, `model`, `steps`, ...

    Raises:
        UsageError: a word, a configuration or a data set is wrong.

    Example:
        >>> result = xpo_bench.run(algos=["dpo", "ipo"], tasks=["bandit"], seeds=3, set={"dpo.beta": [0.1, 0.5]})
        >>> result.show()
    """
    from xpo_bench.runner.request import FILE_KEYS

    for word in words:
        if word not in (*FILE_KEYS, "trust_remote_code"):
            raise UsageError(unknown("argument", word, FILE_KEYS))
    words = {"algos": algos, "tasks": tasks} | words
    if not file and (tasks or words.get("data")):  # a suite says itself how many
        words.setdefault("seeds", 3)
    registry = plugins.load(frozenset(plugins.split_names(disable) if isinstance(disable, str) else disable))
    registry = _measuring(registry, metrics)
    trying = _trying(protocol, trials, select)
    tracked = tuple(track.split(",") if isinstance(track, str) else track)
    for name in tracked:
        registry.tracker(name)
    with spread(executor, address, workers, cell_timeout) as where:
        resolved = where.device(device)
        asked = requests(words, Path(file) if file else None, resolved)
        processes = max((request.gpus_per_cell for request in asked), default=1)
        if device == "auto" and resolved == "cpu" and processes > 1:
            here = "in the cluster" if where.cluster else "on this machine"
            raise UsageError(
                f"--gpus-per-cell {processes}: no GPU {here}; --device cpu runs the processes on the CPU"
            )
        if where.cluster:
            where.cluster.check(resolved, processes)
        if deterministic and processes > 1:
            raise UsageError(
                "--deterministic: not with --gpus-per-cell, whose sums over devices have no promised order"
            )
        where = replace(where, deterministic=deterministic)
        session = Session(registry, reporter, where, fresh, wait, tracked)
        with environment.deterministic(deterministic and where.in_process):
            return _run(asked, session, target_kl, trying, shard, out)


def _measuring(registry: plugins.Registry, functions: Iterable[Callable[..., Any]]) -> plugins.Registry:
    """The registry with metrics that were handed over in it, all of them known by name from here on."""
    found = dict(registry.metrics)
    for function in functions:
        try:
            metric = plugins.check_metric(function)
        except (TypeError, ValueError) as error:
            raise UsageError(f"metrics: {error}") from None
        if metric.name in found:
            raise UsageError(
                f"metrics: the name {metric.name!r} is given twice, or is that of a metric of {found[metric.name][1].origin}"
            )
        found[metric.name] = (metric, IN_MEMORY)
    learn(metric for metric, _ in found.values())
    return replace(registry, metrics=found)


def _trying(protocol: str, trials: int | None, select: str | None) -> tuple[int, str] | None:
    """How many configurations the tuned protocol tries, and by what it chooses; None for the default
    protocol.
    """
    from xpo_bench.runner.search import tuned

    if protocol not in PROTOCOLS:
        raise UsageError(unknown("protocol", str(protocol), PROTOCOLS))
    if protocol == "default":
        if trials is not None or select is not None:
            raise UsageError(f"{'--select' if trials is None else '--trials'}: goes with --protocol tuned")
        return None
    trying = (tuned.TRIALS if trials is None else trials, select or tuned.SELECT)
    tuned.check(*trying)
    return trying


def _run(
    asked: list[Request],
    session: Session,
    target_kl: float | None,
    trying: tuple[int, str] | None,
    shard: str | None,
    out: str | Path | None,
) -> Result:
    """Plan what is asked for, and run it."""
    plan = make_plan(
        asked, session.registry, session.reporter.planning if session.reporter else lambda *_: None
    )
    if trying is not None:
        if shard or target_kl is not None:
            raise UsageError(
                f"{'--shard' if shard else '--target-kl'}: not with --protocol tuned, whose cells depend on its trials"
            )
        return _tuned(plan, asked, *trying, out, session)
    if target_kl is not None:
        if shard:
            raise UsageError("--shard: not with --target-kl, whose cells depend on one another")
        return _at_target(plan, asked, target_kl, out, session)
    if not plan.cells and not plan.unreachable:
        why = "; ".join(f"{s['algorithm']} on {s['task']}: {s['reason']}" for s in plan.skipped[:3])
        raise UsageError(f"nothing to run: {why or 'no algorithm fits the tasks'}")
    whole, plan = plan, plan.part(*parse_shard(shard)) if shard else plan
    root = (
        Path(out)
        if out
        else Path("results/runs") / (whole.hash + (f"-{shard.replace('/', 'of')}" if shard else ""))
    )
    if not plan.cells:
        return Result(root, [], 0, plan.skipped, plan.unreachable)
    result = execute(plan, Store(root), session)
    if not shard and any(request.suite and request.experiment for request in asked):
        from xpo_bench.report.experiments.files import write_figures

        write_figures(root, result.cells)
    return result


@dataclass(frozen=True)
class Session:
    """How a plan is run.

    Args:
        fresh: compute cells again that are there. wait: for another process that writes the run directory.
        track: names of the trackers that follow it.
    """

    registry: plugins.Registry
    reporter: Reporter | None = None
    where: ExecutionConfig = field(default_factory=ExecutionConfig)
    fresh: bool = False
    wait: bool = False
    track: tuple[str, ...] = ()

    def note(self, text: str) -> None:
        if self.reporter:
            self.reporter.note(text)


def _at_target(
    base: Plan, asked: list[Request], target_kl: float, out: str | Path | None, session: Session
) -> Result:
    """Search the regularisers, then run every algorithm at the value found."""
    from xpo_bench.runner.keys import digest
    from xpo_bench.runner.search.target_kl import find

    store = Store(
        Path(out) if out else Path("results/runs") / digest([base.hash, "target_kl", target_kl], 12)
    )

    def search(plan: Plan, requests: list[Request]) -> list[dict[str, Any]]:
        return execute(plan, store, session).cells

    plan, _, found = find(asked, target_kl, session.registry, search, session.note)
    result = (
        execute(plan, store, session)
        if plan.cells
        else Result(store.root, [], 0, plan.skipped, plan.unreachable)
    )
    result.targets = [f.document() for f in found]
    place = {(t["algorithm"], t["task"]): t for t in [*store.read_run().get("targets", []), *result.targets]}
    store.prepare()
    with occupied(store.root, session.wait, session.note):
        store.write_run(store.read_run() | {"targets": list(place.values())})
    return result


def _tuned(
    base: Plan, asked: list[Request], trials: int, select: str, out: str | Path | None, session: Session
) -> Result:
    """Run the trials, then every algorithm at its default and at its best trial."""
    from xpo_bench.runner.keys import digest
    from xpo_bench.runner.search import tuned

    if not base.cells:
        why = "; ".join(f"{s['algorithm']} on {s['task']}: {s['reason']}" for s in base.skipped[:3])
        raise UsageError(f"nothing to run: {why or 'no algorithm fits the tasks'}")
    store = Store(Path(out) if out else Path("results/runs") / digest([base.hash, "tuned"], 12))

    def run_trials(plan: Plan) -> list[dict[str, Any]]:
        return execute(plan, store, session).cells

    plan, found = tuned.find(base, asked, trials, select, run_trials, session.note)
    result = execute(plan, store, session)
    result.tuning = found
    place = {
        (f["algorithm"], f["task"], *f["keys"]["default"]): f
        for f in [*store.read_run().get("tuning", []), *found]
    }
    with occupied(store.root, session.wait, session.note):
        store.write_run(store.read_run() | {"tuning": list(place.values())})
    return result


def execute(plan: Plan, store: Store, session: Session) -> Result:
    """Run the cells that are missing and collect all records of the plan."""
    store.prepare()
    with occupied(store.root, session.wait, session.note):
        return _execute(plan, store, session)


def _execute(plan: Plan, store: Store, session: Session) -> Result:
    from xpo_bench.runner.executors.in_process import CellBatch, LocalExecutor, groups

    registry, reporter, where = session.registry, session.reporter, session.where
    observe = Observers(registry, session.track, store.root)
    todo = [cell for cell in plan.cells if session.fresh or not store.done(cell.key)]
    for aside, reason in store.set_aside():
        print(
            f"xpo-bench: {aside.with_suffix('')}: {reason}; set aside as {aside.name}, and computed again",
            file=sys.stderr,
        )
    store.write_run(_run_document(plan, store))
    fresh_records: dict[str, dict[str, Any]] = {}
    told: set[tuple[str, str]] = set()
    noted: set[str] = set()

    def finished(cell: Any, record: dict[str, Any], curve: list[dict[str, Any]]) -> None:
        store.write_cell(record, curve)
        fresh_records[cell.key] = record
        observe("xpo_run_end", cell=cell, record=record)
        for failure in record["notes"].get("metric_errors", {}).items():
            if failure not in told:
                told.add(failure)
                print(
                    f"xpo-bench: metric {failure[0]}: {failure[1]}; left out of {cell.label}", file=sys.stderr
                )
        for remark in remarks(record):
            if remark not in noted:
                noted.add(remark)
                if reporter:  # the tables say it too, so that --quiet need not
                    reporter.note(remark)
                else:
                    print(f"xpo-bench: {remark}", file=sys.stderr)
        if reporter:
            reporter.finished(cell, record)

    def started(group: CellBatch) -> None:
        if reporter:
            reporter.group(group.label, len(group.cells))

    references = store.root / "references"
    executor: LocalExecutor | Dispatcher
    if where.in_process:
        executor = LocalExecutor(
            finished, reporter.step if reporter else None, observe, references, where.facts
        )
    elif where.cluster:
        from xpo_bench.runner.executors.ray_pool import RayPool

        executor = RayPool(where.cluster, where, finished, observe, references, reporter)
    else:
        from xpo_bench.runner.executors.process_pool import Pool

        executor = Pool(where, finished, observe, references, reporter)
    if reporter:
        reporter.start(len(plan.cells), len(todo), store.root)
    try:
        executor.run_all(groups(todo), started)
    finally:
        executor.close()
        observe.close()
        if reporter:
            reporter.stop()
    records = (store.read_cell(cell.key) for cell in plan.cells)
    return Result(
        store.root,
        [r for r in records if r is not None],
        len(plan.cells),
        plan.skipped,
        plan.unreachable,
        len(fresh_records),
    )


def _run_document(plan: Plan, store: Store) -> dict[str, Any]:
    """run.json: an existing directory is extended, its earlier plan kept."""
    before = store.read_run()
    cells = {
        entry["key"]: entry for entry in before.get("plan", []) if isinstance(entry, dict) and "key" in entry
    }
    for cell in plan.cells:
        cells[cell.key] = facts(cell)
    commands = [*before.get("commands", []), {"argv": ["xpo-bench", *sys.argv[1:]], "at": now()}]
    device = plan.cells[0].setup.device if plan.cells else "cpu"
    skipped = [
        dict(t) for t in {tuple(sorted(s.items())) for s in [*before.get("skipped", []), *plan.skipped]}
    ]
    return {
        "schema": SCHEMA,
        "commands": commands,
        "plan": list(cells.values()),
        "skipped": sorted(skipped, key=lambda s: (s["task"], s["algorithm"])),
        "unreachable": plan.unreachable,
        "environment": environment.describe(device),
        **{name: before[name] for name in ("tuning", "targets") if name in before},
        "created": before.get("created", now()),
    }
