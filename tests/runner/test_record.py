"""What a cell record holds, and what becomes of algorithms that fail."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest
import torch
from narrow import present
from torch import Tensor

import xpo_bench
from xpo_bench import Step
from xpo_bench.contract.examples import World
from xpo_bench.policy.tabular import TabularPolicy
from xpo_bench.result import Result
from xpo_bench.runner.record import Record
from xpo_bench.train.budget import evaluation_steps
from xpo_bench_plugins.algorithms.dpo import DPO

Run = Callable[..., Result]

SCHEMA: Mapping[str, Any] = {
    "schema": int,
    "key": str,
    "status": str,
    "error": None,
    "algorithm": {"name": str, "config": dict, "plugin": str, "distribution": str, "version": str},
    "task": {
        "name": str,
        "version": str,
        "data": {"source": str, "fingerprint": str, "rows": int, "dropped": dict},
        "model": {"name": str},
        "budget": {
            "steps": int,
            "batch_size": int,
            "optimizer": str,
            "lr": float,
            "label_noise": float,
            "dtype": str,
        },
    },
    "seed": int,
    "experiment": None,
    "metrics": dict,
    "final_policy": dict,
    "timing": {
        "prepare_s": float,
        "train_s": float,
        "evaluate_s": float,
        "steps": int,
        "step_ms_median": float,
    },
    "environment": {"python": str, "packages": dict, "device": str},
    "created": str,
}
"""The contract's fields, and the type of each where there is a value."""


def check(value: Any, want: Any, where: str) -> None:
    if isinstance(want, Mapping):
        assert isinstance(value, dict), where
        for name, inner in want.items():
            assert name in value, f"{where}.{name}"
            check(value[name], inner, f"{where}.{name}")
    elif want is not None:
        assert isinstance(value, want), f"{where} is {value!r}"


def failing(name: str, body: Callable[[DPO, Step], Any]) -> type[DPO]:
    """DPO under another name, with another loss."""

    @dataclass(frozen=True)
    class Failing(DPO):
        def loss(self, step: Step) -> Tensor:
            loss: Tensor = body(self, step)
            return loss

    Failing.name = name
    return Failing


# --------------------------------------------------------------------------- the schema


@pytest.mark.parametrize(
    "words",
    [
        {"tasks": "deterministic", "steps": 50},
        {"tasks": "bandit", "algos": "kto", "steps": 50},
        {"tasks": "overfit_pair", "steps": 2},
    ],
    ids=str,
)
def test_every_field_of_the_contract(run: Run, words: dict[str, Any]) -> None:
    result = run(**({"algos": "dpo"} | words))
    (cell,) = result.cells
    text = cell["task"]["model"]["name"] == "tiny"
    check(cell, {**SCHEMA, **({"final_policy": None} if text else {})}, "record")
    assert cell["status"] == "ok"
    assert cell["key"] == json.loads((result.out / "cells" / f"{cell['key']}.json").read_text("utf-8"))["key"]
    assert not text or cell["final_policy"] is None
    assert all(
        v is None or (isinstance(v, int | float) and math.isfinite(v)) for v in cell["metrics"].values()
    )
    assert {"kl", "chosen_logp", "reward_accuracy", "pairs_per_s", "prepare_s"} <= set(cell["metrics"])
    if words["steps"] < 50:  # a drift needs a window
        assert "rejected_drift" not in cell["metrics"]
        assert cell["notes"]["rejected_state_reason"].startswith("a run of 2 steps")
    else:
        assert isinstance(cell["metrics"]["rejected_drift"], float)
    # what became of the rejected completions, or why nothing can be said of them
    assert ("rejected_state" in cell["notes"]) != ("rejected_state_reason" in cell["notes"])


def test_curves_have_the_step_and_every_metric_that_was_evaluated(run: Run) -> None:
    result = run(tasks="bandit", steps=50)
    (cell,) = result.cells
    table = pq.read_table(result.out / "curves" / f"{cell['key']}.parquet")
    assert table.column("step").to_pylist() == evaluation_steps(50)
    want = {
        "step",
        "loss",
        "kl",
        "kl_forward",
        "gold_reward",
        "frontier_gap",
        "regret",
        "chosen_logp",
        "rejected_logp",
        "reward_accuracy",
        "heldout_reward_accuracy",
    }
    assert want <= set(table.column_names)
    last = table.to_pylist()[-1]
    assert all(last[name] == pytest.approx(cell["metrics"][name]) for name in want - {"step", "loss"})


