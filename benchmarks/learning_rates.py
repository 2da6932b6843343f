"""Learning rates per task and algorithm, chosen on a validation split from one grid of equal size.

    python -m benchmarks.learning_rates --tasks bandit,noisy,travel,ukp --write results/learning_rates.json

The gradients that algorithms send at the reference differ by a factor of 800, so one learning rate for all of
them means nothing. Every algorithm is trained at its default hyperparameters with every rate of a grid, the
same for all of them:

- tabular policies: .002, .01, .05, .25, seeds 0, 1, 2, the task's own budget;
- language models: 1e-5, 1e-4, 1e-3, seed 0, `--steps` instead of the task's. `--model` replaces these only.

Validation rows come out of the training rows alone, and the task's held-out rows are not used at all. Where
rows name several sources (topics), the last two sources are held out whole; otherwise a quarter of the rows,
drawn at random from the stream `data/validation`, the same positions for every seed. On `travel` the rows of
a traveller may fall on both sides: a table knows only a traveller's prompt. Ties (`p_chosen` = 1/2) are left
out, since they have no side to get right. Labels are clean, as in every evaluation of the suite, so on
`noisy` the training rows alone are flipped.

Rule: the rate with the highest mean `heldout_reward_accuracy` on these rows. Rates within .01 or within one
standard error of the best, whichever is wider, count as tied. Of the tied ones the lowest at which `kl` has
settled in every run is taken, since a run that is cut short measures the budget and not the algorithm; where
none has settled, or where `kl` is known at the end only (language models), the one with the lowest `kl`: the
least drift that buys the accuracy. The standard error is the binomial one of the best over the distinct
validation rows: those of all seeds where seeds draw their own data, those of one where they share it
(`travel`, `ukp`). A rate at which some seed diverged or failed never wins; an algorithm without any other
rate keeps the task's default.

The fetched sets of choices (`trains`, `swissmetro`, `electricity`, `cars`, `canada`) train on every row at
every step, so that seeds differ only for algorithms that sample: `--seeds 1` there.

`--algos` measures some algorithms and leaves what the file says of the others.

Left out: algorithms in closed form (`rlhf`), which take no steps, and what would take longer than all others
together and keeps the task's default: on `noisy`, `travel` and the fetched sets `grpo`, `ipo_md`, `nash_md`,
`rloo` and `sppo`, on language models all that sample or fit a reward, and all that came after the measurement
there.
`deterministic` and `cycle` have three rows and `overfit_pair` has one, so no validation
is possible there: they keep one rate for all algorithms. `gold_text` knows a reward, but its samples are left
out here: they are not part of the rule.

The classes of the tasks carry the chosen rates (`learning_rates`); the written file holds the scores that
decided.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from xpo_bench import plugins
from xpo_bench.api import run
from xpo_bench.contract.examples import Dataset, Example, Pair
from xpo_bench.contract.settings import ModelSpec
from xpo_bench.contract.task import Task
from xpo_bench.errors import UsageError
from xpo_bench.random_streams import stream
from xpo_bench.runner.environment import package_versions
from xpo_bench.runner.progress import Reporter
from xpo_bench.runner.record import Record

TABLE_GRID = (0.002, 0.01, 0.05, 0.25)
LM_GRID = (1e-5, 1e-4, 1e-3)
TABLE_SEEDS = (0, 1, 2)
LM_SEEDS = (0,)
HELD_SOURCES = 2
"""Sources held out whole where rows name them."""
HELD_SHARE = 0.25
"""Share of the rows held out where they name none."""
TIED = 0.01
"""Accuracies closer than this to the best are tied with it, whatever the standard error."""
KEPT_METRICS = ("kl", "rejected_drift", "frontier_gap")
"""Written beside the accuracy: the drift tells a rate that has settled from one that would go on."""


# --------------------------------------------------------------------------- the validation split


def carve(dataset: Dataset, task: str) -> Dataset:
    """The data set with its held-out rows replaced by validation rows taken out of the training rows.

    Raises:
        UsageError: too few training rows for a validation split.
    """
    rows = dataset.train
    order = stream(0, task, "data", "validation").permutation(len(rows))
    sources = list(dict.fromkeys(row.source for row in rows if row.source is not None))
    if len(sources) > HELD_SOURCES:
        last = sources[-HELD_SOURCES:]
        held = [i for i in order if rows[i].source in last]
    else:
        held = list(order[: round(HELD_SHARE * len(rows))])
    out = set(held)
    # the trainer evaluates the first rows, so they stay in random order
    validation = tuple(rows[i] for i in held if not _tie(rows[i]))
    if len(validation) < 10:
        raise UsageError(f"task {task}: {len(rows)} training rows are too few for a validation split")
    return replace(
        dataset, train=tuple(row for i, row in enumerate(rows) if i not in out), heldout=validation, gold=None
    )


def _tie(row: Example) -> bool:
    return isinstance(row, Pair) and row.p_chosen == 0.5


def with_validation(cls: type[Task]) -> type[Task]:
    """The task with a validation split for its held-out rows: same name, hence the same random streams."""

    def data(self: Task, seed: int, model: ModelSpec) -> Dataset:
        return carve(cls.data(self, seed, model), cls.name)

    members = {"data": data, "__module__": __name__, "__doc__": f"{cls.name} with a validation split."}
    return dataclass(frozen=True)(type(f"{cls.__name__}Validation", (cls,), members))


# --------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Score:
    """One algorithm at one rate: accuracy per seed, and further metrics averaged over seeds.

    Args:
        statuses: of every seed. accuracies: `heldout_reward_accuracy` of every seed, when all are ok.
        metrics: mean over seeds of `KEPT_METRICS`, where they apply.
        settled: whether `kl` changed by less than 2 % over the last fifth of every run.
    """

    statuses: tuple[str, ...]
    accuracies: tuple[float, ...]
    metrics: Mapping[str, float]
    settled: bool = False

    @property
    def accuracy(self) -> float:
        return float(np.mean(self.accuracies)) if self.accuracies else -math.inf

    @property
    def kl(self) -> float:
        return self.metrics.get("kl", math.inf)


def score(cells: Sequence[Mapping[str, Any]]) -> Score:
    """The cells of one algorithm at one rate, in the order of seeds."""
    statuses = tuple(str(cell["status"]) for cell in cells)
    if set(statuses) != {"ok"}:
        return Score(statuses, (), {})
    metrics = {}
    for name in KEPT_METRICS:
        values = [cell["metrics"].get(name) for cell in cells]
        if all(value is not None for value in values):
            metrics[name] = float(np.mean(values))
    settled = all(cell["notes"].get("kl_settled") is True for cell in cells)
    return Score(
        statuses, tuple(float(cell["metrics"]["heldout_reward_accuracy"]) for cell in cells), metrics, settled
    )


def choose(scores: Mapping[float, Score], rows: int) -> tuple[float | None, list[float]]:
    """(the rate that the rule of the module's text picks or None, the rates tied with the best).

    Args:
        scores: rate -> score. rows: distinct validation rows behind an accuracy.
    """
    usable = {rate: s for rate, s in scores.items() if s.accuracies}
    if not usable:
        return None, []
    best = max(s.accuracy for s in usable.values())
    margin = max(TIED, math.sqrt(best * (1 - best) / rows))
    tied = [rate for rate, s in usable.items() if best - s.accuracy <= margin + 1e-12]
    settled = [rate for rate in tied if usable[rate].settled]
    return min(settled) if settled else min(tied, key=lambda rate: (usable[rate].kl, rate)), tied


@dataclass(frozen=True)
class Measured:
    """What was measured on one task, and at which settings.

    Args:
        training_rows: of one seed. validation_rows: distinct ones of all seeds. scores: algorithm -> rate ->
            score.
    """

    task: type[Task]
    model: str
    grid: tuple[float, ...]
    seeds: tuple[int, ...]
    budget: Mapping[str, Any]
    training_rows: int
    validation_rows: int
    scores: Mapping[str, Mapping[float, Score]]
    left_out: Mapping[str, str]

    def chosen(self) -> dict[str, float]:
        """Algorithm -> rate, for the task's class."""
        picked = {name: choose(scores, self.validation_rows)[0] for name, scores in self.scores.items()}
        return {name: rate for name, rate in picked.items() if rate is not None}

    def document(self) -> dict[str, Any]:
        """JSON-ready: settings, scores, choice."""
        algorithms = {}
        for name, scores in self.scores.items():
            rate, tied = choose(scores, self.validation_rows)
            algorithms[name] = {
                "chosen": rate,
                "tied": tied,
                "scores": {
                    f"{rate:g}": {
                        "status": sorted(set(s.statuses)),
                        "accuracy": round(s.accuracy, 4) if s.accuracies else None,
                        "by_seed": [round(a, 4) for a in s.accuracies],
                    }
                    | {metric: float(f"{value:.4g}") for metric, value in s.metrics.items()}
                    for rate, s in scores.items()
                },
            }
        return {
            "version": self.task.version,
            "grid": list(self.grid),
            "seeds": list(self.seeds),
            "budget": {
                k: self.budget[k]
                for k in ("steps", "batch_size", "optimizer", "warmup", "clip", "label_noise", "dtype")
            },
            "training_rows": self.training_rows,
            "validation_rows": self.validation_rows,
            "versions": {
                k: v for k, v in package_versions().items() if k in ("xpo-bench", "torch", "transformers")
            },
            "algorithms": algorithms,
            "left_out": dict(self.left_out),
        }


def measure(
    cls: type[Task],
    out: Path,
    *,
    model: str | None,
    steps: int,
    pairs: int,
    only: frozenset[str] = frozenset(),
    seeds: int | None = None,
) -> Measured:
    """Run every fitting algorithm on the whole grid.

    Args:
        cls: the task. only: names of the algorithms; all by default. seeds: how many, instead of the usual
            ones.
        out: run directory; cells already there are not computed again.
        model: instead of the task's own language model. steps, pairs: budget and validation rows on a
            language model.

    Raises:
        UsageError: no data, or too few rows for a validation split.
    """
    table = cls.model.tabular
    grid, usual = (TABLE_GRID, TABLE_SEEDS) if table else (LM_GRID, LM_SEEDS)
    trained = usual if seeds is None else tuple(range(seeds))
    left_out, names = {}, []
    for name, (algorithm, _) in plugins.load(frozenset()).algorithms.items():
        if only and name not in only:
            continue
        if all(stage.solve for stage in algorithm().stages()):
            left_out[name] = "closed form, no steps"
        elif algorithm.requires and not table:
            left_out[name] = f"needs {', '.join(sorted(algorithm.requires))}: measured on tables only"
        else:
            names.append(name)
    settings: dict[str, list[Any]] = {f"{name}.train.lr": list(grid) for name in names}
    if not table:
        settings |= {
            "task.steps": [steps],
            "task.heldout_pairs": [pairs],
            "task.eval_pairs": [8],
            "task.kl_samples": [1],
        }
    words: dict[str, Any] = {"model": model} if model and not table else {}
    result = run(
        algos=names,
        tasks=[with_validation(cls)],
        seeds=trained,
        set=settings,
        out=out,
        reporter=Reporter(),
        **words,
    )
    if result.unreachable:
        raise UsageError(result.unreachable[0]["reason"])
    cells: dict[str, dict[float, list[Record]]] = {}
    for cell in result.cells:
        cells.setdefault(cell["algorithm"]["name"], {}).setdefault(cell["train"]["lr"], []).append(cell)
    first = result.cells[0]["task"]
    draws = {cell["task"]["data"]["fingerprint"] for cell in result.cells}
    return Measured(
        task=cls,
        model=Path(model).name if words and model else cls.model.name,
        grid=grid,
        seeds=trained,
        budget=first["budget"],
        training_rows=first["data"]["train"],
        validation_rows=min(first["data"]["heldout"], first["budget"]["heldout_pairs"]) * len(draws),
        scores={
            name: {rate: score(group) for rate, group in sorted(rates.items())}
            for name, rates in sorted(cells.items())
        },
        left_out=left_out,
    )


# --------------------------------------------------------------------------- telling


def show(console: Console, measured: Measured) -> None:
    """A row per algorithm: accuracy and KL at every rate, the chosen one in bold, the tied ones marked."""
    table = Table(
        title=f"{measured.task.name} ({measured.model}): validation accuracy / KL in nats",
        caption=(
            f"{measured.validation_rows} validation rows, {len(measured.seeds)} seed(s); * tied with the best"
        ),
    )
    table.add_column("algorithm")
    for rate in measured.grid:
        table.add_column(f"{rate:g}", justify="right")
    table.add_column("chosen", justify="right")
    for name, scores in measured.scores.items():
        picked, tied = choose(scores, measured.validation_rows)
        entries = []
        for rate in measured.grid:
            s = scores[rate]
            text = (
                f"{s.accuracy:.3f} / {s.kl:.3g}{'*' if rate in tied else ''}"
                if s.accuracies
                else ", ".join({*s.statuses})
            )
            entries.append(f"[bold]{text}[/bold]" if rate == picked else text)
        table.add_row(name, *entries, "–" if picked is None else f"{picked:g}")
    console.print(table)


def write(path: Path, measured: Sequence[Measured]) -> None:
    """Put results into the file, task -> model -> scores; other tasks and models stay in it."""
    document: dict[str, Any] = (
        json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"schema": 1, "tasks": {}}
    )
    for m in measured:
        models, found = document["tasks"].setdefault(m.task.name, {}), m.document()
        before = models.get(m.model, {"algorithms": {}, "left_out": {}})
        for part in ("algorithms", "left_out"):
            found[part] = before[part] | found[part]
        models[m.model] = found
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n",
        encoding="utf-8",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.learning_rates", description="Choose learning rates on validation rows."
    )
    parser.add_argument("--tasks", default="bandit,noisy,travel", help="task names, separated by commas")
    parser.add_argument("--algos", default="", help="algorithms, separated by commas; all by default")
    parser.add_argument("--model", help="hub id or path, instead of the own language model of a task")
    parser.add_argument(
        "--steps", type=int, default=60, help="steps on a language model (tables: the task's own)"
    )
    parser.add_argument(
        "--pairs", type=int, default=96, help="validation rows on a language model, at most 256"
    )
    parser.add_argument("--seeds", type=int, help="seeds 0 to N - 1, instead of 3 on tables and 1 elsewhere")
    parser.add_argument("--out", type=Path, help="run directory, to be resumed; a temporary one by default")
    parser.add_argument("--write", type=Path, help="JSON file that takes the scores and the choice")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = Console(width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            registry = plugins.load(frozenset())
            for name in dict.fromkeys(asked.tasks.split(",")):
                cls, _ = registry.task(name.strip())
                measured = measure(
                    cls,
                    asked.out or Path(scratch),
                    model=asked.model,
                    steps=asked.steps,
                    pairs=asked.pairs,
                    only=frozenset(filter(None, asked.algos.split(","))),
                    seeds=asked.seeds,
                )
                show(console, measured)
                console.print(f"learning_rates = {measured.chosen()}", soft_wrap=True)
                if asked.write:
                    write(asked.write, [measured])
        except UsageError as error:
            parser.error(str(error))


if __name__ == "__main__":
    main()
