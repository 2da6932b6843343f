"""The cell record as pydantic models, from which `docs/record.schema.json` is generated.

python -m xpo_bench.runner.schema > docs/record.schema.json
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Count = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]+$")]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class Error(Model):
    """What a cell ended with that is neither ok nor diverged."""

    type: str
    message: str
    traceback: str


class AlgorithmOf(Model):
    """The algorithm, and the plugin that it is from."""

    name: Name
    config: dict[str, Any]
    """Every hyperparameter with its value."""
    plugin: str
    distribution: str | None
    version: str | None
    """Of the distribution."""
    regulariser: tuple[str, Literal[-1, 1]] | None = Field(strict=False)
    """The field that is meant to hold the policy near the reference, and the direction in which it does."""
    z0: Literal["exact", "mismatched", "none"] | None = None
    """KTO's reference point: the exact KL of a table, or scores of mismatched rows; "none" where all rows
    that are trained on share one prompt, so that none has a mismatched partner and z0 is 0 throughout."""


class Data(Model):
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
    layout: str | None = None
    """Name of the layout in which the rows were found; absent for rows that no file holds."""
    columns: dict[str, str] | None = None
    """What was read from where: of the layout, of `--columns`, and names that differed in case or blanks."""
    notes: dict[str, Count] | None = None
    """What is odd about rows that are used -> their number; absent where there is nothing."""
    train: Count
    heldout: Count
    template: Literal["model", "plain"] | None = None
    """What made text of conversational rows: the model's chat template, or the suite's plain one; null where
    rows are text.
    """
    template_date: str | None = None
    """The day that the chat template was told, where it asked for today's."""
    truncated: Count | None = None
    """Rows of which something was truncated to fit the context of a language model."""
    boundary_merges: Count | None = None
    """Rows of which prompt and completion share a token."""
    equal_ids: Count | None = None
    """Pairs left out since both sides have the same token ids."""
    unfit: dict[str, Count] | None = None
    """Reason -> other rows left out since they do not fit the context."""


class TaskOf(Model):
    """The task: data, model and budget."""

    name: str
    version: str
    options: dict[str, Any]
    data: Data
    model: dict[str, Any]
    """`name`, and what the policy says of itself: parameters, vocabulary, dtype, how rows are laid out."""
    budget: dict[str, Any]
    expected_divergence: bool


class Train(Model):
    """The update rule."""

    lr: Number
    optimizer: str
    processes: Annotated[int, Field(ge=2)] | None = None
    """How many trained the model together."""


class MetricOf(Model):
    """A metric of a plugin, as it was defined when the cell ran."""

    unit: str
    better: Literal["higher", "lower"] | None
    definition: str
    plugin: str
    distribution: str | None
    version: str | None


class Timing(Model):
    """Seconds of each phase, off one another's clocks; empty for a cell without an outcome."""

    prepare_s: Number | None = None
    train_s: Number | None = None
    evaluate_s: Number | None = None
    steps: Count | None = None
    step_ms_median: Number | None = None
    vectorised_runs: Count | None = None
    """Runs that trained as one computation, and share its clock."""


class Record(Model):
    """One cell: an algorithm with its configuration, on a task, at a seed. `RUN/cells/KEY.json`."""

    record_schema: Literal[1] = Field(alias="schema")
    key: Hex
    """Hash of everything that decides the numbers."""
    status: Literal["ok", "diverged", "failed", "oom", "timeout", "crashed"]
    error: Error | None
    algorithm: AlgorithmOf
    task: TaskOf
    train: Train
    seed: Count
    experiment: str | None
    protocol: dict[str, Any] | None = None
    """Of the tuned protocol: the role of the cell."""
    metrics: dict[str, Number | None]
    """Name -> value; absent where a metric does not apply, null for never or undefined."""
    metric_definitions: dict[str, MetricOf] | None = None
    """Of the metrics of plugins that were measured; absent where there is none."""
    final_policy: dict[str, dict[str, Number]] | None
    """prompt -> completion -> probability, where it is exact and has at most 4,096 entries."""
    timing: Timing
    notes: dict[str, Any]
    environment: dict[str, Any]
    """Machine and versions; environment variables by allow-list."""
    created: str
    """UTC, ISO 8601."""


def schema() -> dict[str, Any]:
    """The JSON Schema of a record."""
    return Record.model_json_schema(by_alias=True)


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1, ensure_ascii=False))
