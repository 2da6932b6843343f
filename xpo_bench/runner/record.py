"""The record of a cell (schema 1), as a type; `recording.py` builds one.

`docs/record.schema.json` is made from the type: python -m xpo_bench.runner.record > docs/record.schema.json
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from xpo_bench.contract.settings import Labels

SCHEMA: Literal[1] = 1

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Count = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]+$")]
Status = Literal["ok", "diverged", "failed", "oom", "timeout", "crashed"]

# a record is a plain dictionary, so that one of an earlier version is read as it is; these classes say what
# today's holds, to mypy and, in the JSON Schema, to readers
part = with_config(ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True))


@part
class Error(TypedDict):
    """What a cell ended with that is neither ok nor diverged."""

    type: str
    message: str
    traceback: str


@part
class AlgorithmOf(TypedDict):
    """The algorithm, and the plugin that it is from."""

    name: Name
    config: dict[str, Any]
    """Every hyperparameter with its value."""
    plugin: str
    distribution: str | None
    version: str | None
    """Of the distribution."""
    source: NotRequired[Hex]
    """Digest of the file of its class, and of those of the plugin's classes that it extends."""
    file: NotRequired[str]
    """Of a class that a command named by its file: FILE.py:CLASS, whose text `source` is the digest of, with
    what it imports from its folder."""
    regulariser: Annotated[tuple[str, Literal[-1, 1]] | None, Field(strict=False)]
    """The field that is meant to hold the policy near the reference, and the direction in which it does."""
    paper: NotRequired[str]
    """Identifier of its paper, such as arXiv:2305.18290, where it names one."""
    z0: NotRequired[Literal["exact", "mismatched", "none"]]
    """KTO's reference point: the exact KL of a tabular policy, or scores of mismatched rows; "none" where all
    rows that are trained on share one prompt: then none has a mismatched partner and z0 is 0 throughout."""


@part
class SplitOverlap(TypedDict):
    """What stands on both sides of the split: distinct texts, and the held-out rows that hold one."""

    prompts: Count
    prompt_rows: Count
    completions: Count
    completion_rows: Count


@part
class Data(TypedDict):
    """The preference set."""

    source: str
    revision: str | None
    """Commit of a hub set."""
    kind: str
    fingerprint: Hex
    """Of what can change results: rows in order, their split, and the world."""
    rows: Count
    dropped: dict[str, Count]
    """Reason -> rows left out."""
    layout: NotRequired[str]
    """Name of the layout in which the rows were found; absent for rows that no file holds."""
    columns: NotRequired[dict[str, str]]
    """What was read from where: of the layout, of `--columns`, and names that differed in case or blanks."""
    notes: NotRequired[dict[str, Count]]
    """What is odd about rows that are used -> their number; absent where there is nothing."""
    train: Count
    heldout: Count
    split_overlap: NotRequired[SplitOverlap]
    """Of a set with held-out rows: the prompts and completions that training sees too."""
    template: NotRequired[Literal["model", "plain"] | None]
    """What made text of conversational rows: the model's chat template, or the suite's plain one; null where
    rows are text."""
    template_date: NotRequired[str]
    """The day that the chat template was told, where it asked for today's."""
    truncated: NotRequired[Count]
    """Rows of which something was truncated to fit the context of a language model."""
    boundary_merges: NotRequired[Count]
    """Rows of which prompt and completion share a token."""
    equal_ids: NotRequired[Count]
    """Pairs left out since both sides have the same token ids."""
    unfit: NotRequired[dict[str, Count]]
    """Reason -> other rows left out since they do not fit the context."""


@part
class TaskOf(TypedDict):
    """The task: data, model and budget."""

    name: str
    version: str
    source: NotRequired[Hex]
    """As that of the algorithm."""
    options: dict[str, object]
    data: Data
    model: dict[str, object]
    """`name`, and what the policy says of itself: parameters, vocabulary, dtype, how rows are laid out."""
    budget: dict[str, Any]
    expected_divergence: bool
    cannot_see: NotRequired[str]
    """What all algorithms look alike in here, as a phrase; absent where nothing is known to be so."""


@part
class Train(TypedDict):
    """The update rule; empty where the suite has not trained."""

    lr: NotRequired[Number]
    optimizer: NotRequired[str]
    processes: NotRequired[Annotated[int, Field(ge=2)]]
    """How many trained the model together."""


@part
class Protocol(TypedDict):
    """What a cell of the tuned protocol is: one of the trials, or a chosen configuration."""

    name: Literal["tuned"]
    role: Literal["trial", "tuned"]
    trial: Count
    study: NotRequired[Count]
    """Which of several independent searches it belongs to; the first that chose it, where several did."""


