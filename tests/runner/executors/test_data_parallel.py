"""Several processes that train one language model do what one process does."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import torch
from narrow import present

import xpo_bench
from xpo_bench import Budget, ModelSpec, plugins
from xpo_bench.errors import UsageError
from xpo_bench.result import Result
from xpo_bench.runner.devices import devices_from
from xpo_bench.runner.model_choice import check_processes
from xpo_bench.runner.record import Record
from xpo_bench_plugins.algorithms.kto import KTO

ROWS = [
    ("ask one", "yes", "no"),
    ("ask two?", "yes!!", "no way"),
    ("tell", "sure", "never"),
    ("say it", "fine", "nah nah"),
    ("ask one", "ok", "no"),
    ("go", "well", "stop"),
    ("come on", "yes yes", "no no no"),
]
EQUAL = [
    ("ask one", "yes", "not"),
    ("tell me", "aye", "nay"),
    ("go", "on", "no"),
    ("say", "sure", "nope"),
    ("and", "ja", "ne"),
]
SMALL = {"kl_prompts": 1, "kl_samples": 1, "max_new_tokens": 3, "eval_pairs": 2}
KTO_ABOVE_0 = {"kto.undesirable_weight": 0.0}
"""Nothing pushes completions down, so that z0 is above 0, where it matters."""
SAMPLERS = {"rso.candidates": 4, "rso.kept": 2, "bon.candidates": 4, "bon.kept": 2}
PLAN = """
model = "tiny"
seeds = 1
steps = 3
dtype = "float64"

[[runs]]
experiment = "odd"  # 3 rows a step, the smaller share is one; with singles 3 pairs
optimizer = "sgd"
lr = 0.1
algos = "all"
data = "{rows}"
batch_size = 3
set = {{ {samplers}, {kto}, {small} }}

[[runs]]
experiment = "full"  # every row at every step, by micro-batches of which one process has more than the other
algos = ["dpo", "npo", "sdpo", "orpo"]
data = "{rows}"
batch_size = 100
set = {{ {small}, "task.micro_batch" = 2 }}

[[runs]]
experiment = "tokens"
algos = ["dpo", "kto", "npo", "simpo"]
data = "{equal}"
batch_size = 3
loss_over = "token"
set = {{ {kto}, {small} }}

[[runs]]
experiment = "single"  # fewer rows than processes
algos = ["dpo", "kto", "online_dpo"]
data = "{one}"
batch_size = 2
set = {{ {kto}, {small} }}

