"""A run directory has one writer at a time; one that died does not count."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from xpo_bench.runner.lock import occupied

WORDS = ["run", "--algos", "dpo", "--tasks", "one_pair", "--seeds", "1", "--steps", "3", "--out", "r"]
HOLD = "import sys, pathlib\nfrom xpo_bench.runner.lock import occupied\n" + (
    "with occupied(pathlib.Path('r'), False, print):\n    print('held', flush=True)\n    sys.stdin.read()\n"
)


@pytest.fixture
def holder(tmp_path: Path, variables: Callable[..., dict[str, str]]) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the run directory until its input ends."""
    (tmp_path / "r").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        cwd=tmp_path,
        env=variables({}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_writer_is_refused_with_the_first_one_named(
    holder: subprocess.Popen[str], warm: Any
) -> None:
    found = warm(*WORDS)
    assert found.code == 2
    owner = f"process {holder.pid} on {socket.gethostname()}"
    assert found.lines == [
        f"xpo-bench: r is being written by {owner}; --wait waits for it, --out DIR writes elsewhere"
    ]


def test_a_second_writer_may_wait(
    holder: subprocess.Popen[str], tmp_path: Path, variables: Callable[..., dict[str, str]]
) -> None:
    command = [str(Path(sys.executable).parent / "xpo-bench"), *WORDS, "--wait"]
    waiting = subprocess.Popen(
        command, cwd=tmp_path, env=variables({}), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert waiting.stderr
    while f"waiting for process {holder.pid}" not in waiting.stderr.readline():
        assert waiting.poll() is None
    assert not list(tmp_path.glob("r/cells/*.json"))
    assert holder.stdin
    holder.stdin.close()
    waiting.stderr.read()
    assert waiting.wait(60) == 0
    assert len(list(tmp_path.glob("r/cells/*.json"))) == 1


def test_a_writer_that_was_killed_holds_nothing(holder: subprocess.Popen[str], warm: Any) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert warm(*WORDS).code == 0


def test_readers_are_not_refused(holder: subprocess.Popen[str], warm: Any, tmp_path: Path) -> None:
    for name in ("cells", "curves"):
        (tmp_path / "r" / name).mkdir()
    assert warm("status", "r").code == 0


def test_a_file_system_without_locks_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr("xpo_bench.runner.lock.FileLock.acquire", refuse)
    notes: list[str] = []
    with occupied(tmp_path, False, notes.append):
        pass
    assert "without locks" in notes[0]


def test_the_owner_is_gone_afterwards(tmp_path: Path) -> None:
    with occupied(tmp_path, False, print):
        assert str(os.getpid()) in (tmp_path / ".owner.json").read_text("utf-8")
    assert not (tmp_path / ".owner.json").exists()
