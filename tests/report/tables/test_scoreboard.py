"""Tables: readable at both widths, honest marks, nothing from a record is interpreted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from xpo_bench.report.content import assemble
from xpo_bench.report.format import clean, mean_pm, narrow, number, si_pm
from xpo_bench.report.render.terminal import print_report
from xpo_bench.report.table import Column
from xpo_bench.report.tables.listing import print_doctor, print_list, print_status
from xpo_bench.report.tables.scoreboard import HEADLINE
from xpo_bench.statistics import Estimate

Make = Callable[..., dict[str, Any]]
Printed = Callable[..., str]
ALGOS = "dpo ipo cdpo robust cpo simpo kto npo orpo sdpo rso dpop slic sft rlhf ppo".split()  # noqa: SIM905
NOWHERE = Path("no-such-run")
"""A run directory without curves."""
TASKS = ("bandit", "deterministic", "overfit_pair", "travel")


def print_run(console: Console, records: list[dict[str, Any]], **document: Any) -> None:
    """What the end of `run` prints of records alone."""
    print_report(console, assemble(NOWHERE, records, document))


@pytest.fixture
def suite(record: Make) -> list[dict[str, Any]]:
    """Sixteen algorithms on four tasks at three seeds, with numbers of awkward size."""
    cells = []
    for i, algorithm in enumerate(ALGOS):
        for task in TASKS:
            for seed in range(3):
                metrics: dict[str, float | None] = {
                    "kl": 12.345 + i * 0.01 * seed,
                    "collapsed": float(i % 2),
                    "collapse_step": 20.0 if i % 2 and seed else None,
                    "rejected_drift": -6.123e-5 * (1 - i % 2) - 3.456 * (i % 2) + 1e-3 * seed,
                    "rejected_logp": -12.0 - 100 * (i % 2),
                    "rejected_prob": 1.234e-12,
                    "displacement": -123.456 - seed,
                    "reward_accuracy": 0.9123 + 0.001 * i,
                    "pairs_per_s": 2123456.0 if task != "overfit_pair" else 45.6,
                }
                if task == "bandit":
                    metrics |= {"frontier_gap": 1.2345e-5 * (i + 1), "regret": 0.01}
                if task in ("bandit", "travel"):
                    metrics["heldout_reward_accuracy"] = 0.8 + 0.001 * i + 0.01 * seed
                cells.append(record(algorithm, task, seed, **metrics))
    return cells


@pytest.mark.parametrize("width", [80, 100, 200])
def test_fits(suite: list[dict[str, Any]], printed: Printed, width: int) -> None:
    text = printed(
        print_run,
        suite,
        skipped=[{"algorithm": "dpo", "task": "forget", "reason": "needs pairs"}],
        width=width,
    )
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text  # nothing was cut
    for name in HEADLINE:
        assert name in text
    for task in TASKS:
        assert f"{task}: adam, 2000 steps, 3 seeds" in text
    # every algorithm has one line in the scoreboard, none is broken in two
    board = lines[lines.index("Scoreboard over bandit, deterministic, overfit_pair, travel") :]
    rows = board[next(i for i, x in enumerate(board) if x.startswith("──")) + 1 :][: len(ALGOS)]
    assert [row.split()[0] for row in rows] == sorted(ALGOS)
    assert len({len(row.split()) for row in rows}) == 1


def test_two_tasks_side_by_side_where_they_fit(record: Make, printed: Printed) -> None:
    cells = [
        record(a, t, s, kl=1.0 + s, frontier_gap=0.1)
        for a in ("dpo", "ipo")
        for t in ("bandit", "noisy")
        for s in (0, 1)
    ]
    assert "Scoreboard by task" in printed(print_run, cells, width=80)
    many = [record(a, f"task-number-{t}", kl=1.0, frontier_gap=0.1) for a in ("dpo", "ipo") for t in range(9)]
    assert "Scoreboard over" in printed(print_run, many, width=80)


def test_aggregates_over_tasks(record: Make, printed: Printed) -> None:
    """Shares are averaged; kl is the largest, drift the lowest of the tasks, never a mean."""
    cells = [
        record("dpo", f"a-rather-long-name-{i}", kl=kl, collapsed=c, rejected_drift=d)
        for i, (kl, c, d) in enumerate([(0.5, 0, 0.01), (12.5, 1, -4.0), (3.0, 0, 0)])
    ]
    row = next(x for x in printed(print_run, cells).splitlines() if x.startswith("dpo "))
    assert row.split() == ["dpo", "12.5", "0.333", "-4"]


def test_a_row_without_one_of_the_tasks_is_marked_and_never_best(record: Make, printed: Printed) -> None:
    long = "a-task-with-such-a-long-name" * 3
    cells = [record("dpo", t, frontier_gap=0.5) for t in ("bandit", long)]
    cells += [record("ipo", t, frontier_gap=0.7) for t in ("bandit", long)] + [
        record("kto", "bandit", frontier_gap=0.1)
    ]
    board = printed(print_run, cells).split("bandit: adam")[0]
    assert "0.1°" in board
    assert "0.1°*" not in board
    assert "0.5*" in board
    assert "° without one of the tasks" in board


def test_best_is_marked_without_colour(record: Make, printed: Printed) -> None:
    cells = [record("dpo", frontier_gap=0.5, kl=0.1, brier=0.1), record("ipo", frontier_gap=0.2, kl=0.2)]
    text = printed(print_run, cells)
    assert "0.2*" in text
    assert "0.5*" not in text
    assert "0.1*" not in text  # kl has no better side


def test_what_is_never_best(record: Make, printed: Printed) -> None:
    assert "*" not in printed(print_run, [record(frontier_gap=0.1)]).replace("* best", "")  # a single row
    cells = [record("dpo", frontier_gap=0.1), record("ipo", frontier_gap=0.1)]
    assert "0.1*" not in printed(print_run, cells)  # all equal
    cells = [record("dpo", frontier_gap=None), record("ipo", frontier_gap=0.1), record("kto")]
    text = printed(print_run, cells)
    assert "–*" not in text
    assert "0.1*" not in text  # nobody to compare with
    cells = [
        record("dpo", status="diverged", frontier_gap=0.0),
        record("ipo", frontier_gap=0.1),
        record("kto", frontier_gap=0.2),
    ]
    text = printed(print_run, cells)
    assert "0.1*" in text
    assert "1 diverged" in text


def test_a_shared_clock_is_no_comparison(record: Make, printed: Printed) -> None:
    cells = [record("dpo", pairs_per_s=100.0, vectorised=6), record("ipo", pairs_per_s=200.0, vectorised=6)]
    text = printed(print_run, cells)
    assert "200*" not in text
    assert "train as one computation" in " ".join(text.split())
    assert "200*" in printed(print_run, [record("dpo", pairs_per_s=100.0), record("ipo", pairs_per_s=200.0)])


def test_absent_and_null(record: Make, printed: Printed) -> None:
    row = next(
        x
        for x in printed(print_run, [record("dpo", kl=None, regret=0.1), record("ipo", kl=1.0)]).splitlines()
        if x.startswith("dpo")
    )
    assert "–" in row
    assert "None" not in row
    assert "nan" not in row


def test_censored_steps(record: Make, printed: Printed) -> None:
    cells = [record(seed=s, collapse_step=v, collapsed=1.0) for s, v in enumerate([20.0, 50.0, None])]
    assert "50 in 2/3" in printed(print_run, cells)


def test_names_are_never_interpreted(record: Make, printed: Printed) -> None:
    evil = "my[/]algo[bold]\x1b[31mred\x1b]8;;http://x\x07\u202e\n\x9b2J"
    cells = [
        record(evil, "[red]task[/red]", kl=1.0),
        record("ipo", "[red]task[/red]", status="failed", error="[/] no\x1b[2J"),
    ]
    text = printed(print_run, cells, skipped=[{"algorithm": "[x]", "task": "y[/]", "reason": "\x1b[1mz"}])
    assert "my[/]algo[bold]red" in text
    assert "[red]task[/red]" in text
    assert "failed: [/] no" in text
    assert "[x] on y[/]: z" in text
    for forbidden in ("\x1b", "\x9b", "\u202e", "\x07"):
        assert forbidden not in text


def test_statuses_and_what_was_left_out(record: Make, printed: Printed) -> None:
    cells = [
        record("dpo", kl=1.0),
        record("dpo", seed=1, status="failed", error="out of luck"),
        record("npo", status="diverged", expected=True, kl=1.0),
        record("ipo", status="diverged", kl=1.0),
    ]
    text = printed(
        print_run,
        cells,
        skipped=[{"algorithm": a, "task": "forget", "reason": "needs pairs"} for a in ("dpo", "ipo")],
        unreachable=[{"task": "ukp", "reason": "XPO_BENCH_DATA is not set"}],
        width=120,
    )
    assert "1 ok, 1 failed" in text
    assert "dpo on bandit, seed 1: failed: out of luck" in text
    assert "npo on bandit, seed 0: diverged: as the task expects" in text
    assert "no longer finite" in text
    not_run = text.split("Not run\n")[1].splitlines()
    assert [line.strip() for line in not_run[:2]] == [
        "- ukp: XPO_BENCH_DATA is not set",
        "- dpo, ipo on forget: needs pairs",
    ]


def test_only_failures(record: Make, printed: Printed) -> None:
    text = printed(print_run, [record(status="crashed", error="killed")])
    assert "1 crashed" in text
    assert printed(print_run, []) == ""


def test_status(printed: Printed) -> None:
    text = printed(print_status, 48, {"ok": 30, "diverged": 1, "failed": 2, "missing": 15})
    assert "31 of 48 planned cells finished" in text
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["30", "ok"],
        ["1", "diverged"],
        ["2", "failed"],
        ["15", "missing"],
    ]


@pytest.mark.parametrize("width", [80, 200])
def test_lists(printed: Printed, width: int) -> None:
    from xpo_bench.metrics.registry import describe

    text = printed(print_list, "metrics", describe(), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert all(str(row["name"]) in text for row in describe())
    plugins = [
        {
            "name": "a",
            "distribution": "d[/]",
            "version": "1",
            "hooks": ["xpo_tasks"],
            "status": "ok",
            "error": None,
        },
        {
            "name": "b",
            "distribution": "e",
            "version": "2",
            "hooks": [],
            "status": "broken",
            "error": "ImportError: no",
        },
    ]
    text = printed(print_list, "plugins", plugins, width=width)
    assert "d[/]" in text
    assert "b (e 2): ImportError: no" in text
    algos = [
        {
            "name": "dpo",
            "data": "pairs",
            "fields": {"beta": 0.1, "loss": "x"},
            "about": "DPO",
            "distribution": "d",
        }
    ]
    assert "beta=0.1, loss=x" in printed(print_list, "algos", algos, width=width)
    assert "0 tasks" in printed(print_list, "tasks", [], width=width)


def test_doctor(printed: Printed) -> None:
    text = printed(print_doctor, [{"what": "plugin x[/]", "status": "wrong", "detail": "broken " * 30}])
    assert "plugin x[/]" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("value", "text", "short"),
    [
        (None, "–", "–"),
        (float("nan"), "–", "–"),
        (0.0, "0", "0"),
        (0.012345, "0.0123", "0.0123"),
        (-0.00123, "-0.00123", "-0.0012"),
        (0.00976, "0.00976", "0.0098"),
        (1.2e-7, "1.2e-7", "1.2e-7"),
        (-1.26e-17, "-1.3e-17", "-1e-17"),
        (12.345, "12.3", "12.3"),
        (999.7, "1000", "1000"),
        (14413.2, "14413", "14413"),
        (2123456.0, "2.1e6", "2.1e6"),
        (-123.4, "-123", "-123"),
        (1, "1", "1"),
    ],
)
def test_numbers(value: float | None, text: str, short: str) -> None:
    assert number(value) == text
    assert narrow(value) == short


def test_mean_and_half_interval() -> None:
    assert mean_pm(Estimate(0.712, 0.0312, 3)) == "0.712±0.031"
    assert mean_pm(Estimate(0.712, None, 1)) == "0.712"
    assert mean_pm(Estimate(0.712, 1e-17, 3)) == "0.712"  # the runs agree
    assert mean_pm(None) == "–"


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (None, "–"),
        (Estimate(0.0, None, 1), "0"),
        (Estimate(12.0, None, 1), "12"),
        (Estimate(3.14e12, 0.21e12, 3), "3.14±0.21 T"),
        (Estimate(42503679488.0, None, 1), "42.5 G"),
        (Estimate(999.7e9, None, 1), "1 T"),
        (Estimate(2.5e3, 130.0, 3), "2.5±0.13 k"),
        (Estimate(1e30, None, 1), "1.0e9 Z"),
    ],
)
def test_si_prefixes(found: Estimate | None, text: str) -> None:
    assert si_pm(found) == text


def test_a_half_interval_above_a_hundred_is_no_power_of_ten() -> None:
    assert mean_pm(Estimate(-916.0, 184.2, 3)) == "-916±184"


def test_clean() -> None:
    assert clean("a\x1b[31mb\x1b[0m\u200b\nc") == "ab c"
    assert clean("τ ≥ ½") == "τ ≥ ½"


def test_marks_keep_columns_aligned() -> None:
    column = Column("x", ["1", "0.25"], [1.0, 0.25], "lower")
    assert column.marked == ["1 ", "0.25*"]
    assert column.width == 5


def test_no_torch() -> None:
    code = "import sys, xpo_bench.report.render.terminal, json; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    )
    assert not {"torch", "transformers", "datasets", "statsmodels", "matplotlib", "pandas"} & set(loaded)


# --------------------------------------------------------------------------- language models


def text_cells(
    record: Make, task: str = "ukp", algorithms: str = "dpo ipo kto", **more: float
) -> list[dict[str, Any]]:
    """Runs on text pairs of which the longer completion wins 72 %."""
    return [
        record(
            a,
            task,
            s,
            data={"kind": "pairs", "heldout": 64},
            reward_accuracy=0.8 + 0.01 * i,
            longer_accuracy=0.7 + 0.01 * s,
            accuracy_lc=0.55 + 0.01 * i,
            heldout_reward_accuracy=0.6 + 0.01 * i,
            heldout_longer_accuracy=0.72,
            heldout_accuracy_lc=0.5 + 0.01 * i,
            kl=0.5,
            pairs_per_s=30.0 + i,
            tokens_per_s=30000.0 + i,
            overhead=1.5 + 0.1 * i,
            prepare_s=0.5 + i,
            peak_memory_mb=600.0 + i,
            total_flops=3.1e12 * (1 + i),
            **more,
        )
        for i, a in enumerate(algorithms.split())
        for s in range(3)
    ]


def part(text: str, title: str) -> list[str]:
    """The lines from a title to the next, which stands at the margin behind a blank line, outside a table."""
    lines = text.splitlines()
    start = next(i for i, x in enumerate(lines) if x.startswith(title))
    ends = [
        i
        for i in range(start + 1, len(lines))
        if lines[i].split(":")[0] in ("ukp", "tofu (unlearning)", "tofu", "gold_text")
    ]
    ends += [i for i in range(start + 1, len(lines)) if lines[i].startswith("What the numbers show")]
    return lines[start : min(ends, default=len(lines))]


def test_the_longer_completion_is_a_row_that_never_competes(record: Make, printed: Printed) -> None:
    text = printed(print_run, text_cells(record), width=120)
    table = part(text, "ukp: adam")
    rows = [x for x in table if x.startswith("always longer  ")]
    assert len(rows) == 1
    # lr, held out, length-controlled, kl, training pairs, length-controlled: what the rule has no number for
    # is absent
    assert rows[0].removeprefix("always longer").split() == ["–", "0.72", "–", "–", "0.71±0.025", "–"]
    assert "0.72*" not in text  # higher than any held-out accuracy, and no algorithm
    assert "0.62*" in next(
        x for x in table if x.startswith("kto")
    )  # the best of the algorithms is marked as such
    assert "accuracy_lc" in "".join(table)
    assert text.count("always longer  ") == 1  # neither on the scoreboard nor among the costs
    assert "always longer: the rule that prefers the completion with more tokens" in text


def test_the_row_stands_only_where_it_has_a_number(record: Make, printed: Printed) -> None:
    cells = text_cells(
        record, collapsed=0.0, rejected_drift=0.0, rejected_prob=0.1, displacement=-0.5, calibration_error=0.1
    )
    text = printed(print_run, cells, width=60)
    assert max(map(len, text.splitlines())) <= 60
    table = part(text, "ukp: adam")
    rows = [x for x in table if x.startswith("always longer  ")]
    assert all("0.7" in x for x in rows)
    assert 0 < len(rows) < sum(x.startswith("──") for x in table)
    level = [
        record(a, s, reward_accuracy=0.5, heldout_reward_accuracy=0.5)
        for a in ("dpo", "ipo")
        for s in ("bandit", "travel")
    ]
    assert "always longer" not in printed(print_run, level)


def test_costs_of_language_models_stand_apart(record: Make, printed: Printed) -> None:
    text = printed(print_run, text_cells(record), width=120)
    assert "pairs_per_s" not in "".join(part(text, "ukp: adam"))
    cost = part(text, "ukp: cost")
    for name in ("pairs_per_s", "tokens_per_s", "overhead", "prepare_s", "peak_memory_mb", "total_flops"):
        assert name.removesuffix("mb") in "".join(cost)
    assert next(x for x in cost if x.startswith("dpo")).split() == [
        "dpo",
        "30",
        "30000",
        "1.5*",
        "0.5*",
        "600",
        "3.1",
        "T*",
    ]
    assert "cost" not in printed(print_run, [record(pairs_per_s=10.0), record("ipo", pairs_per_s=20.0)])


def test_memory_of_a_process_is_no_comparison(record: Make, printed: Printed) -> None:
    """Resident memory holds libraries and whatever ran before; that of an accelerator is the algorithm's."""
    host = [record(a, peak_memory_mb=m) for a, m in (("dpo", 600.0), ("ipo", 700.0))]
    assert "600*" not in printed(print_run, host)
    device = [record(a, peak_memory_mb=m, device="cuda") for a, m in (("dpo", 600.0), ("ipo", 700.0))]
    assert "600*" in printed(print_run, device)


