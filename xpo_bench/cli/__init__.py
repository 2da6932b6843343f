"""The command line: a module per command; importing them is what registers them."""

from xpo_bench.cli import check, claims, compare, data, evaluate, export, look, merge, new_plugin, report, run
from xpo_bench.cli.base import main

__all__ = [
    "check",
    "claims",
    "compare",
    "data",
    "evaluate",
    "export",
    "look",
    "main",
    "merge",
    "new_plugin",
    "report",
    "run",
]
