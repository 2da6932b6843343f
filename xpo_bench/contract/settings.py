"""Settings of a cell: stages, training budget, policy and data source; fields are command-line words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval, Lt, MinLen
from typing_extensions import Doc


@dataclass(frozen=True)
class Stage:
    """One stretch of training with a fixed data set and a fixed reference.

    Args:
        share: fraction of the step budget; those of an algorithm's stages sum to 1.
        reference: `"initial"` is the task's initial policy, `"previous"` the policy at the stage's start.
        restart: start with new optimizer state, learning-rate schedule and `Algorithm.state`.
        refresh: when set, `shape_data` is called every `refresh` steps with the next batch of rows, so that
            it can sample from the CURRENT policy (on-policy training); what it returns is used in full at
            each step.
        solve: no steps: the policy is set to π_ref·exp(tilt) with the tilt of `Algorithm.solve`.
    """

    share: float = 1.0
    reference: Literal["initial", "previous"] = "initial"
    restart: bool = True
    refresh: int | None = None
    solve: bool = False


Optimizer = Literal["sgd", "adam", "adamw", "rmsprop"]
Labels = Literal["hard", "soft", "sampled"]
TEMPLATE_DATE = date(2024, 7, 26)
"""The day that Llama 3's template names where it cannot ask for today's: one day for all runs, whose keys
would change daily.
"""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much training a task grants, the same for every algorithm. Field names are the CLI's flags.

    A field that is added has as its default what runs did before it was there: comparisons with older runs
    count on that.
    """

    steps: Annotated[int, Gt(0), Doc("optimizer steps")] = 2000
    batch_size: Annotated[
        int, Gt(0), Doc("data rows per step; a pair counts once, also when it becomes two unpaired examples")
    ] = 4096
    optimizer: Annotated[Optimizer, Doc("update rule, torch defaults without weight decay")] = "adam"
    lr: Annotated[
        float, Gt(0), Doc("learning rate; of a task with a table of rates, that of algorithms not in it")
    ] = 0.05
    sampling: Annotated[
        Literal["epochs", "replacement"], Doc("seeded permutations, or independent draws")
    ] = "epochs"
    loss_over: Annotated[
        Literal["sequence", "token"], Doc("a completion, or each of its tokens, is a row of the loss")
    ] = "sequence"
    label_noise: Annotated[
        float, Ge(0), Lt(0.5), Doc("probability that a training row is flipped, once per seed")
    ] = 0.0
    labels: Annotated[
        Labels,
        Doc(
            "what training makes of votes, probabilities and ties: the majority's label; both orientations "
            "of a row, weighted by them; or one draw per seed and row"
        ),
    ] = "hard"
    heldout: Annotated[
        float, Ge(0), Lt(1), Doc("fraction of rows held out of a set whose split column holds out none")
    ] = 0.0
    warmup: Annotated[
        float, Interval(ge=0, lt=1), Doc("fraction of the steps with linearly rising learning rate")
    ] = 0.0
    anneal: Annotated[
        float,
        Interval(ge=0, le=1),
        Doc(
            "last fraction of the steps of a stage in which the learning rate falls linearly to 0, where a "
            "step does not take every row"
        ),
    ] = 0.0
    clip: Annotated[float, Ge(0), Doc("gradient-norm limit; 0 is off")] = 0.0
    dtype: Annotated[
        Literal["float32", "bfloat16", "float64"],
        Doc("dtype of the policy; log-probabilities are at least float32"),
    ] = "float64"
    batch_tokens: Annotated[
        int,
        Ge(0),
        Doc(
            "language models: tokens per step at most, prompts and completions, "
            "in place of batch_size; 0 is off"
        ),
    ] = 0
    micro_batch: Annotated[int, Ge(0), Doc("data rows per forward pass; 0 is the whole batch")] = 0
    checkpointing: Annotated[
        bool,
        Doc(
            "language models: recompute activations in the backward pass: "
            "less memory, more time, the same numbers"
        ),
    ] = False
    packing: Annotated[
        bool,
        Doc(
            "language models: several prompts in a row without padding where the model's attention can; "
            "false pads rows"
        ),
    ] = True
    fsdp: Annotated[
        bool,
        Doc(
            "language models by several processes: each keeps a part of every layer, "
            "for models that fit on no one device"
        ),
    ] = False
    ensemble: Annotated[
        int,
        Gt(0),
        Doc(
            "copies of a language model that train as one computation: "
            "seeds and float settings of one algorithm, with --lora also several algorithms"
        ),
    ] = 1
    warm_start: Annotated[
        int,
        Ge(0),
        Doc(
            "supervised steps on the corpus or the chosen completions before training, "
            "shared by all algorithms"
        ),
    ] = 0
    warm_start_lr: Annotated[float, Gt(0), Doc("learning rate of the warm start (AdamW)")] = 1e-3
    eval_pairs: Annotated[
        int, Interval(gt=0, le=256), Doc("training pairs evaluated at every evaluation point, at most")
    ] = 256
    heldout_pairs: Annotated[int, Interval(gt=0, le=4096), Doc("held-out pairs evaluated, at most")] = 256
    kl_prompts: Annotated[int, Gt(0), Doc("prompts at most for the Monte Carlo KL")] = 64
    kl_samples: Annotated[int, Gt(0), Doc("samples per prompt for the Monte Carlo KL")] = 4
    max_new_tokens: Annotated[int, Gt(0), Doc("length limit of sampled completions, tokens")] = 64


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Which policy a task trains.

    `name` is `"tabular"`, `"linear"` (scores linear in a world's features), `"tiny"` (built-in byte-level
    Llama, random weights), a hub id or a local path.
    """

    name: Annotated[str, Doc("tabular, linear, tiny, a hub id or a path")] = "tabular"
    tokenizer: Annotated[
        Literal["bytes", "ids", "own"],
        Doc("tiny: bytes, or whitespace-separated token ids; otherwise the model's own"),
    ] = "own"
    vocab_size: Annotated[int, Gt(0), Doc("tiny: vocabulary")] = 259
    hidden_size: Annotated[int, Gt(0), Doc("tiny: width")] = 64
    intermediate_size: Annotated[int, Gt(0), Doc("tiny: width of the MLP")] = 128
    layers: Annotated[int, Gt(0), Doc("tiny: layers")] = 2
    heads: Annotated[int, Gt(0), Doc("tiny: attention heads")] = 4
    context: Annotated[int, Gt(0), Doc("tiny: context length, tokens")] = 512
    rank: Annotated[
        int, Ge(0), Doc("linear: principal directions of the features that are kept; 0 is all")
    ] = 0
    eos: Annotated[bool, Doc("append the end-of-sequence token to completions")] = True
    lora_rank: Annotated[
        int, Ge(0), Doc("language models: rank of trained adapters on a frozen model; 0 trains all weights")
    ] = 0
    lora_alpha: Annotated[int, Gt(0), Doc("scale of the adapters, applied as alpha/rank")] = 32
    lora_targets: Annotated[
        tuple[str, ...],
        Doc("ends of names of the layers with adapters; by default those that every token passes"),
    ] = ()
    trust_remote_code: Annotated[bool, Doc("run code that a hub repository ships")] = False
    template_date: Annotated[date, Doc("the date that a chat template writes where it asks for today's")] = (
        TEMPLATE_DATE
    )

    @property
    def tabular(self) -> bool:
        """Whether the policy is exact over the actions of a world; such runs train as one computation."""
        return self.name in ("tabular", "linear")


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Where an ad-hoc data set comes from, and how strict reading it is."""

    source: Annotated[str, Doc("file, name under XPO_BENCH_DATA, or hub id")]
    world: Annotated[str | None, Doc("side file with reference and reward per prompt")] = None
    rows: Annotated[
        int | None, Gt(0), Doc("first rows that are read, of each split if there are any; all by default")
    ] = None
    on_bad_row: Annotated[Literal["error", "skip"], Doc("refuse the set, or skip and count bad rows")] = (
        "error"
    )
    truncate: Annotated[
        Literal["prompt", "completion", "drop"], Doc("what is truncated in rows longer than the context")
    ] = "prompt"
    columns: Annotated[Mapping[str, str] | None, Doc("name that a layout reads -> column of the set")] = None
    rankings: Annotated[
        Literal["all", "best"], Doc("all pairs of a ranking, or its best answer against each other one")
    ] = "all"
    strength: Annotated[
        str | None,
        Doc(
            "make probabilities of strengths: p_chosen = sigmoid(K*(s-C)), s of a column strength, of a "
            "layout that has strengths, or score_chosen - score_rejected"
        ),
    ] = None
    split_by: Annotated[
        str,
        MinLen(1),
        Doc("hold out whole prompts, rows whatever their prompt, or all rows of values of a column"),
    ] = "prompt"
