"""What can be computed together for the model at hand, found out by computing it.

Every shortcut of the suite (the head alone, prompts that are shared, rows that are packed, a last layer at
some positions, padding, a cache) is right for some architectures and wrong for others. Each is tried on short
rows against the
plain way: each row alone, without padding, mask or cache. What differs by more than rounding is not used, and
the record says so.

The rows are longer than every window that the configuration states, as far as `LONGEST` allows. Beyond that a
window is believed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from xpo_bench.errors import UsageError
from xpo_bench.policy.language import flex
from xpo_bench.policy.language.decoding import WAYS, Way, decode
from xpo_bench.policy.language.layout import Block, blocks
from xpo_bench.policy.language.network import Network, body_of, stated, text_config, vocabulary_of
from xpo_bench.policy.language.tokenize import Row
from xpo_bench.policy.language.windows import UNBOUNDED, budgets, reach

LONGEST = 640
"""Tokens of the longest row that is tried. A window that is longer is taken from the configuration unseen."""
USUAL = 48
"""Tokens of the longest row that is tried on a model without windows."""
DRAWN = 12
"""Tokens that are drawn to compare what the sampler records with what the scorer says: what a state gets
wrong grows.
"""
SAMPLED = 2e-5
"""Nats that the two may differ by at a token, or five times what padding alone changes where that is more."""
CAUSAL = 1e-4
"""What features of a token may differ by when tokens behind it change, as a fraction of the largest number.
"""
ROUNDING = 1e-5
"""What two ways of computing may differ by, as a fraction of the largest number, or 30 times what padding
alone changes.
"""


@dataclass(frozen=True)
class Capabilities:
    """What is right for a model, and is therefore done.

    Args:
        takes_positions: it can be told positions, and those that it takes untold are 0, 1, 2, ...
        reach: tokens of a row that may share its prompt, at most; 0 where none may.
        packed: prompts share a row.
        alone_beyond: longer rows, in tokens, go by themselves and whole, because what stands beside or behind
            their tokens would change them.
        trims: the last layer is computed at completion positions alone.
        sampling: how prompts are continued; None where no way agrees with the scorer.
        shrinks: rows that have ended leave the batch.
        notes: for the record.
    """

    takes_positions: bool = False
    reach: int = 0
    packed: bool = False
    alone_beyond: int = UNBOUNDED
    trims: bool = False
    sampling: Way | None = "batched"
    shrinks: bool = True
    notes: Mapping[str, Any] = field(default_factory=dict)


@torch.no_grad()
def head_is_selectable(model: Any, device: torch.device) -> bool:
    """Whether logits are exactly head(hidden states of the body), with nothing before or after the head.

    The head's output is replaced by known values, so that scaling and soft-capping show at any weights.
    """
    head, body = model.get_output_embeddings(), body_of(model)
    if head is None or body is None:
        return False
    ids = torch.tensor([plain_ids(model, 8)], device=device)
    seen: list[Tensor] = []
    shape = (1, ids.shape[1], vocabulary_of(model)[0])
    planted = torch.linspace(-99.0, 99.0, shape[1] * shape[2], device=device).reshape(shape)

    def plant(module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.append(args[0])
        return planted.to(output.dtype) if output.shape == planted.shape else output

    hook = head.register_forward_hook(plant)
    try:
        logits = model(input_ids=ids).logits
    finally:
        hook.remove()
    if len(seen) != 1 or not torch.equal(logits, planted.to(logits.dtype)):
        return False
    try:
        hidden = body(input_ids=ids).last_hidden_state
    except (AttributeError, TypeError):  # a body that wants more than ids, or says less than hidden states
        return False
    return hidden.shape == seen[0].shape and torch.allclose(hidden, seen[0], rtol=1e-4, atol=1e-5)


def plain_ids(model: Any, count: int, seed: int = 0) -> list[int]:
    """Ids that stand for nothing special, as far as the configuration says what does, drawn from a seed."""
    config = text_config(model.config)
    vocabulary = vocabulary_of(model)
    known = min(size for size in (*vocabulary, 256) if size > 0)
    special = {
        value
        for source in (model.config, config)
        for name, value in vars(source).items()
        if name.endswith(("token_id", "token_index")) and isinstance(value, int)
    }
    usual = [i for i in range(known) if i not in special] or list(range(known))
    rng = random.Random(seed)
    return [rng.choice(usual) for _ in range(count)]


def probe(network: Network, *, context: int, packing: bool, name: str) -> Capabilities:
    """Try every shortcut on a model.

    Args:
        context: its longest row in tokens. packing: let prompts share a row where it can. name: what errors
            call it.

    Raises:
        UsageError: it cannot be run on ids alone, or is not causal.
    """
    trial = _Trial(network, context, name)
    with trial.exactly():
        trial.require_runs()
        found: dict[str, Any] = {
            "alone_beyond": trial.alone_beyond(),
            "takes_positions": trial.takes_positions(),
        }
        found |= trial.sharing(packing) if found["takes_positions"] else {}
        found["alone_beyond"] = trial.unseen(found["alone_beyond"])
        found["trims"] = trial.trims(found.get("reach", 0), found.get("packed", False))
        found |= trial.sampling(found["takes_positions"])
    return Capabilities(**found, notes=trial.notes | _notes(network, found))


def _notes(network: Network, found: Mapping[str, Any]) -> dict[str, Any]:
    packed, config = found.get("packed", False), text_config(network.model.config)
    notes = {
        "head": "selected" if network.selected else "full",
        "prefix": "shared" if found.get("reach") else "separate",
        "rows": "packed" if packed else "padded" if found["alone_beyond"] else "one by one",
        "sampling": found["sampling"] or "none",
    }
    if 0 < found["alone_beyond"] < UNBOUNDED:
        notes["one_by_one_beyond"] = found["alone_beyond"]
    if found["trims"]:
        notes["last_layer"] = "completions"
    if packed and network.kernel is flex:
        notes["attention"] = "flex"
    experts = [
        name
        for name in vars(config)
        if name.endswith(("num_experts", "n_routed_experts", "num_local_experts"))
    ]
    if any(isinstance(count := stated(config, name), list) or (count or 0) > 1 for name in experts):
        notes["router"] = "auxiliary loss not added"
    return notes


def unsupported(name: str, model: Any, error: Exception) -> UsageError:
    """One line for a model that cannot be run on ids alone."""
    return UsageError(f"model {name!r} ({type(model).__name__}) is not supported: {_said(error)}")


class _Trial:
    """Rows to try things on, and what came of it."""

    def __init__(self, network: Network, context: int, name: str) -> None:
        self.network, self.name = network, name
        self.notes: dict[str, Any] = {}
        self.noise = 0.0
        self.stated = reach(network.model.config)
        self.first = network.positions.first
        self.context = context = min(context, self.first)
        self.drawn = 0
        self.limits = budgets(network.model.config)
        tried = [limit for limit in self.limits if limit + 16 <= min(LONGEST, context)]
        longest = min(max([USUAL, *(limit + 16 for limit in tried)]), context)
        self.ids = plain_ids(network.model, longest + 64)
        self.rows = _rows(self.ids, longest)
        near = min(longest, self.stated)
        self.near = self.rows if near == longest else _rows(self.ids, near)

    @contextmanager
    def exactly(self) -> Iterator[None]:
        """Compute in full precision, without a graph."""
        self.network.probing = True
        try:
            with torch.no_grad():
                yield
        finally:
            self.network.probing = False

    def require_runs(self) -> None:
        """Ids alone give finite features.

        Raises:
            UsageError: they do not.
        """
        try:
            found = self._alone(self.rows[:1])
            self._learns(self.rows[0])
        except Exception as error:  # whatever a model that reads no ids alone raises
            raise unsupported(self.name, self.network.model, error) from error
        if not torch.isfinite(found).all():
            raise UsageError(f"{self._model()} is not supported: its features of a plain row are not finite")

    def _learns(self, row: Row) -> None:
        """A backward pass through all layers, which some models refuse; to one tensor, so that memory is not
        needed for all.
        """
        first = next((p for p in self.network.model.parameters() if p.requires_grad), None)
        if first is not None and self.network.sharding is None:
            with torch.enable_grad():
                total = self._features([row], [_block(row)]).sum()
                torch.autograd.grad(total, [first], allow_unused=True)

    def _alone(self, rows: Sequence[Row]) -> Tensor:
        """Features of rows that are computed one by one, shape (K, width): what all else has to agree with."""
        return torch.cat([self._features([row], [_block(row)], whole=True) for row in rows])

    def _features(self, rows: Sequence[Row], parts: Sequence[Block], **how: Any) -> Tensor:
        return self.network.completion_features(rows, parts, **how)[0]

    def _model(self) -> str:
        return f"model {self.name!r} ({type(self.network.model).__name__})"

    def alone_beyond(self) -> int:
        """The longest row that may have others beside it: no token on the right, and no row beside it,
        changes what it gets.

        Raises:
            UsageError: the model is not causal.
        """
        if self._stands_alone(self.rows, "padding"):
            return UNBOUNDED
        for limit in sorted((limit for limit in self.limits if limit < len(self.rows[0].ids)), reverse=True):
            shorter = _rows(self.ids, limit)
            if self._stands_alone(shorter, f"padding of rows of {limit} tokens"):
                self.rows, self.context = shorter, min(self.context, limit)
                self.near = shorter if limit <= self.stated else self.near
                return limit
        if self._causal(self.near[0]):
            return 0
        raise UsageError(f"{self._model()} is not causal: later tokens change earlier ones")

    def _stands_alone(self, rows: list[Row], what: str) -> bool:
        if not self._causal(rows[0]):
            self.notes.setdefault("probes", {})["causality"] = f"differs in rows of {len(rows[0].ids)} tokens"
            return False
        alone = self._alone(rows)
        if not self._agrees(what, lambda: self._together(rows), alone):
            return False
        self.noise = float((self._together(rows) - alone).abs().max() / alone.abs().max())
        return True

    def _causal(self, row: Row) -> bool:
        """Whether tokens on the right leave what stands on their left: padding needs no mask then."""
        count = len(row.ids)
        other = Row((*row.ids[: count // 2], *reversed(row.ids[count // 2 :])), row.start)
        longer = [self.network.features(input_ids=self._ids(r))[0] for r in (row, other)]
        for end in {count // 2, (count - 3) | 1}:  # one of them is odd
            if end > 0:
                short = self.network.features(input_ids=self._ids(Row(row.ids[:end], 1)))[0]
                if not all(
                    _close(long[:, :end], short, CAUSAL) for long in longer[: 2 if end == count // 2 else 1]
                ):
                    return False
        return True

    def unseen(self, beyond: int) -> int:
        """The same, where windows were too long to be tried: a model that hides tokens by a mask of its own
        may do more there.
        """
        hidden = [window for window in self.limits if window + 16 > LONGEST]
        built = self.notes.get("probes", {}).get("packing") not in (None, "differs")
        return min(beyond, *hidden) if hidden and built else beyond

    def _ids(self, row: Row) -> Tensor:
        return torch.tensor([row.ids], device=self.network.device)

    def takes_positions(self) -> bool:
        """Whether the model can be told positions, and takes 0, 1, 2, ... where it is not told."""
        if "position_ids" not in self.network.takes:
            return False
        ids = self._ids(self.rows[0])
        untold = self.network.features(input_ids=ids)[0]
        return self._agrees(
            "positions", lambda: self.network.features(input_ids=ids, position_ids=_arange(ids))[0], untold
        )

    def _together(self, rows: Sequence[Row], **how: Any) -> Tensor:
        return self._features(rows, [_block(row, i) for i, row in enumerate(rows)], **how)

    def sharing(self, packing: bool) -> dict[str, Any]:
        """Whether completions that share a prompt, or a row, get the features that they have alone."""
        network, within = self.network, min(self.stated, self.first)
        own = getattr(network.model.config, "_attn_implementation", None)
        alone = self._alone(self.near)
        if packing and own == "sdpa" and network.device.type in ("cpu", "cuda"):
            network.kernel.use(network.model)
            if self._agrees("packing", lambda: self._packed(), alone):
                return {"reach": within, "packed": True}
            network.model.set_attn_implementation(own)
        shares = self._agrees(
            "sharing", lambda: self._features(self.near, blocks(self.near, UNBOUNDED, UNBOUNDED)), alone
        )
        return {"reach": within if shares else 0}

    def _packed(self) -> Tensor:
        parts = blocks(self.near, UNBOUNDED, UNBOUNDED)
        if self.network.kernel is flex:  # it is compiled for the backward pass by itself
            with torch.enable_grad():
                _backward(self.network, self._features(self.near, parts, packed=True).sum())
        return self._features(self.near, parts, packed=True)

    def trims(self, reach: int, packed: bool) -> bool:
        """Whether features at completion positions stay the same when the last layer is computed there alone.

        What is not computed is NaN, so that whatever reads it shows, and each part of the layer must be met
        exactly once.
        """
        if not self.network.last_layer.weights:
            return False
        separate = [_block(row, i) for i, row in enumerate(self.rows)]
        if not self._trimmed(self.rows, separate, packed=False):
            return False
        return not reach or self._trimmed(self.near, blocks(self.near, UNBOUNDED, UNBOUNDED), packed=packed)

    def _trimmed(self, rows: Sequence[Row], parts: Sequence[Block], packed: bool) -> bool:
        everywhere = self._features(rows, parts, packed=packed)

        def there() -> Tensor:
            found = self._features(rows, parts, packed=packed, trims=True, poison=True)
            once = set(self.network.last_layer.calls) == {1}
            return found if once else torch.full_like(found, float("nan"))

        return self._agrees("trimming", there, everywhere)

    def sampling(self, takes_positions: bool) -> dict[str, Any]:
        """The fastest way of continuing prompts whose log-probabilities are those of the scorer."""
        self.drawn = max(1, min(DRAWN, self.context - 1))
        for way in WAYS[1:] if self.network.dtype == "float64" else WAYS:
            groups = self._prompts(way)
            for shrinks in (True, False) if any(len(group) > 1 for group in groups) else (False,):
                what = f"sampling {way}" + ", ended rows leave" * shrinks
                attempt = partial(self._errors, groups, way, takes_positions, shrinks)
                if self._agrees(what, attempt, torch.zeros(1), SAMPLED / ROUNDING):
                    return {"sampling": way, "shrinks": shrinks}
        return {"sampling": None}

    def _prompts(self, way: Way) -> list[list[tuple[int, ...]]]:
        """Prompts, by what is continued together."""
        longest = max(1, min(len(self.rows[0].ids), self.context - self.drawn))
        first, other = self.rows[0].ids[:longest], self.rows[0].ids[:longest][::-1]
        if way == "batched":
            return [
                [first, other[: max(1, longest // 2)], other[: min(3, longest)], first[: min(7, longest)]]
            ]
        if way == "equal lengths":
            return [[first, other], [first[: min(3, longest)], other[: min(3, longest)]]]
        return [[first], [other[: min(3, longest)]]]

    def _errors(
        self, groups: Sequence[Sequence[tuple[int, ...]]], way: Way, told: bool, shrinks: bool
    ) -> Tensor:
        """The largest difference between what is recorded of a sampled token and what the scorer says, nats,
        shape (1,).

        It is divided where padding alone already changes more than `SAMPLED`. With `shrinks`, half of the
        samples end early, and leave the batch.
        """
        worst, largest = 0.0, 1.0
        for number, starts in enumerate(groups):
            generator = torch.Generator().manual_seed(number)
            uniform = torch.rand(len(starts), self.drawn, generator=generator, dtype=torch.float64)
            words: dict[str, Any] = {"way": way, "takes_positions": told, "shrinks": shrinks}
            tokens, logps = decode(self.network, starts, uniform, **words)
            ends: set[int] = set()
            if shrinks:
                ends = {line[min(1, self.drawn - 1)] for line in tokens[: (len(tokens) + 1) // 2]}
                tokens, logps = decode(self.network, starts, uniform, sorted(ends), **words)
            for start, line, recorded in zip(starts, tokens, logps, strict=True):
                last = next((t + 1 for t, token in enumerate(line) if token in ends), len(line))
                row = Row((*start, *line[:last]), len(start))
                features, targets, _ = self.network.completion_features([row], [_block(row)], whole=True)
                scored = self.network.logits(features).log_softmax(-1).gather(1, targets[:, None])[:, 0].cpu()
                worst = max(worst, _worst(recorded[:last], scored))
                largest = max(largest, float(scored.abs().max()))
        return torch.tensor([worst / max(1.0, 5 * self.noise * largest / SAMPLED)])

    def _agrees(
        self, what: str, attempt: Callable[[], Tensor], expected: Tensor, scale: float | None = None
    ) -> bool:
        """Whether a way of computing gives what is expected; what it raised goes on record otherwise."""
        try:
            found = attempt()
        except Exception as error:  # whatever a model that takes no such mask, or a compiler, raises
            self.notes.setdefault("probes", {})[what] = type(error).__name__
            if what == "packing" and self.network.kernel is flex:
                self.notes["attention"] = f"no flex ({type(error).__name__})"
            return False
        if _close(found, expected, ROUNDING, self.noise if scale is None else 0.0, scale):
            return True
        self.notes.setdefault("probes", {})[what] = "differs"
        return False


def _close(
    found: Tensor, expected: Tensor, fraction: float, noise: float = 0.0, scale: float | None = None
) -> bool:
    """Whether numbers agree up to a fraction of the largest, or 30 times the relative noise where that is
    more.
    """
    if found.shape != expected.shape:
        return False
    largest = float(expected.abs().max()) if scale is None else scale
    return bool(
        ((found - expected).abs() <= largest * max(fraction, min(30 * noise, 1e-3))).all()
    )  # false for NaN


def _worst(found: Tensor, expected: Tensor) -> float:
    """The largest difference; NaN where there is one."""
    return float((found - expected).abs().max().nan_to_num(nan=float("inf")))


def _rows(ids: Sequence[int], longest: int) -> list[Row]:
    """Rows of at most so many tokens: two prompts with three and two completions, the first of them as long
    as may be.
    """
    start = max(1, longest * 3 // 4)
    short = max(1, min(3, longest - 2))
    lengths = [
        (0, start, max(1, longest - start), 0),
        (1, short, 4, 3),
        (0, start, 5, 7),
        (1, short, 2, 13),
        (0, start, 3, 17),
    ]
    prompts = (tuple(ids[:start]), tuple(ids[5 : 5 + short]))
    found = [
        Row((*prompts[which], *ids[start + shift : start + shift + max(1, min(more, longest - at))]), at)
        for which, at, more, shift in lengths
    ]
    return list(dict.fromkeys(found))


def _block(row: Row, index: int = 0) -> Block:
    return Block((index,), row.start, len(row.ids) - 1)


def _arange(ids: Tensor) -> Tensor:
    return torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)


def _backward(network: Network, loss: Tensor) -> None:
    if network.sharding:
        network.sharding.gradients(loss)
    else:
        torch.autograd.grad(
            loss, [p for p in network.model.parameters() if p.requires_grad], allow_unused=True
        )


def _said(error: Exception, limit: int = 160) -> str:
    text = " ".join(str(error).split()).split(". ")[0]
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
