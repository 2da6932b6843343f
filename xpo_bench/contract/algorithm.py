"""The base class that an algorithm plugin subclasses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from xpo_bench.contract.examples import Completion, Example, Pair, Single, side
from xpo_bench.contract.scoring import Group, Step
from xpo_bench.contract.settings import Stage

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SPEC = 4
"""Version of the contract between the suite and algorithms; plugins made for it or for any earlier one, from
1 on, are taken. docs/plugins.md lists what each version added."""

PAIR_GROUPS: Mapping[str, Group] = {"chosen": Group(reference=True), "rejected": Group(reference=True)}


class RewardModel(Protocol):
    """A reward fitted to preferences."""

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """Reward of each completion (dimensionless, Bradley–Terry scale)."""
        ...


class Ranker(Protocol):
    """A pairwise preference model fitted to preferences."""

    def __call__(self, first: Sequence[Completion], second: Sequence[Completion]) -> list[float]:
        """Log-odds that each first completion is preferred to its second."""
        ...


class Tools(Protocol):
    """What `Algorithm.shape_data` and `Algorithm.solve` may use. One instance per cell."""

    rng: np.random.Generator
    """Generator of the cell's `generate` stream."""
    examples: Sequence[Example]
    """All rows that the cell trains on, also while `shape_data` is given a batch of them."""
    rows: int
    """Data rows that the budget lets training visit: there is no use in making many more."""

    def generate(
        self, prompts: Sequence[str], samples: int, temperature: float = 1.0, top_k: int = 0
    ) -> list[list[Completion]]:
        """`samples` completions of every prompt from the CURRENT policy; `top_k=0` keeps the full support.

        On a language model their texts carry the token ids that were drawn (`Text`), which are what is scored
        wherever such a text is made part of a `Completion`, `Pair` or `Single`. A text made from it (cut,
        joined, stripped) carries none.
        """
        ...

    def logps(
        self, completions: Sequence[Completion], *, reference: bool = False, average: bool = False
    ) -> list[float]:
        """Summed (or per-token average) log-probability in nats under the current or the initial policy."""
        ...

    def fit_reward(self, pairs: Sequence[Pair], weight_decay: float) -> RewardModel:
        """The Bradley–Terry reward model fitted to `pairs`, fitted once and cached per data set and decay."""
        ...

    def fit_ranker(self, pairs: Sequence[Pair], weight_decay: float) -> Ranker:
        """The pairwise ranker fitted to `pairs`: like `fit_reward`, without transitivity."""
        ...

    def true_reward(self) -> RewardModel:
        """The task's own reward, where the task states one; an error that names the task's lack otherwise."""
        ...

    def true_preference(self) -> Ranker:
        """The task's own preference, or that of Bradley and Terry by its true reward; an error otherwise."""
        ...

    def fit_tangent(self, reward: RewardModel, prompts: Sequence[str]) -> RewardModel:
        """The part of a reward that the policy's parameters θ express to first order (spec 3).

        It is v·∇_θ log π(y|x) of least squares, up to a constant per prompt, over all completions of
        `prompts`, each weighted by its probability under the CURRENT policy; a prompt counts as often as it
        is named. What is left over is uncorrelated with ∇_θ log π: no policy gradient sees it. A table
        expresses every reward.
        """
        ...

    def actions(self, prompt: str) -> Sequence[Completion]:
        """All completions of a prompt on an enumerable world; LookupError otherwise."""
        ...

    def note(self, name: str, value: float) -> None:
        """Report a number measured while shaping data (a metric such as `acceptance_rate`)."""
        ...


