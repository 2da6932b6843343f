"""`--set` words, seeds, plan files and suites."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from xpo_bench import plugins
from xpo_bench.contract.settings import Budget
from xpo_bench.errors import UsageError
from xpo_bench.runner.plan import make_plan
from xpo_bench.runner.request import parse_seeds, read_file, requests, suites
from xpo_bench.runner.settings import docs, dump, grid, parse_set, validate
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.algorithms.rso import RSO
from xpo_bench_plugins.algorithms.sdpo import SDPO

# --------------------------------------------------------------------------- seeds


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("3", (0, 1, 2)), ("1", (0,)), ("0,7", (0, 7)), ("42,", (42,)), ("5,3,4", (5, 3, 4)), (" 2 ", (0, 1))],
)
def test_seeds(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["0", "-1", "", ",", "1.5", "a", "3,3", "1,-2", "nan"])
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"--seeds .*: expected a count such as 3, or distinct seeds such as 0,7 or 42,"
    ):
        parse_seeds(text)


# --------------------------------------------------------------------------- --set


def test_the_last_dot_splits_and_commas_sweep() -> None:
    words = ["dpo.beta=0.05,0.1, 0.5", "dpo.train.lr=1e-3", "task.steps=200", "my.odd-name.tau=1"]
    assert parse_set(words) == {
        "dpo": {"beta": ["0.05", "0.1", "0.5"]},
        "dpo.train": {"lr": ["1e-3"]},
        "task": {"steps": ["200"]},
        "my.odd-name": {"tau": ["1"]},
    }


def test_several_words_form_a_grid() -> None:
    settings = parse_set(["dpo.a=1,2", "dpo.b=x,y,z"])
    assert len(grid(settings["dpo"])) == 6
    assert {"a": "2", "b": "y"} in grid(settings["dpo"])
    assert grid({}) == [{}]


@pytest.mark.parametrize(
    "word", ["beta=1", "dpo.beta", "dpo.beta=", "dpo.=1", ".beta=1", "dpo.beta=1,,2", "=", ""]
)
def test_words_that_set_nothing(word: str) -> None:
    with pytest.raises(UsageError, match=r"^--set .*: expected ALGORITHM.FIELD=VALUE"):
        parse_set([word])


def test_a_field_that_is_given_twice() -> None:
    with pytest.raises(UsageError, match="given twice; separate the values of a sweep by commas"):
        parse_set(["dpo.beta=1", "dpo.beta=2"])


# --------------------------------------------------------------------------- validation


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beta": -1}, r"dpo\.beta = -1: input should be greater than 0"),
        ({"beta": "nan"}, r"dpo\.beta = nan: input should be"),
        ({"beta": "inf"}, r"dpo\.beta = inf: input should be"),
        ({"beta": 0}, r"dpo\.beta = 0: input should be greater than 0"),
        ({"beta": "much"}, r"dpo\.beta = much: input should be a valid number"),
        ({"bata": 1}, r"unknown setting of dpo 'bata'; did you mean 'beta'\? \(known: beta\)"),
    ],
)
def test_hyperparameters_are_checked_in_one_line(values: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}") as refused:
        validate(DPO, values, "dpo")
    assert "\n" not in str(refused.value)


def test_names_are_those_that_users_write() -> None:
    assert dump(validate(SDPO, {"stages": "3"}, "sdpo"))["stages"] == 3
    assert dump(validate(RSO, {"loss": "hinge_norm"}, "rso"))["loss"] == "hinge_norm"
    with pytest.raises(UsageError, match="unknown setting of sdpo 'n_stages'"):
        validate(SDPO, {"n_stages": 3}, "sdpo")


def test_every_option_has_a_sentence() -> None:
    registry = plugins.load()
    classes: list[type] = [Budget, *(cls for cls, _ in registry.algorithms.values())]
    classes += [cls for cls, _ in registry.tasks.values()]
    for cls in classes:
        assert all(docs(cls).values()), cls


# --------------------------------------------------------------------------- plan files


@pytest.mark.parametrize("label", ["grid search", "", "  ", 3, ["a"], True])
def test_labels_that_tables_would_hide_or_that_are_none(tmp_path: Path, label: object) -> None:
    """No table shows the cells of a search, which are told by how their label ends."""
    with pytest.raises(
        UsageError, match=r"^experiment = .*: (labels that end in ' search'|expected a label)"
    ):
        requests({"algos": "dpo", "tasks": "bandit", "experiment": label})


def test_only_a_suite_can_label_its_cells_as_its_own(tmp_path: Path) -> None:
    own = requests({"suite": "article"})
    assert all(r.suite_label and r.experiment for r in own)
    renamed = requests({"suite": "article"}, write(tmp_path, 'suite = "article"\nexperiment = "overfit"\n'))
    assert {(r.suite_label, r.experiment) for r in renamed} == {(False, "overfit")}
    plain = requests({"algos": "dpo", "tasks": "overfit_pair", "experiment": "overfit"})
    assert not any(r.suite_label for r in plain)
    with pytest.raises(UsageError, match="unknown word 'suite_label'"):
        requests({}, write(tmp_path, "suite_label = true\n"))


PLAN = """
algos = "dpo"
tasks = ["deterministic"]
seeds = 2
steps = 30
set = { "dpo.beta" = [0.1, 0.2], "task.lr" = 0.01 }
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_file_holds_a_run_and_flags_override_it(tmp_path: Path) -> None:
    path = write(tmp_path, PLAN)
    (own,) = requests({}, path)
    assert (own.algos, own.tasks, own.seeds, own.budget) == (
        ("dpo",),
        ("deterministic",),
        (0, 1),
        {"steps": 30},
    )
    assert own.settings == {"dpo": {"beta": [0.1, 0.2]}, "task": {"lr": [0.01]}}
    (over,) = requests(
        {"steps": 7, "seeds": [4], "algos": ("ipo", "dpo"), "set": parse_set(["dpo.beta=0.3"])}, path
    )
    assert (over.algos, over.seeds, over.budget) == (("ipo", "dpo"), (4,), {"steps": 7})
    assert over.settings == {"dpo": {"beta": ["0.3"]}, "task": {"lr": [0.01]}}  # field by field


