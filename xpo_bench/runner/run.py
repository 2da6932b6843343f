"""The ways to run what is asked for: as it is, tuned, or at a target KL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xpo_bench.errors import UsageError, unknown
from xpo_bench.runner import columns
from xpo_bench.runner.effects import check_effects
from xpo_bench.runner.execute import Session, execute
from xpo_bench.runner.executed import Executed
from xpo_bench.runner.keys import digest
from xpo_bench.runner.lock import occupied
from xpo_bench.runner.plan import Plan, make_plan
from xpo_bench.runner.record import Record
from xpo_bench.runner.request import parse_shard
from xpo_bench.runner.run_document import Tuning
from xpo_bench.runner.search import target_kl, tuned
from xpo_bench.runner.store import Store
from xpo_bench.runner.words import Output, Request, Search

PROTOCOLS = ("default", "tuned")


def check(search: Search, output: Output) -> None:
    """Refuse words that do not go together, before anything is read.

    Raises:
        UsageError: in one line.
    """
    if output.shard:
        parse_shard(output.shard)
    if search.protocol not in PROTOCOLS:
        raise UsageError(unknown("protocol", str(search.protocol), PROTOCOLS))
    if search.protocol == "default":
        for option in ("trials", "studies", "select"):
            if getattr(search, option) is not None:
                raise UsageError(f"--{option}: goes with --protocol tuned")
        if search.target_kl is not None and output.shard:
            raise UsageError("--shard: not with --target-kl, whose cells depend on one another")
        return
    tuned.check(*_trials(search), _studies(search))
    for option, given in (("shard", output.shard), ("target-kl", search.target_kl)):
        if given is not None:
            raise UsageError(f"--{option}: not with --protocol tuned, whose cells depend on its trials")


def run(asked: Sequence[Request], search: Search, output: Output, session: Session) -> Executed:
    """Plan what is asked for, and run it."""
    plan = make_plan(asked, session.registry, session.planning)
    if plan.cells and not plan.unreachable:  # what could not be read may be what would read an option
        check_effects(asked, plan.cells)
    if search.protocol == "tuned":
        return _tuned(plan, asked, search, output, session)
    if search.target_kl is not None:
        return _at_target(plan, asked, search.target_kl, output, session)
    if not plan.unreachable:
        _refuse_nothing(plan)
    name, part = plan.hash, plan
    if output.shard:  # the name is that of the whole plan, so that the parts of one lie side by side
        name, part = f"{name}-{output.shard.replace('/', 'of')}", plan.part(*parse_shard(output.shard))
    root = _root(output, name)
    if not part.cells:
        return Executed(root, [], 0, plan.skipped, plan.unreachable)
    return execute(part, Store(root), session)


def _root(output: Output, name: str) -> Path:
    return Path(output.out) if output.out else Path("results/runs") / name


def _refuse_nothing(plan: Plan) -> None:
    if not plan.cells:
        why = "; ".join(f"{s['algorithm']} on {s['task']}: {s['reason']}" for s in plan.skipped[:3])
        raise UsageError(f"nothing to run: {why or 'no algorithm fits the tasks'}")


def _at_target(
    base: Plan, asked: Sequence[Request], target: float, output: Output, session: Session
) -> Executed:
    """Search the regularisers, then run every algorithm at the value found."""
    store = Store(_root(output, digest([base.hash, "target_kl", target], 12)))

    def search(plan: Plan) -> list[Record]:
        return execute(plan, store, session).cells

    def curve(key: str) -> Sequence[Mapping[str, Any]]:
        path = store.root / "curves" / f"{key}.parquet"
        return columns.read(path).to_pylist() if path.is_file() else []

    plan, found = target_kl.find(base, asked, target, session.registry, search, curve, session.note)
    result = Executed(store.root, [], 0, plan.skipped, plan.unreachable)
    if plan.cells:
        result = execute(plan, store, session)
    result.targets = [entry.document() for entry in found]
    own = {cell.key for cell in plan.cells}
    keys = [key for entry in found if entry.checkpoint for key in entry.checkpoint["keys"] if key not in own]
    result.beside = [record for key in keys if (record := store.read_cell(key)) is not None]
    store.prepare()
    with occupied(store.root, session.wait, session.note):
        _note_targets(store, result.targets)
    return result


def _note_targets(store: Store, targets: Sequence[dict[str, object]]) -> None:
    """Add what the search led to to `run.json`, in place of what it said of the same algorithm and task."""
    document = store.read_run()
    by_row = {(t["algorithm"], t["task"]): t for t in [*document.get("targets", []), *targets]}
    document["targets"] = list(by_row.values())
    store.write_run(document)


def _trials(search: Search) -> tuple[int, str]:
    """How many configurations the tuned protocol tries, and by what it chooses."""
    return tuned.TRIALS if search.trials is None else search.trials, search.select or tuned.SELECT


def _studies(search: Search) -> int:
    return 1 if search.studies is None else search.studies


def _tuned(
    base: Plan, asked: Sequence[Request], search: Search, output: Output, session: Session
) -> Executed:
    """Run the trials, then every algorithm at its default and at its best trial."""
    _refuse_nothing(base)
    store = Store(_root(output, digest([base.hash, "tuned"], 12)))

    def run_trials(plan: Plan) -> list[Record]:
        return execute(plan, store, session).cells

    trials, select = _trials(search)
    plan, found = tuned.find(base, asked, trials, select, run_trials, session.note, _studies(search))
    result = execute(plan, store, session)
    result.tuning = found
    with occupied(store.root, session.wait, session.note):
        _note_tuning(store, found)
    return result


def _note_tuning(store: Store, found: Sequence[Tuning]) -> None:
    """Add what was chosen to `run.json`, in place of what the same cells said before."""
    document = store.read_run()
    entries = [*document.get("tuning", []), *found]
    by_cells = {(e["algorithm"], e["task"], *e["keys"]["default"]): e for e in entries}
    document["tuning"] = list(by_cells.values())
    store.write_run(document)
