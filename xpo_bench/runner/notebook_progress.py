"""Live progress in a notebook: one output that is replaced, with a bar, what is failing, and the notes.

It is made of IPython's own display and HTML's own bar: Rich and tqdm draw theirs with ipywidgets, which not
every notebook has, and which leave nothing behind where a notebook is read without a kernel.
"""

from __future__ import annotations

import sys
import time
from html import escape
from pathlib import Path
from typing import Any

from xpo_bench.runner.progress import Reporter
from xpo_bench.runner.record import Record

EVERY_S = 0.2
"""Seconds between two drawings of the bar."""
KEPT = 50
"""Lines below the bar at most; the first ones say what went wrong first."""


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook; nothing is imported to say so."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class NotebookReporter(Reporter):
    """Shows cells, steps, loss and remaining time in the output of a notebook's cell."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.label, self.batch_cells = "", 1
        self._shown: Any = None  # IPython's handle; a run that searches starts several times, and has one
        self._drawn = 0.0

    def note(self, text: str) -> None:
        """A line below the bar."""
        self._line(text)

    def start(self, planned: int, todo: int, out: Path) -> None:
        """The plan is known."""
        self.done, self.todo, self.began, self.out = 0, todo, time.monotonic(), out
        self.planned = planned
        self._draw("")

    def batch(self, label: str, cells: int) -> None:
        """A batch of cells starts."""
        self.working(label, cells)
        self._draw(label)

    def step(self, step: int, steps: int, loss: float | None) -> None:
        """A training step is done."""
        if time.monotonic() - self._drawn > EVERY_S:
            shown = f", loss {loss:.3g}" if loss is not None else ""
            left = self._eta(self.batch_cells * step / steps)
            text = f"{self.label}: step {step}/{steps}{shown}, about {left:.0f} s left"
            self._draw(text, self.batch_cells * step / steps)

    def stop(self) -> None:
        """The run ends, whatever the reason; the bar makes room for one line."""
        took = f"{time.monotonic() - self.began:.1f} s"
        have = f", {self.planned - self.todo} already there" if self.planned > self.todo else ""
        left = f", {self.todo - self.done} not finished" if self.done < self.todo else ""
        cells = f"{self.planned} cell{'s' if self.planned != 1 else ''}"
        self._show(f"{cells}{have}{left}: {took}, records in {self.out}", None)

    def _line(self, text: str) -> None:
        clean = "".join(c if c.isprintable() else " " for c in text)
        if len(self.lines) < KEPT and clean not in self.lines and not clean.endswith(": ok"):
            self.lines.append(clean)

    def finished(self, label: str, record: Record) -> None:
        """A cell has its record."""
        super().finished(label, record)
        if time.monotonic() - self._drawn > EVERY_S:
            self._draw(label)

    def _draw(self, text: str, part: float = 0.0) -> None:
        self._drawn = time.monotonic()
        self._show(f"{self.done}/{self.todo} cells{': ' if text else ''}{text}", self.done + part)

    def _show(self, text: str, value: float | None) -> None:
        """Replace the output. `value`: of the bar, in cells; None draws none."""
        from IPython.display import display

        bar = (
            f'<progress max="{max(self.todo, 1)}" value="{value:.2f}"></progress> '
            if value is not None
            else ""
        )
        below = "".join(f"<br>{escape(line)}" for line in self.lines)
        content = {
            "text/html": f"<div>{bar}{escape(text)}{below}</div>",
            "text/plain": "\n".join([text, *self.lines]),
        }
        if self._shown is None:
            self._shown = display(content, raw=True, display_id=True)
        else:
            self._shown.update(content, raw=True)