[[runs]]
experiment = "float32"
algos = ["dpo", "kto"]
data = "{rows}"
batch_size = 5
sampling = "replacement"
dtype = "float32"
set = {{ {kto}, {small}, "task.warm_start" = 2 }}
"""
ALGORITHMS = sorted(plugins.load().algorithms)


def write(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    lines = [json.dumps(dict(zip(("prompt", "chosen", "rejected"), row, strict=True))) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def settings(values: Mapping[str, float]) -> str:
    return ", ".join(f'"{name}" = {value}' for name, value in values.items())


def curve(result: Result, cell: Record, column: str = "loss") -> list[float]:
    values: list[float] = pd.read_parquet(result.out / "curves" / f"{cell['key']}.parquet")[column].tolist()
    return values


@dataclass
class Both:
    """The same plan by one process and by two."""

    one: Result
    two: Result

    def pairs(self, **wanted: str) -> list[tuple[Record, Record]]:
        """Cells of both with that algorithm or experiment."""
        found = []
        for a, b in zip(self.one.cells, self.two.cells, strict=True):
            facts = {"algorithm": a["algorithm"]["name"], "experiment": a["experiment"]}
            if wanted.items() <= facts.items():
                found.append((a, b))
        return found

    def agree(self, a: Record, b: Record) -> None:
        # a network in float64 norms in float32, and Adam turns the rounding of a gradient of 0 into a step
        tolerance = 1e-7 if a["train"]["optimizer"] == "sgd" else 1e-5
        assert (a["status"], b["status"], b["error"]) == ("ok", "ok", None)
        assert b["metrics"]["kl"] == pytest.approx(a["metrics"]["kl"], rel=1e-3), (
            a["algorithm"]["name"],
            a["experiment"],
        )
        for column in ("loss", "chosen_logp"):
            first, second = curve(self.one, a, column), curve(self.two, b, column)
            assert len(first) == 4  # steps 0 to 3
            assert second == pytest.approx(first, rel=tolerance, abs=tolerance), (
                a["algorithm"]["name"],
                a["experiment"],
            )


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("team")
    plan = PLAN.format(
        rows=write(folder / "rows.jsonl", ROWS),
        equal=write(folder / "equal.jsonl", EQUAL),
        one=write(folder / "one.jsonl", ROWS[1:2]),
        samplers=settings(SAMPLERS),
        kto=settings(KTO_ABOVE_0),
        small=settings({f"task.{name}": value for name, value in SMALL.items()}),
    )
    path = folder / "plan.toml"
    path.write_text(plan, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def one(plan: Path) -> Result:
    return xpo_bench.run(file=plan, device="cpu", out=plan.parent / "1")


@pytest.fixture(scope="module")
def both(plan: Path, one: Result) -> Both:
    return Both(one, xpo_bench.run(file=plan, device="cpu", out=plan.parent / "2", gpus_per_cell=2))


@pytest.fixture(scope="module")
def shared(plan: Path, one: Result) -> Both:
    """The second of the two keeps a share of every layer in each of its processes."""
    path = plan.with_name("shared.toml")
    path.write_text(
        plan.read_text("utf-8").replace("set = {", 'set = { "task.fsdp" = true, '), encoding="utf-8"
    )
    return Both(one, xpo_bench.run(file=path, device="cpu", out=plan.parent / "3", gpus_per_cell=2))


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("layers", ["both", pytest.param("shared", marks=pytest.mark.slow)])
def test_loss_curves_are_those_of_one_process(request: pytest.FixtureRequest, layers: str, name: str) -> None:
    two: Both = request.getfixturevalue(layers)
    cells = two.pairs(algorithm=name)
    if not cells:
        assert name in {entry["algorithm"] for entry in two.one.skipped}
    for a, b in cells:
        two.agree(a, b)


@pytest.mark.slow
def test_a_process_holds_its_share_of_the_layers(shared: Both) -> None:
    for a, b in shared.pairs():
        whole, model = a["task"]["model"]["parameters"], b["task"]["model"]
        assert isinstance(whole, int)
        assert model["parameters"] == whole
        outside = 2 * 259 * 64 + 64  # embeddings, head, the last norm
        assert model["held"] == outside + (whole - outside) // 2


def test_shares_may_be_uneven_recomputed_and_warmed_up(plan: Path) -> None:
    words: dict[str, Any] = {
        "data": str(plan.with_name("rows.jsonl")),
        "model": "tiny",
        "device": "cpu",
        "seeds": 1,
        "steps": 3,
    }
    words |= {"batch_size": 4, "dtype": "float64", "optimizer": "sgd", "lr": 0.1}
    task = {f"task.{k}": v for k, v in SMALL.items()} | {
        "task.warm_start": 2,
        "task.micro_batch": 1,
        "task.clip": 0.01,
    }
    words["set"] = task | {"task.checkpointing": True}
    alone = xpo_bench.run("dpo", out=plan.parent / "4", **words)
    words["set"] |= {"task.fsdp": True}
    three = xpo_bench.run(
        "dpo", out=plan.parent / "5", gpus_per_cell=3, **words
    )  # 64 rows of a matrix: 22, 22 and 20
    assert (three.cells[0]["status"], three.cells[0]["error"]) == ("ok", None)
    assert curve(three, three.cells[0]) == pytest.approx(curve(alone, alone.cells[0]), rel=1e-7, abs=1e-7)


@pytest.mark.slow
def test_reference_scores_are_those_of_the_whole_model(plan: Path, shared: Both, one: Result) -> None:
    """The weights are hashed whole, so that a model in shares finds what the same model has scored."""
    names = [{path.name for path in (run.out / "references").iterdir()} for run in (one, shared.two)]
    assert names[0] & names[1]  # a warm start, which rounds otherwise, has other weights


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({}, "task.fsdp: one process has nobody to share the layers with; add --gpus-per-cell 2 or more"),
        ({"gpus_per_cell": 2, "lora": "r=2"}, "task.fsdp: not with --lora"),
    ],
)
def test_shares_that_cannot_be_are_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        xpo_bench.run("dpo", "overfit_pair", device="cpu", set={"task.fsdp": True}, **words)


def test_every_experiment_was_run(both: Both) -> None:
    assert {a["experiment"] for a, _ in both.pairs()} == {"odd", "full", "tokens", "single", "float32"}
    assert {"kto", "sdpo", "ppo", "online_dpo", "rso", "bon"} <= {
        a["algorithm"]["name"] for a, _ in both.pairs()
    }


def test_records_say_how_many_processes_and_have_keys_of_their_own(both: Both) -> None:
    for a, b in both.pairs():
        assert (a["train"].get("processes"), b["train"]["processes"]) == (None, 2)
        assert a["key"] != b["key"]


def trained_on(cell: Record, rate: str) -> float:
    """How many of what a metric counts per second a cell trained on."""
    return present(cell["metrics"][rate]) * present(cell["timing"]["train_s"])


def test_costs_are_those_of_all_processes(both: Both) -> None:
    for a, b in both.pairs(experiment="odd"):
        assert trained_on(b, "pairs_per_s") == pytest.approx(trained_on(a, "pairs_per_s"))
        tokens = [trained_on(cell, "tokens_per_s") for cell in (a, b)]
        # a prompt that completions of both shares have is processed twice, one that finds no partner not at
        # all
        assert tokens[0] * 0.99 < tokens[1] < tokens[0] * 1.5, a["algorithm"]["name"]
        flops = [present(cell["metrics"]["total_flops"]) for cell in (a, b)]
        assert flops[0] * 0.9 < flops[1] < flops[0] * 2


def test_processes_take_the_devices_from_the_given_one_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices_from("cuda:1", 2) == ["cuda:1", "cuda:2"]
    assert devices_from("cpu", 4) == ["cpu"] * 4
    check_processes(3, "cuda:0", "t", ModelSpec(name="tiny"), Budget())
    with pytest.raises(UsageError, match="--gpus-per-cell 3: this machine has 2 from cuda:1 on"):
        check_processes(3, "cuda:1", "t", ModelSpec(name="tiny"), Budget())


def test_several_processes_on_the_cpu_are_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="--gpus-per-cell 2: no GPU on this machine; --device cpu"):
        xpo_bench.run("dpo", "overfit_pair", device="auto", gpus_per_cell=2)


ODD_ONES = '''
import os, signal
from dataclasses import dataclass, replace
from typing import ClassVar

import torch.distributed
from xpo_bench import Group
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.kto import KTO


@dataclass(frozen=True)
class Raises(DPO):
    """The second process raises, the first one waits for it."""
    name: ClassVar[str] = "raises"

    def loss(self, step):
        if torch.distributed.get_rank() == 1:
            raise ZeroDivisionError("of the second process, " + os.environ["XPO_TEST_SAYS"])
        return super().loss(step)


@dataclass(frozen=True)
class Dies(DPO):
    """The second process is killed."""
    name: ClassVar[str] = "dies"

    def loss(self, step):
        if torch.distributed.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(step)


@dataclass(frozen=True)
class Remembers(DPO):
    """DPO against a moving average of the margin, with a price of the KL at every token."""
    name: ClassVar[str] = "remembers"
    spec: ClassVar[int] = 2
    groups = {name: Group(reference=True, token_kl=True) for name in ("chosen", "rejected")}

    def state(self):
        return {"mean": 1.0}

    def next_state(self, step):
        margin = step.log_ratio("chosen") - step.log_ratio("rejected")
        weight = torch.ones_like(margin) if step.weight is None else step.weight
        total = step.all_reduce(torch.where(weight > 0, weight * margin, 0.0).sum(-1, keepdim=True))
        weights = step.all_reduce(weight.sum(-1, keepdim=True))
        return {"mean": 0.5 * step.state["mean"] + 0.5 * total / weights}

    def loss(self, step):
        kl = step.policy["chosen"].sequence_kl + step.policy["rejected"].sequence_kl
        return -torch.nn.functional.logsigmoid(self._logit(step) - step.state["mean"]) + kl


@dataclass(frozen=True)
class RemembersItsOwn(Remembers):
    """The moving average of a process's own rows."""
    name: ClassVar[str] = "remembers-its-own"

    def next_state(self, step):
        return super().next_state(replace(step, shared=None))


