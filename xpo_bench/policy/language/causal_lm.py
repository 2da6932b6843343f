"""A causal language model as a policy: Hugging Face models and the built-in `tiny`.

Scoring is exact before it is fast: log-softmax in float32 (float64 for float64 models) whatever the model
computes in, only completion positions through the output head, dropout off, equal rows computed once.
Completions of one prompt share it, and on a CPU prompts share a row (`layout`), which a probe compares with
separate rows on the model at hand. Rows that
stand alone are padded on the right without an attention mask: in a causal model nothing to the right of a
token can reach it, which is verified likewise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from xpo_bench.contract.examples import Completion, Example, Text
from xpo_bench.contract.scoring import Scores
from xpo_bench.contract.settings import ModelSpec
from xpo_bench.errors import DataError, UsageError
from xpo_bench.policy.language import sampling
from xpo_bench.policy.language.divergence import token_kl
from xpo_bench.policy.language.fit import Fitted, fit
from xpo_bench.policy.language.flops import BACKWARD, ModelShape
from xpo_bench.policy.language.layout import Block, attended, batches, blocks, packs
from xpo_bench.policy.language.lora import add_adapters
from xpo_bench.policy.language.network import Network, text_config
from xpo_bench.policy.language.pretrained import load_pretrained, quiet
from xpo_bench.policy.language.probes import Capabilities, head_is_selectable, probe, unsupported
from xpo_bench.policy.language.sampling import Sampled, SequenceKL
from xpo_bench.policy.language.sharding import Sharding
from xpo_bench.policy.language.tiny import tiny_model, tiny_tokenizer
from xpo_bench.policy.language.tokenize import Encoded, Row, encode
from xpo_bench.policy.language.tokenizers import Tokenizer

State = dict[str, Tensor]
"""Trained parameters by name."""

DTYPES = ("float32", "bfloat16", "float64")
LOGITS_PER_CHUNK = 2**26
"""Logits that exist at a time (256 MiB in float32)."""
TOKENS_PER_FORWARD = {"cpu": 2**10, "cuda": 2**16}
"""Padded tokens of one forward pass, by device type. A CPU gains from small ones: less padding, and they fit
its caches.
"""

TOKENS_PER_DECODE = {"cpu": 2**15, "cuda": 2**16}
"""Tokens in the key-value cache of one batch of samples."""

FITS = 8
"""Data sets of which it is remembered how their rows fit."""

IDLE = Row((0, 0), 1)
"""What a process computes while others still have rows."""


class CausalLM:
    """One causal language model; the runs axis of its scores has length 1.

    Attributes:
        notes: how it is computed, for the record. `head` is `selected` when only completion positions go
            through the output head, `full` when the model does something around its head, so that full logits
            are computed and then restricted. `prefix` is `shared` when completions share the row of their
            prompt, `separate` when the model cannot. `rows` is `packed` when prompts share a row, or
            `padded`; `attention` is `flex` where that packs them, or says what kept it from doing so.
            `last_layer` is `completions` where that is computed at completion positions alone. `eos` is
            `appended` or `none`.
        tokens_processed: tokens that went through the model, in scoring, sampling and KL, with and without a
            graph; padding excluded, equal rows and shared prompts of one call counted once. The last token of
            a row predicts nothing and is not fed.
        flops: floating-point operations of those tokens, forward and backward; recomputation is not counted.
        tokens_per_forward: padded tokens of one forward pass, at most (one row at least); of packed ones,
            about.
        tokens_per_decode: padded tokens of one batch of samples, at most (one row at least).
        chunk: completion positions that go through the head at a time.
        takes_positions: whether the model can be told positions, which left padding needs.
        trims: whether the last layer is computed at completion positions alone.
        reach: tokens of a row that may share its prompt, at most; 0 where the model cannot.
        capabilities: what was found out about the model, from which the last four are taken.
    """

    runs = 1
    enumerable = False
    stacked = False
    abilities: frozenset[str] = frozenset({"generate", "reward"})

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        spec: ModelSpec,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        packing: bool = True,
        sharding: Sharding | None = None,
    ) -> None:
        """Wrap a model that exists already; `load` builds one. The model is moved, cast and set to evaluation
        mode.

        Args:
            packing: let prompts share a row where the model can.
            sharding: what lets this process keep a share of the layers. All processes then make the same
                calls, and parameters, gradients and snapshots are this process's parts.

        Raises:
            UsageError: the device is not there, the dtype unknown, or the model not causal.
        """
        if dtype not in DTYPES:
            raise UsageError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
        self.device = find_device(device)
        self.dtype = dtype
        self.spec = spec
        self.tokenizer = tokenizer
        self.sharding = sharding
        number = torch.float64 if dtype == "float64" else torch.float32
        model = (
            model.to(self.device, number)
            if sharding is None
            else sharding.shard(model.to(number), self.device)
        )
        model = model.eval()
        model.config.use_cache = False
        self.model = model
        self.context = context_length(model.config, tokenizer)
        self._fits: dict[tuple[int, str], tuple[Sequence[Example], Fitted]] = {}
        self.network = network_of(model, self.device, dtype, spec.name, sharding)
        able = probe(self.network, context=self.context, packing=packing, name=spec.name)
        self._able(able)
        self.tokens_processed = 0
        self.flops = 0.0
        self.shape = ModelShape.of(model)
        self._attention = 0.0 if self.packed else self.shape.per_context / self.shape.per_token
        self.last_layer, self.kernel = self.network.last_layer, self.network.kernel
        self.tokens_per_forward = TOKENS_PER_FORWARD.get(self.device.type, 2**14)
        self.tokens_per_decode = TOKENS_PER_DECODE.get(self.device.type, 2**14)
        everything = dict(model.named_parameters())
        # what is frozen is the same in every snapshot, and in none of them
        trained = {name: p for name, p in everything.items() if p.requires_grad}
        self._named: dict[str, Tensor] = (
            trained if sharding is None else {name: sharding.own(p) for name, p in trained.items()}
        )
        self._size = sum(p.numel() for p in everything.values())
        self._trained = sum(p.numel() for p in trained.values())
        self._backward = (
            BACKWARD - 1 + self._trained / self._size
        )  # frozen weights need no gradient of their own
        self._head = self.network.head
        fill = self.kernel.FILL
        self.chunk = max(fill, LOGITS_PER_CHUNK // self.network.vocabulary // fill * fill)

    def _able(self, able: Capabilities) -> None:
        """Do what is right for the model."""
        self.capabilities = able
        self.takes_positions, self.reach, self.packed, self.trims = (
            able.takes_positions,
            able.reach,
            able.packed,
            able.trims,
        )
        self.notes: dict[str, Any] = {
            "eos": "appended" if self.spec.eos and self.tokenizer.eos is not None else "none",
            **able.notes,
        }

    @classmethod
    def load(
        cls,
        spec: ModelSpec,
        *,
        init_seed: int,
        dtype: str = "float32",
        device: str = "cpu",
        checkpointing: bool = False,
        packing: bool = True,
        sharding: Sharding | None = None,
    ) -> CausalLM:
        """Build `tiny`, or load a packaged model, a hub id or a local path (see `pretrained`).

        Args:
            init_seed: seed of random weights; without effect on pretrained ones.
            dtype: `float32`, `float64`, or `bfloat16`: float32 weights with the body computed in bfloat16.
            device: `cpu`, `cuda`, `cuda:1`, ..., or `auto`.
            checkpointing: the backward pass computes the activations of each layer again in place of keeping
                them.
            packing, sharding: see the class.

        Raises:
            UnreachableError: a hub id that cannot be had from here.
            UsageError: anything else that is not a causal language model, or a device that is not there.
        """
        find_device(device)  # before a long download
        with quiet():
            if spec.name == "tiny":
                model, tokenizer = tiny_model(spec, init_seed), tiny_tokenizer(spec)
            else:
                model, tokenizer = load_pretrained(spec)
            if spec.lora_rank:
                add_adapters(model, spec.lora_rank, spec.lora_alpha, init_seed)
            policy = cls(
                model, tokenizer, spec, dtype=dtype, device=device, packing=packing, sharding=sharding
            )
        if checkpointing:
            policy.recompute_layers()
        return policy

    # ----------------------------------------------------------------------- scoring

    def encode(self, completions: Sequence[Completion], truncate: str = "prompt") -> Encoded:
        """Tokenise completions once; see `tokenize.encode` for the boundary, truncation and EOS.

        Raises:
            UsageError: a prompt or completion without tokens, an id that the model has no embedding for, or
            an
                unknown `truncate`.
        """
        encoded = encode(
            self.tokenizer, completions, context=self.context, eos=self.spec.eos, truncate=truncate
        )
        largest, known = max((max(row.ids) for row in encoded.rows), default=0), self.network.embeddings
        if known and largest >= known:
            raise UsageError(
                f"model {self.spec.name!r}: its tokenizer gives the id {largest}, and its embedding has {known:,} rows "
                f"(ids 0 to {known - 1:,}); it is not this model's tokenizer"
            )
        return encoded

    @property
    def stops(self) -> frozenset[int]:
        """Ids that end a sample; none where completions do not end with EOS either."""
        return self.tokenizer.stops if self.spec.eos else frozenset()

    def fit(self, examples: Sequence[Example], truncate: str = "prompt") -> Fitted:
        """What becomes of the rows of a data set in this model's context; see `policy.fit`. They are
        tokenised once.
        """
        key = (id(examples), truncate)
        if key not in self._fits:
            if len(self._fits) >= FITS:
                self._fits.pop(next(iter(self._fits)))
            fitted = fit(self.tokenizer, examples, context=self.context, eos=self.spec.eos, truncate=truncate)
            self._fits[key] = (examples, fitted)  # the rows are kept alive, so that their id stays theirs
        return self._fits[key][1]

    def stack(self, encoded: Sequence[Encoded]) -> Encoded:
        """The encoded completions of the one run."""
        (only,) = encoded
        return only

    def begin(self) -> None:
        """Nothing is shared between the algorithms of a step: a network is one run."""

    def lengths(self, stacked: Encoded) -> Tensor:
        """Length of every completion in tokens, EOS included, 0 for dropped rows, shape (1, E)."""
        rows = (stacked.row(i) for i in range(len(stacked)))
        return torch.tensor([[0 if row is None else row.length for row in rows]])

    def score(
        self,
        requests: Mapping[str, tuple[Encoded, Tensor | None]],
        *,
        grad: bool,
        runs: slice = slice(None),
        against: State | None = None,
    ) -> dict[str, Scores]:
        """Score several groups together, in batches sorted by length; rows that groups share are computed
        once.

        Args:
            requests: group -> (encoded, index); the index has shape `(1, N)`, −1 is an absent row, None takes
                all.
            grad: keep the graph.
            against: a snapshot, from which `token_kl` is also computed; it is run on the same rows, without a
                graph.

        Returns:
            Scores per group, shape `(1, N, T)` with T the group's longest requested completion, at least 1.
            The mask is true on completion tokens (EOS included), all false for absent and dropped rows.
        """
        order: dict[Row, int] = {}
        picked: dict[str, list[int]] = {}
        for group, (encoded, index) in requests.items():
            positions = range(len(encoded)) if index is None else index.reshape(-1).tolist()
            found = (encoded.row(i) for i in positions)
            picked[group] = [-1 if row is None else order.setdefault(row, len(order)) for row in found]
        rows = list(order)
        with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
            flat, kl, offsets = self._token_logps(rows, against)
            return {group: _scores(flat, kl, offsets, rows, picks) for group, picks in picked.items()}

    def score_all(self, encoded: Encoded, rows: Tensor | None = None, *, runs: slice = slice(None)) -> Scores:
        """Score every encoded completion without a graph, in batches sorted by length.

        Args:
            rows: indices of the completions to score; the others are absent. All by default.

        Returns:
            Scores of shape `(1, E, T)`, T the longest completion of `encoded`.
        """
        index = torch.arange(len(encoded))
        if rows is not None:
            wanted = torch.zeros(len(encoded), dtype=torch.bool)
            wanted[rows.reshape(-1).cpu()] = True
            index = index.masked_fill(~wanted, -1)
        scores = self.score({"all": (encoded, index[None])}, grad=False)["all"]
        pad = (0, encoded.width - scores.mask.shape[-1])
        return Scores(F.pad(scores.token_logps, pad), F.pad(scores.mask, pad))

    def score_sets(self, sets: Sequence[Encoded]) -> list[Scores]:
        """Score all completions of several sets together, without a graph; shapes `(1, E, T)`, T the longest
        of the set.
        """
        scores = self.score({str(i): (encoded, None) for i, encoded in enumerate(sets)}, grad=False)
        return [scores[str(i)] for i in range(len(sets))]

    def _token_logps(
        self, rows: Sequence[Row], against: State | None
    ) -> tuple[Tensor, Tensor | None, list[int]]:
        """Log-probabilities of all completion tokens, flat, the KL from a snapshot at each, and where each
        row's begin.
        """
        offsets = [0] * len(rows)
        parts: list[Tensor] = []
        kls: list[Tensor] = []
        total = 0
        batches = list(self.row_batches(rows))
        # processes that share layers need equally many passes
        idle = max(1, self.sharding.most(len(batches))) - len(batches) if self.sharding else 0
        for batch in batches:
            for b in batch:
                offsets[b] = total
                total += rows[b].length
            if against is None:
                parts.append(self._target_logps(*self.completion_features([rows[b] for b in batch])))
            else:
                logps, kl = token_kl(self, [rows[b] for b in batch], against)
                parts.append(logps)
                kls.append(kl)
        for _ in range(idle):
            parts.append(self._idle(against))
            kls += parts[-1:] if against is not None else []
        if (
            not parts
        ):  # nothing to score; still part of a graph, so that a step of absent rows has a zero gradient
            nothing = next(iter(self._named.values())).reshape(-1)[:1] * 0
            return nothing, None if against is None else nothing, offsets
        return torch.cat(parts), torch.cat(kls) if kls else None, offsets

    def _idle(self, against: State | None) -> Tensor:
        """A batch that stands for nothing, while others score one of theirs: a zero that is part of the
        graph, shape (1,).
        """
        counted = self.tokens_processed, self.flops
        features, _ = self.completion_features([IDLE])
        if against is not None:
            with torch.no_grad(), self.using(against):
                self.completion_features([IDLE])
        self.tokens_processed, self.flops = counted
        return features.reshape(-1)[:1].to(self.value_dtype) * 0

    def row_batches(self, rows: Sequence[Row]) -> Iterator[list[int]]:
        """Indices of rows for one forward pass each: those that share a prompt together, cut at
        `tokens_per_forward`.
        """
        parts = blocks(rows, self.tokens_per_forward, self.reach, self._attention)
        # rows beyond the reach keep the model's own mask, which a batch has or has not
        kinds: dict[tuple[bool, int], list[Block]] = {}
        for part in parts:
            lengths = [len(rows[i].ids) for i in part.members]
            kinds.setdefault(
                (max(lengths) > self.reach, self.network.positions.regime(max(lengths))), []
            ).append(part)
        for (beyond, _), kind in sorted(kinds.items()):
            cut = packs if self.packed and not beyond else batches
            alone = [b for b, part in enumerate(kind) if self._stands_alone(rows, part)]
            yield from ([*kind[b].members] for b in alone)
            others = [part for b, part in enumerate(kind) if b not in set(alone)]
            for batch in cut([part.length for part in others], self.tokens_per_forward):
                yield [i for b in batch for i in others[b].members]

    def _stands_alone(self, rows: Sequence[Row], part: Block) -> bool:
        """Whether a row must have a forward pass of its own."""
        return any(len(rows[i].ids) > self.capabilities.alone_beyond for i in part.members)

    def completion_features(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """What predicts each completion token, and the token.

        Returns:
            Features of shape `(K, width)`, input of `logits`, and targets of shape `(K,)`, K the completion
            tokens of all rows, row after row.
        """
        parts = self._blocks(rows)
        features, targets, fed = self.network.completion_features(
            rows,
            parts,
            packed=self.packed and self._within(rows),
            whole=any(self._stands_alone(rows, part) for part in parts),
            trims=self._trims(rows, parts),
        )
        self.tokens_processed += fed
        forward = self._operations(rows, parts)
        self.flops += forward * (1 + self._backward) if torch.is_grad_enabled() else forward
        return features, targets

    def _trims(self, rows: Sequence[Row], parts: Sequence[Block]) -> bool:
        """Whether the last layer is computed at completion positions alone: not in rows that are computed as
        they stand.
        """
        return self.trims and not any(self._stands_alone(rows, part) for part in parts)

    def _within(self, rows: Sequence[Row]) -> bool:
        """Whether all rows are within the reach of shared prompts."""
        return self.reach > 0 and all(len(row.ids) <= self.reach for row in rows)

    def _blocks(self, rows: Sequence[Row]) -> list[Block]:
        return blocks(rows, self.tokens_per_forward, self.reach if self._within(rows) else 0, self._attention)

    def operations(self, encoded: Encoded, index: Sequence[int]) -> float:
        """Floating-point operations of scoring these completions without a graph, and no others with them."""
        rows = list(dict.fromkeys(row for i in index if (row := encoded.row(i)) is not None))
        total = 0.0
        for batch in self.row_batches(rows):
            picked = [rows[b] for b in batch]
            total += self._operations(picked, self._blocks(picked))
        return total

    def _operations(self, rows: Sequence[Row], parts: Sequence[Block]) -> float:
        """Floating-point operations of one forward pass."""
        whole = self.shape.forward(attended(rows, parts), sum(row.length for row in rows))
        unread = sum(part.start - 1 for part in parts) if self._trims(rows, parts) else 0
        return whole - 2.0 * float(self.last_layer.weights * unread)

    def features(self, **inputs: Any) -> tuple[Tensor, Any]:
        """Run the model: features of shape `(B, L, width)` for `logits`, and its cache if one was asked for."""
        return self.network.features(**inputs)

    def autocast(self) -> torch.autocast:
        """The precision of the model's body."""
        return self.network.autocast()

    def logits(self, features: Tensor) -> Tensor:
        """Logits of features, shape `(..., vocabulary)`, at least float32 whatever the body computes in."""
        return self.network.logits(features)

    def _target_logps(self, features: Tensor, targets: Tensor) -> Tensor:
        """Log-probability of each target, shape `(K,)`; large outputs in chunks that the backward pass
        recomputes.
        """
        count = len(targets)
        if extra := -count % self.kernel.FILL if self.packed else 0:
            features, targets = F.pad(features, (0, 0, 0, extra)), F.pad(targets, (0, extra))
        return self._padded_logps(features, targets)[:count]

    def _padded_logps(self, features: Tensor, targets: Tensor) -> Tensor:
        if len(targets) <= self.chunk:
            return self._chunk_logps(features, targets)
        parts = zip(torch.split(features, self.chunk), torch.split(targets, self.chunk), strict=True)
        if not torch.is_grad_enabled():
            return torch.cat([self._chunk_logps(f, t) for f, t in parts])
        return torch.cat(
            [
                checkpoint(self._chunk_logps, f, t, use_reentrant=False, preserve_rng_state=False)
                for f, t in parts
            ]
        )

    def _chunk_logps(self, features: Tensor, targets: Tensor) -> Tensor:
        return -F.cross_entropy(self.logits(features), targets, reduction="none")

    # ----------------------------------------------------------------------- sampling

    def sample(
        self,
        prompts: Sequence[str],
        samples: int,
        *,
        max_new_tokens: int,
        generator: torch.Generator,
        temperature: float = 1.0,
        top_k: int = 0,
    ) -> Sampled:
        """Draw completions; see `sampling.sample`."""
        return sampling.sample(
            self,
            prompts,
            samples,
            max_new_tokens=max_new_tokens,
            generator=generator,
            temperature=temperature,
            top_k=top_k,
        )

    def generate(
        self,
        run: int,
        prompts: Sequence[str],
        samples: int,
        rng: np.random.Generator,
        temperature: float = 1.0,
        top_k: int = 0,
        max_new_tokens: int = 64,
    ) -> list[list[Completion]]:
        """Draw completions, grouped by prompt. Each carries the ids that were drawn, which are what is
        scored.
        """
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        drawn = self.sample(
            prompts,
            samples,
            max_new_tokens=max_new_tokens,
            generator=generator,
            temperature=temperature,
            top_k=top_k,
        )
        made = [
            Completion(prompts[i], Text(text, ids=ids, reserve=max_new_tokens))
            for i, text, ids in zip(drawn.prompt_index.tolist(), drawn.texts, drawn.ids, strict=True)
        ]
        return [made[start : start + samples] for start in range(0, len(made), samples)]

    @torch.no_grad()
    def describe_completions(
        self, completions: Sequence[Completion], state: State, truncate: str = "prompt"
    ) -> np.ndarray:
        """Features of completions under a snapshot, for reward heads, shape `(n, 2·width)`, float64.

        The mean over completion positions of what enters the head, and its last one.

        Raises:
            DataError: a completion has no token within the context.
        """
        encoded = self.encode(completions, truncate)
        if encoded.dropped:
            raise DataError(
                f"{encoded.dropped} of {len(completions)} completions have no token within the context"
            )
        out: list[np.ndarray | None] = [None] * len(encoded.rows)
        with self.using(state):
            for batch in self.row_batches(encoded.rows):
                rows = [encoded.rows[b] for b in batch]
                features, _ = self.completion_features(rows)
                for b, part in zip(batch, features.float().split([row.length for row in rows]), strict=True):
                    out[b] = torch.cat([part.mean(0), part[-1]]).double().cpu().numpy()
        return np.stack([found for i in encoded.item.tolist() if (found := out[i]) is not None])

    def sequence_kl(self, sampled: Sampled, reference: State | CausalLM) -> SequenceKL:
        """KL from a reference along samples of this policy; see `sampling.sequence_kl`."""
        return sampling.sequence_kl(self, sampled, reference)

    def recompute_layers(self) -> None:
        """Keep no activations inside the layers; the backward pass computes them again.

        Raises:
            UsageError: a model whose layers cannot.
        """
        kind = (
            "activation" if hasattr(self.model, "activation_checkpointing_enable") else "gradient"
        )  # its newer and older name
        try:
            getattr(self.model, f"{kind}_checkpointing_enable")(
                **{f"{kind}_checkpointing_kwargs": {"use_reentrant": False}}
            )
        except (ValueError, AttributeError):
            raise UsageError(
                f"model {self.spec.name!r} has no gradient checkpointing; leave out task.checkpointing"
            ) from None
        for module in (
            self.model.modules()
        ):  # they ask for training mode, which would also turn dropout on further inside
            if getattr(module, "gradient_checkpointing", False):
                module.training = True
        self.notes["checkpointing"] = True
        self.trims = False  # what the backward pass computes again, it computes everywhere
        self.notes.pop("last_layer", None)

    # ----------------------------------------------------------------------- parameters

    @property
    def value_dtype(self) -> torch.dtype:
        """The dtype of scores: float32, float64 for float64 models."""
        return self.network.value_dtype

    def parameters(self) -> list[Tensor]:
        """The trainable tensors."""
        return list(self._named.values())

    def snapshot(self) -> State:
        """A copy of the trained parameters."""
        return {name: p.detach().clone() for name, p in self._named.items()}

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Set the parameters to a snapshot, in place."""
        for name, p in self._named.items():
            p.copy_(state[name])

    @contextlib.contextmanager
    def using(self, state: State) -> Iterator[None]:
        """Compute with a snapshot's parameters for a while; only shares are copied. Not to be combined with a
        graph.
        """
        whole: State = {name: p for name, p in self._named.items() if isinstance(p, torch.nn.Parameter)}
        shares = {name: p for name, p in self._named.items() if name not in whole}
        own = {name: p.data for name, p in whole.items()} | {name: p.clone() for name, p in shares.items()}
        try:
            for name, p in whole.items():
                p.data = state[name].to(p.device, p.dtype)
            for name, p in shares.items():
                p.copy_(state[name])
            yield
        finally:
            for name, p in whole.items():
                p.data = own[name]
            for name, p in shares.items():
                p.copy_(own[name])

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """Gradients of a loss, zero where it does not reach; of the losses of all processes where they share
        layers.
        """
        if self.sharding:
            return self.sharding.gradients(loss)
        return list(torch.autograd.grad(loss, self.parameters(), materialize_grads=True))

    def anywhere(self, here: bool) -> bool:
        """Whether something holds in a process that shares the layers, or here."""
        return self.sharding.most(int(here)) > 0 if self.sharding else here

    def agreed(self, values: Tensor) -> Tensor:
        """What all processes that share the layers go on with: the first one's values."""
        return self.network.agreed(values)

    @contextlib.contextmanager
    def member(self, run: int) -> Iterator[CausalLM]:
        """The model of one run: this one."""
        yield self

    @staticmethod
    def state_of(state: State, run: int) -> State:
        """The weights of one run in a snapshot."""
        return state

    def describe(self) -> dict[str, Any]:
        """Facts for the record."""
        config = self.model.config
        return {
            "name": self.spec.name,
            "revision": getattr(config, "_commit_hash", None),
            "architecture": type(self.model).__name__,
            "parameters": self._size,
            "trained": self._trained,
            **({"held": sum(p.numel() for p in self._named.values())} if self.sharding else {}),
            **(
                {"lora_rank": self.spec.lora_rank, "lora_alpha": self.spec.lora_alpha}
                if self.spec.lora_rank
                else {}
            ),
            "vocabulary": self.network.vocabulary,
            "context": self.context,
            "dtype": self.dtype,
            "tokenizer": self.tokenizer.name,
            "bos": bool(self.tokenizer.lead),
            **self.notes,
        }


