"""Planted changes are found, and the same thing twice is no change."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparisons import Records, run, said, shaken
from narrow import present
from rich.console import Console
from scipy import stats as scipy_stats

from xpo_bench.compare.baselines import Baseline, document_of, read, thinned
from xpo_bench.compare.margins import MARGINS, with_changes
from xpo_bench.compare.regressions import find_regressions
from xpo_bench.compare.tables import markdown, print_page, regression_page
from xpo_bench.compare.verdicts import judge
from xpo_bench.errors import UsageError
from xpo_bench.metrics.registry import better
from xpo_bench.statistics import difference, sign_flip


def test_the_same_thing_twice_is_the_same_whatever_its_speed() -> None:
    new = run()
    for r in new:
        r["metrics"]["pairs_per_s"] = 1.0
    found = said(run(), new)
    (cell,) = found["cells"]
    assert (found["verdict"], cell["verdict"], cell["identical"], found["comparisons"]) == (
        "pass",
        "same",
        True,
        0,
    )
    assert cell["throughput"] == {"base": 100.0, "new": 1.0}


def test_rounding_is_equivalent() -> None:
    found = said(run(), shaken(run(), 1e-9))
    assert found["verdict"] == "pass"
    assert {row["verdict"] for row in found["tests"]} == {"equivalent"}


@pytest.mark.parametrize(
    ("metric", "shift", "verdict"),
    [
        ("reward_accuracy", -0.1, "regression"),
        ("reward_accuracy", +0.1, "improved"),
        ("frontier_gap", +0.1, "regression"),
        ("frontier_gap", -0.1, "improved"),
        ("kl", +0.5, "regression"),
        ("kl", -0.5, "regression"),
        ("kl", +0.03, "equivalent"),
        ("kl", +0.07, "regression"),
    ],
)
def test_planted_changes(metric: str, shift: float, verdict: str) -> None:
    found = said(run(), shaken(run(shift={metric: shift}), 0.001))
    assert found["verdict"] == ("regression" if verdict == "regression" else "pass")
    (row,) = (row for row in found["tests"] if row["metric"] == metric)
    assert row["verdict"] == verdict
    assert row["difference"] == pytest.approx(shift, abs=0.002)


def test_the_margin_decides_in_both_directions() -> None:
    base = run()
    new = shaken(run(shift={"reward_accuracy": -0.05}), 0.001)
    assert said(base, new)["verdict"] == "regression"
    assert said(base, new, with_changes(["reward_accuracy=0.1"]))["verdict"] == "pass"
    assert (
        said(base, shaken(run(), 0.001), with_changes(["reward_accuracy=0", "kl=0.0001"]))["verdict"]
        == "undecided"
    )


@pytest.mark.parametrize(("seeds", "noise"), [(3, 0.2), (1, 0.001)])
def test_too_little_is_undecided_and_no_verdict(seeds: int, noise: float) -> None:
    found = said(run(seeds), shaken(run(seeds), noise))
    assert found["verdict"] == "undecided"
    assert "regression" not in {row["verdict"] for row in found["tests"]}
    assert all((row["ci95"] is None) == (seeds == 1) for row in found["tests"])


Change = Callable[[Records], Any]
CASES: dict[str, tuple[Change, str, str]] = {
    "failed": (lambda new: new[0].update(status="failed", metrics={}), "regression", "ok → failed at seed 0"),
    "diverged": (lambda new: new[1].update(status="diverged"), "regression", "ok → diverged at seed 1"),
    "a seed is gone": (lambda new: new.pop(), "undecided", "seed 4 is missing"),
    "no seed in common": (
        lambda new: [r.update(seed=r["seed"] + 10) for r in new],
        "undecided",
        "no seed in common",
    ),
    "a metric is gone": (
        lambda new: [r["metrics"].pop("kl") for r in new],
        "undecided",
        "kl: not in the new run",
    ),
    "task version": (
        lambda new: [r["task"].update(version=2) for r in new],
        "undecided",
        "another task version at seed 0, 1",
    ),
    "data": (
        lambda new: [r["task"]["data"].update(fingerprint="x") for r in new],
        "undecided",
        "another data",
    ),
    "budget": (
        lambda new: [r["task"]["budget"].update(steps=7) for r in new],
        "undecided",
        "budget.steps 100 → 7",
    ),
    "config": (
        lambda new: [r["algorithm"]["config"].update(beta=1) for r in new],
        "undecided",
        "config.beta 0.1 → 1",
    ),
    "learning rate": (
        lambda new: [r["train"].update(lr=1.0) for r in new],
        "undecided",
        "train.lr 0.1 → 1.0",
    ),
    "model": (
        lambda new: [r["task"]["model"].update(name="tiny") for r in new],
        "undecided",
        "model tabular → tiny",
    ),
    "another algorithm": (
        lambda new: [r["algorithm"].update(name="ipo") for r in new],
        "undecided",
        "missing from the new run",
    ),
}


def test_a_regression_is_not_hidden_by_what_cannot_be_compared() -> None:
    new = run()
    new.pop()
    new[0].update(status="diverged")
    for r in new:
        r["metrics"].pop("kl")
    (cell,) = said(run(), new)["cells"]
    assert cell["verdict"] == "regression"
    assert cell["reasons"] == [
        "seed 4 is missing from the new run",
        "ok → diverged at seed 0",
        "kl: not in the new run",
    ]


@pytest.mark.parametrize(("change", "verdict", "reason"), CASES.values(), ids=CASES)
def test_what_is_wrong_with_cells_is_named(change: Change, verdict: str, reason: str) -> None:
    new = run()
    change(new)
    found = said(run(), new)
    assert found["verdict"] == verdict
    assert any(reason in text for cell in found["cells"] for text in cell["reasons"])


def test_what_is_better_or_expected_is_no_regression() -> None:
    base, new = run(), run()
    base[0].update(status="failed", metrics={})
    for r in (base[1], new[1]):
        r["task"]["expected_divergence"] = True
    new[1]["status"] = "diverged"
    assert said(base, new)["verdict"] == "pass"


def test_a_version_is_what_a_comparison_is_for_and_a_machine_is_named() -> None:
    new = run()
    for r in new:
        r["algorithm"]["version"] = "2"
        r["environment"]["processor"] = "q"
        r["environment"]["packages"]["torch"] = "2.14.0"
    found = said(run(), new)
    assert found["verdict"] == "pass"
    assert found["platforms"] == ["processor p → q", "torch 2.13.0 → 2.14.0"]


def test_what_is_small_everywhere_is_found_over_tasks() -> None:
    half = {"gold_reward": -0.012}  # of a margin, in every task
    base = run(tasks=4)
    found = said(base, shaken(run(tasks=4, shift=half), 0.001))
    assert {row["verdict"] for row in found["tests"]} == {"equivalent"}
    assert [row["verdict"] for row in found["algorithms"]] == ["regression"]
    assert found["verdict"] == "regression"
    for seeds, tasks in ((5, 3), (4, 4)):  # too few
        assert said(run(seeds, tasks), shaken(run(seeds, tasks, half), 0.001))["algorithms"][0]["p"] is None
    assert (
        said(base, shaken(run(tasks=4, shift={"gold_reward": -0.001}), 1e-5))["verdict"] == "pass"
    )  # sure, and of no size


def test_a_curve_that_goes_elsewhere_and_comes_back_is_told() -> None:
    def curves(bump: float) -> dict[str, Records]:
        steps = (0, 10, 20, 30, 40)
        return {
            r["key"]: [{"step": s, "kl": s / 40 + bump * (s in (10, 20)) + 0.001 * r["seed"]} for s in steps]
            for r in run()
        }

    base, new = run(), shaken(run(), 1e-6)
    assert (
        find_regressions(Baseline("b", base, curves(0.0)), Baseline("n", new, curves(0.0)))["verdict"]
        == "pass"
    )
    detour = find_regressions(Baseline("b", base, curves(0.0)), Baseline("n", new, curves(3.0)))
    assert detour["verdict"] == "undecided"
    assert detour["cells"][0]["reasons"] == ["the curve of kl differs from step 10 on"]


def test_holm_counts_every_comparison() -> None:
    found = said(run(tasks=4), shaken(run(tasks=4), 0.001))
    with_p = [row for row in (*found["tests"], *found["algorithms"]) if row["p"] is not None]
    assert found["comparisons"] == len(with_p) == 4 * 4 + 1
    assert all(present(row["p_holm"]) >= present(row["p"]) for row in with_p)


@pytest.mark.parametrize("n", [2, 5, 12])
@pytest.mark.parametrize("side", ["higher", "lower", None])
def test_p_is_that_of_scipy(n: int, side: str | None) -> None:
    x = np.random.default_rng(n).normal(0.3, 1.0, n)
    alternative: Any = {"higher": "less", "lower": "greater", None: "two-sided"}[side]
    found = difference(list(x), side)
    assert found.p == pytest.approx(scipy_stats.ttest_1samp(x, 0.0, alternative=alternative).pvalue)
    interval = scipy_stats.ttest_1samp(x, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_seeds_that_agree_leave_no_doubt() -> None:
    worse, nothing = difference([-0.5] * 3, "higher"), difference([0.0] * 3, "higher")
    assert (worse.p, nothing.p) == (0.0, 1.0)
    assert judge(worse, 0.1, "higher", 0.0) == "regression"
    assert judge(worse, 0.1, "lower", 1.0) == "improved"
    assert judge(nothing, 0.1, None, 1.0) == "equivalent"


def test_sign_flips_are_exact_and_agree_with_others() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.4, 1.0, 10), rng.normal(0.3, 1.0, 30)
    every = scipy_stats.permutation_test(
        (x,), np.mean, permutation_type="samples", alternative="greater", n_resamples=2**11
    )
    assert sign_flip(list(x), rng) == pytest.approx(every.pvalue)
    assert sign_flip(list(y), rng) == pytest.approx(
        scipy_stats.ttest_1samp(y, 0.0, alternative="greater").pvalue, abs=0.02
    )


def test_false_alarms_are_as_rare_as_promised() -> None:
    """Differences of nothing, larger than the margins: of 200 comparisons 5 % may raise an alarm."""
    alarms = sum(
        said(run(5, 4), shaken(run(5, 4), 0.03, seed))["verdict"] == "regression" for seed in range(200)
    )
    assert alarms <= scipy_stats.binom.ppf(0.999, 200, 0.05)


def test_margins_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "compare.md").read_text("utf-8")
    rows = re.findall(
        r"^\| (`.*?) \| ([0-9.]+)[^|]* \| ?(\d+ %)? ?\|$", page[page.index("## Margins") :], re.MULTILINE
    )
    told = {
        name: (float(a), float(r[:-2]) / 100 if r else 0.0)
        for names, a, r in rows
        for name in re.findall(r"`([\w.]+)`", names)
    }
    assert told == {name: (margin.absolute, margin.relative) for name, margin in MARGINS.items()}
    assert better("kl") is None
    assert better("heldout_reward_accuracy") == "higher"


@pytest.mark.parametrize("word", ["kl", "kl=", "kl=x", "kl=-1", "kl=nan", "kl=inf", "klx=1", "pairs_per_s=1"])
def test_margins_that_are_none(word: str) -> None:
    with pytest.raises(UsageError, match="--margin"):
        with_changes([word])


def test_a_baseline_says_what_the_run_says_and_no_path(tmp_path: Path) -> None:
    base = run()
    for r in base:
        r["task"]["model"]["name"] = "/home/somebody/models/small"
        r["task"]["options"] = {"source": "/home/somebody/rows.jsonl", "rows": 3}
    path = tmp_path / "base.json"
    path.write_text(
        json.dumps(document_of(Baseline("run", base, {r["key"]: [{"step": 0, "kl": 0.0}] for r in base}))),
        "utf-8",
    )
    assert "somebody" not in path.read_text("utf-8")
    found = find_regressions(read(path), Baseline("run", base))
    assert found["verdict"] == "pass"
    assert all(cell["identical"] for cell in found["cells"])


def test_curves_are_thinned_to_a_few_points_with_the_last() -> None:
    thin = thinned([{"step": i, "kl": float(i), "loss": 1.0, "brier": None} for i in range(100)])
    assert len(thin) == 8
    assert (thin[0], thin[-1]) == ({"step": 0, "kl": 0.0}, {"step": 99, "kl": 99.0})
    assert thinned([]) == []


def test_hostile_names_stay_text(capsys: pytest.CaptureFixture[str]) -> None:
    base, new = run(), shaken(run(shift={"kl": 5.0}), 0.001)
    for r in (*base, *new):
        r["algorithm"]["name"] = "x[/]y</script><script>alert(1)</script>\x1b[31m|`@me"
    document = said(base, new)
    print_page(Console(width=100), regression_page(document))
    out = capsys.readouterr().out
    assert "\x1b[31m" not in out
    assert "x[/]y" in out
    text = markdown(regression_page(document))
    assert "<script>" not in text
    assert "@me" not in text
    assert "\\|" in text
