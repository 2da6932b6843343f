"""Differences are paired over the seeds and the items that both rows have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from narrow import present
from reports import store_items

from xpo_bench.report.items import ItemReader, item_reader, no_items
from xpo_bench.report.runs import SeedGroup, group
from xpo_bench.report.verdicts.paired import against_rule, always_longer, coin, difference
from xpo_bench.verdicts.differences import PairedDifference

Make = Callable[..., dict[str, Any]]
PEOPLE = 12


def two(record: Make, metric: str, values: Sequence[tuple[float, float]], **more: Any) -> list[SeedGroup]:
    """dpo and ipo, with a pair of values per seed."""
    return group(
        record(a, "travel", s, kl=1.0, **{metric: pair[i]}, **more)
        for i, a in enumerate(("dpo", "ipo"))
        for s, pair in enumerate(values)
    )


def compared(groups: list[SeedGroup], metric: str, items: ItemReader = no_items) -> PairedDifference:
    return present(difference(groups[0], groups[1], metric, items))


def test_seeds_are_paired(record: Make) -> None:
    found = compared(two(record, "attained_1", [(0.5, 0.4), (1.5, 1.41), (2.5, 2.39)]), "attained_1")
    assert found.mean == pytest.approx(0.1)
    assert (found.runs, found.items) == (3, 0)
    assert present(found.half) < 0.03  # levels that differ by 1 between seeds cancel


def test_equal_runs_are_one_whatever_a_clock_says(record: Make) -> None:
    cells = [
        record(a, seed=s, attained_1=v, pairs_per_s=100.0 + s, peak_memory_mb=10.0 * s)
        for a, v in (("dpo", 0.5), ("ipo", 0.4))
        for s in range(3)
    ]
    found = compared(group(cells), "attained_1")
    assert (found.runs, found.se, found.fixed) == (1, 0.0, True)
    cells[0]["metrics"]["gold_reward"] = 1e-9  # any other number that differs makes them two
    assert compared(group(cells), "attained_1").runs == 2


def test_a_single_seed_has_no_uncertainty_that_is_known(record: Make) -> None:
    found = compared(two(record, "attained_1", [(0.5, 0.4)]), "attained_1")
    assert (found.se, found.p, found.half) == (None, None, None)


def test_no_seed_in_common(record: Make) -> None:
    a, b = group([record("dpo", seed=0, regret=0.1), record("ipo", seed=1, regret=0.2)])
    assert difference(a, b, "regret", no_items) is None
    assert difference(a, b, "kl", no_items) is None


def outcomes(
    root: Path, groups: Sequence[SeedGroup], of: Callable[[str, int, int], float], **more: Any
) -> ItemReader:
    """Items of every cell; `of` is the outcome of an algorithm, a seed and an item."""
    for g in groups:
        for r in g.records:
            values = [of(r.algorithm.name, r.seed, i) for i in range(PEOPLE)]
            store_items(root, r.key, values, **more)
    return item_reader(root)


def test_uncertainty_of_held_out_numbers_comes_from_the_items(record: Make, tmp_path: Path) -> None:
    """Equal seeds: no spread between runs, yet 12 people are not everybody."""
    groups = two(record, "heldout_accuracy_at_1", [(0.75, 0.5)] * 3)
    items = outcomes(tmp_path, groups, lambda a, s, i: float(i % 4 > 0) if a == "dpo" else float(i % 2))
    found = compared(groups, "heldout_accuracy_at_1", items)
    assert found.mean == pytest.approx(0.25)
    assert (found.runs, found.items, found.of_runs) == (1, PEOPLE, 0.0)
    assert present(found.se) > 0.1
    assert present(found.p) > 0.05


def test_items_of_one_person_are_one_cluster(record: Make, tmp_path: Path) -> None:
    groups = two(record, "heldout_accuracy_at_1", [(0.75, 0.5)] * 3)

    def half(root: Path, cluster: list[str]) -> float:
        def of(a: str, s: int, i: int) -> float:
            return float(i // 3 > 0) if a == "dpo" else float(i // 3 % 2)

        items = outcomes(root, groups, of, cluster=cluster)
        return present(compared(groups, "heldout_accuracy_at_1", items).half)

    alone = half(tmp_path / "a", [f"person {i}" for i in range(PEOPLE)])
    shared = half(tmp_path / "b", [f"person {i // 3}" for i in range(PEOPLE)])
    assert shared > 1.5 * alone  # 4 people say less than 12


def test_items_count_at_the_budget_of_the_metric(record: Make, tmp_path: Path) -> None:
    """`correct` is at the end, `correct_at_1` where the KL first reaches 1 nat."""
    groups = two(record, "heldout_accuracy_at_1", [(0.5, 0.5)] * 2)
    for g in groups:
        for r in g.records:
            ends = [float(r.algorithm.name == "dpo")] * PEOPLE
            store_items(tmp_path, r.key, ends, at_1=[0.5] * PEOPLE)
    items = item_reader(tmp_path)
    assert compared(groups, "heldout_accuracy_at_1", items).zero
    ended = two(record, "heldout_reward_accuracy", [(1.0, 0.0)] * 2)
    assert compared(ended, "heldout_reward_accuracy", items).mean == 1.0


def test_length_is_controlled_where_both_kinds_are_held_out(record: Make, tmp_path: Path) -> None:
    """dpo is right where the chosen completion is longer, 9 items of 12; ipo where it is shorter."""
    groups = two(record, "heldout_accuracy_lc", [(0.5, 0.5)] * 2)
    longer = [1 if i < 9 else -1 for i in range(PEOPLE)]
    items = outcomes(tmp_path, groups, lambda a, s, i: float((i < 9) == (a == "dpo")), longer=longer)
    assert compared(groups, "heldout_accuracy_lc", items).mean == pytest.approx(0.0)
    plain = two(record, "heldout_reward_accuracy", [(0.75, 0.25)] * 2)
    assert compared(plain, "heldout_reward_accuracy", items).mean == pytest.approx(0.5)


def test_items_that_only_one_has_or_that_are_unknown_are_left_out(record: Make, tmp_path: Path) -> None:
    groups = two(record, "heldout_reward_accuracy", [(1.0, 0.0)] * 2)
    for g in groups:
        for r in g.records:
            dpo = r.algorithm.name == "dpo"
            store_items(tmp_path, r.key, [1.0, 1.0, None, 1.0, 1.0] if dpo else [0.0, 0.0, 0.0, 1.0])
    found = compared(groups, "heldout_reward_accuracy", item_reader(tmp_path))
    assert found.items == 3
    assert found.mean == pytest.approx(2 / 3)


def test_without_items_the_number_of_pairs_stands_in(record: Make) -> None:
    """Records that are older than items: two equal seeds are no proof, and 64 pairs say less than 6,400."""
    values = [(0.7, 0.6), (0.7, 0.6)]
    few, many = (
        compared(
            two(record, "heldout_reward_accuracy", values, data={"heldout": n}), "heldout_reward_accuracy"
        )
        for n in (64, 6400)
    )
    assert few.items == 64
    assert present(few.p) > 0.05 > present(many.p)
    unknown = compared(two(record, "heldout_reward_accuracy", values), "heldout_reward_accuracy")
    assert unknown.p is None  # nobody knows of how many


def test_rules_that_need_no_training(record: Make, tmp_path: Path) -> None:
    (g,) = group(record("dpo", "travel", s, heldout_reward_accuracy=0.75) for s in range(2))
    longer = [1] * 6 + [-1] * 3 + [0] * 3
    items = outcomes(tmp_path, [g], lambda a, s, i: float(i % 4 > 0), longer=longer)
    assert present(against_rule(g, coin, items)).mean == pytest.approx(0.25)
    # the longer completion wins 6 of 12, and a tie counts a half
    assert present(against_rule(g, always_longer, items)).mean == pytest.approx(0.75 - 7.5 / 12)
    assert against_rule(g, coin, no_items) is None
