"""The command line: a module per command; importing them is what registers them."""

from xpo_bench.cli import compare, look, merge, report, run
from xpo_bench.cli.base import main

__all__ = ["compare", "look", "main", "merge", "report", "run"]
