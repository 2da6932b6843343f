"""What is kept of a checkpoint that has been measured: `RUN/measured/KEY.json`, whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, cast

from xpo_bench.errors import StoreError
from xpo_bench.runner.keys import canonical
from xpo_bench.runner.store import finite, write_atomic

SCHEMA = 1


class Sums(TypedDict):
    """Summed log-probabilities of the two sides of a set, nats, in the order of its rows."""

    chosen: list[float]
    rejected: list[float]


@dataclass(frozen=True)
class Measured:
    """One checkpoint.

    Args:
        sets: of the rows that are evaluated, `train` and `heldout`. base: set -> summed log-probabilities of
            its texts. samples: metrics of its samples. notes: facts of these. model: what the policy says of
            itself. seconds: that it took.
    """

    sets: Mapping[str, Sums]
    base: Mapping[str, list[float]]
    samples: Mapping[str, float]
    notes: Mapping[str, Any]
    model: Mapping[str, Any]
    seconds: float

    @property
    def finite(self) -> bool:
        """Whether all log-probabilities of the rows are finite."""
        return all(math.isfinite(v) for s in self.sets.values() for v in (*s["chosen"], *s["rejected"]))


@dataclass
class Shelf:
    """The measured checkpoints of a run directory."""

    root: Path
    damaged: list[Path] = field(default_factory=list)

    def path(self, key: str) -> Path:
        return self.root / "measured" / f"{key}.json"

    def read(self, key: str) -> Measured | None:
        """What was measured under a key; None where nothing was, or the file is incomplete or corrupt."""
        path = self.path(key)
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict) or found.get("schema") != SCHEMA or found.get("key") != key:
            self.damaged.append(path)
            return None
        sets = {
            name: cast(Sums, {side: _numbers(s[side]) for side in ("chosen", "rejected")})
            for name, s in found["sets"].items()
        }
        base = {name: _numbers(values) for name, values in found["base"].items()}
        return Measured(sets, base, found["samples"], found["notes"], found["model"], found["seconds"])

    def write(self, key: str, measured: Measured) -> None:
        """Keep what was measured."""
        document = {"schema": SCHEMA, "key": key, **vars(measured)}
        path = self.path(key)
        try:
            path.parent.mkdir(exist_ok=True)
            write_atomic(path, canonical(finite(document)).encode())
        except OSError as error:
            raise StoreError(
                f"{path}: cannot be written ({error.strerror or error}); checkpoints that were "
                "measured before "
                "are kept, the same command goes on with the next"
            ) from error


def _numbers(values: list[float | None]) -> list[float]:
    """JSON has no NaN; null stands for it."""
    return [math.nan if v is None else v for v in values]
