"""Tables of real choices: what is counted per person, at which value, and how orders agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkout import benchmark

choices, orders, read = (benchmark(f"choices.{name}") for name in ("__main__", "orders", "predictions"))

RNG = np.random.default_rng(0)


def test_log_odds_are_scored_as_probabilities() -> None:
    odds = np.array([0.0, np.log(4), -np.log(4), 800.0, -800.0])
    found = read.measured(odds)
    np.testing.assert_allclose(found["log_likelihood"], [np.log(0.5), np.log(0.8), np.log(0.2), 0.0, -800.0])
    np.testing.assert_allclose(found["brier"], [0.25, 0.04, 0.64, 0.0, 1.0])
    assert found["accuracy"].tolist() == [0.5, 1.0, 0.0, 1.0, 0.0]


def invented() -> Any:
    """Two people of one half, one of the other; value 1 suits the first half, 3 the second."""
    found = read.Predictions("x", ("ann", "ann", "bob", "cid"))
    for value, likely in ((1.0, [-0.1, -0.1, -0.9, -0.1]), (3.0, [-0.5, -0.5, -0.2, -0.5])):
        row = np.array(likely)
        found.values["dpo", value] = {"log_likelihood": row, "brier": row**2, "accuracy": row + 1}
        found.seeds["dpo", value] = 1
    return found


def test_a_value_is_chosen_on_other_people_than_those_it_is_judged_by() -> None:
    found = invented()
    values, chosen = read.cross_fitted(found, "dpo", "log_likelihood")
    # ann and cid are the first half, for whom 1 is better; bob, for whom 3 is, chooses for them
    assert chosen == (1.0, 3.0)
    assert values.tolist() == [-0.5, -0.5, -0.9, -0.5]
    order = orders.of_people(found, "log_likelihood", "x")
    np.testing.assert_allclose(order.sums[:, 0], [-1.0, -0.9, -0.5])
    assert order.counts.tolist() == [2.0, 1.0, 1.0]
    assert order.scores(np.ones(3))[0] == pytest.approx(-2.4 / 4)
    fixed = orders.of_people(found, "accuracy", "x", {"dpo": 3.0})
    np.testing.assert_allclose(fixed.sums[:, 0], [1.0, 0.8, 0.5])
    assert fixed.measure == "accuracy at the default"
    assert orders.of_people(found, "accuracy", "x", {"dpo": 2.0}).algorithms == ()


def test_intervals_take_people_for_what_is_drawn() -> None:
    people = np.repeat(np.arange(20), 8)
    same = np.repeat(RNG.normal(size=20), 8)  # eight answers of one person that say the same
    assert read.half_width(same, people) > 2.5 * read.half_width(same, np.arange(160))


def order(scores: list[float], noise: float, units: int = 200) -> Any:
    sums = np.array(scores) + noise * RNG.normal(size=(units, len(scores)))
    return orders.Order("x", "m", "people", tuple("abcdef"[: len(scores)]), sums, np.ones(units))


def test_agreement_of_orders() -> None:
    one = order([1, 2, 3, 4, 5, 6], 0.1)
    assert orders.tau(np.array([1.0, 2, 3]), np.array([1.0, 2, 3])) == 1
    found = orders.agreement(one, order([1, 2, 3, 4, 6, 5], 0.1), RNG, 100)
    assert found is not None
    assert found.tau == pytest.approx(13 / 15)
    assert [found.low, found.high] == pytest.approx([13 / 15, 13 / 15])
    loose = orders.agreement(order([1, 2, 3, 4, 5, 6], 30), one, RNG, 200)
    assert loose is not None
    assert loose.high - loose.low > 0.5
    assert orders.agreement(one, order([1, 2, 3, 4], 1), RNG) is None
    assert orders.halves(one, RNG, 50) == pytest.approx((1, 1, 1))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two losses on travel, and both on bandit at three seeds."""
    import xpo_bench

    out = tmp_path_factory.mktemp("choices")
    for model in ("tabular", "linear"):
        xpo_bench.run(
            ["dpo", "ipo", "simpo", "sft", "kto"],
            ["travel"],
            model=model,
            seeds=1,
            steps=40,
            set={"dpo.beta": [0.1, 1.0], "ipo.tau": [0.1, 1.0]},
            out=out,
        )
    xpo_bench.run(["dpo", "ipo", "simpo", "sft", "kto"], ["bandit"], seeds=3, steps=20, out=out)
    return out


