"""A claim: a sentence of a paper as a file of data, with the cells that test it and the rule that decides."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge
from typing_extensions import Doc

from xpo_bench.errors import UsageError, unknown
from xpo_bench.metrics.margins import margin_of
from xpo_bench.report.format import setting
from xpo_bench.report.verdicts.paired import ITEMS
from xpo_bench.runner.settings import dump, validate
from xpo_bench.runner.words import FILE_KEYS

STRICT: Mapping[str, object] = {"extra": "forbid", "allow_inf_nan": False}
Expected = Literal["higher", "lower", "equivalent", "not higher", "not lower"]
Place = Literal["end", "max", "min", "start"]
SPOKEN: Mapping[Place, str] = {
    "end": "",
    "max": "(its maximum)",
    "min": "(its minimum)",
    "start": "(at the start)",
}
LARGEST = 1 << 20
"""Bytes of a file at most."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How the configurations of a block are found, where they are searched."""

    __pydantic_config__ = STRICT

    protocol: Literal["default", "tuned"] = "default"
    trials: Annotated[int | None, Ge(1)] = None
    select: str | None = None
    target_kl: float | None = None


@dataclass(frozen=True)
class Block:
    """Cells of a claim.

    Args:
        words: of a plan file; an algorithm or a task may also be `module:Class`, one that needs no name of
            its own. metrics: `module:function` of metrics that only these cells need. measure: in place of
            cells, a `module:function` of a seed that returns numbers by name.
    """

    name: str
    words: Mapping[str, object]
    search: Search = Search()
    metrics: Sequence[str] = ()
    measure: str = ""


@dataclass(frozen=True)
class Choice:
    """Which runs one side of a test is about.

    Args:
        algo, task: names. lr: the learning rate, where several were run. default: of searched cells those at
            the default, in place of the chosen ones. at: where on the path of a run the metric is read.
            best: of all configurations that fit, the one with the best mean on the first half of the seeds;
            the test is made on the other half. fields: further values, by the name of a hyperparameter, or
            by `task.NAME` of a setting of the task.
    """

    algo: str
    task: str | None = None
    lr: float | None = None
    default: bool = False
    at: Place = "end"
    best: Literal["highest", "lowest"] | None = None
    fields: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        own = {**self.fields, **({"lr": self.lr} if self.lr is not None else {})}
        chosen = [f"{name}={setting(value)}" for name, value in own.items()]
        place = SPOKEN[self.at]
        best = "at its best" if self.best else ""
        where = f"on {self.task}" if self.task else ""
        return " ".join(part for part in (self.algo, *chosen, best, where, place) if part)


@dataclass(frozen=True, kw_only=True)
class ClaimTest:
    """One declared comparison; all tests of a claim are one family.

    Args:
        says: what it shows, as a sentence. when: the condition that it belongs to; a claim may hold under
            some conditions and fail under others. metric or note, equals: what is compared; of a note the
            share of runs in which it equals a word. b or value: another choice, or a number.
        expect: what a is, against b, if the claim holds. margin: differences up to it are none.
    """

    says: str
    runs: str
    when: str
    metric: str | None
    note: str | None
    equals: str | None
    a: Choice
    b: Choice | None
    value: float | None
    expect: Expected
    margin: float | None

    @property
    def measure(self) -> str:
        """What is compared, in words."""
        return self.metric if self.metric else f"share of runs with {self.note} = {self.equals}"

    def margin_at(self, base: float) -> float:
        """The margin around a value: that of the test, else the metric's."""
        found = margin_of(self.metric) if self.metric else None
        return self.margin if self.margin is not None else found.at(base) if found else 0.0


@dataclass(frozen=True)
class Claim:
    """A published claim.

    Args:
        id: its name. statement: one sentence. paper: arXiv id, or what identifies it. section: where it is
            said. known: what theory or earlier runs say. limits: what was and was not tested, and what would
            change the verdict. blocks: its cells. tests: what decides.
    """

    id: str
    statement: str
    paper: str
    section: str
    known: str
    limits: str
    blocks: Sequence[Block]
    tests: Sequence[ClaimTest]

    @property
    def algorithms(self) -> list[str]:
        """The algorithms that it is about: those of its tests."""
        sides = [side for test in self.tests for side in (test.a, test.b) if side]
        return list(dict.fromkeys(side.algo for side in sides))


# --------------------------------------------------------------------------- reading


@dataclass(frozen=True, kw_only=True)
class _Head:
    __pydantic_config__ = STRICT

    statement: Annotated[str, Doc("the claim in one sentence")]
    paper: Annotated[str, Doc("arXiv id, or what identifies the paper")]
    section: str = ""
    known: str = ""
    limits: str = ""


