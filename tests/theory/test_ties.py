"""Ties: Davidson's and Rao and Kupper's models against independent fits, and what leaving ties out costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from r_programs import rscript
from scipy.optimize import minimize
from scipy.special import log_expit, logsumexp
from small_worlds import one_token

from xpo_bench import Algorithm, Budget, Dataset, Pair, Step
from xpo_bench.data.world_file import world_of
from xpo_bench.policy.tabular import TabularPolicy
from xpo_bench.testing.kit import checks_for
from xpo_bench.testing.verdicts import NotApplicable
from xpo_bench.train.job import Job, Outcome
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.dpo_davidson import DavidsonDPO
from xpo_bench_plugins.algorithms.dpo_rao_kupper import RaoKupperDPO

Outcomes = Mapping[tuple[int, int], tuple[float, float, float]]
"""(i, j) -> how often i wins, j wins, and neither does."""
Model = Callable[[np.ndarray, float], np.ndarray]
"""Margins (n,) and the logarithm of the tie parameter -> log-probabilities (n, 3), in that order."""


def davidson(x: np.ndarray, log_nu: float) -> np.ndarray:
    logits = np.stack([x / 2, -x / 2, np.full_like(x, log_nu)], -1)
    return np.asarray(logits - logsumexp(logits, axis=-1, keepdims=True))


def rao_kupper(x: np.ndarray, log_excess: float) -> np.ndarray:
    theta = 1 + math.exp(log_excess)
    won, lost = log_expit(x - math.log(theta)), log_expit(-x - math.log(theta))
    return np.stack([won, lost, won + lost + math.log(theta**2 - 1)], -1)


def drawn(model: Model, ability: np.ndarray, parameter: float, games: int, seed: int) -> Outcomes:
    rng = np.random.default_rng(seed)
    pairs = list(itertools.combinations(range(len(ability)), 2))
    margins = np.array([ability[i] - ability[j] for i, j in pairs])
    counts = [rng.multinomial(games, p / p.sum()) for p in np.exp(model(margins, parameter))]
    return {pair: (float(c[0]), float(c[1]), float(c[2])) for pair, c in zip(pairs, counts, strict=True)}


def expected(model: Model, ability: np.ndarray, parameter: float) -> Outcomes:
    """The population: as many games as there are, in proportion."""
    pairs = list(itertools.combinations(range(len(ability)), 2))
    p = np.exp(model(np.array([ability[i] - ability[j] for i, j in pairs]), parameter))
    return {pair: (float(v[0]), float(v[1]), float(v[2])) for pair, v in zip(pairs, p, strict=True)}


def fitted(model: Model, games: Outcomes, parameter: float | None = None) -> tuple[np.ndarray, float]:
    """(abilities that sum to 0, tie parameter) of maximum likelihood, by scipy; or at a given parameter."""
    pairs, counts = list(games), np.array(list(games.values()))
    n = 1 + max(max(pair) for pair in pairs)

    def loss(free: np.ndarray) -> float:
        theta = np.append(free[: n - 1], 0.0)
        at = free[n - 1] if parameter is None else parameter
        margins = np.array([theta[i] - theta[j] for i, j in pairs])
        return -float((counts * model(margins, float(at))).sum() / counts.sum())

    start = np.zeros(n if parameter is None else n - 1)
    found = minimize(loss, start, method="BFGS", options={"gtol": 1e-8}).x
    theta = np.append(found[: n - 1], 0.0)
    return theta - theta.mean(), float(found[n - 1]) if parameter is None else parameter


def votes(games: Outcomes) -> list[Pair]:
    """A row per comparison, with its votes; there are as many on each."""
    rows = []
    for (i, j), (won, lost, tied) in games.items():
        total = won + lost + tied
        p, tie = (won + tied / 2) / total, tied / total
        rows.append(Pair("x", f"y{i}", f"y{j}", p_chosen=p, p_tie=tie))
    return rows


def trained(algorithm: Algorithm, rows: list[Pair], labels: str = "soft", steps: int = 300) -> np.ndarray:
    """Abilities that sum to 0, of a table under β = 1."""
    policy = outcome_of(algorithm, rows, labels, steps).final_policy
    assert policy
    logp = np.log([policy["x"][f"y{i}"] for i in range(len(policy["x"]))])
    return np.asarray(logp - logp.mean())


def outcome_of(algorithm: Algorithm, rows: list[Pair], labels: str = "soft", steps: int = 300) -> Outcome:
    """What became of a table under one algorithm."""
    dataset = Dataset(train=tuple(rows), world=world_of(rows, None))
    budget = Budget(steps=steps, labels=labels)  # type: ignore[arg-type]
    job = Job(algorithm, "ties", 0, 0.1, "adam", dataset, budget)
    assert dataset.world is not None

    def never(*_: Any) -> Any:
        raise AssertionError("a table scores its own reference")

    (outcome,) = GroupTrainer(TabularPolicy(dataset.world, 1, "float64"), [job], never).run()
    assert outcome.status == "ok"
    return outcome


ABILITY = np.array([1.2, 0.7, 0.1, -0.4, -1.6])
MODELS: dict[str, tuple[Model, type[DavidsonDPO] | type[RaoKupperDPO], float]] = {
    "davidson": (davidson, DavidsonDPO, math.log(0.8)),
    "rao-kupper": (rao_kupper, RaoKupperDPO, math.log(0.7)),
}


def fixed(cls: type[DavidsonDPO] | type[RaoKupperDPO], parameter: float) -> Algorithm:
    value = math.exp(parameter)
    return DavidsonDPO(beta=1, nu=value) if cls is DavidsonDPO else RaoKupperDPO(beta=1, theta=1 + value)


def estimating(cls: type[DavidsonDPO] | type[RaoKupperDPO]) -> Algorithm:
    return DavidsonDPO(beta=1, fit_nu=True) if cls is DavidsonDPO else RaoKupperDPO(beta=1, fit_theta=True)


# --------------------------------------------------------------------------- the models


@pytest.mark.parametrize("name", MODELS)
def test_the_policy_is_the_maximum_likelihood_fit(name: str) -> None:
    """A table under β = 1 learns the abilities of the model, with the tie parameter given or estimated."""
    model, cls, parameter = MODELS[name]
    games = drawn(model, ABILITY, parameter, games=60, seed=1)
    assert trained(fixed(cls, 0.3), votes(games)) == pytest.approx(fitted(model, games, 0.3)[0], abs=2e-5)
    assert trained(estimating(cls), votes(games)) == pytest.approx(fitted(model, games)[0], abs=2e-5)


@pytest.mark.parametrize(("name", "state"), [("davidson", "log_nu"), ("rao-kupper", "log_excess")])
def test_records_have_the_estimated_parameter(name: str, state: str) -> None:
    """Whoever asks for an estimate can read it, and it is that of maximum likelihood."""
    model, cls, parameter = MODELS[name]
    games = drawn(model, ABILITY, parameter, games=60, seed=2)
    notes = outcome_of(estimating(cls), votes(games)).notes
    assert notes["state"] == {state: pytest.approx(fitted(model, games)[1], abs=2e-5)}
    assert "state" not in outcome_of(fixed(cls, 0.3), votes(games), steps=2).notes


@pytest.mark.parametrize("name", MODELS)
def test_rows_that_are_one_vote_each_are_the_same_fit(name: str) -> None:
    """Hard labels too: a tie is one of three, and trains these algorithms alone."""
    model, cls, parameter = MODELS[name]
    games = drawn(model, ABILITY[:3], parameter, games=12, seed=3)
    rows: list[Pair] = []
    for (i, j), (won, lost, tied) in games.items():
        rows += [Pair("x", f"y{i}", f"y{j}")] * int(won) + [Pair("x", f"y{j}", f"y{i}")] * int(lost)
        rows += [Pair("x", f"y{i}", f"y{j}", p_chosen=0.5)] * int(tied)
    optimum = fitted(model, games)[0]
    for labels in ("hard", "soft", "sampled"):
        assert trained(estimating(cls), rows, labels) == pytest.approx(optimum, abs=2e-5)


def step(margins: torch.Tensor, ties: torch.Tensor | None = None) -> Step:
    zero = one_token(torch.zeros_like(margins))
    return Step(
        {"chosen": one_token(margins), "rejected": zero}, {"chosen": zero, "rejected": zero}, ties=ties
    )


MARGINS = torch.linspace(-6, 6, 25, dtype=torch.float64)


@pytest.mark.parametrize(
    "algorithm", [DavidsonDPO(beta=0.7, nu=1e-12), RaoKupperDPO(beta=0.7, theta=1 + 1e-12)]
)
def test_without_ties_the_limit_is_dpo(algorithm: DavidsonDPO | RaoKupperDPO) -> None:
    dpo = DPO(beta=0.7)
    torch.testing.assert_close(algorithm.loss(step(MARGINS)), dpo.loss(step(MARGINS)), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        algorithm.implied_preference(step(MARGINS)),
        dpo.implied_preference(step(MARGINS)),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("name", MODELS)
def test_losses_are_the_models_log_probabilities(name: str) -> None:
    """Of three outcomes that sum to 1; what is implied counts a tie as half a win."""
    model, cls, parameter = MODELS[name]
    algorithm = fixed(cls, parameter)
    known = model(MARGINS.numpy(), parameter)
    assert np.exp(known).sum(-1) == pytest.approx(np.ones(len(MARGINS)))
    won = algorithm.loss(step(MARGINS)).numpy()
    lost = algorithm.loss(step(-MARGINS)).numpy()
    tied = algorithm.loss(step(MARGINS, torch.ones_like(MARGINS))).numpy()
    assert np.stack([won, lost, tied], -1) == pytest.approx(-known, abs=1e-12)
    implied = algorithm.implied_preference(step(MARGINS))
    assert implied is not None
    assert implied.numpy() == pytest.approx(np.exp(known[:, 0]) + np.exp(known[:, 2]) / 2, abs=1e-12)


def test_equal_sides_tie_half_of_the_time_by_default() -> None:
    """What Chen et al. choose their parameters by."""
    for algorithm in (DavidsonDPO(), RaoKupperDPO()):
        tie = algorithm.loss(step(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)))
        assert float(tie) == pytest.approx(math.log(2))


@pytest.mark.parametrize("cls", [DavidsonDPO, RaoKupperDPO])
def test_the_estimated_parameter_passes_the_conformance_kit(
    cls: type[DavidsonDPO] | type[RaoKupperDPO],
) -> None:
    """With a state, which the defaults do not have."""
    for bound in checks_for(estimating(cls)):
        try:
            bound()
        except NotApplicable:
            assert not bound.check.name.startswith("state-")


# --------------------------------------------------------------------------- leaving ties out


def scale(of: np.ndarray, against: np.ndarray) -> float:
    """The slope of one set of abilities on another."""
    return float(of @ against / (against @ against))


def without_ties(games: Outcomes) -> list[Pair]:
    """Rows of decided games alone, each as often as it was played."""
    rows = []
    for (i, j), (won, lost, _) in games.items():
        rows += [Pair("x", f"y{i}", f"y{j}")] * round(won) + [Pair("x", f"y{j}", f"y{i}")] * round(lost)
    return rows


@pytest.mark.parametrize(("spread", "ties"), [(1.0, 0.245), (1.0, 0.27), (1.5, 0.22)])
def test_half_wins_shrink_the_scale_of_davidson(spread: float, ties: float) -> None:
    """Ties as half a win for each: .68 to .74 of the scale, at 22 to 27 % ties."""
    ability = spread * np.linspace(1, -1, 6)
    log_nu = _at(davidson, ability, ties)
    soft = trained(DPO(beta=1), votes(expected(davidson, ability, log_nu)))
    assert 0.68 <= scale(soft, ability) <= 0.74


@pytest.mark.parametrize("seed", range(2))
def test_leaving_ties_out_keeps_the_scale_of_davidson_and_stretches_that_of_rao_and_kupper(seed: int) -> None:
    """Given that a game is decided, Davidson's model is that of Bradley and Terry; the other one is not."""
    ability = np.linspace(1, -1, 6)
    for name, low, high in (("davidson", 0.95, 1.05), ("rao-kupper", 1.09, 1.30)):
        model, _, _ = MODELS[name]
        games = drawn(model, ability, _at(model, ability, 0.24), games=400, seed=seed)
        left = trained(DPO(beta=1), without_ties(games), "hard")
        assert low <= scale(left, fitted(model, games)[0]) <= high