def test_runs_become_predictions(run: Path) -> None:
    found = read.predictions([run], ["travel", "trains"], "tabular")
    assert list(found) == ["travel"]
    travel = found["travel"]
    assert travel.settings("ipo") == [0.1, 1.0]
    assert travel.settings("sft") == [None]
    assert (
        read.predictions([run, run], ["travel"], "tabular")["travel"].seeds
        == travel.seeds
        == dict.fromkeys(travel.values, 1)
    )
    assert len(travel.person) == 156
    assert len(set(travel.person)) == 52
    worlds = orders.of_seeds([run], "bandit", "attained_1")
    assert worlds is not None
    assert (worlds.sums.shape, worlds.unit) == ((3, 5), "seeds")
    assert orders.of_seeds([run], "noisy", "attained_1") is None


def test_the_tables(run: Path, tmp_path: Path) -> None:
    assert choices.main(["tables", str(run), "--write", str(tmp_path / "choices")]) == 0
    found = json.loads((tmp_path / "choices.json").read_text("utf-8"))
    assert [(board["task"], board["policy"], board["people"]) for board in found["boards"]] == [
        ("travel", "tabular", 52),
        ("travel", "linear", 52),
    ]
    rows = found["boards"][1]["rows"]
    likely = [row["log_likelihood"] for row in rows]
    assert likely == sorted(likely, reverse=True)
    (dpo,) = [row for row in rows if row["algorithm"] == "dpo"]
    assert [entry["value"] for entry in dpo["sweep"]] == [0.1, 1.0]
    assert dpo["log_likelihood_half"] > 0
    assert [(entry["policy"], entry["measure"]) for entry in found["orders"]] == [
        (policy, measure)
        for policy in ("tabular", "linear")
        for measure in (
            "log_likelihood at the best",
            "log_likelihood at the default",
            "accuracy at the default",
        )
    ]
    for entry in found["orders"]:
        assert [own["task"] for own in entry["tasks"]] == ["bandit", "travel"]
        (pair,) = entry["agreements"]
        assert (pair["tasks"], pair["algorithms"]) == (["bandit", "travel"], 5)
        assert pair["tau"] is None or -1 <= pair["tau"] <= 1
    own = tmp_path / "page.md"
    own.write_text("Before\n\n<!-- tables -->\nold\n<!-- end -->\n\nAfter\n")
    words = ["tables", str(run), "--write", str(tmp_path / "choices"), "--page", str(own)]
    assert choices.main(words) == 0
    text = own.read_text("utf-8")
    assert text.startswith("Before\n\n<!-- tables -->\n\n### Held-out people, tabular policy")
    assert text.endswith("<!-- end -->\n\nAfter\n")
    assert "old" not in text
    page = (tmp_path / "choices.md").read_text("utf-8")
    assert "| `travel` | 52 | 156 | `" in page
    assert "| `dpo` | " in page
    assert "By accuracy at the default β or τ, linear policy:" in page
    assert "| `travel`, 5 algorithms, 52 people |  | " in page


def test_defaults() -> None:
    found = choices.defaults()
    assert {"dpo": 0.1, "rso": 0.5}.items() <= found.items()
    assert set(choices.swept()) <= set(found)


def test_what_is_swept_is_a_float_that_holds_the_policy() -> None:
    found = choices.swept()
    assert {"dpo": "beta", "ipo": "tau", "kto": "beta"}.items() <= found.items()
    assert not {"sft", "bon", "ppo", "sppo"} & set(found)
