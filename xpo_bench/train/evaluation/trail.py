"""How the outcomes of evaluated items are kept while a group of runs trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from xpo_bench.contract.examples import Example, Pair
from xpo_bench.contract.metric import Array, Evaluation, Mask
from xpo_bench.metrics.attained import Reached
from xpo_bench.metrics.ties import margin_tolerance, wins
from xpo_bench.train.evaluation.eval_set import EvalSet
from xpo_bench.train.items import AT, COLUMNS, TEXTS, Items


class Trail:
    """The outcomes of the items of one evaluation set, of R runs: the last finite ones.

    Args:
        name: of the set. along: keep who was right at every evaluation.
    """

    def __init__(self, name: str, present: EvalSet, along: bool) -> None:
        self.name, self.rows, self.paired, self.along = name, present.rows, present.paired, along
        self.columns: dict[str, Array] = {}
        self.right: list[npt.NDArray[np.float16]] = []
        self._step = -1
        self._known: dict[int, tuple[list[str], list[str]]] = {}

    def add(self, ev: Evaluation, recorded: Mask) -> None:
        """Take one evaluation. A second one at the same step takes the place of the first.

        Args:
            recorded: whether it counts for each run, shape (R,).
        """
        found = {
            "chosen_logp": ev.chosen_logp,
            "rejected_logp": ev.rejected_logp,
            "chosen_log_ratio": ev.chosen_logp - ev.chosen_ref,
            "rejected_log_ratio": ev.rejected_logp - ev.rejected_ref,
        }
        if self.paired:
            found["correct"] = np.where(ev.chosen_rows, wins(ev.margin, margin_tolerance(ev)), np.nan)
        if not self.columns:
            self.columns = {name: np.full(values.shape, np.nan) for name, values in found.items()}
            self.columns |= {"chosen_length": ev.chosen_length, "rejected_length": ev.rejected_length}
        for name, values in found.items():
            np.copyto(self.columns[name], values, where=recorded[:, None])
        if self.along and self.paired:
            if ev.step == self._step:
                self.right.pop()
            self.right.append(found["correct"].astype(np.float16))  # which holds 0, ½ and 1 as they are
            self._step = ev.step

    def at(self, reached: Mapping[float, Reached]) -> dict[str, Array]:
        """Who was right where the paths reach a KL, shape (R, E) each: linear between two evaluations."""
        if not self.right or not reached:
            return {}
        every = np.stack(self.right).astype(np.float64)
        return {AT[budget]: where.of(every) for budget, where in reached.items()}

    def items(self, r: int, at: Mapping[str, Array]) -> Items:
        """The items of one run: of unpaired examples the desirable ones, then the others.

        Args:
            at: further columns of pairs, shape (R, E) each.
        """
        ids, clusters = self._identities(r)
        known = {name: v[r, : len(ids)] for name, v in (self.columns | dict(at)).items()}
        if not self.paired:
            n = sum(_desirable(e) for e in self.rows[r])
            known = {name: _one_side(name, v[r], n, len(ids)) for name, v in self.columns.items()}
        absent = np.full(len(ids), np.nan)
        texts = {"split": [self.name] * len(ids), "item": ids, "cluster": clusters}
        return Items(texts, {name: known.get(name, absent) for name in COLUMNS if name not in TEXTS})

    def _identities(self, r: int) -> tuple[list[str], list[str]]:
        """The ids and clusters of the rows of one run; runs of one seed share their rows."""
        rows = self.rows[r]
        if id(rows) not in self._known:
            order = rows if self.paired else sorted(rows, key=lambda e: not _desirable(e))
            self._known[id(rows)] = identities(order)
        return self._known[id(rows)]


def _one_side(name: str, values: Array, desirable: int, rows: int) -> Array:
    """A column of one side of unpaired examples, with nothing at the examples of the other side."""
    out = np.full(rows, np.nan)
    if name.startswith("chosen"):
        out[:desirable] = values[:desirable]
    else:
        out[desirable:] = values[: rows - desirable]
    return out


def _desirable(e: Example) -> bool:
    return isinstance(e, Pair) or e.desirable


def identities(rows: Sequence[Example]) -> tuple[list[str], list[str]]:
    """The id and the cluster of every row.

    A cluster is the person whose row it is, where that is known, else a hash of the prompt. An id is a hash
    of cluster, prompt, both completions, and how many rows of that content came before: unique in a set, and
    the same wherever the set is evaluated.
    """
    numbers = list(map(id, rows))
    # rows of a synthetic world are few objects, many times each
    contents = {number: _content(e) for number, e in dict(zip(numbers, rows, strict=True)).items()}
    seen: dict[tuple[str, ...], int] = {}
    ids, clusters = [], []
    for content in map(contents.__getitem__, numbers):
        before = seen.get(content, 0)
        ids.append(_hash(*content, str(before)))
        seen[content] = before + 1
        clusters.append(content[0])
    return ids, clusters


def _content(e: Example) -> tuple[str, ...]:
    """Cluster, prompt and both completions of a row."""
    cluster = _hash(e.prompt) if e.person is None else e.person
    if isinstance(e, Pair):
        return cluster, e.prompt, e.chosen, e.rejected
    return (cluster, e.prompt, e.completion, "") if e.desirable else (cluster, e.prompt, "", e.completion)


@lru_cache(maxsize=2**14)
def _hash(*texts: str) -> str:
    """16 hex digits of texts; their lengths stand before them, so that no two lists read alike.

    Remembered, since the cells of a task are evaluated on the same rows.
    """
    digest = blake2b(digest_size=8)
    for text in texts:
        content = text.encode()
        digest.update(b"%d:" % len(content) + content)
    return digest.hexdigest()
