"""What the numbers of a run show, in sentences that follow from them by fixed rules."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from xpo_bench.report.format import clean, listed, mean_pm, number
from xpo_bench.report.items import ItemReader, no_items
from xpo_bench.report.rejected import rejected
from xpo_bench.report.runs import SeedGroup
from xpo_bench.report.tables.longer_rule import LONGER, longer, longer_by_seed, pairs_variance
from xpo_bench.report.verdicts.headline import moved
from xpo_bench.report.verdicts.paired import Rule, against_rule, always_longer, coin
from xpo_bench.statistics import ROUNDING, Comparison, Estimate, against_baseline, estimate, holm

CHANCE = 0.5
NAMED = 3
"""Groups of one class that get their numbers in the sentence; the rest are named."""
SINGLE = "a single run each, so without an interval"


def findings(groups: Sequence[SeedGroup], items: ItemReader = no_items) -> list[str]:
    """One or more true sentences per task, in the order of the tasks.

    Rules: what became of rejected completions is `notes.rejected_state` of the runs; an algorithm has
    collapsed, or is saturated, when at least half of its runs have. Probabilities of completions are
    geometric means over pairs and runs. A mean is significantly different from a baseline (chance, the
    initial policy, always preferring the longer completion) when p is below 0.05, after Holm's correction
    where a sentence compares more than one algorithm with it. On held-out pairs p is over runs and clusters
    of items; where a run stored no items, over runs, with the sampling error of the pairs added where all
    seeds hold out the same ones. Which of two algorithms is better is said by the verdicts alone.

    Args:
        items: how held-out items are read.
    """
    out: list[str] = []
    for task in dict.fromkeys(g.task for g in groups):
        here = [g for g in groups if g.task == task and g.counted]
        for sentence in (
            _gold(here),
            rejected(here),
            _unlearning(here),
            _heldout(here, items),
            _longer(here, items),
        ):
            if sentence:
                out.append(f"{clean(task)}: {sentence}")
    return out


def _heldout(groups: Sequence[SeedGroup], items: ItemReader) -> str:
    """Whether anybody ranks held-out pairs better than a coin, and how much of the training accuracy is left.

    Who is best, and whether it can be told, is said by the verdict on the task.
    """
    ranked = [(g, e) for g, e in _ranked(groups, "heldout_reward_accuracy", reverse=True) if moved(g)]
    if not ranked:
        return ""
    top = ranked[0][1]
    level = [g for g, e in ranked if e.mean == top.mean]
    # without items: chance is exact, so that the spread over seeds is all the error that is known
    above = _beyond(ranked, coin, items) or against_baseline([(g, _minus(e, CHANCE)) for g, e in ranked])
    parts = []
    if top.mean <= CHANCE or (above.tested and not any(above.holds(g) for g in level)):
        proviso = f" ({above.corrected})" if above.corrected else ""
        best = f"the best held-out reward accuracy, {_with_number(*ranked[0])},"
        level_with = "does not exceed chance" if top.mean <= CHANCE else "is not significantly above chance"
        parts.append(f"{best} {level_with}{proviso if top.mean > CHANCE else ''}")
    gaps = [e.mean for _, e in _ranked(groups, "generalization_gap", reverse=True)]
    if gaps:
        drop = statistics.median(gaps)
        side = "below" if drop >= 0 else "above"
        parts.append(
            f"held-out reward accuracy lies {number(abs(drop))} {side} that on training pairs in the median"
        )
    return f"{'; '.join(parts)}." if parts else ""


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


def _longer(groups: Sequence[SeedGroup], items: ItemReader) -> str:
    """Whether anybody ranks held-out pairs better than the rule that needs no training."""
    accuracy = "heldout_reward_accuracy"
    rule, by_seed = longer(groups, accuracy), longer_by_seed(groups, accuracy)
    ranked = _ranked(groups, accuracy, reverse=True)
    if rule is None or not ranked:
        return ""
    best, baseline = _with_number(*ranked[0]), f"'{LONGER}' ({mean_pm(rule)})"
    if ranked[0][1].mean <= rule.mean + ROUNDING:
        return f"warning: the best held-out reward accuracy, {best}, does not beat {baseline}."
    tests = _beyond(ranked, always_longer, items)
    if tests is None:
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


def _beyond(ranked: Sequence[tuple[SeedGroup, Estimate]], rule: Rule, items: ItemReader) -> Comparison | None:
    """The algorithms tested against a rule on the same items; None where some run stored none."""
    found = [(g, against_rule(g, rule, items)) for g, _ in ranked]
    p_values = [(g, d.p) for g, d in found if d is not None]
    if len(p_values) < len(ranked):
        return None
    known = [(g, p) for g, p in p_values if p is not None]
    return Comparison({g: (p, q) for (g, p), q in zip(known, holm([p for _, p in known]), strict=True)})


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
