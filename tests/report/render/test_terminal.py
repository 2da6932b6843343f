"""A report on a terminal: readable at every width, and nothing from a record is interpreted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from reports import print_run

Make = Callable[..., dict[str, Any]]
Printed = Callable[..., str]
ALGOS = "dpo ipo cdpo robust cpo simpo kto npo orpo sdpo rso dpop slic sft rlhf ppo".split()  # noqa: SIM905
TASKS = ("bandit", "deterministic", "overfit_pair", "travel")


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
                    metrics |= {"attained_1": 0.987 - 0.1 * i + 0.001 * seed, "attained": 0.5}
                if task == "travel":
                    metrics["heldout_reward_accuracy"] = 0.8 + 0.001 * i + 0.01 * seed
                    metrics["heldout_accuracy_at_1"] = 0.8 + 0.001 * i + 0.01 * (seed * i % 5)
                state = {"rejected_state": "collapsed" if i % 2 else "converged"}
                cells.append(record(algorithm, task, seed, notes=state, **metrics))
    return cells


@pytest.mark.parametrize("width", [80, 100, 200])
def test_fits(suite: list[dict[str, Any]], printed: Printed, width: int) -> None:
    skipped = [{"algorithm": "dpo", "task": "forget", "reason": "needs pairs"}]
    text = printed(print_run, suite, skipped=skipped, width=width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text  # nothing was cut
    for task in TASKS:
        assert f"{task}: adam, 2000 steps, 3 seeds" in text
    # the answer opens the report: a line per algorithm, none broken in two, the best one first
    assert lines[0].strip() == "Which algorithm? 4 tasks, 3 seeds, within 1 nat of KL"
    rows = lines[next(i for i, x in enumerate(lines) if x.startswith("──")) + 1 :][: len(ALGOS)]
    assert sorted(row.split()[0] for row in rows) == sorted(ALGOS)
    assert rows[0].split()[:3] == ["dpo", ".99", "best"]
    assert all(("stops" in row) != ("collapses" in row) for row in rows)


def test_few_algorithms_stand_side_by_side_where_they_fit(
    suite: list[dict[str, Any]], printed: Printed
) -> None:
    few = [r for r in suite if r["algorithm"]["name"] in ALGOS[:3]]
    wide, slim = (printed(print_run, few, width=width).splitlines() for width in (110, 70))
    assert wide[1].split() == ["task", "data", "dpo", "cdpo", "ipo", "unit"]
    assert slim[1].split() == ["bandit", "deterministic", "overfit_pair", "travel"]
    assert [line.split()[0] for line in slim[4:7]] == ["dpo", "cdpo", "ipo"]
    assert max(map(len, slim)) <= 70


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


def test_no_torch() -> None:
    code = "import sys, xpo_bench.report.render.terminal, json; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    )
    assert not {"torch", "transformers", "datasets", "statsmodels", "matplotlib", "pandas"} & set(loaded)
