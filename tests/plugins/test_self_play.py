"""Nash-MD, IPO-MD and SPPO on a cyclic preference: estimators, fixed points, and where they end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from narrow import present
from small_worlds import TableTools, log, minimise, one_token, pair_step

import xpo_bench
from xpo_bench import Budget, Completion, Dataset, ModelSpec, Pair, Step, Task, World
from xpo_bench.errors import CapacityError
from xpo_bench.train.truth import true_preference, true_reward
from xpo_bench_plugins.algorithms.ipo_md import IPOMD
from xpo_bench_plugins.algorithms.nash_md import NashMD
from xpo_bench_plugins.algorithms.sppo import SPPO
from xpo_bench_plugins.sampled import mean_of_others, mixture_weights, win_rates

TEXTS = "abc"
WINS = np.array([[0.5, 0.9, 0.3], [0.1, 0.5, 0.8], [0.7, 0.2, 0.5]])
"""P(row ≻ column): a beats b in .9, b beats c in .8, c beats a in .7 of all comparisons."""
NASH = np.array([0.3333, 0.2222, 0.4444])
"""Proportional to the surplus of each pair that leaves the action out: .3, .2, .4."""
THIRDS = (1 / 3, 1 / 3, 1 / 3)


class Cyclic(TableTools):
    """Tools on three actions that know the preference; with `exact` samples occur as often as expected."""

    def __init__(self, reference: Sequence[float] = THIRDS, seed: int = 0, exact: bool = False) -> None:
        super().__init__(reference, seed)
        self.exact = exact

    def generate(
        self, prompts: Sequence[str], samples: int, temperature: float = 1.0, top_k: int = 0
    ) -> list[list[Completion]]:
        if not self.exact:
            return super().generate(prompts, samples, temperature, top_k)
        ends = np.round(np.cumsum(np.exp(self.current)) * samples).astype(int)
        counts = np.diff(ends, prepend=0)
        return [[Completion(x, self.texts[i]) for i in np.repeat(range(3), counts)] for x in prompts]

    def true_preference(self) -> Any:
        def log_odds(first: Sequence[Completion], second: Sequence[Completion]) -> list[float]:
            p = [WINS[TEXTS.index(a.text), TEXTS.index(b.text)] for a, b in zip(first, second, strict=True)]
            return [float(np.log(v / (1 - v))) for v in p]

        return log_odds


def equilibrium(tau: float, mixture: float, wins: np.ndarray = WINS) -> np.ndarray:
    """π ∝ exp(P(y ≻ π′)/τ) over a uniform reference, π′ ∝ π^(1−m), by damped iteration."""
    logp = np.zeros(len(wins))
    for _ in range(20_000):
        opponent = np.exp((1 - mixture) * logp)
        logp = logp + 0.01 * tau / 0.1 * (wins @ (opponent / opponent.sum()) / tau - logp)
        logp -= np.log(np.exp(logp).sum())
    return np.exp(logp)


def test_the_equilibrium_of_the_game_without_regularisation() -> None:
    assert pytest.approx(WINS @ NASH, abs=1e-4) == [0.5] * 3  # no action wins against it
    assert equilibrium(0.003, 0) == pytest.approx(NASH, abs=0.01)


# --------------------------------------------------------------------------- estimators


def test_win_rates_of_samples() -> None:
    tools = Cyclic()
    group = [Completion("x", text) for text in "abca"]
    found = win_rates([group, group[:3] + group[:1]], tools.true_preference())
    assert found.shape == (2, 4, 4)
    index = [0, 1, 2, 0]
    assert found[1] == pytest.approx(WINS[np.ix_(index, index)])


def test_weights_turn_samples_of_the_policy_into_samples_of_the_mixture() -> None:
    policy, reference = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    drawn = np.repeat(range(3), [50, 30, 20])  # exactly the policy
    for mixture in (0.0, 0.4, 1.0):
        weight = mixture_weights(np.log(policy / reference)[drawn][None], mixture)[0]
        expected = policy ** (1 - mixture) * reference**mixture
        found = [weight[drawn == i].sum() for i in range(3)]
        assert np.array(found) / 100 == pytest.approx(expected / expected.sum())


def test_the_mean_of_others_leaves_out_the_sample_itself() -> None:
    assert mean_of_others(np.array([[1.0, 2.0, 6.0]])).tolist() == [[4.0, 3.5, 1.5]]


# --------------------------------------------------------------------------- fixed points


def gradient(algorithm: Any, policy: np.ndarray, prompts: int) -> np.ndarray:
    """Mean gradient of the loss in the logits, over fresh samples of many prompts, and its error."""
    tools = Cyclic(seed=1)
    tools.current = np.log(policy)
    rows: Any = algorithm.shape_data([Pair(f"x{i}", "a", "b") for i in range(prompts)], tools)
    logits = torch.tensor(tools.current, requires_grad=True)
    logp, reference = logits.log_softmax(-1), log(THIRDS)
    if isinstance(algorithm, IPOMD):
        sides = [[TEXTS.index(getattr(r, s)) for r in rows] for s in ("chosen", "rejected")]
        step = pair_step(algorithm, logp, reference, *sides)
    else:
        step = Step({"completion": one_token(logp[[TEXTS.index(r.completion) for r in rows]])})
    columns = {k: torch.tensor(v, dtype=torch.float64) for k, v in algorithm.columns(rows).items()}
    values = algorithm.loss(Step(step.policy, step.reference, columns))
    blocks = values.reshape(20, -1).mean(-1)
    found = [torch.autograd.grad(block, logits, retain_graph=True)[0].numpy() for block in blocks]
    return np.stack([np.mean(found, 0), np.std(found, 0, ddof=1) / np.sqrt(len(found))])


@pytest.mark.parametrize("mixture", [0.0, 0.25])
@pytest.mark.parametrize("kind", [NashMD, IPOMD])
def test_the_gradient_vanishes_at_the_regularised_equilibrium_and_not_elsewhere(
    kind: Any, mixture: float
) -> None:
    algorithm = kind(tau=0.1, mixture=mixture, preference="true", samples=8)
    best = equilibrium(0.1, mixture)
    mean, error = gradient(algorithm, best, 4000)
    elsewhere, _ = gradient(algorithm, np.array([0.34, 0.33, 0.33]), 4000)
    assert np.abs(mean).max() < 4 * error.max()
    assert np.abs(mean).max() < 0.1 * np.abs(elsewhere).max()


# --------------------------------------------------------------------------- runs


@dataclass(frozen=True)
class Cycle(Task):
    """Ten comparisons of every pair, as often won as the preference says: a fit without decay is exact."""

    name: ClassVar[str] = "asymmetric"
    budget: ClassVar[Budget] = Budget(steps=1, batch_size=30)
    wins: tuple[int, int, int] = (9, 8, 7)

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        rows: list[Pair] = []
        for (a, b), won in zip((("a", "b"), ("b", "c"), ("c", "a")), self.wins, strict=True):
            rows += [Pair("x", a, b)] * won + [Pair("x", b, a)] * (10 - won)
        return Dataset(train=tuple(rows), rows=len(rows), world=World(actions={"x": tuple(TEXTS)}))


def ends(folder: Path, task: Task, **words: Any) -> dict[str, np.ndarray]:
    """The last policy of every algorithm."""
    result = xpo_bench.run(tasks=[task], seeds=1, out=folder / "run", **words)
    assert result.ok, [cell["error"] for cell in result.cells]
    return {
        c["algorithm"]["name"]: np.array(list(present(c["final_policy"])["x"].values())) for c in result.cells
    }


def test_self_play_ends_near_the_equilibrium_where_dpo_ends_at_the_borda_winner(tmp_path: Path) -> None:
    words: dict[str, Any] = {"dpo.beta": 0.1}
    for name in ("nash_md", "ipo_md"):
        words |= {f"{name}.tau": 0.05, f"{name}.mixture": 0.0, f"{name}.samples": 24}
        words[f"{name}.reward_weight_decay"] = 0.0
    found = ends(tmp_path, Cycle(), algos="nash_md,ipo_md,dpo", steps=600, lr=0.005, set=words)
    for name in ("nash_md", "ipo_md"):
        assert found[name] == pytest.approx(equilibrium(0.05, 0), abs=0.06), name
        assert found[name] == pytest.approx(NASH, abs=0.1), name
    assert found["dpo"][0] > 0.95


def test_of_two_actions_the_end_is_ipo_s_whatever_the_mixture(tmp_path: Path) -> None:
    """P(a ≻ π′) − P(b ≻ π′) = p − ½ for every opponent, so π(a) = σ((2p−1)/(2τ)): Bradley–Terry or not."""

    @dataclass(frozen=True)
    class Two(Cycle):
        name: ClassVar[str] = "two"

        def data(self, seed: int, model: ModelSpec) -> Dataset:
            rows = (Pair("x", "a", "b"),) * 8 + (Pair("x", "b", "a"),) * 2
            return Dataset(train=rows, rows=10, world=World(actions={"x": ("a", "b")}))

    words: dict[str, Any] = {"ipo.tau": 0.3}
    for name, mixture in (("nash_md", 0.5), ("ipo_md", 0.125)):
        words |= {f"{name}.tau": 0.3, f"{name}.mixture": mixture, f"{name}.samples": 24}
        words[f"{name}.reward_weight_decay"] = 0.0
    found = ends(tmp_path, Two(), algos="nash_md,ipo_md,ipo", steps=400, lr=0.01, set=words)
    expected = 1 / (1 + np.exp(-0.6 / 0.6))
    assert {name: p[0] for name, p in found.items()} == pytest.approx(
        dict.fromkeys(("nash_md", "ipo_md", "ipo"), expected), abs=0.03
    )


# --------------------------------------------------------------------------- SPPO


def iterates(algorithm: SPPO, count: int) -> np.ndarray:
    """Policies of SPPO, each the exact minimum of the loss on samples that occur as often as expected."""
    tools = Cyclic(exact=True)
    path = [tools.current]
    for _ in range(count):
        rows: Any = algorithm.shape_data([Pair("x", "a", "b")], tools)
        index = [TEXTS.index(r.completion) for r in rows]
        columns = {"win": torch.tensor(algorithm.columns(rows)["win"], dtype=torch.float64)}
        last = torch.tensor(tools.current)
        scores = {"completion": one_token(last[index])}

        def loss(logp: torch.Tensor) -> torch.Tensor:
            return algorithm.loss(Step({"completion": one_token(logp[index])}, scores, columns)).mean()  # noqa: B023

        tools.current = minimise(loss, last).numpy()
        path.append(tools.current)
    return np.exp(path)


def test_an_iteration_of_sppo_multiplies_by_the_exponential_of_the_win_rate() -> None:
    eta = 0.2
    first = iterates(SPPO(eta=eta, preference="true", samples=300), 1)[1]
    expected = np.exp(eta * WINS @ np.array(THIRDS))
    assert first == pytest.approx(expected / expected.sum(), abs=eta**2 / 20)


def test_the_average_of_sppo_nears_the_equilibrium_and_its_last_iterate_does_not() -> None:
    path = iterates(SPPO(eta=1.0, preference="true", samples=600), 100)
    distance = np.abs(path - NASH).max(-1)
    assert np.abs(path.mean(0) - NASH).max() < 0.05
    assert distance[-20:].max() > 0.2
    assert distance[-20:].max() > distance[:20].max()  # it moves outwards


# --------------------------------------------------------------------------- what a task states


def test_a_stated_preference_is_read_in_either_order() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Stating(World):
        preference: dict[str, dict[tuple[str, str], float]] = field(default_factory=dict)

    stated = {"x": {("a", "b"): 0.9, ("c", "b"): 0.2}}
    world = Stating(actions={"x": tuple(TEXTS)}, preference=stated)
    ask = true_preference(Dataset(train=(), world=world))
    a, b, c = (Completion("x", text) for text in TEXTS)
    odds = ask([a, b, b, a], [b, a, c, a])
    assert 1 / (1 + np.exp(-np.array(odds))) == pytest.approx([0.9, 0.1, 0.8, 0.5])
    with pytest.raises(CapacityError, match="no true preference of 'a' and 'c'"):
        ask([a], [c])


def test_a_reward_states_the_preference_of_bradley_and_terry() -> None:
    a, b, c = (Completion("x", text) for text in TEXTS)
    world = World(actions={"x": tuple(TEXTS)}, reward={"x": {"a": 1.0, "b": -0.5}})
    dataset = Dataset(train=(), world=world)
    assert true_preference(dataset)([a, b], [b, a]) == [1.5, -1.5]
    assert true_reward(Dataset(train=(), gold=lambda c: float(len(c.text))))([a]) == [1.0]
    with pytest.raises(CapacityError, match="no true reward of 'c'"):
        true_reward(dataset)([c])
    for ask in (true_reward, true_preference):
        with pytest.raises(CapacityError, match="states no true"):
            ask(Dataset(train=()))
