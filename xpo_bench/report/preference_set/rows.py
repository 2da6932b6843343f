"""Quantities of a preference set that its texts alone decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xpo_bench.contract.examples import Example, Pair, Single
from xpo_bench.data import statistics
from xpo_bench.data.dataset import Examined
from xpo_bench.data.statistics import Numbers
from xpo_bench.report.format import ABSENT, counted, number
from xpo_bench.report.preference_set.content import (
    Quantity,
    accuracy,
    accuracy_shown,
    by_unit,
    fraction,
    lengths_shown,
    of,
    quantity,
    reasons_shown,
    spread,
)
from xpo_bench.statistics import improvement

NEAR = 0.1
"""Normalised edit distance below which a pair counts as nearly equal."""
KTO_RATIO = 4 / 3
"""Upper end of the range for λ_D·n_D/(λ_U·n_U), whose lower end is 1 (Ethayarajh et al. 2024)."""

Tell = Callable[[str, int, int], None]
"""Is called with what is being done, how much of it is, and out of how much."""


def text_quantities(found: Examined, tell: Tell) -> list[Quantity]:
    """Everything that needs no tokenizer."""
    dataset = found.dataset
    every = [*dataset.train, *dataset.heldout]
    out = [_bad_rows(found)]
    notes = dict(getattr(dataset, "notes", {}))
    if notes:
        out.append(quantity("odd_rows", "odd rows", reasons_shown(notes), {"reasons": notes}))
    out += [_repeated(every), _shared(every), _overlap(dataset.train, dataset.heldout), _contradictory(every)]
    pairs, singles = [e for e in every if isinstance(e, Pair)], [e for e in every if isinstance(e, Single)]
    if pairs:
        out += [_ties(pairs), _unanimous(pairs), _intransitive(pairs), _length_bias(pairs)]
        out += [_edit_distance(pairs, tell), _spaces(pairs)]
    if singles:
        out += [_balance(singles), _both_labels(singles), _unpaired_lengths(singles)]
    out.append(_lengths(every))
    return out


def _bad_rows(found: Examined) -> Quantity:
    reasons = dict(found.dataset.dropped)
    count = sum(reasons.values())
    shown = of(count, found.dataset.rows, "rows") + (f": {reasons_shown(reasons)}" if reasons else "")
    shown += "".join(f"\nrow {bad.row:,}: {bad.message}" for bad in found.bad)
    first = [{"row": bad.row, "reason": bad.reason, "message": bad.message} for bad in found.bad]
    return quantity("bad_rows", "bad rows", shown, {"count": count, "reasons": reasons, "first": first})


def _repeated(every: Sequence[Example]) -> Quantity:
    count = statistics.repeated(every)
    value = {"count": count, "fraction": fraction(count, len(every))}
    return quantity("repeated_rows", "repeated rows", of(count, len(every), "rows"), value)


def _shared(every: Sequence[Example]) -> Quantity:
    shared = statistics.shared_completions(every)
    shown = f"{shared.completions:,}" + (f", in {of(shared.rows, len(every), 'rows')}" if shared.rows else "")
    value = {"count": shared.completions, "rows": shared.rows, "fraction": fraction(shared.rows, len(every))}
    return quantity("shared_completions", "completions under several prompts", shown, value)


def _overlap(train: Sequence[Example], heldout: Sequence[Example]) -> Quantity:
    both, n = statistics.overlap(train, heldout), len(heldout)
    value: dict[str, Any] = {
        "heldout_rows": n,
        "prompts": both.prompts,
        "prompt_rows": both.prompt_rows,
        "completions": both.completions,
        "completion_rows": both.completion_rows,
    }
    shown = (
        f"{counted(both.prompts, 'prompt')}, in {of(both.prompt_rows, n, 'held-out rows')}; "
        f"{counted(both.completions, 'completion')}, in {of(both.completion_rows, n, 'held-out rows')}"
    )
    return quantity(
        "split_overlap", "on both sides of the split", shown if n else "no split: nothing is held out", value
    )


def _contradictory(every: Sequence[Example]) -> Quantity:
    both = statistics.contradictions(every)
    value = {
        "count": both.contradictory,
        "comparisons": both.comparisons,
        "fraction": fraction(both.contradictory, both.comparisons),
        "rows": both.rows,
    }
    if isinstance(every[0], Pair):
        shown = of(both.contradictory, both.comparisons, "compared pairs")
        return quantity("contradictory", "contradictory pairs", shown, value)
    shown = of(both.contradictory, both.comparisons, "completions")
    return quantity("contradictory", "completions with both labels", shown, value, "contradictory_labels")


def _ties(pairs: Sequence[Pair]) -> Quantity:
    count = sum(e.p_chosen == statistics.TIE for e in pairs)
    return quantity(
        "ties",
        "ties",
        of(count, len(pairs), "rows"),
        {"count": count, "fraction": fraction(count, len(pairs))},
    )


def _unanimous(pairs: Sequence[Pair]) -> Quantity:
    known, count = statistics.unanimity(pairs)
    shown = (
        of(count, known, "rows with a known probability") if known else f"{ABSENT} (no votes, no p_chosen)"
    )
    return quantity(
        "unanimous", "unanimous", shown, {"count": count, "known": known, "fraction": fraction(count, known)}
    )


def _intransitive(pairs: Sequence[Pair]) -> Quantity:
    found = statistics.intransitive(pairs)
    shown = of(found.cyclic, found.compared, "triples") if found.compared else "no triple is fully compared"
    value = {
        "count": found.cyclic,
        "compared": found.compared,
        "fraction": fraction(found.cyclic, found.compared),
    }
    return quantity("intransitive", "intransitive triples", shown, value)


def _length_bias(pairs: Sequence[Pair]) -> Quantity:
    used = [e for e in pairs if e.p_chosen != statistics.TIE]
    wins = statistics.longer_wins([len(e.chosen) for e in used], [len(e.rejected) for e in used])
    value = accuracy(wins, statistics.prompt_index(used))
    return by_unit("length_bias", "always the longer", accuracy_shown(value), value)


def _edit_distance(pairs: Sequence[Pair], tell: Tell) -> Quantity:
    sides = [(str(e.chosen), str(e.rejected)) for e in pairs]
    found = statistics.edit_distances(sides, lambda done: tell("edit distances of pairs", done, len(pairs)))
    return by_unit("edit_distance", "edit distance in pairs", *distances(found))


def distances(found: Numbers) -> tuple[str, dict[str, Any]]:
    """Normalised edit distances of pairs, in words and as data."""
    near = int((found < NEAR).sum())
    value = {**spread(found), "near": near, "near_fraction": fraction(near, len(found)), "near_below": NEAR}
    if not len(found):
        return ABSENT, value
    low, middle = number(value["p5"]), number(value["median"])
    return f"median {middle}, 5 % below {low}; {of(near, len(found), 'pairs')} below {NEAR:g}", value


def _spaces(pairs: Sequence[Pair]) -> Quantity:
    count = statistics.same_but_for_spaces(pairs)
    value = {"count": count, "fraction": fraction(count, len(pairs))}
    return quantity("equal_but_for_spaces", "equal but for spaces", of(count, len(pairs), "pairs"), value)


def _balance(singles: Sequence[Single]) -> Quantity:
    good = sum(e.desirable for e in singles)
    bad = len(singles) - good
    value: dict[str, Any] = {"desirable": good, "undesirable": bad, "fraction": fraction(good, len(singles))}
    value |= {"desirable_weight": None, "undesirable_weight": None}
    shown = of(good, len(singles), "rows are desirable")
    if good and bad:
        # the weight of the label that is rarer rises above 1, the other stays
        field, low, high = (
            ("desirable_weight", bad / good, KTO_RATIO * bad / good)
            if good <= bad
            else ("undesirable_weight", good / bad / KTO_RATIO, good / bad)
        )
        value[field] = [low, high]
        shown += f"; kto.{field} of {number(low)} to {number(high)}"
    return quantity("balance", "balance", shown, value)


def _both_labels(singles: Sequence[Single]) -> Quantity:
    labels: dict[str, set[bool]] = {}
    for e in singles:
        labels.setdefault(e.prompt, set()).add(e.desirable)
    both = sum(len(seen) > 1 for seen in labels.values())
    value = {"count": both, "prompts": len(labels), "fraction": fraction(both, len(labels))}
    return quantity("prompts_with_both", "prompts with both labels", of(both, len(labels), "prompts"), value)


def _unpaired_lengths(singles: Sequence[Single]) -> Quantity:
    shown, value = longer_is_desirable(singles, [len(e.completion) for e in singles])
    return by_unit("length_bias", "the desirable is longer", shown, value, "length_bias_unpaired")


def longer_is_desirable(singles: Sequence[Single], lengths: Sequence[int]) -> tuple[str, dict[str, Any]]:
    """The probability that a desirable completion is longer than an undesirable one, ties counting ½."""
    good, bad = (
        [n for e, n in zip(singles, lengths, strict=True) if e.desirable == side] for side in (True, False)
    )
    found = improvement(good, bad) if good and bad else None
    return number(found), {"accuracy": found, "ci95": None, "n": len(singles)}


def _lengths(every: Sequence[Example]) -> Quantity:
    prompts = {e.prompt: len(e.prompt) for e in every}
    sides = [tuple(map(len, statistics.completions(e))) for e in every]
    return by_unit("lengths", "median / 95 % / max", *lengths([prompts[e.prompt] for e in every], sides))


def lengths(prompts: Sequence[int], sides: Sequence[Sequence[int]]) -> tuple[str, dict[str, Any]]:
    """Lengths of prompts, completions and rows (prompt and longer completion), in words and as data."""
    if not prompts:
        return ABSENT, {}
    columns = np.asarray(sides).T
    names = ("chosen", "rejected") if len(columns) == 2 else ("completion",)
    value: dict[str, Any] = {
        "prompt": spread(prompts),
        **{n: spread(c) for n, c in zip(names, columns, strict=True)},
    }
    value["row"] = spread(np.asarray(prompts) + columns.max(0))
    return "; ".join(f"{part} {lengths_shown(found)}" for part, found in value.items()), value
