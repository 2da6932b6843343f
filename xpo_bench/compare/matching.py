"""Which cells of two runs belong together, and which of their settings differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from xpo_bench.compare.baselines import Baseline, Cell

Match = Literal["configuration", "algorithm"]
"""What two cells must share: every setting, or the names of algorithm, task and experiment."""
Seeds = Mapping[int, Cell]
Place = tuple[str, str, str | None]
"""Algorithm, task and experiment."""
NAMED_CHANGES = 4
"""Changed settings that a sentence names; the JSON document has all."""


class Change(TypedDict):
    """A setting that differs, such as `config.beta`; None where a side does not have it."""

    setting: str
    base: Any
    new: Any


@dataclass(frozen=True)
class Pairing:
    """The cells of one row of a comparison, by seed.

    Attributes:
        name: canonical identity, of the base's cell where there is one. before, after: empty where a side has
            none. changes: settings that differ. missing: why the base's cell has no counterpart.
    """

    name: str
    before: Seeds
    after: Seeds
    changes: Sequence[Change] = ()
    missing: str | None = None

    @property
    def first(self) -> Cell:
        """A cell that says what the row is about."""
        return next(iter((self.before or self.after).values()))


def pair_cells(base: Baseline, new: Baseline, match: Match) -> list[Pairing]:
    """Every cell of either run in one row, in the order of identities.

    Equal settings belong together first. What is left of an algorithm on a task belongs together under
    `algorithm` where each run has one configuration of it left; several could be matched in more than one
    way, so that none is.
    """
    before, after = base.cells(), new.cells()
    out = [Pairing(name, before[name], after[name]) for name in before.keys() & after.keys()]
    old, later = _left(before, after), _left(after, before)
    for place in old.keys() | later.keys():
        out += _rest(old.get(place, {}), later.get(place, {}), new, match)
    return sorted(out, key=lambda row: row.name)


def _left(own: Mapping[str, Seeds], other: Mapping[str, Seeds]) -> dict[Place, dict[str, Seeds]]:
    """The cells whose settings the other run does not have, by place and identity."""
    out: dict[Place, dict[str, Seeds]] = {}
    for name, seeds in own.items():
        if name not in other:
            cell = next(iter(seeds.values()))
            out.setdefault((cell.algorithm, cell.task, cell.experiment), {})[name] = seeds
    return out


def _rest(
    old: Mapping[str, Seeds], later: Mapping[str, Seeds], new: Baseline, match: Match
) -> Iterator[Pairing]:
    """The rows of one place, of cells without a counterpart of equal settings."""
    if not old:
        yield from (Pairing(name, {}, seeds) for name, seeds in later.items())
        return
    if len(old) == len(later) == 1:
        ((name, before),), ((_, after),) = old.items(), later.items()
        changes = changed(_settings(before), _settings(after))
        # Settings that are spelt in another way, 1 and 1.0, are equal.
        comparable = match == "algorithm" or not changes
        reason = None if comparable else f"cannot be compared: {sentence(changes)}"
        yield Pairing(name, before, after if comparable else {}, changes, reason)
        return
    for name, before in old.items():
        yield Pairing(name, before, {}, missing=_why_missing(before, len(old), len(later), new, match))


def _why_missing(before: Seeds, old: int, later: int, new: Baseline, match: Match) -> str:
    cell = next(iter(before.values()))
    if later and match == "algorithm":
        return f"cannot be matched: {old} configurations in the base, {later} others in the new run"
    if cell.algorithm not in {other.algorithm for other in new.all_cells}:
        return "the algorithm is missing from the new run"
    if cell.task not in {other.task for other in new.all_cells}:
        return "the task is missing from the new run"
    return "missing from the new run"


def _settings(seeds: Seeds) -> Mapping[str, Any]:
    return next(iter(seeds.values())).identity


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The settings that differ between two identities, by name.

    The learning rate and the optimizer stand in the budget and in what was trained with; where both changed
    alike the change is named once.
    """
    found = list(_differences(before, after, ""))
    trained = [{**c, "setting": "budget." + c["setting"].removeprefix("train.")} for c in found]
    return [c for c in found if c["setting"].startswith("train.") or c not in trained]


def _differences(a: object, b: object, at: str) -> Iterator[Change]:
    if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        yield {"setting": at, "base": a, "new": b}
        return
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name):
            yield from _differences(a.get(name), b.get(name), f"{at}.{name}" if at else name)


def sentence(changes: Sequence[Change]) -> str:
    """`config.beta 0.1 → 0.3, train.lr 0.01 → 0.05`."""
    named = [f"{c['setting']} {_shown(c['base'])} → {_shown(c['new'])}" for c in changes[:NAMED_CHANGES]]
    more = len(changes) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
