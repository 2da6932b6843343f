"""A metric as a column: its cells, and which rows are marked as best of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from reports import store_items

from xpo_bench.report.items import item_reader, no_items
from xpo_bench.report.runs import SeedGroup, group
from xpo_bench.report.tables.columns import best_rows, metric_column

Make = Callable[..., dict[str, Any]]
SPREAD = (-0.01, 0.0, 0.01)


def rows(record: Make, metric: str, means: dict[str, float], **more: Any) -> list[SeedGroup]:
    """Algorithms at their means, whose seeds scatter by a hundredth, each in an order of its own."""
    return group(
        record(a, seed=s, **{metric: mean + SPREAD[(s * (i + 1) + i) % 3]}, **more)
        for i, (a, mean) in enumerate(means.items())
        for s in range(3)
    )


def marked(groups: list[SeedGroup], metric: str) -> set[str]:
    return {g.label for g, best in zip(groups, best_rows(groups, metric, no_items), strict=True) if best}


def test_the_best_are_marked_where_others_are_behind_them(record: Make) -> None:
    apart = {"dpo": 0.1, "ipo": 0.5, "kto": 0.9}
    assert marked(rows(record, "regret", apart), "regret") == {"dpo"}  # lower is better
    assert marked(rows(record, "reward_accuracy", apart), "reward_accuracy") == {"kto"}
    assert marked(rows(record, "kl", apart), "kl") == set()  # no side is better
    two_best = {"dpo": 0.1, "ipo": 0.1001, "kto": 0.9, "npo": 1.0}
    assert marked(rows(record, "regret", two_best), "regret") == {"dpo", "ipo"}


def test_nobody_is_marked_by_luck(record: Make) -> None:
    close = {"dpo": 0.5, "ipo": 0.503, "kto": 0.506}
    assert marked(rows(record, "regret", close), "regret") == set()
    many = {f"a{i}": 0.5 for i in range(15)} | {"b": 3.0}
    assert marked(rows(record, "regret", many), "regret") == set()  # 15 of 16 are no news
    single = group(record(a, regret=v) for a, v in (("dpo", 0.1), ("ipo", 0.5)))
    assert marked(single, "regret") == set()  # one seed has no interval
    assert marked(rows(record, "regret", {"dpo": 0.1}), "regret") == set()  # a single row


def test_equal_runs_are_one_and_their_difference_exact(record: Make) -> None:
    cells = [record(a, seed=s, regret=v) for a, v in (("dpo", 0.1), ("ipo", 0.5)) for s in range(3)]
    assert marked(group(cells), "regret") == {"dpo"}
    level = [record(a, seed=s, regret=0.1) for a in ("dpo", "ipo") for s in range(3)]
    assert marked(group(level), "regret") == set()


def test_who_does_not_compete(record: Make) -> None:
    """Runs that diverged have the numbers of their last finite evaluation, and a policy that stands still has
    the lowest gap of all.
    """
    still = rows(record, "frontier_gap", {"still": 0.05}, kl=2.5e-14)
    others = rows(record, "frontier_gap", {"dpo": 0.2, "ipo": 0.5}, kl=1.0)
    lost = rows(record, "frontier_gap", {"kto": 0.1}, kl=1.0, status="diverged")
    failed = group([record("npo", status="failed", error="no")])
    without = rows(record, "regret", {"orpo": 0.0}, kl=1.0)
    assert marked([*still, *others, *lost, *failed, *without], "frontier_gap") == {"dpo"}


def test_one_run_that_is_not_ok_keeps_its_row_from_being_best(record: Make) -> None:
    groups = rows(record, "regret", {"dpo": 0.1, "ipo": 0.5, "kto": 0.9})
    lost = group(
        record("sft", seed=s, regret=0.05 + SPREAD[s], status="diverged" if s == 2 else "ok")
        for s in range(3)
    )
    assert marked([*lost, *groups], "regret") == {"dpo"}


def test_a_shared_clock_is_no_comparison(record: Make) -> None:
    means = {"dpo": 100.0, "ipo": 200.0}
    assert marked(rows(record, "pairs_per_s", means, vectorised=6), "pairs_per_s") == set()
    assert marked(rows(record, "pairs_per_s", means), "pairs_per_s") == {"ipo"}


def test_memory_of_a_process_is_no_comparison(record: Make) -> None:
    """Resident memory holds libraries and whatever ran before; that of an accelerator is the algorithm's."""
    means = {"dpo": 600.0, "ipo": 700.0}
    assert marked(rows(record, "peak_memory_mb", means), "peak_memory_mb") == set()
    assert marked(rows(record, "peak_memory_mb", means, device="cuda"), "peak_memory_mb") == {"dpo"}


def test_held_out_marks_are_tested_on_the_items(record: Make, tmp_path: Path) -> None:
    """Three equal seeds that hold out two pairs of one person say nothing; of 200 people they do."""

    def marks(people: int) -> list[bool]:
        cells = [
            record(a, seed=s, kl=1.0, heldout_reward_accuracy=v)
            for a, v in (("dpo", 0.9), ("ipo", 0.4))
            for s in range(3)
        ]
        for cell in cells:
            right = 0.9 if cell["algorithm"]["name"] == "dpo" else 0.4
            correct = [float(i < right * people) for i in range(people)]
            store_items(tmp_path, cell["key"], correct)
        return best_rows(group(cells), "heldout_reward_accuracy", item_reader(tmp_path))

    assert marks(2) == [False, False]
    assert marks(200) == [True, False]


def test_absent_and_null(record: Make) -> None:
    groups = group([record("dpo", kl=None), record("ipo", kl=1.0), record("kto")])
    column = metric_column("kl", "kl", [*groups, None])
    assert column.cells == ["–", "1", "–", "–"]


def test_censored_steps(record: Make) -> None:
    groups = group(
        record(a, seed=s, collapse_step=v)
        for a, steps in (
            ("dpo", (20.0, 50.0, None)),
            ("ipo", (20.0, 20.0, 20.0)),
            ("kto", (None, None, None)),
        )
        for s, v in enumerate(steps)
    )
    assert metric_column("", "collapse_step", groups).cells == ["50 in 2/3", "20", "–"]
