"""What a preference step costs here, and in TRL's trainers: the same rows from the same weights.

    pip install '.[trl]'
    XPO_BENCH_DATA=DIR python -m benchmarks.peers --model DIR --write results/peers.json

Speed (`long-prompt`, `long-completion`, `ukp`): DPO in float32 (`--dtype bfloat16`: float32
weights and autocast, on both sides) on a CPU, one thread, 4 pairs a step, β 0.1,
AdamW at 1e-6, gradients clipped at norm 1. A round trains every contender on the same batches in the same
order, one contender after the other in a random order of turns; the ratio of a round is our pairs per second
over theirs.

`ours` is `GroupTrainer` on `CausalLM`; reference scores, evaluation and sampling are off its clock. `trl` is
the default DPOTrainer, which scores the reference model at every step, and `trl-precomputed` has scored it
beforehand, off its clock. TRL's clock runs from `on_step_begin` to `on_step_end`, which leaves out fetching
and collating the batch; ours has them in it. `bare` is what the tokens alone cost: each pair as one row of
prompt, chosen and rejected, cross entropy on the completions, one AdamW step, no reference. Before a case is
timed, the token ids, the log-probabilities of the first batch and the losses of a few large steps are
compared with TRL's; a difference ends the program.

`memory` and `ten`: see the modules of that name.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.peers import memory, ten
from benchmarks.peers.cases import CASES, LENGTHS, crowd_votes, random_text
from benchmarks.peers.contenders import BATCH, library
from benchmarks.peers.speed import TOLERANCES, WARM_UP, measure
from xpo_bench.runner import environment

EVERY = (*CASES, "memory", "ten")


def tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """The peers: our pairs per second over theirs, our step over an SFT step, memory, and ten algorithms."""
    out = []
    if speed := [row for row in rows if "pairs_per_s" in row]:
        pace = Table("case", "contender", "pairs/s", "from–to", "ours x", "from–to", title="speed")
        cost = Table("case", "our step / SFT step", "from–to", title="against an SFT step")
        for row in speed:
            for name, rate in row["pairs_per_s"].items():
                pace.add_row(row["case"], name, *cells(rate, 1), *cells(row["ours_over"].get(name), 2))
            cost.add_row(row["case"], *cells(row["step_over_bare"], 2))
        out += [pace, cost]
    for row in rows:
        if row["case"] == "memory":
            peak = Table("contender", "peak MB", "ours / theirs", title="memory, vocabulary 49,152")
            for name, found in row["peak_mb"].items():
                peak.add_row(
                    name, f"{found:.0f}", f"{row['ours_over'][name]:.2f}" if name in row["ours_over"] else ""
                )
            out.append(peak)
        if row["case"] == "ten":
            wall = Table(
                "contender", "s per algorithm", "from–to", "theirs / ours", "from–to", title="ten algorithms"
            )
            for name, found in row["seconds_per_algorithm"].items():
                wall.add_row(name, *cells(found, 1), *cells(row["ours_over"].get(name), 2))
            out.append(wall)
    return out


def markdown(table: Table) -> str:
    """A table for a page."""
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    lines = [f"| {' | '.join(line)} |" for line in zip(*columns, strict=True)]
    return "\n".join([f"**{table.title}**", "", lines[0], "|---" * len(columns) + "|", *lines[1:], ""])


def cells(found: dict[str, float] | None, digits: int) -> tuple[str, str]:
    """A median and its extremes."""
    if found is None:
        return "", ""
    return f"{found['median']:.{digits}f}", f"{found['lowest']:.{digits}f}–{found['highest']:.{digits}f}"


def main(argv: list[str] | None = None) -> None:
    """Measure, print the tables, and write the numbers where asked."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--case", default=",".join(EVERY), help="cases, comma-separated")
    words.add_argument("--model", help="directory of the pretrained model of ukp")
    words.add_argument("--dtype", default="float32", choices=sorted(TOLERANCES), help="of the speed cases")
    words.add_argument("--steps", type=int, default=8, help="timed steps of a measurement")
    words.add_argument("--rounds", type=int, default=8, help="repetitions, interleaved")
    words.add_argument(
        "--ten-rounds", type=int, default=1, help="repetitions of the case ten, a quarter of an hour each"
    )
    words.add_argument(
        "--write", type=Path, help="JSON file for the numbers; the tables go next to it as .md"
    )
    asked = words.parse_args(argv)
    names = asked.case.split(",")
    if unknown := set(names) - set(EVERY):
        words.error(f"--case: {', '.join(sorted(unknown))} is none of {', '.join(EVERY)}")
    if {"ukp", "ten"} & set(names) and not asked.model:
        words.error("--case ukp and ten want --model, the directory of a pretrained model")
    library()
    from datasets import disable_progress_bars

    disable_progress_bars()
    os.environ["TQDM_DISABLE"] = "1"  # TRL's own bar reads it
    torch.set_num_threads(1)
    console, progress = Console(), Console(stderr=True)
    rows: list[dict[str, Any]] = []
    for name in names:
        if name == "memory":
            rows.append(memory.measure())
        elif name == "ten":
            rows.append(ten.measure(asked.model, asked.ten_rounds))
        else:
            case = (
                random_text(name, (asked.steps + WARM_UP) * BATCH, asked.dtype)
                if name in LENGTHS
                else crowd_votes(asked.model, asked.dtype)
            )
            rows.append(
                measure(case, asked.rounds, asked.steps, lambda text: progress.print(text, highlight=False))
            )
    for table in tables(rows):
        console.print(table)
    if asked.write:
        given = [
            Path(word).name if word == asked.model else word
            for word in (argv if argv is not None else sys.argv[1:])
        ]
        facts = environment.describe("cpu")
        versions = {package: version(package) for package in ("trl", "transformers", "torch")}
        document = {
            "command": " ".join(["python -m benchmarks.peers", *given]),
            "environment": facts,
            "versions": versions,
        }
        asked.write.write_text(json.dumps(document | {"rows": rows}, indent=1) + "\n", "utf-8")
        machine = (
            f"{facts['processor']}, {facts['cores']} cores, {facts['platform']}, Python {facts['python']}"
        )
        head = (
            f"`{document['command']}`\n\n{machine}; {', '.join(f'{k} {v}' for k, v in versions.items())}\n\n"
        )
        asked.write.with_suffix(".md").write_text(head + "\n".join(map(markdown, tables(rows))), "utf-8")


if __name__ == "__main__":
    main()
