"""One report, five renderings: terminal, Markdown, LaTeX, page and JSON say the same."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from latex import printed
from rich.console import Console

import xpo_bench
from xpo_bench.report.content import Comparison, Report, assemble
from xpo_bench.report.render.html import page
from xpo_bench.report.render.json import report_document
from xpo_bench.report.render.latex import latex
from xpo_bench.report.render.markdown import markdown
from xpo_bench.report.render.terminal import print_report
from xpo_bench.report.task_figures import CurvesFigure
from xpo_bench.runner.store import Store

CURVES = "Curves, mean over seeds"
"""How figures of curves are drawn in text."""


@dataclass
class Said:
    """What a rendering says: titles of its tables, and its sentences."""

    tables: set[str] = field(default_factory=set)
    sentences: set[str] = field(default_factory=set)

    def table(self, title: str) -> None:
        """A table that is no drawing of curves."""
        if title != CURVES:
            self.tables.add(title)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One directory with a sweep, an article's experiments, a target KL, a tuned protocol, what does not fit
    and what cannot be had.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("content") / "run"
    xpo_bench.run("dpo,ipo", tasks="bandit", seeds=2, steps=30, set={"dpo.beta": [0.1, 0.5]}, out=out)
    xpo_bench.run("ipo,sft", tasks="one_pair", target_kl=0.2, seeds=1, out=out)
    xpo_bench.run("dpo,sft", tasks="deterministic", protocol="tuned", trials=2, seeds=2, steps=10, out=out)
    plan = out.with_name("plan.toml")
    plan.write_text('algos = "dpo,ipo"\ntasks = "cycle,dominated"\nexperiment = "bandit"\n', "utf-8")
    labelled = xpo_bench.run(file=plan, steps=5, seeds=1, out=out)
    for cell in labelled.cells:  # as if it were the suite's own: that takes minutes
        (out / "cells" / f"{cell['key']}.json").write_text(json.dumps(cell | {"suite": "article"}), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("XPO_BENCH_DATA", raising=False)
        xpo_bench.run("ipo", tasks="bandit,ukp", seeds=2, steps=30, out=out)
    yield out
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def report(run: Path) -> Report:
    store = Store(run)
    skipped = [{"algorithm": a, "task": "tofu", "reason": "needs pairs"} for a in ("dpo", "ipo")]
    document = store.read_run() | {"skipped": skipped}
    return assemble(run, store.records(), document, comparison=Comparison("dpo beta=0.1"))


def terminal(report: Report, width: int = 4000) -> str:
    """What is printed, with styles; so wide that no line is broken."""
    console = Console(width=width, file=io.StringIO(), record=True, force_terminal=True)
    print_report(console, report)
    return console.export_text(styles=True)


def said_on_a_terminal(text: str) -> Said:
    said, title = Said(), ""
    for line in text.splitlines():
        if bold := re.fullmatch(r"\x1b\[1m(.*?)\x1b\[0m *", line):
            title = bold[1].strip()
        elif line.startswith("──"):
            said.table(title)
        elif line.startswith("- "):
            said.sentences.add(line[2:].strip())
    return said


def said_in_markdown(text: str) -> Said:
    said, title, before = Said(), "", ""
    for line in text.splitlines():
        if heading := re.fullmatch(r"(?:## |\*\*|<summary>)(.*?)(?:\*\*|</summary>)?", line):
            title = plain(heading[1])
        elif line.startswith("| ") and not before.startswith("| "):
            said.table(title)
        elif line.startswith("- "):
            said.sentences.add(plain(line[2:]))
        before = line
    return said


def plain(text: str) -> str:
    """Markdown's escapes undone."""
    return unescape(re.sub(r"\\([^\sA-Za-z0-9])", r"\1", text.replace("<!-- -->", "")))


def said_in_latex(text: str) -> Said:
    """The captions as the list of tables has them, and the points of lists."""
    said = Said()
    for title in re.findall(r"^  \\caption\[(.*?)\]\{", text, re.MULTILINE):
        said.table(printed(title))
    said.sentences.update(printed(item) for item in re.findall(r"^  \\item (.*)$", text, re.MULTILINE))
    return said


