"""What the numbers of a run show, in sentences that follow from them by fixed rules."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from xpo_bench.report.format import clean, listed, mean_pm, number
from xpo_bench.report.rejected import rejected
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.tables.longer_rule import LONGER, longer, longer_by_seed, pairs_variance
from xpo_bench.statistics import ROUNDING, Comparison, Estimate, against_baseline, estimate

CHANCE = 0.5
NAMED = 3
"""Groups of one class that get their numbers in the sentence; the rest are named."""
SINGLE = "a single run each, so without an interval"


def findings(groups: Sequence[SeedGroup]) -> list[str]:
    """One or more true sentences per task, in the order of the tasks.

    Rules: what became of rejected completions is `notes.rejected_state` of the runs; an algorithm has
    collapsed, or is saturated, when at least half of its runs have. Probabilities of completions are
    geometric means over pairs and runs. Two means are significantly different when their 95 % intervals do
    not overlap. A mean is significantly different from a baseline (chance, the initial policy, always
    preferring the longer completion) when the p of Student's t over seeds is below 0.05, after Holm's
    correction where a sentence compares more than one algorithm with it; where all seeds hold out the same
    pairs, the sampling error of the pairs is added for the last of these.
    """
    out: list[str] = []
    for task in dict.fromkeys(g.task for g in groups):
        here = [g for g in groups if g.task == task and g.counted]
        for sentence in (
            _gold(here),
            rejected(here),
            _unlearning(here),
            _frontier(here),
            _heldout(here),
            _longer(here),
        ):
            if sentence:
                out.append(f"{clean(task)}: {sentence}")
    return out


def _frontier(groups: Sequence[SeedGroup]) -> str:
    ranked = _ranked(groups, "frontier_gap", reverse=False)
    if len(ranked) < 2:
        return ""
    (first, best), (second, next_best) = ranked[0], ranked[1]
    sentence = f"lowest frontier_gap: {_with_number(first, best)}, then {_with_number(second, next_best)}"
    return f"{sentence}{_separation(best, next_best)}."


def _heldout(groups: Sequence[SeedGroup]) -> str:
    ranked = _ranked(groups, "heldout_reward_accuracy", reverse=True)
    if not ranked:
        return ""
    top = ranked[0][1]
    level = [g for g, e in ranked if e.mean == top.mean]
    names = [clean(g.label) for g in level]
    if len(level) > NAMED:
        names = [*names[: NAMED - 1], f"{len(level) - NAMED + 1} more"]
    if 1 < len(level) == len(ranked):
        whom = "both" if len(level) == 2 else f"all {len(level)}"
        sentence = f"held-out reward accuracy is {mean_pm(top)} under {whom} algorithms"
    else:
        sentence = f"best held-out reward accuracy: {listed(names)} ({mean_pm(top)})"
        if len(level) < len(ranked):
            sentence += _separation(top, ranked[len(level)][1], f" from {clean(ranked[len(level)][0].label)}")
    # chance is exact, so that the spread over seeds is all the error there is
    above = against_baseline([(g, _minus(e, CHANCE)) for g, e in ranked])
    if top.mean <= CHANCE or (above.tested and not any(above.holds(g) for g in level)):
        proviso = f" ({above.corrected})" if above.corrected else ""
        sentence += f"; it is not significantly different from chance{proviso}"
    gaps = [e.mean for _, e in _ranked(groups, "generalization_gap", reverse=True)]
    if gaps:
        sentence += f"; median drop from training pairs {number(statistics.median(gaps))}"
    return sentence + "."


def _gold(groups: Sequence[SeedGroup]) -> str:
    """Who earns more than the initial policy, by intervals that exclude zero."""
    gains = _ranked(groups, "gold_gain", reverse=True)
    tests = against_baseline(gains)
    if not gains:
        return ""
    if not tests.tested:
        return f"highest gold_gain: {_with_number(*gains[0])}; {SINGLE}."
    clear = [(g, e) for g, e in gains if tests.excludes_zero(g)]
    if not clear:
        return f"no interval of gold_gain excludes zero{f' ({tests.compared})' if tests.corrected else ''}."
    above, below = [x for x in clear if x[1].mean > 0], [x for x in clear[::-1] if x[1].mean < 0]
    told = "; ".join(
        f"{side} under {listed([_with_number(*x) for x in members])}"
        for side, members in (("above", above), ("below", below))
        if members
    )
    sentence = f"gold_reward against the initial policy's (gold_gain, intervals that exclude zero): {told}"
    if tests.corrected:
        sentence += f"; {tests.corrected} leaves {_left(tests, [g for g, _ in above + below])}"
    return sentence + "."


def _unlearning(groups: Sequence[SeedGroup]) -> str:
    """Under whom what is to be forgotten lost probability, and whether what is to be retained went along."""
    if not groups or not all(g.unlearns for g in groups):
        return ""
    changes = _ranked(groups, "forget_change", reverse=False)
    tests = against_baseline(changes)
    if not changes:
        return ""
    fell = [(g, e) for g, e in changes if e.mean < 0 and (tests.holds(g) or not tests.tested)]
    proviso = tests.corrected if tests.tested else SINGLE
    if not fell:
        reason = f" ({proviso})" if proviso else ""
        return f"no algorithm made the completions to forget significantly less likely{reason}."
    told = [
        f"{clean(g.label)} ({mean_pm(e)} nats, to retain {mean_pm(g.estimate('retain_change'))})"
        for g, e in fell
    ]
    ending = f"; {proviso}" if proviso else ""
    return f"completions to forget became less likely under {listed(told)}{ending}."


def _longer(groups: Sequence[SeedGroup]) -> str:
    """Whether anybody ranks held-out pairs better than the rule that needs no training."""
    accuracy = "heldout_reward_accuracy"
    rule, by_seed = longer(groups, accuracy), longer_by_seed(groups, accuracy)
    ranked = _ranked(groups, accuracy, reverse=True)
    if rule is None or not ranked:
        return ""
    best, baseline = _with_number(*ranked[0]), f"'{LONGER}' ({mean_pm(rule)})"
    if ranked[0][1].mean <= rule.mean + ROUNDING:
        return f"warning: the best held-out reward accuracy, {best}, does not beat {baseline}."
    # seed by seed: where seeds hold out different pairs, both accuracies move with the pairs
    paired = [(g, _over_seeds(g, accuracy, by_seed)) for g, _ in ranked]
    tests = against_baseline([(g, e) for g, e in paired if e is not None], pairs_variance(groups, rule))
    if not tests.tested:
        return f"best held-out reward accuracy, {best}, above {baseline}; {SINGLE}."
    proviso = f" ({tests.corrected})" if tests.corrected else ""
    beaten = [(g, e) for g, e in ranked if e.mean > rule.mean and tests.holds(g)]
    if not beaten:
        return (
            f"warning: the best held-out reward accuracy, {best}, is not significantly different from "
            f"{baseline}{proviso}."
        )
    whom = listed([_with_number(*x) for x in beaten])
    return f"held-out reward accuracy beats {baseline} under {whom}{proviso}."


def _minus(e: Estimate, baseline: float) -> Estimate:
    return replace(e, mean=e.mean - baseline)


def _over_seeds(g: SeedGroup, name: str, baseline: Mapping[int, float]) -> Estimate | None:
    """A metric minus the baseline of the same seed, over the seeds that have both."""
    return estimate(v - baseline[s] for s, v in g.values(name).items() if v is not None and s in baseline)


def _with_number(g: SeedGroup, e: Estimate) -> str:
    return f"{clean(g.label)} ({mean_pm(e)})"


def _left(tests: Comparison, groups: Sequence[SeedGroup]) -> str:
    """Which of the groups a correction leaves."""
    names = [clean(g.label) for g in groups if tests.holds(g)]
    if len(names) == len(groups):
        return "it so" if len(names) == 1 else "all of them"
    return listed(names) if names else "none of them"


def _ranked(groups: Sequence[SeedGroup], name: str, reverse: bool) -> list[tuple[SeedGroup, Estimate]]:
    """Groups without a diverged run by their mean, best first."""
    means = [(g, e) for g in groups if set(g.status) == {"ok"} and (e := g.estimate(name)) is not None]
    return sorted(means, key=lambda pair: pair[1].mean, reverse=reverse)


def _separation(a: Estimate, b: Estimate, whom: str = "") -> str:
    if a.interval is None or b.interval is None:
        return f"; {SINGLE}"
    # stricter than a test of the difference: intervals that touch may still differ at 5 %
    apart = a.interval[1] < b.interval[0] or b.interval[1] < a.interval[0]
    return "" if apart else f"; not significantly different{whom}: the intervals overlap"
