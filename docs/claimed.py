"""What the last ledger of claims says of an algorithm, for its page."""

from __future__ import annotations

from pathlib import Path

from xpo_bench.claims.document import ClaimEntry, Ledger, read, told
from xpo_bench.claims.pages import sentence
from xpo_bench.report.render.markdown import escape

LEDGER = Path(__file__).parents[1] / "results" / "claims.json"
"""What `xpo-bench claims --json` printed when it was last run as a whole."""
PAGE = "results/claims.md"
"""Where the site has it."""


def last_ledger() -> Ledger | None:
    """The ledger that is committed, None where none is."""
    return read(LEDGER) if LEDGER.is_file() else None


def claims_section(ledger: Ledger | None, algorithm: str) -> list[str]:
    """The blocks of the section on the claims that name an algorithm; none where there are none."""
    found = [claim for claim in ledger["claims"] if algorithm in claim["algorithms"]] if ledger else []
    if ledger is None or not found:
        return []
    return [
        "## What is claimed of it",
        "\n".join(map(_line, found)),
        f"From [the ledger](../{PAGE}) of {ledger['created'][:10]}, xpo-bench {escape(ledger['version'])}"
        f"{_commit(ledger)}. "
        "[What a verdict means, and what it does not](../claims.md).",
    ]


def _commit(ledger: Ledger) -> str:
    return f" (commit {escape(ledger['commit'])})" if ledger.get("commit") else ""


def _line(claim: ClaimEntry) -> str:
    """The claim, its verdict, and the effect of its first test."""
    link = f"[{escape(claim['id'])}](../{PAGE}#{claim['id'].lower()})"
    first = escape(sentence(claim["tests"][0]))
    return f"- {link}: **{escape(told(claim))}**. {escape(claim['statement'])} First test: {first}."