@part
class Checkpoint(TypedDict):
    """With `--target-kl`: the step at which a run passes the target, which its metrics are of, or its end
    where it never does."""

    target_kl: Number
    step: Count
    steps: Count
    """Of the whole run, whose schedule it follows."""
    reached: bool


@part
class EvaluatedModel(TypedDict):
    """A model that was trained elsewhere."""

    path: str
    """As it was named: a path or a hub id."""
    weights: Hex
    """Digest of its weights and configurations, byte by byte."""
    kind: Literal["model", "adapter"]
    revision: str | None
    """Commit of a hub id."""


@part
class EvaluatedCheckpoint(EvaluatedModel):
    """One point of the curve."""

    step: Count | None
    """Of its training; null where nothing tells, and then there is no curve."""
    base: NotRequired[EvaluatedModel]
    """What an adapter stands on."""


@part
class LostPair(TypedDict):
    """A row whose chosen completion became less probable."""

    row: Count
    """Its number in the file, from 1 on."""
    split: Literal["train", "heldout"]
    chosen_log_ratio: Number
    """Nats, against the reference."""
    rejected_log_ratio: Number | None
    chosen_length: Count
    """Tokens."""


@part
class Evaluated(TypedDict):
    """Of a cell of `xpo-bench evaluate`: not trained by it; the algorithm's name is one that was given."""

    checkpoints: list[EvaluatedCheckpoint]
    """In the order of their steps; metrics are those of the last."""
    reference: EvaluatedModel
    """What all log-ratios and the KL are against."""
    judge: NotRequired[str]
    base_data: NotRequired[list[str]]
    samples: NotRequired[str]
    """Whose random numbers the samples are made of."""
    drift_steps: NotRequired[list[Count]]
    """The two steps between which `rejected_drift` is read."""
    lost: NotRequired[list[LostPair]]
    """The pairs whose chosen completions lost most at the last checkpoint, the most first."""


@part
class MetricOf(TypedDict):
    """A metric of a plugin, as it was defined when the cell ran."""

    unit: str
    better: Literal["higher", "lower"] | None
    definition: str
    plugin: str
    distribution: str | None
    version: str | None


@part
class Timing(TypedDict, total=False):
    """Seconds of each phase, off one another's clocks; empty for a cell without an outcome."""

    prepare_s: Number | None
    train_s: Number | None
    evaluate_s: Number | None
    steps: Count | None
    step_ms_median: Number | None
    vectorised_runs: Count | None
    """Runs that trained as one computation, and share its clock."""


@part
class Record(TypedDict):
    """One cell: an algorithm with its configuration, on a task, at a seed. `RUN/cells/KEY.json`."""

    schema: Literal[1]
    key: Hex
    """Hash of everything that decides the numbers."""
    status: Status
    error: Error | None
    algorithm: AlgorithmOf
    task: TaskOf
    train: Train
    labels: NotRequired[Labels]
    """What training made of votes, probabilities and ties; absent in records from before there was a choice,
    when labels were hard.
    """
    seed: Count
    experiment: str | None
    suite: NotRequired[str | None]
    """The built-in suite that `experiment` is a part of; null for a label of the user's, absent in records
    from before there was a difference.
    """
    protocol: NotRequired[Protocol]
    """Of the tuned protocol: the role of the cell."""
    checkpoint: NotRequired[Checkpoint]
    """Of a run that is stopped where its KL passes the target of `--target-kl`."""
    saved_policy: NotRequired[str]
    """Directory of the trained policy, where `--save-policies` asked for it."""
    evaluated: NotRequired[Evaluated]
    """Of `xpo-bench evaluate`: the models that were measured."""
    metrics: dict[str, Number | None]
    """Name -> value; absent where a metric does not apply, null for never or undefined."""
    metric_definitions: NotRequired[dict[str, MetricOf]]
    """Of the metrics of plugins that were measured; absent where there is none."""
    final_policy: dict[str, dict[str, Number]] | None
    """prompt -> completion -> probability, where it is exact and has at most 4,096 entries."""
    timing: Timing
    notes: dict[str, Any]
    environment: dict[str, Any]
    """Machine and versions; environment variables by allow-list."""
    created: str
    """UTC, ISO 8601."""


Curve = list[dict[str, float | None]]
"""One row per evaluation: `step`, and every metric that was evaluated there."""


def schema() -> dict[str, Any]:
    """The JSON Schema of a record."""
    from pydantic import TypeAdapter

    return TypeAdapter(Record).json_schema()


def now() -> str:
    """UTC time in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1, ensure_ascii=False))
