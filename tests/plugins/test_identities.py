"""Identities that follow from the theory of each loss, with numbers that do not come from this code."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from loss_checks import random_step
from small_worlds import (
    OPTIMA,
    REFERENCE,
    REWARD,
    TableTools,
    bradley_terry,
    deltas,
    descend,
    log,
    mean_loss,
    minimise,
    pair_step,
    population_loss,
    single_step,
    table_step,
)

from xpo_bench import Algorithm, Completion, Pair
from xpo_bench_plugins.algorithms.cdpo import CDPO
from xpo_bench_plugins.algorithms.cpo import CPO
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.dpop import DPOP
from xpo_bench_plugins.algorithms.ipo import IPO
from xpo_bench_plugins.algorithms.kto import KTO
from xpo_bench_plugins.algorithms.npo import NPO
from xpo_bench_plugins.algorithms.orpo import ORPO
from xpo_bench_plugins.algorithms.rlhf import RLHF
from xpo_bench_plugins.algorithms.robust import RobustDPO
from xpo_bench_plugins.algorithms.rso import RSO
from xpo_bench_plugins.algorithms.sdpo import SDPO
from xpo_bench_plugins.algorithms.sft import SFT
from xpo_bench_plugins.algorithms.simpo import SimPO
from xpo_bench_plugins.algorithms.slic import SLiC

HALVES = log((0.5, 0.5))


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def margin_of(path: torch.Tensor, reference: torch.Tensor = HALVES) -> torch.Tensor:
    ratio = path - reference
    return ratio[..., 0] - ratio[..., 1]


def loss_at(algorithm: Algorithm, margin: float) -> float:
    """Loss of one pair whose log-ratios are ±margin/2."""
    logp = torch.tensor([margin / 2, -margin / 2], dtype=torch.float64)
    return float(algorithm.loss(pair_step(algorithm, logp, torch.zeros(2, dtype=torch.float64), [0], [1])))


# --------------------------------------------------------------------------- at the reference


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0, 7.0])
def test_losses_at_the_reference(beta: float) -> None:
    assert loss_at(DPO(beta), 0) == pytest.approx(math.log(2))
    assert loss_at(CDPO(beta, 0.3), 0) == pytest.approx(math.log(2))
    assert loss_at(IPO(beta), 0) == pytest.approx((1 / (2 * beta)) ** 2)


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0, 7.0])
def test_npo_gradient_weight_is_one_at_the_reference(beta: float) -> None:
    logp = log(REFERENCE).requires_grad_(True)
    (gradient,) = torch.autograd.grad(
        NPO(beta).loss(single_step(logp, log(REFERENCE), [2], [False])).sum(), logp
    )
    assert gradient.tolist() == pytest.approx([0, 0, 1, 0])


@pytest.mark.parametrize(
    ("algorithm", "scale"),
    [(KTO(), 0.0125), (DPO(), 0.05), (DPOP(), 0.15), (IPO(), 10.0)],
    ids=lambda v: getattr(v, "name", None),
)
def test_gradient_scale_at_the_reference(algorithm: Algorithm, scale: float) -> None:
    logp = log(REFERENCE).requires_grad_(True)
    (gradient,) = torch.autograd.grad(mean_loss(algorithm, log(REFERENCE), [(0, 1)])(logp), logp)
    assert abs(float(gradient[1])) == pytest.approx(scale)


# --------------------------------------------------------------------------- population minimisers


@pytest.mark.parametrize(("beta", "optimum", "kl"), OPTIMA)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_population_dpo_is_the_kl_regularised_optimum_for_any_pair_weights(
    beta: float, optimum: tuple[float, ...], kl: float, seed: int
) -> None:
    weight = torch.rand(4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.05
    weight = weight + weight.T
    reference, preference = log(REFERENCE), bradley_terry(REWARD)
    logp = minimise(lambda p: population_loss(DPO(beta), p, reference, preference, weight), reference)
    assert logp.exp().tolist() == pytest.approx(optimum, abs=2e-6)
    assert float((logp.exp() * (logp - reference)).sum()) == pytest.approx(kl, abs=2e-6)
    # the algorithm's own claim about every pair is the true preference
    won, lost = [0, 1, 2], [3, 2, 0]
    claimed = DPO(beta).implied_preference(pair_step(DPO(beta), logp, reference, won, lost))
    torch.testing.assert_close(claimed, preference[won, lost], atol=1e-5, rtol=0)


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_regret_is_beta_times_the_divergence_from_the_dpo_optimum(beta: float) -> None:
    reference, reward = log(REFERENCE), torch.tensor(REWARD, dtype=torch.float64)
    best = minimise(
        lambda p: population_loss(DPO(beta), p, reference, bradley_terry(REWARD), torch.ones(4, 4)), reference
    )

    def objective(logp: torch.Tensor) -> torch.Tensor:
        return (logp.exp() * (reward - beta * (logp - reference))).sum()

    for seed in range(5):
        logp = torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).log_softmax(
            -1
        )
        regret = objective(best) - objective(logp)
        assert float(regret) == pytest.approx(float(beta * (logp.exp() * (logp - best)).sum()), abs=1e-5)


@pytest.mark.parametrize("tau", [0.1, 0.5, 1.0])
def test_population_ipo_follows_the_mean_win_rate_ties_with_itself_counted(tau: float) -> None:
    reference, preference = log(REFERENCE), bradley_terry(REWARD)
    logp = minimise(
        lambda p: population_loss(IPO(tau), p, reference, preference, torch.ones(4, 4)), reference
    )
    expected = (reference + preference.mean(1) / tau).log_softmax(-1)  # the diagonal holds p*(y ≻ y) = ½
    torch.testing.assert_close(logp, expected, atol=1e-7, rtol=0)
    if tau == 0.5:
        assert float(logp[0].exp()) == pytest.approx(0.312, abs=5e-4)  # .283 without the diagonal
    claimed = IPO(tau).implied_preference(pair_step(IPO(tau), logp, reference, [0], [3]))
    assert float(claimed) == pytest.approx(
        min(1.0, max(0.0, 0.5 + float(preference.mean(1)[0] - preference.mean(1)[3])))
    )


@pytest.mark.parametrize(("tau", "probability"), [(0.1, 0.993307), (0.5, 0.731059), (1.0, 0.622459)])
def test_ipo_on_a_certain_preference_stays_finite(tau: float, probability: float) -> None:
    logp = minimise(mean_loss(IPO(tau), HALVES, [(0, 1)]), HALVES)
    assert float(logp[0].exp()) == pytest.approx(probability, abs=1e-6)


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0, 10.0])
def test_dpo_on_a_certain_preference_has_no_finite_optimum(beta: float) -> None:
    path = descend(mean_loss(DPO(beta), HALVES, [(0, 1)]), HALVES, lr=1 / beta**2, steps=1000)
    assert bool((margin_of(path).diff() > 0).all())
    if beta <= 1:
        assert float(path[-1, 0].exp()) > 0.999
    # at every margin that a double can tell from infinity the loss still falls
    values = [loss_at(DPO(beta), m / beta) for m in (0, 1, 10, 100, 700)]
    assert values == sorted(values, reverse=True)
    assert values[-1] > 0


def test_cdpo_stops_at_the_smoothed_label() -> None:
    beta, eps = 0.3, 0.1
    stop = logit(1 - eps) / beta
    h = torch.tensor(stop, dtype=torch.float64, requires_grad=True)
    value = (
        CDPO(beta, eps)
        .loss(pair_step(CDPO(), torch.stack([h, torch.zeros_like(h)]), torch.zeros(2), [0], [1]))
        .sum()
    )
    assert float(torch.autograd.grad(value, h)[0]) == pytest.approx(0, abs=1e-12)
    assert float(value.detach()) == pytest.approx(-eps * math.log(eps) - (1 - eps) * math.log(1 - eps))


def test_robust_is_unbiased_and_unbounded_below() -> None:
    beta, eps = 0.2, 0.15
    for h in (-30.0, -1.0, 0.0, 2.0, 50.0):
        mean = (1 - eps) * loss_at(RobustDPO(beta, eps), h) + eps * loss_at(RobustDPO(beta, eps), -h)
        assert mean == pytest.approx(loss_at(DPO(beta), h))
    assert loss_at(RobustDPO(beta, eps), 1e5) < -1000


def test_robust_recovers_the_clean_preference_where_cdpo_shrinks_it() -> None:
    beta, eps, clean = 0.5, 0.2, 0.8
    observed = torch.tensor([[0.5, clean * (1 - eps) + (1 - clean) * eps], [0, 0.5]], dtype=torch.float64)
    observed[1, 0] = 1 - observed[0, 1]

    def margin(algorithm: Algorithm) -> float:
        best = minimise(lambda p: population_loss(algorithm, p, HALVES, observed, torch.ones(2, 2)), HALVES)
        return beta * float(margin_of(best))

    assert margin(RobustDPO(beta, eps)) == pytest.approx(logit(clean), abs=1e-5)
    assert margin(CDPO(beta, eps)) < margin(DPO(beta)) < logit(clean) - 0.1


def test_contradictory_labels_kto_goes_to_the_majority_dpo_and_ipo_stop() -> None:
    beta = tau = 0.5
    pairs = [(0, 1)] * 7 + [(1, 0)] * 3
    stops = {DPO(beta): sigmoid(logit(0.7) / beta), IPO(tau): sigmoid((2 * 0.7 - 1) / (2 * tau))}
    for algorithm, probability in stops.items():
        best = minimise(mean_loss(algorithm, HALVES, pairs), HALVES)
        assert float(best[0].exp()) == pytest.approx(probability, abs=1e-6)
    path = descend(mean_loss(KTO(beta), HALVES, pairs), HALVES, lr=20.0, steps=1500)
    assert float(path[-1, 0].exp()) > 0.999
    assert bool((margin_of(path).diff() > 0).all())


# --------------------------------------------------------------------------- training dynamics


@pytest.mark.parametrize("lr", [0.05, 0.2, 0.3, 0.45])
def test_ipo_margin_under_gradient_descent(lr: float) -> None:
    tau = 0.5
    margin = margin_of(descend(mean_loss(IPO(tau), HALVES, [(0, 1)]), HALVES, lr, 30))
    t = torch.arange(31, dtype=torch.float64)
    torch.testing.assert_close(margin, (1 - (1 - 4 * lr) ** t) / (2 * tau))
    rising = margin.diff() > 0
    assert bool(rising[:8].all()) if lr < 0.25 else bool((rising[:8] != rising[1:9]).all())


def test_ipo_diverges_above_a_learning_rate_of_one_half() -> None:
    margin = margin_of(descend(mean_loss(IPO(0.5), HALVES, [(0, 1)]), HALVES, 0.55, 40))
    assert float((margin[-1] - 1).abs()) > 100 * float((margin[1] - 1).abs())


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_dpo_margin_grows_as_log_t(beta: float) -> None:
    lr, steps = 0.02, 1500
    h = margin_of(descend(mean_loss(DPO(beta), HALVES, [(0, 1)]), HALVES, lr, steps))
    t = torch.arange(steps + 1, dtype=torch.float64)
    torch.testing.assert_close(beta * h + (beta * h).exp(), 1 + 2 * lr * beta**2 * t, rtol=3e-2, atol=1e-9)
    coarse = margin_of(descend(mean_loss(DPO(beta), HALVES, [(0, 1)]), HALVES, 2.0, 1600))
    # e^{βh} ≈ 2ηβ²t: doubling t adds ln 2 / β, over and over
    assert float(coarse[1600] - coarse[800]) == pytest.approx(math.log(2) / beta, rel=0.02)


def test_robust_margin_grows_by_a_constant_step_on_a_unanimous_pair() -> None:
    beta, eps, lr = 0.5, 0.1, 1.0
    margin = margin_of(descend(mean_loss(RobustDPO(beta, eps), HALVES, [(0, 1)]), HALVES, lr, 800))
    assert float(margin.diff()[-1]) == pytest.approx(2 * lr * beta * eps / (1 - 2 * eps), rel=1e-3)


def test_npo_tends_to_gradient_ascent() -> None:
    reference = log(REFERENCE)
    logp = log((0.1, 0.2, 0.3, 0.4)).requires_grad_(True)
    beta = 1e-4
    value = (NPO(beta).loss(single_step(logp, reference, [2], [False])) - 2 / beta * math.log(2)).sum()
    (gradient,) = torch.autograd.grad(value, logp)
    assert float(value.detach()) == pytest.approx(float(logp.detach()[2] - reference[2]), abs=1e-4)
    assert gradient.tolist() == pytest.approx([0, 0, 1, 0], abs=1e-4)


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_npo_forgets_logarithmically_and_gradient_ascent_linearly(beta: float) -> None:
    steps = 2000
    loss = NPO(beta)
    path = descend(lambda p: loss.loss(single_step(p, HALVES, [0], [False])).mean(), HALVES, 0.5, steps)
    fall = -path[:, 0]
    slope = float(fall[steps] - fall[steps // 4]) / math.log(4)
    assert slope == pytest.approx(1 / beta, rel=0.02)
    ascent = -descend(lambda p: p[0], HALVES, 0.5, 400)[:, 0]
    assert float(ascent[400] - ascent[300]) == pytest.approx(float(ascent[300] - ascent[200]), rel=1e-6)


# --------------------------------------------------------------------------- one loss as another


def test_ipo_per_token_at_a_common_length() -> None:
    tokens, tau = 5, 0.3
    step = random_step(IPO(), tokens=tokens)
    everywhere = torch.ones(6, tokens, dtype=torch.bool)
    step = replace(
        step,
        policy={g: replace(s, mask=everywhere) for g, s in step.policy.items()},
        reference={g: replace(s, mask=everywhere) for g, s in step.reference.items()},
    )
    torch.testing.assert_close(
        IPO(tau, "tokens").loss(step), IPO(tau / tokens, "none").loss(step) / tokens**2
    )


def test_cpo_without_nll_is_dpo_at_equal_references() -> None:
    step = random_step(DPO())
    level = torch.full((6, 5), -2.0, dtype=torch.float64)
    mask = step.policy["chosen"].mask
    same = {g: replace(step.policy[g], token_logps=level, mask=mask) for g in step.policy}
    step = replace(step, policy={g: replace(s, mask=mask) for g, s in step.policy.items()}, reference=same)
    torch.testing.assert_close(CPO(0.3, 0.0).loss(step), DPO(0.3).loss(step))


def test_dpop_without_penalty_and_rso_on_given_pairs_are_dpo() -> None:
    step = random_step(DPO())
    torch.testing.assert_close(DPOP(0.3, 0.0).loss(step), DPO(0.3).loss(step))
    torch.testing.assert_close(RSO(gamma=0.3).loss(step), DPO(0.3).loss(step))


def test_rso_hinge_is_a_unit_margin_on_the_scaled_log_ratios() -> None:
    hinge = RSO(gamma=0.1, loss_kind="hinge_norm")
    assert [loss_at(hinge, m) for m in (-5.0, 0.0, 5.0, 10.0, 20.0)] == pytest.approx(
        [1.5, 1.0, 0.5, 0.0, 0.0]
    )


def test_reference_free_losses_by_hand() -> None:
    # chosen: two tokens of probability ½; rejected: one of probability ¼
    step = random_step(SimPO(), n=1, tokens=2)
    half, quarter = math.log(0.5), math.log(0.25)
    step = replace(
        step,
        policy={
            "chosen": replace(
                step.policy["chosen"],
                token_logps=torch.tensor([[half, half]]),
                mask=torch.tensor([[True, True]]),
            ),
            "rejected": replace(
                step.policy["rejected"],
                token_logps=torch.tensor([[quarter, 9.0]]),
                mask=torch.tensor([[True, False]]),
            ),
        },
    )
    # per token the chosen is twice as likely: β·ln 2 − γ with β = 2 gives odds 4·e^{−γ}
    assert float(SimPO(2.0, 1.0).loss(step)) == pytest.approx(math.log1p(math.e / 4), rel=1e-6)
    assert float(SimPO(2.0, 1.0).implied_preference(step)) == pytest.approx(0.8, rel=1e-6)
    # the sums are equal, so the margin of CPO is 0 and SLiC's hinge is δ
    assert float(CPO(0.1, 1.0).loss(step)) == pytest.approx(math.log(2) + math.log(2), rel=1e-6)
    assert float(CPO(0.1, 1.0).implied_preference(step)) == pytest.approx(0.5)
    assert float(SLiC(3.0, 0.5).loss(step)) == pytest.approx(3.0 + 0.5 * math.log(2), rel=1e-6)
    # odds are 1 and 1/3
    assert float(ORPO(0.5).loss(step)) == pytest.approx(math.log(2) + 0.5 * math.log(4 / 3), rel=1e-6)
    assert float(SFT().loss(step)) == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize("algorithm", [KTO(), NPO(), ORPO(), SLiC()], ids=lambda a: a.name)
def test_algorithms_that_claim_no_preference(algorithm: Algorithm) -> None:
    assert algorithm.implied_preference(random_step(algorithm)) is None


@pytest.mark.parametrize("stages", [2, 3])
@pytest.mark.parametrize(("beta", "optimum", "kl"), OPTIMA)
def test_sdpo_on_all_data_ends_where_one_stage_at_a_smaller_beta_does(
    stages: int, beta: float, optimum: tuple[float, ...], kl: float
) -> None:
    algorithm = SDPO(beta=stages * beta, n_stages=stages, data="all")
    plan = algorithm.stages()
    assert [stage.reference for stage in plan] == ["previous"] * stages

    def loss_from(previous: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        return population_loss(algorithm, p, previous, bradley_terry(REWARD), torch.ones(4, 4))

    logp = log(REFERENCE)
    for _ in plan:
        previous = logp
        logp = minimise(partial(loss_from, previous), logp)
    assert logp.exp().tolist() == pytest.approx(optimum, abs=1e-5)


# --------------------------------------------------------------------------- the classical baseline


def solved(algorithm: RLHF, pairs: list[Pair], tools: TableTools) -> torch.Tensor:
    tilt = algorithm.solve(pairs, tools)
    reference = torch.tensor(tools.reference)
    return (reference + torch.tensor([tilt[Completion("x", text)] for text in tools.texts])).log_softmax(-1)


def test_rlhf_on_one_certain_pair_is_finite_only_because_of_weight_decay() -> None:
    pairs, beta = [Pair("x", "a", "b")], 1.0
    decayed = solved(RLHF(beta, 0.1), pairs, TableTools((0.5, 0.5)))
    margin = beta * float(decayed[0] - decayed[1])
    # stationarity of −log σ(m) + (w/2)(m²/4 + m²/4)
    assert sigmoid(-margin) == pytest.approx(0.1 * margin / 2, abs=1e-6)
    margins = [
        float(p[0] - p[1])
        for p in (solved(RLHF(beta, w), pairs, TableTools((0.5, 0.5))) for w in (0.1, 0.01, 1e-4, 1e-8))
    ]
    assert margins == sorted(margins)
    assert margins[-1] > 15  # it goes where DPO goes
    # and a smaller decay is needed the smaller β is, unlike for DPO, whose optimum is infinite at every β
    assert math.isfinite(float(solved(RLHF(0.01, 0.01), pairs, TableTools((0.5, 0.5)))[1]))


def test_rlhf_recovers_the_optimum_from_many_labels() -> None:
    preference = bradley_terry(REWARD)
    pairs = [
        Pair("x", "abcd"[i], "abcd"[j])
        for i in range(4)
        for j in range(4)
        if i != j
        for _ in range(round(2000 * float(preference[i, j])))
    ]
    for beta, optimum, _ in OPTIMA:
        assert solved(RLHF(beta, 0.0), pairs, TableTools()).exp().tolist() == pytest.approx(optimum, abs=2e-3)


def test_rlhf_tilts_every_action_and_reads_like_dpo() -> None:
    algorithm = RLHF(0.5, 0.01)
    tilt = algorithm.solve([Pair("x", "a", "b"), Pair("x", "b", "a"), Pair("x", "a", "b")], TableTools())
    assert {c.text for c in tilt} == set("abcd")
    assert tilt[Completion("x", "c")] == 0.0
    assert [stage.solve for stage in algorithm.stages()] == [True]
    step = random_step(DPO())
    torch.testing.assert_close(algorithm.loss(step), DPO(0.5).loss(step))
    torch.testing.assert_close(algorithm.implied_preference(step), DPO(0.5).implied_preference(step))


# --------------------------------------------------------------------------- likelihood displacement

# output embeddings of chosen, rejected (nearly parallel to it) and three others
EMBEDDINGS = torch.tensor(
    [[1.0, 0.0], [1.1, 0.05], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64
)


def change_of_chosen(
    algorithm: Algorithm, train_embeddings: bool = False, lr: float = 1e-3, steps: int = 300
) -> float:
    """Change of log π(chosen) when one hidden vector, and optionally the embeddings, learn from one pair."""
    hidden = torch.tensor([1.0, 0.5], dtype=torch.float64, requires_grad=True)
    table = EMBEDDINGS.clone().requires_grad_(train_embeddings)
    reference = (table @ hidden).log_softmax(-1).detach()
    parameters = [hidden, table] if train_embeddings else [hidden]
    for _ in range(steps):
        logp = (table @ hidden).log_softmax(-1)
        if isinstance(algorithm, NPO):
            loss = algorithm.loss(single_step(logp, reference, [1], [False])).mean()
        else:
            loss = algorithm.loss(table_step(algorithm, logp, reference, [(0, 1)])).mean()
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= lr * gradient
    return float(((table @ hidden).log_softmax(-1) - reference)[0].detach())


@pytest.mark.parametrize("algorithm", [DPO(), CDPO(), IPO(), NPO(), KTO()], ids=lambda a: a.name)
def test_chosen_falls_with_parallel_frozen_embeddings(algorithm: Algorithm) -> None:
    assert change_of_chosen(algorithm) < -1e-5


@pytest.mark.parametrize("algorithm", [DPOP(), CPO(), ORPO(), SFT()], ids=lambda a: a.name)
def test_chosen_rises_with_parallel_frozen_embeddings(algorithm: Algorithm) -> None:
    assert change_of_chosen(algorithm) > 0


def test_dpo_raises_the_chosen_when_the_embeddings_are_trained_too() -> None:
    assert change_of_chosen(DPO(), train_embeddings=True) > 1e-5


def test_deltas_of_a_table() -> None:
    logp, reference = log((0.1, 0.2, 0.3, 0.4)), log(REFERENCE)
    step = pair_step(DPO(), logp, reference, [0, 3], [1, 2])
    torch.testing.assert_close(
        step.log_ratio("chosen") - step.log_ratio("rejected"), deltas(logp, reference)[[0, 3], [1, 2]]
    )
