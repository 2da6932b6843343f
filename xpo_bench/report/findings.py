"""What the numbers of a run show, in sentences that follow from them by fixed rules."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from xpo_bench.metrics.collapse import FALLING
from xpo_bench.report.format import clean, mean_pm, number
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.tables.columns import unlearns
from xpo_bench.report.tables.longer_rule import LONGER, longer, longer_by_seed, pairs_variance
from xpo_bench.statistics import ROUNDING, Comparison, Estimate, against_baseline, censored, estimate

MOST = 0.5
"""A run has collapsed when at least this share of its pairs has."""
CHANCE = 0.5
LONG = 10
"""Tokens from which on a completion is told of by the probability of a token."""
NAMED = 3
"""Groups of one class that get their numbers in the sentence; the rest are named."""
SAID = {
    "collapsed": "collapsed and are still falling under",
    "falling": "are still falling, not collapsed, under",
    "rising": "are rising under",
    "unsettled": "have not settled in every run under",
    "settled": "settled under",
}


def findings(groups: Sequence[SeedGroup]) -> list[str]:
    """One or more true sentences per task, in the order of the tasks.

    Rules: a run has collapsed when at least half of its pairs have (`collapsed`), and an algorithm when at
    least half of its runs have; otherwise its rejected completions have settled when no run's rejected_drift
    is beyond ±0.1 nats, and fall or rise when its mean is. Probabilities of completions are geometric means
    over pairs and runs. Two means are told apart when their 95 % intervals do not overlap. A mean is told
    apart from a baseline (chance, the initial policy, always preferring the longer completion) when the p of
    Student's t over seeds is below 0.05, after Holm's correction where a sentence compares more than one
    algorithm with it; where all seeds hold out the same pairs, the sampling error of the pairs is added for
    the last of these.
    """
    out: list[str] = []
    for task in dict.fromkeys(g.task for g in groups):
        here = [g for g in groups if g.task == task and g.counted]
        for sentence in (
            _gold(here),
            _rejected(here),
            _unlearning(here),
            _frontier(here),
            _heldout(here),
            _longer(here),
        ):
            if sentence:
                out.append(f"{clean(task)}: {sentence}")
    return out


def _rejected(groups: Sequence[SeedGroup]) -> str:
    """Who drove the rejected completions away, and who came to rest."""
    classes: dict[str, list[SeedGroup]] = {name: [] for name in SAID}
    for g in groups:
        collapsed, drift = g.estimate("collapsed"), g.estimate("rejected_drift")
        if collapsed is None or drift is None:
            continue
        runs = _collapsed_runs(g)
        if runs and 2 * runs >= len(g.counted):
            classes["collapsed"].append(g)
        elif all(v is not None and abs(v) <= -FALLING for v in g.values("rejected_drift").values()):
            classes["settled"].append(g)
        elif abs(drift.mean) <= -FALLING:
            classes["unsettled"].append(g)
        else:
            classes["falling" if drift.mean < 0 else "rising"].append(g)
    parts: list[str] = []
    for name, members in classes.items():
        if members:
            shown = [
                _told(g, name) if i < NAMED else clean(g.label) for i, g in enumerate(_extreme_first(members))
            ]
            parts.append(f"{SAID[name]} {_and(shown)}")
    subject = "completions to forget" if groups and all(map(unlearns, groups)) else "rejected completions"
    return f"{subject} {'; '.join(parts)}." if parts else ""


def _told(g: SeedGroup, name: str) -> str:
    facts = []
    logp = g.estimate("rejected_logp")
    if runs := _collapsed_runs(g):
        facts.append(f"{runs}/{len(g.counted)} runs{'' if name == 'collapsed' else ' collapsed'}")
    if logp is not None:
        facts.append(_how_probable(logp.mean, g.estimate("rejected_prob")))
    if name == "collapsed":
        since = censored(g.values("collapse_step").values())
        if since["median"] is not None:
            facts.append(f"from step {since['median']:g}{'' if since['n'] == 1 else ' in the median'}")
    return f"{clean(g.label)} ({', '.join(facts)})" if facts else clean(g.label)


def _collapsed_runs(g: SeedGroup) -> int:
    return sum(v is not None and v >= MOST for v in g.values("collapsed").values())


def _extreme_first(groups: Sequence[SeedGroup]) -> list[SeedGroup]:
    def key(g: SeedGroup) -> float:
        found = g.estimate("rejected_logp")
        return found.mean if found else math.inf

    return sorted(groups, key=key)


def _how_probable(logp: float, per_token: Estimate | None) -> str:
    """The probability of a completion; of long ones that of a token, since 1e-400 tells nobody anything."""
    if per_token is None or not 0 < per_token.mean < 1 or logp / math.log(per_token.mean) < LONG:
        return f"probability {_probability(logp)}"
    return f"probability {number(per_token.mean)} a token"


def _probability(logp: float) -> str:
    """exp(logp) for display, also where it underflows."""
    if logp > -690:
        return number(math.exp(logp))
    return f"1e{math.floor(logp / math.log(10)):d}"


def _frontier(groups: Sequence[SeedGroup]) -> str:
    ranked = _ranked(groups, "frontier_gap", reverse=False)
    if len(ranked) < 2:
        return ""
    (first, best), (second, next_best) = ranked[0], ranked[1]
    sentence = f"lowest frontier_gap: {clean(first.label)} ({mean_pm(best)}), then {clean(second.label)} ({mean_pm(next_best)})"
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
        sentence = f"best held-out reward accuracy: {_and(names)} ({mean_pm(top)})"
        if len(level) < len(ranked):
            sentence += _separation(top, ranked[len(level)][1], f" from {clean(ranked[len(level)][0].label)}")
    above = against_baseline([(g, _minus(e, CHANCE)) for g, e in ranked])
    if top.mean <= CHANCE or (above.tested and not any(above.holds(g) for g in level)):
        sentence += f"; it is not told apart from chance{f' ({above.corrected})' if above.corrected else ''}"
    gaps = [e.mean for _, e in _ranked(groups, "generalization_gap", reverse=True)]
    if gaps:
        sentence += f"; median drop from training pairs {number(statistics.median(gaps))}"
    return sentence + "."


def _gold(groups: Sequence[SeedGroup]) -> str:
    """Who earns more than the initial policy, by intervals that exclude zero."""
    gains = _ranked(groups, "gold_gain", reverse=True)
    found = against_baseline(gains)
    if not found.tested:
        return (
            f"highest gold_gain: {_with_number(*gains[0])}; a single run each, so without an interval."
            if gains
            else ""
        )
    sides = {"above": [x for x in gains if x[1].mean > 0], "below": [x for x in gains[::-1] if x[1].mean < 0]}
    outside = {
        side: sure
        for side, members in sides.items()
        if (sure := [x for x in members if found.excludes_zero(x[0])])
    }
    if not outside:
        return f"no interval of gold_gain excludes zero{f' ({found.compared})' if found.corrected else ''}."
    told = "; ".join(
        f"{side} under {_and([_with_number(*x) for x in members])}" for side, members in outside.items()
    )
    sentence = f"gold_reward against the initial policy's (gold_gain, intervals that exclude zero): {told}"
    if found.corrected:
        members = [g for side in outside.values() for g, _ in side]
        sentence += f"; {found.corrected} leaves {_left(found, members)}"
    return sentence + "."


def _unlearning(groups: Sequence[SeedGroup]) -> str:
    """Under whom what is to be forgotten lost probability, and whether what is to be retained went along."""
    if not groups or not all(map(unlearns, groups)):
        return ""
    changes = _ranked(groups, "forget_change", reverse=False)
    found = against_baseline(changes)
    if not changes:
        return ""
    fell = [(g, e) for g, e in changes if e.mean < 0 and (found.holds(g) if found.tested else True)]
    proviso = found.corrected if found.tested else "a single run each, so without an interval"
    if not fell:
        return f"no algorithm made the completions to forget less likely, beyond doubt{f' ({proviso})' if proviso else ''}."
    told = [
        f"{clean(g.label)} ({mean_pm(e)} nats, to retain {mean_pm(g.estimate('retain_change'))})"
        for g, e in fell
    ]
    return f"completions to forget became less likely under {_and(told)}{f'; {proviso}' if proviso else ''}."


def _longer(groups: Sequence[SeedGroup]) -> str:
    """Whether anybody ranks held-out pairs better than the rule that needs no training."""
    accuracy = "heldout_reward_accuracy"
    rule, by_seed, ranked = (
        longer(groups, accuracy),
        longer_by_seed(groups, accuracy),
        _ranked(groups, accuracy, reverse=True),
    )
    if rule is None or not ranked:
        return ""
    best, baseline = _with_number(*ranked[0]), f"'{LONGER}' ({mean_pm(rule)})"
    if ranked[0][1].mean <= rule.mean + ROUNDING:
        return f"warning: the best held-out reward accuracy, {best}, does not beat {baseline}."
    paired = [(g, _over_seeds(g, accuracy, by_seed)) for g, _ in ranked]
    found = against_baseline([(g, e) for g, e in paired if e is not None], pairs_variance(groups, rule))
    if not found.tested:
        return f"best held-out reward accuracy, {best}, above {baseline}; a single run each, so without an interval."
    proviso = f" ({found.corrected})" if found.corrected else ""
    beaten = [(g, e) for g, e in ranked if e.mean > rule.mean and found.holds(g)]
    if not beaten:
        return (
            f"warning: the best held-out reward accuracy, {best}, is not told apart from {baseline}{proviso}."
        )
    return f"held-out reward accuracy beats {baseline} under {_and([_with_number(*x) for x in beaten])}{proviso}."


def _minus(e: Estimate, baseline: float) -> Estimate:
    return replace(e, mean=e.mean - baseline)


def _over_seeds(g: SeedGroup, name: str, baseline: Mapping[int, float]) -> Estimate | None:
    """A metric minus the baseline of the same seed, over the seeds that have both."""
    return estimate(v - baseline[s] for s, v in g.values(name).items() if v is not None and s in baseline)


def _with_number(g: SeedGroup, e: Estimate) -> str:
    return f"{clean(g.label)} ({mean_pm(e)})"


def _left(found: Comparison, groups: Sequence[SeedGroup]) -> str:
    """Which of the groups a correction leaves."""
    names = [clean(g.label) for g in groups if found.holds(g)]
    if len(names) == len(groups):
        return "it so" if len(names) == 1 else "all of them"
    return _and(names) if names else "none of them"


def _ranked(groups: Sequence[SeedGroup], name: str, reverse: bool) -> list[tuple[SeedGroup, Estimate]]:
    """Groups without a diverged run by their mean, best first."""
    found = [(g, e) for g in groups if set(g.status) == {"ok"} and (e := g.estimate(name)) is not None]
    return sorted(found, key=lambda pair: pair[1].mean, reverse=reverse)


def _separation(a: Estimate, b: Estimate, whom: str = "") -> str:
    if a.interval is None or b.interval is None:
        return "; a single run each, so without an interval"
    apart = a.interval[1] < b.interval[0] or b.interval[1] < a.interval[0]
    return "" if apart else f"; not told apart{whom}: the intervals overlap"


def _and(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
