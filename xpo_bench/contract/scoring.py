"""What a loss reads: groups, their scores, and the step that holds them.

Torch is imported for type checking only, so that listing plugins stays cheap.

Shapes. Leading axes `...` are *runs* (seeds x hyperparameters trained as one computation), `N` is the number
of examples of a batch and `T` the longest completion in tokens. Log-probabilities are in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Group:
    """How the completions of one group are scored.

    Args:
        reference: also score them under the reference policy.
        grad: score them under the policy with a graph; `False` scores them without.
        mismatched: the runner pairs each completion with the prompt of ANOTHER example (KTO's z0).
            On enumerable worlds nothing is scored for such a group: `Step.exact_kl` is given instead.
        token_kl: also give `Scores.token_kl`, for which the reference is run beside the policy at every step
            (spec 2).
    """

    reference: bool = False
    grad: bool = True
    mismatched: bool = False
    token_kl: bool = False


def logsigmoid(values: Tensor) -> Tensor:
    """log σ(x), elementwise: that of `torch.nn.functional`, which is imported by the first call.

    The logarithm of `values.sigmoid()` is −∞ below −104 in single precision; this is not.
    """
    from torch.nn.functional import logsigmoid as stable

    return stable(values)


DERIVED = ("sum", "length", "mean")
"""Properties of `Scores` that have one number per completion."""


@dataclass(frozen=True)
class Scores:
    """Per-token log-probabilities of the completions of one group.

    Args:
        token_logps: log π(token | prefix), nats, shape `(..., N, T)`; what stands off the mask is ignored.
        mask: true on completion tokens, shape `(..., N, T)`.
        token_kl: KL(π_ref(.|prefix) ‖ π(.|prefix)) of the full distributions of the next token, nats, shape
            `(..., N, T)`, with the policy's gradient; None unless the group declares it. A completion of a
            table is one token, and this the KL of the distributions over all completions of its prompt.
    """

    token_logps: Tensor
    mask: Tensor
    token_kl: Tensor | None = None

    @cached_property
    def sum(self) -> Tensor:
        """Summed completion log-probability in nats, shape `(..., N)`."""
        # masked_fill, not multiplication: −∞·0 is NaN, and its gradient would be, too
        return self.token_logps.masked_fill(~self.mask.bool(), 0.0).sum(-1)

    @cached_property
    def length(self) -> Tensor:
        """Completion length in tokens, from the mask alone, shape `(..., N)`."""
        return self.mask.sum(-1).to(self.token_logps.dtype)

    @cached_property
    def mean(self) -> Tensor:
        """Average log-probability per completion token in nats, shape `(..., N)`."""
        # padded rows have no token: 0 / 1 = 0 keeps NaN out of the gradient of the others
        return self.sum / self.length.clamp(min=1.0)

    @cached_property
    def sequence_kl(self) -> Tensor:
        """Σ_t of `token_kl`, nats, shape `(..., N)`.

        Raises:
            TypeError: the group does not declare `token_kl=True`.
        """
        if self.token_kl is None:
            raise TypeError("there is no token_kl here: the group has to declare Group(token_kl=True)")
        return self.token_kl.masked_fill(~self.mask.bool(), 0.0).sum(-1)

    def map(
        self, change: Callable[[Tensor], Tensor], derived: Callable[[Tensor], Tensor] | None = None
    ) -> Scores:
        """The scores with every tensor per token changed alike: log-probabilities, mask and `token_kl`.

        Args:
            change: a function of tensors of shape `(..., N, T)`.
            derived: the same for those of `sum`, `length` and `mean` that are known, of shape `(..., N)`.
                Without it they are computed anew.
        """
        kl = None if self.token_kl is None else change(self.token_kl)
        out = Scores(change(self.token_logps), change(self.mask), kl)
        if derived is not None:
            for name in DERIVED:
                if name in self.__dict__:  # where `cached_property` keeps what it has computed
                    out.__dict__[name] = derived(self.__dict__[name])
        return out

    def pad(self, width: int) -> Scores:
        """The scores with masked tokens added, `width` in all; the scores themselves if they have as many."""
        short = width - self.mask.shape[-1]
        if short <= 0:
            return self
        from torch.nn.functional import pad

        # zeros are off the mask: Σ_t log π(y_t) and the length are those of the given tokens
        return self.map(lambda values: pad(values, (0, short)))

    @staticmethod
    def cat(parts: Sequence[Scores], dim: int = -2) -> Scores:
        """Scores one behind the other along an axis (rows by default), padded to the widest.

        `token_kl` is joined where all parts have it.
        """
        import torch

        width = max(scores.mask.shape[-1] for scores in parts)
        padded = [scores.pad(width) for scores in parts]
        kls = [scores.token_kl for scores in padded if scores.token_kl is not None]
        return Scores(
            torch.cat([scores.token_logps for scores in padded], dim),
            torch.cat([scores.mask for scores in padded], dim),
            torch.cat(kls, dim) if len(kls) == len(padded) else None,
        )

    def detach(self) -> Scores:
        """The same scores outside the graph."""
        return self.map(lambda values: values.detach(), derived=lambda values: values.detach())


@dataclass(frozen=True)
class Step:
    """Everything a loss may read for one batch.

    Args:
        policy: scores of every group under the policy being trained.
        reference: scores of the groups that declare `reference=True`.
        columns: numbers per example from `Algorithm.columns`, each of shape `(..., N)`.
        weight: 1 for examples, 0 for padding, shape `(..., N)`, or None when all are 1. With soft labels the
            part of a row of the data that an example stands for.
        totals: weighted sums of every column, and of `"examples"`, over the FULL step, shape `(..., 1)`: a
            loss that divides by them is exact under gradient accumulation.
        exact_kl: KL(π(.|x) ‖ π_ref(.|x)) in nats for the prompt of each example, π_ref the stage's reference,
            without gradient, shape `(..., N)`; only on enumerable worlds and only when a group is mismatched.
        shared: what sums a tensor over the processes that share the batch; see `all_reduce`.
        state: what the algorithm carries from step to step (`Algorithm.state`), each of shape `(..., 1)`,
            without gradient.
        ties: 1 for examples on which neither side is better, else 0, shape `(..., N)`; of algorithms that
            declare `ties` alone, and None where no example is one (spec 4).
    """

    policy: Mapping[str, Scores]
    reference: Mapping[str, Scores] = field(default_factory=dict)
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    weight: Tensor | None = None
    totals: Mapping[str, Tensor] = field(default_factory=dict)
    exact_kl: Tensor | None = None
    shared: Callable[[Tensor], Tensor] | None = field(default=None, repr=False, compare=False)
    state: Mapping[str, Tensor] = field(default_factory=dict)
    ties: Tensor | None = None

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum of `values` over the processes that share the batch, without gradient.

        A loss passes what it sums over the examples of a batch (KTO's z0). It is called equally often in all
        processes, in the same order and with the same shape, whatever the values.
        """
        values = values.detach()
        # without gradient: each process differentiates its own part of the batch, the sum is a constant in it
        return values if self.shared is None else self.shared(values)

    def log_ratio(self, group: str) -> Tensor:
        """Summed log-ratio log π(y|x) − log π_ref(y|x) of a group in nats, shape `(..., N)`."""
        return self.policy[group].sum - self.reference[group].sum

    def mean_log_ratio(self, group: str) -> Tensor:
        """Log-ratio per completion token of a group in nats, shape `(..., N)`."""
        return self.policy[group].mean - self.reference[group].mean
