"""Layouts of public sets: every documented example is read as intended, in every format."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpo_bench.contract.examples import Dataset, Example, Pair, Single
from xpo_bench.contract.settings import DataSpec
from xpo_bench.data.dataset import load_dataset
from xpo_bench.data.layouts import LAYOUTS
from xpo_bench.errors import DataError

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
EXAMPLES = dict(
    re.findall(r"^### (\S+)\n\n(?:.+\n)*?.*?^```jsonl\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
)
NAMES = sorted({layout.name for layout in LAYOUTS})


def user(text: str, before: str = "") -> str:
    return f"{before}User: {text}\n\nAssistant:"


def post(subreddit: str, title: str, text: str) -> str:
    return f"SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {text}\n\nTL;DR:"


KNOCK = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Joke?\n\nAssistant:"
MORE = user("1+1?", user("Hi") + " Hello!\n\n")
SUMS = [Pair(user(f"{n}+2?"), f" {n + 2}", f" {n}2") for n in (1, 2, 3)]
ORCA = "System: Be brief.\n\n"
EXPECTED: dict[str, list[Example]] = {
    "ultrafeedback": [
        Pair(user("Name a fruit."), " A pear.", " Bread."),
        Pair(user("Name a bird."), " A wren.", " A cat."),
        Pair(user("Name a tree."), " An elm.", " Moss."),
    ],
    "orpo-dpo-mix": [
        Pair(user("2+2?"), " 4", " 5", None, "mix-a"),
        Pair(user("3+3?"), " 6", " 33", None, "mix-a"),
        Pair(MORE, " 2", " 11", None, "mix-b"),
    ],
    "tulu-3": [
        Pair(user("Say yes."), " Yes.", " No.", None, "persona"),
        Pair(user("Say up."), " Up.", " Down.", None, "persona"),
        Pair(user("Say on."), " On.", " Off.", None, "wild"),
    ],
    "step-dpo": [
        Pair(user("What is 2+3+4?") + " Step 1: 2+3=5.\nStep 2:", " 5+4=9.", " 5+4=8."),
        Pair(user("What is 1+1+1?") + " Step 1:", " 1+1=2.", " 1+1=11."),
        Pair(user("What is 6-2-1?") + " Step 1: 6-2=4.\nStep 2:", " 4-1=3.", " 4-1=5."),
    ],
    "stack-exchange-preferences": [
        Pair("How do I exit vim?", "Type :q!", "Reboot."),
        Pair("How do I list files?", "ls", "Look."),
        Pair("How do I undo?", "u", "Ctrl-Z", 0.5),
    ],
    "responses-and-scores": [
        Pair("Name a gas.", "Neon.", "Gold."),
        Pair("Name a sea.", "The Baltic.", "Pond."),
        Pair("Name a god.", "Thor.", "Odin.", 0.5),
    ],
    "conversations": [
        Pair(user("Rhyme with cat."), " Hat.", " Dog."),
        Pair(user("Rhyme with sun."), " Run.", " Sky."),
        Pair(user("Rhyme with sea."), " Bee.", " Ice."),
    ],
    "argilla": [
        Pair("Spell one.", "o-n-e", "w-o-n", None, "a"),
        Pair("Spell two.", "t-w-o", "t-o-o", None, "a"),
        Pair("Spell six.", "s-i-x", "s-i-c-k-s", None, "b"),
    ],
    "argilla-generations": [
        Pair("Count to two.", "1 2", "one"),
        Pair("Count to two.", "1 2", "2 1"),
        Pair("Count to two.", "one", "2 1"),
        Pair("Count to three.", "1 2 3", "3"),
        Pair("Count to four.", "1 2 3 4", "4"),
    ],
    "orca": [
        Pair(ORCA + user("Is ice cold?"), " Yes.", " Ice is a solid and therefore it is what it is."),
        Pair(user("Is fire hot?"), " Yes.", " No."),
        Pair("System: Be kind.\n\n" + user("Am I late?"), " Just a little.", " As always."),
    ],
    "orca-argilla": [
        Pair(ORCA + user("Is ice cold?"), " Yes.", " It may be."),
        Pair(ORCA + user("Is fire hot?"), " Yes.", " Indeed.", 0.5),
        Pair(user("Is rain wet?"), " Yes.", " No."),
    ],
    "question-pairs": [
        Pair("Capital of Peru?", "Lima", "Quito"),
        Pair("Capital of Cuba?", "Havana", "Haiti"),
        Pair("Capital of Oman?", "Muscat", "Amman"),
    ],
    "helpsteer3": [
        Pair(user("Greet me."), " Hello!", " Go.", 1.0),
        Pair(user("Print 1."), " print(1)", " 1", 5 / 6),
        Pair(user("Thank me."), " Thanks!", " Thank you!", 0.5),
    ],
    "helpsteer2": [
        Pair("Name a river.", "The Nile.", "Rome.", 5 / 6),
        Pair("Name a lake.", "Lake Como.", "The sea.", 1.0),
        Pair("Name a hill.", "The Palatine.", "The Aventine.", 0.5),
    ],
    "helpsteer2-graded": [
        Pair("Name a metal.", "Iron.", "Wood."),
        Pair("Name a metal.", "Iron.", "Tin, an element.", 0.5),
        Pair("Name a metal.", "Tin, an element.", "Wood."),
    ],
    "pku-saferlhf": [
        Pair("How do I open a jar?", "Twist the lid.", "Smash it."),
        Pair("How do I light a room?", "Use a lamp.", "Burn it."),
        Pair("How do I cool tea?", "Add ice.", "Wait."),
    ],
    "shp": [
        Pair("Why did my bread not rise?", "Old yeast.", "Bad luck.", None, "askbaking_train"),
        Pair("Why is my cake dry?", "Too long in the oven.", "No idea.", None, "askbaking_train"),
        Pair("Why does it squeak?", "The belt.", "Cars do.", None, "askcarguys_test"),
    ],
    "webgpt": [
        Pair("Why is the sky blue?", "Scattering.", "Paint.", None, "eli5"),
        Pair("Why do cats purr?", "To communicate.", "Engines.", None, "eli5"),
        Pair("Who wrote Emma?", "Austen.", "Jane Austen.", 0.5, "trivia"),
    ],
    "summarize-from-feedback": [
        Pair(post("pets", "Dog", "My dog ate my homework."), " Dog ate homework.", " Homework."),
        Pair(
            post("norway", "Oslo", "I moved to Oslo and I miss the sun."),
            " Misses the sun in Oslo.",
            " Oslo.",
        ),
        Pair("Article: The bridge opened today.\n\nTL;DR:", " Bridge opens.", " News."),
    ],
    "arena": [
        Pair(user("Hi"), " Hello!", " Bye."),
        Pair(user("Sing"), " No.", " Never.", 0.5),
        Pair(user("One"), " Two", " 1"),
    ],
    "arena-turns": [
        Pair(user("Hi"), " Hello!", " Bye."),
        Pair(user("How are you?", user("Hi") + " Hello!\n\n"), " Well, and you?", " So."),
        Pair(user("Sing"), " La", " Lala", 0.5),
    ],
    "judged": [
        Pair("Pick a colour.", "Blue.", "Loud."),
        Pair("Pick a number.", "Seven.", "Green."),
        Pair("Pick a day.", "Monday.", "Friday.", 0.5),
    ],
    "stack-exchange-paired": [
        Pair("How do I exit vim?", "Type :q!", "Reboot."),
        Pair("How do I list files?", "ls", "Look."),
        Pair("How do I undo?", "u", "Time travel."),
    ],
    "multipref": [
        Pair("Define ink.", "A dark fluid.", "Blue.", 3.5 / 4, p_tie=0.25),
        Pair("Define oak.", "A tree with acorns.", "Wood.", 0.75),
        Pair("Define fog.", "Low cloud.", "Mist.", 0.5, p_tie=0.5),
    ],
    "hh": [
        Pair("\n\nHuman: Hi\n\nAssistant:", " Hello!", " What?"),
        Pair(KNOCK, " Knock, knock.", " No."),
        Pair("\n\nHuman: Bye\n\nAssistant:", " See you.", " Good."),
    ],
    "alpaca": [
        Pair("Translate.\nchat", "cat", "talk"),
        Pair("Name a month.", "May", "Monday"),
        Pair("Translate.\nchien", "dog", "hen"),
    ],
    "alpaca-labelled": [
        Single("Translate.\nchat", "cat", True),
        Single("Name a month.", "Monday", False),
        Single("Translate.\nchien", "dog", True),
    ],
    "sharegpt": [
        Pair(user("Hi"), " Hello!", " Go."),
        Pair("System: Be kind.\n\n" + user("Help"), " Gladly.", " No."),
        Pair(user("C", user("A") + " B\n\n"), " D", " X"),
    ],
    "sharegpt-labelled": [
        Single(user("Hi"), " Hello!", True),
        Single(user("Hi"), " Go.", False),
        Single(user("C", user("A") + " B\n\n"), " D", True),
    ],
    "messages-labelled": [
        Single(user("Hi"), " Hello!", True),
        Single("System: Be kind.\n\n" + user("Help"), " No.", False),
        Single(user("C", user("A") + " B\n\n"), " D", True),
    ],
    "messages-kto-tag": [
        Single(user("Hi"), " Hello!", True),
        Single(user("Hi"), " Go.", False),
        Single(user("Sing"), " La", True),
    ],
    "verl": [
        Pair(user("1+2?"), " 3", " 12", None, "sums"),
        Pair(user("2+2?"), " 4", " 22", None, "sums"),
        Pair(ORCA + user("Hi"), " Hello!", " Dear Sir", None, "words"),
    ],
    "prompt-messages": list(SUMS),
    "prompt-messages-labelled": [
        Single(user("1+2?"), " 3", True),
        Single(user("2+2?"), " 22", False),
        Single(user("3+2?"), " 5", True),
    ],
    "nectar": [
        Pair("\n\nHuman: Name a gas.\n\nAssistant: ", "Neon.", "Air.", None, "set-a"),
        Pair("\n\nHuman: Name a gas.\n\nAssistant: ", "Neon.", "Gold.", None, "set-a"),
        Pair("\n\nHuman: Name a gas.\n\nAssistant: ", "Air.", "Gold.", None, "set-a"),
        Pair("\n\nHuman: Name a sea.\n\nAssistant: ", "The Baltic.", "Pond.", None, "set-a, set-b"),
        Pair("\n\nHuman: Name a god.\n\nAssistant: ", "Thor.", "Odin.", 0.5, "set-b"),
    ],
    "ultrafeedback-completions": [
        Pair("Name a gas.", "Neon.", "Gold.", None, "flan"),
        Pair("Name a sea.", "The Baltic.", "Pond.", None, "flan"),
        Pair("Name a god.", "Thor.", "Odin.", 0.5, "evol"),
    ],
    "ranking": [
        Pair("Name a gas.", "Neon.", "Air."),
        Pair("Name a gas.", "Neon.", "Gold."),
        Pair("Name a gas.", "Air.", "Gold."),
        Pair("Name a sea.", "The Baltic.", "Pond."),
        Pair("Name a god.", "Thor.", "Odin.", 0.5),
    ],
}  # fmt: skip
EXPECTED["alpaca-chosen"] = EXPECTED["alpaca"]
NOTES = {
    "ultrafeedback": {"score_chosen <= score_rejected": 1},
    "conversations": {"score_chosen <= score_rejected": 1},
    "orpo-dpo-mix": {"prompt column is not the first user turn": 1},
    "argilla-generations": {"answers without a grade": 1},
}


def rows_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in EXAMPLES[name].splitlines()]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        case ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, list(rows[0]))
                table.writeheader()
                spelt = [
                    {c: json.dumps(v) if isinstance(v, list | dict) else v for c, v in row.items()}
                    for row in rows
                ]
                table.writerows(spelt)
        case ".parquet":
            from datasets import Dataset as Table

            Table.from_list(rows, on_mixed_types="use_json").to_parquet(str(path))
    return path


def read(path: Path, **options: Any) -> Dataset:
    return load_dataset(DataSpec(source=str(path), **options), 0.0, np.random.default_rng(0))


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_layout_is_documented_by_an_example_of_three_rows() -> None:
    assert sorted(EXAMPLES) == NAMES == sorted(EXPECTED)
    assert {name: len(rows_of(name)) for name in NAMES} == dict.fromkeys(NAMES, 3)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("name", NAMES)
def test_documented_examples(tmp_path: Path, name: str, suffix: str) -> None:
    dataset = read(write(tmp_path / f"d{suffix}", rows_of(name)))
    assert dataset.layout == name
    assert [*dataset.train, *dataset.heldout] == EXPECTED[name]
    assert (dataset.rows, dataset.dropped) == (3, {})
    assert dataset.notes == NOTES.get(name, {})
    assert dataset.columns
