"""`Result`: of a run or of a run directory, as a line, a table of a notebook, frames, plots and files."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from runs import content

import xpo_bench
from xpo_bench import Result
from xpo_bench.errors import UsageError

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Two algorithms at two settings on two worlds."""
    return xpo_bench.run(
        ["dpo", "ipo"],
        ["bandit", "noisy"],
        set={"dpo.beta": [0.1, 0.5]},
        seeds=2,
        steps=60,
        out=tmp_path_factory.mktemp("result") / "run",
    )


def test_a_result_is_one_line(result: Result) -> None:
    line = f"<xpo_bench.Result of 12 cells: 2 algorithms, 2 tasks, 2 seeds; 12 ok; {result.out}>"
    assert repr(result) == str(result) == line


def test_a_run_directory_is_the_same_result(result: Result) -> None:
    loaded = xpo_bench.load(result.out)
    assert loaded.cells == [json.loads(json.dumps(cell)) for cell in result.cells]
    assert (loaded.planned, loaded.ok, repr(loaded)) == (12, True, repr(result))
    assert loaded.document() == json.loads(json.dumps(result.document()))
    assert loaded._repr_html_() == result._repr_html_()
    pd.testing.assert_frame_equal(loaded.to_pandas(), result.to_pandas())


def test_what_cannot_be_read_is_left_out_and_named(
    result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="not a run directory"):
        xpo_bench.load(tmp_path)
    copied = xpo_bench.run("dpo", "bandit", seeds=2, steps=5, out=tmp_path / "run")
    (tmp_path / "run" / "cells" / f"{copied.cells[0]['key']}.json").write_text("{", "utf-8")
    loaded = xpo_bench.load(tmp_path / "run")
    assert (len(loaded.cells), loaded.planned, loaded.ok) == (1, 2, False)
    assert "1 missing" in repr(loaded)
    assert f"{copied.cells[0]['key']}.json" in capsys.readouterr().err


def test_a_notebook_shows_the_verdicts(result: Result) -> None:
    shown = result._repr_html_()
    assert "Which algorithm? 2 tasks, 2 seeds" in shown
    assert "<script" not in shown
    assert shown.count("<tr>") == 3
    assert "dpo beta=0.5" in shown
    nothing = Result(Path("<b>"), [], 3)
    assert "Result of 0 cells: 3 missing; &lt;b&gt;" in nothing._repr_html_()


def test_frames_say_how_cells_were_trained(result: Result) -> None:
    frame = result.to_pandas()
    before = ["algorithm", "task", "seed", "status", "key", "config.beta"]
    assert list(frame)[: len(before)] == before
    assert list(frame).index("kl") < list(frame).index("lr")
    own = (frame.algorithm == "ipo") & (frame.task == "bandit") & (frame.seed == 1)
    (row,) = frame[own].to_dict("records")
    (cell,) = [
        c for c in result.cells
        if (c["algorithm"]["name"], c["task"]["name"], c["seed"]) == ("ipo", "bandit", 1)
    ]  # fmt: skip
    assert (row["lr"], row["optimizer"], row["steps"], row["model"], row["task.prompts"]) == (
        cell["train"]["lr"], cell["train"]["optimizer"], 60, "tabular", 8,
    )  # fmt: skip
    assert row["kl"] == cell["metrics"]["kl"]


def test_curves_are_those_of_the_files(result: Result) -> None:
    frame = result.curves()
    assert list(frame)[:5] == ["algorithm", "config", "task", "seed", "step"]
    assert len(frame) == sum(len(beside["step"]) for _, beside in content(result.out).values())
    key = result.cells[0]["key"]
    curve = pd.read_parquet(result.out / "curves" / f"{key}.parquet")
    own = frame[frame.key == key]
    assert own["kl"].tolist() == curve["kl"].tolist()
    assert own["step"].tolist() == curve["step"].tolist()
    assert own["kl"].iloc[-1] == result.cells[0]["metrics"]["kl"]


