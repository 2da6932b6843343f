"""What OLD and NEW may be, and revisions that are built."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from xpo_bench.compare.speed.installations import Installation, Revision, look, prepare
from xpo_bench.errors import UsageError

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "xpo-bench"
version = "{version}"
[tool.hatch.build.targets.wheel]
packages = ["xpo_bench"]
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A git repository here with a package of the suite's name; commits and returns the hash."""
    root = tmp_path / "repository"
    (root / "xpo_bench").mkdir(parents=True)
    (root / "notes").mkdir()

    def git(*words: str) -> str:
        who = ("-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *who, *words], cwd=root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--quiet")
    monkeypatch.chdir(root / "notes")

    def commit(version: str, project: str = PROJECT) -> str:
        (root / "pyproject.toml").write_text(project.format(version=version), "utf-8")
        (root / "xpo_bench" / "__init__.py").write_text(f"__version__ = {version!r}\n", "utf-8")
        git("add", "--all")
        git("commit", "--quiet", "--message", version)
        return git("rev-parse", "HEAD")

    return commit


def imported(side: Installation, statement: str) -> str:
    done = subprocess.run(
        [str(side.python), "-I", "-c", statement], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_revision_is_built_without_touching_the_working_tree(
    repository: Callable[..., str], tmp_path: Path
) -> None:
    first = repository("1.0")
    repository("2.0")
    root = tmp_path / "repository"
    (root / "xpo_bench" / "__init__.py").write_text("__version__ = 'not committed'\n", "utf-8")
    before = sorted(path.relative_to(root) for path in root.rglob("*") if ".git" not in path.parts)
    found = look("HEAD~1")
    assert isinstance(found, Revision)
    assert found.commit == first
    said: list[str] = []
    side = prepare(found, tmp_path / "built", said.append)
    assert imported(side, "import xpo_bench; print(xpo_bench.__version__, xpo_bench.__file__)").startswith(
        f"1.0 {tmp_path}/built"
    )
    assert imported(side, "import numpy, torch; print('found')") == "found"
    version = "from importlib.metadata import version; print(version('xpo-bench'))"
    assert imported(side, version) == "1.0"
    assert said == [f"building HEAD~1 ({first[:9]})"]
    assert sorted(path.relative_to(root) for path in root.rglob("*") if ".git" not in path.parts) == before
    assert "not committed" in (root / "xpo_bench" / "__init__.py").read_text("utf-8")


def test_a_revision_that_does_not_build_is_one_line(repository: Callable[..., str], tmp_path: Path) -> None:
    commit = repository("1.0", "[build-system\n")
    with pytest.raises(UsageError, match=rf"HEAD \({commit[:9]}\) cannot be built: .*") as raised:
        prepare(look("HEAD"), tmp_path / "built", lambda _: None)
    assert "\n" not in str(raised.value)


def test_a_revision_that_does_not_exist(repository: Callable[..., str]) -> None:
    repository("1.0")
    for name in ("no-such-branch", "--all", "HEAD~9", ""):
        with pytest.raises(UsageError, match="no such revision"):
            look(name)


def test_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UsageError, match=r"main: want .*in no git repository"):
        look("main")


def test_a_directory_without_an_interpreter(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    with pytest.raises(UsageError, match="no virtual environment, it has no bin/python"):
        look(str(tmp_path))


def test_an_environment_is_taken_as_it_is(tmp_path: Path) -> None:
    venv.EnvBuilder(with_pip=False, symlinks=True).create(tmp_path / "home")
    side = look(str(tmp_path / "home"))
    assert isinstance(side, Installation)
    assert prepare(side, tmp_path / "unused", lambda _: None) is side
    assert not (tmp_path / "unused").exists()
    assert Path(imported(side, "import sys; print(sys.prefix)")) == tmp_path / "home"
    assert imported(side, "import sys; print(sys.prefix)") != sys.prefix
