"""--target-kl: the search ends where the closed form says, and tells what cannot be reached."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Warm

Command = Callable[..., Any]


WORDS = ["--data", "d.jsonl", "--model", "tabular", "--seeds", "1", "--steps", "1000", "--out", "r"]
FOUND = ("run", "--algos", "ipo", "--target-kl", "0.2", *WORDS)


def write(folder: Path) -> None:
    """Two actions, the first of them always preferred, from a uniform reference."""
    (folder / "d.jsonl").write_text(
        json.dumps({"prompt": "x", "chosen": "a", "rejected": "b"}) + "\n", "utf-8"
    )


@pytest.fixture
def one_pair(tmp_path: Path) -> list[str]:
    """The words of a run on it."""
    write(tmp_path)
    return WORDS


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, warm_process: Warm) -> tuple[Command, Any]:
    """`xpo-bench` in the folder where IPO was searched for, and how that command ended."""
    folder = tmp_path_factory.mktemp("searched")
    write(folder)
    command = warm_process.command(folder, {})
    return command, command(*FOUND, "--json")


def two_action_kl(tau: float) -> float:
    """KL from uniform of IPO's optimum π(w) = σ(1/(2τ))."""
    p = 1 / (1 + math.exp(-1 / (2 * tau)))
    return p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))


def test_the_value_is_the_closed_form_s(searched: tuple[Command, Any]) -> None:
    command, done = searched
    assert done.code == 0, done.err
    (found,) = done.json["targets"]
    assert (found["algorithm"], found["field"], found["reason"]) == ("ipo", "tau", None)
    assert two_action_kl(found["value"]) == pytest.approx(0.2, rel=0.03)
    (cell,) = done.json["cells"]  # what was tried on the way is not asked for
    assert cell["algorithm"]["config"]["tau"] == found["value"]
    assert cell["experiment"] == "kl=0.2"
    assert cell["metrics"]["kl"] == pytest.approx(0.2, rel=0.02)
    shown = command("show", "r")
    assert "kl=0.2" in shown.out
    assert "search" not in shown.out
    again = command(*FOUND, "--json")
    assert again.json == done.json  # nothing was computed again


def test_what_never_settles_is_taken_where_it_passes(warm: Command, one_pair: list[str]) -> None:
    """On a certain preference DPO's margin grows as long as it trains: no β holds it at a distance, and its
    row is the checkpoint at it.
    """
    done = warm("run", "--algos", "dpo,sft", "--target-kl", "0.2", *one_pair, "--json")
    assert done.code == 0, done.err
    found = {t["algorithm"]: t for t in done.json["targets"]}
    assert found["sft"]["reason"] == "declares no regulariser"
    assert "is still changing; more --steps" in found["dpo"]["reason"]
    cells = {c["algorithm"]["name"]: c for c in done.json["cells"]}
    for name, cell in cells.items():
        step = cell["checkpoint"]["step"]
        assert 0 < step < 1000
        assert cell["checkpoint"] == {"target_kl": 0.2, "step": step, "steps": 1000, "reached": True}
        assert cell["metrics"]["kl"] == pytest.approx(0.2, rel=0.1)
        # the schedule and the budget are the whole run's: it is a checkpoint, and no shorter run
        assert (cell["timing"]["steps"], cell["task"]["budget"]["steps"]) == (step, 1000)
        assert (found[name]["checkpoint"]["steps"], found[name]["checkpoint"]["of"]) == ([step], 1000)
    assert cells["dpo"]["algorithm"]["config"]["beta"] == 0.1  # as it was asked for
    again = warm("run", "--algos", "dpo,sft", "--target-kl", "0.2", *one_pair, "--json")
    assert again.json == done.json  # nothing was computed again
    step = cells["dpo"]["checkpoint"]["step"]
    told = warm("run", "--algos", "dpo,sft", "--target-kl", "0.2", *one_pair)
    for out in (told.out, warm("show", "r").out, warm("report", "r", "--md", "-", "--html", "r.html").out):
        words = " ".join(out.split())
        assert "dpo on d: not converged in this budget" in words
        assert "dpo † on d: checkpoint at KL" in words
        assert f", step {step} of 1,000, at beta 0.1; had not converged" in words
        assert words.count("dpo †") > 2  # on the first screen and in the tables
        assert words.count("sft †") > 2
    assert "dpo †" in Path("r.html").read_text("utf-8")


def test_a_settled_answer_has_the_checkpoint_beside_it(searched: tuple[Command, Any]) -> None:
    command, done = searched
    (found,) = done.json["targets"]
    assert found["value"] is not None
    passed = found["checkpoint"]
    assert (passed["value"], passed["reached"], passed["of"]) == (0.1, True, 1000)
    assert passed["kl"] == pytest.approx(0.2, rel=0.1)
    (cell,) = done.json["cells"]
    assert "checkpoint" not in cell  # the row is the run that is held there
    for out in (command(*FOUND).out, command("show", "r").out):
        table = out.split("Regularisers at the target KL")[1].split("Held:")[0]
        (row,) = (line.split() for line in table.splitlines() if line.startswith("ipo"))
        held, kl, *beside = row[3:]
        assert float(held) == pytest.approx(found["value"], rel=1e-3)
        assert float(kl) == pytest.approx(0.2, rel=0.02)
        assert beside[:2] == ["0.1", str(passed["steps"][0])]
        assert beside[3:] == ["1", "1"]  # the accuracy of both


def test_a_distance_that_the_world_does_not_have(warm: Command, one_pair: list[str]) -> None:
    done = warm(
        "run", "--algos", "ipo", "--target-kl", "0.8", *one_pair, "--json"
    )  # ln 2 = .69 is the farthest
    (found,) = done.json["targets"]
    assert found["value"] is None
    assert found["reason"].startswith("cannot be reached: KL stays between")
    (cell,) = done.json["cells"]  # its row stays, with what it came to
    assert cell["checkpoint"] == {"target_kl": 0.8, "step": 1000, "steps": 1000, "reached": False}
    shown = " ".join(warm("show", "r").out.split())
    assert f"ipo † on d: never passes the target; KL {cell['metrics']['kl']:.3g} at its end" in shown
    assert "1,000, not reached" in shown


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