class Page(HTMLParser):
    """What stands in the sections of a page, its reference of algorithms apart."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.said, self.captions, self.title, self.text = Said(), set[str](), "", ""
        self.feed(source[: source.index('<section id="algorithms">')])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("h2", "h3", "li", "figcaption"):
            self.text = ""
        if tag == "table":
            self.said.table(self.title)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("h2", "h3"):
            self.title = self.text
        if tag == "li":
            self.said.sentences.add(self.text)
        if tag == "figcaption":
            self.captions.add(self.text.removesuffix("."))

    def handle_data(self, data: str) -> None:
        self.text += data


def said_as_json(document: dict[str, Any]) -> Said:
    said = Said()
    for table in document["tables"]:
        said.table(table["title"])
    for section in document["sections"]:
        said.sentences.update(section["sentences"])
    return said


def test_five_renderings_say_the_same(report: Report) -> None:
    on_a_terminal = said_on_a_terminal(terminal(report))
    assert len(on_a_terminal.tables) > 9
    assert len(on_a_terminal.sentences) > 9
    for other in (
        said_in_markdown(markdown(report)),
        said_in_latex(latex(report, ["xpo-bench", "report"])),
        Page(page(report)).said,
        said_as_json(report_document(report)),
    ):
        assert other.tables == on_a_terminal.tables
        assert other.sentences == on_a_terminal.sentences


def test_the_answer_comes_first_in_every_rendering(report: Report) -> None:
    question, sentence = report.sections[0].title, report.sections[0].sentences[0]
    assert question.startswith("Which algorithm? ")
    document = report_document(report)
    assert document["sections"][0]["title"] == document["tables"][0]["title"] == question
    for text, heading in ((terminal(report), ""), (plain(markdown(report)), "## "), (page(report), "<h2>")):
        answer, rest = (text.index(heading + title) for title in (question, "Against "))
        assert answer < text.index(sentence) < rest
    by_task = {v["task"]: v for v in document["verdicts"]}
    assert [row["label"] for row in by_task["bandit"]["rows"]] == [
        g.label for g in report.groups if g.task == "bandit"
    ]


def test_nothing_of_the_run_is_left_out(report: Report) -> None:
    assert {section.name for section in report.sections} == {
        *(
            "experiment",
            "verdict",
            "tuned",
            "target",
            "task",
            "matched",
            "sweeps",
            "throughput",
            "against",
        ),
        *("ran", "data", "findings", "not_run"),
    }
    tables = {table.title for table in report.tables}
    assert {
        "Regularisers at the target KL",
        "Metrics at matched KL and matched compute",
        "Against dpo beta=0.1",
    } <= tables
    assert any(title.startswith("Default and tuned: deterministic") for title in tables)
    unreachable, skipped = report.sentences("not_run")
    assert unreachable.startswith("ukp: ")
    assert skipped == "dpo, ipo on tofu: needs pairs"
    targets, sentences = report.document.targets, report.sentences("target")
    reasons = [f"{t['algorithm']} on {t['task']}: {t['reason']}" for t in targets if t["reason"]]
    checkpoints = [f"{t['algorithm']} † on {t['task']}: " for t in targets if t["value"] is None]
    assert sentences[: len(reasons)] == reasons
    for line, start in zip(sentences[len(reasons) :], checkpoints, strict=True):
        assert line.startswith(start)


def test_the_page_draws_the_figures_that_json_names(report: Report) -> None:
    named = {caption for s in report_document(report)["sections"] for caption in s["figures"]}
    assert Page(page(report)).captions == named
    shown = {caption.split(": ")[1].split(" ")[0] for caption in named}
    # frontier, curves, losses, sweeps and experiments; on one_pair the row held at the target KL and the
    # checkpoint of the other ran alone, each on a clock of its own
    assert shown == {"reward", "curves", "whether", "where", "final", "speed"}


def test_text_draws_a_line_for_every_curve_of_the_page(report: Report) -> None:
    figures = [f for s in report.sections for f in s.figures if isinstance(f, CurvesFigure)]
    drawn = sorted((g.label, g.task) for f in figures for g in f.rows)
    assert drawn
    on_a_terminal = terminal(report).split(CURVES)[1].split("as they were run")[0].splitlines()[3:]
    in_markdown = [plain(line).split(" | ") for line in markdown(report).split(CURVES)[1].splitlines()]
    rows = [re.split("  +", line)[:2] for line in on_a_terminal if "  " in line]
    assert sorted(map(tuple, rows))[-len(drawn) :] == drawn
    assert sorted((r[0].removeprefix("| "), r[1]) for r in in_markdown if len(r) > 4)[-len(drawn) :] == drawn


@pytest.mark.parametrize("width", [80, 200])
def test_no_line_is_wider_than_the_terminal(report: Report, width: int) -> None:
    console = Console(width=width, file=io.StringIO(), record=True)
    print_report(console, report)
    assert max(map(len, console.export_text().splitlines())) <= width


def test_the_end_of_a_run_is_what_show_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = xpo_bench.run("ipo,sft", tasks="one_pair", target_kl=0.2, seeds=1, out=tmp_path / "run")
    capsys.readouterr()
    result.show(width=100)
    printed = capsys.readouterr().out
    store = Store(tmp_path / "run")
    again = Console(width=100, file=io.StringIO())
    records = {r["key"]: r for r in store.records()}
    cells = [records[c["key"]] for c in (*result.cells, *result.beside)]
    print_report(again, assemble(store.root, cells, store.read_run()))
    assert printed == again.file.getvalue()  # type: ignore[attr-defined]
    assert "Regularisers at the target KL" in printed


def test_an_older_record_lacks_what_it_could_not_know(tmp_path: Path) -> None:
    """Every renderer takes a record with nothing but what the first version of the suite wrote."""
    old = {
        "key": "a",
        "status": "ok",
        "seed": 0,
        "algorithm": {"name": "dpo", "config": {"beta": 0.1}},
        "task": {"name": "bandit"},
        "metrics": {"kl": 0.5},
    }
    report = assemble(tmp_path, [old, old | {"key": "b", "status": "failed", "seed": 1, "error": None}])
    assert "dpo on bandit, seed 1: failed: no message" in report.sentences("not_ok")
    for text in (terminal(report), markdown(report), page(report)):
        assert "no message" in text
    assert report_document(report)["scoreboard"]["rows"][0]["metrics"]["kl"]["mean"] == 0.5