def test_the_final_policy_is_the_whole_table_up_to_a_limit(run: Run) -> None:
    (cell,) = run(tasks="deterministic").cells
    table = present(cell["final_policy"])
    assert set(table) == {"x"}
    assert set(table["x"]) == set("abc")
    assert sum(table["x"].values()) == pytest.approx(1)
    for entries, kept in ((4096, True), (4097, False)):
        world = World(
            actions={"x": tuple(map(str, range(4000))), "y": tuple(map(str, range(entries - 4000)))}
        )
        policy = TabularPolicy(world, 1).final_policy(0)
        assert (policy is not None) is kept
    (large,) = run(
        tasks="bandit", steps=2, set={"task.prompts": 5, "task.actions": 900, "task.coverage": 0.01}
    ).cells
    assert large["status"] == "ok"
    assert large["final_policy"] is None


def test_dropped_rows_are_counted(run: Run, tmp_path: Path) -> None:
    rows = [("a", "b"), ("c", "c"), ("a", "c")]
    path = tmp_path / "d.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": "x", "chosen": a, "rejected": b}) + "\n" for a, b in rows), "utf-8"
    )
    (cell,) = run(data=str(path), on_bad_row="skip").cells
    assert (cell["task"]["data"]["rows"], cell["task"]["data"]["dropped"]) == (
        3,
        {"chosen equals rejected": 1},
    )
    assert cell["task"]["data"]["train"] == 2


def test_the_label_of_an_experiment(run: Run) -> None:
    (cell,) = run(experiment="overfit").cells
    assert cell["experiment"] == "overfit"


def test_learning_rates_come_from_the_flag_the_setting_or_the_table(run: Run) -> None:
    result = run("dpo,ipo", lr=0.01, set={"ipo.train.lr": 0.02, "ipo.train.optimizer": "sgd"})
    assert [c["train"] for c in result.cells] == [
        {"lr": 0.01, "optimizer": "adam"},
        {"lr": 0.02, "optimizer": "sgd"},
    ]


# --------------------------------------------------------------------------- algorithms that fail


def raise_(error: Exception) -> Any:
    raise error


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (
            lambda self, step: raise_(RuntimeError("no such luck\nsecond line")),
            "RuntimeError",
            "no such luck",
        ),
        (lambda self, step: step.log_ratio("chosn"), "KeyError", "KeyError: 'chosn'"),
        (
            lambda self, step: DPO.loss(self, step).mean(),
            "ValueError",
            "loss() returned shape (), expected per-example (1, 3)",
        ),
        (
            lambda self, step: step.log_ratio("chosen").detach() * self.beta,
            "ValueError",
            "loss() carries no gradient",
        ),
        (lambda self, step: None, "TypeError", "loss() returned NoneType, expected a tensor"),
    ],
    ids=["raises", "unknown group", "reduced", "no gradient", "nothing"],
)
def test_a_loss_that_fails_is_a_status_with_the_plugin_named(
    run: Run, body: Callable[[DPO, Step], Any], kind: str, message: str
) -> None:
    result = run([failing("bad", body), "dpo", "ipo"], seeds=2, out="r")
    by_name: dict[str, list[Record]] = {}
    for cell in result.cells:
        by_name.setdefault(cell["algorithm"]["name"], []).append(cell)
    for cell in by_name["bad"]:
        assert cell["status"] == "failed"
        error = present(cell["error"])
        assert error["type"] == kind
        assert error["message"].startswith("plugin in-memory (in-memory 0): ")
        assert message in error["message"]
        assert "\n" not in error["message"]
        assert "Traceback" in error["traceback"]
        assert cell["metrics"] == {}
        assert cell["final_policy"] is None
    assert not result.ok
    alone = run(["dpo", "ipo"], seeds=2, out="s")
    assert [c["final_policy"] for c in by_name["dpo"] + by_name["ipo"]] == [
        c["final_policy"] for c in alone.cells
    ]
    # failed is not done: those cells run again, the others do not
    assert run([failing("bad", body), "dpo", "ipo"], seeds=2, out="r").computed == 2


def test_only_the_configuration_that_fails_fails(run: Run) -> None:
    def picky(self: DPO, step: Step) -> Tensor:
        if bool((torch.as_tensor(self.beta) > 0.3).any()):
            raise ValueError("beta is too large for me")
        return DPO.loss(self, step)

    result = run([failing("picky", picky), "dpo"], set={"picky.beta": [0.1, 0.5], "dpo.beta": [0.1]})
    assert [c["status"] for c in result.cells] == ["ok", "failed", "ok"]
    assert result.cells[0]["final_policy"] == result.cells[2]["final_policy"]


