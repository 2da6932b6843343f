"""--columns and --rankings under every word, and what a run says about the rows that it used."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]
VOTES = [("x", "a", "b", "A"), ("x", "a", "c", "b"), ("x", "b", "c", "tie")]
SHORT = ("--algos", "dpo", "--model", "tabular", "--steps", "5", "--seeds", "1")


def jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.fixture
def votes(tmp_path: Path) -> None:
    jsonl(
        tmp_path / "v.jsonl",
        [{"q": {"text": q}, "left": a, "right": b, "verdict": w} for q, a, b, w in VOTES],
    )


MAPPED = "prompt=q.text,response_a=left,response_b=right,winner=verdict"


@pytest.mark.usefixtures("votes")
def test_columns_under_every_word(warm: Command, tmp_path: Path) -> None:
    (tmp_path / "table.toml").write_text(
        'algos = "dpo"\ndata = "v.jsonl"\nsteps = 5\nseeds = 1\nmodel = "tabular"\n'
        'columns = { prompt = "q.text", response_a = "left", response_b = "right", winner = "verdict" }\n',
        "utf-8",
    )
    (tmp_path / "words.toml").write_text(
        f'algos = "dpo"\ndata = "v.jsonl"\nsteps = 5\nseeds = 1\ncolumns = "{MAPPED}"\n', "utf-8"
    )
    cells = [
        done.json["cells"][0]
        for done in (
            warm("run", *SHORT, "--data", "v.jsonl", "--columns", MAPPED, "--json"),
            warm("run", "table.toml", "--json"),
            warm("run", "words.toml", "--model", "tabular", "--json"),
        )
    ]
    assert len({cell["key"] for cell in cells}) == 1
    data = cells[0]["task"]["data"]
    assert (data["layout"], data["rows"], data["train"]) == ("judged", 3, 3)
    assert data["columns"] == {
        "prompt": "q.text",
        "pair": "response_a, response_b",
        "preference": "winner",
        "response_a": "left",
        "response_b": "right",
        "winner": "verdict",
    }
    assert set(cells[0]["final_policy"]["x"]) == {"a", "b", "c"}


@pytest.mark.usefixtures("votes")
def test_the_layout_is_told_once_and_the_command_of_a_cell_repeats_it(warm: Command, tmp_path: Path) -> None:
    done = warm("run", *SHORT, "--data", "v.jsonl", "--columns", MAPPED, "--out", "r")
    told = [line for line in done.lines if "layout judged" in line]
    assert len(told) == 1
    assert told[0].startswith(
        "xpo-bench: v.jsonl: layout judged (prompt from q.text, pair from response_a, response_b"
    )
    warm("report", "r", "--html", "r.html")
    page = (tmp_path / "r.html").read_text("utf-8")
    assert f"--columns {','.join(sorted(MAPPED.split(',')))}" in page or MAPPED in page


@pytest.mark.usefixtures("votes")
def test_the_columns_are_part_of_the_key(warm: Command) -> None:
    other = MAPPED.replace("response_a=left,response_b=right", "response_a=right,response_b=left")
    keys = {
        warm("run", *SHORT, "--data", "v.jsonl", "--columns", words, "--json").json["cells"][0]["key"]
        for words in (MAPPED, other)
    }
    assert len(keys) == 2


@pytest.mark.usefixtures("votes")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "v.jsonl"], "perhaps --columns prompt=q"),
        (["--data", "v.jsonl", "--columns", "chosen"], "--columns chosen: expected NAME=COLUMN"),
        (
            ["--data", "v.jsonl", "--columns", "chosne=left"],
            "unknown name in --columns 'chosne'; did you mean 'chosen'?",
        ),
        (["--data", "v.jsonl", "--columns", "chosen=left,chosen=right"], "--columns chosen: given twice"),
        (
            ["--data", "v.jsonl", "--columns", "chosen=l"],
            "--columns chosen=l: no such column (has q, left, right, verdict)",
        ),
        (["--tasks", "bandit", "--columns", "chosen=left"], "--columns goes with --data"),
        (["--tasks", "bandit", "--rankings", "best"], "--rankings goes with --data"),
    ],
)
def test_what_cannot_be_mapped(warm: Command, words: list[str], message: str) -> None:
    done = warm("run", "--algos", "dpo", "--steps", "5", "--seeds", "1", *words)
    assert done.code == 2
    assert message in done.err
    assert len(done.lines) == 1


def test_the_suggested_columns_map_the_set(warm: Command, tmp_path: Path) -> None:
    sets: list[dict[str, Any]] = [
        {"question": "x", "good_answer": "a", "bad_answer": "b", "id": 1},
        {"Query text": "x", "preferred": "a", "dispreferred": "b"},
        {"ask": "", "instruction": "x", "answer_1": "a", "answer_2": "b", "preference": "a"},
        {"question": "x", "reply": "a", "thumbs": "yes", "note": "n"},
        {"my question": "x", "the best": "a", "the worst": "b"},
    ]
    for i, row in enumerate(sets):
        jsonl(tmp_path / f"s{i}.jsonl", [row])
        words = ["run", "--algos", "all" if "thumbs" in row else "dpo", *SHORT[2:], "--data", f"s{i}.jsonl"]
        done = warm(*words)
        assert done.code == 2, row
        given = shlex.split(done.err.partition("perhaps --columns ")[2])[0]  # as a shell reads what is pasted
        again = warm(*words, "--columns", given, "--json")
        assert again.code == 0, again.err
        assert set(again.json["cells"][0]["final_policy"]) == {"x"}


def test_rankings(warm: Command, tmp_path: Path) -> None:
    rows = [
        {"prompt": "x", "responses": ["a", "b", "c"], "scores": [1, 3, 2]},
        {"prompt": "y", "responses": ["d", "e"], "scores": [1, 1]},
    ]
    jsonl(tmp_path / "d.jsonl", rows)
    every, best = (
        warm("run", *SHORT, "--data", "d.jsonl", *words, "--json").json["cells"][0]
        for words in ([], ["--rankings", "best"])
    )
    assert [cell["task"]["data"]["train"] for cell in (every, best)] == [4, 3]
    assert [cell["task"]["data"]["columns"]["rankings"] for cell in (every, best)] == ["all", "best"]
    assert every["key"] != best["key"]


def test_what_was_dropped_is_told_everywhere(warm: Command, tmp_path: Path) -> None:
    rows = [{"prompt": "x", "chosen": a, "rejected": b, "score_chosen": s, "score_rejected": 2} for a, b, s in
            (("a", "b", 3), ("a", "c", 1), ("c", "c", 3), ("", "c", 3), ("b", "b", 3))]  # fmt: skip
    jsonl(tmp_path / "d.jsonl", rows)
    refused = warm("run", *SHORT, "--data", "d.jsonl")
    assert refused.code == 2
    assert all(f"row {n}: " in refused.err for n in (3, 4, 5))
    assert "3 of 5 rows are bad: 2 chosen equals rejected, 1 empty completion" in refused.err
    done = warm("run", *SHORT, "--data", "d.jsonl", "--on-bad-row", "skip", "--out", "r")
    line = (
        "d: 2 of 5 rows used; 3 dropped (2 chosen equals rejected, 1 empty completion); 1 row: "
        "score_chosen <= score_rejected"
    )
    assert "3 rows dropped: 2 chosen equals rejected, 1 empty completion" in done.err
    assert "1 row: score_chosen <= score_rejected" in done.err
    warm("report", "r", "--html", "r.html", "--md", "r.md", "--json", "r.json")
    markdown = (tmp_path / "r.md").read_text("utf-8").replace("\\", "").replace("&lt;", "<")
    page = (tmp_path / "r.html").read_text("utf-8").replace("&lt;", "<")
    for text in (done.out, warm("show", "r").out, markdown, page):
        assert line in " ".join(text.split())
    assert any(line in told for told in json.loads((tmp_path / "r.json").read_text("utf-8"))["data"])
    assert done.code == 0
