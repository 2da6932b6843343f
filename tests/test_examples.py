"""The worked third-party packages: each is built, installed beside the suite's wheel, tested and run."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
COMMANDS = {
    "aot": ["--algos", "dpo,aot", "--tasks", "bandit,deterministic", "--set", "aot.pairing=unpaired,paired"],
    "beta_dpo": [
        "--algos",
        "dpo,beta-dpo",
        "--tasks",
        "bandit",
        "--batch-size",
        "32",
        "--set",
        "beta-dpo.alpha=0,0.6",
    ],
    "tdpo": ["--algos", "dpo,tdpo1,tdpo2", "--tasks", "bandit,tokens"],
    "csv_task": ["--algos", "dpo,ipo", "--tasks", "tea"],
}
CLAIMS = {"claim": "cdpo-stops"}
"""Examples that `claims` runs, and their claims."""
PACKAGES = [*COMMANDS, *CLAIMS]


def test_every_example_is_here() -> None:
    assert sorted(path.name for path in EXAMPLES.iterdir() if (path / "pyproject.toml").is_file()) == sorted(
        PACKAGES
    )


@pytest.fixture(scope="module")
def tested(fresh: Any, tmp_path_factory: pytest.TempPathFactory) -> ET.Element:
    """The report of all their tests: each is built, and installed beside the suite's wheel."""
    folder = tmp_path_factory.mktemp("examples")
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "dist")
        shutil.copytree(EXAMPLES / name, folder / name, ignore=ignored)
    fresh.install(*(folder / name for name in PACKAGES))
    words = ("-q", "-p", "no:cacheprovider", "--import-mode=importlib", f"--junitxml={folder / 'report.xml'}")
    fresh("python", "-m", "pytest", *words, *(str(folder / name / "tests") for name in PACKAGES))
    return ET.parse(folder / "report.xml").getroot()


@pytest.mark.parametrize("name", PACKAGES)
def test_an_example_passes_its_tests(tested: ET.Element, name: str) -> None:
    modules = {path.stem for path in (EXAMPLES / name / "tests").glob("test_*.py")}
    own = [c for c in tested.iter("testcase") if c.attrib["classname"].split(".")[-1] in modules]
    assert [case for case in own if not len(case)], "a test that has passed has nothing below it"


@pytest.mark.usefixtures("tested")
@pytest.mark.parametrize("name", COMMANDS)
def test_an_example_is_run(fresh: Any, tmp_path: Path, name: str) -> None:
    words = ["run", *COMMANDS[name], "--steps", "10", "--seeds", "1", "--out", str(tmp_path / "run")]
    shown = fresh.xpo(*words)
    assert "Not ok" not in shown
    assert COMMANDS[name][3].split(",")[0] in shown


@pytest.mark.usefixtures("tested")
@pytest.mark.parametrize("name", CLAIMS)
def test_the_claim_of_an_example_has_a_verdict(fresh: Any, tmp_path: Path, name: str) -> None:
    assert CLAIMS[name] in fresh.xpo("list", "claims")
    shown = fresh.xpo("claims", CLAIMS[name], "--quiet", "--out", str(tmp_path / "claims"))
    assert f"{CLAIMS[name]}: holds\n" in shown
