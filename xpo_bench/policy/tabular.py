"""The tabular policy: a softmax table over prompts x completions, vectorised over runs.

One run is `runs = 1` of the same code path. Everything about it is exact: the distribution, both
KL divergences, and the expected reward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xpo_bench.contract.examples import Completion, Example, World
from xpo_bench.contract.scoring import Scores
from xpo_bench.errors import DataError
from xpo_bench.policy.kl import forward_kl
from xpo_bench.policy.language.fit import Fitted
from xpo_bench.policy.prefixes import Prefixes

ALL = slice(None)


class TableLayout:
    """Where every completion of a world stands in the table.

    Attributes:
        prompts: the P prompts. actions: per prompt its completions. width: A, the most actions of a prompt.
        mask: (P, A) true where an action exists. log_reference: (P, A) log π_ref in nats, −inf elsewhere.
        reward: (P, A) true reward (0 on absent actions), or None when the world knows none.
        lengths: (P, A) tokens of every completion, or None where each has one.
        prefixes: the trees of tokens, or None where the world does not say that completions are such.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.prompts = list(world.actions)
        self.actions = [list(world.actions[prompt]) for prompt in self.prompts]
        self.width = max(len(actions) for actions in self.actions)
        self.position = {
            (prompt, text): row * self.width + column
            for row, prompt in enumerate(self.prompts)
            for column, text in enumerate(self.actions[row])
        }
        shape = (len(self.prompts), self.width)
        self.mask = np.zeros(shape, bool)
        self.log_reference = np.full(shape, -np.inf)
        self.reward: npt.NDArray[np.float64] | None = np.zeros(shape) if world.reward else None
        self.lengths: npt.NDArray[np.int64] | None = np.ones(shape, np.int64) if world.lengths else None
        for row, (prompt, actions) in enumerate(zip(self.prompts, self.actions, strict=True)):
            n = len(actions)
            self.mask[row, :n] = True
            known = world.reference.get(prompt)
            if known:  # a world file's probabilities sum to 1 within 1e-6
                probabilities = np.array([known[a] for a in actions])
                self.log_reference[row, :n] = np.log(probabilities / math.fsum(probabilities))
            else:
                self.log_reference[row, :n] = -np.log(n)
            if self.reward is not None:
                self.reward[row, :n] = [world.reward.get(prompt, {}).get(a, 0.0) for a in actions]
            if self.lengths is not None:
                self.lengths[row, :n] = [world.lengths.get(prompt, {}).get(a, 1) for a in actions]
        self.prefixes = Prefixes(self.prompts, self.actions, self.width) if world.tokens else None
        if self.prefixes is not None:
            self.lengths = self.prefixes.lengths

    def encode(self, completions: Sequence[Completion]) -> npt.NDArray[np.int64]:
        """Flat table positions of completions, shape (E,); DataError for one that the world lacks."""
        numbers = list(map(id, completions))  # few objects, many times each
        distinct = dict(zip(numbers, completions, strict=True))
        try:
            place = {number: self.position[c.prompt, c.text] for number, c in distinct.items()}
            return np.fromiter(map(place.__getitem__, numbers), dtype=np.int64, count=len(numbers))
        except KeyError as error:
            prompt, text = error.args[0]
            raise DataError(
                f"completion {text!r} of prompt {prompt!r} is not an action of this world"
            ) from None


