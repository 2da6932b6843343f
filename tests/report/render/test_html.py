"""The page of a report: whole without a network, and whatever names and texts hold stays text."""

from __future__ import annotations

import copy
import csv
import json
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import xpo_bench
from xpo_bench.report.content import assemble
from xpo_bench.report.render.html import page, sort_key
from xpo_bench.report.render.markdown import escape, markdown
from xpo_bench.result import Result
from xpo_bench.runner.store import Store

Make = Callable[..., dict[str, Any]]

EVIL = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    "\x1b[31m[bold]$\\frac{1}$ {{ 7*7 }} \"' style='x'\u202e"
)
VOID = {"meta", "link", "br", "img", "input", "wbr", "hr"}


class Page(HTMLParser):
    """What a browser would find: elements with attributes, text, and tags that do not nest."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = source
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Algorithms of all kinds on a world with a reward and one without, a sweep among them."""
    return xpo_bench.run(
        "dpo,ipo,kto,npo,rlhf,sft",
        tasks="bandit,deterministic",
        seeds=2,
        steps=60,
        set={"dpo.beta": [0.1, 0.5]},
        out=tmp_path_factory.mktemp("page") / "run",
    )


@pytest.fixture(scope="module")
def html(run: Result) -> Page:
    return made(run.out)


def made(root: Path) -> Page:
    store = Store(root)
    return Page(page(assemble(root, store.records(), store.read_run())))