@dataclass(frozen=True)
class LocalKTO(KTO):
    """KTO whose z0 is that of a process's own rows."""
    name: ClassVar[str] = "local-kto"
    batch_coupled: ClassVar[bool] = False

    def loss(self, step):
        return super().loss(replace(step, shared=None))
'''


@pytest.fixture
def odd_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Algorithms in a module that other processes can import."""
    (tmp_path / "odd_ones.py").write_text(ODD_ONES, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("odd_ones")


def test_what_goes_wrong_in_one_process_fails_its_cell_alone(
    odd_ones: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []

    def heard(self: object, hook: str, cell: Mapping[str, Any], **_: object) -> list[object]:
        told.append((cell["algorithm"], hook[4:]))
        return []

    monkeypatch.setattr(plugins.Registry, "observe", heard)
    monkeypatch.setenv("XPO_TEST_SAYS", "now")  # which the server of the first processes has not heard of
    words: dict[str, Any] = {
        "data": str(write(tmp_path / "rows.jsonl", ROWS)),
        "model": "tiny",
        "device": "cpu",
        "seeds": 1,
        "steps": 3,
    }
    weights = {"kto.undesirable_weight": 0.0, "local-kto.undesirable_weight": 0.0}
    words |= {
        "batch_size": 4,
        "dtype": "float64",
        "lr": 0.02,
        "set": weights | {f"task.{k}": v for k, v in SMALL.items()},
    }
    start = time.monotonic()
    team = xpo_bench.run(
        [odd_ones.Raises, odd_ones.Dies, odd_ones.LocalKTO, KTO], gpus_per_cell=2, out="2", **words
    )
    assert time.monotonic() - start < 120
    raises, dies, local, whole = team.cells
    assert [cell["status"] for cell in team.cells] == ["failed", "crashed", "ok", "ok"]
    assert multiprocessing.active_children() == []
    assert present(raises["error"])["type"] == "ZeroDivisionError"
    assert "of the second process, now" in present(raises["error"])["message"]
    assert "odd_ones.py" in present(raises["error"])["traceback"]
    assert "process 2/2 was ended by SIGKILL" in present(dies["error"])["message"]
    hooks = {name: [hook for algorithm, hook in told if algorithm == name] for name in ("dies", "kto")}
    assert hooks == {
        "dies": ["run_start", "step_end", "run_end"],
        "kto": ["run_start", *["step_end"] * 4, "run_end"],
    }
    # z0 over the rows of one process is another loss: the comparison above can fail
    alone = xpo_bench.run([odd_ones.LocalKTO, KTO], out="1", **words)
    assert curve(alone, alone.cells[0]) == curve(alone, alone.cells[1])
    expected = curve(alone, alone.cells[1])
    assert curve(team, whole) == pytest.approx(expected, abs=1e-5)
    assert max(abs(x - y) for x, y in zip(curve(team, local), expected, strict=True)) > 1e-4


def test_a_share_that_is_lost_ends_its_cell_alone(
    odd_ones: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XPO_TEST_SAYS", "of a share")
    words: dict[str, Any] = {
        "data": str(write(tmp_path / "rows.jsonl", ROWS)),
        "model": "tiny",
        "device": "cpu",
        "seeds": 1,
        "steps": 3,
    }
    words |= {
        "batch_size": 4,
        "dtype": "float64",
        "set": {"task.fsdp": True} | {f"task.{k}": v for k, v in SMALL.items()},
    }
    found = xpo_bench.run([odd_ones.Dies, odd_ones.Raises, KTO], gpus_per_cell=2, out=tmp_path / "1", **words)
    assert [cell["status"] for cell in found.cells] == ["crashed", "failed", "ok"]
    assert "process 2/2 was ended by SIGKILL" in present(found.cells[0]["error"])["message"]
    assert "of the second process, of a share" in present(found.cells[1]["error"])["message"]
    assert multiprocessing.active_children() == []


def test_what_is_carried_from_step_to_step_is_that_of_all_processes(
    odd_ones: ModuleType, tmp_path: Path
) -> None:
    words: dict[str, Any] = {
        "data": str(write(tmp_path / "rows.jsonl", ROWS)),
        "model": "tiny",
        "device": "cpu",
        "seeds": 1,
        "steps": 4,
    }
    words |= {
        "batch_size": 3,
        "dtype": "float64",
        "lr": 0.1,
        "optimizer": "sgd",
        "set": {f"task.{k}": v for k, v in SMALL.items()},
    }
    alone = xpo_bench.run([odd_ones.Remembers], out=tmp_path / "1", **words)
    team = xpo_bench.run(
        [odd_ones.Remembers, odd_ones.RemembersItsOwn], gpus_per_cell=2, out=tmp_path / "2", **words
    )
    words["set"] |= {"task.fsdp": True}
    shares = xpo_bench.run([odd_ones.Remembers], gpus_per_cell=2, out=tmp_path / "3", **words)
    assert curve(shares, shares.cells[0]) == pytest.approx(curve(alone, alone.cells[0]), abs=1e-7)
    same, own = team.cells
    assert (alone.cells[0]["status"], same["status"], own["status"]) == ("ok", "ok", "failed")
    assert curve(team, same) == pytest.approx(curve(alone, alone.cells[0]), abs=1e-7)
    assert "the state 'mean' differs between processes" in present(own["error"])["message"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_processes_end_with_the_one_that_started_them(
    tmp_path: Path, variables: Callable[..., dict[str, str]], number: signal.Signals, status: int
) -> None:
    data = write(tmp_path / "rows.jsonl", ROWS)
    words = (
        f"run --algos dpo --data {data} --model tiny --device cpu --gpus-per-cell 2 --seeds 1 "
        f"--steps 1000000 --batch-size 4"
    )
    command = [str(Path(sys.executable).parent / "xpo-bench"), *words.split()]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=variables({}), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr
    while "preparing" not in process.stderr.readline():
        pass
    time.sleep(4)
    if number is signal.SIGINT:
        os.killpg(process.pid, number)  # a terminal sends Ctrl-C to all
    else:
        process.send_signal(number)
    process.stderr.read()
    assert process.wait(30) == status
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail("a process was left")
