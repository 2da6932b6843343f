"""Numbers near the largest double: what diverges is told, and breaks no report."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

import xpo_bench
from xpo_bench.cli import main
from xpo_bench.statistics import difference, estimate, mean, p_value
from xpo_bench.verdicts.differences import over_runs

LARGEST = 1.7e308


def test_the_mean_of_what_adds_up_to_more_than_a_double_holds() -> None:
    assert mean([LARGEST, LARGEST]) == LARGEST
    assert mean([LARGEST, LARGEST, -LARGEST, -LARGEST]) == 0
    assert mean([LARGEST, LARGEST, 1e300]) == pytest.approx(LARGEST / 3 * 2, rel=1e-7)
    assert math.isnan(mean([math.inf, -math.inf]))


def test_estimates_and_tests_of_such_numbers() -> None:
    known = estimate([LARGEST, LARGEST])
    assert known is not None
    assert (known.mean, known.half) == (LARGEST, 0)
    wide = estimate([LARGEST, -LARGEST, LARGEST])
    assert wide is not None
    assert wide.half == math.inf
    assert p_value(wide) == 1
    assert difference([LARGEST, LARGEST], "lower").mean == LARGEST
    assert over_runs([LARGEST, LARGEST], ["a", "b"]).mean == LARGEST


@pytest.mark.parametrize("values", [[LARGEST, LARGEST, LARGEST], [LARGEST, -LARGEST, LARGEST]])
def test_a_metric_that_diverges_breaks_no_report(tmp_path: Path, values: list[float]) -> None:
    xpo_bench.run(["dpo", "ipo"], ["one_pair"], out=tmp_path / "run", steps=4, seeds=3)
    for path in (tmp_path / "run" / "cells").glob("*.json"):
        record = json.loads(path.read_text())
        large = values[record["seed"]] * (1 if record["algorithm"]["name"] == "dpo" else -1)
        record["metrics"] |= {"rejected_logp": large, "gold_reward": large, "regret": large}
        path.write_text(json.dumps(record))
    for options in (["--columns", "rejected_logp,gold_reward"], ["--plan-seeds"], ["--json"]):
        done = CliRunner().invoke(main, ["show", str(tmp_path / "run"), *options])
        assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)
