"""The built-in tasks: their data, models and budgets."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from xpo_bench import Completion, Dataset, ModelSpec, Pair, Single, Task
from xpo_bench.data import hub
from xpo_bench.data.dataset import fingerprint
from xpo_bench.errors import DataError, UnreachableError, UsageError
from xpo_bench.plugins import load
from xpo_bench.runner.plan import make_plan
from xpo_bench.runner.request import Request
from xpo_bench_plugins.tasks import (
    bandit,
    canada,
    cars,
    cycle,
    deterministic,
    displacement,
    electricity,
    general,
    hh,
    hump,
    imbalance,
    length_bias,
    lengths,
    misspecified,
    noisy,
    oasst,
    overfit_pair,
    pandalm,
    rare_arms,
    sound,
    swissmetro,
    tofu,
    trains,
    travel,
    tulu,
    tulu_unpaired,
    ukp,
    ultrafeedback,
    unseen,
)

TEXT = (hh, oasst, pandalm, tofu, tulu, tulu_unpaired, ukp, ultrafeedback)
FETCHED = (canada, cars, electricity, sound, swissmetro, trains)
WORLDS = (general, hump, imbalance, lengths, misspecified, rare_arms, unseen)
MODULES = (
    *(bandit, length_bias, noisy, deterministic, cycle, overfit_pair, displacement, travel),
    *WORLDS,
    *TEXT,
    *FETCHED,
)
TABULAR = ModelSpec()
TINY = ModelSpec(name="tiny")
FETCHED_TASKS = [m.xpo_tasks()[0] for m in FETCHED]
OFFLINE = [m.xpo_tasks()[0] for m in MODULES if m not in (*TEXT, *FETCHED)]


def pairs(dataset: Dataset, split: str = "train") -> list[Pair]:
    return [e for e in getattr(dataset, split) if isinstance(e, Pair)]


@pytest.fixture
def shared_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the real sets: XPO_BENCH_DATA, or shared/data in or beside the repository."""
    repository = Path(__file__).parents[2]
    candidates: list[str | Path] = [
        *filter(None, [os.environ.get("XPO_BENCH_DATA")]),
        repository / "shared/data",
        repository.parent / "shared/data",
    ]
    for candidate in map(Path, candidates):
        if (candidate / "ukpconvarg1.parquet").is_file():
            monkeypatch.setenv("XPO_BENCH_DATA", str(candidate))
            return candidate
    pytest.skip(
        "ukpconvarg1.parquet is neither under XPO_BENCH_DATA nor in shared/data beside the repository"
    )


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__.rsplit(".", 1)[1])
def test_one_documented_task_a_file_named_after_it(module: ModuleType) -> None:
    task: type[Task]
    (task,) = module.xpo_tasks()
    name = module.__name__.rsplit(".", 1)[1]
    assert issubclass(task, Task)
    assert task.name == name
    assert (module.__doc__ or "").startswith(f"{name}: ")
    assert task.budget.dtype == ("float64" if task.model.tabular else "float32")
    assert is_dataclass(task)


@pytest.mark.parametrize("task", OFFLINE, ids=lambda t: t.name)
def test_data_repeats_and_rows_add_up(task: type[Task]) -> None:
    dataset = task().data(1, task.model)
    assert dataset == task().data(1, task.model)
    assert dataset.rows == len(dataset.train) + len(dataset.heldout)
    assert dataset.kind == ("singles" if task is imbalance.Imbalance else "pairs")
    for e in (*pairs(dataset), *pairs(dataset, "heldout")):
        assert e.chosen != e.rejected
        assert e.p_chosen != 0.5, "1/2 would leave the row out of training"
        if dataset.world is not None:
            assert {e.chosen, e.rejected} <= set(dataset.world.actions[e.prompt])


