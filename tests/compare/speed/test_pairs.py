"""Pairs of processes, driven over pipes: stand-ins that answer at once, well and badly."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from xpo_bench.compare.speed.installations import Installation, look
from xpo_bench.compare.speed.pairs import NAMES, Protocol, Side, Undecided, measure
from xpo_bench.compare.speed.rule import RatioDocument, measure_ratios
from xpo_bench.errors import UsageError

Fake = Callable[..., Path]
CELL = ("dpo", "table")


def installations(old: Path, new: Path) -> dict[Side, Installation]:
    found: dict[Side, Installation] = {}
    for name, path in zip(NAMES, (old, new), strict=True):
        installation = look(str(path))
        assert isinstance(installation, Installation)
        found[name] = installation
    return found


def judged(old: Path, new: Path, seed: int = 0, **protocol: Any) -> RatioDocument:
    return measure_ratios(installations(old, new), ["dpo"], ["table"], Protocol(**protocol), seed)


def log(folder: Path) -> list[list[str]]:
    return [line.split() for line in (folder / "asked.log").read_text("utf-8").splitlines()]


def test_blocks_alternate_between_two_live_processes(fake: Fake, tmp_path: Path) -> None:
    found, installed = measure(installations(fake("old"), fake("new")), [CELL], Protocol(), random.Random(0))
    blocks = [name for name, _, event in log(tmp_path) if event == "block"]
    assert len(blocks) == 24
    assert all(a != b for a, b in pairwise(blocks))
    assert blocks[0] == found[CELL]["began"]
    assert len(found[CELL]["old"]) == len(found[CELL]["new"]) == 12
    assert len({pid for _, pid, _ in log(tmp_path)}) == 2
    assert installed["old"]["xpo-bench"] == "0.1.0"


def test_pairs_are_new_and_their_order_is_drawn(fake: Fake, tmp_path: Path) -> None:
    document = judged(fake("old"), fake("new"))
    events = log(tmp_path)
    assert len({pid for _, pid, _ in events}) == 16
    assert {pair["began"] for pair in document["rows"][0]["pairs"]} == {"old", "new"}
    assert (
        len(
            {pair["began"] for pair in judged(tmp_path / "old", tmp_path / "new", seed=0)["rows"][0]["pairs"]}
        )
        == 2
    )


def test_order_follows_the_seed(fake: Fake) -> None:
    old, new = fake("old"), fake("new")
    order = [
        [pair["began"] for pair in judged(old, new, seed=seed)["rows"][0]["pairs"]] for seed in (5, 5, 6)
    ]
    assert order[0] == order[1] != order[2]


def test_every_pair_measures_every_cell(fake: Fake) -> None:
    found, _ = measure(
        installations(fake("old"), fake("new")),
        [(a, w) for a in ("dpo", "ipo") for w in ("table", "language")],
        Protocol(blocks=3),
        random.Random(1),
    )
    assert len(found) == 4
    assert all(len(cell["new"]) == 3 for cell in found.values())


def test_equal_sides_pass(fake: Fake) -> None:
    row = judged(fake("old", noise=0.03, process_noise=0.01), fake("new", noise=0.03, process_noise=0.01))[
        "rows"
    ][0]
    assert row["verdict"] == "pass"
    assert row["confirmation"] is None
    assert row["test"]["pairs"] == 8
    assert 1.05 <= row["test"]["detectable"] < 1.25


def test_a_slower_side_is_confirmed_in_new_pairs(fake: Fake, tmp_path: Path) -> None:
    document = judged(
        fake("old", noise=0.03, process_noise=0.01),
        fake("new", step_s=1.15e-3, noise=0.03, process_noise=0.01),
    )
    row = document["rows"][0]
    assert document["verdict"] == row["verdict"] == "regression"
    assert row["test"]["estimate"] == pytest.approx(1.15, abs=0.04)
    assert row["confirmation"] is not None
    assert row["confirmation"]["lower"] > 1
    assert len({pid for _, pid, _ in log(tmp_path)}) == 32
    assert row["step_s"]["new"] / row["step_s"]["old"] == pytest.approx(1.15, abs=0.05)


def test_only_a_candidate_regression_is_replicated(fake: Fake, tmp_path: Path) -> None:
    document = measure_ratios(
        installations(fake("old"), fake("new", step_s=0.8e-3)), ["dpo", "ipo"], ["table"], Protocol(), 0
    )
    assert [row["verdict"] for row in document["rows"]] == ["improvement"] * 2
    assert document["verdict"] == "pass"
    assert document["comparisons"] == 2
    assert len({pid for _, pid, _ in log(tmp_path)}) == 16


def test_noisy_processes_decide_nothing(fake: Fake) -> None:
    document = judged(fake("old", process_noise=0.5), fake("new", step_s=2e-3, process_noise=0.5))
    assert document["verdict"] == "inconclusive"
    assert document["rows"][0]["test"]["detectable"] > 1.25


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("exits", "NEW .*ended with status 7: out of luck"),
        ("killed", "NEW .*was ended by SIGKILL"),
        ("garbage", "NEW .*answers 'Loading weights: 100%'"),
        ("no number", "NEW .*a block of 3 steps, fast s"),
        ("no time", "NEW .*a block of 3 steps, 0.0 s"),
    ],
)
def test_a_process_that_fails_leaves_no_verdict(fake: Fake, tmp_path: Path, fault: str, said: str) -> None:
    with pytest.raises(Undecided, match=said):
        judged(fake("old"), fake("new", fault=fault))
    assert not alive(tmp_path)


def test_a_process_that_hangs_is_given_up(fake: Fake, tmp_path: Path) -> None:
    with pytest.raises(Undecided, match=r"OLD .*no answer for 1 s"):
        judged(fake("old", fault="hangs"), fake("new"), patience_s=1.0)
    assert not alive(tmp_path)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no import", "OLD .*No module named 'xpo_bench' .*must have xpo_bench installed"),
        ("refuses", r"OLD .*has no algorithm 'dpo' \(known: none\) \(dpo on table\)"),
    ],
)
def test_a_side_that_cannot_is_named(fake: Fake, tmp_path: Path, fault: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        judged(fake("old", fault=fault), fake("new"))
    assert not alive(tmp_path)


def alive(folder: Path) -> list[str]:
    """Processes that were started and are still there."""
    return [pid for pid in {pid for _, pid, _ in log(folder)} if exists(int(pid))]


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
