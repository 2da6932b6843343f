"""Two processes by a launcher: their steps are those of one, and the callback waits for nobody."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import environment
from trl import DPOConfig
from trl_two_processes import ROWS
from trl_words import hub_rows, quiet_options, saved_model

from xpo_bench.integrations.trl import PreferenceTrainer

HELPERS = Path(__file__).parents[1] / "helpers"
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # between TRL and transformers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    saved_model(folder / "model")
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """What each of the two processes has to say."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(HELPERS / "trl_two_processes.py"), str(folder)],
        env=environment({"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def losses(log: list[dict[str, Any]]) -> list[float]:
    return [entry["loss"] for entry in log if "loss" in entry]


def own(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in log if "displacement" in entry]


@pytest.mark.parametrize(("name", "rows"), [("bco", 4), ("bco accumulated", 8)])
def test_two_processes_make_the_steps_of_one(
    found: list[dict[str, Any]], folder: Path, name: str, rows: int
) -> None:
    """A loss that carries a state and reads the totals of the step, in 2 × 2 (× 2) rows and in one batch."""
    options = quiet_options(folder / "one", learning_rate=3e-3, per_device_train_batch_size=rows)
    alone = PreferenceTrainer(
        model=str(folder / "model"),
        args=DPOConfig(**options),
        train_dataset=hub_rows(ROWS),
        algorithm="bco",
        beta=0.5,
    )
    alone.train()
    assert losses(found[0][name]["log"]) == pytest.approx(losses(alone.state.log_history), rel=1e-4)
    state = {key: float(value) for key, value in alone.progress.state_now.items()}
    assert found[0][name]["state"] == pytest.approx(state, rel=1e-4)
    assert found[1][name]["state"] == found[0][name]["state"]


def test_both_hold_the_same_weights(found: list[dict[str, Any]]) -> None:
    for name in found[0]:
        assert found[0][name]["weights"] == found[1][name]["weights"], name
        assert found[0][name]["steps"] == found[1][name]["steps"], name


def test_the_first_process_alone_evaluates(found: list[dict[str, Any]]) -> None:
    assert [entry["step"] for entry in own(found[0]["kto"]["log"])] == [0, 2, 4, 6]
    assert not own(found[1]["kto"]["log"])
    assert (found[0]["kto"]["measured"], found[1]["kto"]["measured"]) == (4, 0)


def test_training_is_the_same_to_the_bit(found: list[dict[str, Any]]) -> None:
    watched, plain = found[0]["dpo"], found[0]["dpo unwatched"]
    assert (watched["weights"], watched["first"]) == (plain["weights"], plain["first"])
    assert losses(watched["log"]) == losses(plain["log"])


def test_both_stop_at_a_budget_of_kl(found: list[dict[str, Any]]) -> None:
    assert found[0]["stopped"]["steps"] == found[1]["stopped"]["steps"] < 120
    last = own(found[0]["stopped"]["log"])[-1]
    assert last["kl"] - 2 * last["kl_se"] > 0.5
