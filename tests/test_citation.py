"""CITATION.cff: what version 1.2.0 of its format asks for, and what the package says of itself."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from xpo_bench.version import __version__

ROOT = Path(__file__).parents[1]
REQUIRED = {"cff-version", "message", "title", "authors"}
ENTITY = {
    "name",
    "website",
    "orcid",
    "email",
    "alias",
    "address",
    "city",
    "country",
    "location",
    "region",
    "tel",
}
TEXTS = ("cff-version", "message", "title", "abstract", "type", "version", "license")


@pytest.fixture
def cited() -> dict[str, Any]:
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert isinstance(found, dict)
    return found


@pytest.fixture
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_it_has_what_the_format_asks_for(cited: dict[str, Any]) -> None:
    assert cited.keys() >= REQUIRED
    assert cited.keys() <= {*TEXTS, "authors", "keywords", "repository-code", "url", "date-released", "doi"}
    assert all(isinstance(cited[name], str) and cited[name] for name in TEXTS)  # 1.10 unquoted is a number
    assert (cited["cff-version"], cited["type"]) == ("1.2.0", "software")
    assert cited["authors"]
    for author in cited["authors"]:
        assert author["name"]
        assert author.keys() <= ENTITY  # nobody who did not ask to be named
    assert len(set(cited["keywords"])) == len(cited["keywords"])


def test_it_says_what_the_package_says(cited: dict[str, Any], project: dict[str, Any]) -> None:
    assert cited["version"] == __version__
    about = project["project"]
    assert cited["license"] == about["license"]
    assert cited["keywords"] == about["keywords"]
    assert cited["title"].startswith(f"{about['name']}: ")
    # a link to the code goes where the package's own goes, or nowhere
    assert cited.get("repository-code") == about.get("urls", {}).get("Repository")


def test_it_is_found(project: dict[str, Any]) -> None:
    assert "/CITATION.cff" in project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert "](CITATION.cff)" in (ROOT / "README.md").read_text("utf-8")
