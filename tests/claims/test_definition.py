"""What a file of a claim may say, and the one line that says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from claim_files import HEAD, RUNS, TEST, WHOLE, claim_file

from xpo_bench.claims.definition import read
from xpo_bench.errors import UsageError


def test_a_claim_is_read(tmp_path: Path) -> None:
    claim = read(claim_file(tmp_path))
    assert (claim.id, claim.paper) == ("mine", "arXiv:0000.00000")
    assert claim.algorithms == ["dpo", "ipo"]
    assert claim.tests[0].runs == claim.blocks[0].name
    assert claim.blocks[0].words["steps"] == 20


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ("nonsense", "not valid TOML"),
        (HEAD + TEST, "one or more tables [[runs]]"),
        (HEAD + RUNS, "one or more tables [[tests]]"),
        (WHOLE.replace("statement", "statment"), "did you mean 'statement'"),
        (WHOLE.replace("steps", "stepz"), "did you mean 'steps'"),
        (WHOLE.replace('"higher"', '"better"'), "claim mine: tests 1.expect"),
        (WHOLE.replace('b = { algo = "ipo" }\n', ""), "wants b, another choice of runs, or value"),
        (WHOLE.replace('metric = "m"\n', ""), "wants a metric, or a note"),
        (WHOLE.replace('metric = "m"', 'note = "state"'), "wants a metric, or a note and what it equals"),
        (WHOLE.replace('algo = "dpo"', 'algorithm = "dpo"'), "wants algo"),
        (WHOLE.replace('"higher"', '"equivalent"'), "no declared margin"),
        (WHOLE.replace('"higher"', '"not lower"'), "no declared margin"),
        (WHOLE.replace("[[tests]]", '[[tests]]\nruns = "other"'), "unknown runs 'other'"),
        (HEAD + RUNS + RUNS + TEST + 'expect = "higher"\n', "give each a name of its own"),
        (WHOLE.replace("seeds = 3", 'seeds = 3\nprotocol = "best"'), "protocol"),
        (WHOLE.replace("steps = 20", 'measure = "m:f"'), "measure wants"),
        (
            WHOLE.replace('metric = "m"', 'metric = "heldout_reward_accuracy"').replace(
                'b = { algo = "ipo" }', "value = 0.5"
            ),
            "share of sampled items",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, body: str, wrong: str) -> None:
    with pytest.raises(UsageError) as found:
        read(claim_file(tmp_path, body))
    assert wrong in str(found.value)
    assert "\n" not in str(found.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "none.toml")
