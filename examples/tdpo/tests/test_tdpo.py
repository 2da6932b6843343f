"""TDPO passes the kit, and is DPO where the KL divergences say nothing."""

from itertools import product

import torch
from torch.nn.functional import logsigmoid
from xpo_bench_tdpo import TDPO1, TDPO2

import xpo_bench
from xpo_bench import Scores, Step
from xpo_bench.testing import parametrize_with_checks


@parametrize_with_checks([TDPO1(), TDPO2(), TDPO2(beta=0.5, alpha=1.0)])
def test_conforms(check):
    check()


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def step(margins, chosen_kl, rejected_kl):
    """Pairs of two-token completions with these log-ratio differences and KLs of the first tokens."""

    def scores(values, kl):
        logps = torch.stack([values, torch.full_like(values, -1.0)], -1)
        return Scores(
            logps, torch.ones(logps.shape, dtype=torch.bool), torch.stack([kl, torch.full_like(kl, 0.25)], -1)
        )

    zero = torch.zeros_like(margins)
    policy = {"chosen": scores(margins - 5, chosen_kl), "rejected": scores(zero - 5, rejected_kl)}
    return Step(
        policy, {name: Scores(scores(zero - 5, zero).token_logps, policy[name].mask) for name in policy}
    )


MARGINS = numbers(-1.0, 0.5, 3.0)
EQUAL, MORE = numbers(0.1, 2.0, 0.7), numbers(1.1, 2.0, 3.7)


def test_equal_divergences_leave_dpo():
    dpo = -logsigmoid(0.3 * MARGINS)
    for algorithm in (TDPO1(beta=0.3), TDPO2(beta=0.3, alpha=0.8)):
        torch.testing.assert_close(algorithm.loss(step(MARGINS, EQUAL, EQUAL)), dpo)
    torch.testing.assert_close(TDPO2(beta=0.3, alpha=0.0).loss(step(MARGINS, EQUAL, MORE)), dpo)


def test_the_margin_is_less_the_difference_of_the_divergences():
    value = TDPO1(beta=0.3).loss(step(MARGINS, EQUAL, MORE))
    torch.testing.assert_close(value, -logsigmoid(0.3 * (MARGINS - numbers(1.0, 0.0, 3.0))))
    value = TDPO2(beta=0.3, alpha=0.5).loss(step(MARGINS, EQUAL, MORE))
    torch.testing.assert_close(value, -logsigmoid(0.3 * (MARGINS - 0.5 * numbers(1.0, 0.0, 3.0))))
    torch.testing.assert_close(
        TDPO2(alpha=1.0).loss(step(MARGINS, EQUAL, MORE)), TDPO1().loss(step(MARGINS, EQUAL, MORE))
    )


def test_only_tdpo1_trains_the_divergence_along_the_chosen_completion():
    for algorithm, both in ((TDPO1(), True), (TDPO2(alpha=1.0), False)):
        chosen, rejected = EQUAL.clone().requires_grad_(), MORE.clone().requires_grad_()
        loss = algorithm.loss(step(MARGINS, chosen, rejected)).sum()
        of_chosen, of_rejected = torch.autograd.grad(loss, [chosen, rejected], materialize_grads=True)
        assert bool(
            (of_rejected > 0).all()
        )  # a descent brings the policy back to the reference on the rejected side
        assert bool((of_chosen < 0).all()) == both
        assert both or not of_chosen.any()


def test_on_a_table_tdpo1_is_dpo_and_tdpo2_stays_nearer(tmp_path):
    words = {"tasks": ["bandit"], "seeds": 1, "steps": 30, "out": tmp_path}
    result = xpo_bench.run(algos=["dpo", TDPO1, TDPO2], **words)
    assert result.ok
    kl = {cell["algorithm"]["name"]: cell["metrics"]["kl"] for cell in result.cells}
    assert abs(kl["tdpo1"] - kl["dpo"]) < 1e-9 * kl["dpo"]
    assert 0 < kl["tdpo2"] < kl["dpo"]


def test_on_a_network_all_three_differ(tmp_path):
    words = {
        "tasks": ["tokens"],
        "seeds": 1,
        "steps": 6,
        "set": {"task.length": 2, "task.pairs": 32},
        "out": tmp_path,
    }
    result = xpo_bench.run(algos=["dpo", TDPO1, TDPO2], **words)
    assert result.ok
    final = [cell["metrics"]["chosen_logp"] for cell in result.cells]
    assert all(a != b for a, b in product(final, repeat=2) if a is not b)
