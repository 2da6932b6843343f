"""The ledger to read: on a terminal, and in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console

from xpo_bench.claims.document import ClaimEntry, Effect, Ledger, TestedEntry, told
from xpo_bench.report.format import ABSENT, clean, counted, number
from xpo_bench.report.render.console import bullet, draw_table, say
from xpo_bench.report.render.markdown import escape, sheet_table
from xpo_bench.report.table import Column, Table

VERDICTS = ("holds", "holds only when", "fails", "undecided")
SAID: Mapping[str, str] = {"supports": "yes", "contradicts": "no", "undecided": "?"}
RULE = (
    "Effect: the first test, with half its 95 % interval, paired over seeds and items; p is corrected by "
    "Holm over the tests of a claim. It holds if all of its tests came out as it says, and fails if, under "
    "every condition that it was tested under, one came out otherwise."
)


def print_claim(console: Console, claim: ClaimEntry) -> None:
    """A claim, its verdict and its tests."""
    say(console, f"{claim['id']}: {told(claim)}", "bold")
    say(console, f"{claim['statement']} ({source(claim)})")
    for test in claim["tests"]:
        bullet(console, sentence(test))
    for line in remarks(claim):
        say(console, line, "dim")
    console.print()


def print_ledger(console: Console, ledger: Ledger) -> None:
    """All verdicts, a line each."""
    draw_table(console, overview(ledger["claims"]))


def overview(claims: Sequence[ClaimEntry]) -> Table:
    """The verdict and the first effect of every claim."""
    first = [claim["tests"][0] for claim in claims]
    tally = {word: sum(claim["verdict"] == word for claim in claims) for word in VERDICTS}
    title = ", ".join(f"{n} {word.removesuffix(' when')}" for word, n in tally.items() if n)
    return Table(
        f"{counted(len(claims), 'claim')}: {title}",
        [
            Column("claim", [clean(c["id"]) for c in claims], left=True),
            Column("verdict", [clean(told(c)) for c in claims], left=True, text=True),
            Column("effect", [effect(t["difference"]) for t in first]),
            Column("of", [clean(t["measure"]) for t in first], left=True, text=True),
            Column("runs", [runs(c) for c in claims]),
            Column("paper", [clean(c["paper"]) for c in claims], left=True),
        ],
        RULE,
    )


def sentence(test: TestedEntry) -> str:
    """What a test came to: `yes: says: kl 0.036 (ipo tau=1) − 0.939 (ipo tau=0.1) = −0.903: lower, p = 0`."""
    when = f"[{test['when']}] " if test["when"] else ""
    own = test["difference"]
    if own is None:
        return f"? {when}{test['says']}: {test['reason']}"
    against = "" if test["b"] == number(test["mean_b"]) else f" ({test['b']})"
    sum_ = f"{number(test['mean_a'])} ({test['a']}) − {number(test['mean_b'])}{against} = {effect(own)}"
    p = f", p = {number(test['p_holm'], 2)}" if is_random(own) and test["p_holm"] is not None else ""
    return f"{SAID[test['said']]}: {when}{test['says']}: {test['measure']} {sum_}: {found(test)}{p}"


def is_random(own: Effect) -> bool:
    """Whether something random is in a difference; without an interval that is not known."""
    return own["ci95"] is None or own["ci95"][1] - own["ci95"][0] > 1e-9 * abs(own["mean"])


def effect(own: Effect | None) -> str:
    """`0.12±0.03`; the difference alone where nothing is random."""
    if own is None:
        return ABSENT
    if own["ci95"] is None or not is_random(own):
        return number(own["mean"])
    return f"{number(own['mean'])}±{number((own['ci95'][1] - own['ci95'][0]) / 2, 2)}"


def found(test: TestedEntry) -> str:
    """What a is against b, and what would decide where nothing can be told."""
    word = test["found"]
    if word == "equivalent":
        return f"equivalent within {number(test['margin'])}"
    if word != "cannot tell":
        as_said = test["said"] == "supports" or test["expected"].startswith("not ")
        return word if as_said else f"{word}, not {test['expected']}"
    more = [(test["seeds_needed"], "seed"), (test["items_needed"], "item")]
    return f"cannot tell{next((f'; about {counted(n, what)} would decide' for n, what in more if n), '')}"


def runs(claim: ClaimEntry) -> str:
    """How many seeds; `exact` where nothing random is in any test."""
    own = [t["difference"] for t in claim["tests"] if t["difference"] is not None]
    return counted(claim["seeds"], "seed") if not own or any(map(is_random, own)) else "exact"


def source(claim: ClaimEntry) -> str:
    """The paper and the section."""
    return clean(", ".join(part for part in (claim["paper"], claim["section"]) if part))


def remarks(claim: ClaimEntry) -> list[str]:
    """What stands below the tests of a claim."""
    named = {
        "Holds when": claim["when"],
        "Fails when": claim["fails_when"],
        "Undecided when": claim["undecided_when"],
    }
    conditions = [f"{name}: {'; '.join(when)}." for name, when in named.items() if any(when)]
    known = [f"Known: {claim['known']}"] if claim["known"] else []
    limits = [f"Limits: {claim['limits']}"] if claim["limits"] else []
    return [*conditions, *known, *limits, f"{counted(claim['cells'], 'cell')}; again by: {claim['command']}"]


def markdown(ledger: Ledger) -> str:
    """The ledger as a page: all verdicts, then every claim with its tests."""
    commit = f", commit {ledger['commit']}" if ledger.get("commit") else ""
    head = f"{ledger['created'][:10]}, xpo-bench {ledger['version']}{commit}"
    parts = ["# The ledger of claims", escape(head), sheet_table(overview(ledger["claims"])), escape(RULE)]
    for claim in ledger["claims"]:
        parts += [f"## {escape(claim['id'])}", claim_markdown(claim)]
    return "\n\n".join(parts) + "\n"


def claim_markdown(claim: ClaimEntry) -> str:
    """One claim, without its heading."""
    tests = "\n".join(f"- {escape(sentence(test))}" for test in claim["tests"])
    head = f"**{escape(told(claim))}.** {escape(claim['statement'])} ({escape(source(claim))})"
    return "\n\n".join([head, tests, *(escape(line) for line in remarks(claim))])