def _at(model: Model, ability: np.ndarray, ties: float) -> float:
    """The tie parameter at which that fraction of the games between all items are ties."""
    low, high = -8.0, 4.0
    for _ in range(60):
        middle = (low + high) / 2
        found = np.mean([o[2] for o in expected(model, ability, middle).values()])
        low, high = (middle, high) if found < ties else (low, middle)
    return low


# --------------------------------------------------------------------------- R

FOOTBALL = """
suppressMessages({library(psychotools); library(BradleyTerry2)})
data("football", package = "BradleyTerry2")
games <- subset(football, season == "2011-12")
teams <- sort(unique(as.character(games$home)))
k <- combn(length(teams), 2)
k <- k[, order(k[2, ], k[1, ])]  # as paircomp has its columns
y <- matrix(NA_integer_, 2, ncol(k))
for (g in seq_len(nrow(games))) {
  home <- match(games$home[g], teams); away <- match(games$away[g], teams)
  at <- which(k[1, ] == min(home, away) & k[2, ] == max(home, away))
  y[if (home < away) 1 else 2, at] <- as.integer(if (home < away) games$result[g] else -games$result[g])
}
write.csv(data.frame(i = k[1, ], j = k[2, ], first = y[1, ], second = y[2, ]), "games.csv", row.names = FALSE)
fit <- btmodel(paircomp(y, labels = teams, mscale = c(-1, 0, 1)), undecided = TRUE)
ability <- c(itempar(fit, log = TRUE, ref = length(teams)))
cat(sprintf("%d,%.10f\\n", seq_along(teams), ability), sep = "")
"""


@pytest.mark.slow
def test_r_fits_the_same_davidson_model_to_real_games(tmp_path: Path) -> None:
    """Premier League 2011/12, 380 games of 20 teams, 93 of them draws: psychotools' model with ties."""
    found = rscript(FOOTBALL, tmp_path, "psychotools")
    theirs = np.array([found[str(i + 1)] for i in range(20)])
    rows: list[Pair] = []
    for i, j, *results in np.loadtxt(tmp_path / "games.csv", delimiter=",", skiprows=1, dtype=int).tolist():
        for result in results:
            home, away = (f"y{i - 1}", f"y{j - 1}") if result >= 0 else (f"y{j - 1}", f"y{i - 1}")
            rows.append(Pair("x", home, away, p_chosen=None if result else 0.5))
    assert len(rows) == 380
    assert sum(row.p_chosen == 0.5 for row in rows) == 93
    ours = trained(DavidsonDPO(beta=1, fit_nu=True), rows, steps=1500)
    assert ours == pytest.approx(theirs - theirs.mean(), abs=1e-4)