@dataclass(frozen=True)
class Algorithm:
    """A preference-optimization algorithm: a loss over scored groups of completions.

    Subclasses are frozen dataclasses whose fields are the hyperparameters. Float fields may be tensors
    of shape `(runs, 1)` when several configurations train as one computation, so a loss acts along the
    last axis only and never calls `float()`, `.item()` or branches on a value.

    Example:
        >>> @dataclass(frozen=True)
        ... class MyDPO(Algorithm):
        ...     name: ClassVar[str] = "my-dpo"
        ...     beta: float = 0.1
        ...     def loss(self, step):
        ...         return -F.logsigmoid(self.beta * (step.log_ratio("chosen") - step.log_ratio("rejected")))
    """

    name: ClassVar[str]
    """Unique name, `[a-z0-9][a-z0-9._-]{0,63}`."""
    spec: ClassVar[int] = 1
    """Version of the contract that it needs; a suite that does not know the version lists the plugin as
    broken.
    """
    accepts: ClassVar[type] = Pair
    """`Pair` or `Single`; for algorithms on unpaired examples a pair becomes two of them."""
    groups: ClassVar[Mapping[str, Group]] = PAIR_GROUPS
    """What is scored, and how; the runner derives all computation from it."""
    batch_coupled: ClassVar[bool] = False
    """Whether the loss of one example depends on the others of the batch. With `spec` 4 it takes rows of any
    weight for what they are, and soft labels are refused to it with an earlier one."""
    ties: ClassVar[bool] = False
    """Whether the loss reads `Step.ties`: rows on which neither side is better then come as such (spec 4)."""
    regulariser: ClassVar[tuple[str, int] | None] = None
    """The field meant to hold the policy near the reference, and the direction (+1 or −1) in which it does.
    """
    kl_strength: ClassVar[str | None] = None
    """The field that IS the β of max E r − β·KL, where one is: `regret` is reported only then."""
    requires: ClassVar[frozenset[str]] = frozenset()
    """Abilities of the policy that are needed: any of `"enumerable"`, `"generate"`, `"reward"`, and
    `"tangent"` (spec 3: `Tools.fit_tangent`).
    """
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """Published range of each tuned field, for `--protocol tuned`; the learning rate is searched without
    being named.
    """
    source: ClassVar[str] = ""
    """The paper and the equation."""
    paper: ClassVar[str] = ""
    """The paper's identifier, such as `arXiv:2305.18290`, or its address: names alone are ambiguous, since
    two losses are called SDPO, three RPO and two HyPO.
    """

    # unknown fields and non-finite numbers are refused when pydantic builds a config
    __pydantic_config__: ClassVar[object] = {"extra": "forbid", "allow_inf_nan": False}

    def stages(self) -> Sequence[Stage]:
        """The stages of training; one by default."""
        return (Stage(),)

    def shape_data(self, examples: Sequence[Example], tools: Tools) -> Sequence[Example]:
        """The examples to train on, by default those given. Called once, or at every refresh of a stage."""
        return examples

    def stage_examples(self, stage: int, examples: Sequence[Example]) -> Sequence[Example]:
        """The part of the shaped examples that stage number `stage` trains on; all of them by default."""
        return examples

    def completions(self, examples: Sequence[Any]) -> Mapping[str, Sequence[Completion]]:
        """The completions to score, per group, aligned with `examples`. Called once per stage on all data.

        By default the groups `chosen` and `rejected` are read from pairs, and any other group is the
        completion of a single.
        """
        out: dict[str, Sequence[Completion]] = {}
        for group in self.groups:
            if self.accepts is Pair:
                out[group] = side(examples, "chosen" if group == "chosen" else "rejected")
            else:
                out[group] = side(examples, "completion")
        return out

    def columns(self, examples: Sequence[Any]) -> Mapping[str, Sequence[float]]:
        """Numbers per example that the loss reads from `Step.columns`; of a `Single`, `desirable`, 1 or 0."""
        if self.accepts is Single:
            return {"desirable": [float(e.desirable) for e in examples]}
        return {}

    def solve(self, examples: Sequence[Example], tools: Tools) -> Mapping[Completion, float]:
        """For stages with `solve=True`: the tilt t (nats) of the policy π ∝ π_ref·exp(t), per completion."""
        raise TypeError(f"{type(self).__name__} declares a stage with solve=True but does not define solve()")

    def loss(self, step: Step) -> Tensor:
        """Per-example loss, shape `(..., N)`; pure. The runner reduces it."""
        raise TypeError(f"{type(self).__name__} does not define loss()")

    def state(self) -> Mapping[str, float | Tensor]:
        """Initial state of the algorithm: name -> a finite number (spec 2). Empty by default.

        It arrives in `Step.state`, each value of shape `(..., 1)`: one per run. A float field, or what is
        computed from fields, may be a value. The state begins anew where the optimizer's does: at every stage
        with `restart=True`.
        """
        return {}

    def next_state(self, step: Step) -> Mapping[str, Tensor]:
        """The state after a step: the names of `step.state`, each of shape `(..., 1)`; pure (spec 2).

        Called once per optimizer step, before the update, on the rows of the WHOLE step (of this process:
        sums over the rows go through `step.all_reduce`) and on scores without gradient. What it returns is
        the `state` of the next step.
        """
        return step.state

    def implied_preference(self, step: Step) -> Tensor | None:
        """Probability that the algorithm claims for chosen over rejected, shape `(..., N)`, or None.

        `step.reference` is the reference of the stage at hand, as in the loss: with `reference="previous"`
        the policy that the stage began with, not the initial one that `reward_accuracy` and `kl` are against.
        """
        return None
