"""What became of the rejected completions of a task, in a sentence: who drove them away, who converged."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xpo_bench.contract.metric import USUAL_SCALE
from xpo_bench.metrics.collapse import DRIFT, MOST
from xpo_bench.report.format import clean, listed, number
from xpo_bench.report.records import Record
from xpo_bench.report.runs import SeedGroup
from xpo_bench.statistics import censored

LONG = 10
"""Tokens from which on a completion's probability is told by the token: 1e-400 tells nobody anything."""
NAMED = 3
"""Groups of one class that get their numbers in the sentence; the rest are named."""
SAID = {
    "collapsed": "collapsed and are still falling under",
    "saturated": "stand still because every gradient has vanished (saturated, not converged) under",
    "falling": "are still falling, not collapsed, under",
    "rising": "are rising under",
    "not converged": "have not converged in every run under",
    "converged": "converged under",
}


def rejected(groups: Sequence[SeedGroup]) -> str:
    """One sentence on the groups of a task, by `notes.rejected_state` of their runs; "" without any.

    An algorithm has collapsed when at least half of its runs have, and is saturated when at least half are.
    """
    classes: dict[str, list[SeedGroup]] = {name: [] for name in SAID}
    untold: dict[str, list[SeedGroup]] = {}
    for g in groups:
        states = [state for r in g.counted if (state := state_of(r))]
        reasons = [r.notes.rejected_state_reason for r in g.counted if r.notes.rejected_state_reason]
        if states:
            classes[_class(states)].append(g)
        elif reasons:
            untold.setdefault(reasons[0], []).append(g)
    parts = [f"{SAID[name]} {listed(_shown(members, name))}" for name, members in classes.items() if members]
    parts += [f"cannot be judged under {_names(members)} ({reason})" for reason, members in untold.items()]
    subject = (
        "completions to forget" if groups and all(g.unlearns for g in groups) else "rejected completions"
    )
    return f"{subject} {'; '.join(parts)}." if parts else ""


def state_of(record: Record) -> str | None:
    """The state of a run, or None where it cannot be told.

    A record from before there was one has that of its `collapsed` and `rejected_drift`, at ±0.1 nats.
    """
    notes, metrics = record.notes, record.metrics
    if notes.rejected_state or notes.rejected_state_reason:
        return notes.rejected_state
    collapsed, drift = metrics.get("collapsed"), metrics.get("rejected_drift")
    if collapsed is None or drift is None:
        return None
    if collapsed >= MOST:
        return "collapsed"
    if abs(drift) <= DRIFT * USUAL_SCALE:
        return "converged"
    return "falling" if drift < 0 else "rising"


def _class(states: Sequence[str]) -> str:
    """What is said of an algorithm whose runs ended in these states."""
    for name in ("collapsed", "saturated"):
        if 2 * states.count(name) >= len(states):
            return name
    one = set(states)
    # a run that has collapsed is falling, too; the sentence says how many have
    falling = one <= {"falling", "collapsed"}
    return one.pop() if len(one) == 1 else "falling" if falling else "not converged"


def _shown(members: Sequence[SeedGroup], name: str) -> list[str]:
    ordered = sorted(members, key=_rejected_logp)
    return [_told(g, name) if i < NAMED else clean(g.label) for i, g in enumerate(ordered)]


def _names(members: Sequence[SeedGroup]) -> str:
    names = [clean(g.label) for g in members]
    return listed(names if len(names) <= NAMED + 1 else [*names[:NAMED], f"{len(names) - NAMED} more"])


def _told(g: SeedGroup, name: str) -> str:
    facts = []
    logp = g.estimate("rejected_logp")
    if runs := sum(v is not None and v >= MOST for v in g.values("collapsed").values()):
        facts.append(f"{runs}/{len(g.counted)} runs{'' if name == 'collapsed' else ' collapsed'}")
    if logp is not None:
        facts.append(_how_probable(logp.mean, _length(g)))
    if name == "collapsed":
        since = censored(g.values("collapse_step").values())
        if since["median"] is not None:
            facts.append(f"from step {since['median']:g}{'' if since['n'] == 1 else ' in the median'}")
    return f"{clean(g.label)} ({', '.join(facts)})" if facts else clean(g.label)


def _rejected_logp(g: SeedGroup) -> float:
    logp = g.estimate("rejected_logp")
    return logp.mean if logp else math.inf


def _length(g: SeedGroup) -> float | None:
    """Mean tokens of the rejected completions over runs; None for records that do not say it."""
    known = [r.notes.rejected_length for r in g.counted if r.notes.rejected_length is not None]
    return sum(known) / len(known) if len(known) == len(g.counted) and known else None


def _how_probable(logp: float, tokens: float | None) -> str:
    """exp of the mean log-probability; of long completions per token, exp(mean logp / mean length)."""
    if tokens is None or tokens < LONG:
        return f"probability {_probability(logp)}"
    return f"probability {_probability(logp / tokens)} a token"


def _probability(logp: float) -> str:
    """exp(logp) for display, also where it underflows: 10^(logp / ln 10)."""
    if logp > -690:
        return number(math.exp(logp))
    return f"1e{math.floor(logp / math.log(10)):d}"
