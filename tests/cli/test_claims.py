"""`xpo-bench claims` as an installed command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from claim_files import HEAD, RUNS, claim_file

from xpo_bench import plugins
from xpo_bench.claims.definition import read

QUICK = (
    HEAD
    + RUNS
    + """
[[tests]]
says = "IPO at a larger τ stays nearer"
metric = "kl"
a = { algo = "ipo" }
b = { algo = "dpo" }
expect = "lower"
"""
)


def test_every_built_in_claim_can_be_read() -> None:
    found = plugins.load(frozenset()).claims
    assert len(found) >= 20
    for name, (file, info) in found.items():
        claim = read(file.path)
        assert claim.id == name
        assert claim.statement.endswith("."), name
        assert claim.known, name
        assert claim.limits, name
        assert info.distribution == "xpo-bench"


def test_a_claim_of_ones_own(warm: Any, tmp_path: Path) -> None:
    claim_file(tmp_path, QUICK)
    first = warm("claims", "mine.toml", "--out", "out", "--md", "ledger.md")
    assert first.code == 0, first.err
    assert "mine: " in first.out
    assert "Known" not in first.out
    assert "a beats b" in (tmp_path / "ledger.md").read_text("utf-8")
    assert "6 cells" in first.err
    again = warm("claims", "mine.toml", "--out", "out", "--json")
    assert "6 already there" in again.err
    ledger = again.json
    assert ledger["kind"] == "xpo-bench claims"
    (entry,) = ledger["claims"]
    assert entry["cells"] == 6
    assert entry["origin"] == "file"
    (test,) = entry["tests"]
    # the numbers are those of the records, in the order that the claim names them
    cells = [json.loads(p.read_text("utf-8")) for p in (tmp_path / "out/mine/cells").glob("*.json")]
    kl = {c["algorithm"]["name"]: c["metrics"]["kl"] for c in cells}
    assert (test["mean_a"], test["mean_b"]) == (kl["ipo"], kl["dpo"])
    assert test["difference"]["mean"] == kl["ipo"] - kl["dpo"]


def test_a_verdict_that_flips_fails(warm: Any, tmp_path: Path) -> None:
    claim_file(tmp_path, QUICK)
    said = warm("claims", "mine.toml", "--out", "out", "--json", "--quiet")
    (tmp_path / "old.json").write_text(said.out, encoding="utf-8")
    assert warm("claims", "mine.toml", "--out", "out", "--against", "old.json").code == 0
    old = json.loads(said.out)
    was = old["claims"][0]["verdict"]
    old["claims"][0]["verdict"] = "fails" if was == "holds" else "holds"
    (tmp_path / "old.json").write_text(json.dumps(old), encoding="utf-8")
    flipped = warm("claims", "mine.toml", "--out", "out", "--against", "old.json")
    assert flipped.code == 3
    assert f"verdict changed: mine: was {old['claims'][0]['verdict']}, is {was}" in flipped.err


def test_what_is_wrong_is_one_line(warm: Any, tmp_path: Path) -> None:
    unknown = warm("claims", "ipo-stop")
    assert unknown.code == 2
    assert "did you mean 'ipo-stops'" in unknown.err
    claim_file(tmp_path, QUICK.replace('"dpo", "ipo"', '"dpo", "ippo"'))
    wrong = warm("claims", "mine.toml")
    assert wrong.code == 2
    assert "claim mine: unknown algorithm 'ippo'" in wrong.err
    (tmp_path / "no.json").write_text("{}", encoding="utf-8")
    assert "no ledger" in warm("claims", "mine.toml", "--against", "no.json").err
    both = warm("claims", "mine.toml", "--json", "--md", "-")
    assert (both.code, "both write to stdout" in both.err) == (2, True)
    missing = warm("claims", "mine.toml", "--md", "none/ledger.md")
    assert (missing.code, "name a file in a directory that exists" in missing.err) == (2, True)


def test_a_failed_cell_is_no_verdict(warm: Any, tmp_path: Path) -> None:
    claim_file(tmp_path, QUICK.replace('metric = "kl"', 'metric = "attained_1"'))
    found = warm("claims", "mine.toml", "--out", "out")
    assert found.code == 1
    assert "mine: undecided" in found.out
    assert "no seed has attained_1 on both sides" in found.err


def test_a_function_is_measured_once_per_seed(warm: Any, tmp_path: Path) -> None:
    (tmp_path / "own_measure.py").write_text(
        "def twice(seed):\n    print('measuring')\n    return {'low': seed, 'high': 2.0 * seed + 5}\n"
    )
    body = """
[[runs]]
name = "own"
measure = "own_measure:twice"
seeds = 3

[[tests]]
says = "it is at least 5"
metric = "high"
a = { algo = "own" }
value = 4.0
expect = "higher"
"""
    claim_file(tmp_path, HEAD + body)
    first = warm("claims", "mine.toml", "--out", "out", "--json", PYTHONPATH=str(tmp_path))
    assert first.code == 0, first.err
    assert first.json["claims"][0]["tests"][0]["mean_a"] == 7.0
    assert first.err.count("measuring") == 3
    words = ("claims", "mine.toml", "--out", "out")
    assert "measuring" not in warm(*words, PYTHONPATH=str(tmp_path)).err
    assert "measuring" in warm(*words, "--refresh", PYTHONPATH=str(tmp_path)).err
