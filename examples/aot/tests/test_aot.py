"""AOT passes the kit, and is DPO where there is nothing to sort."""

import torch
from torch.nn.functional import logsigmoid
from xpo_bench_aot import AOT

from xpo_bench import Scores, Step
from xpo_bench.testing import parametrize_with_checks


@parametrize_with_checks([AOT(), AOT(pairing="paired")])
def test_conforms(check):
    check()


def step(chosen, rejected):
    def scores(values):
        return Scores(
            torch.tensor(values, dtype=torch.float64)[:, None], torch.ones(len(values), 1, dtype=torch.bool)
        )

    zero = scores([0.0] * len(chosen))
    return Step({"chosen": scores(chosen), "rejected": scores(rejected)}, {"chosen": zero, "rejected": zero})


def test_one_example_is_dpo():
    for pairing in ("unpaired", "paired"):
        value = AOT(beta=0.5, pairing=pairing).loss(step([-1.0], [-3.0]))
        torch.testing.assert_close(value, -logsigmoid(torch.tensor([1.0], dtype=torch.float64)))


def test_quantiles_are_compared_and_not_pairs():
    # sorted: chosen -4 -1, rejected -3 -2; the row with -1 is compared with -2, that with -4 with -3
    value = AOT(beta=1.0).loss(step([-1.0, -4.0], [-3.0, -2.0]))
    torch.testing.assert_close(value, -logsigmoid(torch.tensor([1.0, -1.0], dtype=torch.float64)))
