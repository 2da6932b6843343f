r"""`report --latex`: whatever records say, LaTeX can read it, and prints what they say."""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from latex import alike, printed

from xpo_bench.report.content import Report, assemble
from xpo_bench.report.format import clean
from xpo_bench.report.render.latex import LINES, PACKAGES, latex
from xpo_bench.report.render.latex_text import COMMANDS, escape, foreign, slug
from xpo_bench.version import __version__

Make = Callable[..., dict[str, Any]]
NASTY = r"a_b & 50% #1 $x$ {y} ~z^2 \input{/etc/passwd} [1] *best* -- `q` 'p'' <b>|c| β=τ ±3 é “w” – 中"
TRICKY = st.text(alphabet=[*"\\{}$&#^_%~[]*|<>\"`',-.?! \n19e", *COMMANDS, "é", "ß", "中", "\u0301"])
COMMAND = ["xpo-bench", "report", "r", "--latex", "-"]


@pytest.fixture
def report(record: Make, tmp_path: Path) -> Report:
    """Of a run whose names are as bad as names can be, with more rows than a page has."""
    records = [
        record(f"algorithm-{i}" if i else NASTY, task, seed, config={"beta": 0.1}, kl=value, accuracy_lc=0.5)
        for i in range(LINES + 3)
        for task in ("bandit", f"task {NASTY}")
        for seed, value in enumerate((-0.1 * i, 0.2))
    ]
    return assemble(tmp_path / "run_1", records, {"commands": [{"argv": ["xpo-bench", "run", "50%\nsharp"]}]})


@given(st.text() | TRICKY)
def test_a_text_is_printed_as_it_is(text: str) -> None:
    source = escape(text)
    assert printed(source) == alike(unicodedata.normalize("NFC", clean(text)))
    assert source == escape(f"\n{text}\n")
    # pairs that print as one character; those of hyphens are undone by `printed`
    outside = re.sub(r"\$[^$]*\$", " ", source.replace(r"\$", " "))
    assert not re.search(r"''|,,|[?!]`", outside)


@given(st.text() | TRICKY)
def test_nothing_of_a_text_is_a_command(text: str) -> None:
    # without what is escaped by one backslash, and without formulas, which are of the table of characters
    bare = re.sub(r"\\[_&%#${}]", "", escape(text))
    assert bare.count("$") % 2 == 0
    outside = re.sub(r"\$[^$]*\$", "", bare)
    assert not set(outside) & set("&%#$^_\n")
    commands = set(re.findall(r"\\(?:[A-Za-z]+|.)", outside))
    assert commands <= {c for known in COMMANDS.values() for c in re.findall(r"\\(?:[A-Za-z]+|.)", known)}
    depth = 0
    for brace in re.findall(r"[{}]", outside):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0


def test_numbers_have_a_minus_and_names_a_hyphen() -> None:
    assert escape("-0.05±0.1") == r"$-$0.05$\pm$0.1"
    assert escape("1.9e-6±8e-7") == r"1.9e$-$6$\pm$8e$-$7"
    assert escape("2026-11-02, gpt-2, (-.5)") == "2026-11-02, gpt-2, ($-$.5)"
    assert escape("β, τ and π_ref") == r"$\beta$, $\tau$ and $\pi$\_ref"
    assert slug("Über_alles: 50 %") == "uber-alles-50"


def test_what_pdflatex_has_no_letter_for_stays_and_is_named(report: Report) -> None:
    assert foreign("naïve 中 and ħ") == ["ħ", "中"]
    text = latex(report, COMMAND)
    assert "% needs XeLaTeX or LuaLaTeX, and a font that has 中\n" in text
    assert "needs XeLaTeX" not in text.replace("中", "").split("\\providecommand")[1]


def test_the_head_says_what_made_it_and_what_it_needs(report: Report) -> None:
    head = latex(report, [*COMMAND, "a\nb"]).split("\\providecommand")[0].splitlines()
    assert all(line.startswith("% ") for line in head)
    assert head[0] == f"% xpo-bench {__version__}: xpo-bench report r --latex - 'a b'"
    assert head[1] == "% the run: xpo-bench run '50% sharp'"
    for package in PACKAGES:
        assert any(package in line for line in head)


