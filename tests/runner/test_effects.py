"""No option of `run` is silently without effect: each changes the plan and the numbers, or is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
import pytest

import xpo_bench
from xpo_bench import plugins
from xpo_bench.cli.run import run as command
from xpo_bench.contract.settings import Budget
from xpo_bench.data.dataset import fingerprint
from xpo_bench.errors import UsageError
from xpo_bench.runner.effects import check_effects
from xpo_bench.runner.plan import Plan, make_plan
from xpo_bench.runner.request import requests
from xpo_bench.runner.settings import TrainOverrides, adapter, dump, names

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
ROWS: list[dict[str, Any]] = [
    {"prompt": f"say {x}", "chosen": f"{x}{x}", "rejected": f"no {x}", "score": i, "split": "train"}
    for i, x in enumerate("abcdefgh")
]
TINY = {"model": "tiny", "seeds": [0], "steps": 3, "batch_size": 3}
SAMPLES = {"task.kl_prompts": 2, "task.kl_samples": 2, "task.max_new_tokens": 3}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)), "utf-8")
    return path


# --------------------------------------------------------------------------- the options of the command

CHANGED: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "algos": ({}, {"algos": "ipo"}),
    "tasks": ({}, {"tasks": "cycle"}),
    "suite": ({"tasks": None}, {"suite": "exact"}),
    "settings": ({}, {"set": ["dpo.beta=1"]}),
    "seeds": ({}, {"seeds": [1]}),
    "steps": ({}, {"steps": 7}),
    "batch_size": ({}, {"batch_size": 2}),
    "sampling": ({}, {"sampling": "replacement"}),
    "optimizer": ({}, {"optimizer": "sgd"}),
    "lr": ({}, {"lr": 0.03}),
    "label_noise": ({}, {"label_noise": 0.2}),
    "labels": ({"tasks": "bandit"}, {"labels": "soft"}),
    "dtype": ({}, {"dtype": "float32"}),
    "model": ({}, {"model": "tiny"}),
    "loss_over": ({"tasks": "overfit_pair"}, {"loss_over": "token"}),
    "truncate": ({"tasks": "overfit_pair"}, {"truncate": "drop"}),
    "gpus_per_cell": ({"tasks": "overfit_pair", "batch_size": 2}, {"gpus_per_cell": 2}),
    "trust_remote_code": ({"tasks": "overfit_pair", "model": "HERE"}, {"trust_remote_code": True}),
    "template_date": ({"tasks": "overfit_pair", "model": "HERE"}, {"template_date": "2026-01-31"}),
    "lora": ({"tasks": "overfit_pair", "model": "HERE"}, {"lora": "r=2"}),
    "data": ({"tasks": None}, {"data": "DATA"}),
    "world": ({"data": "DATA"}, {"world": "WORLD"}),
    "rows": ({"data": "DATA"}, {"rows": 2}),
    "on_bad_row": ({"data": "DATA"}, {"on_bad_row": "skip"}),
    "columns": ({"data": "DATA"}, {"columns": "chosen=rejected,rejected=chosen"}),
    "rankings": ({"data": "DATA"}, {"rankings": "best"}),
    "strength": ({"data": "DATA"}, {"strength": "0.5", "columns": "strength=score"}),
    "heldout": ({"data": "DATA"}, {"heldout": 0.5}),
    "split_by": ({"data": "DATA", "heldout": 0.5}, {"split_by": "score"}),
}
"""Option -> (other words, the option), the plan of which differs from that of the other words alone."""
SEARCHES = {"target_kl", "protocol", "trials", "studies", "select"}
"""Options that run further cells; `runner.run.check` refuses them where they do not."""
NOT_NUMBERS = {"as_json", "quiet", "disable", "file"}
"""Options of what is printed, of which plugins are there, and the plan itself."""


def plan(words: Mapping[str, Any], there: Mapping[str, Path]) -> Plan:
    base: dict[str, Any] = {"algos": "dpo", "seeds": [0]}
    if "data" not in words and "suite" not in words:
        base["tasks"] = "deterministic"
    given = {
        k: str(there.get(str(v), v)) if isinstance(v, str) else v for k, v in (base | dict(words)).items()
    }
    return make_plan(requests({k: v for k, v in given.items() if v is not None}), plugins.load())


def test_every_option_of_the_command_is_of_a_known_kind() -> None:
    """It changes the plan, or stands in the documentation as where and how cells run."""
    assert isinstance(command, click.Command)
    options = {p.name for p in command.params}
    where = PAGE.read_text("utf-8").split("### Where and how")[1].split("\n### ")[0]
    documented = {
        p.name for p in command.params if any(f"`{o} " in where or f"`{o}`" in where for o in p.opts)
    }
    assert options == set(CHANGED) | SEARCHES | documented | (NOT_NUMBERS & options)
    assert not set(CHANGED) - {"gpus_per_cell"} & documented


@pytest.mark.parametrize("option", CHANGED)
def test_an_option_changes_the_plan(option: str, data: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", "utf-8")
    actions = {row["prompt"]: [row["chosen"], row["rejected"]] for row in ROWS}
    world = {p: {"reference": dict.fromkeys(a, 0.5)} for p, a in actions.items()}
    (tmp_path / "world.json").write_text(json.dumps(world), "utf-8")
    there = {"DATA": data, "WORLD": tmp_path / "world.json", "HERE": tmp_path / "model"}
    other, given = CHANGED[option]
    without = plan({k: v for k, v in other.items() if v is not None}, there)
    with_it = plan({k: v for k, v in (other | given).items() if v is not None}, there)
    assert {c.key for c in without.cells} != {c.key for c in with_it.cells}


# --------------------------------------------------------------------------- settings, down to the numbers


def numbers(cell: Mapping[str, Any]) -> str:
    """What a cell measured, without what is timed."""
    timed = ("pairs_per_s", "tokens_per_s", "overhead", "prepare_s", "peak_memory_mb")
    metrics = {k: v for k, v in cell["metrics"].items() if k not in timed}
    return json.dumps([metrics, cell["final_policy"]], sort_keys=True)


def other(kind: object, value: Any) -> Any:
    """Another value of a field."""
    if get_origin(kind) is Literal:
        return next(choice for choice in get_args(kind) if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return value * 1.7 if value else 0.3


def settings_of(cls: type) -> list[tuple[str, Any]]:
    """(name as a user writes it, another value) of every field."""
    hints = get_type_hints(cls)
    own = [f for f in fields(cls) if f.init]
    return [(name, other(hints[f.name], f.default)) for name, f in zip(names(cls), own, strict=True)]


HYPERPARAMETERS = [
    pytest.param(name, field, value, id=f"{name}.{field}")
    for name, (cls, _) in plugins.load().algorithms.items()
    for field, value in settings_of(cls)
]
NEEDS: Mapping[str, dict[str, Any]] = {
    # a first step on a batch has ratio 1 everywhere
    "ppo.clip": {"ppo.epochs": 4, "ppo.train.lr": 0.5},
    "grpo.clip": {"grpo.epochs": 4, "grpo.train.lr": 0.5},
}
FAR: Mapping[str, Any] = {
    "bon.kept": 1,
    "bon.reward_weight_decay": 100.0,  # which reward is largest changes late
    "bco.momentum": 0.5,
    "chi_po.clip": 1e-3,
    "online_dpo.reward_weight_decay": 100.0,
    "rso.top_k": 2,
}
"""Values that are far enough from the default to be seen in a short run."""
UNEQUAL = {
    "grpo.lengths",
    "ipo.normalize",
    "ld_dpo.tail_weight",
    "r_dpo.length_penalty",
    "rpo.nll",
    "tpo.normalize",
}
"""Hyperparameters that matter where completions differ in length: one-token tables cannot see them."""
FEW_PARAMETERS = {"aux_dpo.refit", "aux_dpo.reward_weight_decay"}
"""Those that matter where the policy cannot express every reward: a table can."""


@pytest.mark.parametrize(("name", "field", "value"), HYPERPARAMETERS)
def test_a_hyperparameter_changes_the_numbers(
    name: str, field: str, value: Any, data: Path, tmp_path: Path
) -> None:
    setting = f"{name}.{field}"
    words: dict[str, Any] = {"tasks": "bandit", "seeds": [0], "steps": 8}
    value = FAR.get(setting, value)
    if setting in UNEQUAL:
        words = {"data": str(data), **TINY}
    if setting == "bco.matching":  # a pair is one of each label
        words["tasks"] = "imbalance"
    if setting in FEW_PARAMETERS:
        words = {"tasks": "travel", "model": "linear", "seeds": [0], "steps": 8}
    fixed = NEEDS.get(setting, {}) | (SAMPLES if "data" in words else {})
    found = [
        xpo_bench.run(name, **words, set=fixed | extra, out=tmp_path / str(i)).cells[0]
        for i, extra in enumerate(({}, {setting: value}))
    ]
    assert found[0]["status"] == found[1]["status"] == "ok", found
    assert found[0]["key"] != found[1]["key"]
    assert numbers(found[0]) != numbers(found[1])


COST_ALONE = {"checkpointing", "packing", "fsdp", "ensemble", "micro_batch"}
"""Fields of the budget whose sentence says that they change time and memory and not the numbers."""
BUDGET: Mapping[str, Any] = {
    "steps": 4, "batch_size": 2, "optimizer": "sgd", "lr": 1e-3, "sampling": "replacement",
    "loss_over": "token",
    "label_noise": 0.4, "labels": "soft", "heldout": 0.5, "warmup": 0.9, "anneal": 0.9, "clip": 1e-4,
    "dtype": "float64", "batch_tokens": 60,
    "warm_start": 2, "warm_start_lr": 0.1, "eval_pairs": 2, "heldout_pairs": 1, "kl_prompts": 1,
    "kl_samples": 3, "max_new_tokens": 5,
}  # fmt: skip


def test_every_field_of_a_budget_is_tried() -> None:
    assert set(BUDGET) | COST_ALONE == {f.name for f in fields(Budget)}


@pytest.mark.parametrize("field", BUDGET)
def test_a_field_of_the_budget_changes_the_numbers(field: str, data: Path, tmp_path: Path) -> None:
    base: dict[str, Any] = {f"task.{k}": v for k, v in (("steps", 3), ("batch_size", 3))} | SAMPLES
    rows = [dict(row) for row in ROWS]
    if field == "loss_over":  # tokens are rows of the loss where both sides have as many
        rows = [row | {"rejected": "no"} for row in rows]
    if field == "labels":
        rows = [row | {"p_chosen": 0.6} for row in rows]
    if field == "heldout_pairs":
        base["task.heldout"] = 0.5
    if field == "warm_start_lr":
        base["task.warm_start"] = 2
    data.write_text(
        "\n".join(json.dumps({k: v for k, v in row.items() if k != "split"}) for row in rows), "utf-8"
    )
    if field == "batch_tokens":
        del base["task.batch_size"]
    found = [
        xpo_bench.run("dpo", data=str(data), model="tiny", seeds=[0], set=base | extra, out=tmp_path / str(i))
        for i, extra in enumerate(({}, {f"task.{field}": BUDGET[field]}))
    ]
    (one,), (two,) = (result.cells for result in found)
    assert one["status"] == two["status"] == "ok", (one, two)
    assert numbers(one) != numbers(two)


TASK_OPTIONS = [
    pytest.param(name, field, value, id=f"{name}.{field}")
    for name, (cls, _) in plugins.load().tasks.items()
    for field, value in settings_of(cls)
    if field != "rows"
]


@pytest.mark.parametrize(("name", "field", "value"), TASK_OPTIONS)
def test_an_option_of_a_task_changes_its_data(name: str, field: str, value: Any) -> None:
    cls, _ = plugins.load().tasks[name]
    default = adapter(cls).validate_python({})
    needs: dict[str, Any] = {"annotators": 3} if field == "disagreement" else {}
    needs |= {"disagreement": 1.0} if field == "annotators" else {}
    # 1.7 times the default is too much
    near = {"coverage": 0.75, "preference": 0.7, "length": 2, "ratio": 3, "ab": 0.6, "bc": 0.6, "ca": 0.6}
    value = near.get(field, value)
    once, again, changed = (
        fingerprint(adapter(cls).validate_python(dump(default) | needs | extra).data(0, cls.model))
        for extra in ({}, {}, {field: value})
    )
    assert once == again != changed


# --------------------------------------------------------------------------- rates


def rates(**words: Any) -> dict[str, list[float]]:
    out: dict[str, list[float]] = {}
    for cell in make_plan(requests({"seeds": [0], **words}), plugins.load()).cells:
        out.setdefault(cell.algorithm.name, []).append(cell.lr)
    return out


def test_a_rate_of_the_task_is_that_of_all_its_algorithms() -> None:
    """Of those in the task's table, too; one that an algorithm has of its own goes before it."""
    table = rates(algos="dpo,ipo,sft", tasks="bandit")
    assert len({v for (v,) in table.values()}) > 1
    asked = rates(algos="dpo,ipo,sft", tasks="bandit", set=["task.lr=0.001,0.07", "ipo.train.lr=0.3"])
    assert asked == {"dpo": [0.001, 0.07], "sft": [0.001, 0.07], "ipo": [0.3]}  # once
    assert rates(algos="dpo", tasks="bandit", lr=0.001) == rates(
        algos="dpo", tasks="bandit", set=["task.lr=.001"]
    )


