"""Cells are matched by their settings or by names; a changed setting is named and its effect judged."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from comparisons import Records, record, run, said, shaken

from xpo_bench.compare.document import CellRow, Document


def changed(records: Records, change: Callable[[Any], Any], size: float = 0.001) -> Records:
    """The records with something changed in each, and their metrics a little apart."""
    out = shaken(records, size)
    for r in out:
        change(r)
    return out


def only(document: Document) -> CellRow:
    (row,) = document["cells"]
    return row


def beta(value: float) -> Callable[[Any], Any]:
    return lambda r: r["algorithm"]["config"].update(beta=value)


SETTINGS: dict[str, tuple[Callable[[Any], Any], str, object, object]] = {
    "a default": (beta(0.3), "config.beta", 0.1, 0.3),
    "a new field": (lambda r: r["algorithm"]["config"].update(tau=1.0), "config.tau", None, 1.0),
    "learning rate": (lambda r: r["train"].update(lr=1.0), "train.lr", 0.1, 1.0),
    "steps": (lambda r: r["task"]["budget"].update(steps=7), "budget.steps", 100, 7),
    "an option": (lambda r: r["task"]["options"].update(prompts=9), "options.prompts", None, 9),
    "model": (lambda r: r["task"]["model"].update(name="tiny"), "model", "tabular", "tiny"),
}


@pytest.mark.parametrize(("change", "setting", "old", "new"), SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(("shift", "verdict"), [(-0.1, "regression"), (0.1, "pass"), (0.0, "pass")])
def test_a_changed_setting_is_named_and_its_effect_judged(
    change: Callable[[Any], Any], setting: str, old: object, new: object, shift: float, verdict: str
) -> None:
    found = said(run(), changed(run(shift={"gold_reward": shift}), change), match="algorithm")
    row = only(found)
    assert row["changes"] == [{"setting": setting, "base": old, "new": new}]
    assert (found["verdict"], found["match"]) == (verdict, "algorithm")
    assert row["verdict"] == {-0.1: "regression", 0.1: "improved", 0.0: "equivalent"}[shift]
    assert row["reasons"] == []
    exact = said(run(), changed(run(), change))
    assert exact["verdict"] == "undecided"
    assert only(exact)["reasons"][0].startswith(f"cannot be compared: {setting} ")


def test_what_has_to_move_with_a_setting_is_told_and_decides_nothing() -> None:
    found = said(run(), changed(run(shift={"kl": -0.5}), beta(0.3)), match="algorithm")
    assert found["verdict"] == "pass"
    assert only(found)["verdict"] == "moved"
    (kl,) = (row for row in found["tests"] if row["metric"] == "kl")
    assert (kl["verdict"], kl["p"]) == ("moved", None)
    assert found["comparisons"] == len(found["tests"]) - 1
    # without a changed setting the same move is a regression, under either way of matching
    assert said(run(), shaken(run(shift={"kl": -0.5}), 0.001), match="algorithm")["verdict"] == "regression"


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["task"].update(version=2),
        lambda r: r["task"]["data"].update(fingerprint="x"),
    ],
)
def test_other_data_or_another_version_of_the_task_is_never_compared(change: Callable[[Any], Any]) -> None:
    found = said(run(), changed(changed(run(), beta(0.3)), change), match="algorithm")
    assert (found["verdict"], found["tests"]) == ("undecided", [])
    assert only(found)["reasons"][0].startswith("cannot be compared: another ")
    assert only(found)["changes"][0]["setting"] == "config.beta"


def test_a_rate_that_stands_in_two_places_is_named_once() -> None:
    base, new = run(), run()
    for r, lr in (*((r, 0.1) for r in base), *((r, 0.2) for r in new)):
        r["train"]["lr"] = r["task"]["budget"]["lr"] = lr
    assert [c["setting"] for c in only(said(base, new, match="algorithm"))["changes"]] == ["train.lr"]


def test_equal_settings_are_matched_first() -> None:
    base = run() + changed(run(), beta(0.5))
    new = run() + changed(run(shift={"gold_reward": -0.1}), beta(0.7))
    found = said(base, new, match="algorithm")
    assert [(row["changes"], row["verdict"]) for row in found["cells"]] == [
        ([], "same"),
        ([{"setting": "config.beta", "base": 0.5, "new": 0.7}], "regression"),
    ]


@pytest.mark.parametrize(
    ("old", "new"), [((0.1,), (0.2, 0.3)), ((0.1, 0.2), (0.3,)), ((0.1, 0.2), (0.3, 0.4))]
)
def test_several_configurations_that_are_left_are_undecided(old: list[float], new: list[float]) -> None:
    base = [r for value in old for r in changed(run(), beta(value))]
    later = [r for value in new for r in changed(run(), beta(value))]
    found = said(base, later, match="algorithm")
    assert found["verdict"] == "undecided"
    reason = f"cannot be matched: {len(old)} configurations in the base, {len(new)} others in the new run"
    assert [row["reasons"] for row in found["cells"]] == [[reason]] * len(old)


def renamed(records: Records, part: str, name: str) -> Records:
    out = copy.deepcopy(records)
    for r in out:
        r[part]["name"] = name
    return out


@pytest.mark.parametrize("match", ["algorithm", "configuration"])
def test_what_is_lost_is_named(match: str) -> None:
    base = run(tasks=2) + renamed(run(tasks=2), "algorithm", "ipo")

    def lost(*kept: tuple[str, str]) -> set[str]:
        new = [r for r in base if (r["algorithm"]["name"], r["task"]["name"]) in kept]
        found = said(base, new, match=match)
        assert found["verdict"] == "undecided"
        return {reason for row in found["cells"] for reason in row["reasons"]}

    every = [("dpo", "task0"), ("dpo", "task1"), ("ipo", "task0"), ("ipo", "task1")]
    assert lost(*every[:2]) == {"the algorithm is missing from the new run"}
    assert lost(every[0], every[2]) == {"the task is missing from the new run"}
    assert lost(*every[:3]) == {"missing from the new run"}


def digests(records: Records, algorithm: str, task: str = "t") -> Records:
    out = copy.deepcopy(records)
    for r in out:
        r["algorithm"]["source"], r["task"]["source"] = algorithm, task
    return out


def test_another_source_is_named_and_its_numbers_decide() -> None:
    base, new = digests(run(), "a"), digests(run(), "b")
    found = said(base, new)
    assert found["sources"] == [
        {"kind": "algorithm", "name": "dpo", "base": ["xpo-bench 1"], "new": ["xpo-bench 1"]}
    ]
    assert (found["verdict"], found["unknown_sources"]) == ("pass", 0)
    strict = said(base, new, same_source=True)
    assert strict["verdict"] == "undecided"
    assert only(strict)["reasons"] == ["another source of the algorithm"]
    both = said(base, digests(run(), "b", "u"), same_source=True)
    assert only(both)["reasons"] == ["another source of the algorithm and of the task"]
    assert said(base, base, same_source=True)["verdict"] == "pass"


def test_a_record_without_a_digest_tells_of_no_change() -> None:
    found = said(run(), digests(run(), "b"), same_source=True)
    assert (found["verdict"], found["sources"], found["unknown_sources"]) == ("pass", [], 1)


def test_one_setting_spelt_in_two_ways_is_one() -> None:
    base, new = run(), run()
    for r, value in (*((r, 1) for r in base), *((r, 1.0) for r in new)):
        r["algorithm"]["config"]["beta"] = value
    assert only(said(base, new))["verdict"] == "same"


def test_an_experiment_is_a_place_of_its_own() -> None:
    base = [record("task0", 0, {"kl": 1.0})]
    new = copy.deepcopy(base)
    new[0]["experiment"] = "mine"
    found = said(base, new, match="algorithm")
    assert [row["reasons"] for row in found["cells"]] == [
        ["new: nothing to compare with"],
        ["missing from the new run"],
    ]