def _scores(
    flat: Tensor, kl: Tensor | None, offsets: Sequence[int], rows: Sequence[Row], picks: Sequence[int]
) -> Scores:
    """Arrange flat log-probabilities, and the KL where there is one, as `(1, N, T)`."""
    length = torch.tensor(
        [rows[i].length if i >= 0 else 0 for i in picks], dtype=torch.long, device=flat.device
    )
    offset = torch.tensor([offsets[i] if i >= 0 else 0 for i in picks], dtype=torch.long, device=flat.device)
    t = torch.arange(max((rows[i].length for i in picks if i >= 0), default=1), device=flat.device)
    mask = t < length[:, None]
    at = (offset[:, None] + t).masked_fill(~mask, 0)

    def arranged(values: Tensor) -> Tensor:
        return values.index_select(0, at.reshape(-1)).view(at.shape).masked_fill(~mask, 0.0)[None]

    return Scores(arranged(flat), mask[None], None if kl is None else arranged(kl))


# --------------------------------------------------------------------------- loading


def network_of(model: Any, device: torch.device, dtype: str, name: str, sharding: Sharding | None) -> Network:
    """The model as a function of ids.

    Raises:
        UsageError: it cannot be run on ids alone.
    """
    try:
        selected = head_is_selectable(model, device)
    except Exception as error:  # whatever a model raises that wants more than ids
        raise unsupported(name, model, error) from error
    return Network(model, device, dtype, selected=selected, sharding=sharding)


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` is the accelerator if there is one.

    Raises:
        UsageError: it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError):
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise UsageError(f"device {name!r} is not there (available: {', '.join(there)})") from None
    return device


def context_length(config: Any, tokenizer: Tokenizer) -> int:
    """The longest row of a model in tokens: from its configuration, else its tokenizer, else 2,048."""
    text = text_config(config)
    for field in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx"):
        value = getattr(text, field, None)
        if isinstance(value, int) and value > 0:
            return value
    value = getattr(getattr(tokenizer, "inner", None), "model_max_length", None)
    return int(value) if value is not None and value < 10**6 else 2048
