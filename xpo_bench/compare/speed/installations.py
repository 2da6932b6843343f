"""The two installations to compare: virtual environments, or git revisions built into temporary ones."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xpo_bench.errors import UsageError

SITES = ("site-packages", "dist-packages")
SCRIPTS = "Scripts" if os.name == "nt" else "bin"
PYTHON = "python.exe" if os.name == "nt" else "python"


@dataclass(frozen=True)
class Installation:
    """An interpreter whose environment holds the xpo_bench to measure.

    Attributes:
        name: the word on the command line. python: path of the interpreter, not resolved: a virtual
            environment's is a link.
        commit: of a revision.
    """

    name: str
    python: Path
    commit: str | None = None


@dataclass(frozen=True)
class Revision:
    """A commit of the repository that holds the current directory."""

    name: str
    commit: str
    top: Path


def look(name: str) -> Installation | Revision:
    """The meaning of a word on the command line: a directory with bin/python, or a revision.

    Raises:
        UsageError: neither; or a directory without an interpreter.
    """
    path = Path(name)
    if name and path.is_dir():
        python = path.absolute() / SCRIPTS / PYTHON
        if python.is_file():
            return Installation(name, python)
        if os.sep in name or path.is_absolute():
            raise UsageError(f"{name}: no virtual environment, it has no {SCRIPTS}/{PYTHON}")
    wanted = "want a virtual environment (a directory with bin/python) or a git revision"
    try:
        top = git(Path.cwd(), "rev-parse", "--show-toplevel")
        commit = git(Path.cwd(), "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except FileNotFoundError:
        raise UsageError(f"{name or repr(name)}: {wanted}, and git is not installed") from None
    if top is None:
        raise UsageError(f"{name or repr(name)}: {wanted}, and the current directory is in no git repository")
    if commit is None:
        raise UsageError(f"{name or repr(name)}: {wanted}, and this repository has no such revision")
    return Revision(name, commit, Path(top))


def git(where: Path, *words: str) -> str | None:
    """What git prints; None when it refuses."""
    done = subprocess.run(["git", "-C", str(where), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def prepare(found: Installation | Revision, folder: Path, note: Callable[[str], None]) -> Installation:
    """An environment as it is; of a revision, one that is built under `folder`.

    A built environment holds the revision's own packages alone, and finds everything else where the present
    interpreter does. The working tree is not touched: the sources come out of `git archive`.

    Args:
        folder: an empty directory, which the caller removes. note: takes lines on progress.

    Raises:
        UsageError: the revision cannot be built.
    """
    if isinstance(found, Installation):
        return found
    short = found.commit[:9]
    note(f"building {found.name} ({short})")
    source, wheels, home, scratch = (
        folder / part for part in ("source", "wheels", "environment", "temporary")
    )
    source.mkdir(parents=True)
    scratch.mkdir()
    archive = folder / "source.zip"
    _execute(["git", "-C", str(found.top), "archive", f"--output={archive}", found.commit], found, scratch)
    shutil.unpack_archive(archive, source)
    venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt").create(home)
    python = home / SCRIPTS / PYTHON
    pip = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
    if importlib.util.find_spec("pip") is None:
        raise UsageError(
            f"{found.name}: building a revision needs pip, which {sys.executable} lacks; name environments"
        )
    isolated = [] if importlib.util.find_spec("hatchling") is None else ["--no-build-isolation"]
    _execute([*pip, "wheel", "--no-deps", *isolated, "--wheel-dir", str(wheels), str(source)], found, scratch)
    built = sorted(map(str, wheels.glob("*.whl")))
    _execute([*pip, "--python", str(python), "install", "--no-deps", "--no-index", *built], found, scratch)
    # Third-party packages come from the present interpreter, so that only the suite itself differs. Written
    # after the installation, which would otherwise take the present packages for its own
    purelib(home).joinpath("present.pth").write_text("\n".join(present()) + "\n", "utf-8")
    return Installation(found.name, python, found.commit)


def present() -> list[str]:
    """The directories of installed packages of this interpreter."""
    return [path for path in sys.path if Path(path).name in SITES and Path(path).is_dir()]


def purelib(home: Path) -> Path:
    """Where packages of a virtual environment lie."""
    scheme = "venv" if "venv" in sysconfig.get_scheme_names() else sysconfig.get_default_scheme()
    return Path(sysconfig.get_path("purelib", scheme, vars={"base": str(home), "platbase": str(home)}))


def _execute(argv: Sequence[str], found: Revision, scratch: Path) -> None:
    """Run a step of the build, whose temporary files lie in `scratch`."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with process_group(argv, env=os.environ | {"TMPDIR": str(scratch)}, **streams) as process:
        said, _ = process.communicate()
    if process.returncode:
        lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
        why = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no message")
        raise UsageError(f"{found.name} ({found.commit[:9]}) cannot be built: {why.strip()}")


@contextlib.contextmanager
def process_group(argv: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a session of its own: Ctrl-C does not reach it, and its group ends with the block.

    Args:
        options: of `subprocess.Popen`.
    """
    process = subprocess.Popen(argv, start_new_session=True, **options)
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that still runs, and those that it has started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
