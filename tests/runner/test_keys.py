"""What identifies a cell: everything that can change its numbers, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import xpo_bench
from xpo_bench import plugins
from xpo_bench.errors import UsageError
from xpo_bench.runner import keys
from xpo_bench.runner.plan import Plan, make_plan
from xpo_bench.runner.request import requests
from xpo_bench_plugins.algorithms.dpo import DPO


def plan(**words: Any) -> Plan:
    base = {"algos": "dpo", "tasks": "deterministic", "seeds": [0]}
    if "data" in words:
        del base["tasks"]
    return make_plan(requests(base | words), plugins.load())


def key(**words: Any) -> str:
    (cell,) = plan(**words).cells
    return cell.key


def test_equal_numbers_have_equal_keys() -> None:
    assert (
        key(set=["dpo.beta=0.10"]) == key(set=["dpo.beta=.1"]) == key(set={"dpo.beta": 0.1}) == key()
    )  # .1 is the default
    assert key(set=["task.steps=2000"]) == key(steps=2000) == key()
    assert key(set=["dpo.train.lr=5e-2"]) == key(lr=0.05)
    # what a table does not read, and who asked for a rate, changes no number
    assert key(truncate="drop") == key(set=["task.kl_samples=9"]) == key(loss_over="token") == key()
    assert key(lr=0.03) == key(set=["task.lr=0.03"]) == key(set=["dpo.train.lr=0.03"]) != key()
    assert key(algos="rlhf", lr=0.3) == key(algos="rlhf")
    assert key(tasks="overfit_pair", truncate="drop") != key(tasks="overfit_pair")
    assert key(algos=[DPO()]).startswith(key(algos=[DPO(beta=0.1)]))


@pytest.mark.parametrize(
    "words",
    [
        {"seeds": [1]},
        {"set": ["dpo.beta=0.2"]},
        {"set": ["dpo.train.lr=0.049"]},
        {"set": ["dpo.train.optimizer=sgd"]},
        {"lr": 0.049},
        {"optimizer": "sgd"},
        {"steps": 1999},
        {"batch_size": 2},
        {"sampling": "replacement"},
        {"label_noise": 0.1},
        {"dtype": "float32"},
        {"tasks": "cycle"},
        {"algos": "ipo"},
        {"experiment": "overfit"},
        {"tasks": "overfit_pair", "truncate": "drop"},
    ],
    ids=str,
)
def test_what_changes_numbers_changes_the_key(words: dict[str, Any]) -> None:
    assert key(**words) != key()


def test_task_options_and_data_change_the_key(tmp_path: Path) -> None:
    assert key(tasks="bandit", set=["task.pairs=100"]) != key(tasks="bandit", set=["task.pairs=101"])
    path = tmp_path / "d.jsonl"
    row = {"prompt": "x", "chosen": "a", "rejected": "b"}
    found = set()
    for rows in ([row], [row, row], [row | {"chosen": "c"}]):
        path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
        found.add(key(data=str(path)))
    world = tmp_path / "w.json"
    for reference in (0.5, 0.6):
        path.write_text(json.dumps(row), "utf-8")
        world.write_text(json.dumps({"x": {"reference": {"a": reference, "b": 1 - reference}}}), "utf-8")
        found.add(key(data=str(path), world=str(world)))
    assert len(found) == 5


def test_a_changed_source_changes_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    monkeypatch.setitem(keys._SOURCES, DPO, "another version of the plugin")
    assert key() != before
    monkeypatch.undo()
    monkeypatch.setattr(keys, "host_source", lambda: "another version of the host")
    assert key() != before


def test_where_it_is_written_and_who_runs_it_change_nothing(tmp_path: Path) -> None:
    results = [
        xpo_bench.run("dpo", tasks="deterministic", steps=5, seeds=1, out=tmp_path / name, fresh=fresh)
        for name, fresh in (("a", False), ("b", True))
    ]
    assert results[0].cells[0]["key"] == results[1].cells[0]["key"]
    assert results[0].cells[0]["final_policy"] == results[1].cells[0]["final_policy"]


def test_the_plan_s_hash_is_stable_and_orderless() -> None:
    assert plan(seeds=[0, 1]).hash == plan(seeds=[1, 0]).hash
    assert plan(seeds=[0, 1]).hash != plan(seeds=[0]).hash
    assert len(plan().hash) == 12
    assert set(plan().hash) <= set("0123456789abcdef")


def test_the_default_directory_is_the_plan_s_hash(tmp_path: Path) -> None:
    result = xpo_bench.run("dpo", tasks="deterministic", steps=5, seeds=1)
    assert result.out == Path("results/runs") / plan(steps=5).hash
    assert (tmp_path / result.out / "run.json").is_file()


def test_cells_that_are_asked_for_twice_run_once() -> None:
    assert len(plan(algos="dpo,dpo").cells) == 1
    assert len(plan(set=["dpo.beta=0.1,0.10,.1"]).cells) == 1
    assert (
        len(plan(algos="dpo,ipo", tasks="deterministic,cycle", seeds=[0, 1], set=["dpo.beta=1,2"]).cells)
        == 2 * 2 * 3
    )


def test_canonical_json() -> None:
    assert keys.canonical({"b": 1, "a": [0.1, None, "é"]}) == '{"a":[0.1,null,"é"],"b":1}'
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            keys.canonical({"x": bad})


def test_a_local_model_is_in_the_key_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", "utf-8")
    (tmp_path / "weights.bin").write_bytes(b"1" * 100)
    found = []
    for content in (b"1" * 100, b"2" * 100):
        (tmp_path / "weights.bin").write_bytes(content)
        keys.model_fingerprint.cache_clear()
        found.append(keys.model_fingerprint(str(tmp_path)))
    assert None not in found
    assert found[0] != found[1]
    assert keys.model_fingerprint("tiny") is None


# --------------------------------------------------------------------------- what is not planned


def test_all_leaves_out_what_does_not_fit_and_says_why(tmp_path: Path) -> None:
    rows = [{"prompt": "x", "completion": c, "label": c == "a"} for c in "ab"]
    path = tmp_path / "singles.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    found = plan(algos="all", data=str(path))
    assert {"kto", "npo"} <= {cell.algorithm.name for cell in found.cells}
    reasons = {entry["algorithm"]: entry["reason"] for entry in found.skipped}
    assert reasons["dpo"] == "needs preference pairs, the data has single labels"
    assert not set(reasons) & {cell.algorithm.name for cell in found.cells}
    with pytest.raises(UsageError, match="dpo does not fit task singles: needs preference pairs"):
        plan(algos="dpo,kto", data=str(path))
    on_text = plan(algos="all", tasks="overfit_pair")
    assert {"rlhf"} <= {entry["algorithm"] for entry in on_text.skipped}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"algos": "dpoo"}, r"unknown algorithm 'dpoo'; did you mean 'dpo'\?"),
        ({"tasks": "bandid"}, r"unknown task 'bandid'; did you mean 'bandit'\?"),
        ({"set": ["ipo.tau=1"]}, r"--set ipo: ipo is not among the algorithms of this run \(dpo\)"),
        ({"set": ["dop.beta=1"]}, r"unknown target of --set 'dop'; did you mean 'dpo'\?"),
        ({"set": ["task.stesp=1"]}, r"unknown setting of task deterministic 'stesp'; did you mean 'steps'\?"),
        ({"set": ["dpo.train.speed=1"]}, r"unknown setting of dpo.train 'speed'"),
        ({"set": ["dpo.train.lr=-1"]}, r"dpo\.train\.lr = -1"),
        ({"steps": 0}, r"task\.steps = 0: input should be greater than 0"),
        ({"heldout": 0.2}, "--heldout goes with --data"),
        ({"world": "w.json"}, "--world goes with --data"),
    ],
)
def test_refusals_name_the_remedy(words: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}") as refused:
        plan(**words)
    assert "\n" not in str(refused.value)


def test_a_task_that_cannot_be_reached_is_named_and_others_run() -> None:
    found = plan(tasks="ukp,deterministic")
    assert [entry["task"] for entry in found.unreachable] == ["ukp"]
    assert {cell.setup.name for cell in found.cells} == {"deterministic"}
