"""β-DPO passes the kit, is DPO where nothing is dynamic, and remembers what its equation says."""

from dataclasses import replace

import torch
from torch.nn.functional import logsigmoid
from xpo_bench_beta_dpo import BetaDPO

from xpo_bench import Scores, Step
from xpo_bench.testing import parametrize_with_checks


@parametrize_with_checks([BetaDPO(), BetaDPO(alpha=2.0, momentum=0.5, keep=0.5)])
def test_conforms(check):
    check()


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def step(margins, usual=0.0):
    """A batch whose log-ratio differences are `margins`, after which the moving average stands at `usual`."""

    def scores(values):
        return Scores(values[:, None], torch.ones(len(values), 1, dtype=torch.bool))

    chosen, zero = numbers(*margins), numbers(*[0.0] * len(margins))
    policy = {"chosen": scores(chosen - 5), "rejected": scores(zero - 5)}
    return Step(
        policy, {"chosen": scores(zero - 5), "rejected": scores(zero - 5)}, state={"margin": numbers(usual)}
    )


def test_without_dynamics_and_filter_it_is_dpo():
    margins = [-2.0, 0.5, 1.0, 7.0]
    value = BetaDPO(beta=0.3, alpha=0.0, keep=1.0).loss(step(margins, usual=0.7))
    torch.testing.assert_close(value, -logsigmoid(0.3 * numbers(*margins)))


def test_at_the_usual_margin_it_is_dpo():
    value = BetaDPO(beta=0.5, keep=1.0).loss(
        step([2.0, 4.0], usual=1.5)
    )  # M is 1 and 2, their mean the usual one
    torch.testing.assert_close(value, -logsigmoid(0.5 * numbers(2.0, 4.0)))


def test_the_usual_margin_is_a_moving_average_of_the_means():
    algorithm, usual = BetaDPO(beta=0.5, momentum=0.9), 0.0
    for margins in ([0.0, 0.0], [2.0, 4.0], [-1.0, 3.0, 7.0], [10.0]):
        found = algorithm.next_state(step(margins, usual))["margin"]
        usual = 0.9 * usual + 0.1 * 0.5 * sum(margins) / len(margins)
        torch.testing.assert_close(found, numbers(usual))


def test_beta_rises_with_the_margin_of_the_batch():
    # M is 1 and 3; M0 becomes 0.9·0 + 0.1·2 = 0.2, so β is 0.5·(1 + 0.6·(2 − 0.2)) = 1.04
    value = BetaDPO(beta=0.5, keep=1.0).loss(step([2.0, 6.0]))
    torch.testing.assert_close(value, -logsigmoid(1.04 * numbers(2.0, 6.0)))
    # and falls with it, to a hundredth of itself
    value = BetaDPO(beta=0.5, keep=1.0).loss(step([-20.0, -60.0]))
    torch.testing.assert_close(value, -logsigmoid(0.005 * numbers(-20.0, -60.0)))


def test_the_farthest_pairs_are_left_out_and_the_mean_is_over_the_others():
    margins = [1.0, 2.0, 50.0, 3.0, 2.5]
    value = BetaDPO(beta=1.0, alpha=0.0, keep=0.8).loss(step(margins, usual=2.0))
    kept = -logsigmoid(numbers(1.0, 2.0, 3.0, 2.5))
    assert value[2] == 0
    torch.testing.assert_close(value.mean(), kept.mean())
    # the mean margin that sets β is that of the kept pairs too: 2.125 against M0 = 0.9·2 + 0.1·11.7
    value = BetaDPO(beta=1.0, alpha=0.5, keep=0.8).loss(step(margins, usual=2.0))
    beta = 1 + 0.5 * (2.125 - (0.9 * 2.0 + 0.1 * 11.7))
    torch.testing.assert_close(value.mean(), -logsigmoid(beta * numbers(1.0, 2.0, 3.0, 2.5)).mean())


def test_no_gradient_goes_through_beta():
    batch = step([2.0, 6.0])
    margins = numbers(2.0, 6.0).requires_grad_()
    chosen = Scores(margins[:, None], batch.policy["chosen"].mask)
    zero = Scores(torch.zeros_like(chosen.token_logps), chosen.mask)
    batch = replace(
        batch, policy={"chosen": chosen, "rejected": zero}, reference={"chosen": zero, "rejected": zero}
    )
    (gradient,) = torch.autograd.grad(BetaDPO(beta=0.5, keep=1.0).loss(batch).sum(), margins)
    torch.testing.assert_close(gradient, -1.04 * (-1.04 * margins.detach()).sigmoid())
