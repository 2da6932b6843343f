"""All claims that plugins offer: found by name, run one after the other, written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xpo_bench import plugins
from xpo_bench.claims.definition import Claim, read
from xpo_bench.claims.document import KIND, SCHEMA, ClaimEntry, Ledger, tests_of
from xpo_bench.claims.judging import judge_claim
from xpo_bench.claims.running import run
from xpo_bench.compare.speed.installations import git
from xpo_bench.errors import UsageError
from xpo_bench.runner.progress import Reporter
from xpo_bench.version import __version__

Told = Callable[[ClaimEntry], None]


def find(names: Sequence[str], registry: plugins.Registry) -> list[tuple[Claim, str]]:
    """(claim, where it is from) of the claims asked for, all of them by default; files can be named, too.

    Raises:
        UsageError: an unknown name, or a file that is no claim.
    """
    if not names:
        if not registry.claims:
            raise UsageError("no plugin offers a claim; docs/claims.md says how one does")
        names = sorted(registry.claims)
    out = []
    for name in dict.fromkeys(names):
        if name.endswith(".toml"):
            out.append((read(Path(name)), "file"))
        else:
            file, info = registry.claim(name)
            out.append((read(file.path), info.origin))
    return out


def judge_all(
    claims: Iterable[tuple[Claim, str]],
    out: Path,
    reporter: Reporter,
    told: Told,
    *,
    fresh: bool = False,
    **words: Any,
) -> Ledger:
    """Run and judge claims, one after the other.

    Args:
        out: the directory of their run directories. told: is given each claim when it has been judged.
            fresh: compute cells again that are already there. words: where cells run, as for `xpo_bench.run`.
    """
    claims = list(claims)
    entries = []
    for place, (claim, origin) in enumerate(claims, 1):
        reporter.note(f"claim {place} of {len(claims)}: {claim.id}")
        entry = _entry(claim, origin, out / claim.id, reporter, fresh, words)
        entries.append(entry)
        told(entry)
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "commit": _commit(),
        "claims": entries,
    }


def _commit() -> str | None:
    """The commit of the checkout that this file is a part of; None of an installed package."""
    here = Path(__file__)
    try:
        known = git(here.parent, "ls-files", "--error-unmatch", here.name) is not None
        return git(here.parent, "rev-parse", "--short=12", "HEAD") if known else None
    except FileNotFoundError:  # git itself
        return None


def _entry(
    claim: Claim, origin: str, out: Path, reporter: Reporter, fresh: bool, words: dict[str, Any]
) -> ClaimEntry:
    began = time.monotonic()
    ran = run(claim, out, reporter, fresh=fresh, **words)
    judgement = judge_claim(claim, ran)
    records = [r for block in claim.blocks for r in ran(block.name).records]
    return {
        "id": claim.id,
        "statement": claim.statement,
        "paper": claim.paper,
        "section": claim.section,
        "known": claim.known,
        "limits": claim.limits,
        "origin": origin,
        "algorithms": claim.algorithms,
        "verdict": judgement.verdict,
        "when": list(judgement.when),
        "fails_when": list(judgement.against),
        "undecided_when": list(judgement.open),
        "tests": tests_of(judgement),
        "seeds": max((o.difference.runs for o in judgement.outcomes if o.difference), default=0),
        "command": f"xpo-bench claims {claim.id}",
        "run": out.as_posix(),
        "cells": len({r.key for r in records}),
        "seconds": round(time.monotonic() - began, 1),
    }
