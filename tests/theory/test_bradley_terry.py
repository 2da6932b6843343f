"""DPO on votes is a Bradley–Terry fit: of a published table, of independent fits, and of R.

Agresti's example: the American League East of 1987, 13 games between every two teams.
Source: Agresti, Categorical Data Analysis, 2nd ed., table 10.10; `baseball` of R's BradleyTerry2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from r_programs import rscript
from scipy.optimize import minimize
from scipy.special import expit, softmax

import xpo_bench

TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
WINS = (
    (0, 7, 9, 7, 7, 9, 11),
    (6, 0, 7, 5, 11, 9, 9),
    (4, 6, 0, 7, 7, 8, 12),
    (6, 8, 6, 0, 6, 7, 10),
    (6, 2, 6, 7, 0, 7, 12),
    (4, 4, 5, 6, 6, 0, 6),
    (2, 4, 1, 3, 1, 7, 0),
)
"""Games that the team of the row won against that of the column."""
PUBLISHED = (1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0.0)
"""Abilities, Baltimore at 0, as Agresti prints them (§10.6.2): two decimals."""


def rows() -> list[dict[str, Any]]:
    out = []
    for i, first in enumerate(TEAMS):
        for j in range(i):
            a, b = (first, TEAMS[j]) if WINS[i][j] > WINS[j][i] else (TEAMS[j], first)
            votes = max(WINS[i][j], WINS[j][i]), min(WINS[i][j], WINS[j][i])
            row: dict[str, Any] = {"prompt": "the better team?", "chosen": a, "rejected": b}
            out.append(row | {"votes_chosen": votes[0], "votes_rejected": votes[1]})
    return out


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("baseball") / "baseball.jsonl"
    path.write_text("\n".join(map(json.dumps, rows())), "utf-8")
    return path


def run(data: Path, out: Path, **words: Any) -> Mapping[str, Any]:
    (record,) = xpo_bench.run(
        algos=["dpo"], data=str(data), seeds=1, set={"dpo.beta": [1.0]}, out=out, **words
    ).cells
    return record


def abilities(policy: Mapping[str, float], teams: Sequence[str] = TEAMS) -> np.ndarray:
    logp = np.log([policy[team] for team in teams])
    return np.asarray(logp - logp[-1])


def fitted() -> np.ndarray:
    """By scipy, from the games alone."""
    wins = np.array(WINS, dtype=float)

    def loss(free: np.ndarray) -> float:
        theta = np.append(free, 0.0)
        return -float((wins * np.log(expit(theta[:, None] - theta[None, :]))).sum())

    return np.append(minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-9}).x, 0.0)


@pytest.fixture(scope="module")
def soft(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    return run(table, tmp_path_factory.mktemp("soft"), steps=600)


def test_votes_give_the_published_abilities(soft: Mapping[str, Any]) -> None:
    assert soft["labels"] == "soft"
    policy = soft["final_policy"]["the better team?"]
    assert abilities(policy) == pytest.approx(np.array(PUBLISHED), abs=0.0051)
    assert abilities(policy) == pytest.approx(fitted(), abs=1e-5)
    assert policy["Milwaukee"] == pytest.approx(softmax(fitted())[0], abs=1e-6)
    assert policy["Milwaukee"] == pytest.approx(0.219, abs=5e-4)


def test_the_majority_alone_is_another_answer(table: Path, tmp_path: Path) -> None:
    """Every decided comparison counts as certain: there is no finite optimum, and the run says hard."""
    hard = run(table, tmp_path, labels="hard", steps=2000)
    assert hard["labels"] == "hard"
    assert hard["final_policy"]["the better team?"]["Milwaukee"] == pytest.approx(0.995, abs=5e-4)


BRADLEY_TERRY = """
suppressMessages(library(BradleyTerry2))
d <- read.csv("games.csv", stringsAsFactors = FALSE)
teams <- unique(c(d$a, d$b))
d$a <- factor(d$a, levels = teams); d$b <- factor(d$b, levels = teams)
fit <- BTm(cbind(wins, losses), a, b, data = d, refcat = "Baltimore")
cat(sprintf("%s,%.10f\\n", rownames(BTabilities(fit)), BTabilities(fit)[, "ability"]), sep = "")
"""


@pytest.mark.slow
def test_r_gives_the_same_abilities(soft: Mapping[str, Any], tmp_path: Path) -> None:
    lines = ["a,b,wins,losses"]
    lines += [
        ",".join(map(str, row.values())) for row in ({k: r[k] for k in r if k != "prompt"} for r in rows())
    ]
    (tmp_path / "games.csv").write_text("\n".join(lines), "utf-8")
    found = rscript(BRADLEY_TERRY, tmp_path, "BradleyTerry2")
    ours = dict(zip(TEAMS, abilities(soft["final_policy"]["the better team?"]), strict=True))
    assert found == pytest.approx(ours, abs=1e-5)