def test_a_swept_rate_of_the_task_changes_the_numbers(tmp_path: Path) -> None:
    result = xpo_bench.run("dpo", "bandit", seeds=1, steps=5, set=["task.lr=0.01,0.05"], out=tmp_path / "run")
    assert len({numbers(cell) for cell in result.cells}) == 2


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"lr": 0.1, "set": ["task.lr=0.2"]}, r"--set task\.lr: the same as --lr, which is given, too"),
        ({"steps": 5, "set": ["task.steps=6"]}, r"--set task\.steps: the same as --steps"),
        ({"lr": 0.1, "set": ["dpo.train.lr=.2"]}, r"--lr: without effect; every .*\(dpo\.train\.lr\)"),
        ({"set": ["task.lr=0.1", "dpo.train.lr=.2"]}, r"--set task\.lr: without effect; every algorithm"),
        ({"optimizer": "sgd", "set": ["dpo.train.optimizer=adam"]}, r"--optimizer: without effect; every"),
        ({"algos": "rlhf", "lr": 0.1}, r"--lr: without effect here; a closed form is not trained by steps"),
        ({"algos": "rlhf,dpo", "set": ["rlhf.train.lr=.1"]}, r"--set rlhf\.train: without effect; rlhf is"),
        ({"tasks": "overfit_pair", "batch_size": 2, "set": ["task.batch_tokens=99"]}, r"--batch-size: "),
        ({"truncate": "drop"}, r"--truncate: without effect here; the policies are tables"),
        ({"loss_over": "token"}, r"--loss-over: without effect here; the policies are tables"),
        ({"trust_remote_code": True}, r"--trust-remote-code: without effect here; no model of a hub id"),
        ({"on_bad_row": "skip"}, r"--on-bad-row goes with --data"),
        ({"set": ["task.kl_samples=9"]}, r"--set task\.kl_samples: without effect here; no policy"),
        ({"set": ["task.warm_start=9"]}, r"--set task\.warm_start: without effect here"),
        ({"set": ["task.warm_start_lr=.1"]}, r"--set task\.warm_start_lr: without effect here; there is no"),
        ({"set": ["task.packing=false"]}, r"--set task\.packing: without effect here"),
        ({"set": ["task.ensemble=2"]}, r"--set task\.ensemble: without effect here"),
        ({"disable": ["wandbb"]}, r"--disable: unknown plugin 'wandbb'; did you mean 'wandb'\?"),
    ],
)  # fmt: skip
def test_what_would_be_without_effect_is_refused(words: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"^{message}") as refused:
        xpo_bench.run(**{"algos": "dpo", "tasks": "deterministic"} | words, out=tmp_path / "run")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_what_one_task_of_several_reads_is_taken() -> None:
    asked = requests({
        "algos": "dpo,sft", "tasks": "deterministic,overfit_pair", "seeds": [0], "lr": 0.1,
        "truncate": "drop",
        "set": ["task.kl_samples=2", "dpo.train.lr=0.2"],
    })  # fmt: skip
    check_effects(asked, make_plan(asked, plugins.load()).cells)


def test_flags_win_over_a_file_whichever_way_it_says_it(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('algos = "dpo"\ntasks = "bandit"\nset = { "task.steps" = 9, "task.lr" = 0.1 }\n', "utf-8")
    (flag,) = requests({"steps": 5}, path)
    assert (flag.budget, flag.settings) == ({"steps": 5}, {"task": {"lr": [0.1]}})
    path.write_text('algos = "dpo"\ntasks = "bandit"\nsteps = 9\n', "utf-8")
    (setting,) = requests({"set": ["task.steps=5"]}, path)
    assert (setting.budget, setting.settings) == ({}, {"task": {"steps": ["5"]}})
    path.write_text('algos = "dpo"\ntasks = "bandit"\nsteps = 9\nset = { "task.steps" = 5 }\n', "utf-8")
    with pytest.raises(UsageError, match=r"--set task\.steps: the same as --steps"):
        requests({}, path)


def test_training_settings_are_the_two_that_rates_are_checked_for() -> None:
    assert {f.name for f in fields(TrainOverrides)} == {"lr", "optimizer"}
