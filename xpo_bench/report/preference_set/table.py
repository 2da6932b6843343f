"""The report on a preference set as it is printed: each quantity with its sentence beneath."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from xpo_bench.report.format import clean, counted
from xpo_bench.report.preference_set.content import DatasetReport
from xpo_bench.report.render.console import say

TITLE_WIDTH = 22


def print_dataset(console: Console, report: DatasetReport) -> None:
    """What was read, and a row for each quantity: its name, its value, and what it means for which
    algorithms.
    """
    facts = report.facts
    revision = f" at {facts['revision'][:12]}" if facts["revision"] else ""
    say(console, f"{facts['source']}{revision}", "bold")
    kind = "pair" if facts["kind"] == "pairs" else "unpaired example"
    split = f" ({facts['train']:,} train, {facts['heldout']:,} held out)" if facts["heldout"] else ""
    say(
        console,
        f"{counted(facts['used'], kind)} of {counted(facts['rows'], 'row')}{split}, "
        f"{counted(facts['prompts'], 'prompt')}"
        + (f", {counted(facts['persons'], 'person')}" if facts["persons"] else ""),
    )
    names = ", ".join(f"{new} from {old}" for new, old in facts["columns"].items())
    say(console, f"layout: {facts['layout']}{f' ({names})' if names else ''}")
    if facts["kind"] == "pairs":
        exact, language = facts["labels"]["tabular"], facts["labels"]["language"]
        where = f"{exact} on a tabular or linear policy, {language} on a language model (--labels)"
        say(console, f"labels: {where if exact != language else exact}")
    if facts["model"]:
        say(console, f"model: {facts['model']['name']}, context {facts['model']['context']:,} tokens")
    console.print()
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 1, 0))
    table.add_column(width=TITLE_WIDTH, overflow="fold")
    table.add_column(overflow="fold", ratio=1)
    for q in report.quantities:
        value = Text("\n".join(clean(line) for line in q.shown.split("\n")), style="bold")
        value.append("\n" + clean(q.meaning), style="not bold dim")
        table.add_row(Text(clean(q.title)), value)
    console.print(table)