def test_gold_columns(record: Make, printed: Printed) -> None:
    cells = text_cells(record, "gold_text", gold_reward=1.5, gold_gain=0.5, win_rate=0.6, sample_length=40.0)
    lines = part(printed(print_run, cells, width=200), "gold_text: adam")
    header = " ".join(lines[1:4])
    for name in ("gold_reward", "gold_gain", "win_rate", "length"):
        assert name in header
    assert "gold_gain" not in printed(print_run, text_cells(record), width=200)


# --------------------------------------------------------------------------- unlearning


def unlearning_cells(record: Make, kind: str = "forget_retain", task: str = "tofu") -> list[dict[str, Any]]:
    return [
        record(
            a,
            task,
            s,
            data={"kind": kind},
            forget_logp=-900.0 + s,
            forget_token_logp=-5.5,
            forget_change=-20.0 - i,
            retain_logp=-800.0,
            retain_token_logp=-5.4,
            retain_change=-19.0 - i,
            chosen_logp=-800.0,
            rejected_logp=-900.0,
            displacement=-19.0,
            rejected_prob=0.004,
            kl=0.1,
            collapsed=0.0,
            rejected_drift=-3.0,
            overhead=1.0 + i,
            pairs_per_s=10.0,
        )
        for i, a in enumerate(("kto", "npo"))
        for s in range(3)
    ]