@dataclass(frozen=True, kw_only=True)
class _Test:
    __pydantic_config__ = STRICT

    says: str
    a: dict[str, Any]
    expect: Expected
    runs: str = ""
    when: str = ""
    metric: str | None = None
    note: str | None = None
    equals: str | None = None
    b: dict[str, Any] | None = None
    value: float | None = None
    margin: Annotated[float | None, Ge(0)] = None


@dataclass(frozen=True, kw_only=True)
class _Choice:
    __pydantic_config__ = STRICT

    algo: str
    task: str | None = None
    lr: float | None = None
    default: bool = False
    at: Place = "end"
    best: Literal["highest", "lowest"] | None = None


def read(path: Path) -> Claim:
    """The claim of a TOML file, whose name is that of the claim.

    Raises:
        UsageError: in one line, what is wrong and where.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise UsageError(f"{path.name}: larger than 1 MiB; a claim is a short TOML file")
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path.name}: not valid TOML: {error}") from None
    where = path.stem
    runs, tests = document.pop("runs", []), document.pop("tests", [])
    for name, tables in (("runs", runs), ("tests", tests)):
        if not (isinstance(tables, list) and tables and all(isinstance(t, dict) for t in tables)):
            raise UsageError(f"claim {where}: wants one or more tables [[{name}]]")
    head = validate(_Head, document, f"claim {where}")
    blocks = [_block(dict(table), where, place) for place, table in enumerate(runs, 1)]
    names = [block.name for block in blocks]
    if len(set(names)) < len(names):
        raise UsageError(f"claim {where}: several [[runs]]; give each a name of its own")
    parsed = [_test(table, names, where, place) for place, table in enumerate(tests, 1)]
    return Claim(where, **_plain(head), blocks=blocks, tests=parsed)


def _plain(head: _Head) -> dict[str, Any]:
    return {name: " ".join(str(value).split()) for name, value in dump(head).items()}


def _block(table: dict[str, Any], claim: str, place: int) -> Block:
    where = f"claim {claim}: runs {place}"
    name, metrics = str(table.pop("name", "")), table.pop("metrics", [])
    measure = str(table.pop("measure", ""))
    searched = {key: table.pop(key) for key in list(table) if key in Search.__dataclass_fields__}
    for key in table:
        if key not in FILE_KEYS:
            raise UsageError(f"{where}: {unknown('word', key, [*FILE_KEYS, 'name', 'metrics', 'measure'])}")
    if not (isinstance(metrics, list) and all(isinstance(m, str) and ":" in m for m in metrics)):
        raise UsageError(f'{where}: metrics = {metrics}: expected a list of "module:function"')
    if measure and (set(table) - {"seeds"} or searched or metrics or ":" not in measure):
        raise UsageError(f'{where}: measure wants "module:function", and goes with seeds and name alone')
    return Block(name, table, validate(Search, searched, where), tuple(metrics), measure)


def _test(table: dict[str, Any], blocks: Sequence[str], claim: str, place: int) -> ClaimTest:
    where = f"claim {claim}: tests {place}"
    read = validate(_Test, table, where)
    if read.runs not in blocks and not (read.runs == "" and len(blocks) == 1):
        raise UsageError(f"{where}: {unknown('runs', read.runs, blocks)}")
    if (read.metric is None) == (read.note is None) or (read.note is None) != (read.equals is None):
        raise UsageError(f"{where}: wants a metric, or a note and what it equals")
    if (read.b is None) == (read.value is None):
        raise UsageError(f"{where}: wants b, another choice of runs, or value, a number")
    if read.value is not None and read.metric in ITEMS:
        raise UsageError(
            f"{where}: {read.metric} is a share of sampled items; compare it with b, not with a value"
        )
    a, b = _choice(read.a, f"{where}: a"), _choice(read.b, f"{where}: b") if read.b is not None else None
    if read.note is not None and any(side and (side.at != "end" or side.best) for side in (a, b)):
        raise UsageError(f"{where}: a note is of the whole run; leave out at and best")
    runs = read.runs or blocks[0]
    test = ClaimTest(**{**vars(read), "runs": runs, "a": a, "b": b, "when": " ".join(read.when.split())})
    if read.expect not in ("higher", "lower") and test.margin_at(1.0) == 0:
        raise UsageError(f"{where}: {test.measure} has no declared margin; give one, such as margin = 0.02")
    return test


def _choice(table: Mapping[str, Any], where: str) -> Choice:
    own = {key: value for key, value in table.items() if key in _Choice.__dataclass_fields__}
    if "algo" not in own:
        raise UsageError(f"{where}: wants algo, the name of an algorithm")
    return Choice(
        **vars(validate(_Choice, own, where)), fields={k: v for k, v in table.items() if k not in own}
    )
