"""The site that docs/build.py writes: a page per algorithm, the ledger of claims, links that resolve."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import pytest
from claim_files import HEAD, RUNS, claim_file
from modules import imported

from xpo_bench.claims.definition import read
from xpo_bench.claims.document import told
from xpo_bench.claims.ledger import judge_all
from xpo_bench.claims.pages import effect, markdown
from xpo_bench.errors import UsageError
from xpo_bench.runner import listing
from xpo_bench.runner.progress import Reporter

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^)\s]+)\)")
NEARER = """
[[tests]]
says = "IPO stays nearer"
metric = "kl"
a = { algo = "ipo" }
b = { algo = "dpo" }
expect = "lower"
"""
ALONE = """
[[tests]]
says = "it earns what nobody knows"
metric = "gold_reward"
a = { algo = "ipo" }
value = 1.0
expect = "higher"
"""


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """docs/build.py, which finds its neighbour as it does when it runs as a script."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    return imported(ROOT / "docs" / "build.py", "build", monkeypatch)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `claims --json` prints of two small claims, of which one is on ipo alone."""
    folder = tmp_path_factory.mktemp("ledger")
    files = [
        claim_file(folder, HEAD + RUNS + NEARER, "nearer"),
        claim_file(folder, HEAD.replace("a beats b", "it is a|b") + RUNS + ALONE, "odd_one"),
    ]
    claims = [(read(file), "file") for file in files]
    found = judge_all(claims, folder / "runs", Reporter(True), lambda entry: None, device="cpu")
    path = folder / "claims.json"
    path.write_text(json.dumps(found), "utf-8")
    return path


def test_pages_of_algorithms_draw_the_curves_of_a_run(builder: ModuleType) -> None:
    pages = builder.algorithm_pages
    drawn = pages.portraits(["dpo", "ipo", "sft"], seeds=1)
    assert set(drawn) == {"dpo", "ipo", "sft"}
    for name, svg in drawn.items():
        assert f"({name}.svg)" in next(pages.page(cls) for cls in pages.algorithms() if cls.name == name)
        lines = ET.fromstring(svg).findall(".//{*}g[@id='axes_1']/{*}g[@id]")
        assert sum(g.get("id", "").startswith("line2d") for g in lines) >= (
            2 if name in ("dpo", "ipo") else 3
        )


def test_every_algorithm_has_a_page_of_all_that_it_declares(builder: ModuleType) -> None:
    module = builder.algorithm_pages
    pages = {cls.name: module.page(cls) for cls in module.algorithms()}
    assert pages.keys() == {
        row["name"] for row in listing.rows("algos") if row["distribution"] == "xpo-bench"
    }
    for row in listing.rows("algos"):
        if row["name"] in pages:
            page = pages[row["name"]]
            assert row["source"] in page
            assert row["paper"]
            assert row["paper"] in page
            assert row["about"] in page
            assert all(f"| `{name}` | {value!r} |" in page for name, value in row["fields"].items())
            assert all(sentence in page for sentence in row["docs"].values())
    assert "robust" in pages["robust"].split("## Mistakes found elsewhere")[1]


def test_the_site_is_plain_markdown_with_links_that_resolve(
    builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Path
) -> None:
    module = builder.algorithm_pages
    few = [cls for cls in module.algorithms() if cls.name in ("dpo", "ipo")]
    monkeypatch.setattr(module, "algorithms", lambda: few)
    monkeypatch.setattr(builder.claimed, "LEDGER", ledger)
    builder.write_site(tmp_path / "site", seeds=1)
    drawn = {cls.name: (tmp_path / "site/pages/algorithms" / f"{cls.name}.svg").read_bytes() for cls in few}
    monkeypatch.setattr(module, "portraits", lambda *_: drawn)  # of one run
    builder.write_site(tmp_path / "site", seeds=1)  # an earlier build is replaced
    pages = tmp_path / "site" / "pages"
    written = {path.relative_to(pages).as_posix() for path in pages.rglob("*") if path.is_file()}
    assert {"index.md", "LICENSE.md", "algorithms/dpo.md", "algorithms/dpo.svg"} <= written
    assert (pages / "results/claims.md").read_text("utf-8") == markdown(json.loads(ledger.read_text("utf-8")))
    assert "(../results/claims.md#nearer)" in (pages / "algorithms/dpo.md").read_text("utf-8")
    for page in pages.rglob("*.md"):
        prose = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in LINK.findall(prose):
            if not target.startswith(("http", "#")):
                assert (page.parent / target.split("#")[0]).is_file(), (page, target)
    nav = (tmp_path / "site" / "mkdocs.yml").read_text("utf-8").split("\nnav:\n")[1]
    listed = set(re.findall(r"[\w/.-]+\.md", nav))
    assert listed == {name for name in written if name.endswith(".md")}


def test_a_link_to_what_is_not_on_the_site_is_an_error(builder: ModuleType, tmp_path: Path) -> None:
    places = builder.sources()
    assert builder.relinked("[a](docs/cli.md#run) [b](LICENSE)", "README.md", places) == (
        "[a](cli.md#run) [b](LICENSE.md)"
    )
    code = "```python\nf[x](tox.ini)\n```"
    assert builder.relinked(code, "README.md", places) == code
    with pytest.raises(ValueError, match=r"links to tox\.ini, which is not on the site"):
        builder.relinked("[c](../../tox.ini)", "examples/aot/README.md", places)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds something other than the site"):
        builder.write_site(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_the_page_of_an_algorithm_lists_what_the_ledger_says_of_it(
    builder: ModuleType, monkeypatch: pytest.MonkeyPatch, ledger: Path
) -> None:
    monkeypatch.setattr(builder.claimed, "LEDGER", ledger)
    found = builder.claimed.last_ledger()
    nearer, odd = found["claims"]
    module = builder.algorithm_pages
    pages = {cls.name: module.page(cls, ledger=found) for cls in module.algorithms()}
    title = "\n## What is claimed of it\n"
    assert sorted(name for name, page in pages.items() if title in page) == ["dpo", "ipo"]
    said = {name: pages[name].split(title)[1].split("\n## ")[0] for name in ("dpo", "ipo")}
    own = nearer["tests"][0]["difference"]
    line = f"- [nearer](../results/claims.md#nearer): **{told(nearer)}**. a beats b First test: "
    assert own["mean"] < 0
    for text in said.values():
        shown = next(row for row in text.splitlines() if row.startswith(line))
        assert f"= {effect(own)}: " in shown
        assert f"[the ledger](../results/claims.md) of {found['created'][:10]}, xpo-bench 0" in text
    # one that no number was found for, and whose text is no markup
    assert "odd" not in said["dpo"]
    assert (
        r"- [odd\_one](../results/claims.md#odd_one): **undecided**. it is a\|b First test: ? " in said["ipo"]
    )
    assert odd["verdict"] == "undecided"


def test_without_a_ledger_nothing_is_said_of_claims(
    builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder.claimed, "LEDGER", tmp_path / "claims.json")
    assert builder.claimed.last_ledger() is None
    module = builder.algorithm_pages
    assert all("What is claimed" not in module.page(cls) for cls in module.algorithms())
    assert "results/claims.md" not in builder.configuration(["dpo"], False)
    assert builder.configuration(["dpo"], True).count("      - results/claims.md\n") == 1
    (tmp_path / "claims.json").write_text("{}", "utf-8")
    with pytest.raises(UsageError, match=r"claims\.json: no ledger"):
        builder.write_site(tmp_path / "site")
