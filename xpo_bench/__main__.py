"""`python -m xpo_bench` is `xpo-bench`."""

from xpo_bench.cli import main

main(prog_name="xpo-bench")
