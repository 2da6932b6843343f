"""The actions of prompts, and the side file with reference and reward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from xpo_bench.contract.examples import Pair, Single, World
from xpo_bench.data.world_file import SIZE_LIMIT, world_of
from xpo_bench.errors import DataError

DATA = (Pair("x", "b", "a"), Pair("x", "a", "c"), Single("y", "d", True))
X = {"reference": {"a": 0.4, "b": 0.5, "c": 0.1}, "reward": {"a": 1, "b": 0.3, "c": -2.0}}
Y = {"reference": {"d": 0.25, "e": 0.75}, "reward": {"d": 0.0, "e": 1.0}}


def world(tmp_path: Path, content: Any) -> World:
    path = tmp_path / "w.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return world_of(DATA, path)


def test_actions_in_order_of_first_appearance() -> None:
    assert world_of(DATA) == World(actions={"x": ("b", "a", "c"), "y": ("d",)})


def test_keys_of_the_side_file_are_the_actions(tmp_path: Path) -> None:
    found = world(tmp_path, {"x": X, "y": Y, "elsewhere": Y})
    assert found.actions == {"x": ("a", "b", "c"), "y": ("d", "e")}
    assert found.reference == {"x": X["reference"], "y": Y["reference"]}
    assert found.reward == {"x": X["reward"], "y": Y["reward"]}


def test_both_tables_are_optional(tmp_path: Path) -> None:
    found = world(tmp_path, {"x": {"reference": X["reference"]}})
    assert found.actions == {"x": ("a", "b", "c"), "y": ("d",)}
    assert (found.reference, found.reward) == ({"x": X["reference"]}, {})
    found = world(tmp_path, {"x": {"reward": X["reward"]}, "y": {"reward": Y["reward"]}})
    assert found.reference == {}
    assert found.reward["y"] == Y["reward"]


def test_reference_sums_to_one_within_tolerance(tmp_path: Path) -> None:
    near = {"a": 0.4, "b": 0.5, "c": 0.1 + 9e-7}
    assert world(tmp_path, {"x": {"reference": near}}).reference["x"] == near
    with pytest.raises(DataError, match=r"prompt 'x': reference sums to 1\.00001\d*; want 1 within 1e-06"):
        world(tmp_path, {"x": {"reference": {**near, "c": 0.10001}}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "want an object"),
        ("{}", "want an object"),
        ('{"x": ', "malformed JSON at line 1 column"),
        ("[" * 100_000, "malformed JSON"),
        ('{"x": {"reward": {"a": 1, "a": 2}}}', "'a' is given twice"),
        ({"x": [1]}, "prompt 'x': want an object with"),
        ({"x": {}}, "prompt 'x': want an object with"),
        ({"x": {"rewards": {"a": 1}}}, "unknown table 'rewards'; did you mean 'reward'?"),
        ({"x": {"reward": {}}}, "prompt 'x': reward: want an object {completion: number}"),
        ({"x": {"reward": [1, 2]}}, "prompt 'x': reward: want an object {completion: number}"),
        ({"x": {"reward": {"a": "high"}}}, "reward of 'a' is 'high'; want a finite number"),
        ({"x": {"reward": {"a": True}}}, "reward of 'a' is True; want a finite number"),
        ('{"x": {"reward": {"a": NaN}}}', "reward of 'a' is nan; want a finite number"),
        ('{"x": {"reward": {"a": 1e999}}}', "reward of 'a' is inf; want a finite number"),
        ({"x": {"reward": {"a": 10**400}}}, "want a finite number"),
        ({"x": {"reward": {"": 1}}}, "empty completion"),
        ({"x": {"reference": {"a": 1.0, "b": 0}}}, "reference of 'b' is 0; want a probability above 0"),
        ({"x": {"reference": {"a": 1.5, "b": -0.5}}}, "reference of 'b' is -0.5; want a probability above 0"),
        ({"x": {"reference": {"a": 0.5, "b": 0.4}}}, "reference sums to 0.9; want 1 within 1e-06"),
        (
            {"x": {**X, "reward": {"a": 1, "b": 2}}},
            "reward lacks 'c'; want the same completions in reference and reward",
        ),
        ({"x": {**X, "reward": {**X["reward"], "d": 2}}}, "reference lacks 'd'; want the same completions"),
        ({"x": {"reward": {"a": 1, "b": 2}}}, "prompt 'x' lacks the completion 'c' of the data"),
        ({"z": X}, "names no prompt of the data; want the data's own prompts, such as 'x'"),
        ({"x": X}, "prompt 'y' has no reward while others have"),
    ],
)
def test_wrong_side_files(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        world(tmp_path, content)
    line = str(caught.value)
    assert line.startswith(str(tmp_path / "w.json"))
    assert message in line
    assert "\n" not in line


def test_unreadable_side_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such world file"):
        world_of(DATA, tmp_path / "absent.json")
    with pytest.raises(DataError, match="cannot be read"):
        world_of(DATA, tmp_path)
    (tmp_path / "latin.json").write_bytes(b'{"\xff": {}}')
    with pytest.raises(DataError, match="not UTF-8 text"):
        world_of(DATA, tmp_path / "latin.json")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(SIZE_LIMIT + 1)
    with pytest.raises(DataError, match="larger than 64 MB"):
        world_of(DATA, tmp_path / "large.json")
