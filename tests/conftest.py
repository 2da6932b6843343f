"""Commands and distributions that several folders of tests use."""

from __future__ import annotations

import gc
import os
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import COMMAND, Command, Finished, Warm, environment
from fresh import Fresh
from hypothesis import settings

# read when torch is imported: tests are of small tensors, which more threads make slower and sums differ
os.environ["OMP_NUM_THREADS"] = "1"

# machines differ in speed, runs must not differ in verdict
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")

# a suite started in the background ignores Ctrl-C, and so would the commands that it starts and interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["environments", "spread"]  # of tests/helpers


FROZEN = {"modules": 0}


def pytest_collection_finish() -> None:
    """Leave modules and tests out of every later collection of garbage.

    A cell of a language model begins with one, to measure its memory: half a second of walking through them.
    """
    gc.collect()
    gc.freeze()
    FROZEN["modules"] = len(sys.modules)


def pytest_runtest_teardown() -> None:
    """And the modules that a test has imported, of transformers above all."""
    if len(sys.modules) > FROZEN["modules"] + 100:
        pytest_collection_finish()


@pytest.fixture
def variables() -> Callable[..., dict[str, str]]:
    """The environment that commands under test get."""
    return environment


@pytest.fixture
def xpo(tmp_path: Path) -> Command:
    """The installed `xpo-bench`, run in `tmp_path`."""

    def run(*words: object, **env: str) -> Finished:
        done = subprocess.run(
            [str(COMMAND), *map(str, words)],
            cwd=tmp_path,
            env=environment(env),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return run


class Mute(socketserver.ThreadingTCPServer):
    """A local hub that hangs up on whoever asks, as good as unreachable; it counts the questions."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Listener)
        self.questions: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def asked(self, about: str) -> int:
        return sum(about in question for question in self.questions)


class Listener(socketserver.BaseRequestHandler):
    server: Mute

    def handle(self) -> None:
        self.server.questions.append(self.request.recv(4096).split(b"\r\n")[0].decode())


@pytest.fixture
def mute_hub() -> Iterator[Mute]:
    with Mute() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def warm_process() -> Iterator[Warm]:
    process = Warm({}, "language")
    yield process
    process.close()


@pytest.fixture
def warm(tmp_path: Path, warm_process: Warm) -> Command:
    """Like `xpo`, in a fork of a process that has the heavy modules imported already: a tenth of the time."""
    return warm_process.command(tmp_path, {})


@pytest.fixture
def warm_script(tmp_path: Path, warm_process: Warm) -> Path:
    """A folder for the front of PATH, in which `xpo-bench` does what it does everywhere as `warm` does it."""
    folder = tmp_path / "warm-script"
    folder.mkdir()
    return warm_process.script(folder).parent


@pytest.fixture
def warm_under(tmp_path: Path) -> Iterator[Callable[[dict[str, str]], Command]]:
    """Like `warm`, where the variables matter that the interpreter reads when it starts."""
    started: list[Warm] = []

    def under(env: dict[str, str]) -> Command:
        started.append(Warm(env, "least"))
        return started[-1].command(tmp_path, env)

    yield under
    for process in started:
        process.close()


@pytest.fixture
def distribution(tmp_path: Path) -> Callable[..., Path]:
    """Writes an installed distribution as an installer leaves it, and returns its folder.

    Args:
        name: the distribution. plugins: plugin name -> source of its module. version, folder: as they say.
    """

    def write(name: str, plugins: dict[str, str], version: str = "1.0", folder: str = "site") -> Path:
        site = tmp_path / folder
        module = name.replace("-", "_")
        info = site / f"{module}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "utf-8")
        points = []
        for number, (plugin, source) in enumerate(plugins.items()):
            (site / f"{module}_{number}.py").write_text(source, "utf-8")
            points.append(f"{plugin} = {module}_{number}")
        (info / "entry_points.txt").write_text("[xpo_bench]\n" + "\n".join(points) + "\n", "utf-8")
        return site

    return write


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    """A fresh environment with the suite's own wheel, for packages of third parties."""
    made = Fresh(tmp_path_factory.mktemp("fresh"))
    made.install(Path(__file__).parents[1])
    yield made
    made.close()
