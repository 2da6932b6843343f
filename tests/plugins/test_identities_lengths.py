"""Identities of the losses that treat lengths: dpo_norm, r_dpo, ld_dpo and simper."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from loss_checks import check_ipo_per_token, random_step
from scipy.optimize import brentq
from small_worlds import REFERENCE, REWARD, bradley_terry, descend, log, mean_loss, minimise
from torch import Tensor

from xpo_bench import Algorithm, Scores, Step
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.dpo_norm import DPONorm
from xpo_bench_plugins.algorithms.ld_dpo import LDDPO
from xpo_bench_plugins.algorithms.r_dpo import RDPO
from xpo_bench_plugins.algorithms.simper import SimPER
from xpo_bench_plugins.algorithms.simpo import SimPO

LENGTHS = (1, 4, 2, 3)
PAIRS = list(itertools.permutations(range(4), 2))


def at_reference(step: Step) -> Step:
    return replace(step, policy={name: step.policy[name] for name in step.policy}, reference=step.policy)


def common_length(step: Step, tokens: int) -> Step:
    """The step with every completion as long as its tensors are wide."""
    mask = torch.ones(6, tokens, dtype=torch.bool)

    def full(scores: dict[str, Scores]) -> dict[str, Scores]:
        return {g: Scores(s.token_logps, mask) for g, s in scores.items()}

    return replace(step, policy=full(dict(step.policy)), reference=full(dict(step.reference)))


def spread(logps: Tensor, actions: Sequence[int]) -> Scores:
    """Completions of LENGTHS tokens whose log-probability is spread evenly."""
    length = torch.tensor([LENGTHS[a] for a in actions])
    mask = torch.arange(max(LENGTHS)) < length[:, None]
    return Scores((logps[..., list(actions)] / length)[..., None] * mask, mask)


def population(algorithm: Algorithm, preference: Tensor) -> Tensor:
    """The table that minimises the expected loss when all pairs are compared equally often."""
    won, lost = map(list, zip(*PAIRS, strict=True))
    reference = log(REFERENCE)

    def loss(logp: Tensor) -> Tensor:
        step = Step(
            {"chosen": spread(logp, won), "rejected": spread(logp, lost)},
            {"chosen": spread(reference, won), "rejected": spread(reference, lost)},
        )
        return (preference[won, lost] * algorithm.loss(step)).sum()

    return minimise(loss, reference)


def gradients(algorithm: Algorithm, step: Step) -> dict[str, Tensor]:
    """Gradient of the summed loss with respect to every token's log-probability, by group."""
    own = {g: s.token_logps.clone().requires_grad_(True) for g, s in step.policy.items()}
    moved = replace(step, policy={g: Scores(own[g], s.mask) for g, s in step.policy.items()})
    found = torch.autograd.grad(algorithm.loss(moved).sum(), list(own.values()))
    return dict(zip(own, found, strict=True))


@pytest.mark.parametrize("algorithm", [DPONorm(3.0), LDDPO(0.3, 0.2)], ids=lambda a: a.name)
def test_at_the_reference_the_loss_is_ln_2_at_any_lengths(algorithm: Algorithm) -> None:
    values = algorithm.loss(at_reference(random_step(algorithm)))
    torch.testing.assert_close(values, torch.full_like(values, math.log(2)))


def test_dpo_norm_at_a_common_length_is_dpo_and_without_reference_simpo() -> None:
    step = random_step(DPO(), tokens=5)
    torch.testing.assert_close(
        DPONorm(2.0).loss(common_length(step, 5)), DPO(0.4).loss(common_length(step, 5))
    )
    check_ipo_per_token(DPONorm(2.0))
    # a reference that gives every token the same probability cancels from means, whatever the lengths
    flat = {g: Scores(torch.full_like(s.token_logps, -2.0), s.mask) for g, s in step.policy.items()}
    torch.testing.assert_close(DPONorm(2.0).loss(replace(step, reference=flat)), SimPO(2.0, 0.0).loss(step))


def test_the_optimum_of_dpo_norm_multiplies_rewards_by_lengths() -> None:
    """β lr/n = r − λ, with λ such that π sums to 1; so it is not π ∝ π_ref exp(r/β)."""
    beta = 2.0

    def tilted(shift: float) -> list[float]:
        return [
            p * math.exp(n * (r - shift) / beta) for p, n, r in zip(REFERENCE, LENGTHS, REWARD, strict=True)
        ]

    shift = brentq(lambda s: sum(tilted(s)) - 1, -5, 5, xtol=1e-14)
    found = population(DPONorm(beta), bradley_terry(REWARD)).exp()
    assert found.tolist() == pytest.approx(tilted(shift), abs=1e-6)


def test_r_dpo_is_dpo_without_price_and_at_equal_lengths() -> None:
    step = random_step(DPO(), tokens=5)
    torch.testing.assert_close(RDPO(0.3, 0.0).loss(step), DPO(0.3).loss(step))
    torch.testing.assert_close(
        RDPO(0.3, 0.7).loss(common_length(step, 5)), DPO(0.3).loss(common_length(step, 5))
    )


