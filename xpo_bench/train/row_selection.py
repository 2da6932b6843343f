"""Which rows a run trains on and is evaluated on, and in which order: the same for every algorithm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from xpo_bench.contract.examples import Completion, Example
from xpo_bench.data.formats import to_singles
from xpo_bench.data.labels import decided, flip_labels, hardened, sampled, softened
from xpo_bench.errors import DataError
from xpo_bench.policy.base import Policy
from xpo_bench.policy.language.fit import EQUAL, Fitted
from xpo_bench.random_streams import stream
from xpo_bench.train.batching import row_schedule, token_schedule
from xpo_bench.train.budget import in_batches
from xpo_bench.train.grouping import Grouping, grouping
from xpo_bench.train.job import Job, RowFacts, as_accepted


def generator(job: Job, purpose: str, *more: str) -> np.random.Generator:
    """The job's stream for a purpose; only what an algorithm samples or fits differs between algorithms."""
    names = (job.algorithm.name, *more) if purpose in ("generate", "reward") else more
    return stream(job.seed, job.task, purpose, *names)


class Rows:
    """Pools, held-out rows and schedules of the jobs of a group.

    Args:
        truncate: what is truncated in rows longer than the context; rows that do not fit a language model are
            left out here.
    """

    def __init__(self, policy: Policy, truncate: str) -> None:
        self.policy, self.truncate = policy, truncate
        self._schedules: dict[tuple[object, ...], np.ndarray | None] = {}
        # runs of one seed share their lists, so that a sweep does not build them anew for every configuration
        self._pools: dict[tuple[int, int, bool], tuple[list[Example], list[Example]]] = {}
        self._accepted: dict[tuple[int, type], list[Example]] = {}
        self._heldout: dict[int, list[Example]] = {}

    def facts(self, job: Job) -> RowFacts:
        """What became of the rows of a job in the context of a language model; nothing for a table."""
        if self.policy.enumerable:
            return {}
        fits = [self._fit(rows) for rows in (job.dataset.train, job.dataset.heldout)]
        reasons = sum((Counter(fit.reasons) for fit in fits), Counter())
        equal = reasons.pop(EQUAL, 0)
        return {
            "truncated": sum(fit.truncated for fit in fits),
            "boundary_merges": sum(fit.merged for fit in fits),
            "equal_ids": equal,
            "unfit": dict(sorted(reasons.items())),
        }

    def pool(self, job: Job) -> tuple[list[Example], list[Example]]:
        """(clean rows to evaluate, rows to train on) that this run can reach, in the seed's order."""
        key = (id(job.dataset), job.seed, job.algorithm.ties)
        if key not in self._pools:
            self._pools[key] = self._draw(job)
        return self._pools[key]

    def in_batches(self, job: Job) -> bool:
        """Whether a step takes a part of the rows of the data: chance then moves the policy at every step."""
        rows = sum(e.share for e in self.pool(job)[1])
        return in_batches(job.budget, round(rows))

    def accepted(self, rows: list[Example], accepts: type) -> list[Example]:
        """Rows of a pool as an algorithm takes them."""
        key = (id(rows), accepts)
        if key not in self._accepted:
            self._accepted[key] = as_accepted(rows, accepts)
        return self._accepted[key]

    def _draw(self, job: Job) -> tuple[list[Example], list[Example]]:
        fitted = self._fit(job.dataset.train)
        train = fitted.examples
        labels, ties = job.budget.labels, job.algorithm.ties
        given = sampled(train, generator(job, "labels"), ties) if labels == "sampled" else train
        noisy = flip_labels(given, job.budget.label_noise, generator(job, "noise"))
        order = generator(job, "order").permutation(len(train))
        whole = job.budget.sampling == "replacement" or job.budget.batch_tokens > 0
        reach = len(train) if whole else job.budget.steps * job.budget.batch_size
        lost = fitted.left_out.keys()
        usable = set(decided(train, ties) if labels == "hard" else range(len(train))) - lost
        if not usable:
            reasons = ", ".join(f"{count} {reason}" for reason, count in fitted.reasons.items())
            raise DataError(
                f"task {job.task}: no training row is left that fits the model's context ({reasons}); "
                "want shorter rows, another --truncate, or a model with a longer context"
            )
        kept = [i for i in order if i in usable][:reach]
        # every row at every step: file order
        if not job.budget.batch_tokens and job.budget.batch_size >= len(usable):
            kept = sorted(kept)
        if reach >= len(usable):  # all rows are trained on: the same ones are evaluated at every seed
            order = stream(0, job.task, "order", "evaluation").permutation(len(train))
        # evaluation rows are ones that training reaches, and ties, which are kept for calibration
        reached = [i for i in order if i not in lost][: min(job.budget.eval_pairs, reach)]
        clean = [train[i] for i in sorted(reached)]
        rows = [noisy[i] for i in kept]
        if labels == "soft":
            rows = softened(rows, ties)
        elif labels == "hard" and ties:
            rows = [hardened(e) for e in rows]
        return clean, rows

    def unseen(self, job: Job) -> Sequence[Example]:
        """All held-out rows that fit the policy, in the order of the file."""
        fitted = self._fit(job.dataset.heldout)
        if not fitted.left_out:
            return fitted.examples
        return [e for i, e in enumerate(fitted.examples) if i not in fitted.left_out]

    def heldout(self, job: Job) -> list[Example]:
        """Held-out rows to evaluate, drawn in a fixed random order: files are often sorted by prompt."""
        rows = job.dataset.heldout
        if id(rows) not in self._heldout:
            fitted = self._fit(rows)
            order = stream(0, job.task, "order", "heldout").permutation(len(rows))
            kept = [fitted.examples[i] for i in order if i not in fitted.left_out]
            self._heldout[id(rows)] = kept[: job.budget.heldout_pairs]
        return self._heldout[id(rows)]

    def schedule(self, job: Job, rows: Sequence[Example], number: int, steps: int) -> np.ndarray | None:
        """Indices into the rows of a stage, shape (steps, N), −1 for absent rows; None is all at every step.

        Runs of one seed whose rows are as many, or as long, get the same array.
        """
        together = grouping(job, rows)
        lengths = self._tokens(rows, together) if job.budget.batch_tokens else None
        key = (job.task, job.seed, number, steps, together.key, lengths)
        if key not in self._schedules:
            rng = generator(job, "order", f"stage {number}")
            if lengths is None:
                drawn = row_schedule(together.rows, job.budget.batch_size, steps, job.budget.sampling, rng)
            else:
                drawn = token_schedule(lengths, job.budget.batch_tokens, steps, rng)
            if drawn is None and (
                job.budget.micro_batch or not self.policy.enumerable
            ):  # what is cut into pieces needs names
                drawn = np.arange(together.rows)[None]
            self._schedules[key] = None if drawn is None else together.spread(drawn)
        return self._schedules[key]

    def _tokens(self, rows: Sequence[Example], together: Grouping) -> tuple[int, ...]:
        """Tokens of every row of the data: its prompt once and its completions."""
        singles = [Completion(e.prompt, e.completion) for e in to_singles(rows)]
        encoded = self.policy.encode(singles, self.truncate)
        found = [encoded.row(i) for i in range(len(singles))]
        each = len(singles) // len(rows)
        of_rows = (together.of(i) for i in range(together.rows))
        return tuple(
            sum(row.length for row in parts if row) + max((row.start for row in parts if row), default=0)
            for parts in (found[of.start * each : of.stop * each] for of in of_rows)
        )

    def next_rows(
        self, job: Job, rows: Sequence[Example], number: int, steps: int, refresh: int
    ) -> Sequence[Example]:
        """The batch of rows whose prompts are sampled at a refresh: drawn as all algorithms' batches."""
        if not job.budget.batch_tokens and job.budget.batch_size >= len(rows):
            return rows
        drawn = self.schedule(job, rows, number, steps)
        return rows if drawn is None else [rows[i] for i in drawn[refresh % len(drawn)] if i >= 0]

    def _fit(self, rows: Sequence[Example]) -> Fitted:
        """The rows as the policy can take them."""
        return self.policy.fit(rows, self.truncate)
