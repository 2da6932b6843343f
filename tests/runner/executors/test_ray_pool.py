"""Cells as tasks of a Ray cluster have the numbers of one process, and lose nothing when a worker dies."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from runs import by_name, content, same

from xpo_bench.errors import UsageError
from xpo_bench.runner.executors.cluster import Cluster, need_of

ODD = """
import os, signal, time
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from xpo_bench import Algorithm, hookimpl


class Base(Algorithm):
    def loss(self, step):
        self.misbehave()
        return -F.logsigmoid(0.1 * (step.log_ratio("chosen") - step.log_ratio("rejected")))


@dataclass(frozen=True)
class Killed(Base):
    name: ClassVar[str] = "killed"
    def misbehave(self):
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Hangs(Base):
    name: ClassVar[str] = "hangs"
    def misbehave(self):
        time.sleep(3600)


@hookimpl
def xpo_algorithms():
    return [Killed, Hangs]
"""


FILE = """
from dataclasses import dataclass
from typing import ClassVar
from xpo_bench import Algorithm

@dataclass(frozen=True)
class Mine(Algorithm):
    name: ClassVar[str] = "mine"
    def loss(self, step):
        return (step.log_ratio("chosen") - step.log_ratio("rejected") - 1) ** 2
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def node(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A node of Ray without a GPU, whatever the machine has; its processes end with it."""
    process = subprocess.Popen(
        [
            str(Path(sys.executable).parent / "ray"),
            "start",
            "--block",
            "--num-gpus=0",
            "--disable-usage-stats",
            *words,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        for left in psutil.wait_procs(family, 10)[1]:
            left.kill()
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, int]]:
    """A real cluster, one node with two CPUs: its address and process; commands under test have its token."""
    pytest.importorskip("ray")
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")  # its sockets have a path of 107 characters at most
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        head = [
            "--head",
            "--num-cpus=2",
            f"--port={port}",
            "--include-dashboard=false",
            f"--temp-dir={folder}",
        ]
        with node(*head) as process:
            wait_for(lambda: list(Path(folder).glob("session_latest/sockets/raylet*")), process)
            yield f"127.0.0.1:{port}", process.pid
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def address(cluster: tuple[str, int]) -> str:
    return cluster[0]


@pytest.fixture
def begin(
    tmp_path: Path, variables: Callable[..., dict[str, str]]
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Begins a run, in a process group of its own, which is ended with the test."""
    begun: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "xpo-bench"), "run", *words],
            cwd=tmp_path,
            env=variables({}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.1)


MODEL = (
    'model = "tiny"\nbatch_size = 2\nset = { "task.kl_prompts" = 2, "task.kl_samples" = 2, '
    '"task.max_new_tokens" = 4 }\n'
)


def test_tasks_have_the_numbers_of_this_process(warm: Any, rows: Path, tmp_path: Path, address: str) -> None:
    """On tables, by a loss from a file too, and on a language model that two processes train."""
    (tmp_path / "my_loss.py").write_text(FILE, "utf-8")
    (tmp_path / "plan.toml").write_text(
        'seeds = 2\nsteps = 8\n[[runs]]\nalgos = "dpo,rso"\ntasks = "bandit"\n'
        '[[runs]]\nalgos = "my_loss.py:Mine"\ntasks = "bandit"\nseeds = 1\n'
        f'[[runs]]\nalgos = "ipo"\ndata = "{rows}"\nseeds = 1\ngpus_per_cell = 2\n{MODEL}',
        encoding="utf-8",
    )
    words = ["run", "plan.toml", "--device", "cpu"]
    assert warm(*words, "--out", "one").code == 0
    found = warm(*words, "--out", "ray", "--executor", "ray", "--address", address)
    assert found.code == 0, found.err
    one = content(tmp_path / "one")
    assert len(one) == 6
    assert same(one, content(tmp_path / "ray"))
    told = [
        json.loads(path.read_text("utf-8"))["environment"]
        for path in (tmp_path / "ray" / "cells").glob("*.json")
    ]
    assert {(e["executor"], e["workers"], e["threads"]) for e in told} == {("ray", 2, 1)}


