"""`xpo-bench new-plugin`: a package that builds, installs beside the suite, passes the kit and runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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


def test_the_package_is_built_installed_checked_and_run(tmp_path: Path, warm: Command, fresh: Any) -> None:
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
    workflow = (project / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    assert "${{ matrix.python }}" in workflow
    assert "xpo-bench check apo-zero" in workflow
    fresh.install(project)
    listed = fresh("xpo-bench", "list", "plugins", "--json")
    assert '"distribution":"xpo-bench-apo-zero"' in listed
    assert '"module":"xpo_bench_apo_zero"' in listed
    assert "apo-zero: 26 ok, 6 skipped" in fresh.xpo("check", "apo-zero")
    assert "apo-zero" in fresh.xpo(
        "run",
        "--algos",
        "dpo,apo-zero",
        "--tasks",
        "deterministic",
        "--steps",
        "30",
        "--seeds",
        "1",
    )
    assert " passed" in fresh(
        "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(project / "tests")
    )
    # the templates are in the wheel
    assert "wrote xpo-bench-from-wheel" in fresh.xpo("new-plugin", "from-wheel")
    # what runs there is the wheel, not the source tree
    assert str(fresh.folder) in fresh("python", "-c", "import xpo_bench; print(xpo_bench.__file__)")


def test_the_next_steps_end_in_a_package_index(warm: Command, tmp_path: Path) -> None:
    done = warm("new-plugin", "my-loss")
    assert done.code == 0
    assert "python -m pytest" in done.out
    assert "python -m build" in done.out
    readme = (tmp_path / "xpo-bench-my-loss" / "README.md").read_text("utf-8")
    comments = {line.index(" # ") for line in readme.splitlines() if " # " in line}
    assert len(comments) == 1, "the comments of the commands stand in one column"
