"""The linear policy against conditional logits that statsmodels fits, and against the textbook's numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from xpo_bench import Budget, Dataset, ModelSpec, World
from xpo_bench.errors import UsageError
from xpo_bench.policy.linear import LinearPolicy
from xpo_bench.train.job import Job, Outcome
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.ipo import IPO
from xpo_bench_plugins.algorithms.sft import SFT
from xpo_bench_plugins.choice_sets import linear_pairs
from xpo_bench_plugins.tasks.travel import MODES, Travel, features, travellers

PEOPLE = travellers()
WORLD = World(
    actions=dict.fromkeys((t.text for t in PEOPLE), MODES), features={t.text: features(t) for t in PEOPLE}
)
EVERYONE = Dataset(train=linear_pairs([t.choice for t in PEOPLE]), world=WORLD)


def fit(
    algorithms: list[Any], dataset: Dataset = EVERYONE, steps: int = 4000
) -> tuple[LinearPolicy, list[Outcome]]:
    assert dataset.world is not None
    budget = Budget(steps=steps, lr=0.02, eval_pairs=16, heldout_pairs=16)
    policy = LinearPolicy(dataset.world, len(algorithms))
    jobs = [Job(a, "travel", seed, 0.02, "adam", dataset, budget) for seed, a in enumerate(algorithms)]
    return policy, GroupTrainer(policy, jobs, never).run()


def never(*_: Any) -> Any:
    raise AssertionError("a table scores its own reference")


def test_likelihood_is_mcfadden_s_conditional_logit() -> None:
    """Greene's estimates of the unweighted sample: log-likelihood −199.1284."""
    policy, _ = fit([SFT()])
    theta = policy.parameter[0].detach().numpy()
    logp = policy.log_probs()[0]
    place = {prompt: i for i, prompt in enumerate(policy.layout.prompts)}
    loglik = sum(float(logp[place[t.text], MODES.index(t.chosen)]) for t in PEOPLE)
    assert loglik == pytest.approx(-199.1284, abs=1e-3)
    published = np.array(
        [-0.01550, -0.09612, 0.01329, 5.2074, 3.8690, 3.1632]
    )  # cost, time, income x air, air, train, bus
    np.testing.assert_allclose(theta / np.array([100, 100, 100, 1, 1, 1]), published, rtol=2e-3)


def test_statsmodels_fits_the_same() -> None:
    from statsmodels.discrete.conditional_models import ConditionalLogit

    policy, _ = fit([SFT()])
    rows = [(t.chosen == mode, features(t)[mode], i) for i, t in enumerate(PEOPLE) for mode in MODES]
    chosen, exog, groups = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    fitted = ConditionalLogit(chosen, exog, groups=groups).fit(disp=False)
    np.testing.assert_allclose(policy.parameter[0].detach().numpy(), fitted.params, rtol=1e-3)


def test_dpo_is_a_logit_of_the_differences() -> None:
    from statsmodels.api import Logit

    policy, _ = fit([DPO(beta=1.0)])
    differences = np.array(
        [np.subtract(features(t)[t.chosen], features(t)[m]) for t in PEOPLE for m in MODES if m != t.chosen]
    )
    sign = np.where(np.arange(len(differences)) % 2, 1.0, -1.0)  # both outcomes have to occur
    fitted = Logit((sign > 0).astype(float), differences * sign[:, None]).fit(disp=False)
    np.testing.assert_allclose(policy.parameter[0].detach().numpy(), fitted.params, rtol=1e-3)


def test_one_run_and_many_are_the_same_bits() -> None:
    algorithms = [DPO(beta=0.1), DPO(beta=0.5), DPO(beta=1.0)]
    together, outcomes = fit(algorithms, steps=60)
    for i, algorithm in enumerate(algorithms):
        budget = Budget(steps=60, lr=0.02, eval_pairs=16, heldout_pairs=16)
        alone = LinearPolicy(WORLD, 1)
        (outcome,) = GroupTrainer(
            alone, [Job(algorithm, "travel", i, 0.02, "adam", EVERYONE, budget)], never
        ).run()
        assert torch.equal(alone.parameter[0], together.parameter[i])
        assert outcome.curve == outcomes[i].curve