def alter(run: Result, root: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the run directory with changed records."""
    shutil.copytree(run.out, root)
    for path in root.glob("cells/*.json"):
        record = json.loads(path.read_bytes())
        change(record)
        path.write_text(json.dumps(record), "utf-8")
    return root


def test_every_algorithm_task_and_number_is_there(run: Result, html: Page) -> None:
    assert not html.open
    for name in ("dpo beta=0.1", "dpo beta=0.5", "ipo", "kto", "rlhf", "sft", "bandit", "deterministic"):
        assert name in html.text
    shown = re.sub(r"_\s+", "_", html.text)  # headers may break behind an underscore
    for row in run.summary():
        for metric in ("kl", "rejected_drift"):
            if metric in row["metrics"]:
                assert metric in shown
    assert "Rafailov et al. 2023, eq. 7" in shown
    assert "loss = −log σ(β Δ)" in shown
    for r in run.cells:
        assert r["key"] in shown


def test_figures_are_svg_with_text_as_text_and_identifiers_of_their_own(html: Page) -> None:
    plots = [f for f in re.findall(r"<svg .*?</svg>", html.source, re.DOTALL) if 'role="img"' in f]
    captions = re.findall("<figcaption>(.*?)</figcaption>", html.source)
    # the frontier, curves and losses of two tasks, and a sweep on either
    assert sorted(c.split(": ")[1].split(" ")[0] for c in captions) == [
        *["curves"] * 2, "reward", *["where"] * 2, *["whether"] * 2,
    ]  # fmt: skip
    assert len(plots) > 2 * len(captions)  # a picture per panel
    assert "image" not in [tag for tag, _ in html.elements]
    assert "log π rejected (nats)" in html.text
    ids = [attrs["id"] for _, attrs in html.elements if "id" in attrs]
    assert len(set(ids)) == len(ids)
    for plot in plots:
        root = ET.fromstring(plot)
        own = {e.get("id") for e in root.iter() if e.get("id")}
        used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', plot))
        assert {a or b for a, b in used} <= own
        assert "style" not in {name for e in root.iter() for name in e.attrib}
    # a legend has the marker and the dashes of its lines
    entries = re.findall(r'<span class="entry".*?</span>', html.source, re.DOTALL)
    assert sum(entry.count("<path") == 2 for entry in entries) == len(
        [e for e in entries if "exact" not in e]
    )
    assert any("stroke-dasharray" in entry for entry in entries)


def test_the_numbers_of_every_chart_stand_beside_it(html: Page) -> None:
    figures = re.findall("<figure>.*?</figure>", html.source, re.DOTALL)
    assert figures
    for figure in figures:
        (text,) = re.findall(r'<details class="data">.*?<pre>(.*?)</pre></details>', figure, re.DOTALL)
        title, header, *rows = text.split("\n\n")[0].splitlines()
        assert title.startswith("# ")
        assert rows
        assert {len(row) for row in csv.reader(rows)} == {len(next(csv.reader([header])))}


def test_nothing_is_fetched_and_the_policy_allows_nothing(html: Page) -> None:
    import base64
    import hashlib

    for tag, attrs in html.elements:
        assert tag not in ("iframe", "object", "embed", "base", "form", "img", "audio", "video", "source")
        assert not any(
            name.startswith("on") or name in ("src", "style", "srcset", "action") for name in attrs
        ), (tag, attrs)
        for name in ("href", "xlink:href"):
            target = attrs.get(name)
            assert target is None or target.startswith("#") or target == "data:,", (tag, attrs)
    styles = re.findall(r"<style>(.*?)</style>", html.source, re.DOTALL)
    scripts = re.findall(r"<script>(.*?)</script>", html.source, re.DOTALL)
    assert (len(styles), len(scripts)) == (1, 1)
    assert not re.search(r"@import|url\(", styles[0])
    assert not re.search(r"fetch|XMLHttp|import|innerHTML|eval|https?:", scripts[0])
    (policy,) = [m["content"] for m in html.named("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    for text, kind in ((styles[0], "style-src"), (scripts[0], "script-src")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}';" in policy
    assert "unsafe" not in policy


def test_it_is_small_and_equal_records_give_equal_bytes(run: Result, html: Page) -> None:
    assert len(html.source.encode()) < 400_000
    assert made(run.out).source == html.source


def test_names_and_texts_stay_text(run: Result, html: Page, tmp_path: Path) -> None:
    def plant(record: dict[str, Any]) -> None:
        record["task"]["name"] += EVIL
        record["task"]["data"]["source"] = EVIL
        record["task"]["model"]["name"] = EVIL
        record["task"]["options"] = {EVIL: EVIL}
        record["environment"] = {"processor": EVIL, "packages": {EVIL: EVIL}, "device": EVIL}
        record["experiment"] = EVIL
        record["algorithm"] |= {"version": EVIL, "distribution": EVIL, "plugin": EVIL}
        record["train"]["optimizer"] = EVIL
        if record["algorithm"]["name"] == "sft":
            record["algorithm"]["name"] = EVIL
            record |= {
                "status": "failed",
                "metrics": {},
                "error": {"type": EVIL, "message": EVIL, "traceback": EVIL},
            }

    root = alter(run, tmp_path / "run", plant)
    document = json.loads((root / "run.json").read_bytes())
    document["commands"] = [{"argv": ["xpo-bench", EVIL], "at": EVIL}]
    document["skipped"] = [{"algorithm": EVIL, "task": EVIL, "reason": EVIL}]
    document["unreachable"] = [{"task": EVIL, "reason": EVIL}]
    (root / "run.json").write_text(json.dumps(document), "utf-8")
    evil = made(root)
    assert not evil.open
    assert len(evil.named("script")) == 1
    assert {tag for tag, _ in evil.elements} <= {tag for tag, _ in html.elements} | {"text", "tspan"}
    names = {name for _, attrs in evil.elements for name in attrs}
    assert not {n for n in names if n.startswith("on")} | names & {"src", "style"}
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", evil.source)
    assert "alert(1)" in evil.text
    assert "[bold]$\\frac{1}$ {{ 7*7 }}" in evil.text
    text = markdown(assemble(root, Store(root).records(), document))
    assert "<script" not in text
    assert "<img" not in text
    assert "\x1b" not in text
    assert not re.search(r"(?<!\\)\[bold", text)


@pytest.mark.parametrize(
    "keep", ["one cell", "one seed", "no curves", "broken curves", "failed", "diverged", "no run.json"]
)
def test_incomplete_runs(run: Result, tmp_path: Path, keep: str) -> None:
    def change(record: dict[str, Any]) -> None:
        if keep == "failed":
            error = {"type": "ValueError", "message": "the loss is a horse", "traceback": ""}
            record |= {"status": "failed", "metrics": {}, "timing": {}, "final_policy": None, "error": error}
        if keep == "diverged" and record["algorithm"]["name"] == "ipo":
            record["status"] = "diverged"
            record["metrics"] |= {"kl": None, "rejected_prob": 0.0}

    root = alter(run, tmp_path / "run", change)
    for i, path in enumerate(sorted(root.glob("cells/*.json"))):
        record = json.loads(path.read_bytes())
        if (keep == "one cell" and i) or (keep == "one seed" and record["seed"]):
            path.unlink()
    for path in root.glob("curves/*.parquet"):
        if keep == "no curves":
            path.unlink()
        if keep == "broken curves":
            path.write_bytes(b"PAR1 no more")
    if keep == "no run.json":
        (root / "run.json").unlink()
    done = made(root)
    assert not done.open
    plots = len([1 for e in done.named("svg") if e.get("role") == "img"])
    if keep in ("no curves", "broken curves"):
        assert plots == 4  # the two panels of a sweep, on either task, come from records
    if keep == "failed":
        assert plots == 0
        assert "the loss is a horse" in done.text
    if keep == "diverged":
        assert "2 diverged" in done.text
    if keep == "one seed":
        assert "1 seed, no interval" in done.text
    assert markdown(assemble(root, Store(root).records())).startswith("# xpo-bench: run\n")


def test_a_language_models_and_an_unlearning_tasks_records(record: Make, tmp_path: Path) -> None:
    cells = [
        record(
            "npo",
            "tofu",
            seed,
            forget_logp=-3.0 - seed,
            retain_logp=-1.0,
            kl=0.2,
            data={"kind": "forget_retain"},
        )
        for seed in range(2)
    ]
    cells += [
        record("dpo", "ukp", s, kl=0.2, pairs_per_s=3.0 + s, overhead=1.2, reward_accuracy=0.6)
        for s in range(2)
    ]
    cells += [record("ipo", "ukp", s, kl=0.2, pairs_per_s=4.0 + s, reward_accuracy=0.6) for s in range(2)]
    cells += [record("dpo", "bandit", s, kl=0.2, pairs_per_s=3e6, vectorised=4) for s in range(2)]
    done = Page(page(assemble(tmp_path, cells)))
    assert "tofu (unlearning)" in done.text
    assert "step time over a plain loop" in done.text
    # a shared clock compares nothing
    captions = re.findall("<figcaption>(.*?)</figcaption>", done.source)
    assert [c for c in captions if ": speed of" in c] == ["ukp: speed of training, evaluation excluded."]


def test_articles_experiments_have_their_figures(article: Result) -> None:
    done = made(article.out)
    assert article.ok
    for text in ("DPO overfits one pair", "Why RLHF is more robust", "votes per pair (true preference .8)"):
        assert text in done.text
    assert "mathdefault" not in done.source


def test_an_algorithm_that_is_not_installed_is_said_to_be_so(run: Result, tmp_path: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        record["algorithm"]["name"] = record["algorithm"]["name"].replace("sft", "gone")
        record["algorithm"]["version"] = "9"

    done = made(alter(run, tmp_path / "run", change))
    assert "plugin sft of xpo-bench 9; not installed where this page was made" in done.text
    assert "what is told here is of version" in done.text


def test_sort_keys_are_the_numbers_that_cells_begin_with() -> None:
    cells = [
        "0.71±0.03",
        "-2.2e-5",
        "3.1±0.2 T",
        "42.5 G",
        "–",
        "20 in 2/3",
        "3 ok",
        "",
        "dpo",
        "1e+06",
        "0.7±1e-3 k",
    ]
    assert [sort_key(c) for c in cells] == [
        "0.71", "-2.2e-05", "3100000000000.0", "42500000000.0", "", "20.0", "3.0", "", "", "1000000.0",
        "700.0",
    ]  # fmt: skip


def test_markdown_has_the_verdict_and_the_findings(run: Result) -> None:
    skipped = {"skipped": [{"algorithm": "a", "task": "b", "reason": "c|d"}]}
    text = markdown(assemble(Path("my_run"), Store(run.out).records(), skipped))
    assert text.startswith(
        "# xpo-bench: my\\_run\n\n## Which algorithm? 2 tasks, 2 seeds, within 1 nat of KL\n\n| algorithm |"
    )
    assert "\n| ipo | " in text
    assert "- a on b: c\\|d\n" in text
    assert "<summary>bandit</summary>" in text
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(tables) == 6  # the verdict, against the baseline, two tasks, and what was run
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1
    assert "**" not in tables[0]  # its words say who is best
    assert "**" in tables[2]
    assert "What the numbers show" in text


def test_markdown_shows_text_as_it_is() -> None:
    assert escape("a|b_c*d`e`[x](y)") == r"a\|b\_c\*d\`e\`\[x\](y)"
    assert escape("<b>&amp; @me #12\n\x1b[1m!") == r"&lt;b&gt;&amp;amp; @<!-- -->me \#12 \!"
    assert "https:" not in escape("https://e.org www.e.org")
    assert "www." not in escape("https://e.org www.e.org")


def test_pyplot_is_left_alone(run: Result) -> None:
    import matplotlib

    before = copy.copy(matplotlib.rcParams)
    made(run.out)
    assert matplotlib.rcParams == before
