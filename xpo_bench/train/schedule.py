"""The order of the rows of a stage, on the device of the policy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from xpo_bench.contract.examples import Completion
from xpo_bench.train.batching import mismatch


class Schedule:
    """The row indices of every step and run, kept small: runs that share an order share its storage.

    Args:
        orders: distinct orders, integers of shape (steps, D, N), −1 for absent rows. run_order: which of them
            each run follows, shape (runs,), or None when every run has its own.
    """

    def __init__(self, orders: np.ndarray, run_order: Sequence[int] | None, device: torch.device) -> None:
        self.orders = torch.from_numpy(orders).to(device)
        self.run_order = None if run_order is None else torch.tensor(run_order, device=device)
        self._last_step = -1
        self._last = self.orders

    def at(self, t: int) -> Tensor:
        """Indices of step `t`, shape (runs, N); a full-batch stage has one batch only."""
        t %= len(self.orders)
        if self._last_step != t:  # every group and column of a step asks for the same rows
            batch = self.orders[t]
            self._last = (batch if self.run_order is None else batch.index_select(0, self.run_order)).long()
            self._last_step = t
        return self._last

    @property
    def batch(self) -> int:
        """Rows of a step, absent ones included."""
        return int(self.orders.shape[-1])

    def used(self, places: slice = slice(None)) -> Tensor:
        """The distinct rows that some step of some run takes, at these places of it."""
        orders = self.orders[..., places]
        rows: Tensor = torch.unique(orders[orders >= 0])
        return rows.long()


def joint_schedule(
    schedules: Sequence[np.ndarray | None], sizes: Sequence[int], device: torch.device
) -> tuple[Schedule | None, Tensor | None, bool]:
    """The schedules of several runs as one.

    Args:
        schedules: per run, indices into its examples, shape (steps, N), or None for all at every step.
        sizes: examples of every run.

    Returns:
        the schedule, None where every run takes all of its examples at every step; which examples are
        present, shape (runs, E), where there is no schedule and the runs differ in size; and whether rows can
        be absent.
    """
    if all(s is None for s in schedules):
        longest = max(sizes)
        if min(sizes) == longest:
            return None, None, False
        return None, torch.tensor([[i < size for i in range(longest)] for size in sizes]), True
    steps = next(len(s) for s in schedules if s is not None)
    full = [
        np.tile(np.arange(size), (steps, 1)) if s is None else s
        for s, size in zip(schedules, sizes, strict=True)
    ]
    distinct = {id(s): s for s in full}  # runs of one seed share their order
    width = max(s.shape[1] for s in full)
    ragged = min(s.shape[1] for s in full) < width or any(bool((s < 0).any()) for s in distinct.values())
    place = {key: i for i, key in enumerate(distinct)}
    # a grid holds millions of indices: they stay in the smallest integers that hold all of them
    orders = np.full((steps, len(distinct), width), -1, np.result_type(*distinct.values()))
    for key, i in place.items():
        orders[:, i, : distinct[key].shape[1]] = distinct[key]
    shared = None if len(distinct) == len(full) else [place[id(s)] for s in full]
    return Schedule(orders, shared, device), None, ragged


def mismatched_schedule(
    completions: Sequence[Sequence[Completion]], schedules: Sequence[np.ndarray | None], device: torch.device
) -> tuple[list[Sequence[Completion]], Schedule]:
    """The completions of every run under other prompts, and which of them each step takes."""
    made: list[Sequence[Completion]] = []
    orders = []
    for items, schedule in zip(completions, schedules, strict=True):
        found, index = mismatch(np.arange(len(items))[None, :] if schedule is None else schedule, items)
        # with no partner anywhere every row is absent; one keeps the encoder non-empty
        made.append(found or [items[0]])
        orders.append(index)
    return made, Schedule(np.stack(orders, 1), None, device)
