"""What the numbers of a run show, in sentences that follow from them by fixed rules."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from xpo_bench.metrics.collapse import FALLING
from xpo_bench.report.format import clean, listed, mean_pm, number
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.tables.longer_rule import LONGER, longer, longer_by_seed, pairs_variance
from xpo_bench.statistics import ROUNDING, Comparison, Estimate, against_baseline, censored, estimate

MOST = 0.5
"""A run has collapsed when at least this fraction of its pairs has."""
CHANCE = 0.5
LONG = 10
"""Tokens from which on a completion's probability is told by the token: 1e-400 tells nobody anything."""
NAMED = 3
"""Groups of one class that get their numbers in the sentence; the rest are named."""
SINGLE = "a single run each, so without an interval"
SAID = {
    "collapsed": "collapsed and are still falling under",
    "falling": "are still falling, not collapsed, under",
    "rising": "are rising under",
    "not converged": "have not converged in every run under",
    "converged": "converged under",
}


def findings(groups: Sequence[SeedGroup]) -> list[str]:
    """One or more true sentences per task, in the order of the tasks.

    Rules: a run has collapsed when at least half of its pairs have (`collapsed`), and an algorithm when at
    least half of its runs have; otherwise its rejected completions have converged when no run's
    rejected_drift is beyond ±0.1 nats, and fall or rise when its mean is. Probabilities of completions are
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
    """Who drove the rejected completions away, and who converged."""
    classes: dict[str, list[SeedGroup]] = {name: [] for name in SAID}
    for g in groups:
        collapsed, drift = g.estimate("collapsed"), g.estimate("rejected_drift")
        if collapsed is None or drift is None:
            continue
        runs = _collapsed_runs(g)
        if runs and 2 * runs >= len(g.counted):
            classes["collapsed"].append(g)
        elif all(v is not None and abs(v) <= -FALLING for v in g.values("rejected_drift").values()):
            classes["converged"].append(g)
        elif abs(drift.mean) <= -FALLING:  # some runs rise and others fall
            classes["not converged"].append(g)
        else:
            classes["falling" if drift.mean < 0 else "rising"].append(g)
    parts: list[str] = []
    for name, members in classes.items():
        if members:
            shown = [
                _told(g, name) if i < NAMED else clean(g.label) for i, g in enumerate(_extreme_first(members))
            ]
            parts.append(f"{SAID[name]} {listed(shown)}")
    subject = (
        "completions to forget" if groups and all(g.unlearns for g in groups) else "rejected completions"
    )
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
        logp = g.estimate("rejected_logp")
        return logp.mean if logp else math.inf

    return sorted(groups, key=key)


def _how_probable(logp: float, per_token: Estimate | None) -> str:
    """The probability of a completion; of long ones that of a token."""
    # logp / ln(probability of a token) is the number of tokens
    if per_token is None or not 0 < per_token.mean < 1 or logp / math.log(per_token.mean) < LONG:
        return f"probability {_probability(logp)}"
    return f"probability {number(per_token.mean)} a token"


def _probability(logp: float) -> str:
    """exp(logp) for display, also where it underflows: 10^(logp / ln 10)."""
    if logp > -690:
        return number(math.exp(logp))
    return f"1e{math.floor(logp / math.log(10)):d}"


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