@pytest.mark.slow
def test_a_worker_and_a_node_that_are_killed_in_mid_cell_lose_nothing(
    xpo: Any,
    rows: Path,
    tmp_path: Path,
    cluster: tuple[str, int],
    begin: Callable[..., subprocess.Popen[str]],
) -> None:
    """Three cells on three CPUs, one on another node: that node and a worker of the first one are killed."""
    address, head = cluster
    (tmp_path / "plan.toml").write_text(
        f'seeds = 1\nsteps = 100\nalgos = "dpo,ipo,kto"\ndata = "{rows}"\n{MODEL}', "utf-8"
    )
    with node(f"--address={address}", "--num-cpus=1") as other:
        words = ["--executor", "ray", "--address", address, "--workers", "3"]
        process = begin("plan.toml", "--out", "ray", "--device", "cpu", *words)
        assert process.stderr
        preparing = (line for line in process.stderr if ": preparing" in line)
        assert len(list(itertools.islice(preparing, 3))) == 3
        working = [
            p for p in psutil.Process(head).children(recursive=True) if p.name().startswith("ray::xpo-bench")
        ]
        assert len(working) == 2
        working[0].kill()
        (raylet,) = (p for p in psutil.Process(other.pid).children(recursive=True) if p.name() == "raylet")
        raylet.kill()
        _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert said.count(": preparing") == 2
    assert xpo("run", "plan.toml", "--out", "one", "--device", "cpu").code == 0
    assert same(content(tmp_path / "one"), content(tmp_path / "ray"))


def test_a_worker_that_dies_or_hangs_costs_its_own_cell(
    warm: Any, distribution: Callable[..., Path], tmp_path: Path, address: str
) -> None:
    env = {"PYTHONPATH": str(distribution("odd", {"odd": ODD}))}
    words = ["--tasks", "one_pair", "--seeds", 1, "--steps", 4]
    assert warm("run", "--algos", "dpo", *words, "--out", "alone", **env).code == 0
    words += ["--executor", "ray", "--address", address, "--cell-timeout", 12]
    found = warm("run", "--algos", "dpo,killed,hangs", *words, "--out", "company", "--json", **env)
    assert found.code == 1, found.err
    company = {
        record["algorithm"]["name"]: record for record in found.json["cells"]
    }  # whatever Ray says of the dead
    assert {name: record["status"] for name, record in company.items()} == {
        "dpo": "ok",
        "killed": "crashed",
        "hangs": "timeout",
    }
    assert "was lost (WorkerCrashedError" in company["killed"]["error"]["message"]
    assert "2 times" in company["killed"]["error"]["message"]
    assert "longer than 12 s (--cell-timeout)" in company["hangs"]["error"]["message"]
    assert same(by_name(tmp_path / "company")["dpo"], by_name(tmp_path / "alone")["dpo"])


def test_ctrl_c_keeps_what_is_finished_and_ends_the_cluster_of_its_own(
    rows: Path, tmp_path: Path, begin: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "plan.toml").write_text(
        f'algos = "dpo"\nseeds = 1\ndata = "{rows}"\nmodel = "tiny"\n'
        'set = { "task.kl_prompts" = 1, "task.kl_samples" = 1, "task.steps" = [3, 1000000] }\n',
        encoding="utf-8",
    )
    process = begin(
        "plan.toml",
        "--out",
        "r",
        "--device",
        "cpu",
        "--executor",
        "ray",
        "--address",
        "local",
        "--workers",
        "2",
    )
    assert process.stderr
    assert any("[1/2]" in line for line in process.stderr)
    family = psutil.Process(process.pid).children(recursive=True)
    assert any("raylet" in p.name() for p in family)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(20) == 130
    assert "interrupted; finished cells are kept" in process.stderr.read()
    assert len(list((tmp_path / "r" / "cells").glob("*.json"))) == 1
    assert not list(tmp_path.glob("r/**/*.tmp"))
    assert not psutil.wait_procs(family, 10)[1]


