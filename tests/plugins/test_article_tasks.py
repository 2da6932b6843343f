"""The worlds of the article's experiments."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import pytest

from xpo_bench import ModelSpec, Pair
from xpo_bench.data.dataset import fingerprint
from xpo_bench.runner.settings import validate
from xpo_bench_plugins.tasks.dominated import Dominated
from xpo_bench_plugins.tasks.one_pair import OnePair
from xpo_bench_plugins.tasks.overfit_pair import OverfitPair
from xpo_bench_plugins.tasks.overfit_rates import OverfitRates
from xpo_bench_plugins.tasks.votes import Votes

TABULAR = ModelSpec()


def test_the_dominated_action_never_wins_and_the_others_tie() -> None:
    rows = [e for e in Dominated().data(0, TABULAR).train if isinstance(e, Pair)]
    won, lost = Counter(e.chosen for e in rows), Counter(e.rejected for e in rows)
    assert won["c"] == 0 < lost["c"]
    assert (
        Counter((e.chosen, e.rejected) for e in rows)["a", "b"]
        == Counter((e.chosen, e.rejected) for e in rows)["b", "a"]
        == 1
    )
    # a tie has no certain side, and ½ would leave its rows out of training
    assert [e.p_chosen for e in rows] == [None, None, 1.0]


def test_one_pair_is_one_row_on_which_ipo_may_diverge() -> None:
    data = OnePair().data(0, TABULAR)
    assert data.train == (Pair("x", "a", "b", p_chosen=1.0),)
    assert OnePair.expects_divergence == {"ipo"}


def test_overfit_rates_differs_from_overfit_pair_in_what_it_expects_alone() -> None:
    assert OverfitRates().data(0, OverfitRates.model) == OverfitPair().data(0, OverfitPair.model)
    assert (OverfitRates.model, OverfitRates.budget) == (OverfitPair.model, OverfitPair.budget)
    assert OverfitRates.expects_divergence == {"ipo"}
    assert not OverfitPair.expects_divergence


def pairs_of(votes: int, seed: int = 0, prompts: int = 2000) -> dict[str, list[Pair]]:
    out: dict[str, list[Pair]] = defaultdict(list)
    for e in Votes(prompts=prompts, votes=votes).data(seed, TABULAR).train:
        assert isinstance(e, Pair)
        out[e.prompt].append(e)
    return out


@pytest.mark.parametrize("votes", [1, 2, 5, 10])
def test_votes_have_the_true_preference_and_its_share_of_unanimous_pairs(votes: int) -> None:
    pairs = pairs_of(votes)
    assert {len(rows) for rows in pairs.values()} == {votes}
    n = len(pairs)
    unanimous = sum(len({e.chosen for e in rows}) == 1 for rows in pairs.values()) / n
    expected = 0.8**votes + 0.2**votes
    assert unanimous == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / n) + 1e-12)
    right = [e.chosen == "a" for rows in pairs.values() for e in rows]
    assert sum(right) / len(right) == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / len(right)))
    assert {(e.chosen, round(e.p_chosen or 0, 9)) for rows in pairs.values() for e in rows} == {
        ("a", 0.8),
        ("b", 0.2),
    }


def test_fewer_votes_are_the_first_of_more_and_seeds_differ() -> None:
    few, more = pairs_of(3, prompts=20), pairs_of(7, prompts=20)
    assert all(more[x][:3] == rows for x, rows in few.items())
    prints = {fingerprint(Votes().data(seed, TABULAR)) for seed in (0, 0, 1)}
    assert len(prints) == 2


def test_the_reward_of_votes_is_that_of_the_true_preference() -> None:
    world = Votes(preference=0.9).data(0, TABULAR).world
    assert world is not None
    margins = {r["a"] - r["b"] for r in world.reward.values()}
    (margin,) = margins
    assert 1 / (1 + math.exp(-margin)) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("field", "value"), [("votes", 0), ("preference", 0.5), ("preference", 1.0), ("prompts", 0)]
)
def test_options_of_votes_are_validated(field: str, value: float) -> None:
    from xpo_bench.errors import UsageError

    with pytest.raises(UsageError, match=f"task.{field}"):
        validate(Votes, {field: value}, "task")