def test_forget_and_retain_have_their_own_table(record: Make, printed: Printed) -> None:
    text = printed(print_run, unlearning_cells(record), width=200)
    assert "Scoreboard" not in text
    table = part(text, "tofu (unlearning): adam, 2000 steps, 3 seeds")
    header = "".join("".join(table[1:4]).split())
    assert header.count("forget_") == 3
    assert header.count("retain_") == 3
    npo = next(x for x in table if x.startswith("npo")).split()
    assert npo[4:] == ["-899±2.5", "-5.5", "-21", "-800", "-5.4", "-20", "0.1", "0", "-3"]
    assert "accuracy" not in text
    assert "displacement" not in text
    assert "-20*" not in text  # what is forgotten is read against what is retained
    assert "tofu: cost" in text
    assert max(map(len, printed(print_run, unlearning_cells(record), width=80).splitlines())) <= 80


def test_forget_and_retain_stay_off_the_scoreboard_of_preferences(record: Make, printed: Printed) -> None:
    pairs = [
        record(a, "bandit", s, kl=1.0 + s, reward_accuracy=0.9) for a in ("dpo", "npo") for s in range(3)
    ]
    board = printed(print_run, [*pairs, *unlearning_cells(record)]).split("bandit: adam")[0]
    assert "tofu" not in board
    assert "kto" not in board
    assert "npo" in board


def test_unpaired_preferences_are_not_unlearning(record: Make, printed: Printed) -> None:
    text = printed(print_run, unlearning_cells(record, "singles", "tulu_unpaired"), width=200)
    assert "tulu_unpaired: adam" in text
    assert "Scoreboard" in text
    assert "forget" not in text
    assert "unlearning" not in text


def test_a_regret_that_cannot_be_is_explained(record: Make, printed: Printed) -> None:
    known = [record("dpo", "bandit", seed, regret=0.1, kl=1.0) for seed in range(2)]
    without = [record("simpo", "bandit", seed, kl=1.0) for seed in range(2)]
    said = "regret: – where an algorithm names no strength of its KL"
    assert said in printed(print_run, known + without)
    assert said not in printed(print_run, known)
    assert said not in printed(print_run, without)  # nor is there such a column