def test_what_no_node_has_is_not_waited_for(warm: Any, rows: Path, address: str) -> None:
    words = [
        "run",
        "--algos",
        "dpo",
        "--data",
        rows,
        "--model",
        "tiny",
        "--executor",
        "ray",
        "--address",
        address,
    ]
    found = warm(*words, "--gpus-per-cell", 3, "--device", "cpu")
    assert found.code == 2
    assert found.lines == [
        "xpo-bench: --executor ray: a cell takes 3 CPUs of one node, and no node has that; "
        f"the cluster at {address} has 2 CPUs and 0 GPUs on 1 node, the largest of which has "
        f"2 CPUs and 0 GPUs"
    ]


NODES = [{"CPU": 0.0, "GPU": 0.0}, {"CPU": 16.0, "GPU": 8.0}, {"CPU": 16.0, "GPU": 4.0}]


def test_room_is_counted_by_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cluster, "nodes", lambda _: NODES)
    cluster = Cluster("auto")
    assert cluster.room(need_of("cuda", 1)) == 12
    assert cluster.room(need_of("cuda", 5)) == 1
    assert cluster.room(need_of("cpu", 3)) == 10
    with pytest.raises(
        UsageError, match=r"takes 1 CPU and 9 GPUs of one node.* 12 GPUs on 3 nodes.* 8 GPUs$"
    ):
        cluster.room(need_of("cuda", 9))
    assert [cluster.devices().resolve(name) for name in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]
    with pytest.raises(UsageError, match="Ray chooses the GPU"):
        cluster.devices().resolve("cuda:1")
    monkeypatch.setattr(Cluster, "nodes", lambda _: NODES[:1])
    assert cluster.devices().resolve("auto") == "cpu"
    with pytest.raises(UsageError, match="--device cuda: the cluster"):
        cluster.devices().resolve("cuda")


def test_a_node_without_the_model_or_with_other_code_is_named() -> None:
    from xpo_bench.runner.executors.ray_pool import check_fingerprints

    check_fingerprints({"xpo-bench": "a", "model hub/name": None}, {"xpo-bench": "a", "model hub/name": None})
    with pytest.raises(UsageError, match=r"on node \S+ model m is not there; put it where every node has it"):
        check_fingerprints({"model m": "a"}, {"model m": None})
    with pytest.raises(UsageError, match="xpo-bench is not the one that the run was planned with"):
        check_fingerprints({"xpo-bench": "a"}, {"xpo-bench": "b"})


@pytest.mark.parametrize(
    ("address", "message"),
    [("ray://here:10001", "give auto, local or HOST:PORT"), ("here", "give auto, local or HOST:PORT")],
)
def test_an_address_that_is_none_is_refused(warm: Any, address: str, message: str) -> None:
    found = warm("run", "--algos", "dpo", "--tasks", "one_pair", "--executor", "ray", "--address", address)
    assert found.code == 2
    assert message in found.err
    assert len(found.lines) == 1


def test_a_cluster_that_does_not_answer_is_told_in_one_line(warm: Any) -> None:
    pytest.importorskip("ray")
    words = ["run", "--algos", "dpo", "--tasks", "one_pair"]
    found = warm(*words, "--executor", "ray", "--address", f"127.0.0.1:{free_port()}")
    assert (found.code, len(found.lines)) == (2, 1)
    assert "nothing answers there" in found.err
    assert "goes with --executor ray" in warm(*words, "--address", "auto").err


def test_ray_that_is_not_installed_is_told_in_one_line(warm: Any, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "ray.py").write_text("raise ImportError(\"No module named 'ray'\")", "utf-8")
    words = ["run", "--algos", "dpo", "--tasks", "one_pair", "--steps", 2, "--seeds", 1]
    found = warm(*words, "--executor", "ray", PYTHONPATH=str(tmp_path / "site"))
    assert found.code == 2
    assert found.lines == [
        (
            "xpo-bench: --executor ray: Ray cannot be imported (No module named 'ray'); `pip "
            "install 'xpo-bench[ray]'` brings it"
        )
    ]
    assert warm(*words, PYTHONPATH=str(tmp_path / "site")).code == 0
