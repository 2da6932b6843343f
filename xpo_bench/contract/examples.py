"""Preference data: pairs, unpaired examples, token ids of their texts, and worlds with a known optimum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal


class Text(str):
    """A prompt or completion with its own way into tokens, other than the tokenizer's for plain text.

    It is the same string in every other respect, and travels inside `Completion`, `Pair` and `Single` as any
    string does.

    Args:
        rendered: a prompt that a chat template wrote: the tokenizer adds no token of its own before it, and
            no end-of-sequence token follows its completions.
        ids: a completion that a policy drew: the token ids that were drawn, which are what is scored.
        reserve: tokens of the context that are kept for completions when the prompt is truncated. Both sides
            of a pair carry the length of the longer one, and so stand behind the same prompt.
        shift: ids at the end of the prompt that count as the completion's, because prompt and completion
            merge into one token on one side of the pair.
        spoken: (first, last) character of every stretch that is the assistant's, last excluded; the other
            turns of a completion are read and not scored. None: all of it.
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
        """The same text with some attributes of its tokens replaced."""
        known = {name: getattr(text, name) for name in cls.__slots__} if isinstance(text, cls) else {}
        return cls(str(text), **(known | changes))

    @property
    def tokens(self) -> tuple[object, ...]:
        """Everything that it says about its tokens, to be compared and hashed."""
        return (self.rendered, self.ids, self.reserve, self.shift, self.spoken)


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion of one prompt, as text: what a policy scores.

    Two are equal when their texts are, and what these say about their tokens (`Text`).
    """

    prompt: str
    text: str
    tokens: tuple[object, ...] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        if isinstance(self.text, Text) or isinstance(self.prompt, Text):
            told = tuple(part.tokens if isinstance(part, Text) else None for part in (self.prompt, self.text))
            object.__setattr__(self, "tokens", told)


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference: for `prompt`, `chosen` was preferred to `rejected`.

    `p_chosen` is the true or empirical probability that `chosen` is preferred, where it is known; a tie is
    half of it. `p_tie` is the part of it that are ties, where that is known: of votes, the fraction that sees
    no difference. Without it a row at p_chosen = 1/2 is a tie, and no other row is.
    `share` is the part of a row of the data that this pair stands for: with soft labels a row comes in both
    orientations, whose shares sum to 1. A loss is weighted by it; nothing but the trainer sets it.
    `source` names the unit the pair was drawn from (a topic, a document), where there is one, and `person`
    whose preference it is, where the data knows: rows of one person are no independent evidence.
    """

    prompt: str
    chosen: str
    rejected: str
    p_chosen: float | None = None
    source: str | None = None
    person: str | None = None
    p_tie: float | None = field(default=None, kw_only=True)
    share: float = field(default=1.0, kw_only=True)


@dataclass(frozen=True, slots=True)
class Single:
    """An unpaired label: `completion` of `prompt` was judged desirable or not.

    For unlearning, `desirable=False` is the forget set and `desirable=True` the retain set.
    `values` holds further numbers that an algorithm attached to the example in `shape_data`; `person` and
    `share` are as of `Pair`.
    """

    prompt: str
    completion: str
    desirable: bool
    source: str | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    person: str | None = None
    share: float = field(default=1.0, kw_only=True)


Example = Pair | Single


def side(examples: Iterable[Any], name: str) -> list[Completion]:
    """The completion in the field `name` of every example; an example that stands there again has the same.

    Rows of a synthetic world are few objects, many times each.
    """
    rows = list(examples)  # held while their identities count
    numbers = list(map(id, rows))
    distinct = dict(zip(numbers, rows, strict=True))
    made = {number: _completion(e.prompt, getattr(e, name)) for number, e in distinct.items()}
    return list(map(made.__getitem__, numbers))


def _completion(prompt: str, text: str) -> Completion:
    # a `Text` is equal to a text without tokens, which is another completion
    return _plain(prompt, text) if type(prompt) is str and type(text) is str else Completion(prompt, text)


_plain = lru_cache(maxsize=1 << 12)(Completion)
"""Completions of plain text made lately: the seeds of a synthetic world have the same few."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Ground truth of an enumerable world: the actions of every prompt, and what is known about them.

    Args:
        actions: prompt -> its completions, in table order.
        reference: prompt -> {completion: probability > 0}, summing to 1; missing prompts are uniform.
        reward: prompt -> {completion: true reward}; empty when unknown.
        features: prompt -> {completion: numbers}, of one length everywhere; what the linear policy sees of an
            action.
        exhaustive: the actions are all completions that a language model can write, so that its distribution
            over them is exact too.
        lengths: prompt -> {completion: tokens, at least 1}; missing ones have 1. A tabular policy spreads the
            log-probability of a completion evenly over its tokens, so that its sum is what it is and its mean
            is divided by the length.
        tokens: completions are tokens between spaces, and none is the beginning of another of its prompt. A
            tabular policy then gives each token the probability that it has after those before it, and
            `lengths` are counted.
        beta: the task's stated β of the objective E r − β·KL, reward/nat: the KL of its optimum is the budget
            that `attained` is read at.
        preference: prompt -> {(a, b): true probability that a is preferred to b}, every two actions of every
            prompt in one order or in both; empty unless a preference is stated that no reward need explain.
            `xpo_bench.data.preferences` answers from it.
    """

    actions: Mapping[str, tuple[str, ...]]
    reference: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    reward: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    features: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    exhaustive: bool = False
    lengths: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    tokens: bool = False
    beta: float = 0.1
    preference: Mapping[str, Mapping[tuple[str, str], float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Examples of one task at one seed, clean (label noise is applied by the runner).

    Args:
        train, heldout: rows of one kind, all `Pair` or all `Single`.
        source: where the rows came from, for the record. revision: the commit of a hub set.
        rows: rows read. dropped: reason -> number of rows left out.
        layout: in which the rows were found; empty for rows that no file holds. columns: what was read from
            where.
        notes: what is odd about rows that are used -> their number.
        kind: what the labels mean; `"forget_retain"` is refused by preference losses.
        labelled: `p_chosen` of training rows is how they were labelled: by votes, probabilities, strengths or
            ties. False where it is what is known about a label that was drawn.
        world: ground truth where it is known.
        corpus: what the supervised warm start trains on; empty: the chosen (desirable) completions.
        gold: the true reward of any completion, where the task knows it on text; sampled completions are then
            judged.
        template: how conversational rows became text: `"model"`, by the chat template of the model;
            `"plain"`, by the suite's own, where the model has none. None where all rows are text.
            template_date: the date that the template was told, where it asked for one.
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
    labelled: bool = False
    world: World | None = None
    corpus: tuple[Completion, ...] = ()
    gold: Callable[[Completion], float] | None = None
    template: Literal["model", "plain"] | None = None
    template_date: str | None = None