class TabularPolicy:
    """`runs` softmax tables that start at the reference distribution.

    The logits of a table start at log π_ref, so log-softmax returns them, and the policy is π_ref exactly.
    Where completions are tokens (`World.tokens`) there is a logit for every token after its prefix instead.
    """

    enumerable = True
    stacked = True
    generalises = False
    """Whether training rows change the policy at prompts that occur in none of them."""
    name = "tabular"
    abilities = frozenset({"enumerable", "generate", "reward", "tangent"})

    def __init__(self, world: World, runs: int, dtype: str = "float64", device: str = "cpu") -> None:
        self.layout = TableLayout(world)
        self.runs = runs
        self.notes: dict[str, object] = {}
        self.tokens_processed = 0
        if (
            dtype == "bfloat16"
        ):  # log-probabilities are at least float32, and there is no body to compute in less
            dtype = "float32"
        self.value_dtype = getattr(torch, dtype)
        self.device = torch.device(device)
        self.log_reference = torch.tensor(
            self.layout.log_reference, dtype=self.value_dtype, device=self.device
        )
        lengths = self.layout.lengths
        self._lengths = None if lengths is None else torch.from_numpy(lengths).to(self.device).flatten()
        trees = self.layout.prefixes
        self._prefixes = None if trees is None else trees.to(self.device)
        self._flat: Tensor | None = None  # log π of all actions at `begin`, shape (runs, P·A)
        self._index = (torch.empty(0), torch.empty(0))
        self.parameter = self._start()

    def _start(self) -> Tensor:
        """The trained tensor at the reference distribution, shape (runs, ...)."""
        if self._prefixes is not None:
            return self._conditionals(self.log_reference[None]).repeat(self.runs, 1).requires_grad_(True)
        return self.log_reference.expand(self.runs, -1, -1).clone().requires_grad_(True)

    def _logits(self, parameter: Tensor | None = None) -> Tensor:
        """Logits of all actions, shape (runs, P, A), −inf on absent ones; of another parameter where one is
        given.
        """
        values = self.parameter if parameter is None else parameter
        if self._prefixes is None:
            return values
        # a logit for every token after its prefix: a token's gradient moves what stands at its own place
        flat = self._prefixes.leaves(self._prefixes.normalised(values))
        return flat.reshape(len(flat), *self.log_reference.shape)

    def _conditionals(self, log_probs: Tensor) -> Tensor:
        """log π of every token after its prefix, shape (runs, M), from tables (runs, P, A)."""
        assert self._prefixes is not None
        return self._prefixes.conditionals(self._prefixes.masses(log_probs.flatten(1)))

    # ---------------------------------------------------------------- completions

    def fit(self, examples: Sequence[Example], truncate: str = "prompt") -> Fitted:
        """The rows as they are: the actions of a tabular policy are never truncated."""
        return Fitted(tuple(examples))

    def encode(self, completions: Sequence[Completion], truncate: str = "prompt") -> Tensor:
        """Flat table positions, shape (E,)."""
        return torch.from_numpy(self.layout.encode(completions)).to(self.device)

    def stack(self, encoded: Sequence[Tensor]) -> Tensor:
        """Shape (runs, E); shorter runs are padded with position 0, which the batch weights leave out."""
        longest = max(len(e) for e in encoded)
        return torch.stack([torch.nn.functional.pad(e, (0, longest - len(e))) for e in encoded])

    def lengths(self, stacked: Tensor) -> Tensor:
        """Tokens of every completion, shape (runs, E): one, where the world does not say otherwise."""
        return torch.ones_like(stacked) if self._lengths is None else self._lengths[stacked]

    def begin(self) -> None:
        """Compute log π for all tables once, with a graph."""
        self._flat = torch.log_softmax(self._logits(), -1).flatten(1)

    def score(
        self,
        requests: Mapping[str, tuple[Tensor, Tensor | None]],
        *,
        grad: bool,
        runs: slice = ALL,
        against: Tensor | None = None,
    ) -> dict[str, Scores]:
        """Gather from the log-probabilities of `begin`; shapes (runs, N, T), T the longest completion.

        With `against`, a snapshot, the KL of the whole distribution of each completion's prompt is its one
        token's, or spread evenly over its tokens as its log-probability is.
        """
        assert self._flat is not None, "begin() comes before score()"
        flat = self._flat[runs] if runs != ALL else self._flat
        if not grad:
            flat = flat.detach()
        if self._prefixes is not None:
            return self._token_scores(requests, flat, None if against is None else against[runs])
        kl = None if against is None else self._kl_from(against[runs], flat)
        out = {}
        for group, (stacked, index) in requests.items():
            at = stacked if index is None else stacked.gather(1, self._present(index))
            out[group] = self._scores(
                flat.gather(1, at), at, None if kl is None else kl.gather(1, at // self.layout.width)
            )
        return out

    def _token_scores(
        self, requests: Mapping[str, tuple[Tensor, Tensor | None]], flat: Tensor, against: Tensor | None
    ) -> dict[str, Scores]:
        """Scores of requests where every token has the probability that its prefix leaves it."""
        assert self._prefixes is not None
        trees, here = self._prefixes, self._prefixes.masses(flat)
        conditional = trees.conditionals(here)
        kl = None
        if against is not None:
            with torch.no_grad():
                there = trees.masses(torch.log_softmax(self._logits(against), -1).flatten(1))
            kl = trees.kl(there, here)
        picked = {
            group: stacked if index is None else stacked.gather(1, self._present(index))
            for group, (stacked, index) in requests.items()
        }
        return {group: trees.scores(conditional, at, kl) for group, at in picked.items()}

    def _present(self, index: Tensor) -> Tensor:
        """An index whose absent rows show the first one; the groups of a step ask with one index."""
        if self._index[0] is not index:
            self._index = index, index.clamp(min=0)
        return self._index[1]

    def _scores(self, logps: Tensor, at: Tensor, kl: Tensor | None = None) -> Scores:
        """Scores of the completions at flat positions, from their log-probabilities, shape (runs, N)."""
        return one_token(logps, kl) if self._lengths is None else spread(logps, self._lengths, at, kl)

    def _kl_from(self, parameter: Tensor, flat: Tensor) -> Tensor:
        """KL(π' ‖ π) of every prompt, π' the tables of another parameter and π those of `flat`, nats, shape
        (runs, P).
        """
        with torch.no_grad():
            there = torch.log_softmax(self._logits(parameter), -1)
        return forward_kl(there, flat.reshape(there.shape))

    def score_all(self, stacked: Tensor, rows: Tensor | None = None, *, runs: slice = ALL) -> Scores:
        """All stacked completions at the current tables; shape (runs, E, T)."""
        flat = self.log_probs()[runs].flatten(1)
        if self._prefixes is not None:
            return self._prefixes.scores(self._conditionals(flat), stacked)
        return self._scores(flat.gather(1, stacked), stacked)

    def score_sets(self, sets: Sequence[Tensor]) -> list[Scores]:
        """All completions of several sets at the current tables; shapes (runs, E, T)."""
        return [self.score_all(stacked) for stacked in sets]

    # ---------------------------------------------------------------- exact quantities

    @torch.no_grad()
    def log_probs(self) -> Tensor:
        """log π, shape (runs, P, A), −inf on absent actions."""
        return torch.log_softmax(self._logits(), -1)

    @torch.no_grad()
    def exact_kl(
        self, stacked: Tensor, index: Tensor | None, runs: slice = ALL, reference: Tensor | None = None
    ) -> Tensor:
        """KL(π(.|x) ‖ π_ref(.|x)) of the prompt of each picked completion, nats, shape (runs, N).

        Args:
            reference: log π_ref of these runs, shape (runs, P, A), as `log_probs` returned it; the initial
                policy by default.
        """
        assert self._flat is not None
        logp = self._flat[runs].detach().reshape(-1, *self.log_reference.shape)
        # Σ p·(log p − log p_ref); an absent action has log p = −∞ and adds nothing
        against = self.log_reference if reference is None else reference
        kl = torch.where(torch.isfinite(logp), logp.exp() * (logp - against), 0.0).sum(-1)
        positions = stacked if index is None else stacked.gather(1, self._present(index))
        return kl.gather(1, positions // self.layout.width)

    def final_policy(self, run: int) -> dict[str, dict[str, float]] | None:
        """{prompt: {completion: probability}} of one run, or None beyond 4,096 entries."""
        if len(self.layout.position) > 4096:
            return None
        probabilities = self.log_probs()[run].exp().tolist()
        return {
            prompt: dict(zip(actions, row, strict=False))
            for prompt, actions, row in zip(
                self.layout.prompts, self.layout.actions, probabilities, strict=True
            )
        }

    def generate(
        self,
        run: int,
        prompts: Sequence[str],
        samples: int,
        rng: np.random.Generator,
        temperature: float = 1.0,
        top_k: int = 0,
        max_new_tokens: int = 1,
    ) -> list[list[Completion]]:
        """Independent draws from one run's tables at a temperature, optionally from the `top_k` likeliest.

        A completion of a tabular policy is drawn whole, so `max_new_tokens` changes nothing.
        """
        # of this run alone: the others of its batch may be a hundred, and prompts come a few at a time
        with torch.no_grad():
            own = torch.log_softmax(self._logits(self.parameter[run : run + 1]), -1)[0]
        table = own.cpu().numpy() / temperature
        out = []
        for prompt in prompts:
            row = self._row(prompt)
            actions = self.layout.actions[row]
            logits = table[row, : len(actions)].copy()
            if 0 < top_k < len(actions):
                logits[np.argsort(-logits, kind="stable")[top_k:]] = -np.inf
            p = np.exp(logits - logits.max())
            # inversion of the cumulative distribution at uniform numbers
            picks = np.searchsorted(np.cumsum(p / p.sum())[:-1], rng.random(samples), side="right")
            out.append([Completion(prompt, actions[i]) for i in picks])
        return out

    def actions(self, prompt: str) -> list[Completion]:
        """All completions of a prompt."""
        return [Completion(prompt, text) for text in self.layout.actions[self._row(prompt)]]

    def tilt(self, run: int, tilt: Mapping[Completion, float]) -> None:
        """Set one run to π ∝ π_ref·exp(tilt); completions that are not named keep tilt 0."""
        table = self.log_reference.clone().flatten()
        for completion, value in tilt.items():
            table[self.layout.position[completion.prompt, completion.text]] += value
        with torch.no_grad():
            tilted = torch.log_softmax(table.reshape(self.log_reference.shape), -1)
            self.parameter[run] = tilted if self._prefixes is None else self._conditionals(tilted[None])[0]

    def tangent(
        self, run: int, values: Mapping[str, Sequence[float]], counts: Mapping[str, int]
    ) -> dict[str, Sequence[float]]:
        """The function itself: a table has a parameter for each of its values."""
        return dict(values)

    def _row(self, prompt: str) -> int:
        return self.layout.position[prompt, self.layout.world.actions[prompt][0]] // self.layout.width

    # ---------------------------------------------------------------- parameters

    def parameters(self) -> list[Tensor]:
        return [self.parameter]

    @torch.no_grad()
    def snapshot(self) -> Tensor:
        return self.parameter.detach().clone()

    @torch.no_grad()
    def restore(self, state: Tensor) -> None:
        self.parameter.copy_(state)

    def describe(self) -> dict[str, object]:
        return {
            "name": self.name,
            "prompts": len(self.layout.prompts),
            "actions": len(self.layout.position),
            "dtype": str(self.value_dtype).removeprefix("torch."),
        }


def spread(logps: Tensor, lengths: Tensor, at: Tensor, kl: Tensor | None = None) -> Scores:
    """Scores of completions of several tokens, log π(y) / n on each of n, shape (runs, N, T).

    Args:
        logps, kl: of whole completions, shape (runs, N). lengths: of all completions of the table.
        at: where they stand in it, shape (runs, N).
    """
    width, n = int(lengths.max()), lengths[at]
    mask = torch.arange(width, device=logps.device) < n.unsqueeze(-1)
    shape = (*logps.shape, width)
    token_kl = None if kl is None else (kl / n).unsqueeze(-1).expand(shape)
    return Scores((logps / n).unsqueeze(-1).expand(shape), mask, token_kl)


def one_token(logps: Tensor, kl: Tensor | None = None) -> Scores:
    """Scores of one-token completions, and their `token_kl`; the derived quantities are known without
    arithmetic.
    """
    ones = torch.ones((), dtype=logps.dtype, device=logps.device).expand(logps.shape)
    scores = Scores(logps.unsqueeze(-1), ones.bool().unsqueeze(-1), None if kl is None else kl.unsqueeze(-1))
    scores.__dict__.update(sum=logps, mean=logps, length=ones)
    return scores