def test_it_generalises_to_travellers_never_seen() -> None:
    task = Travel()
    dataset = task.data(0, ModelSpec(name="linear"))
    policy, (outcome,) = fit([IPO(tau=0.5)], dataset, steps=500)
    unseen = {row.prompt for row in dataset.heldout} - {row.prompt for row in dataset.train}
    assert len(unseen) > 40
    accuracy = outcome.metrics["heldout_reward_accuracy"]
    assert accuracy is not None
    assert accuracy > 0.6
    table = {len(texts) for texts in (outcome.final_policy or {}).values()}
    assert table == {4}
    assert policy.describe()["features"] == 6


def test_at_zero_it_is_the_reference() -> None:
    world = World(
        actions={"x": ("a", "b")},
        reference={"x": {"a": 0.3, "b": 0.7}},
        features={"x": {"a": (1.0,), "b": (2.0,)}},
    )
    np.testing.assert_allclose(LinearPolicy(world, 2).log_probs()[1, 0].exp().numpy(), [0.3, 0.7])


def test_a_limited_rank_is_a_smaller_model_of_the_same_features() -> None:
    def loglik(rank: int) -> float:
        budget = Budget(steps=3000, lr=0.02, eval_pairs=16, heldout_pairs=16)
        policy = LinearPolicy(WORLD, 1, rank=rank)
        GroupTrainer(policy, [Job(SFT(), "travel", 0, 0.02, "adam", EVERYONE, budget)], never).run()
        logp, place = policy.log_probs()[0], {prompt: i for i, prompt in enumerate(policy.layout.prompts)}
        assert policy.parameter.shape == (1, rank)
        return sum(float(logp[place[t.text], MODES.index(t.chosen)]) for t in PEOPLE)

    fits = [loglik(rank) for rank in (1, 3, 6)]
    assert fits == sorted(fits)
    assert len(PEOPLE) * np.log(1 / 4) < fits[0] < fits[1] - 1 < fits[2] - 2
    assert fits[2] == pytest.approx(-199.1284, abs=1e-2)  # all directions are the whole model
    with pytest.raises(UsageError, match="6 features an action; give at most linear:6"):
        LinearPolicy(WORLD, 1, rank=7)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({}, "knows no features"),
        ({"x": {"a": (1.0,)}}, "knows no features"),
        ({"x": {"a": (1.0,), "b": (1.0, 2.0)}}, r"one length everywhere, found lengths \[1, 2\]"),
        ({"x": {"a": (1.0,), "b": (float("nan"),)}}, "finite"),
    ],
)
def test_features_have_to_be_whole(features: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LinearPolicy(World(actions={"x": ("a", "b")}, features=features), 1)


def test_the_command_line_knows_it(warm: Callable[..., Any]) -> None:
    done = warm(
        "run",
        "--algos",
        "dpo,sft",
        "--tasks",
        "travel",
        "--model",
        "linear",
        "--steps",
        "200",
        "--seeds",
        "1",
        "--json",
    )
    assert done.code == 0, done.err
    for cell in done.json["cells"]:
        assert cell["task"]["model"]["name"] == "linear"
        assert cell["metrics"]["heldout_reward_accuracy"] > 0.5
    low = warm(
        "run",
        "--algos",
        "dpo",
        "--tasks",
        "travel",
        "--model",
        "linear:2",
        "--steps",
        "20",
        "--seeds",
        "1",
        "--json",
    )
    assert low.json["cells"][0]["task"]["model"]["rank"] == 2
    for wrong in ("linear:0", "linear:x", "tabular:2"):
        refused = warm("run", "--algos", "dpo", "--tasks", "travel", "--model", wrong)
        assert refused.code == 2
        assert "linear:R with a rank R of at least 1" in refused.lines[-1]
    refused = warm("run", "--algos", "dpo", "--tasks", "bandit", "--model", "linear", "--steps", "5")
    assert refused.code == 2
    assert refused.lines[-1].startswith("xpo-bench: --model linear: this task knows no features")
