"""The sentences follow from the numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from reports import store_items

from xpo_bench.report.findings import findings
from xpo_bench.report.items import item_reader
from xpo_bench.report.runs import group

Make = Callable[..., dict[str, Any]]


def tell(cells: list[dict[str, Any]]) -> str:
    return "\n".join(findings(group(cells)))


def test_collapse_and_rest(record: Make) -> None:
    cells = [
        record(
            "dpo",
            "overfit_pair",
            s,
            collapsed=1.0,
            rejected_drift=-3.6,
            rejected_logp=-99.5,
            collapse_step=20.0,
        )
        for s in range(3)
    ]
    cells += [
        record(
            "ipo",
            "overfit_pair",
            s,
            collapsed=0.0,
            rejected_drift=1e-6,
            rejected_logp=-25.2,
            collapse_step=None,
        )
        for s in range(3)
    ]
    assert tell(cells) == (
        "overfit_pair: rejected completions collapsed and are still falling under dpo "
        "(3/3 runs, probability 6.1e-44, from step 20 in the median); converged under ipo "
        "(probability 1.1e-11)."
    )


def test_classes(record: Make) -> None:
    cells = [
        record("a", collapsed=0.0, rejected_drift=-0.5, rejected_logp=-5.0),
        record("b", collapsed=0.0, rejected_drift=0.5, rejected_logp=-1.0),
        record("c", collapsed=0.0, rejected_drift=0.05, rejected_logp=-1.0),
        record("d", collapsed=0.4, rejected_drift=-2.0, rejected_logp=-1.0),
        record("e", rejected_logp=-1.0),  # a closed form: no drift, no claim
        record("f", seed=0, collapsed=0.0, rejected_drift=-0.3, rejected_logp=-1.0),
        record(
            "f", seed=1, collapsed=0.0, rejected_drift=0.2, rejected_logp=-1.0
        ),  # not converged in every run
        record("g", seed=0, collapsed=0.9, rejected_drift=-0.3, rejected_logp=-800.0, collapse_step=5.0),
        record("g", seed=1, collapsed=0.0, rejected_drift=-0.3, rejected_logp=-800.0, collapse_step=None),
    ]
    text = tell(cells)
    assert "collapsed and are still falling under g (1/2 runs, probability 1e-348);" in text
    assert (
        "are still falling, not collapsed, under a (probability 0.00674) and d (probability 0.368);" in text
    )
    assert "are rising under b" in text
    assert "have not converged in every run under f (probability 0.368);" in text
    assert "converged under c" in text
    assert " e " not in text


def test_no_sentence_ranks(record: Make) -> None:
    """Which algorithm is better is said by the verdicts alone, from paired tests."""
    apart = [
        record(a, seed=s, frontier_gap=v + 0.001 * s, attained_1=1 - v, gold_reward=9 - v, regret=v)
        for a, v in (("dpo", 0.5), ("ipo", 0.4))
        for s in range(3)
    ]
    assert tell(apart) == ""


def test_heldout(record: Make) -> None:
    level = [
        record(a, seed=s, heldout_reward_accuracy=0.641, generalization_gap=0.03)
        for a in "abcd"
        for s in range(2)
    ]
    assert (
        tell(level)
        == "bandit: held-out reward accuracy lies 0.03 below that on training pairs in the median."
    )
    better = [record("a", seed=s, heldout_reward_accuracy=0.641, generalization_gap=-0.04) for s in range(2)]
    assert "lies 0.04 above that on training pairs" in tell(better)
    chance = [record("a", seed=s, heldout_reward_accuracy=v) for s, v in enumerate((0.4, 0.7))]
    assert tell(chance) == (
        "bandit: the best held-out reward accuracy, a (0.55±1.9), is not significantly above chance."
    )
    best = [
        record(a, seed=s, heldout_reward_accuracy=v + 0.001 * s)
        for a, v in (("a", 0.9), ("b", 0.6))
        for s in range(2)
    ]
    assert tell(best) == ""
    below = [record("a", seed=s, heldout_reward_accuracy=0.4 + 0.001 * s) for s in range(3)]
    assert tell(below).endswith("accuracy, a (0.401±0.0025), does not exceed chance.")


def test_who_has_not_moved_is_not_held_against_chance(record: Make) -> None:
    """A policy that stands still ranks by the signs of rounding."""
    still = [record("still", seed=s, heldout_reward_accuracy=0.9 + 0.001 * s, kl=2.5e-14) for s in range(3)]
    dpo = [record("dpo", seed=s, heldout_reward_accuracy=0.5 + 0.02 * (s - 1), kl=1.0) for s in range(3)]
    assert "the best held-out reward accuracy, dpo (" in tell(still + dpo)
    assert tell(still) == ""


def test_chance_is_tested_on_the_items(record: Make, tmp_path: Path) -> None:
    """Three equal seeds leave no doubt over seeds; 12 pairs of 4 people do, 1,200 of 400 do not."""

    def told(people: int) -> str:
        cells = [
            record("dpo", "travel", s, heldout_reward_accuracy=0.75, heldout_longer_accuracy=0.5, kl=1.0)
            for s in range(3)
        ]
        for cell in cells:
            correct = [float(i % 4 > 0) for i in range(3 * people)]
            cluster = [f"person {i // 3}" for i in range(3 * people)]
            longer = [1 if i % 2 else -1 for i in range(3 * people)]
            store_items(tmp_path, cell["key"], correct, cluster=cluster, longer=longer)
        return "\n".join(findings(group(cells), item_reader(tmp_path)))

    few, many = told(4), told(400)
    assert "dpo (0.75), is not significantly above chance" in few
    assert "is not significantly different from 'always longer' (0.5)" in few
    assert "chance" not in many
    assert "held-out reward accuracy beats 'always longer' (0.5) under dpo (0.75)" in many


def gains(record: Make, **means: float) -> list[dict[str, Any]]:
    return [
        record(a, "gold_text", s, gold_gain=m + 0.01 * (s - 1)) for a, m in means.items() for s in range(3)
    ]


def test_gold(record: Make) -> None:
    """Half an interval is 0.0248: at three seeds p is 0.00033 for 0.55, 0.002 for ±0.13, 0.036 for 0.03."""
    assert tell(gains(record, rso=0.55, ppo=0.03)) == (
        "gold_text: gold_reward against the initial policy's (gold_gain, intervals that exclude zero): above "
        "under rso (0.55±0.025) and ppo (0.03±0.025); Holm's correction for 2 comparisons leaves all of them."
    )
    text = tell(gains(record, rso=0.55, ppo=0.03, dpo=0.001, kto=-0.13))
    assert "above under rso (0.55±0.025) and ppo (0.03±0.025); below under kto (-0.13±0.025); Holm" in text
    assert text.endswith("Holm's correction for 4 comparisons leaves rso and kto.")
    assert tell(gains(record, ppo=0.03, dpo=0.0)).endswith(
        "Holm's correction for 2 comparisons leaves none of them."
    )
    assert "Holm" not in tell(gains(record, rso=0.55))  # one comparison
    assert (
        tell(gains(record, dpo=0.01, ipo=0.0))
        == "gold_text: no interval of gold_gain excludes zero (2 comparisons)."
    )
    assert "highest gold_gain: ppo (0.5); a single run each" in tell(
        [record("ppo", gold_gain=0.5), record(gold_gain=0.1)]
    )


def against_longer(
    record: Make, rule: float, same: bool = True, pairs: int | None = None, **means: float
) -> list[dict[str, Any]]:
    return [
        record(
            a,
            "ukp",
            s,
            data={"heldout": pairs} if pairs else None,
            heldout_reward_accuracy=m + 0.01 * (s - 1) + (0 if same else 0.2 * s),
            heldout_longer_accuracy=rule + (0 if same else 0.2 * s),
        )
        for a, m in means.items()
        for s in range(3)
    ]


def test_always_longer(record: Make) -> None:
    assert tell(against_longer(record, 0.72, dpo=0.7, ipo=0.65)).endswith(
        "ukp: warning: the best held-out reward accuracy, dpo (0.7±0.025), does not beat "
        "'always longer' (0.72)."
    )
    assert tell(against_longer(record, 0.72, dpo=0.73, ipo=0.65)).endswith(
        "dpo (0.73±0.025), is not significantly different from 'always longer' (0.72) "
        "(Holm's correction for 2 comparisons)."
    )
    assert tell(against_longer(record, 0.72, dpo=0.9, ipo=0.65)).endswith(
        "held-out reward accuracy beats 'always longer' (0.72) under dpo (0.9±0.025) "
        "(Holm's correction for 2 comparisons)."
    )
    assert "is not significantly different from 'always longer' (0.72)." in tell(
        against_longer(record, 0.72, dpo=0.73)
    )
    one = [
        record(a, heldout_reward_accuracy=v, heldout_longer_accuracy=0.5) for a, v in (("a", 0.9), ("b", 0.8))
    ]
    assert "above 'always longer' (0.5); a single run each, so without an interval" in tell(one)
    assert "longer" not in tell([record(heldout_reward_accuracy=0.9)])


def test_always_longer_is_compared_seed_by_seed(record: Make) -> None:
    """Where seeds hold out different pairs both move together: the difference is what counts."""
    text = tell(against_longer(record, 0.3, same=False, dpo=0.4))
    assert "held-out reward accuracy beats 'always longer' (0.5±0.5) under dpo" in text


def test_runs_that_share_their_pairs_share_the_error_of_the_pairs(record: Make) -> None:
    """0.8 against 0.72 by a hair's breadth over seeds: 64 pairs cannot tell that, 6,400 can."""
    few, many = (against_longer(record, 0.72, pairs=n, dpo=0.8) for n in (64, 6400))
    assert "is not significantly different from 'always longer'" in tell(few)
    assert "beats 'always longer'" in tell(many)


