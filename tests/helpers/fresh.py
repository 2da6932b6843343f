"""A virtual environment with the suite's wheel and packages of third parties."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import sysconfig
import tempfile
import venv
from functools import cached_property
from pathlib import Path

from commands import Finished, Warm

BUILD = """
import importlib, os, sys, tomllib
for project in sys.argv[2:]:
    os.chdir(project)
    with open("pyproject.toml", "rb") as file:
        backend = importlib.import_module(tomllib.load(file)["build-system"]["build-backend"])
    backend.build_wheel(sys.argv[1])
"""
"""What `python -m build --wheel --no-isolation` asks of the backends, of all in one interpreter."""


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

    def install(self, *projects: Path) -> None:
        """Build the wheels of projects with what is installed, and install them together."""
        dist = Path(tempfile.mkdtemp(prefix="dist-", dir=self.folder))
        self._run(sys.executable, "-c", BUILD, str(dist), *map(str, projects))
        wheels = [str(path) for path in dist.glob("*.whl")]
        assert len(wheels) == len(projects)
        words = ("--quiet", "--no-index", "--no-deps", "--force-reinstall", "--no-compile")
        self._run(str(self.bin / "python"), "-m", "pip", "install", *words, *wheels)

    def __call__(self, command: str, *words: str) -> str:
        """Run a command of the environment in its folder; stdout."""
        return self._run(str(self.bin / command), *words)

    @cached_property
    def warm(self) -> Warm:
        """A process of the environment, of which packages that are installed later are seen too."""
        return Warm({}, python=self.bin / "python")

    def xpo(self, *words: str) -> str:
        """Run `xpo-bench` as the environment has it, in a fork of its warm process; stdout."""
        done: Finished = self.warm.command(self.folder, {})(*words)
        assert done.code == 0, (words, done.out[-3000:] + done.err[-3000:])
        return done.out

    def close(self) -> None:
        if "warm" in vars(self):
            self.warm.close()

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