def test_a_file_and_flags_give_the_same_cells(tmp_path: Path) -> None:
    registry = plugins.load()
    flags = {
        "algos": "dpo",
        "tasks": "deterministic",
        "seeds": "2",
        "steps": 30,
        "set": ["dpo.beta=0.10,.2", "task.lr=1e-2"],
    }
    from_file, from_flags = (
        make_plan(asked, registry) for asked in (requests({}, write(tmp_path, PLAN)), requests(flags))
    )
    assert [c.key for c in from_file.cells] == [c.key for c in from_flags.cells]
    assert len(from_file.cells) == 4


def test_blocks_inherit_the_top_level(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'algos = "dpo,ipo"\nseeds = "7,"\nexperiment = "both"\n[[runs]]\ntasks = "bandit"\n'
        '[[runs]]\ntasks = "cycle"\nbatch-size = 3\nalgos = ["kto"]\nexperiment = "second"\n',
    )
    first, second = requests({}, path)
    assert (first.algos, first.tasks, first.seeds, first.experiment) == (
        ("dpo", "ipo"),
        ("bandit",),
        (7,),
        "both",
    )
    assert (second.algos, second.budget, second.experiment) == (("kto",), {"batch_size": 3}, "second")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("algos = [", "not valid TOML"),
        ('algo = "dpo"', r"unknown word 'algo'; did you mean 'algos'\?"),
        ('[[runs]]\nstep = 1', r"unknown word 'step'; did you mean 'steps'\?"),
        ("runs = 3", r"\[\[runs\]\] must be tables of plan words"),
    ],
)  # fmt: skip
def test_files_that_are_no_plan(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        read_file(write(tmp_path, text))
    assert "plan.toml" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "value",
    [
        '{ "dpo.beta" = [0.1] }',
        '{ "dpo.beta" = 0.1 }',
        "{ dpo = { beta = 0.1 } }",
        "{ dpo = { beta = [0.1] } }",
    ],
)
def test_settings_of_a_file_are_a_table_flat_or_nested(tmp_path: Path, value: str) -> None:
    (request,) = requests({}, write(tmp_path, f"set = {value}"))
    assert request.settings == {"dpo": {"beta": [0.1]}}


@pytest.mark.parametrize("value", ["3", "true", "1979-05-27", "[0.1]", '[["dpo.beta=1"]]', "{ dpo = 0.1 }"])
def test_settings_of_another_kind_are_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(UsageError, match=r"set.*expected"):
        requests({}, write(tmp_path, f"set = {value}"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.toml", tmp_path):
        with pytest.raises(UsageError, match=r"cannot be read .*; name a TOML file"):
            read_file(path)
    (tmp_path / "latin.toml").write_bytes(b'algos = "\xe9"')
    with pytest.raises(UsageError, match="not valid TOML"):
        read_file(tmp_path / "latin.toml")


# --------------------------------------------------------------------------- suites


def test_suites_are_plans_of_known_tasks() -> None:
    registry = plugins.load()
    assert {"quick", "exact", "full"} <= set(suites())
    for path in suites().values():
        for block in read_file(path):
            assert set(block["tasks"]) <= set(registry.tasks)
    assert read_file(suites()["quick"])[0]["tasks"] == ["bandit", "deterministic", "overfit_pair", "travel"]


def test_the_quick_suite_is_the_default_and_needs_no_algorithms() -> None:
    (default,) = requests({"algos": "dpo"})
    assert default.tasks == ("bandit", "deterministic", "overfit_pair", "travel")
    (everything,) = requests({"suite": "exact"})
    assert everything.algos == ("all",)
    (narrowed,) = requests({"suite": "exact", "tasks": "cycle", "algos": "dpo"})
    assert narrowed.tasks == ("cycle",)


def test_an_unknown_suite() -> None:
    with pytest.raises(UsageError, match=r"unknown suite 'quik'; did you mean 'quick'\?"):
        requests({"suite": "quik"})


def test_words_that_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="--data and --tasks exclude each other"):
        requests({"data": "d.jsonl", "tasks": "bandit", "algos": "dpo"})
    with pytest.raises(UsageError, match="--algos is missing"):
        requests({"tasks": "bandit"})


def test_what_does_not_fit_a_task_of_a_suite_is_left_out_there() -> None:
    registry = plugins.load(frozenset())
    plan = make_plan(requests({"algos": "dpo", "suite": "exact", "seeds": 1}), registry)
    assert {s["task"] for s in plan.skipped} == {"imbalance"}
    assert {cell.setup.name for cell in plan.cells} > {"bandit", "travel"}
    with pytest.raises(UsageError, match="dpo does not fit task imbalance"):
        make_plan(requests({"algos": "dpo", "tasks": "imbalance", "seeds": 1}), registry)
    nowhere = {"algos": "dpo,rlhf", "suite": "quick", "seeds": 1, "model": "tiny"}
    with pytest.raises(UsageError, match="rlhf fits no task of the suite: not bandit, for example"):
        make_plan(requests(nowhere), registry)
