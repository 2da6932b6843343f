"""Cells side by side have the numbers of one process, and one's death costs the others nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from runs import SMALL, by_name, content, ended, same

import xpo_bench
from xpo_bench.errors import UsageError
from xpo_bench.runner.executors.placement import DevicePlacement, placements
from xpo_bench.runner.executors.preload import EVERY_S

ODD = '''
import os, random, signal, sys, time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from xpo_bench import Algorithm, hookimpl


class Base(Algorithm):
    def loss(self, step):
        self.misbehave(step)
        return -F.logsigmoid(0.1 * (step.log_ratio("chosen") - step.log_ratio("rejected")))


@dataclass(frozen=True)
class Killed(Base):
    name: ClassVar[str] = "killed"
    def misbehave(self, step):
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Leaves(Base):
    name: ClassVar[str] = "leaves"
    def misbehave(self, step):
        os._exit(0)


@dataclass(frozen=True)
class Unlucky(Base):
    """Killed the first time only."""
    name: ClassVar[str] = "unlucky"
    def misbehave(self, step):
        try:
            open(os.environ["XPO_TEST_MARK"], "x").close()
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Hangs(Base):
    name: ClassVar[str] = "hangs"
    def misbehave(self, step):
        time.sleep(3600)


@dataclass(frozen=True)
class Exits(Base):
    name: ClassVar[str] = "exits"
    def misbehave(self, step):
        sys.exit("enough")


@dataclass(frozen=True)
class Talks(Base):
    name: ClassVar[str] = "talks"
    def misbehave(self, step):
        print("x" * 10**6)


@dataclass(frozen=True)
class Shakes(Base):
    """Changes every global that a generator draws from."""
    name: ClassVar[str] = "shakes"
    def misbehave(self, step):
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)


@dataclass(frozen=True)
class Widens(Base):
    name: ClassVar[str] = "widens"
    def misbehave(self, step):
        torch.set_default_dtype(torch.float64)


@dataclass(frozen=True)
class Blinds(Base):
    name: ClassVar[str] = "blinds"
    def misbehave(self, step):
        torch.set_grad_enabled(False)


@dataclass(frozen=True)
class Shapes(Algorithm):
    name: ClassVar[str] = "shapes"
    def loss(self, step):
        return step.log_ratio("chosen").mean()


@dataclass(frozen=True)
class Elsewhere(Algorithm):
    name: ClassVar[str] = "elsewhere"
    def loss(self, step):
        return step.log_ratio("chosen").to("meta")


@dataclass(frozen=True)
class Whole(Algorithm):
    name: ClassVar[str] = "whole"
    def loss(self, step):
        return step.log_ratio("chosen").long()


@dataclass(frozen=True)
class NotANumber(Algorithm):
    name: ClassVar[str] = "nan"
    def loss(self, step):
        return step.log_ratio("chosen") * float("nan")


@hookimpl
def xpo_algorithms():
    wrong = [Killed, Leaves, Unlucky, Hangs, Exits, Talks, Shakes, Widens, Blinds, Shapes]
    return [*wrong, Elsewhere, Whole, NotANumber]
'''


def test_any_number_of_workers_order_and_resume_give_the_same_bits(
    xpo: Any, warm: Any, rows: Path, tmp_path: Path
) -> None:
    # the second block is one computation with other rows
    (tmp_path / "plan.toml").write_text(
        f'seeds = 2\nsteps = 6\n[[runs]]\nalgos = "dpo,ipo,rso"\ntasks = "bandit,cycle,deterministic"\n'
        '[[runs]]\nalgos = "dpo"\ntasks = "bandit"\nset = { "task.coverage" = [0.5, 0.75] }\n'
        f'[[runs]]\nalgos = "kto,online_dpo,dpo"\ndata = "{rows}"\nmodel = "tiny"\nbatch_size = 2\n'
        'set = { "task.kl_prompts" = 2, "task.kl_samples" = 2, "task.max_new_tokens" = 4 }\n',
        encoding="utf-8",
    )
    assert warm("run", "plan.toml", "--out", "one").code == 0
    (tmp_path / "grp.py").write_text(
        "raise SystemExit('never imported: the standard library has one')\n", encoding="utf-8"
    )
    two = xpo("run", "plan.toml", "--out", "two", "--workers", 2)
    assert two.code == 0, two.err
    assert (
        warm(
            "run", "--algos", "ipo", "--tasks", "deterministic", "--seeds", 2, "--steps", 6, "--out", "part"
        ).code
        == 0
    )
    words = ["--data", rows, "--model", "tiny", "--batch-size", 2, "--seeds", "1,", "--steps", 6, *SMALL]
    assert warm("run", "--algos", "dpo", *words, "--out", "part").code == 0
    assert warm("run", "plan.toml", "--out", "part").code == 0
    one = content(tmp_path / "one")
    assert len(one) == 28
    assert same(one, content(tmp_path / "two"))
    assert same(one, content(tmp_path / "part"))
    told = [
        json.loads(path.read_text("utf-8"))["environment"]
        for path in (tmp_path / "two" / "cells").glob("*.json")
    ]
    assert {(e["workers"], e["threads"]) for e in told} == {(2, 1)}


ERRORS = {
    "exits": ("failed", "SystemExit", "enough"),
    "widens": ("failed", "RuntimeError", "default dtype"),
    "blinds": ("failed", "RuntimeError", "grad mode"),
    "shapes": ("failed", "ValueError", "shape ()"),
    "elsewhere": ("failed", "ValueError", "on meta"),
    "whole": ("failed", "TypeError", "int64"),
}


@pytest.mark.parametrize("where", ["table", "model"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_plugin_that_misbehaves_costs_its_neighbours_nothing(
    warm: Any,
    distribution: Callable[..., Path],
    rows: Path,
    tmp_path: Path,
    where: str,
    workers: int,
) -> None:
    site = {"PYTHONPATH": str(distribution("odd", {"odd": ODD}))}
    words = [
        "--seeds",
        1,
        "--steps",
        4,
        *(["--tasks", "one_pair"] if where == "table" else ["--data", rows, "--model", "tiny"]),
    ]
    words += SMALL if where == "model" else []
    alone = warm("run", "--algos", "dpo,ipo", *words, "--out", "alone", **site)
    assert alone.code == 0
    odd = [*ERRORS, "nan", "talks", "shakes"]
    names = ",".join(["dpo", *odd, "ipo"])
    words += ["--out", "company", "--workers", workers, "--json"]
    found = warm("run", "--algos", names, *words, **site)
    assert found.code == 1
    company, expected = by_name(tmp_path / "company"), by_name(tmp_path / "alone")
    assert {cell["algorithm"]["name"]: cell["status"] for cell in found.json["cells"]} == {
        **dict.fromkeys(["dpo", "ipo", "talks", "shakes"], "ok"),
        "nan": "diverged",
        **{name: status for name, (status, *_) in ERRORS.items()},
    }
    for name, (_, kind, words_) in ERRORS.items():
        error = company[name]["error"]
        assert error["type"] == kind
        assert words_ in error["message"]
        assert "plugin odd (odd 1.0" in error["message"]
    for name in ("dpo", "ipo"):
        assert same(company[name], expected[name])


def test_a_process_that_dies_costs_its_own_cell(
    warm: Any, distribution: Callable[..., Path], tmp_path: Path
) -> None:
    env = {"PYTHONPATH": str(distribution("odd", {"odd": ODD})), "XPO_TEST_MARK": str(tmp_path / "mark")}
    words = ["--tasks", "one_pair", "--seeds", 2, "--steps", 4]
    assert warm("run", "--algos", "dpo", *words, "--out", "alone", **env).code == 0
    found = warm(
        "run",
        "--algos",
        "dpo,killed,leaves,unlucky",
        *words,
        "--out",
        "company",
        "--workers",
        2,
        "--json",
        **env,
    )
    assert found.code == 1, found.err
    cells = {(cell["algorithm"]["name"], cell["seed"]): cell for cell in found.json["cells"]}
    assert {key: cell["status"] for key, cell in cells.items()} == {
        (name, seed): "crashed" if name in ("killed", "leaves") else "ok"
        for name in ("dpo", "killed", "leaves", "unlucky")
        for seed in (0, 1)
    }
    assert "ended by SIGKILL, 2 times" in cells["killed", 0]["error"]["message"]
    assert "plugin odd" in cells["killed", 0]["error"]["message"]
    assert "exited with status 0" in cells["leaves", 1]["error"]["message"]
    alone, company = content(tmp_path / "alone"), content(tmp_path / "company")
    assert same(alone, {key: company[key] for key in alone})


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cell_that_does_not_end_is_ended(
    warm: Any, distribution: Callable[..., Path], tmp_path: Path, workers: int
) -> None:
    env = {"PYTHONPATH": str(distribution("odd", {"odd": ODD}))}
    words = ["--tasks", "one_pair", "--seeds", 1, "--steps", 4, "--cell-timeout", 5, "--workers", workers]
    found = warm("run", "--algos", "dpo,hangs", *words, "--out", "r", "--json", **env)
    assert found.code == 1, found.err
    status = {cell["algorithm"]["name"]: cell["status"] for cell in found.json["cells"]}
    assert status == {"dpo": "ok", "hangs": "timeout"}
    assert "longer than 5 s (--cell-timeout)" in by_name(tmp_path / "r")["hangs"]["error"]["message"]


@pytest.fixture
def long_run(
    rows: Path, tmp_path: Path, variables: Callable[..., dict[str, str]]
) -> Iterator[subprocess.Popen[str]]:
    """A run of two workers in a process group of its own: one cell is done at once, two take an hour."""
    (tmp_path / "plan.toml").write_text(
        f'algos = "dpo"\nseeds = 1\ndata = "{rows}"\nmodel = "tiny"\n'
        'set = { "task.kl_prompts" = 1, "task.kl_samples" = 1, "task.steps" = [3, 1000000, 1000001] }\n',
        encoding="utf-8",
    )
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "xpo-bench"), "run", "plan.toml", "--out", "r", "--workers", "2"],
        cwd=tmp_path,
        env=variables({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize(
    ("number", "whom", "code"),
    [
        (signal.SIGINT, "all", 130),
        (signal.SIGTERM, "one", 143),
        (signal.SIGTERM, "all", 143),
        (signal.SIGKILL, "one", -9),
    ],
    ids=["Ctrl-C", "SIGTERM", "preempted", "killed"],
)
def test_no_process_outlives_the_one_that_asked(
    long_run: subprocess.Popen[str], tmp_path: Path, number: signal.Signals, whom: str, code: int
) -> None:
    assert long_run.stderr
    seen = 0
    while seen < 3:  # two at first, and the next when one of them has ended: the longest are begun first
        line = long_run.stderr.readline()
        assert line, "the run has ended"
        seen += "preparing" in line
        if seen == 2:
            break
    (os.killpg if whom == "all" else os.kill)(long_run.pid, number)
    assert long_run.wait(10) == code
    assert ended(long_run.pid, 5)
    assert not list(tmp_path.glob("r/**/*.tmp"))


def test_nor_does_the_server_that_is_still_importing(long_run: subprocess.Popen[str]) -> None:
    """As on a busy machine, where that takes longer than the five seconds."""
    command = psutil.Process(long_run.pid)
    while not (servers := [p for p in command.children() if "forkserver" in " ".join(p.cmdline())]):
        assert long_run.poll() is None
        time.sleep(0.005)
    (server,) = servers
    time.sleep(0.3)
    for _ in range(20):  # a slow machine: three quarters of the time it stands still
        server.suspend()
        time.sleep(0.03)
        server.resume()
        time.sleep(0.01)
    assert not server.children()
    long_run.kill()
    left = psutil.wait_procs([server], 2 * EVERY_S)[1]
    assert all(process.status() == psutil.STATUS_ZOMBIE for process in left)  # ended, and not fetched yet


def test_workers_that_are_killed_at_random_lose_nothing(warm: Any, rows: Path, tmp_path: Path) -> None:
    """Their cells begin again; a second death would be on record, so two that run together are killed."""
    words = [
        "run",
        "--algos",
        "dpo,ipo",
        "--data",
        rows,
        "--model",
        "tiny",
        "--seeds",
        2,
        "--steps",
        30,
        *SMALL,
    ]
    assert warm(*words, "--out", "calm").code == 0
    rng = random.Random(0)
    command = [
        str(Path(sys.executable).parent / "xpo-bench"),
        *map(str, words),
        "--out",
        "r",
        "--workers",
        "2",
    ]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    workers: list[psutil.Process] = []
    while process.poll() is None and len(workers) < 2:
        time.sleep(rng.uniform(0.2, 0.6))
        workers = [
            worker for server in psutil.Process(process.pid).children() for worker in server.children()
        ]
    for victim in workers:
        victim.kill()
    process.communicate(timeout=120)
    assert len(workers) == 2
    assert same(content(tmp_path / "calm"), content(tmp_path / "r"))


def test_a_class_that_other_processes_cannot_import_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Local(xpo_bench.Algorithm):
        name = "local"

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--workers: other processes cannot import"):
        xpo_bench.run([Local], ["one_pair"], seeds=1, steps=2, workers=2)


def test_every_worker_has_cores_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 5}, raising=False)
    assert [place.cores for place in placements(2, "cpu")] == [(0, 2, 5), (1, 3)]
    assert [place.cores for place in placements(7, "cpu")] == [(0,), (1,), (2,), (3,), (5,), (0,), (1,)]


def test_every_worker_has_gpus_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert placements(2, "cuda:1") == [DevicePlacement("cuda:0", ("1",)), DevicePlacement("cuda:0", ("2",))]
    assert placements(2, "cuda:0", 2) == [
        DevicePlacement("cuda:0", ("0", "1")),
        DevicePlacement("cuda:0", ("2", "3")),
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,5,4,GPU-a")
    assert placements(3, "cuda:1") == [
        DevicePlacement("cuda:0", ("5",)),
        DevicePlacement("cuda:0", ("4",)),
        DevicePlacement("cuda:0", ("GPU-a",)),
    ]
    with pytest.raises(UsageError, match="has 4 from cuda:0 on"):
        placements(5, "cuda:0")
