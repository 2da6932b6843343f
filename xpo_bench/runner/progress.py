"""Live progress on stderr: a Rich display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from xpo_bench.runner.record import Record

LINE_EVERY_S = 10.0
"""Seconds between plain progress lines."""


class Reporter:
    """Shows cells, steps, loss and remaining time; `quiet` shows nothing but failures."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.quiet = quiet
        self.live: Progress | None = None
        self._last_line = 0.0
        self._said: set[str] = set()

    def planning(self, task: str, data: str | None) -> None:
        """A task's data has been read; `data` is a line on how, where that is not plain."""
        if data:
            self.note("".join(c if c.isprintable() else " " for c in data))

    def note(self, text: str) -> None:
        """A line on what comes next."""
        if not self.quiet:
            self.console.print(f"xpo-bench: {text}", markup=False, soft_wrap=True)

    def note_once(self, text: str) -> None:
        """A line that a command which runs several plans says of the first alone."""
        if text not in self._said:
            self._said.add(text)
            self.note(text)

    def start(self, planned: int, todo: int, out: Path) -> None:
        """The plan is known."""
        self.done, self.todo, self.began = 0, todo, time.monotonic()
        if self.quiet:
            return
        cells = f"{planned} cell{'s' if planned != 1 else ''}"
        have = f", {planned - todo} already there" if planned > todo else ""
        self.console.print(f"xpo-bench: {cells}{have}, records in {out}", markup=False, soft_wrap=True)
        if self.console.is_terminal and todo:
            self.live = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self.cells_bar = self.live.add_task("cells", total=todo, note="")
            self.steps_bar = self.live.add_task("steps", total=None, note="")
            self.live.start()

    def batch(self, label: str, cells: int) -> None:
        """A batch of cells starts."""
        self.label, self.batch_cells = label, cells
        if self.live:
            self.live.reset(self.steps_bar, description=escape(label[:44]), note="")
        elif not self.quiet:
            if cells == 1:  # a language model: loading and scoring its reference can take a while
                self._line(f"{label}: preparing")
            self._last_line = time.monotonic()

    def working(self, label: str, cells: int) -> None:
        """The next step is one of this batch."""
        self.label, self.batch_cells = label, cells

    def step(self, step: int, steps: int, loss: float | None) -> None:
        """A training step is done."""
        now = time.monotonic()
        if self.live:
            if step % 10 == 0 or step == steps:
                note = f"loss {loss:.3g}" if loss is not None else ""
                self.live.update(self.steps_bar, completed=step, total=steps, note=note)
        elif not self.quiet and now - self._last_line > LINE_EVERY_S:
            self._last_line = now
            shown = f", loss {loss:.3g}" if loss is not None else ""
            left = self._eta(self.batch_cells * step / steps)
            eta = f", about {left:.0f} s left" if self.done or step else ""
            self._line(f"{self.label}: step {step}/{steps}{shown} ({self.done}/{self.todo} cells{eta})")

    def _eta(self, part: float) -> float:
        done = self.done + part  # a batch counts by the part of its steps that is done
        return (time.monotonic() - self.began) * (self.todo - done) / max(done, 1e-9)

    def finished(self, label: str, record: Record) -> None:
        """A cell has its record."""
        self.done += 1
        if record["status"] != "ok":
            message = record["error"]["message"] if record["error"] else "no longer finite"
            self._line(f"{label}: {record['status']}: {message}")
        if self.live:
            self.live.update(self.cells_bar, completed=self.done)
        elif (
            not self.quiet
            and record["status"] == "ok"
            and (record["timing"].get("vectorised_runs", 1) == 1 or self.done == self.todo)
        ):
            self._line(f"[{self.done}/{self.todo}] {label}: ok")

    def _line(self, text: str) -> None:
        clean = "".join(c if c.isprintable() else " " for c in text)
        self.console.print(clean, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """The run ends, whatever the reason."""
        if self.live:
            self.live.stop()
            self.live = None
