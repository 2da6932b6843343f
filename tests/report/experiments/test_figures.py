"""Figures of the article's experiments: what files there are, and that equal data give equal bytes."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import matplotlib
import pytest
from narrow import present
from rich.console import Console

import xpo_bench
from xpo_bench.report.content import assemble
from xpo_bench.report.curves import curve_reader
from xpo_bench.report.experiments import EXPERIMENTS, of_experiments
from xpo_bench.report.experiments.base import columns
from xpo_bench.report.experiments.files import write_figures
from xpo_bench.report.records import records_of
from xpo_bench.report.render.drawing import whole
from xpo_bench.report.render.style import SPEAKING, STYLE, LineStyles
from xpo_bench.report.render.terminal import print_report
from xpo_bench.result import Result


def test_the_suite_writes_every_figure_with_its_data(article: Result) -> None:
    assert article.ok
    folder = article.out / "figures"
    stems = {stem for experiment in EXPERIMENTS.values() for stem in experiment.figures}
    assert len(stems) == 8
    for stem in stems:
        assert (folder / f"{stem}.svg").read_text(encoding="utf-8").startswith("<?xml")
        assert (folder / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
        with (folder / f"{stem}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows
        assert None not in rows[0]


def test_data_of_a_figure_are_those_of_the_records(article: Result) -> None:
    with (article.out / "figures" / "choosing_tau.csv").open(encoding="utf-8", newline="") as file:
        drawn = {
            (r["algorithm"], float(r["value"]), r["labels"]): float(r["kl"]) for r in csv.DictReader(file)
        }
    cells = [c for c in article.cells if c["experiment"] == "choosing_tau"]
    assert len(drawn) == len(cells) == 24
    for c in cells:
        value = c["algorithm"]["config"][present(c["algorithm"]["regulariser"])[0]]
        labels = "20 % flipped" if c["task"]["budget"]["label_noise"] else "clean"
        assert drawn[c["algorithm"]["name"], value, labels] == c["metrics"]["kl"]


def test_equal_data_give_equal_bytes_in_any_order_and_no_date(article: Result, tmp_path: Path) -> None:
    (tmp_path / "curves").symlink_to(article.out / "curves")
    again = write_figures(tmp_path, article.cells[::-1])
    assert again
    for path in again:
        assert path.read_bytes() == (article.out / "figures" / path.name).read_bytes(), path.name
        if path.suffix == ".svg":
            assert not re.search(r"<dc:date>|20\d\d-\d\d-\d\d", path.read_text(encoding="utf-8"))


def test_axes_have_labels_and_lines_a_legend(article: Result) -> None:
    for name, cells in of_experiments(records_of(article.cells)).items():
        data = EXPERIMENTS[name].data(cells, curve_reader(article.out))
        for stem, plot in EXPERIMENTS[name].figures.items():
            styles = LineStyles.of([plot.speaking(data)], sorted({r.algorithm.name for r in cells}))
            with matplotlib.rc_context(STYLE):
                figure = whole(plot.draw(data, styles))
            assert all(axes.get_xlabel() for axes in figure.axes), stem
            # what the heights are stands above the axes or beside them
            assert all(axes.get_title("left") or axes.get_ylabel() for axes in figure.axes), stem
            assert figure.legends, stem
            assert len(plot.speaking(data)) <= SPEAKING
            assert "compare" not in plot.caption(data)


@pytest.mark.parametrize("width", [80, 160])
def test_experiments_are_printed_in_order_within_the_width(article: Result, width: int) -> None:
    out = io.StringIO()
    report = assemble(article.out, article.cells)
    assert report.groups == []  # every cell belongs to an experiment
    print_report(Console(file=out, width=width), report)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    titles = [f"{name}: {experiment.title}" for name, experiment in EXPERIMENTS.items()]
    assert [line.strip() for line in lines if line.strip() in titles] == titles


def test_a_label_of_a_users_own_is_no_experiment(run_of_a_file: Result) -> None:
    assert not (run_of_a_file.out / "figures").exists()
    report = assemble(run_of_a_file.out, run_of_a_file.cells)
    assert "experiment" not in [section.name for section in report.sections]
    assert [r.raw for g in report.groups for r in g.records] == run_of_a_file.cells


@pytest.fixture
def run_of_a_file(tmp_path: Path) -> Result:
    plan = tmp_path / "plan.toml"
    plan.write_text('algos = "dpo"\ntasks = "cycle"\nsteps = 5\nexperiment = "overfit"\n', encoding="utf-8")
    return xpo_bench.run(file=plan, out=tmp_path / "run")


def test_columns_without_a_value_are_left_out() -> None:
    shown = columns([{"name": "a", "x": None, "n": 3}, {"name": "b", "x": None, "n": 4, "y": 0.5}])
    assert [c.header for c in shown] == ["name", "n", "y"]
    assert shown[2].cells == ["–", "0.5"]