def test_chance_is_corrected_too(record: Make) -> None:
    """p = 0.036 for a alone; among three it is not enough."""
    alone = [record("a", seed=s, heldout_reward_accuracy=0.53 + 0.01 * (s - 1)) for s in range(3)]
    others = [record(b, seed=s, heldout_reward_accuracy=0.5 + 0.01 * (s - 1)) for b in "bc" for s in range(3)]
    assert "chance" not in tell(alone)
    assert "not significantly above chance (Holm's correction for 3 comparisons)" in tell(alone + others)


def test_unlearning(record: Make) -> None:
    cells = [
        record(
            a,
            "tofu",
            s,
            data={"kind": "forget_retain"},
            forget_change=f + s,
            retain_change=r + s,
            collapsed=0.0,
            rejected_drift=-1.0,
            rejected_logp=-5.0,
        )
        for a, f, r in (("npo", -40.0, -30.0), ("kto", 10.0, 12.0))
        for s in range(3)
    ]
    assert tell(cells) == (
        "tofu: completions to forget are still falling, not collapsed, under kto (probability 0.00674) and "
        "npo (probability 0.00674).\n"
        "tofu: completions to forget became less likely under npo (-39±2.5 nats, to retain -29±2.5); "
        "Holm's correction for 2 comparisons."
    )
    assert "no algorithm made the completions to forget significantly less likely" in tell(
        [c for c in cells if c["algorithm"]["name"] == "kto"]
    )
    ordinary = [c | {"task": c["task"] | {"data": {"kind": "singles"}}} for c in cells]
    assert "forget" not in tell(ordinary)
    assert "rejected completions are still falling" in tell(ordinary)


