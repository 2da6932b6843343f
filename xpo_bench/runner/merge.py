"""Run directories joined into one: the union of their records, none of which may contradict another."""

from __future__ import annotations

from collections.abc import Sequence

from xpo_bench.errors import UsageError
from xpo_bench.metrics.throughput import MEASURED
from xpo_bench.runner.record import Record
from xpo_bench.runner.run_document import joined
from xpo_bench.runner.store import DONE, Store

ABOUT = ("timing", "created", "environment", "saved_policy")
"""What a record says of when and where."""


def computed(record: Record) -> dict[str, object]:
    """What of a record is the same at every run of its cell."""
    out = {name: value for name, value in record.items() if name not in ABOUT}
    return out | {
        "metrics": {name: value for name, value in record["metrics"].items() if name not in MEASURED}
    }


def merge(sources: Sequence[Store], target: Store) -> tuple[int, list[str]]:
    """Copy the records of several run directories, and their curves, into one, which may hold some already.

    A cell that is done in one directory and failed in another is taken from where it is done; nothing is
    written before all have been compared.

    Returns:
        How many cells the target holds then, and what is left out: records that are incomplete or corrupt.

    Raises:
        UsageError: two directories contradict each other over a cell, or there is none. StoreError: the
        target cannot be written.
    """
    chosen: dict[str, tuple[Record, Store]] = {}
    for store in (target, *sources):
        for record in store.records():
            known = chosen.get(record["key"])
            if known is None or (record["status"] in DONE and known[0]["status"] not in DONE):
                chosen[record["key"]] = (record, store)
            # one key means equal inputs: finished records of it may differ in what is measured alone
            elif record["status"] in DONE and (where := _difference(computed(known[0]), computed(record))):
                raise UsageError(
                    f"{known[1].root} and {store.root} contradict each other: "
                    f"{_cell(record)} differs in {where}; "
                    "both are of one key, so one was made on another machine or has been changed. "
                    "Merge either without it"
                )
    left_out = [f"{path}: {reason}" for store in (target, *sources) for path, reason in store.damaged.items()]
    if not chosen:
        raise UsageError(f"{', '.join(str(store.root) for store in sources)}: no finished cell to merge")
    for key, (record, store) in chosen.items():
        if store is not target:
            target.copy_cell(store, key, record)
    target.write_run(joined([target.read_run(), *(store.read_run() for store in sources)]))
    return len(chosen), left_out


def _cell(record: Record) -> str:
    return (
        f"{record['algorithm']['name']} on {record['task']['name']}, seed {record['seed']} ({record['key']})"
    )


def _difference(a: object, b: object, at: str = "") -> str | None:
    """The first place where two documents differ, as a dotted path, or None."""
    if isinstance(a, dict) and isinstance(b, dict):
        for name in sorted(a.keys() | b.keys()):
            if name not in a or name not in b:
                return f"{at}{name}"
            if found := _difference(a[name], b[name], f"{at}{name}."):
                return found
        return None
    return None if a == b else at.rstrip(".") or "everything"
