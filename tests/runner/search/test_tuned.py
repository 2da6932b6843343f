"""The tuned protocol: equal trials, chosen on a validation split that held-out rows have no part in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow import present

import xpo_bench
from xpo_bench import plugins
from xpo_bench.contract.examples import Dataset, Pair
from xpo_bench.data.validation import FRACTION, validation_split
from xpo_bench.errors import UsageError
from xpo_bench.runner.executors.groups import groups
from xpo_bench.runner.plan import Plan, make_plan
from xpo_bench.runner.record import Record
from xpo_bench.runner.request import requests
from xpo_bench.runner.run_document import Tuning
from xpo_bench.runner.search import space, tuned

Command = Callable[..., Any]
SHORT = ["--tasks", "bandit", "--steps", "30", "--protocol", "tuned", "--trials", "4", "--out", "r"]


def test_points_lie_in_their_bounds_and_more_begin_with_the_same() -> None:
    axes = [
        space.Axis("wide", 0.01, 0.5),
        space.Axis("linear", 0, 10),
        space.Axis("count", 4, 64, whole=True),
    ]
    many, few = space.draw(axes, 63, "dpo"), space.draw(axes, 5, "dpo")
    assert many[:5] == few
    assert many != space.draw(axes, 63, "ipo")
    for axis in axes:
        values = [p[axis.name] for p in many]
        assert min(values) >= axis.low
        assert max(values) <= axis.high
    assert all(isinstance(p["count"], int) for p in many)
    wide, linear = (np.array([p[n] for p in many]) for n in ("wide", "linear"))
    assert np.median(wide) == pytest.approx(np.sqrt(0.01 * 0.5), rel=0.15)  # uniform in the logarithm
    assert np.median(linear) == pytest.approx(5, rel=0.15)


def test_the_validation_split_is_cut_out_of_training_rows() -> None:
    rows = tuple(Pair(f"x{i % 10}", f"a{i}", f"b{i}") for i in range(50))
    dataset = Dataset(train=rows, heldout=(Pair("h", "c", "d"),))
    for whole in (False, True):
        one, two = (validation_split(dataset, np.random.default_rng(seed), whole) for seed in (1, 1))
        assert one is not None
        assert one == two
        assert sorted([*one.train, *one.heldout], key=str) == sorted(
            rows, key=str
        )  # nothing held out is in it
        assert len(one.heldout) == FRACTION * len(rows)
        shared = {r.prompt for r in one.train} & {r.prompt for r in one.heldout}
        assert bool(shared) is not whole
    assert validation_split(Dataset(train=rows[:1]), np.random.default_rng(0), False) is None


def test_every_algorithm_gets_as_many_trials_and_they_train_together() -> None:
    registry = plugins.load()
    asked = requests({"algos": "dpo,simpo,sft", "tasks": "bandit", "seeds": 2, "steps": 10})
    base = make_plan(asked, registry)
    planned: list[Plan] = []

    def run(plan: Plan) -> list[Record]:
        planned.append(plan)
        return []

    plan, found = tuned.find(base, asked, 5, tuned.SELECT, run, lambda _: None)
    cells = planned[0].cells
    assert {f["algorithm"]: len(f["trials"]) for f in found} == {"dpo": 5, "simpo": 5, "sft": 5}
    assert len(cells) == 3 * 5 * 2
    assert len(groups(cells)) == 1  # swept values are lanes of one computation
    assert {c.seed for c in cells} == set(tuned.TUNING_SEEDS[:2])
    assert {c.experiment for c in cells} == {"tuned search"}
    assert not {c.key for c in cells} & {c.key for c in base.cells}
    assert [c.key for c in plan.cells] == [c.key for c in base.cells]  # default runs keep their keys
    defaults = [c for c in cells if c.protocol and c.protocol["trial"] == 0 and c.algorithm.name == "dpo"]
    assert {(repr(c.config), c.lr) for c in defaults} == {(repr(base.cells[0].config), base.cells[0].lr)}
    # what a trial holds out are training rows of its seed, and the held-out rows are in neither part
    setup = base.cells[0].setup
    whole, part = setup.dataset(tuned.TUNING_SEEDS[0]), cells[0].setup.dataset(tuned.TUNING_SEEDS[0])
    assert sorted([*part.train, *part.heldout], key=str) == sorted(whole.train, key=str)


def test_a_word_of_the_user_is_not_searched() -> None:
    registry = plugins.load()
    asked = requests({"algos": "dpo,simpo", "tasks": "bandit", "set": {"dpo.beta": 0.2}, "lr": 0.01})
    _, found = tuned.find(make_plan(asked, registry), asked, 3, tuned.SELECT, lambda _: [], lambda _: None)
    dpo, simpo = found
    assert "no range that is still free" in present(dpo["reason"])
    assert set(simpo["space"]) == {"beta", "gamma"}


def test_the_best_trial_is_run_and_the_command_resumes(warm: Command) -> None:
    done = warm("run", "--algos", "dpo,sft", *SHORT, "--seeds", "2", "--json")
    assert done.code == 0, done.err
    by_key = {c["key"]: c for c in done.json["cells"]}
    assert all((c.get("protocol") or {}).get("role") != "trial" for c in by_key.values())
    for t in done.json["tuning"]:
        scores = [trial["score"] for trial in t["trials"]]
        assert t["chosen"] == scores.index(max(scores))
        assert scores[t["chosen"]] >= scores[0]
        spread = t["spread"][tuned.SELECT]
        assert (spread["best"], spread["worst"], spread["n"]) == (max(scores), min(scores), 4)
        for seed, key in enumerate(t["keys"]["tuned"]):
            cell = by_key[key]
            assert cell["seed"] == seed
            assert (
                cell["task"]["data"] == by_key[t["keys"]["default"][seed]]["task"]["data"]
            )  # all training rows
            for name, value in t["changes"].items():
                assert (
                    cell["train"]["lr"] if name == space.LR else cell["algorithm"]["config"][name]
                ) == value
    again = warm("run", "--algos", "dpo,sft", *SHORT, "--seeds", "2", "--json")
    assert again.json == done.json  # nothing was computed again
    shown = warm("show", "r")
    assert "Default and tuned: bandit: 4 trials of 2 seeds" in shown.out
    assert "Sensitivity over the trials: bandit" in shown.out
    assert "search" not in shown.out
    assert "sft" in shown.out.split("Default and tuned")[0]  # the first screen
    assert warm("show", "r", "--json").json["tuning"] == done.json["tuning"]
    told = warm("report", "r", "--md", "-", "--html", "r.html")
    assert "## Default and tuned\n" in told.out
    assert "**Default and tuned: bandit: 4 trials of 2 seeds**" in told.out
    assert "Default and tuned" in Path("r.html").read_text("utf-8")
    compared = warm("compare", "r", "r")
    assert "(tuned)" in compared.out
    assert "search" not in compared.out
    # more trials begin with those that are there
    more = warm("run", "--algos", "dpo,sft", *SHORT, "--trials", "5", "--seeds", "2", "--json")
    assert "20 cells, 16 already there" in more.err
    for t, before in zip(more.json["tuning"], done.json["tuning"], strict=True):
        assert t["trials"][:4] == before["trials"]
    # the default protocol finds its cells there
    default = warm(
        "run",
        "--algos",
        "dpo,sft",
        "--tasks",
        "bandit",
        "--steps",
        "30",
        "--seeds",
        "2",
        "--out",
        "r",
        "--json",
    )
    assert {c["key"] for c in default.json["cells"]} == {
        k for t in done.json["tuning"] for k in t["keys"]["default"]
    }
    assert {c["created"] for c in default.json["cells"]} <= {c["created"] for c in by_key.values()}


def test_studies_are_independent_and_the_first_is_what_one_alone_would_be() -> None:
    registry = plugins.load()
    asked = requests({"algos": "dpo,sft", "tasks": "bandit", "seeds": 2, "steps": 10})
    base = make_plan(asked, registry)
    planned: dict[int, Plan] = {}

    def find(studies: int) -> list[Tuning]:
        def run(plan: Plan) -> list[Record]:
            planned[studies] = plan
            return []

        return tuned.find(base, asked, 4, tuned.SELECT, run, lambda _: None, studies)[1]

    alone, several = find(1), find(3)
    keys = {studies: [cell.key for cell in plan.cells] for studies, plan in planned.items()}
    assert set(keys[1]) < set(keys[3])
    assert len(keys[3]) == 3 * len(keys[1]) == 3 * 2 * 4 * 2
    for one, three in zip(alone, several, strict=True):
        assert three["studies"][0] == one["studies"][0]
        trials = [study["trials"] for study in three["studies"]]
        assert [t[0]["changes"] for t in trials] == [{}, {}, {}]  # each may choose the default
        drawn = [repr(trial["changes"]) for t in trials for trial in t[1:]]
        assert len(set(drawn)) == len(drawn)
        seeds = [seed for study in three["studies"] for seed in study["seeds"]]
        assert seeds == [1_000_000, 1_000_001, 1_000_003, 1_000_004, 1_000_006, 1_000_007]
    # seeds draw other rows of the world and other validation splits
    setup = planned[3].cells[0].setup
    assert setup.dataset(1_000_000).heldout != setup.dataset(1_000_003).heldout


def test_the_tuned_row_is_over_studies_and_the_command_resumes(warm: Command) -> None:
    words = ["run", "--algos", "simpo,sft", *SHORT[:-2], "--trials", "3", "--out", "s", "--seeds", "2"]
    done = warm(*words, "--studies", "2", "--json")
    assert done.code == 0, done.err
    by_key = {c["key"]: c for c in done.json["cells"]}
    for t in done.json["tuning"]:
        assert len(t["studies"]) == 2
        assert t["trials"] == t["studies"][0]["trials"]
        assert t["keys"]["tuned"] == list(dict.fromkeys(k for s in t["studies"] for k in s["keys"]))
        for number, study in enumerate(t["studies"]):
            scores = [trial["score"] for trial in study["trials"]]
            assert study["chosen"] == scores.index(max(scores))
            assert [by_key[key]["seed"] for key in study["keys"]] == [0, 1]
            for key in study["keys"]:
                cell = by_key[key]
                assert (cell.get("protocol") is None) == (study["chosen"] == 0)
                assert cell.get("protocol", {}).get("study", number) <= number
                for name, value in study["changes"].items():
                    got = cell["train"]["lr"] if name == space.LR else cell["algorithm"]["config"][name]
                    assert got == value
    again = warm(*words, "--studies", "2", "--json")
    assert again.json == done.json
    shown = " ".join(warm("show", "s").out.split())
    assert "Default and tuned: bandit: 3 trials of 2 seeds in each of 2 studies" in shown
    assert "Tuned is the mean over 2 studies" in shown
    assert "Spread over the studies: bandit" in shown
    more = warm(*words, "--studies", "3", "--json")
    assert "36 cells, 24 already there" in more.err
    for t, before in zip(more.json["tuning"], done.json["tuning"], strict=True):
        assert t["studies"][:2] == before["studies"]
    one = warm(*words, "--json")
    assert [len(t["studies"]) for t in one.json["tuning"]] == [1, 1]
    shown = " ".join(warm("show", "s").out.split())
    assert (
        "From one study the interval of the tuned row leaves out what another draw of trials would" in shown
    )
    assert "Spread over the studies" not in shown


def test_data_that_cannot_be_divided_runs_the_default(warm: Command, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(
        json.dumps({"prompt": "x", "chosen": "a", "rejected": "b"}) + "\n", "utf-8"
    )
    words = ["--data", "d.jsonl", "--model", "tabular", "--seeds", "1", "--steps", "5", "--out", "q"]
    done = warm("run", "--algos", "dpo", *words, "--protocol", "tuned", "--json")
    assert done.code == 0, done.err
    assert "dpo on d: default only: task d: its training data cannot be divided" in done.err
    assert len(done.json["cells"]) == 1


def test_an_algorithm_without_anything_to_search_is_named(warm: Command) -> None:
    done = warm("run", "--algos", "sft", *SHORT, "--lr", "0.01", "--seeds", "1", "--json")
    assert done.code == 0, done.err
    assert "sft on bandit: default only: it declares no range that is still free" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--protocol", "tuned", "--trials", "0"], "--trials 0: want at least 1"),
        (["--protocol", "tunde"], "unknown protocol 'tunde'; did you mean 'tuned'?"),
        (["--trials", "3"], "--trials: goes with --protocol tuned"),
        (["--studies", "3"], "--studies: goes with --protocol tuned"),
        (["--protocol", "tuned", "--studies", "0"], "--studies 0: want at least 1"),
        (["--select", "heldout_brier"], "--select: goes with --protocol tuned"),
        (
            ["--protocol", "tuned", "--select", "frontier_gap"],
            "--select frontier_gap: want a heldout_ metric",
        ),
        (
            ["--protocol", "tuned", "--set", "dpo.beta=0.1,0.2"],
            "--protocol tuned searches at one setting: give dpo.beta one value",
        ),
        (["--protocol", "tuned", "--target-kl", "1"], "--target-kl: not with --protocol tuned"),
        (["--protocol", "tuned", "--shard", "1/2"], "--shard: not with --protocol tuned"),
        (
            ["--protocol", "tuned", "--seeds", "1000000,"],
            "--seeds: 1000000 to 1000002 are the seeds of the trials",
        ),
        (
            ["--protocol", "tuned", "--studies", "2", "--seeds", "1000005,"],
            "--seeds: 1000000 to 1000005 are the seeds of the trials",
        ),
    ],
)
def test_bad_words(warm: Command, words: list[str], message: str) -> None:
    done = warm("run", "--algos", "dpo", "--tasks", "bandit", *words)
    assert done.code == 2
    assert done.lines[-1].startswith(f"xpo-bench: {message}")


def test_the_same_words_in_python(tmp_path: Path) -> None:
    result = xpo_bench.run(
        algos=["ipo"],
        tasks=["bandit"],
        seeds=1,
        steps=10,
        protocol="tuned",
        trials=2,
        studies=1,
        select="heldout_brier",
        out=tmp_path,
    )
    (found,) = result.tuning
    assert found["select"] == "heldout_brier"
    scores = [present(t["score"]) for t in found["trials"]]
    assert found["chosen"] == scores.index(min(scores))  # lower is better
    assert result.summary()
    with pytest.raises(UsageError, match="unknown protocol"):
        xpo_bench.run(algos=["ipo"], tasks=["bandit"], protocol="x")
