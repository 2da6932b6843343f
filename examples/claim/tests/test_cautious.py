"""The claim is found, and holds by the numbers that its file names."""

import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def claim(tmp_path_factory):
    command = [
        sys.executable,
        "-m",
        "xpo_bench",
        "claims",
        "cdpo-stops",
        "--json",
        "--quiet",
        "--device",
        "cpu",
    ]
    words = [*command, "--out", str(tmp_path_factory.mktemp("claims"))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["claims"]
    return found


def test_the_claim_holds(claim):
    assert claim["verdict"] == "holds"
    assert claim["origin"].startswith("xpo-bench-cautious")
    assert claim["algorithms"] == ["cdpo", "dpo"]


def test_the_rejected_answer_keeps_what_was_assumed(claim):
    first, second, third, _ = claim["tests"]
    assert first["mean_a"] == pytest.approx(0.05, abs=1e-6)
    assert second["mean_a"] == pytest.approx(0.2, abs=1e-6)
    assert third["mean_a"] < 0.001