def test_plots_draw_the_numbers_of_the_curves(result: Result) -> None:
    import matplotlib.pyplot as plt

    frame = result.curves()
    _, ax = plt.subplots()
    assert result.plot("curves", ax, task="bandit", metric="kl") is ax
    ipo = frame[(frame.algorithm == "ipo") & (frame.task == "bandit")].groupby("step")["kl"].mean()
    drawn = [line.get_ydata() for line in ax.get_lines() if len(np.asarray(line.get_xdata())) == len(ipo)]
    assert any(np.allclose(np.asarray(y, float), ipo.to_numpy()) for y in drawn)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sorted(labels) == ["dpo beta=0.1", "dpo beta=0.5", "ipo"]
    plt.close("all")


def test_plots_make_axes_for_every_panel(result: Result) -> None:
    import matplotlib.pyplot as plt

    frontier = result.plot("frontier")
    assert [ax.get_title(loc="left") for ax in frontier] == ["bandit", "noisy"]
    assert result.plot("frontier", task="noisy").get_ylabel() == "E[reward]"
    curves = result.plot("curves", task="bandit")
    assert len(curves) > 3
    assert all(ax.figure is curves[0].figure for ax in curves)
    matched = result.plot("matched", task="bandit")
    assert matched.get_ylabel() == "gold reward"
    plt.close("all")


@pytest.mark.parametrize(
    ("kind", "words", "said"),
    [
        (
            "curve",
            {},
            "unknown kind of plot 'curve'; did you mean 'curves'? (known: curves, frontier, matched)",
        ),
        ("curves", {"task": "bandits"}, "unknown task of the plot 'bandits'; did you mean 'bandit'?"),
        ("curves", {"metric": "klo"}, "unknown metric of the curves 'klo'"),
        ("frontier", {"metric": "kl"}, "metric 'kl': goes with plot('curves')"),
        ("frontier", {"ax": "one"}, "1 axes for 2 panels (bandit and noisy); give as many, or name a task"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    result: Result, kind: xpo_bench.result.Kind, words: dict[str, str], said: str
) -> None:
    import matplotlib.pyplot as plt

    given = {**words, **({"ax": plt.subplots()[1]} if "ax" in words else {})}
    with pytest.raises(UsageError) as raised:
        result.plot(kind, **given)  # type: ignore[arg-type]
    assert said in str(raised.value)
    plt.close("all")


def test_a_plot_of_what_is_not_there_says_why(tmp_path: Path) -> None:
    xpo_bench.register_task("plain", [{"prompt": "x", "chosen": "a", "rejected": "b"}])
    result = xpo_bench.run("dpo", "plain", steps=5, seeds=1, out=tmp_path / "run")
    with pytest.raises(UsageError, match="nothing to draw: no task has a known reward"):
        result.plot("frontier")


@pytest.mark.parametrize(("suffix", "holds"), [
    (".html", "<title>xpo-bench report: run</title>"), (".md", "| bandit |"), (".tex", r"\toprule"),
    (".json", '"verdicts":'),
])  # fmt: skip
def test_a_report_is_what_the_command_writes(result: Result, tmp_path: Path, suffix: str, holds: str) -> None:
    path = result.report(tmp_path / f"report{suffix}", baseline="ipo")
    text = path.read_text("utf-8")
    assert holds in text
    assert "Against ipo" in text or suffix == ".html" or '"against"' in text


def test_a_report_that_cannot_be_written_is_one_line(result: Result, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"want a file that ends in .html, .md, .tex, .json"):
        result.report(tmp_path / "report.pdf")
    with pytest.raises(UsageError, match="cannot be written"):
        result.report(tmp_path / "missing" / "report.md")
    with pytest.raises(UsageError, match="holds no finished cell yet"):
        Result(Path("x"), [], 3).report(tmp_path / "report.md")
