"""Runs that train adapters of their own on one frozen model, in one forward pass.

The products with the frozen weights, which are nearly all of the work, take the tokens of all runs at once;
the low-rank products are batched over the runs. Completions share their prompt within a run. Between runs
nothing is shared but the frozen model: a run is the one that trains alone, up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from xpo_bench.contract.scoring import Scores
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.copies import ALL, Copies
from xpo_bench.policy.language.divergence import token_kl
from xpo_bench.policy.language.log_probs import target_logps
from xpo_bench.policy.language.lora import AdaptedLayers
from xpo_bench.policy.language.passes import Pass, passes
from xpo_bench.policy.language.requests import Flat, Requests, arrange, pick
from xpo_bench.policy.language.tokenize import Encoded, Row
from xpo_bench.policy.language.weights import State


class Adapters(Copies):
    """Copies of a model that differ in their adapters alone.

    Args:
        single: a model with adapters, whose own are neither read nor changed. states: initial adapters of
            every copy.

    Raises:
        ValueError: the model has other trained weights, or adapters of another kind.
    """

    def __init__(self, single: CausalLM, states: Sequence[State]) -> None:
        super().__init__(single, len(states))
        self.layers = AdaptedLayers(single.model)
        self._shapes = {name: p.shape for name, p in states[0].items()}
        if set(self._shapes) != self.layers.names:
            raise ValueError("more than adapters is trained")
        # one tensor: what an optimizer does to every parameter it does once
        self._flat = torch.stack(
            [torch.cat([p.flatten() for p in state.values()]) for state in states]
        ).requires_grad_()
        self._expected: list[tuple[slice, Requests]] = []
        self._joint: tuple[Flat, list[dict[Row, int]]] | None = None
        self.notes |= {"adapters": "one forward pass"}

    # ----------------------------------------------------------------------- scoring

    def begin(self) -> None:
        """A step begins: what was scored for all its algorithms is gone."""
        self._expected, self._joint = [], None

    def expect(self, requests: Sequence[tuple[slice, Requests]]) -> None:
        """What the algorithms of a step will ask for with a graph, each for its own runs, in their order.

        The first that asks has the rows of all scored, in one forward pass.
        """
        self._expected = list(requests)

    def score(
        self,
        requests: Mapping[str, tuple[Sequence[Encoded], Tensor | None]],
        *,
        grad: bool,
        runs: slice = ALL,
        against: State | None = None,
    ) -> dict[str, Scores]:
        """As `Copies.score`, from the joint pass of the step where there is one."""
        if not (self._expected and grad and torch.is_grad_enabled() and against is None):
            return super().score(requests, grad=grad, runs=runs, against=against)
        if self._joint is None:
            each = [pick(wanted, len(range(self.runs)[of])).rows for of, wanted in self._expected]
            everything = [rows for block in each for rows in block]
            known = [{row: i for i, row in enumerate(rows)} for rows in everything]
            self._joint = self._token_logps(everything, ALL, None), known
        flat, known = self._joint
        picked = pick(requests, len(range(self.runs)[runs]))
        offsets = [
            [begins[places[row]] for row in rows]
            for rows, places, begins in zip(picked.rows, known[runs], flat.offsets[runs], strict=True)
        ]
        return arrange(Flat(flat.logps[runs], None, offsets), picked)

    def _token_logps(self, rows: Sequence[Sequence[Row]], runs: slice, against: State | None) -> Flat:
        chosen = range(self.runs)[runs]
        offsets = [[0] * len(run) for run in rows]
        parts: list[Tensor] = []
        kls: list[Tensor] = []
        total = 0
        for each in passes(rows, self.single.scorer):
            for row, place in zip(each.rows, each.places, strict=True):
                if place is not None:
                    offsets[place[0]][place[1]] = total
                total += row.length
            logps, kl = self._scored(each, [chosen[r] for r in each.runs], against)
            parts.append(logps)
            kls += [] if kl is None else [kl]
        if not parts:  # still part of a graph, so that a step of absent rows has a gradient, of zero
            nothing = self._flat[runs, :1] * 0
            return Flat(nothing, None if against is None else nothing, offsets)
        # the tokens of all runs lie in one row, which each run looks its own up in
        logps = torch.cat(parts).expand(len(rows), -1)
        return Flat(logps, torch.cat(kls).expand(len(rows), -1) if kls else None, offsets)

    def _scored(self, each: Pass, runs: Sequence[int], against: State | None) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities of all scored tokens of a pass, and the KL from a snapshot, shape (K,)."""
        network, scorer = self.single.network, self.single.scorer
        features, targets = self._features(each, self._named(self._of(self._flat, runs)))
        if against is None:
            return target_logps(network, features, targets, scorer.chunk, scorer.fill), None
        with torch.no_grad():
            theirs, _ = self._features(each, {name: self._of(p, runs) for name, p in against.items()})
        # the head has no adapter and is the same in every snapshot
        same = {name: p.detach() for name, p in network.weights.named.items()}
        return token_kl(network, features, theirs, targets, same, scorer.chunk, scorer.fill)

    def _features(self, each: Pass, state: State) -> tuple[Tensor, Tensor]:
        with self.layers.shared(state):
            features, targets, _ = self.single.network.completion_features(
                each.rows,
                each.parts,
                packed=each.packed,
                whole=each.whole,
                trims=self.single.scorer.trims and not each.whole,
                shares=len(each.runs),
            )
        self.tokens_processed += each.tokens
        return features, targets

    def _of(self, values: Tensor, runs: Sequence[int]) -> Tensor:
        return values if len(runs) == self.runs else values[list(runs)]

    # ----------------------------------------------------------------------- copies

    def _named(self, flat: Tensor) -> State:
        """Adapters by the names of their parameters, each with a leading runs axis: views of `flat`."""
        sizes = [shape.numel() for shape in self._shapes.values()]
        return {
            name: part.unflatten(1, shape)
            for (name, shape), part in zip(self._shapes.items(), flat.split(sizes, 1), strict=True)
        }

    def _now(self) -> State:
        return self._named(self._flat.detach())

    def parameters(self) -> list[Tensor]:
        """All adapters of a run as one row, shape (runs, numbers)."""
        return [self._flat]
