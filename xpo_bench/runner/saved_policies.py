"""`run --save-policies DIR`: where the policy of a cell is written, and what is written beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xpo_bench.checkpoints import ORIGIN
from xpo_bench.runner import keys
from xpo_bench.runner.plan import Cell


@dataclass(frozen=True)
class SavedPolicy:
    """Where a policy goes.

    Args:
        folder: its own. initial: that of the policy which its training began from, where no model of that
            name has its weights: a random one, or one after a warm start.
        origin: what `evaluate` reads of it.
    """

    folder: Path
    initial: Path | None
    origin: dict[str, object]


def saved_policy(cell: Cell) -> SavedPolicy | None:
    """Where the policy of a cell goes; None where none is asked for, or it is no language model."""
    setup = cell.setup
    if setup.save_policies is None or setup.model.tabular:
        return None
    root, own = Path(setup.save_policies), setup.model.name == "tiny" or setup.budget.warm_start > 0
    initial = None
    if own:
        print_ = keys.digest([setup.identity, setup.data_fingerprint(cell.seed)], 8)
        initial = root / f"initial-{setup.name}-seed{cell.seed}-{print_}"
    return SavedPolicy(
        root / f"{cell.algorithm.name}-{setup.name}-seed{cell.seed}-{cell.key[:8]}",
        initial,
        {
            "algorithm": cell.algorithm.name,
            "config": dict(cell.config),
            "task": setup.name,
            "seed": cell.seed,
            "key": cell.key,
            "steps": cell.setup.budget.steps if cell.stop is None else cell.stop,
            "reference": setup.model.name if initial is None else initial.name,
        },
    )


def is_saved(cell: Cell) -> bool:
    """Whether all that is asked for of a cell's policy is there."""
    wanted = saved_policy(cell)
    if wanted is None:
        return True
    return all(place is None or (place / ORIGIN).is_file() for place in (wanted.folder, wanted.initial))
