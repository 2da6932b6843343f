"""Metrics of plugins: measured beside our own, on record with their definition, harmless when they fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow import present

import xpo_bench
from xpo_bench import Evaluation, History, UsageError, metric
from xpo_bench.runner.record import Record

Command = Callable[..., Any]
WORDS = ["--tasks", "bandit", "--steps", "40", "--seeds", "2"]

SOURCE = '''
import numpy as np
from xpo_bench import hookimpl, metric

@metric("nats", better="higher")
def worst_margin(ev):
    """The margin of the pair that is learned worst."""
    return np.where(ev.chosen_rows, ev.margin, np.inf).min(-1)

@hookimpl
def xpo_metrics():
    return [worst_margin]
'''


@metric("nats", better="higher")
def median_margin(ev: Evaluation) -> np.ndarray:
    """The margin of the median pair."""
    return np.nanmedian(np.where(ev.chosen_rows, ev.margin, np.nan), axis=-1)


@metric("step", better="lower", kind="curve")
def first_above_half(history: History) -> np.ndarray:
    """The first evaluation at which reward_accuracy is above one half."""
    good = history.recorded & (history.series["reward_accuracy"] > 0.5)
    return np.where(good.any(0), history.steps[good.argmax(0)], np.nan)


@metric("nats")
def scribbles(ev: Evaluation) -> np.ndarray:
    """Writes into what everybody reads."""
    ev.chosen_logp[:] = 0.0
    return np.asarray(ev.chosen_logp.sum(-1))


@metric("nats")
def one_number(ev: Evaluation) -> float:
    """Returns one number for all runs."""
    return 1.0


@metric("nats")
def leaves(ev: Evaluation) -> None:
    """Ends the process."""
    raise SystemExit(3)


@metric("nats")
def not_here(ev: Evaluation) -> None:
    """Applies to nothing."""
    return


def run(out: Path, *metrics: Any, **words: Any) -> xpo_bench.Result:
    return xpo_bench.run(["dpo", "ipo"], ["bandit"], steps=40, seeds=2, out=out, metrics=metrics, **words)


def numbers(record: Record) -> dict[str, Any]:
    return {
        name: value for name, value in record["metrics"].items() if name not in ("pairs_per_s", "prepare_s")
    }


def test_a_metric_is_measured_beside_the_others_which_stay_as_they_are(tmp_path: Path) -> None:
    plain, more = run(tmp_path / "a"), run(tmp_path / "b", median_margin, first_above_half)
    for before, after in zip(plain.cells, more.cells, strict=True):
        added = {name: value for name, value in after["metrics"].items() if name not in before["metrics"]}
        assert {name: value for name, value in numbers(after).items() if name not in added} == numbers(before)
        assert set(added) == {
            "median_margin",
            "heldout_median_margin",
            "first_above_half",
            "heldout_first_above_half",
        }
        assert "metric_definitions" not in before
        assert after["metric_definitions"]["median_margin"] == {
            "unit": "nats",
            "better": "higher",
            "definition": "The margin of the median pair.",
            "plugin": "in-memory",
            "distribution": "in-memory",
            "version": "0",
        }
    import pandas as pd

    final, rows = (
        more.cells[0]["metrics"],
        pd.read_parquet(tmp_path / "b" / "curves" / f"{more.cells[0]['key']}.parquet"),
    )
    assert rows["median_margin"].iloc[0] == 0.0  # at the initial policy every margin is 0
    assert rows["median_margin"].iloc[-1] == final["median_margin"]
    assert present(final["median_margin"]) > 0
    assert final["first_above_half"] == rows["step"][rows["reward_accuracy"] > 0.5].iloc[0]


def test_a_metric_is_part_of_what_identifies_a_cell(tmp_path: Path) -> None:
    keys = [{c["key"] for c in run(tmp_path / name, *metrics).cells} for name, metrics in
            (("a", []), ("b", [median_margin]), ("c", [median_margin, first_above_half]))]  # fmt: skip
    assert not keys[0] & keys[1]
    assert not keys[1] & keys[2]
    again = run(tmp_path / "b", median_margin)
    assert {c["key"] for c in again.cells} == keys[1]
    assert again.computed == 0


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (scribbles, "ValueError at step 0: assignment destination is read-only"),
        (one_number, "ValueError at step 0: returned the shape (), expected one value per run, (4,)"),
        (leaves, "SystemExit at step 0: 3"),
    ],
)
def test_one_that_fails_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: Any, error: str
) -> None:
    plain, hurt = run(tmp_path / "a"), run(tmp_path / "b", bad, median_margin)
    name = bad.__name__
    for before, after in zip(plain.cells, hurt.cells, strict=True):
        assert after["status"] == "ok"
        assert name not in after["metrics"]
        assert present(after["metrics"]["median_margin"]) > 0
        assert after["notes"]["metric_errors"] == {name: error, f"heldout_{name}": error}
        assert numbers(before).items() <= numbers(after).items()
    told = capsys.readouterr().err
    assert told.count(f"xpo-bench: metric {name}: {error}; left out of dpo on bandit, seed 0") == 1
    hurt.show(120)
    assert f"metric {name}: left out of 4 cells" in capsys.readouterr().out


def test_one_that_applies_to_nothing_says_nothing(tmp_path: Path) -> None:
    for record in run(tmp_path, not_here).cells:
        assert "not_here" not in record["metrics"]
        assert "metric_errors" not in record["notes"]


def test_the_tables_compare_by_it_where_the_plugin_is_not_installed(
    tmp_path: Path, distribution: Callable[..., Path], warm: Command
) -> None:
    site = str(distribution("their-metric", {"margins": SOURCE}))
    out = str(tmp_path / "run")
    done = warm("run", "--algos", "dpo,ipo", *WORDS, "--out", out, PYTHONPATH=site, COLUMNS="200")
    assert done.code == 0, done.err
    assert "worst_margin" in done.out
    shown = warm("show", out, "--baseline", "dpo", "--metric", "heldout_worst_margin", COLUMNS="200")
    assert shown.code == 0, shown.err
    assert "Against dpo" in shown.out
    assert any("worst_margin" in line for line in shown.out.splitlines())
    unknown = warm("show", out, "--baseline", "dpo", "--metric", "best_margin")
    assert unknown.code == 2


def test_trials_can_be_chosen_by_it(tmp_path: Path, distribution: Callable[..., Path], warm: Command) -> None:
    site = str(distribution("their-metric", {"margins": SOURCE}))
    words = [
        "--algos",
        "dpo",
        *WORDS,
        "--protocol",
        "tuned",
        "--trials",
        "2",
        "--select",
        "heldout_worst_margin",
    ]
    done = warm("run", *words, "--out", str(tmp_path / "run"), "--json", PYTHONPATH=site)
    assert done.code == 0, done.err
    (found,) = done.json["tuning"]
    scores = [trial["score"] for trial in found["trials"]]
    assert found["chosen"] == scores.index(max(scores))
    assert warm("run", *words).code == 2  # unknown without the plugin


def test_it_is_listed_with_its_origin_and_can_be_disabled(
    distribution: Callable[..., Path], warm: Command
) -> None:
    site = str(distribution("their-metric", {"margins": SOURCE}, version="1.5"))
    rows = {row["name"]: row for row in warm("list", "metrics", "--json", PYTHONPATH=site).json}
    assert (rows["worst_margin"]["distribution"], rows["worst_margin"]["version"]) == ("their-metric", "1.5")
    assert rows["kl"]["distribution"] == "xpo-bench"
    without = warm("list", "metrics", "--json", "--disable", "margins", PYTHONPATH=site).json
    assert "worst_margin" not in {row["name"] for row in without}


def test_worker_processes_measure_it_too(
    tmp_path: Path, distribution: Callable[..., Path], warm: Command
) -> None:
    site = str(distribution("their-metric", {"margins": SOURCE}))
    words = ("run", "--algos", "dpo,ipo", *WORDS, "--json")
    one = warm(*words, "--out", str(tmp_path / "one"), PYTHONPATH=site)
    two = warm(*words, "--out", str(tmp_path / "two"), "--workers", "2", PYTHONPATH=site)
    assert one.code == two.code == 0, two.err
    assert [numbers(c) for c in one.json["cells"]] == [numbers(c) for c in two.json["cells"]]
    assert all("worst_margin" in c["metrics"] for c in two.json["cells"])


BROKEN = {
    "a built-in name": (
        SOURCE.replace("worst_margin", "kl"),
        "the metric name 'kl' is that of one of the suite's own",
    ),
    "a column": (SOURCE.replace("worst_margin", "loss"), "must match"),
    "a prefix": (SOURCE.replace("worst_margin", "heldout_x"), "not begin with heldout_"),
    "not marked": (
        SOURCE.replace('@metric("nats", better="higher")', ""),
        "must return functions marked by @xpo_bench.metric(unit)",
    ),
    "no docstring": (
        SOURCE.replace('"""The margin of the pair that is learned worst."""', ""),
        "a docstring is needed",
    ),
    "a kind of the suite": (
        SOURCE.replace('better="higher"', 'kind="run"'),
        "a plugin's is 'point' or 'curve'",
    ),
    "a direction": (SOURCE.replace('better="higher"', 'better="up"'), "needs a unit, and better="),
}


@pytest.mark.parametrize(("source", "error"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_metric_breaks_its_plugin_alone(
    distribution: Callable[..., Path], warm: Command, source: str, error: str
) -> None:
    site = str(distribution("bad-luck", {"margins": source}))
    listed = {p["name"]: p for p in warm("list", "plugins", "--json", PYTHONPATH=site).json}
    assert listed["margins"]["status"] == "broken"
    assert error in listed["margins"]["error"]
    assert (
        warm(
            "run",
            "--algos",
            "dpo",
            "--tasks",
            "deterministic",
            "--steps",
            "5",
            "--seeds",
            "1",
            PYTHONPATH=site,
        ).code
        == 0
    )


def test_two_plugins_with_one_metric_are_both_refused(
    distribution: Callable[..., Path], warm: Command
) -> None:
    distribution("first-party", {"one": SOURCE})
    site = str(distribution("second-party", {"two": SOURCE}))
    listed = {p["name"]: p for p in warm("list", "plugins", "--json", PYTHONPATH=site).json}
    assert {listed["one"]["status"], listed["two"]["status"]} == {"refused"}
    assert "the metric name 'worst_margin' is offered by both" in listed["one"]["error"]


def test_functions_that_cannot_be_metrics_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"metrics: xpo_metrics\(\) must return functions marked by"):
        run(tmp_path, len)
    with pytest.raises(UsageError, match="metrics: the name 'median_margin' is given twice"):
        run(tmp_path, median_margin, median_margin)