@pytest.mark.parametrize(("beta", "price"), [(0.5, 0.25), (1.0, 0.1)])
def test_the_optimum_of_r_dpo_is_that_of_the_reward_less_the_price_of_its_tokens(
    beta: float, price: float
) -> None:
    reward, length = torch.tensor(REWARD, dtype=torch.float64), torch.tensor(LENGTHS)
    found = population(RDPO(beta, price), bradley_terry(REWARD))
    expected = (log(REFERENCE) + (reward - price * length) / beta).log_softmax(-1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    # labels that favour length by just that price: the bias is gone, where DPO learns it
    biased = bradley_terry((reward + price * length).tolist())
    clean = (log(REFERENCE) + reward / beta).log_softmax(-1)
    torch.testing.assert_close(population(RDPO(beta, price), biased), clean, atol=1e-6, rtol=0)
    assert float((population(DPO(beta), biased) - clean).abs().max()) > 0.1


def test_r_dpo_pulls_less_at_a_longer_winner() -> None:
    step = random_step(RDPO(), n=40)
    longer = step.policy["chosen"].length - step.policy["rejected"].length
    pull = {a: -gradients(RDPO(0.3, a), step)["chosen"].min(-1).values for a in (0.0, 0.5)}
    assert bool((longer > 0).any())
    assert bool((longer < 0).any())
    assert bool(((pull[0.5] < pull[0.0]) == (longer > 0)).all())


def test_ld_dpo_is_dpo_with_its_tails_and_dpo_of_cut_completions_without() -> None:
    step = random_step(DPO())
    torch.testing.assert_close(LDDPO(0.3, 1.0).loss(step), DPO(0.3).loss(step))
    torch.testing.assert_close(
        LDDPO(0.3, 0.4).loss(common_length(step, 5)), DPO(0.3).loss(common_length(step, 5))
    )
    shared = step.policy["chosen"].mask & step.policy["rejected"].mask

    def cut(scores: dict[str, Scores]) -> dict[str, Scores]:
        return {g: Scores(s.token_logps, s.mask & shared) for g, s in scores.items()}

    short = replace(step, policy=cut(dict(step.policy)), reference=cut(dict(step.reference)))
    torch.testing.assert_close(LDDPO(0.3, 0.0).loss(step), DPO(0.3).loss(short))


def test_a_token_of_the_tail_counts_alpha_times_one_before_it() -> None:
    step = random_step(LDDPO(), n=40)
    length = {g: s.length for g, s in step.policy.items()}
    pull = gradients(LDDPO(0.3, 0.25), step)
    for group, other in (("chosen", "rejected"), ("rejected", "chosen")):
        longer = length[group] > length[other]
        assert bool(longer.any())
        last = length[group].long() - 1
        tail = pull[group].gather(-1, last[:, None])[longer, 0]
        torch.testing.assert_close(tail, 0.25 * pull[group][longer, 0])
        whole = pull[group].gather(-1, last[:, None])[~longer, 0]
        torch.testing.assert_close(whole, pull[group][~longer, 0])


def test_ld_dpo_counts_tokens_not_places() -> None:
    """Padding before a completion moves no token into the tail."""
    step = random_step(LDDPO())

    def shifted(scores: dict[str, Scores]) -> dict[str, Scores]:
        return {
            g: s.map(lambda values: torch.cat([torch.zeros_like(values[..., :2]), values], -1))
            for g, s in scores.items()
        }

    moved = replace(step, policy=shifted(dict(step.policy)), reference=shifted(dict(step.reference)))
    torch.testing.assert_close(LDDPO(0.3, 0.2).loss(moved), LDDPO(0.3, 0.2).loss(step))


def test_simper_is_a_difference_of_inverse_perplexities() -> None:
    step = random_step(SimPER(), n=40)
    values = SimPER().loss(step)
    swapped = replace(step, policy={"chosen": step.policy["rejected"], "rejected": step.policy["chosen"]})
    torch.testing.assert_close(SimPER().loss(swapped), -values)
    assert float(values.abs().max()) < 1
    # half the probability of every token: each inverse perplexity is halved, at any length
    less = {g: Scores(s.token_logps - math.log(2), s.mask) for g, s in step.policy.items()}
    torch.testing.assert_close(SimPER().loss(replace(step, policy=less)), values / 2)


def test_simper_on_single_tokens_is_the_policy_gradient_of_net_wins() -> None:
    """π ends at one completion although nothing is certain: there is no regulariser."""
    preference = bradley_terry(REWARD)
    wins = (preference - preference.T).sum(1)
    won, lost = map(list, zip(*PAIRS, strict=True))

    def loss(logp: Tensor) -> Tensor:
        return (preference[won, lost] * SimPER().loss(_single(logp, won, lost))).sum()

    logits = log(REFERENCE).requires_grad_(True)
    (found,) = torch.autograd.grad(loss(logits.log_softmax(-1)), logits)
    (expected,) = torch.autograd.grad(-(logits.softmax(-1) * wins).sum(), logits)
    torch.testing.assert_close(found, expected)
    assert float(descend(loss, log(REFERENCE), 1.0, 400)[-1].exp()[3]) > 0.99
    certain = descend(mean_loss(SimPER(), log((0.5, 0.5)), [(0, 1)]), log((0.5, 0.5)), 5.0, 400)
    assert float(certain[-1, 0].exp()) > 0.99


def _single(logp: Tensor, won: list[int], lost: list[int]) -> Step:
    mask = torch.ones(len(won), 1, dtype=torch.bool)
    return Step({"chosen": Scores(logp[won, None], mask), "rejected": Scores(logp[lost, None], mask)})