def test_environments_are_closed_and_rows_have_all_columns(report: Report) -> None:
    text = latex(report, COMMAND)
    open_: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            open_.append(name)
        else:
            assert open_.pop() == name
    assert not open_
    tables = re.findall(r"\\begin\{tabular\}(.*?)\\end\{tabular\}", text, re.DOTALL)
    assert len(tables) > 4
    for table in tables:
        columns, *lines = table.strip("\n").split("\n")
        expected = len(re.sub(r">\{.*?\}p\{[\d.]+em\}", "l", columns).strip("{}"))
        rules = [line.strip() for line in lines if line.strip() in (r"\toprule", r"\midrule", r"\bottomrule")]
        assert rules == [r"\toprule", r"\midrule", r"\bottomrule"]
        rows = [line for line in lines if line.endswith(r" \\")]
        assert len(rows) + 4 == len(lines)
        assert all(len(re.findall(r"(?<!\\)&", row)) == expected - 1 for row in rows)


def test_every_float_has_a_label_of_its_own_and_fits_on_a_page(report: Report) -> None:
    text = latex(report, COMMAND)
    floats = re.findall(r"\\begin\{table\}.*?\\end\{table\}", text, re.DOTALL)
    labels = [re.findall(r"\\label\{(.*?)\}", one) for one in floats]
    assert all(len(one) == 1 and re.fullmatch(r"tab:run-1-[a-z0-9-]+", one[0]) for one in labels)
    assert len({one[0] for one in labels}) == len(floats)
    assert all(one.count(" \\\\\n") <= LINES + 2 for one in floats)
    assert sum(", continued.}" in one for one in floats) > 1
    # no row is lost between the parts of a table
    bandit = [one for one in floats if "{tab:run-1-task-bandit" in one]
    rows = [name for one in bandit for name in re.findall(r"^    (algorithm-\d+) &", one, re.MULTILINE)]
    assert sorted(set(rows)) == sorted(f"algorithm-{i}" for i in range(1, LINES + 3))
    assert len(rows) == LINES + 2


def test_captions_say_how_many_seeds_and_what_the_interval_is(record: Make, tmp_path: Path) -> None:
    records = [
        record(name, seed=seed, kl=0.1 * seed + bias, attained_1=bias)
        for name, bias in (("dpo", 0.1), ("ipo", 0.5))
        for seed in range(3)
    ]
    text = latex(assemble(tmp_path, records), COMMAND)
    assert r"\textbf{0.5}" in text
    captions = {m[1]: m[2] for m in re.finditer(r"^  \\caption\[(.*?)\]\{(.*)\}$", text, re.MULTILINE)}
    (task,) = (said for title, said in captions.items() if title.startswith("bandit"))
    assert r"3 seeds, mean $\pm$ half its 95 \% interval" in task
    assert captions["Against dpo"].endswith(" n = 3 seeds.")
    fewer = latex(assemble(tmp_path, records[1:]), COMMAND)
    assert "n = 2 to 3 seeds." in fewer


def _engine() -> bool:
    if not (shutil.which("pdflatex") and shutil.which("kpsewhich")):
        return False
    found = subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, timeout=60, check=False)
    return found.returncode == 0


@pytest.mark.skipif(not _engine(), reason="no pdflatex with booktabs on this machine")
def test_pdflatex_reads_it(report: Report, tmp_path: Path) -> None:
    letters = [*COMMANDS, *(c for c in map(chr, range(0xC0, 0x17F)) if not foreign(c))]
    every = f"{' '.join(map(escape, letters))} {escape(''.join(letters))}"
    text = latex(report, COMMAND).replace("中", "")  # which takes XeLaTeX, as its head says
    (tmp_path / "tables.tex").write_text(text, "utf-8")
    lines = [r"\documentclass{article}", *PACKAGES, r"\begin{document}", r"\listoftables", every]
    lines += [r"\textbf{" + every + "}", r"\input{tables}", r"\end{document}"]
    (tmp_path / "paper.tex").write_text("\n".join(lines), "utf-8")
    words = ["pdflatex", "-draftmode", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error"]
    log = tmp_path / "paper.log"
    for _ in range(2):  # the list of tables is read the second time
        done = subprocess.run([*words, "paper"], cwd=tmp_path, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, log.read_text("latin-1")[-2000:]
    complaints = log.read_text("latin-1")
    assert "Missing character" not in complaints
    assert "Float too large" not in complaints
