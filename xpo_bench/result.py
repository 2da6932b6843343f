"""The result of a run: its records as tables, frames, plots and reports; and the same of a run directory."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xpo_bench.errors import UsageError
from xpo_bench.metrics.registry import learn_from
from xpo_bench.report.format import counted, statuses
from xpo_bench.report.summary import summarise
from xpo_bench.runner.executed import Executed
from xpo_bench.runner.record import SCHEMA, Record
from xpo_bench.runner.run_document import RunDocument

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset
    from matplotlib.axes import Axes

    from xpo_bench.report.content import Comparison, Report

Kind = Literal["frontier", "curves", "matched"]


@dataclass(repr=False)
class Result(Executed):
    """The records of one run, and what was not planned.

    Args:
        recorded: `run.json` of a run directory that was loaded; empty for what was just run.
    """

    recorded: RunDocument = field(default_factory=RunDocument)

    def __repr__(self) -> str:
        """One line: how many cells of what became what, and where they are."""
        return f"<{self._line()}>"

    def _line(self) -> str:
        algorithms, tasks, seeds = (
            {c["algorithm"]["name"] for c in self.cells},
            {c["task"]["name"] for c in self.cells},
            {c["seed"] for c in self.cells},
        )
        sizes = [(len(algorithms), "algorithm"), (len(tasks), "task"), (len(seeds), "seed")]
        missing = self.planned - len(self.cells)
        state = [
            statuses(Counter(c["status"] for c in self.cells)),
            f"{missing} missing" if missing > 0 else "",
        ]
        parts = [
            ", ".join(counted(n, what) for n, what in sizes if n),
            ", ".join(filter(None, state)),
            str(self.out),
        ]
        return f"xpo_bench.Result of {counted(len(self.cells), 'cell')}: {'; '.join(filter(None, parts))}"

    def _repr_html_(self) -> str:
        """The verdicts, and what is not ok, for a notebook."""
        from xpo_bench.report.render.notebook import snippet

        return snippet(self._short if self.cells else None, self._line())

    def summary(self) -> list[dict[str, Any]]:
        """Mean, 95 % interval over seeds and n of every metric, per algorithm x config x task."""
        return summarise(self.cells)

    def to_pandas(self) -> pd.DataFrame:
        """One row per cell: identity, configuration, status, metrics, and how it was trained.

        `config.NAME` are hyperparameters and `task.NAME` options of the task; `lr` and `optimizer` are the
        cell's own, and `steps` and `model` those of its task.
        """
        import pandas as pd

        rows = []
        for r in self.cells:
            row: dict[str, Any] = {
                "algorithm": r["algorithm"]["name"],
                "task": r["task"]["name"],
                "seed": r["seed"],
                "status": r["status"],
                "key": r["key"],
            }
            row |= {f"config.{k}": v for k, v in r["algorithm"]["config"].items()}
            rows.append(row | r["metrics"])
        frame = pd.DataFrame(rows)
        # behind the others, whose places notebooks may rely on
        more = pd.DataFrame([_training(r) for r in self.cells], index=frame.index)
        return frame.join(more[[name for name in more if name not in frame]])

    def curves(self) -> pd.DataFrame:
        """One row per evaluation: algorithm, config as JSON, task, seed, step, every metric, the cell's key.

        A metric that does not apply to a row, or is undefined there, is NaN.
        """
        from xpo_bench.report.curves import curve_reader
        from xpo_bench.report.render.dataset import POINT, curve_table

        frame: pd.DataFrame = curve_table(self.cells, curve_reader(self.out)).to_pandas()
        first = [name for name in POINT if name != "key"]
        return frame[[*first, *(name for name in frame if name not in POINT), "key"]]

    def plot(
        self,
        kind: Kind = "curves",
        ax: Axes | Sequence[Axes] | None = None,
        *,
        task: str | None = None,
        metric: str | None = None,
    ) -> Any:
        """Draw the figures of the report on Matplotlib axes.

        Args:
            kind: `curves` of metrics over steps; `frontier`, reward against KL under the exact frontier; or
                `matched`, the metric that counts at equal KL.
            ax: where to; a figure is made by default. One of axes for every panel where there are several.
            task: one of several. metric: one panel of the curves.

        Returns:
            The axes, an array of them where there are several panels.

        Raises:
            UsageError: there is nothing of that kind to draw, or not as many axes as panels.
        """
        from xpo_bench.report.render.plots import plot

        return plot(self._whole, kind, ax, task, metric)

    def report(self, path: str | Path, *, baseline: str | None = None) -> Path:
        """Write the report as a file: a page (.html), Markdown (.md), LaTeX tables (.tex) or JSON (.json).

        Raises:
            UsageError: another suffix, a file that cannot be written, or no finished cell.
        """
        from xpo_bench.report.content import Comparison
        from xpo_bench.report.render.files import SUFFIXES, rendered
        from xpo_bench.runner.store import write_atomic

        path = Path(path)
        if path.suffix not in SUFFIXES:
            raise UsageError(f"report {path}: want a file that ends in {', '.join(SUFFIXES)}")
        self._check()
        command = ["xpo-bench", "report", str(self.out), *(["--baseline", baseline] if baseline else [])]
        text = rendered(self._report(Comparison(baseline)), path.suffix, [*command, "--latex", str(path)])
        try:
            write_atomic(path, text.encode())
        except OSError as error:
            raise UsageError(f"report {path}: cannot be written ({error.strerror})") from None
        return path

    def to_datasets(self) -> dict[str, Dataset]:
        """Hugging Face data sets: a row per cell (`cells`), per evaluation (`curves`), per item (`items`)."""
        from xpo_bench.report.curves import curve_reader
        from xpo_bench.report.render.dataset import datasets_of

        return datasets_of(self.cells, curve_reader(self.out), self.out)

    def show(self, width: int | None = None, plan_seeds: bool = False) -> None:
        """Print the verdicts and tables, and how many seeds would separate the algorithms where asked."""
        from rich.console import Console

        from xpo_bench.report import table
        from xpo_bench.report.content import Comparison
        from xpo_bench.report.render.terminal import print_report

        comparison = Comparison(plan_seeds=plan_seeds)
        print_report(Console(width=width), self._report(comparison, rows=table.ROWS))

    @cached_property
    def _whole(self) -> Report:
        self._check()
        return self._report()

    def _check(self) -> None:
        if not self.cells:
            raise UsageError(f"{self.out}: holds no finished cell yet")

    @cached_property
    def _short(self) -> Report:
        from xpo_bench.report.render.notebook import ROWS

        return self._report(rows=ROWS)

    def _report(self, comparison: Comparison | None = None, rows: int | None = None) -> Report:
        from xpo_bench.report.content import assemble

        left = {"skipped": self.skipped, "unreachable": self.unreachable}
        searched = {"targets": self.targets, "tuning": self.tuning}
        told = self.recorded or left | searched
        return assemble(self.out, [*self.cells, *self.beside], told, comparison=comparison, rows=rows)

    def document(self, plan_seeds: bool = False) -> dict[str, Any]:
        """What `--json` prints."""
        from xpo_bench.report.render.json import verdicts_of

        return {
            "schema": SCHEMA,
            "run": str(self.out),
            "cells": self.cells,
            "summary": self.summary(),
            "skipped": self.skipped,
            "unreachable": self.unreachable,
            **(verdicts_of(self._report(rows=0), plan_seeds) if self.cells else {}),
        } | {name: found for name, found in (("targets", self.targets), ("tuning", self.tuning)) if found}

    @property
    def ok(self) -> bool:
        """Every asked-for cell is ok, or diverged where its task expects it; and there is at least one."""
        good = [
            cell
            for cell in self.cells
            if cell["status"] == "ok"
            or (cell["status"] == "diverged" and cell["task"]["expected_divergence"])
        ]
        return bool(self.cells) and len(good) == self.planned and not self.unreachable


def _training(r: Record) -> dict[str, Any]:
    """How a cell was trained, as columns."""
    train, task = r.get("train", {}), r["task"]
    return {
        "lr": train.get("lr"),
        "optimizer": train.get("optimizer"),
        "steps": task["budget"].get("steps"),
        "model": task["model"].get("name"),
        "experiment": r.get("experiment"),
        **{f"task.{name}": value for name, value in task["options"].items()},
    }


def load(run: str | Path) -> Result:
    """The result of a run directory, from its records alone: all of them, those of trials too.

    Records that are incomplete or corrupt are left out, and named on stderr.

    Raises:
        UsageError: there is no such run directory.

    Example:
        >>> xpo_bench.load("results/runs/3f2a9c0d1b7e").to_pandas()
    """
    from xpo_bench.runner.store import Store

    store = Store.existing(Path(run))
    document, records = store.read_run(), store.records()
    learn_from(records)
    for path, reason in store.damaged.items():
        print(f"xpo-bench: {path}: {reason}; left out", file=sys.stderr)
    place = {entry["key"]: number for number, entry in enumerate(document.get("plan", []))}
    return Result(
        out=store.root,
        cells=sorted(records, key=lambda r: place.get(r["key"], len(place))),
        planned=len({*place, *(r["key"] for r in records)}),
        skipped=list(document.get("skipped", [])),
        unreachable=list(document.get("unreachable", [])),
        targets=list(document.get("targets", [])),
        tuning=list(document.get("tuning", [])),
        recorded=document,
    )
