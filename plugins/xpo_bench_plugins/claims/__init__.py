"""Published claims, a file each."""

from __future__ import annotations

from pathlib import Path

from xpo_bench import hookimpl


@hookimpl
def xpo_claims() -> list[Path]:
    return sorted(Path(__file__).parent.glob("*.toml"))
