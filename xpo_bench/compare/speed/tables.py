"""What `compare --ab` says, from its document alone: a table and a few lines, for the terminal and in
Markdown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from xpo_bench.compare.speed.ratio_test import BLIND, SLOWER
from xpo_bench.report.format import ABSENT, clean, number
from xpo_bench.report.render.console import bullet, draw, say
from xpo_bench.report.render.markdown import escape, sheet_table
from xpo_bench.report.table import Column, Table

CLOCKS = {"cpu_s": "CPU time", "gpu_s": "GPU time"}
WORDS = {
    "pass": "pass",
    "improvement": "improvement",
    "regression": "REGRESSION",
    "inconclusive": "inconclusive",
}


def sheet(document: Mapping[str, Any]) -> Table:
    """The comparisons as a table, one a row."""
    rows, protocol = document["rows"], document["protocol"]
    clock = CLOCKS[protocol["gate"]]
    columns = [
        Column("", [clean(f"{row['algorithm']} on {row['workload']}") for row in rows], left=True),
        Column("verdict", [WORDS[row["verdict"]] for row in rows], left=True),
        Column("new/old", [_ratio(row["test"]["estimate"]) for row in rows]),
        Column("at least", [_ratio(row["test"]["lower"]) for row in rows]),
        Column("detectable", [_ratio(row["test"]["detectable"]) for row in rows]),
        Column("wall", [_ratio(row["wall"]["estimate"]) for row in rows]),
        Column(
            "ms a step",
            [f"{number(1e3 * row['step_s']['old'])} → {number(1e3 * row['step_s']['new'])}" for row in rows],
        ),
    ]
    if any(row["confirmation"] for row in rows):
        columns.insert(5, Column("fresh pairs", [_confirmation(row["confirmation"]) for row in rows]))
    return Table(f"{clock} of a training step, new against old", columns)


def lines(document: Mapping[str, Any]) -> list[str]:
    """What was compared, how, and how far the verdicts reach."""
    protocol, sides = document["protocol"], document["sides"]
    out = [f"{name.upper()}: {_side(sides[name])}" for name in ("old", "new")]
    out.append(
        f"{protocol['pairs']} fresh process pairs, {protocol['blocks']} alternating blocks of at least "
        f"{1e3 * protocol['block_s']:.0f} ms per side and pair, on {protocol['device']} ({document['platform']}), seed "
        f"{protocol['seed']}; at least: a one-sided 99 % bound over pairs; wall time decides nothing."
    )
    n = document["comparisons"]
    out.append(
        f"{n} comparison{'s' if n != 1 else ''}: a regression is a bound above 1 and an estimate above {SLOWER:g}, in "
        f"two independent sets of pairs; the probability of a false one is at most {100 * document['false_alarm_bound']:.2g} %."
    )
    tests = [test for row in document["rows"] for test in (row["test"], row["confirmation"]) if test]
    largest = max(test["detectable"] for test in tests)
    told = f"The smallest ratio that the data could have shown is {_ratio(largest)}{' at worst' if len(tests) > 1 else ''}"
    out.append(
        told
        + (
            f"; above {BLIND:g} nothing is decided: end other programs, or more --pairs."
            if largest > BLIND
            else "."
        )
    )
    return out


def print_paired(console: Console, document: Mapping[str, Any]) -> None:
    """The table and the lines, on a terminal."""
    found = sheet(document)
    draw(console, found.title, found.columns)
    for line in lines(document):
        bullet(console, line)
    say(console, f"Verdict: {WORDS[document['verdict']]}", "bold")


def markdown(document: Mapping[str, Any]) -> str:
    """The same for a pull request."""
    found = sheet(document)
    points = "\n".join(f"- {escape(line)}" for line in lines(document))
    head = f"# xpo-bench compare --ab: {WORDS[document['verdict']]}"
    return "\n\n".join([head, f"**{escape(found.title)}**", sheet_table(found), points]) + "\n"


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value < 100 else number(value)


def _confirmation(test: Mapping[str, Any] | None) -> str:
    return ABSENT if test is None else f"{_ratio(test['estimate'])} (≥ {_ratio(test['lower'])})"


def _side(side: Mapping[str, Any]) -> str:
    commit = f", commit {side['commit'][:9]}" if side["commit"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(side["versions"].items()))
    return clean(f"{side['name']}{commit} ({versions})")