def test_a_loss_that_cannot_be_stacked_still_runs_alone(run: Run) -> None:
    def scalar(self: DPO, step: Step) -> Tensor:
        return -torch.nn.functional.logsigmoid(
            float(self.beta) * (step.log_ratio("chosen") - step.log_ratio("rejected"))
        )

    result = run([failing("scalar", scalar), "dpo"], set={"scalar.beta": [0.1, 0.5], "dpo.beta": [0.1, 0.5]})
    assert [c["status"] for c in result.cells] == ["ok"] * 4
    assert [c["final_policy"] for c in result.cells[:2]] == [c["final_policy"] for c in result.cells[2:]]


def test_memory_that_runs_out_is_a_status_of_its_own(run: Run) -> None:
    (cell, fine) = run(
        [failing("hungry", lambda self, step: raise_(MemoryError("much too large"))), "dpo"]
    ).cells
    assert (cell["status"], fine["status"]) == ("oom", "ok")


def test_completions_that_do_not_match_the_groups_are_named(run: Run) -> None:
    @dataclass(frozen=True)
    class Short(DPO):
        name: ClassVar[str] = "short"

        def completions(self, examples: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
            return {group: found[:-1] for group, found in super().completions(examples).items()}

    (cell,) = run([Short]).cells
    assert cell["status"] == "failed"
    assert (
        "completions() returned 2 items for group 'chosen' and 3 examples"
        in present(cell["error"])["message"]
    )


def test_a_diverging_cell_is_recorded_and_done(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "pair.jsonl"
    path.write_text(json.dumps({"prompt": "x", "chosen": "a", "rejected": "b"}), "utf-8")
    words = {
        "data": str(path),
        "optimizer": "sgd",
        "steps": 400,
        "set": {"ipo.train.lr": [0.2, 2.0]},
        "out": "r",
    }
    result = run("ipo", **words)
    assert [c["status"] for c in result.cells] == ["ok", "diverged"]
    assert result.cells[1]["error"] is None
    assert result.cells[1]["timing"]["vectorised_runs"] == 2
    assert not result.ok  # the task did not say that it expects this
    assert run("ipo", **words).computed == 0


# --------------------------------------------------------------------------- the notebook's entry


def test_classes_and_instances_need_no_packaging(run: Run) -> None:
    mine = failing("mine", DPO.loss)
    result = run(["dpo", mine, mine(beta=0.5)], set={"dpo.beta": [0.1, 0.5]})
    assert [(c["algorithm"]["name"], c["algorithm"]["config"]) for c in result.cells] == [
        ("dpo", {"beta": 0.1}),
        ("dpo", {"beta": 0.5}),
        ("mine", {"beta": 0.1}),
        ("mine", {"beta": 0.5}),
    ]
    policies = [c["final_policy"] for c in result.cells]
    assert policies[:2] == policies[2:]
    assert result.cells[2]["algorithm"]["plugin"] == "in-memory"


def test_results_as_a_frame_a_summary_and_tables(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(["dpo", "ipo"], seeds=3, set={"dpo.beta": [0.1, 0.5]}, tasks=["bandit"])
    frame = result.to_pandas()
    assert len(frame) == 9
    assert {
        "algorithm",
        "task",
        "seed",
        "status",
        "key",
        "config.beta",
        "config.tau",
        "kl",
        "frontier_gap",
    } <= set(frame.columns)
    assert sorted(frame.seed.unique()) == [0, 1, 2]
    assert frame[frame.algorithm == "ipo"]["config.beta"].isna().all()
    summary = result.summary()
    assert len(summary) == 3
    assert json.loads(json.dumps(result.document()))["summary"] == json.loads(json.dumps(summary))
    result.show(width=100)
    shown = capsys.readouterr().out
    assert shown.startswith("Which algorithm? ")
    assert max(map(len, shown.splitlines())) <= 100


def test_arguments_are_the_flags(run: Run) -> None:
    with pytest.raises(xpo_bench.UsageError, match=r"unknown argument 'step'; did you mean 'steps'\?"):
        xpo_bench.run("dpo", step=3)
    assert {c["seed"] for c in run(seeds=[4, 9]).cells} == {4, 9}
    assert {c["seed"] for c in run(seeds="7,").cells} == {7}
    assert run(disable="kto").cells
    with pytest.raises(xpo_bench.UsageError, match="disabled"):
        run("kto", disable="kto")
    with pytest.raises(xpo_bench.UsageError, match="cuda:7: not on this machine"):
        run(device="cuda:7")
