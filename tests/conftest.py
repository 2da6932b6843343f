"""Commands and distributions that several folders of tests use."""

from __future__ import annotations

import gc
import json
import os
import signal
import site
import socketserver
import subprocess
import sys
import sysconfig
import threading
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# read when torch is imported: tests are of small tensors, which more threads make slower and sums differ
os.environ["OMP_NUM_THREADS"] = "1"

# machines differ in speed, runs must not differ in verdict
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")

# a suite started in the background ignores Ctrl-C, and so would the commands that it starts and interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["environments", "spread"]  # of tests/helpers


def pytest_collection_finish() -> None:
    """Leave modules and tests out of every later collection of garbage.

    A cell of a language model begins with one, to measure its memory: half a second of walking through them.
    """
    gc.collect()
    gc.freeze()


COMMAND = Path(sys.executable).parent / "xpo-bench"
WARM = Path(__file__).parent / "warm.py"


@dataclass(frozen=True)
class Finished:
    """An ended command: exit status and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as the one JSON document that it has to be."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


Command = Callable[..., Finished]


def environment(more: dict[str, str]) -> dict[str, str]:
    """This process's variables without the suite's own, plus `more`; one thread, offline, a fixed width."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith("XPO_BENCH_") and k not in ("PYTHONPATH", "FORCE_COLOR")
    }
    return kept | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "100", "TERM": "dumb"} | more


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


class Warm:
    """A process that has the heavy modules imported already and forks for every command."""

    def __init__(self, env: dict[str, str], *preload: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(WARM), *preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(env),
        )

    def command(self, folder: Path, env: dict[str, str]) -> Command:
        """`xpo-bench` in a folder; what a command is called with comes on top of `env`."""

        def run(*words: object, **more: str) -> Finished:
            out, err = folder / ".stdout", folder / ".stderr"
            request = {
                "argv": [str(COMMAND), *map(str, words)],
                "cwd": str(folder),
                "env": environment(env | more),
                "stdout": str(out),
                "stderr": str(err),
            }
            assert self.process.stdin
            assert self.process.stdout
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            code = int(self.process.stdout.readline())
            return Finished(code, out.read_text("utf-8"), err.read_text("utf-8"))

        return run

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


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
def warm_under(tmp_path: Path) -> Iterator[Callable[[dict[str, str]], Command]]:
    """Like `warm`, where the variables matter that the interpreter reads when it starts."""
    started: list[Warm] = []

    def under(env: dict[str, str]) -> Command:
        started.append(Warm(env))
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


class Fresh:
    """A virtual environment that borrows third-party packages from this one, and nothing of the suite."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder / "env", with_pip=False, symlinks=True)
        self.bin = folder / "env" / "bin"
        self.site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "env")}))
        borrowed = [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
        (self.site / "zz_borrowed.pth").write_text(
            "\n".join(dict.fromkeys([*borrowed, *site.getsitepackages()])) + "\n", "utf-8"
        )

    def install(self, project: Path) -> None:
        """Build a project's wheel with what is installed, and install it."""
        dist = self.folder / f"dist-{project.name}"
        self._run(
            sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist), str(project)
        )
        (wheel,) = dist.glob("*.whl")
        words = (
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--no-build-isolation",
            "--force-reinstall",
            str(wheel),
        )
        self._run(str(self.bin / "python"), "-m", "pip", *words)

    def __call__(self, command: str, *words: str) -> str:
        """Run a command of the environment in its folder; stdout."""
        return self._run(str(self.bin / command), *words)

    def _run(self, *words: str) -> str:
        env = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("XPO_BENCH_", "PYTEST_")) and k != "PYTHONPATH"
        }
        env |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "100", "TERM": "dumb"}
        done = subprocess.run(
            words, cwd=self.folder, env=env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, (words, done.stdout[-3000:] + done.stderr[-3000:])
        return done.stdout


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """A fresh environment with the suite's own wheel, for packages of third parties."""
    made = Fresh(tmp_path_factory.mktemp("fresh"))
    made.install(Path(__file__).parents[1])
    return made
