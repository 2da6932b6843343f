"""What `compare` and `compare --ab` say, from their documents alone: for the terminal, and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console

from xpo_bench.compare.document import (
    AlgorithmTest,
    CellRow,
    Document,
    Labelled,
    MetricTest,
    RunAbout,
    SourceChange,
    Throughput,
)
from xpo_bench.compare.matching import sentence
from xpo_bench.compare.speed.pairs import Side
from xpo_bench.compare.speed.ratio_test import SLOWER, UNDERPOWERED, Ratio
from xpo_bench.compare.speed.rule import RatioDocument, RatioRow, SideAbout
from xpo_bench.compare.verdicts import SEEDS, TASKS
from xpo_bench.report.format import ABSENT, clean, number
from xpo_bench.report.render.console import bullet, draw, say
from xpo_bench.report.render.markdown import escape, sheet_table
from xpo_bench.report.table import Column, Table

SHOWN = 40
"""Rows of the table of metrics at most; the JSON document has all."""
NAMED_METRICS = 3
"""Metrics of a cell that its row names."""
CLOCKS = {"cpu_s": "CPU time", "gpu_s": "GPU time"}


@dataclass(frozen=True)
class Page:
    """A comparison to read: its tables, and sentences on what was compared and how far the verdicts reach."""

    command: str
    verdict: str
    tables: Sequence[Table]
    lines: Sequence[str]


def print_page(console: Console, page: Page) -> None:
    """The page on a terminal, its verdict last."""
    for table in page.tables:
        draw(console, table.title, table.columns)
    for line in page.lines:
        bullet(console, line)
    say(console, f"Verdict: {page.verdict}", "bold")


def markdown(page: Page) -> str:
    """The page for a pull request, its verdict first; every name is escaped."""
    parts = [f"# xpo-bench {page.command}: {page.verdict}"]
    for table in page.tables:
        parts += [f"**{escape(table.title)}**", sheet_table(table)]
    return "\n\n".join([*parts, "\n".join(f"- {escape(line)}" for line in page.lines)]) + "\n"


def _verdict(word: str) -> str:
    """A verdict as it is printed: a regression must not be overlooked."""
    return word.upper() if word == "regression" else word


def _text(header: str, cells: Sequence[str]) -> Column:
    return Column(header, cells, left=True)


def _comparisons(n: int) -> str:
    return f"{n} comparison{'' if n == 1 else 's'}"


# --------------------------------------------------------------------------- compare BASE NEW


def regression_page(document: Document) -> Page:
    """Of two runs: the cells, and the metrics that are not equivalent."""
    tables = [_cells(document)]
    if moved := [row for row in document["tests"] if row["verdict"] not in ("same", "equivalent")]:
        tables.append(_metrics(moved[:SHOWN]))
    return Page("compare", _verdict(document["verdict"]), tables, _regression_lines(document))


def _cells(document: Document) -> Table:
    cells = document["cells"]
    return Table(
        "Convergence, new against base",
        [
            _text("", [_where(cell) for cell in cells]),
            _text("verdict", [_verdict(cell["verdict"]) for cell in cells]),
            Column("seeds", [str(cell["seeds"]) for cell in cells]),
            Column("pairs/s", [_throughput(cell.get("throughput")) for cell in cells]),
            _text("", [_reason(cell, document["tests"]) for cell in cells]),
        ],
    )


def _metrics(rows: Sequence[MetricTest]) -> Table:
    return Table(
        "Metrics that moved, or for which these seeds are too few",
        [
            _text("", [_where(row) for row in rows]),
            _text("metric", [row["metric"] for row in rows]),
            _text("verdict", [_metric_verdict(row) for row in rows]),
            Column("base", [number(row["base"]) for row in rows]),
            Column("new − base", [number(row["difference"]) for row in rows]),
            Column("95 % interval", [_interval(row["ci95"]) for row in rows]),
            Column("margin", [number(row["margin"]) for row in rows]),
            Column("p (Holm)", [number(row.get("p_holm")) for row in rows]),
        ],
    )


def _where(row: Labelled) -> str:
    experiment = f" ({row['experiment']})" if row.get("experiment") else ""
    return clean(f"{row['algorithm']} on {row['task']}{experiment}")


def _metric_verdict(row: MetricTest) -> str:
    """A metric with no preferred direction has moved; it is neither better nor worse."""
    moved = row["verdict"] == "regression" and row["better"] is None
    return "MOVED" if moved else _verdict(row["verdict"])


def _reason(cell: CellRow, tests: Sequence[MetricTest]) -> str:
    """What was changed, and why a cell has its verdict."""
    why = "; ".join(cell["reasons"]) or _evidence(cell, tests)
    changes = sentence(cell["changes"])
    # What cannot be compared names its settings itself.
    return clean(f"{changes}: {why}" if changes and changes not in why else why)


def _evidence(cell: CellRow, tests: Sequence[MetricTest]) -> str:
    if cell.get("identical"):
        return "every bit the same"
    if cell["verdict"] == "equivalent":
        return "within margins"
    own = [t["metric"] for t in tests if t["cell"] == cell["cell"] and t["verdict"] == cell["verdict"]]
    return ", ".join(own[:NAMED_METRICS]) + (", ..." if len(own) > NAMED_METRICS else "")


def _throughput(found: Throughput | None) -> str:
    return ABSENT if not found else f"{number(found['base'])} → {number(found['new'])}"


def _interval(found: Sequence[float] | None) -> str:
    return ABSENT if found is None else f"{number(found[0])} to {number(found[1])}"


def _regression_lines(document: Document) -> list[str]:
    out = [f"base: {_run(document['base'])}", f"new: {_run(document['new'])}"]
    if document["platforms"]:
        differences = "; ".join(document["platforms"])
        out.append(f"Other machines or versions, so that no bits are compared: {differences}.")
    out += [*_source_lines(document), *_setting_lines(document)]
    if document["comparisons"]:
        out.append(
            f"{_comparisons(document['comparisons'])}, p-values corrected for all of them (Holm). "
            "A regression is worse by more than the margin and significantly different from the base at 5 %; "
            "a metric with no preferred direction counts as one when it moves as far either way. "
            "Equivalent means that the 95 % interval over seeds lies within the margin."
        )
    if any(test["exact"] for test in document["tests"]):
        out.append(
            "Where all seeds gave one run, nothing in it is random: the change is exact, and the margin "
            "alone decides. So it is of one model that was trained elsewhere, as it is; how far another "
            "training run would be off, several runs of one name tell. On held-out items one run beyond the "
            "margin decides nothing."
        )
    out += map(_over_tasks, document["algorithms"])
    out.append(
        "pairs/s decides nothing, because seconds of two days do not compare; "
        "`xpo-bench compare --ab OLD NEW` measures both, interleaved."
    )
    return out


def _source_lines(document: Document) -> list[str]:
    """Which plugins have another source, and for how many cells that cannot be told."""
    named = [clean(f"{s['kind']} {s['name']} ({_versions(s)})") for s in document["sources"]]
    out = [f"Another source than in the base: {', '.join(named)}."] if named else []
    if n := document["unknown_sources"]:
        out.append(f"{n} of the compared cells have records without a digest of their plugin's source.")
    return out


def _versions(source: SourceChange) -> str:
    old, new = ", ".join(source["base"]), ", ".join(source["new"])
    return f"{old}, as before" if old == new else f"{old} → {new}"


def _setting_lines(document: Document) -> list[str]:
    """How cells of changed settings are treated."""
    if not any(cell["changes"] for cell in document["cells"]):
        return []
    if document["match"] == "configuration":
        return ["`--match algorithm` judges the effect of changed settings."]
    return [
        "Where a setting was changed, metrics with no preferred direction are shown as moved beyond their "
        "margin and decide nothing; the others are judged as everywhere."
    ]


def _over_tasks(row: AlgorithmTest) -> str:
    name = clean(row["algorithm"])
    if row["p"] is None:
        few = f"{row['seeds']} seeds of {row['tasks']} tasks are too few ({SEEDS} of {TASKS})"
        return f"{name} over all tasks: {few}."
    moved = f"{number(row['mean'])} margins worse on average (interquartile mean {number(row['iqm'])}"
    test = f"sign flips, p {number(row['p_holm'])} after Holm)"
    return f"{name} over {row['tasks']} tasks: {_verdict(row['verdict'])}, {moved}; {test}."


def _run(run: RunAbout) -> str:
    left = f"; {len(run['left_out'])} files left out, incomplete or corrupt" if run["left_out"] else ""
    again = f"; {run['superseded']} left out that a later command measured again" if run["superseded"] else ""
    cells = f"{run['cells']} cell{'s' * (run['cells'] != 1)}"
    return clean(f"{run['name']}, {cells} ({', '.join(run['versions'])}){left}{again}")


# --------------------------------------------------------------------------- compare --ab OLD NEW


def speed_page(document: RatioDocument) -> Page:
    """Of two installations: the ratio of their times of a training step, per algorithm and workload."""
    return Page("compare --ab", _verdict(document["verdict"]), [_ratios(document)], _speed_lines(document))


def _ratios(document: RatioDocument) -> Table:
    rows = document["rows"]
    clock = CLOCKS[document["protocol"]["gate"]]

    def column(header: str, cell: Callable[[RatioRow], str]) -> Column:
        return Column(header, [cell(row) for row in rows])

    columns = [
        _text("", [clean(f"{row['algorithm']} on {row['workload']}") for row in rows]),
        _text("verdict", [_verdict(row["verdict"]) for row in rows]),
        column("new/old", lambda row: _ratio(row["test"]["estimate"])),
        column("at least", lambda row: _ratio(row["test"]["lower"])),
        column("detectable", lambda row: _ratio(row["test"]["detectable"])),
        column("wall", lambda row: _ratio(row["wall"]["estimate"])),
        column("ms a step", lambda row: _milliseconds(row["step_s"])),
    ]
    if any(row["confirmation"] for row in rows):
        columns.insert(5, column("replication", lambda row: _replication(row["confirmation"])))
    return Table(f"{clock} of a training step, new against old", columns)


def _speed_lines(document: RatioDocument) -> list[str]:
    protocol = document["protocol"]
    tests = [test for row in document["rows"] for test in (row["test"], row["confirmation"]) if test]
    largest = max(test["detectable"] for test in tests)
    at_worst = " at worst" if len(tests) > 1 else ""
    remedy = f"; above {UNDERPOWERED:g} nothing is decided: end other programs, or use more --pairs"
    return [
        *(f"{name.upper()}: {_installation(about)}" for name, about in document["sides"].items()),
        f"{protocol['pairs']} pairs of new processes, {protocol['blocks']} interleaved blocks of at least "
        f"{1e3 * protocol['block_s']:.0f} ms per side and pair, on {protocol['device']} "
        f"({document['platform']}), seed {protocol['seed']}; at least: a one-sided 99 % bound over pairs; "
        "wall time decides nothing.",
        f"{_comparisons(document['comparisons'])}: a regression is a bound above 1 and an estimate above "
        f"{SLOWER:g}, in two independent sets of pairs; the probability of a false one is at most "
        f"{100 * document['false_alarm_bound']:.2g} %.",
        f"The smallest ratio that the data could have shown is {_ratio(largest)}{at_worst}"
        f"{remedy if largest > UNDERPOWERED else ''}.",
    ]


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value < 100 else number(value)


def _replication(test: Ratio | None) -> str:
    return ABSENT if test is None else f"{_ratio(test['estimate'])} (≥ {_ratio(test['lower'])})"


def _milliseconds(step_s: dict[Side, float]) -> str:
    return f"{number(1e3 * step_s['old'])} → {number(1e3 * step_s['new'])}"


def _installation(about: SideAbout) -> str:
    commit = f", commit {about['commit'][:9]}" if about["commit"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(about["versions"].items()))
    return clean(f"{about['name']}{commit} ({versions})")
