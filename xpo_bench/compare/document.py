"""The JSON document of a comparison of two runs, as types."""

from __future__ import annotations

from typing import Literal, TypedDict

from xpo_bench.compare.matching import Change, Match
from xpo_bench.compare.verdicts import Verdict


class Labelled(TypedDict):
    """The cell that a row of the document is about."""

    cell: str
    algorithm: str
    task: str
    experiment: str | None


class Throughput(TypedDict):
    """Median training pairs per second."""

    base: float
    new: float


class PathRow(TypedDict):
    """Where a curve differs: at which fraction of its points, and from which step on."""

    metric: str
    points: int
    share: float
    step: int


class CellRow(Labelled, total=False):
    """One cell in the document; the parts after `sources` are there where it could be compared.

    `seeds` are those in common, `runs` how many of them differ in anything; `changes` the settings that
    differ, `sources` whose source does.
    """

    seeds: int
    verdict: Verdict
    reasons: list[str]
    changes: list[Change]
    sources: list[str]
    runs: int
    throughput: Throughput | None
    one_platform: bool
    identical: bool
    paths: list[PathRow]


class MetricTest(Labelled, total=False):
    """The test of one metric of one cell; p_holm and verdict follow once every test is known.

    `exact`: one run, whatever the seed, or one model that was trained elsewhere, so that there is a
    difference and no test of it. `informative`: a setting was changed or the model was trained elsewhere, and
    the metric has no better side, so that its move is told and decides nothing.
    """

    metric: str
    better: str | None
    base: float
    difference: float
    ci95: list[float] | None
    iqm: float
    margin: float
    p: float | None
    n: int
    exact: bool
    informative: bool
    p_holm: float
    verdict: Verdict


class RunAbout(TypedDict):
    """One of the two runs."""

    name: str
    cells: int
    versions: list[str]
    left_out: list[str]
    superseded: int


class SourceChange(TypedDict):
    """An algorithm or a task whose source differs, with the versions of its distribution."""

    kind: Literal["algorithm", "task"]
    name: str
    base: list[str]
    new: list[str]


class AlgorithmTest(TypedDict, total=False):
    """The sign-flip test of one algorithm over tasks, in margins; above 0 is worse."""

    algorithm: str
    tasks: int
    seeds: int
    mean: float | None
    iqm: float | None
    p: float | None
    p_holm: float
    verdict: Verdict


class Document(TypedDict):
    """What `xpo-bench compare --json` prints."""

    schema: int
    verdict: Literal["regression", "undecided", "pass"]
    match: Match
    base: RunAbout
    new: RunAbout
    platforms: list[str]
    sources: list[SourceChange]
    unknown_sources: int
    comparisons: int
    cells: list[CellRow]
    tests: list[MetricTest]
    algorithms: list[AlgorithmTest]
