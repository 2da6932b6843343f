"""--target-kl: the search ends where the closed form says, and tells what cannot be reached."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


@pytest.fixture
def one_pair(tmp_path: Path) -> list[str]:
    """Two actions, the first of them always preferred, from a uniform reference."""
    (tmp_path / "d.jsonl").write_text(
        json.dumps({"prompt": "x", "chosen": "a", "rejected": "b"}) + "\n", "utf-8"
    )
    return ["--data", "d.jsonl", "--model", "tabular", "--seeds", "1", "--steps", "1000", "--out", "r"]


def two_action_kl(tau: float) -> float:
    """KL from uniform of IPO's optimum π(w) = σ(1/(2τ))."""
    p = 1 / (1 + math.exp(-1 / (2 * tau)))
    return p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))


def test_the_value_is_the_closed_form_s(warm: Command, one_pair: list[str]) -> None:
    done = warm("run", "--algos", "ipo", "--target-kl", "0.2", *one_pair, "--json")
    assert done.code == 0, done.err
    (found,) = done.json["targets"]
    assert (found["algorithm"], found["field"], found["reason"]) == ("ipo", "tau", None)
    assert two_action_kl(found["value"]) == pytest.approx(0.2, rel=0.03)
    (cell,) = done.json["cells"]  # what was tried on the way is not asked for
    assert cell["algorithm"]["config"]["tau"] == found["value"]
    assert cell["experiment"] == "kl=0.2"
    assert cell["metrics"]["kl"] == pytest.approx(0.2, rel=0.02)
    shown = warm("show", "r")
    assert "kl=0.2" in shown.out
    assert "search" not in shown.out
    again = warm("run", "--algos", "ipo", "--target-kl", "0.2", *one_pair, "--json")
    assert again.json == done.json  # nothing was computed again


def test_what_never_settles_is_said_to_be_out_of_reach(warm: Command, one_pair: list[str]) -> None:
    """On a certain preference DPO's margin grows as long as it trains: no β holds it at a distance."""
    done = warm("run", "--algos", "dpo,sft", "--target-kl", "0.2", *one_pair, "--json")
    assert done.code == 1  # zero cells measured is never 0
    reasons = {t["algorithm"]: t["reason"] for t in done.json["targets"]}
    assert reasons["sft"] == "declares no regulariser"
    assert "is still changing; more --steps" in reasons["dpo"]
    told = warm("run", "--algos", "dpo", "--target-kl", "0.2", *one_pair)
    assert "dpo on d: not converged in this budget" in " ".join(told.out.split())


def test_a_distance_that_the_world_does_not_have(warm: Command, one_pair: list[str]) -> None:
    done = warm(
        "run", "--algos", "ipo", "--target-kl", "0.8", *one_pair, "--json"
    )  # ln 2 = .69 is the farthest
    (found,) = done.json["targets"]
    assert found["value"] is None
    assert found["reason"].startswith("cannot be reached: KL stays between")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target-kl", "0"], "--target-kl 0: want a KL in nats above 0, such as 1"),
        (["--target-kl", "1", "--set", "ipo.tau=0.1"], "--target-kl chooses ipo.tau; leave it out of --set"),
        (
            ["--target-kl", "1", "--set", "task.lr=0.1,0.2"],
            "--target-kl searches at one setting: give task.lr one value",
        ),
    ],
)
def test_bad_words(warm: Command, one_pair: list[str], words: list[str], message: str) -> None:
    done = warm("run", "--algos", "ipo", *one_pair, *words)
    assert done.code == 2
    assert done.lines[-1] == f"xpo-bench: {message}"
