"""What the arguments of an evaluation name: models, adapters, runs with checkpoints, and hub ids."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from xpo_bench.checkpoints import ORIGIN, PACKAGED, locate
from xpo_bench.errors import UsageError
from xpo_bench.evaluating.weights import Kind, kind_of, require_whole
from xpo_bench.plugins import NAME

STEP = re.compile(r"(?:checkpoint|global[-_]?step|step|iter)[-_]?(\d+)(?:[-_]hf)?", re.IGNORECASE)
"""Directories of checkpoints as trainers call them, with their step."""
FETCHED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py")
"""Files of a hub repository that are fetched: no pickled weights."""


@dataclass(frozen=True)
class Place:
    """One model.

    Args:
        shown: as the user named it. model: what `from_pretrained` is told: a directory, or the name of a
            packaged model. kind: whole weights, or an adapter. step: of training, None where nothing tells.
        revision: the commit of a hub id.
    """

    shown: str
    model: str
    kind: Kind
    step: int | None = None
    revision: str | None = None

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return Path(locate(self.model).place)


@dataclass(frozen=True)
class Series:
    """One row of the tables: the checkpoints of one training run in the order of their steps, or one model.

    Args:
        name: of the row. seed: tells apart the runs of one name. given: the arguments that named it.
        stream: whose random numbers its samples are made of.
    """

    name: str
    seed: int
    given: tuple[str, ...]
    points: tuple[Place, ...]
    stream: str

    @property
    def label(self) -> str:
        return f"{self.name}, seed {self.seed}" if self.seed else self.name


def place_of(given: str, step: int | None = None) -> Place:
    """The one model that a path, a hub id or the name of a packaged model means.

    Raises:
        UsageError: it is none, it is incomplete, or its weights are pickled.
    """
    if given in PACKAGED:
        locate(given)  # or says how to install it
        return Place(given, given, "model")
    folder, revision = _folder(given)
    kind = require_whole(folder, given)
    named = STEP.fullmatch(folder.name)
    return Place(given, str(folder), kind, int(named[1]) if named and step is None else step, revision)


def series_of(arguments: Sequence[str], seed: int | None) -> list[Series]:
    """What the arguments name, one entry for each row of the tables.

    Several arguments of one NAME are runs of one method, told apart by their seed; checkpoints of one
    directory, named one by one, are one run.

    Raises:
        UsageError: an argument that is no checkpoint, or names that are no names or not told apart.
    """
    if not arguments:
        raise UsageError("no checkpoint: name a directory or a hub id, such as dpo=out/dpo")
    found: list[Series] = []
    own: set[str] = set()
    for argument in arguments:
        name, given = _split(argument)
        points = _points(given)
        origin = _trained_here(points[0])
        if origin and points[0].step is None and isinstance(origin.get("steps"), int):
            points = (replace(points[0], step=origin["steps"]),)
        if name is None:
            name = _usual_name(given, points, origin)
            if origin is None:
                own.add(name)
        wanted = seed if seed is not None else int(origin["seed"]) if origin else 0
        stream = str(origin["algorithm"]) if origin else "evaluate"
        _add(found, Series(name, wanted, (given,), points, stream), own, origin is not None)
    return found


def _add(found: list[Series], new: Series, defaulted: set[str], known_seed: bool) -> None:
    """Add a series: to the run whose checkpoint it is, or as a further run of its name."""
    of_name = [i for i, known in enumerate(found) if known.name == new.name]
    for i in of_name:
        if _of_one_run(found[i], new):
            known = {p.folder.resolve() for p in found[i].points}  # a run, and again one of its checkpoints
            more = [p for p in new.points if p.folder.resolve() not in known]
            points = tuple(sorted((*found[i].points, *more), key=lambda p: p.step or 0))
            found[i] = replace(found[i], points=points, given=(*found[i].given, *new.given))
            return
    if of_name and new.name in defaulted:
        first, second = found[of_name[0]].given[0], new.given[0]
        raise UsageError(
            f"{second}: called {new.name}, as {first} is; give both a name: a={first} b={second}"
        )
    taken = {found[i].seed for i in of_name}
    seed = new.seed
    if known_seed and seed in taken:
        raise UsageError(f"{new.given[0]}: another policy of {new.name} at seed {seed} is given, too")
    while seed in taken:
        seed += 1
    found.append(replace(new, seed=seed))


def _of_one_run(a: Series, b: Series) -> bool:
    """Whether two arguments name checkpoints of one directory."""
    if any(p.step is None or not STEP.fullmatch(p.folder.name) for p in (*a.points, *b.points)):
        return False
    return len({p.folder.resolve().parent for p in (*a.points, *b.points)}) == 1


def _split(argument: str) -> tuple[str | None, str]:
    """NAME and CHECKPOINT of an argument; None where it has no name."""
    name, equals, given = argument.partition("=")
    if not equals or Path(argument).exists():
        return None, argument
    if not given:
        raise UsageError(f"{argument}: nothing stands after the =; want NAME=CHECKPOINT")
    if not NAME.fullmatch(name):
        raise UsageError(f"{argument}: the name {name!r} must match {NAME.pattern}")
    return name, given


def _usual_name(given: str, points: Sequence[Place], origin: dict[str, Any] | None) -> str:
    """The name of a row without one: that of the directory, or of the run that a checkpoint is of."""
    if origin is not None:
        return str(origin["algorithm"])
    plain = given.rstrip("/\\")
    path = Path(plain)
    if STEP.fullmatch(path.resolve().name) and len(points) == 1:
        path = path.resolve().parent
    text = path.name if path.name not in ("", ".", "..") else path.resolve().name
    cleaned = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64]
    if not cleaned:
        raise UsageError(f"{given}: no name can be made of it; want NAME={given}")
    return cleaned


def _points(given: str) -> tuple[Place, ...]:
    """The checkpoints of a directory in numeric order, or the one model that is there."""
    if given in PACKAGED:
        return (place_of(given),)
    folder, _ = _folder(given)
    inside = sorted(
        (int(found[1]), path)
        for path in folder.iterdir()
        if path.is_dir() and (found := STEP.fullmatch(path.name)) and kind_of(path) is not None
    )
    if not inside:
        return (place_of(given),)
    for before, after in pairwise(inside):
        if before[0] == after[0]:
            raise UsageError(
                f"{given}: {before[1].name} and {after[1].name} are of one step; name one of them"
            )
    return tuple(place_of(str(Path(given) / path.name), step) for step, path in inside)


def _folder(given: str) -> tuple[Path, str | None]:
    """The directory of a path or a hub id, fetched where it has to be, and the commit of the latter."""
    found = locate(given)
    if found.local:
        folder = Path(found.place)
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "no such directory"
            raise UsageError(
                f"{given}: {what}; want a directory of a model, of an adapter or of a run, or a hub id"
            )
        return folder, None
    from huggingface_hub import snapshot_download

    try:
        place = snapshot_download(
            given, allow_patterns=list(FETCHED), local_files_only=bool(found.options()["local_files_only"])
        )
    except Exception as error:  # the hub's client fails in many ways
        from xpo_bench.policy.language.pretrained import first_sentence

        raise UsageError(
            f"{given}: no such directory, and no hub id that can be had from here: {first_sentence(error)}"
        ) from error
    return Path(place), Path(place).name


def origin_of(place: Place) -> dict[str, Any]:
    """What `run --save-policies` wrote beside a policy; nothing of other models."""
    path = place.folder / ORIGIN
    if not path.is_file():
        return {}
    found = json_object(path)
    if found is None:
        raise UsageError(f"{path}: incomplete or corrupt; want the file that `run --save-policies` wrote")
    return found


def json_object(path: Path) -> dict[str, Any] | None:
    """The object that a JSON file holds; None where it holds something else, or is no JSON."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _trained_here(point: Place) -> dict[str, Any] | None:
    """The run that a policy of this suite is of: its algorithm and seed; None of other models."""
    found = origin_of(point)
    if not isinstance(found.get("algorithm"), str) or not isinstance(found.get("seed"), int):
        return None
    return found
