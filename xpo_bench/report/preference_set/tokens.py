"""Quantities of a preference set under one model: its tokens, what is truncated, and the CHES score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpo_bench.contract.examples import Example, Pair, Single, Text
from xpo_bench.contract.settings import ModelSpec
from xpo_bench.data import statistics
from xpo_bench.data.dataset import Examined
from xpo_bench.data.formats import shown as short
from xpo_bench.errors import UsageError
from xpo_bench.policy.language.ches import ches
from xpo_bench.policy.language.fit import EQUAL, fit
from xpo_bench.policy.language.reader import Reader, load_reader
from xpo_bench.policy.language.token_counts import token_rows
from xpo_bench.policy.language.tokenizers import ModelTokenizer
from xpo_bench.random_streams import stream
from xpo_bench.report.format import ABSENT, number
from xpo_bench.report.preference_set.content import (
    Quantity,
    accuracy,
    accuracy_shown,
    fraction,
    of,
    quantity,
    reasons_shown,
    spread,
)
from xpo_bench.report.preference_set.rows import Tell, distances, lengths, longer_is_desirable

CHUNK = 2048
"""Rows that are tokenised between two lines of progress."""
NAMED = 5
"""Pairs with the highest CHES that are named."""


@dataclass
class Tokenised:
    """What is kept of the rows in tokens: numbers, no ids.

    Args:
        usable: index -> the row as the model takes it (`fit`). reasons: reason -> rows left out.
        prompts: tokens of each readable row's prompt. sides: of its completions. index: which rows these are.
        distances: of pairs. ended: completions that end with an end token.
    """

    usable: dict[int, Example] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    prompts: list[int] = field(default_factory=list)
    sides: list[tuple[int, ...]] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    ended: int = 0
    truncated: int = 0
    merged: int = 0


def model_quantities(
    found: Examined, spec: ModelSpec, truncate: str, *, pairs: int, device: str, tell: Tell
) -> tuple[dict[str, Any], dict[str, tuple[str, dict[str, Any]]], list[Quantity]]:
    """Facts about the model, the quantities that texts have in tokens too (name -> in words, as data), and
    those of this model.

    Args:
        pairs: how many pairs CHES is computed on, at most, drawn with a fixed seed; 0 leaves the model's
            weights alone.
    """
    every = [*found.dataset.train, *found.dataset.heldout]
    tell("reading the tokenizer", 0, 0)
    reader = load_reader(spec)
    seen = _tokenise(every, reader, spec, truncate, tell)
    n = len(every)
    out: list[Quantity] = []
    equal = seen.reasons.pop(EQUAL, 0)
    left_out = dict(sorted(seen.reasons.items()))
    value = {
        "count": seen.truncated,
        "fraction": fraction(seen.truncated, n),
        "context": reader.context,
        "truncate": truncate,
    }
    out.append(
        quantity(
            "truncated",
            f"longer than {reader.context:,} tokens",
            of(seen.truncated, n, "rows truncated"),
            value,
        )
    )
    count = sum(left_out.values())
    shown = of(count, n, "rows") + (f": {reasons_shown(left_out)}" if left_out else "")
    out.append(quantity("left_out", "left out with this model", shown, {"count": count, "reasons": left_out}))
    if isinstance(every[0], Pair):
        value = {"count": equal, "fraction": fraction(equal, n)}
        out.append(quantity("equal_ids", "equal token ids", of(equal, n, "pairs"), value))
    value = {"count": seen.merged, "fraction": fraction(seen.merged, n)}
    out.append(quantity("boundary_merges", "boundary merges", of(seen.merged, n, "rows"), value))
    out += [_template(found, spec), _end_token(every, seen, reader, spec)]
    facts: dict[str, Any] = {"name": spec.name, "tokenizer": reader.tokenizer.name, "context": reader.context}
    if pairs and isinstance(every[0], Pair):
        out += _ches(found, seen.usable, spec, truncate, pairs, device, tell)
    return facts, _in_tokens(every, seen), out


def _in_tokens(every: Sequence[Example], seen: Tokenised) -> dict[str, tuple[str, dict[str, Any]]]:
    out = {"lengths": lengths(seen.prompts, seen.sides)}
    if not isinstance(every[0], Pair):
        singles = [e for i in seen.index if isinstance(e := every[i], Single)]
        return out | {"length_bias": longer_is_desirable(singles, [side[0] for side in seen.sides])}
    used = [k for k, i in enumerate(seen.index) if not _tie(every[i])]
    wins = statistics.longer_wins([seen.sides[k][0] for k in used], [seen.sides[k][1] for k in used])
    value = accuracy(wins, statistics.prompt_index([every[seen.index[k]] for k in used]))
    return out | {
        "length_bias": (accuracy_shown(value), value),
        "edit_distance": distances(np.array(seen.distances)),
    }


def _tokenise(
    every: Sequence[Example], reader: Reader, spec: ModelSpec, truncate: str, tell: Tell
) -> Tokenised:
    seen = Tokenised()
    for start in range(0, len(every), CHUNK):
        tell("tokenising rows", start, len(every))
        part = every[start : start + CHUNK]
        found = token_rows(reader.tokenizer, part, spec.eos)
        readable = [i for i, row in enumerate(found.rows) if row is not None]
        seen.reasons.update({"no tokens": len(part) - len(readable)} if len(readable) < len(part) else {})
        ids = [row.completions for row in found.rows if row is not None]
        seen.prompts += [row.prompt for row in found.rows if row is not None]
        seen.sides += [tuple(len(side) for side in sides) for sides in ids]
        seen.index += [start + i for i in readable]
        seen.ended += sum(side[-1] in reader.tokenizer.stops for sides in ids for side in sides)
        if isinstance(part[0], Pair):
            seen.distances += statistics.edit_distances([(sides[0], sides[1]) for sides in ids]).tolist()
        fitted = fit(
            reader.tokenizer,
            [part[i] for i in readable],
            context=reader.context,
            eos=spec.eos,
            truncate=truncate,
        )
        seen.reasons.update(fitted.reasons)
        seen.truncated += fitted.truncated
        seen.merged += fitted.merged
        for place, (i, example) in enumerate(zip(readable, fitted.examples, strict=True)):
            if place not in fitted.left_out:
                seen.usable[start + i] = example
    return seen


def _tie(e: Example) -> bool:
    return isinstance(e, Pair) and e.p_chosen == statistics.TIE


def _template(found: Examined, spec: ModelSpec) -> Quantity:
    kind, date = found.dataset.template, found.dataset.template_date
    words = {
        "model": f"the chat template of {spec.name}",
        "plain": "the suite's plain one (User: ..., Assistant: ...), the model has none",
        None: "none, all rows are text",
    }
    shown = words[kind] + (f", which was told the date {date}" if date else "")
    return quantity("template", "chat template", shown, {"kind": kind, "date": date})


def _end_token(every: Sequence[Example], seen: Tokenised, reader: Reader, spec: ModelSpec) -> Quantity:
    tokenizer = reader.tokenizer
    rendered = any(isinstance(e.prompt, Text) and e.prompt.rendered for e in every)
    own = tokenizer.terminator if isinstance(tokenizer, ModelTokenizer) else None
    token = own if rendered else tokenizer.eos if spec.eos else None
    total = sum(len(side) for side in seen.sides)
    by = "the chat template" if rendered else "the suite"
    name = _token_name(reader, token)
    shown = f"{name} (id {token}), by {by}; " if token is not None else "none; "
    shown += f"{of(seen.ended, total, 'completions')} end with an end token"
    value = {
        "id": token,
        "token": name,
        "by": by if token is not None else None,
        "ended": seen.ended,
        "completions": total,
    }
    return quantity("end_token", "end token", shown, value)


def _token_name(reader: Reader, token: int | None) -> str | None:
    if token is None:
        return None
    if isinstance(reader.tokenizer, ModelTokenizer):
        return str(reader.tokenizer.inner.convert_ids_to_tokens(token))
    return "EOS"


def _ches(
    found: Examined,
    usable: Mapping[int, Example],
    spec: ModelSpec,
    truncate: str,
    pairs: int,
    device: str,
    tell: Tell,
) -> list[Quantity]:
    from xpo_bench.policy.language.causal_lm import CausalLM

    order = stream(0, "data", "ches").permutation(len(usable))[:pairs]
    everything = list(usable)
    chosen = sorted(everything[i] for i in order)
    rows = [e for i in chosen if isinstance(e := usable[i], Pair)]
    if not rows:
        return []
    tell(f"loading {spec.name}", 0, 0)
    policy = CausalLM.load(spec, init_seed=0, device=device)
    try:
        scores = ches(policy, rows, truncate, lambda done: tell("CHES of completions", done, 2 * len(rows)))
    except UsageError as error:
        value: dict[str, Any] = {"n": 0, "of": len(usable), "reason": str(error)}
        return [quantity("ches", "CHES", f"{ABSENT} ({error})", value)]
    sample = "all" if len(rows) == len(usable) else f"{len(rows):,} of {len(usable):,}"
    out = []
    for name, title, values in (
        ("ches", "CHES", scores.sums),
        ("ches_normalised", "CHES per token", scores.means),
    ):
        top = np.argsort(-values, kind="stable")[:NAMED]
        highest = [_named(found, chosen[k], rows[k], float(values[k])) for k in top]
        known = spread(values)
        median, high, most = (number(known[key]) for key in ("median", "p95", "max"))
        shown = f"of {sample} pairs: median {median}, 95 % {high}, max {most}\n"
        shown += "highest: " + ", ".join(f"row {row['row']:,} ({number(row['value'])})" for row in highest)
        out.append(
            quantity(name, title, shown, {**known, "n": len(rows), "of": len(usable), "highest": highest})
        )
    return out


def _named(found: Examined, index: int, e: Pair, value: float) -> dict[str, Any]:
    texts = {"prompt": e.prompt, "chosen": e.chosen, "rejected": e.rejected}
    return {
        "row": found.numbers[index],
        "value": value,
        **{name: short(str(text)) for name, text in texts.items()},
    }