def test_nothing_to_say(record: Make) -> None:
    assert tell([]) == ""
    assert tell([record(status="failed", error="no")]) == ""


def test_long_completions_are_told_of_by_the_token(record: Make) -> None:
    """By exp(mean logp / mean length); an arithmetic mean over tokens says nothing of the length."""
    lengths = {"long": 200.0, "short": 2.0, "one": 1.0, "older": None}
    cells = [
        record(
            name,
            collapsed=0.0,
            rejected_drift=-0.5,
            rejected_logp=-24.3 if name in ("one", "older") else -2.302585 * (length or 0.0),
            rejected_prob=0.181,
            notes={"rejected_length": length} if length else {},
        )
        for name, length in lengths.items()
    ]
    told = [tell([cell]) for cell in cells]
    for text, probability in zip(told, ("0.1 a token", "0.01", "2.8e-11", "2.8e-11"), strict=True):
        assert f"(probability {probability})" in text


def test_states(record: Make) -> None:
    """The sentence, the first screen and the record say the same: what the record notes."""
    short = "a run of 5 steps, whose last fifth has fewer than 10"
    told = {
        "a": {"rejected_state": "converged"},
        "b": {"rejected_state": "saturated"},
        "c": {"rejected_state": "collapsed"},
        "d": {"rejected_state": "falling"},
        "e": {"rejected_state": "rising"},
        "f": {"rejected_state_reason": short},
        "g": {"rejected_state_reason": short},
    }
    # the metrics alone would say converged of every one
    cells = [
        record(a, notes=n, collapsed=0.0, rejected_drift=0.0, rejected_logp=0.0) for a, n in told.items()
    ]
    assert tell(cells) == (
        "bandit: rejected completions collapsed and are still falling under c (probability 1); stand still "
        "because every gradient has vanished (saturated, not converged) under b (probability 1); are still "
        "falling, not collapsed, under d (probability 1); are rising under e (probability 1); converged "
        f"under a (probability 1); cannot be judged under f and g ({short})."
    )


def test_states_of_several_seeds(record: Make) -> None:
    def said(*states: str) -> str:
        notes = [{"rejected_state": s} for s in states]
        return tell([record("dpo", seed=i, notes=n, rejected_logp=-1.0) for i, n in enumerate(notes)])

    assert "have not converged in every run under dpo" in said("converged", "converged", "falling")
    assert "saturated, not converged) under dpo" in said("saturated", "saturated", "converged")
    assert "collapsed and are still falling under dpo" in said("collapsed", "falling")
    assert "are still falling, not collapsed, under dpo" in said("collapsed", "falling", "falling")
