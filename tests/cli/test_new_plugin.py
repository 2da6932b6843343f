"""`xpo-bench new-plugin`: a package that builds, installs beside the suite, passes the kit and runs."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
Command = Callable[..., Any]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Upper", "does not match"),
        ("-dash", "No such option"),
        (".dot", "does not match"),
        ("a b", "does not match"),
        ("../up", "does not match"),
        ("x" * 65, "does not match"),
        ("dash-", "names of packages end in a letter or a digit"),
        ("lambda", "is a keyword of Python"),
        ("match", "is a keyword of Python"),
        ("task", "is reserved"),
        ("dpo", "is taken: plugin dpo (xpo-bench "),
    ],
)
def test_names_that_cannot_be_are_refused(warm: Command, tmp_path: Path, name: str, said: str) -> None:
    before = sorted(p.name for p in tmp_path.iterdir())
    done = warm("new-plugin", name)
    assert done.code == 2
    assert len(done.lines) == 1
    assert said in done.err
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".std")) == before


def test_an_existing_directory_is_left_alone(warm: Command, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    done = warm("new-plugin", "fresh", "--dir", "here")
    assert done.code == 2
    assert "here exists" in done.err
    assert list((tmp_path / "here").iterdir()) == []
    assert warm("new-plugin", "fresh", "--dir", "no/such/parent").code == 2


@pytest.mark.parametrize("name", ["7b", "a.b-c_d", "x"])
def test_odd_names_make_modules_that_import(warm: Command, tmp_path: Path, name: str) -> None:
    assert warm("new-plugin", name, "--dir", "made").code == 0
    (module,) = (tmp_path / "made").glob("*.py")
    assert module.stem.isidentifier()
    compile(module.read_text("utf-8"), module.name, "exec")
    listed = warm("check", f"made/{module.name}", "--json")
    assert listed.code == 0, (listed.out, listed.err)
    assert [a["name"] for a in listed.json["algorithms"]] == [name]


def test_the_package_is_built_installed_checked_and_run(tmp_path: Path, warm: Command, fresh: Fresh) -> None:
    assert warm("new-plugin", "apo-zero").code == 0
    project = tmp_path / "xpo-bench-apo-zero"
    assert {str(p.relative_to(project)) for p in project.rglob("*") if p.is_file()} == {
        ".github/workflows/ci.yml",
        ".gitignore",
        "README.md",
        "pyproject.toml",
        "tests/test_xpo_bench_apo_zero.py",
        "xpo_bench_apo_zero.py",
    }
    fresh.install(ROOT)
    fresh.install(project)
    listed = fresh("xpo-bench", "list", "plugins", "--json")
    assert '"distribution":"xpo-bench-apo-zero"' in listed
    assert '"module":"xpo_bench_apo_zero"' in listed
    assert "apo-zero: 26 ok, 1 skipped" in fresh("xpo-bench", "check", "apo-zero")
    assert "apo-zero" in fresh(
        "xpo-bench", "run", "--algos", "dpo,apo-zero", "--tasks", "deterministic", "--steps", "30", "--seeds", "1"
    )
    assert " passed" in fresh("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(project / "tests"))
    # what runs there is the wheel, not the source tree
    assert str(fresh.folder) in fresh("python", "-c", "import xpo_bench; print(xpo_bench.__file__)")


class Fresh:
    """A virtual environment that borrows third-party packages from this one, and nothing of the suite."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder / "env", with_pip=False, symlinks=True)
        self.bin = folder / "env" / "bin"
        self.site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "env")}))
        borrowed = [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
        (self.site / "zz_borrowed.pth").write_text("\n".join(dict.fromkeys([*borrowed, *site.getsitepackages()])) + "\n", "utf-8")

    def install(self, project: Path) -> None:
        """Build a project's wheel with what is installed, and install it."""
        dist = self.folder / f"dist-{project.name}"
        self._run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist), str(project))
        (wheel,) = dist.glob("*.whl")
        words = ("install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--force-reinstall", str(wheel))
        self._run(str(self.bin / "python"), "-m", "pip", *words)

    def __call__(self, command: str, *words: str) -> str:
        """Run a command of the environment in its folder; stdout."""
        return self._run(str(self.bin / command), *words)

    def _run(self, *words: str) -> str:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("XPO_BENCH_", "PYTEST_")) and k != "PYTHONPATH"}
        env |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "100", "TERM": "dumb"}
        done = subprocess.run(words, cwd=self.folder, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, (words, done.stdout[-3000:] + done.stderr[-3000:])
        return done.stdout


@pytest.fixture
def fresh(tmp_path: Path) -> Fresh:
    (tmp_path / "fresh").mkdir()
    return Fresh(tmp_path / "fresh")