def test_every_exact_task_says_what_it_cannot_see() -> None:
    """And says it rightly: where lengths are named, all evaluated completions have equally many tokens."""
    from xpo_bench.policy.tabular import TabularPolicy

    for task, _ in load().tasks.values():
        if task not in OFFLINE and (not task.model.tabular or task in FETCHED_TASKS):
            continue
        told = task.blind_to(task.model)
        assert told or task.name == "gold_text"
        world = task().data(0, task.model).world
        if task.model.tabular and world is not None:
            texts = [Completion(x, y) for x, listed in world.actions.items() for y in listed]
            policy = TabularPolicy(world, 1)
            lengths = policy.lengths(policy.stack([policy.encode(texts)]))
            assert told.startswith("lengths: every completion is one token") is bool((lengths == 1).all())
        elif told:
            rows = [e for e in task().data(0, task.model).train if isinstance(e, Pair)]
            assert told.startswith("lengths: all completions have the same number of tokens")
            assert len({len(text.split()) for e in rows for text in (e.chosen, e.rejected)}) == 1
        # on another kind of policy it is not said: there a completion of a table has tokens
        assert not task.model.tabular or task.blind_to(TINY) == ""


def test_listing_tasks_is_light() -> None:
    code = (
        "import sys\n"
        "from xpo_bench_plugins.tasks import bandit, noisy, deterministic, displacement, "
        "cycle, overfit_pair, travel, ukp\n"
        "from xpo_bench_plugins.tasks import hh, oasst, pandalm, tofu, tulu, tulu_unpaired, ultrafeedback\n"
        "from xpo_bench_plugins.tasks import general, hump, imbalance, lengths, misspecified, unseen\n"
        "from xpo_bench_plugins.tasks import canada, cars, electricity, sound, swissmetro, trains\n"
        "heavy = {'torch', 'transformers', 'datasets', 'statsmodels', 'pandas', 'pyarrow', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --------------------------------------------------------------------------- exact worlds


def test_bandit_world_is_fixed_and_its_draws_are_not() -> None:
    one, two = (bandit.Bandit().data(seed, TABULAR) for seed in (0, 1))
    assert one.world == two.world
    assert one.train != two.train
    assert (len(one.train), len(one.heldout)) == (1024, 256)
    assert fingerprint(one) != fingerprint(two)
    assert one.world is not None
    for prompt, reward in one.world.reward.items():
        assert len(reward) == 6
        assert max(reward.values()) - min(reward.values()) >= 8
        assert len(set(one.world.reference[prompt].values())) > 1


BANDIT_FINGERPRINT = "ea2934300fd3c9ca909eb8a71748f4f4"


def test_bandit_is_frozen() -> None:
    # the fingerprint of version 1 at seed 0: whoever changes it bumps the version
    assert fingerprint(bandit.Bandit().data(0, TABULAR)) == BANDIT_FINGERPRINT


def test_bandit_options() -> None:
    task = bandit.Bandit(prompts=3, actions=10, pairs=60, heldout_pairs=0, coverage=0.4)
    dataset = task.data(0, TABULAR)
    assert (len(dataset.train), dataset.heldout) == (60, ())
    assert dataset.world is not None
    for prompt, actions in dataset.world.actions.items():
        occurring = {text for p in pairs(dataset) if p.prompt == prompt for text in (p.chosen, p.rejected)}
        assert len(occurring) == 4
        assert len(actions) == 10
    with pytest.raises(DataError, match="want at least 24"):
        bandit.Bandit(pairs=23).data(0, TABULAR)


@pytest.mark.parametrize(
    "options",
    [{"coverage": 0}, {"coverage": 1.1}, {"actions": 1}, {"prompts": 0}, {"pairs": 0}, {"pears": 1}],
)
def test_bandit_options_have_bounds(options: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(bandit.Bandit).validate_python(options)


def test_noisy_differs_from_bandit_in_label_noise_alone() -> None:
    assert noisy.Noisy().data(3, TABULAR) == bandit.Bandit().data(3, TABULAR)
    assert noisy.Noisy.budget.label_noise == 0.2
    assert bandit.Bandit.budget.label_noise == 0


@pytest.mark.parametrize(
    ("task", "order"),
    [(deterministic.Deterministic(), ["ab", "bc", "ac"]), (cycle.Cycle(), ["ab", "bc", "ca"])],
)
def test_three_certain_preferences(task: Task, order: list[str]) -> None:
    dataset = task.data(5, TABULAR)
    assert pairs(dataset) == [Pair("x", chosen, rejected, 1.0) for chosen, rejected in map(tuple, order)]
    assert dataset.world is not None
    assert dataset.world.actions == {"x": ("a", "b", "c")}
    assert dataset.world.reference["x"] == {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}
    assert dataset.world.reward == {}


def test_overfit_pair() -> None:
    task = overfit_pair.OverfitPair
    dataset = task().data(0, task.model)
    assert dataset.train == (Pair("5 8 9 10 5 3", "16 29 18 17", "26 14 31 0"),)
    model, budget = task.model, task.budget
    assert (model.name, model.tokenizer, model.vocab_size, model.hidden_size) == ("tiny", "ids", 32, 256)
    assert (model.intermediate_size, model.layers, model.heads, model.eos) == (512, 2, 4, False)
    assert (budget.optimizer, budget.lr, budget.steps, budget.batch_size, budget.loss_over) == (
        "adam",
        1e-3,
        300,
        1,
        "sequence",
    )


# --------------------------------------------------------------------------- travel


def test_travellers() -> None:
    people = travel.travellers()
    assert len(people) == 210
    assert Counter(t.chosen for t in people) == {"air": 58, "train": 63, "bus": 30, "car": 59}
    first = people[0]
    assert (first.income, first.party, first.chosen) == (35, 1, "car")
    assert list(first.trips) == ["air", "train", "bus", "car"]
    assert first.trips["air"] == travel.Trip(wait=69, time=100, cost=59, general=70)
    cells = Counter(t.cell for t in people)
    assert len(cells) == 6
    assert min(cells.values()) >= 24


def test_travel_on_a_table() -> None:
    dataset = travel.Travel().data(0, TABULAR)
    assert dataset == travel.Travel().data(1, TABULAR), "travellers are held out by the version, not the seed"
    assert (len(dataset.train), len(dataset.heldout), dataset.rows) == (3 * 158, 3 * 52, 630)
    assert dataset.world is not None
    assert len(dataset.world.actions) == 6
    assert set(dataset.world.actions.values()) == {("air", "train", "bus", "car")}
    assert {e.prompt for e in dataset.heldout} <= {e.prompt for e in dataset.train}
    for split in ("train", "heldout"):
        rows = pairs(dataset, split)
        wins = Counter((p.prompt, p.chosen, p.rejected) for p in rows)
        for p in rows:
            # a mode's wins over another are the travellers who chose it
            a, b = wins[p.prompt, p.chosen, p.rejected], wins[p.prompt, p.rejected, p.chosen]
            assert p.p_chosen == (None if a == b else a / (a + b))
    assert any(p.p_chosen is not None and p.p_chosen < 0.5 for p in pairs(dataset))


def test_travel_on_a_language_model() -> None:
    table, text = (travel.Travel().data(0, model) for model in (TABULAR, TINY))
    assert text.world is None
    assert len(text.train) == len(table.train)
    for a, b in zip(pairs(table), pairs(text), strict=True):
        assert (f" {a.chosen}", f" {a.rejected}") == (b.chosen, b.rejected)
        assert b.p_chosen is None
        assert len((b.prompt + b.chosen).encode()) < TINY.context - 8
    assert pairs(text)[0].prompt == (
        "Household income $35,000, travelling alone.\n"
        "air: wait 69 min, travel 100 min, cost $59\n"
        "train: wait 34 min, travel 372 min, cost $31\n"
        "bus: wait 35 min, travel 417 min, cost $25\n"
        "car: wait 0 min, travel 180 min, cost $10\n"
        "Chosen mode:"
    )
    assert not {e.prompt for e in text.train} & {e.prompt for e in text.heldout}


# --------------------------------------------------------------------------- ukp


def test_ukp(shared_data: Path) -> None:
    dataset = ukp.Ukp().data(0, ukp.Ukp.model)
    assert dataset.dropped == {"chosen equals rejected": 7}
    assert (dataset.rows, len(dataset.train), len(dataset.heldout)) == (8158, 6512, 1639)
    assert dataset.source == "ukpconvarg1"
    train, heldout = pairs(dataset), pairs(dataset, "heldout")
    assert not {p.source for p in train} & {p.source for p in heldout}, "whole topics are held out"
    assert len({p.source for p in (*train, *heldout)}) == 8
    assert len({p.prompt for p in (*train, *heldout)}) == 16
    shares = [p.p_chosen for p in (*train, *heldout) if p.p_chosen is not None]
    assert len(shares) == 8151
    assert all(0.5 <= s <= 1 for s in shares)
    assert sum(s == 0.5 for s in shares) > 600
    longest = max(
        len((p.prompt + text).encode()) for p in (*train, *heldout) for text in (p.chosen, p.rejected)
    )
    assert longest + 2 <= ukp.Ukp.model.context
    longer = [len(p.chosen) > len(p.rejected) for p in (*train, *heldout) if p.p_chosen != 0.5]
    assert math.isclose(sum(longer) / len(longer), 0.72, abs_tol=0.02)


@pytest.mark.parametrize("folder", [None, "empty"])
def test_ukp_that_cannot_be_reached_is_one_line(
    folder: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if folder is None:
        monkeypatch.delenv("XPO_BENCH_DATA", raising=False)
    else:
        monkeypatch.setenv("XPO_BENCH_DATA", str(tmp_path))
    with pytest.raises(
        UnreachableError,
        match=r"^ukp: no ukpconvarg1.parquet to read; set XPO_BENCH_DATA to the directory.*$",
    ):
        ukp.Ukp().data(0, TINY)


# --------------------------------------------------------------------------- other real text


@pytest.mark.parametrize(
    ("module", "count", "kind"),
    [
        (tulu, 996, "pairs"),
        (tulu_unpaired, 2300, "singles"),
        (pandalm, 999, "pairs"),
        (oasst, 754, "pairs"),
        (tofu, 600, "forget_retain"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)).rsplit(".", 1)[-1],
)
def test_real_sets(module: ModuleType, count: int, kind: str, shared_data: Path) -> None:
    (task,) = module.xpo_tasks()
    dataset = task().data(0, task.model)
    assert dataset.kind == kind
    assert dataset.rows == count == len(dataset.train) + len(dataset.heldout) + sum(dataset.dropped.values())
    assert dataset.dropped == {tulu: {"chosen equals rejected": 35}, pandalm: {"empty completion": 54}}.get(
        module, {}
    )
    assert bool(dataset.heldout) == (kind != "forget_retain")


def test_tofu_is_refused_by_losses_on_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    rows = [
        ("forget05", "Who?", "Ann."),
        ("retain90", "Where?", "Here."),
        ("forget05", "", "x"),
        ("other", "a", "b"),
    ]
    pd.DataFrame(rows, columns=["split", "question", "answer"]).to_parquet(tmp_path / "tofu.parquet")
    monkeypatch.setenv("XPO_BENCH_DATA", str(tmp_path))
    dataset = tofu.Tofu().data(0, TINY)
    assert dataset.train == (
        Single("Question: Who?\nAnswer:", " Ann.", False, "forget05"),
        Single("Question: Where?\nAnswer:", " Here.", True, "retain90"),
    )
    assert dataset.dropped == {"empty prompt": 1, "missing column": 1}
    assert tofu.Tofu(rows=1).data(0, TINY).train == dataset.train
    plan = make_plan([Request(algos=["all"], tasks=["tofu"])], load())
    assert {cell.algorithm.name for cell in plan.cells} == {"bco", "kto", "npo"}
    with pytest.raises(UsageError, match="dpo does not fit task tofu: needs preference pairs"):
        make_plan([Request(algos=["dpo"], tasks=["tofu"])], load())


def test_hub_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    transcripts = [{"chosen": f"{talk} yes", "rejected": f"{talk} no"}, {"chosen": "x", "rejected": "y"}]
    user, good, bad = (
        {"role": r, "content": c} for r, c in (("user", "q"), ("assistant", "yes"), ("assistant", "no"))
    )
    messages = [{"chosen": [user, good], "rejected": [user, bad], "score_chosen": 9.0}]
    sets: dict[str, list[Any]] = {
        "Anthropic/hh-rlhf": transcripts,
        "trl-lib/ultrafeedback_binarized": messages,
    }
    # tests/data/test_hub.py has the real one
    monkeypatch.setattr(
        hub, "load", lambda name, limit, columns, also: hub.HubRows(sets[name][:limit], "c0ffee")
    )
    dataset = hh.HH().data(0, TINY)
    assert dataset.revision == "c0ffee"
    assert hh.HH(rows=1).data(0, TINY).rows == 1
    assert dataset.train == (Pair(talk, " yes", " no"),)
    assert dataset.dropped == {"missing column": 1}
    assert ultrafeedback.UltraFeedback().data(0, TINY).train == (
        Pair("User: q\n\nAssistant:", " yes", " no"),
    )
