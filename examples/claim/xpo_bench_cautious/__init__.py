"""The claim `cdpo-stops`: what conservative DPO is said to do on a preference that is certain."""

from pathlib import Path

from xpo_bench import hookimpl


@hookimpl
def xpo_claims() -> list[Path]:
    return sorted((Path(__file__).parent / "claims").glob("*.toml"))
