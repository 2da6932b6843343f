"""Splits, label noise and fingerprints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpo_bench.contract.examples import Dataset, Pair, Single, World
from xpo_bench.contract.settings import DataSpec
from xpo_bench.data.dataset import fingerprint, load_dataset
from xpo_bench.data.labels import flip_labels
from xpo_bench.errors import DataError


def load(
    tmp_path: Path, rows: list[dict[str, Any]], heldout: float = 0.0, seed: int = 0, **options: Any
) -> Dataset:
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_dataset(DataSpec(source=str(path), **options), heldout, np.random.default_rng(seed))


def rows(n: int, **columns: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"x{i}", "chosen": "a", "rejected": f"b{i}", **columns} for i in range(n)]


def test_nothing_is_held_out_unasked(tmp_path: Path) -> None:
    dataset = load(tmp_path, rows(10))
    assert (len(dataset.train), dataset.heldout) == (10, ())


def test_a_share_is_held_out_by_the_generator(tmp_path: Path) -> None:
    first, again, other = (load(tmp_path, rows(40), 0.25, seed) for seed in (0, 0, 1))
    assert (len(first.train), len(first.heldout)) == (30, 10)
    assert first == again
    assert first.heldout != other.heldout
    assert set(first.train) | set(first.heldout) == set(other.train) | set(other.heldout)
    assert list(first.train) == sorted(first.train, key=lambda e: int(e.prompt[1:])), "file order is kept"


def test_some_row_is_left_on_either_side(tmp_path: Path) -> None:
    for share in (0.01, 0.99):
        dataset = load(tmp_path, rows(3), share)
        assert dataset.train
        assert dataset.heldout
    with pytest.raises(DataError, match="1 row cannot be divided"):
        load(tmp_path, rows(1), 0.5)


@pytest.mark.parametrize("value", ["test", "validation", "heldout", "dev", "eval", "TEST"])
def test_the_split_column_decides(tmp_path: Path, value: str) -> None:
    mixed = rows(6, split="train") + rows(2, split=value)
    dataset = load(tmp_path, mixed)
    assert (len(dataset.train), len(dataset.heldout)) == (6, 2)
    with pytest.raises(
        DataError, match=r"--heldout 0\.5, but the split of the set holds out 2 of its 8 rows"
    ):
        load(tmp_path, mixed, 0.5)


def test_a_split_column_that_holds_nothing_out(tmp_path: Path) -> None:
    assert len(load(tmp_path, rows(8, split="train"), 0.25).heldout) == 2
    with pytest.raises(DataError, match="every row is held out"):
        load(tmp_path, rows(3, split="test"))


def test_ties_are_kept(tmp_path: Path) -> None:
    dataset = load(tmp_path, rows(2, p_chosen=0.5))
    assert [e.p_chosen for e in dataset.train if isinstance(e, Pair)] == [0.5, 0.5]


def test_actions_come_from_heldout_rows_too(tmp_path: Path) -> None:
    data = [
        {"prompt": "x", "chosen": "a", "rejected": "b", "split": "train"},
        {"prompt": "x", "chosen": "c", "rejected": "a", "split": "test"},
        {"prompt": "y", "chosen": "d", "rejected": "e", "split": "test"},
    ]
    dataset = load(tmp_path, data)
    assert dataset.world == World(actions={"x": ("a", "b", "c"), "y": ("d", "e")})


def test_world_file(tmp_path: Path) -> None:
    (tmp_path / "w.json").write_text(json.dumps({"x0": {"reward": {"z": 2, "b0": 1, "a": 0}}}))
    dataset = load(tmp_path, rows(1), world=str(tmp_path / "w.json"))
    assert dataset.world is not None
    assert dataset.world.actions == {"x0": ("z", "b0", "a")}


# --------------------------------------------------------------------------- label noise

EXAMPLES = [Pair(f"x{i}", "a", "b", 0.75, "s") for i in range(2000)]


def test_flips() -> None:
    assert flip_labels(
        [Pair("x", "a", "b", 0.75, "s"), Pair("x", "a", "b")], 1.0, np.random.default_rng(0)
    ) == [
        Pair("x", "b", "a", 0.25, "s"),
        Pair("x", "b", "a"),
    ]
    (single,) = flip_labels([Single("x", "a", True, "s", {"z": 1.0})], 1.0, np.random.default_rng(0))
    assert single == Single("x", "a", False, "s", {"z": 1.0})


def test_flip_rate_and_coupling() -> None:
    few, again, many = (flip_labels(EXAMPLES, p, np.random.default_rng(7)) for p in (0.1, 0.1, 0.3))
    assert few == again
    flipped = [{i for i, e in enumerate(out) if e != EXAMPLES[i]} for out in (few, many)]
    assert len(flipped[0]) / 2000 == pytest.approx(0.1, abs=0.03)
    assert len(flipped[1]) / 2000 == pytest.approx(0.3, abs=0.04)
    assert flipped[0] <= flipped[1]
    assert flip_labels(EXAMPLES, 0.0, np.random.default_rng(7)) == EXAMPLES


# --------------------------------------------------------------------------- fingerprint

BASE = Dataset(
    train=(Pair("x", "a", "b", 0.75), Pair("x", "b", "c")),
    heldout=(Pair("x", "a", "c"),),
    world=World(actions={"x": ("a", "b", "c")}, reference={"x": {"a": 0.5, "b": 0.25, "c": 0.25}}, reward={}),
)


FINGERPRINT = "302f72fd4387d8cc2aee427b1215075c"


def test_fingerprint_is_stable() -> None:
    assert fingerprint(BASE) == FINGERPRINT
    assert fingerprint(replace(BASE, source="elsewhere", rows=9, dropped={"empty prompt": 1})) == FINGERPRINT


def changed(**world: Any) -> Dataset:
    assert BASE.world is not None
    return replace(BASE, world=replace(BASE.world, **world))


@pytest.mark.parametrize(
    "other",
    [
        replace(BASE, train=BASE.train[::-1]),
        replace(BASE, train=BASE.train[:1]),
        replace(BASE, train=(*BASE.train, *BASE.heldout), heldout=()),
        replace(BASE, train=(Pair("x", "b", "a", 0.75), BASE.train[1])),
        replace(BASE, train=(Pair("x", "a", "b", 0.8), BASE.train[1])),
        replace(BASE, train=(Pair("x", "a", "b"), BASE.train[1])),
        replace(BASE, train=(Pair("x", "a", "b", 0.75, "s"), BASE.train[1])),
        replace(BASE, train=(Single("x", "a", True), Single("x", "b", False)), kind="singles"),
        replace(
            BASE, train=(Single("x", "a", True, None, {"z": 1.0}), Single("x", "b", False)), kind="singles"
        ),
        replace(BASE, kind="forget_retain"),
        replace(BASE, world=None),
        changed(actions={"x": ("b", "a", "c")}),
        changed(reference={"x": {"a": 0.25, "b": 0.5, "c": 0.25}}),
        changed(reward={"x": {"a": 0.0, "b": 0.0, "c": 0.0}}),
    ],
)
def test_fingerprint_sees_every_change(other: Dataset) -> None:
    assert fingerprint(other) != fingerprint(BASE)


def test_fields_do_not_run_together() -> None:
    one, two = (Dataset(train=(Pair("x", *texts),)) for texts in (("a,b", "c"), ("a", "b,c")))
    assert fingerprint(one) != fingerprint(two)
