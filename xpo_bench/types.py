"""The vocabulary of the suite: examples, groups, scores, steps, stages, budgets, worlds.

Torch is imported for type checking only, so that listing plugins stays cheap.

Shapes. Leading axes `...` are *runs* (seeds x hyperparameters trained as one computation), `N` is the
number of examples of a batch and `T` the longest completion in tokens. Log-probabilities are in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from annotated_types import Ge, Gt, Interval, Lt
from typing_extensions import Doc

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# --------------------------------------------------------------------------- examples


class Text(str):
    """A prompt or a completion that says how it becomes tokens, where that is not what the tokenizer does with plain text.

    It is the same string in every other respect, and travels inside `Completion`, `Pair` and `Single` as any string does.

    Args:
        rendered: a prompt that a chat template wrote: the tokenizer adds no token of its own before it, and no
            end-of-sequence token follows its completions.
        ids: a completion that a policy drew: the token ids that were drawn, which are what is scored.
        reserve: tokens of the context that are kept for completions when the prompt is truncated. Both sides of a pair carry
            the length of the longer one, and so stand behind the same prompt.
        shift: ids at the end of the prompt that count as the completion's, because prompt and completion merge into one token on
            one side of the pair.
        spoken: (first, last) character of every stretch that is the assistant's, last excluded; the other turns of a completion
            are read and not scored. None: all of it.
    """

    __slots__ = ("ids", "rendered", "reserve", "shift", "spoken")
    rendered: bool
    ids: tuple[int, ...] | None
    reserve: int
    shift: int
    spoken: tuple[tuple[int, int], ...] | None

    def __new__(
        cls,
        text: str,
        *,
        rendered: bool = False,
        ids: Sequence[int] | None = None,
        reserve: int = 0,
        shift: int = 0,
        spoken: Sequence[tuple[int, int]] | None = None,
    ) -> Text:
        self = super().__new__(cls, text)
        self.rendered, self.reserve, self.shift = rendered, reserve, shift
        self.ids = None if ids is None else tuple(ids)
        self.spoken = None if spoken is None else tuple(spoken)
        return self

    @classmethod
    def of(cls, text: str, **changes: Any) -> Text:
        """The same text, with some of what it says about its tokens changed."""
        known = {name: getattr(text, name) for name in cls.__slots__} if isinstance(text, cls) else {}
        return cls(str(text), **(known | changes))

    @property
    def tokens(self) -> tuple[Any, ...]:
        """Everything that it says about its tokens, to be compared and hashed."""
        return (self.rendered, self.ids, self.reserve, self.shift, self.spoken)


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion of one prompt, as text: what a policy scores.

    Two are equal when their texts are, and what these say about their tokens (`Text`).
    """

    prompt: str
    text: str
    tokens: tuple[Any, ...] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        if isinstance(self.text, Text) or isinstance(self.prompt, Text):
            told = tuple(part.tokens if isinstance(part, Text) else None for part in (self.prompt, self.text))
            object.__setattr__(self, "tokens", told)


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference: for `prompt`, `chosen` was preferred to `rejected`.

    `p_chosen` is the true or empirical probability that `chosen` is preferred, where it is known.
    `source` names the unit the pair was drawn from (a topic, a document), where there is one.
    """

    prompt: str
    chosen: str
    rejected: str
    p_chosen: float | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Single:
    """An unpaired label: `completion` of `prompt` was judged desirable or not.

    For unlearning, `desirable=False` is the forget set and `desirable=True` the retain set.
    `values` holds further numbers that an algorithm attached to the example in `shape_data`.
    """

    prompt: str
    completion: str
    desirable: bool
    source: str | None = None
    values: Mapping[str, float] = field(default_factory=dict)


Example = Pair | Single

# --------------------------------------------------------------------------- what a loss sees


@dataclass(frozen=True)
class Group:
    """How the completions of one group are scored.

    Args:
        reference: also score them under the reference policy.
        grad: score them under the policy with a graph; `False` scores them without.
        mismatched: the runner pairs each completion with the prompt of ANOTHER example (KTO's z0).
            On enumerable worlds nothing is scored for such a group: `Step.exact_kl` is given instead.
        token_kl: also give `Scores.token_kl`, for which the reference is run beside the policy at every step (spec 2).
    """

    reference: bool = False
    grad: bool = True
    mismatched: bool = False
    token_kl: bool = False


@dataclass(frozen=True)
class Scores:
    """Per-token log-probabilities of the completions of one group.

    Args:
        token_logps: log π(token | prefix), nats, shape `(..., N, T)`; what stands off the mask is ignored.
        mask: true on completion tokens, shape `(..., N, T)`.
        token_kl: KL(π_ref(.|prefix) ‖ π(.|prefix)) of the full distributions of the next token, nats, shape `(..., N, T)`, with
            the policy's gradient; None unless the group declares it. A completion of a table is one token, and this the KL
            of the distributions over all completions of its prompt.
    """

    token_logps: Tensor
    mask: Tensor
    token_kl: Tensor | None = None

    @cached_property
    def sum(self) -> Tensor:
        """Summed completion log-probability in nats, shape `(..., N)`."""
        return self.token_logps.masked_fill(~self.mask.bool(), 0.0).sum(-1)

    @cached_property
    def length(self) -> Tensor:
        """Completion length in tokens, from the mask alone, shape `(..., N)`."""
        return self.mask.sum(-1).to(self.token_logps.dtype)

    @cached_property
    def mean(self) -> Tensor:
        """Average log-probability per completion token in nats, shape `(..., N)`."""
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

    def detach(self) -> Scores:
        """The same scores outside the graph."""
        out = Scores(self.token_logps.detach(), self.mask, None if self.token_kl is None else self.token_kl.detach())
        for name in ("sum", "length", "mean"):  # keep what is already derived
            if name in self.__dict__:
                out.__dict__[name] = self.__dict__[name].detach()
        return out


@dataclass(frozen=True)
class Step:
    """Everything a loss may read for one batch.

    Args:
        policy: scores of every group under the policy being trained.
        reference: scores of the groups that declare `reference=True`.
        columns: numbers per example from `Algorithm.columns`, each of shape `(..., N)`.
        weight: 1 for examples, 0 for padding, shape `(..., N)`, or None when no row is padding.
        totals: sums of every column, and `"examples"`, over the FULL step, shape `(..., 1)`: a loss
            that divides by them is exact under gradient accumulation.
        exact_kl: KL(π(.|x) ‖ π_ref(.|x)) in nats for the prompt of each example, π_ref the stage's reference, without
            gradient, shape `(..., N)`; only on enumerable worlds and only when a group is mismatched.
        shared: what sums a tensor over the processes that share the batch; see `all_reduce`.
        state: what the algorithm carries from step to step (`Algorithm.state`), each of shape `(..., 1)`, without gradient.
    """

    policy: Mapping[str, Scores]
    reference: Mapping[str, Scores] = field(default_factory=dict)
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    weight: Tensor | None = None
    totals: Mapping[str, Tensor] = field(default_factory=dict)
    exact_kl: Tensor | None = None
    shared: Callable[[Tensor], Tensor] | None = field(default=None, repr=False, compare=False)
    state: Mapping[str, Tensor] = field(default_factory=dict)

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum of `values` over the processes that share the batch, without gradient; `values` where there is one process.

        A loss passes what it sums over the examples of a batch (KTO's z0). It is called equally often in all processes, in
        the same order and with the same shape, whatever the values.
        """
        values = values.detach()
        return values if self.shared is None else self.shared(values)

    def log_ratio(self, group: str) -> Tensor:
        """Summed log-ratio log π(y|x) − log π_ref(y|x) of a group in nats, shape `(..., N)`."""
        return self.policy[group].sum - self.reference[group].sum

    def mean_log_ratio(self, group: str) -> Tensor:
        """Log-ratio per completion token of a group in nats, shape `(..., N)`."""
        return self.policy[group].mean - self.reference[group].mean


@dataclass(frozen=True)
class Stage:
    """One stretch of training with a fixed data set and a fixed reference.

    Args:
        share: share of the step budget; the shares of an algorithm's stages sum to 1.
        reference: `"initial"` is the task's initial policy, `"previous"` the policy at the stage's start.
        restart: start with fresh optimizer state, learning-rate schedule and `Algorithm.state`.
        refresh: when set, `shape_data` is called every `refresh` steps with the next batch of rows, so that it
            can sample from the CURRENT policy (on-policy training); what it returns is used in full at each step.
        solve: no steps: the policy is set to π_ref·exp(tilt) with the tilt of `Algorithm.solve`.
    """

    share: float = 1.0
    reference: Literal["initial", "previous"] = "initial"
    restart: bool = True
    refresh: int | None = None
    solve: bool = False


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

    def generate(self, prompts: Sequence[str], samples: int, temperature: float = 1.0, top_k: int = 0) -> list[list[Completion]]:
        """`samples` independent completions of every prompt from the CURRENT policy; `top_k=0` keeps the full support.

        On a language model their texts carry the token ids that were drawn (`Text`), which are what is scored wherever such
        a text is made part of a `Completion`, `Pair` or `Single`. A text made from it (cut, joined, stripped) carries none.
        """
        ...

    def logps(self, completions: Sequence[Completion], *, reference: bool = False, average: bool = False) -> list[float]:
        """Summed (or per-token average) log-probability in nats under the current or the initial policy."""
        ...

    def fit_reward(self, pairs: Sequence[Pair], weight_decay: float) -> RewardModel:
        """The Bradley–Terry reward model fitted to `pairs`, fitted once and cached per data set and decay."""
        ...

    def fit_ranker(self, pairs: Sequence[Pair], weight_decay: float) -> Ranker:
        """The pairwise ranker fitted to `pairs`: like `fit_reward`, without transitivity."""
        ...

    def actions(self, prompt: str) -> Sequence[Completion]:
        """All completions of a prompt on an enumerable world; LookupError otherwise."""
        ...

    def note(self, name: str, value: float) -> None:
        """Report a number measured while shaping data (a metric such as `acceptance_rate`)."""
        ...


# --------------------------------------------------------------------------- tasks

Optimizer = Literal["sgd", "adam", "adamw", "rmsprop"]
TEMPLATE_DATE = date(2024, 7, 26)
"""The day that Llama 3's template names where it cannot ask for today's: one day for all runs, whose keys would change daily."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much training a task grants, the same for every algorithm. Field names are the CLI's flags.

    A field that is added has as its default what runs did before it was there: comparisons with older runs count on that.
    """

    steps: Annotated[int, Gt(0), Doc("optimizer steps")] = 2000
    batch_size: Annotated[int, Gt(0), Doc("data rows per step; a pair counts once, also when it is split into two singles")] = (
        4096
    )
    optimizer: Annotated[Optimizer, Doc("update rule, torch defaults without weight decay")] = "adam"
    lr: Annotated[float, Gt(0), Doc("learning rate of algorithms that the task's table does not name")] = 0.05
    sampling: Annotated[Literal["epochs", "replacement"], Doc("seeded permutations, or independent draws")] = "epochs"
    loss_over: Annotated[Literal["sequence", "token"], Doc("a completion, or each of its tokens, is a row of the loss")] = (
        "sequence"
    )
    label_noise: Annotated[float, Ge(0), Lt(0.5), Doc("probability that a training row is flipped, once per seed")] = 0.0
    heldout: Annotated[float, Ge(0), Lt(1), Doc("share of rows held out when the data has no split column")] = 0.0
    warmup: Annotated[float, Interval(ge=0, lt=1), Doc("share of the steps with linearly rising learning rate")] = 0.0
    clip: Annotated[float, Ge(0), Doc("gradient-norm limit; 0 is off")] = 0.0
    dtype: Annotated[
        Literal["float32", "bfloat16", "float64"], Doc("dtype of the policy; log-probabilities are at least float32")
    ] = "float64"
    batch_tokens: Annotated[
        int, Ge(0), Doc("language models: tokens per step at most, prompts and completions, in place of batch_size; 0 is off")
    ] = 0
    micro_batch: Annotated[int, Ge(0), Doc("data rows per forward pass; 0 is the whole batch")] = 0
    checkpointing: Annotated[
        bool, Doc("language models: recompute activations in the backward pass: less memory, more time, the same numbers")
    ] = False
    packing: Annotated[
        bool, Doc("language models: prompts share rows without padding where the model's attention can; false pads rows")
    ] = True
    fsdp: Annotated[
        bool, Doc("language models by several processes: each keeps a share of every layer, for models that fit on no one device")
    ] = False
    ensemble: Annotated[
        int, Gt(0), Doc("copies of a language model that train as one computation: seeds and float settings of one algorithm")
    ] = 1
    warm_start: Annotated[
        int, Ge(0), Doc("supervised steps on the corpus or the chosen completions before training, shared by all algorithms")
    ] = 0
    warm_start_lr: Annotated[float, Gt(0), Doc("learning rate of the warm start (AdamW)")] = 1e-3
    eval_pairs: Annotated[int, Interval(gt=0, le=256), Doc("training pairs evaluated at every evaluation point, at most")] = 256
    heldout_pairs: Annotated[int, Interval(gt=0, le=256), Doc("held-out pairs evaluated, at most")] = 256
    kl_prompts: Annotated[int, Gt(0), Doc("prompts at most for the Monte Carlo KL")] = 64
    kl_samples: Annotated[int, Gt(0), Doc("samples per prompt for the Monte Carlo KL")] = 4
    max_new_tokens: Annotated[int, Gt(0), Doc("length limit of sampled completions, tokens")] = 64


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Which policy a task trains.

    `name` is `"tabular"`, `"linear"` (scores linear in a world's features), `"tiny"` (built-in byte-level Llama, random
    weights), a hub id or a local path.
    """

    name: Annotated[str, Doc("tabular, linear, tiny, a hub id or a path")] = "tabular"
    tokenizer: Annotated[
        Literal["bytes", "ids", "own"], Doc("tiny: bytes, or whitespace-separated token ids; otherwise the model's own")
    ] = "own"
    vocab_size: Annotated[int, Gt(0), Doc("tiny: vocabulary")] = 259
    hidden_size: Annotated[int, Gt(0), Doc("tiny: width")] = 64
    intermediate_size: Annotated[int, Gt(0), Doc("tiny: width of the MLP")] = 128
    layers: Annotated[int, Gt(0), Doc("tiny: layers")] = 2
    heads: Annotated[int, Gt(0), Doc("tiny: attention heads")] = 4
    context: Annotated[int, Gt(0), Doc("tiny: context length, tokens")] = 512
    rank: Annotated[int, Ge(0), Doc("linear: principal directions of the features that are kept; 0 is all")] = 0
    eos: Annotated[bool, Doc("append the end-of-sequence token to completions")] = True
    lora_rank: Annotated[int, Ge(0), Doc("language models: rank of trained adapters on a frozen model; 0 trains all weights")] = 0
    lora_alpha: Annotated[int, Gt(0), Doc("scale of the adapters, applied as alpha/rank")] = 32
    trust_remote_code: Annotated[bool, Doc("run code that a hub repository ships")] = False
    template_date: Annotated[date, Doc("the day that a chat template is told, where it writes today's date")] = TEMPLATE_DATE

    @property
    def tabular(self) -> bool:
        """Whether the policy is exact over the actions of a world, and trains many runs as one computation."""
        return self.name in ("tabular", "linear")


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Where an ad-hoc data set comes from, and how strict reading it is."""

    source: Annotated[str, Doc("file, name under XPO_BENCH_DATA, or hub id")]
    world: Annotated[str | None, Doc("side file with reference and reward per prompt")] = None
    rows: Annotated[int | None, Gt(0), Doc("first rows that are read, of each split if there are any; all by default")] = None
    on_bad_row: Annotated[Literal["error", "skip"], Doc("refuse the set, or skip and count bad rows")] = "error"
    truncate: Annotated[Literal["prompt", "completion", "drop"], Doc("what gives way in rows longer than the context")] = "prompt"
    columns: Annotated[Mapping[str, str] | None, Doc("name that a layout reads -> column of the set")] = None
    rankings: Annotated[Literal["all", "best"], Doc("all pairs of a ranking, or its best answer against each other one")] = "all"


@dataclass(frozen=True, kw_only=True)
class World:
    """Ground truth of an enumerable world: the actions of every prompt, and what is known about them.

    Args:
        actions: prompt -> its completions, in table order.
        reference: prompt -> {completion: probability > 0}, summing to 1; missing prompts are uniform.
        reward: prompt -> {completion: true reward}; empty when unknown.
        features: prompt -> {completion: numbers}, of one length everywhere; what the linear policy sees of an action.
        exhaustive: the actions are all completions that a language model can write, so that its distribution over
            them is exact too.
    """

    actions: Mapping[str, tuple[str, ...]]
    reference: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    reward: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    features: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    exhaustive: bool = False


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Examples of one task at one seed, clean (label noise is applied by the runner).

    Args:
        train, heldout: rows of one kind, all `Pair` or all `Single`.
        source: where the rows came from, for the record. revision: the commit of a hub set.
        rows: rows read. dropped: reason -> number of rows left out.
        layout: in which the rows were found; empty for rows that no file holds. columns: what was read from where.
        notes: what is odd about rows that are used -> their number.
        kind: what the labels mean; `"forget_retain"` is refused by preference losses.
        world: ground truth where it is known.
        corpus: what the supervised warm start trains on; empty: the chosen (desirable) completions.
        gold: the true reward of any completion, where the task knows it on text; sampled completions are then judged.
        template: how conversational rows became text: `"model"`, by the chat template of the model; `"plain"`, by the suite's
            own, where the model has none. None where all rows are text. template_date: the date that the template was told,
            where it asked for one.
    """

    train: tuple[Example, ...]
    heldout: tuple[Example, ...] = ()
    source: str = "synthetic"
    revision: str | None = None
    rows: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    layout: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)
    kind: Literal["pairs", "singles", "forget_retain"] = "pairs"
    world: World | None = None
    corpus: tuple[Completion, ...] = ()
    gold: Callable[[Completion], float] | None = None
    template: Literal["model", "plain"] | None = None
    template_date: str | None = None
