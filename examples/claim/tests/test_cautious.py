"""The claim is found, and holds by the numbers that its file names."""

import json

import pytest
from click.testing import CliRunner

from xpo_bench.cli import main


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    words = [
        "claims",
        "cdpo-stops",
        "--json",
        "--quiet",
        "--out",
        str(tmp_path_factory.mktemp("claims")),
        "--device",
        "cpu",
    ]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_claim_holds(ledger):
    (claim,) = ledger["claims"]
    assert claim["verdict"] == "holds"
    assert claim["origin"].startswith("xpo-bench-cautious")
    assert claim["algorithms"] == ["cdpo", "dpo"]


def test_the_rejected_answer_keeps_what_was_assumed(ledger):
    first, second, third, _ = ledger["claims"][0]["tests"]
    assert first["mean_a"] == pytest.approx(0.05, abs=1e-6)
    assert second["mean_a"] == pytest.approx(0.2, abs=1e-6)
    assert third["mean_a"] < 0.001
