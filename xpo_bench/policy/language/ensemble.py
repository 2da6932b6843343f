"""Several copies of one small language model that train as one computation: seeds and regularisers side by
side.

Parameters carry a leading runs axis, and `torch.func` maps the model over it: a layer is one batched matrix
product for all copies. A copy reads nothing of another. Against the path of a single model only the rounding
differs: attention is another kernel, products are batched, and the rows of all copies are padded to one
shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from xpo_bench.policy.kl import forward_kl
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.copies import ALL, Copies
from xpo_bench.policy.language.layout import batches
from xpo_bench.policy.language.network import Network
from xpo_bench.policy.language.requests import Flat
from xpo_bench.policy.language.tokenize import Row
from xpo_bench.policy.language.weights import State


class _TargetLogps(torch.nn.Module):
    """The log-probability of the given tokens at the given positions: what is mapped over the copies."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.model = network.model  # under this name, weights that are handed in replace the model's own
        self._network = network

    def forward(self, ids: Tensor, at: Tensor, targets: Tensor) -> Tensor:
        logits = self._network.logits(_features(self._network, ids, at))
        return -torch.nn.functional.cross_entropy(logits, targets, reduction="none")


class _Logps(torch.nn.Module):
    """The log-probabilities of all tokens at the given positions."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.model = network.model
        self._network = network

    def forward(self, ids: Tensor, at: Tensor) -> Tensor:
        return self._network.logits(_features(self._network, ids, at)).log_softmax(-1)


def _features(network: Network, ids: Tensor, at: Tensor) -> Tensor:
    """Features of rows at flat positions, shape (K, width)."""
    return network.features(input_ids=ids)[0].flatten(0, 1).index_select(0, at)


class Ensemble(Copies):
    """Copies with all weights of their own.

    Args:
        single: the model; its own weights are neither read nor changed. states: initial weights of every
            copy.
    """

    def __init__(self, single: CausalLM, states: Sequence[State]) -> None:
        super().__init__(single, len(states))
        self.notes |= {"attention": "math", "prefix": "separate", "rows": "padded"}
        self._stacked = {
            name: torch.stack([state[name] for state in states]).requires_grad_() for name in states[0]
        }
        self._module, self._everything = _TargetLogps(single.network), _Logps(single.network)

    def _token_logps(self, rows: Sequence[Sequence[Row]], runs: slice, against: State | None) -> Flat:
        """Log-probabilities of all completion tokens, and the KL from a snapshot.

        Every run's rows are sorted by length, and the rows of one rank in all runs go through together, so
        that little is padded. A run with fewer completion tokens in a batch is padded at the end of it.
        """
        orders = [sorted(range(len(run)), key=lambda i: -len(run[i].ids)) for run in rows]
        ranked = [[run[i] for i in order] for run, order in zip(rows, orders, strict=True)]
        most = max(map(len, rows))
        longest = [max(len(run[k].ids) for run in ranked if k < len(run)) for k in range(most)]
        offsets = [[0] * len(run) for run in rows]
        parts: list[Tensor] = []
        kls: list[Tensor] = []
        total = 0
        for batch in batches(longest, max(1, self.single.scorer.tokens_per_forward // len(rows))):
            for run, order in enumerate(orders):
                here = total
                for i in (order[k] for k in batch if k < len(order)):
                    offsets[run][i] = here
                    here += rows[run][i].length
            chosen = [[run[k] for k in batch if k < len(run)] for run in ranked]
            scored, kl = self._forward(chosen, runs, against)
            total += scored.shape[1]
            parts.append(scored)
            kls += [] if kl is None else [kl]
        if not parts:  # still part of a graph, so that a step of absent rows has a gradient, of zero
            nothing = next(iter(self._stacked.values()))[runs].flatten(1)[:, :1] * 0
            return Flat(nothing, None if against is None else nothing, offsets)
        return Flat(torch.cat(parts, 1), torch.cat(kls, 1) if kls else None, offsets)

    def _forward(
        self, rows: Sequence[Sequence[Row]], runs: slice, against: State | None
    ) -> tuple[Tensor, Tensor | None]:
        """One pass over a batch of rows per run, padded on the right to one shape; shapes (runs, K)."""
        height = max(map(len, rows))
        width = max(len(row.ids) for run in rows for row in run) - 1
        tokens = max(sum(row.length for row in run) for run in rows)
        ids = torch.zeros(len(rows), height, width, dtype=torch.long)
        at = torch.zeros(len(rows), tokens, dtype=torch.long)
        targets = torch.zeros(len(rows), tokens, dtype=torch.long)
        for r, run in enumerate(rows):
            for b, row in enumerate(run):
                ids[r, b, : len(row.ids) - 1] = torch.tensor(row.ids[:-1])
            # the token at k of row b is predicted at b·width + k − 1 of the flattened batch
            places = [b * width + k - 1 for b, row in enumerate(run) for k in row.scored]
            at[r, : len(places)] = torch.tensor(places)
            targets[r, : len(places)] = torch.tensor([row.ids[k] for row in run for k in row.scored])
            self.tokens_processed += sum(len(row.ids) - 1 for row in run)
        ids, at, targets = (values.to(self.device) for values in (ids, at, targets))
        if against is None:
            return self._mapped(self._module, self._stacked, runs, ids, at, targets), None
        own = self._mapped(self._everything, self._stacked, runs, ids, at)
        with torch.no_grad():
            other = self._mapped(self._everything, against, runs, ids, at)
            self.tokens_processed += sum(len(row.ids) - 1 for run in rows for row in run)
        return own.gather(-1, targets[..., None]).squeeze(-1), forward_kl(other, own)

    def _mapped(self, module: torch.nn.Module, state: State, runs: slice, *inputs: Tensor) -> Tensor:
        """A module's outputs for every copy, with the weights of `state`."""
        stacked = {f"model.{name}": p[runs] if runs != ALL else p for name, p in state.items()}
        with sdpa_kernel(
            SDPBackend.MATH
        ):  # the others have no rule for a mapped axis and fall back to a loop
            out: Tensor = vmap(lambda weights, *args: functional_call(module, weights, args))(
                stacked, *inputs
            )
        return out

    # ----------------------------------------------------------------------- copies

    def _now(self) -> State:
        return {name: p.detach() for name, p in self._stacked.items()}

    def parameters(self) -> list[Tensor]:
        """The trainable tensors, each with a leading runs axis."""
        return list(self._stacked.values())
