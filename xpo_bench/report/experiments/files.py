"""The figures of the article's experiments, as SVG and PNG, each beside the data that it shows as CSV.

The same data give the same bytes of SVG: no date, fixed identifiers, and text as outlines.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xpo_bench.report.curves import curve_reader
from xpo_bench.report.experiments import EXPERIMENTS, of_experiments
from xpo_bench.report.experiments.base import Row
from xpo_bench.report.records import Raw, Record, records_of
from xpo_bench.report.render.drawing import whole
from xpo_bench.report.render.style import STYLE, LineStyles

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_figures(root: Path, records: Sequence[Raw | Record]) -> list[Path]:
    """Draw every experiment among the records into `root/figures`; returns the files, in order.

    Args:
        root: a run directory, whose curves are read.
    """
    import matplotlib

    folder, curves, out = root / "figures", curve_reader(root), []
    members = of_experiments(records_of(records))
    measured = {name: EXPERIMENTS[name].data(cells, curves) for name, cells in members.items()}
    charts = [
        plot.speaking(data)
        for name, data in measured.items()
        for plot in EXPERIMENTS[name].figures.values()
        if data[plot.data[0]]
    ]
    styles = LineStyles.of(charts, sorted({r.algorithm.name for cells in members.values() for r in cells}))
    for name, data in measured.items():
        folder.mkdir(parents=True, exist_ok=True)
        out += [_write_csv(folder / f"{rows}.csv", data[rows]) for rows in data if data[rows]]
        with matplotlib.rc_context(STYLE):
            for stem, plot in EXPERIMENTS[name].figures.items():
                if data[plot.data[0]]:
                    out += _save(whole(plot.draw(data, styles)), folder, stem)
    return out


def _write_csv(path: Path, rows: Sequence[Row]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _save(figure: Figure, folder: Path, stem: str) -> list[Path]:
    """Both formats, without the date and version that would make equal figures differ."""
    svg, png = folder / f"{stem}.svg", folder / f"{stem}.png"
    figure.savefig(svg, metadata={"Date": None})
    figure.set_layout_engine("none")  # laid out once: what was placed for the one stands in the other
    figure.savefig(png, metadata={"Software": None})
    return [svg, png]
