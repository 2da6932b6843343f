"""Layouts of several graded or ranked answers to a prompt, which become pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from xpo_bench.data.cells import structure
from xpo_bench.data.formats import BadRow, Row
from xpo_bench.data.layouts.base import (
    Context,
    Layout,
    Numbered,
    Rows,
    compared,
    inside,
    is_list,
    listed,
    number,
    words,
)
from xpo_bench.data.values import absent

UNGRADED = "answers without a grade"


def _graded(
    prompt: object, texts: list[object], grades: list[object], sign: int, what: str, context: Context
) -> list[dict[str, object]]:
    """Pairs of answers and their grades; answers without a grade are left out and counted."""
    if len(texts) != len(grades):
        raise BadRow("missing column", f"{len(texts)} answers and {len(grades)} {what}; want one for each")
    kept = []
    for text, grade in zip(texts, grades, strict=True):
        if absent(grade) or grade != grade:  # tables made of data frames hold NaN for what is missing
            context.notes[UNGRADED] += 1
        else:
            # sign −1 turns ranks, where 1 is the best, into grades, where more is better
            kept.append((text, sign * number({what: grade}, what)))
    if len(kept) < 2:
        raise BadRow("fewer than two answers", f"{len(kept)} answers with {what}; want two or more")
    return compared(prompt, kept, context)


def _of_objects(name: str, prompt: str, answers: str, text: str, grade: str, sign: int = 1) -> Layout:
    """A layout of answers as objects that hold a text and a grade each."""

    def rows(row: Row, context: Context) -> Iterable[Row]:
        found = listed(row, answers)
        texts, grades = ([inside(a, key) for a in found] for key in (text, grade))
        return _graded(row[prompt], texts, grades, sign, grade, context)

    def fits(row: Row) -> bool:
        items = structure(row[answers])
        return (
            isinstance(items, list)
            and bool(items)
            and isinstance(items[0], dict)
            and {text, grade} <= items[0].keys()
        )

    columns = {
        "prompt": prompt,
        "pairs": f"{answers}.{text}",
        "ranking": f"{answers}.{grade} ({'higher' if sign > 0 else 'lower'} is better)",
    }
    return Layout(name, columns, words(f"{prompt} {answers}"), rows=rows, fits=fits)


def _lists(prompt: str, answers: str, grades: str, sign: int) -> Rows:
    def rows(row: Row, context: Context) -> Iterable[Row]:
        return _graded(row[prompt], listed(row, answers), listed(row, grades), sign, grades, context)

    return rows


def _listed(prompt: str, answers: str, grades: str, sign: int = 1) -> Layout:
    name = (
        "argilla-generations" if answers == "generations" and grades in ("rating", "ratings") else "ranking"
    )
    columns = {
        "prompt": prompt,
        "pairs": answers,
        "ranking": f"{grades} ({'higher' if sign > 0 else 'lower'} is better)",
    }

    def fits(row: Row) -> bool:
        texts = structure(row[answers])
        return isinstance(texts, list) and all(isinstance(t, str) for t in texts) and is_list(row[grades])

    return Layout(
        name,
        columns,
        words(f"{prompt} {answers} {grades}"),
        rows=_lists(prompt, answers, grades, sign),
        fits=fits,
    )


def _by_prompt(rows: Numbered, context: Context) -> Numbered:
    """Answers of one prompt and split, compared by helpfulness; a pair has the number of its later row."""
    groups: dict[object, list[tuple[int, Row, float]]] = {}
    out: list[tuple[int, Row | BadRow]] = []
    for number_, row in rows:
        if isinstance(row, BadRow):
            out.append((number_, row))
            continue
        try:
            missing = [c for c in ("prompt", "response") if row.get(c) is None]
            if missing:
                raise BadRow(
                    "missing column", f"missing column {missing[0]}; want prompt, response, helpfulness"
                )
            grade = number(row, "helpfulness")
        except BadRow as bad:
            out.append((number_, bad))
            continue
        # repr: a prompt may be a list of messages, which no dictionary takes as a key
        groups.setdefault((repr(row["prompt"]), row.get("split")), []).append((number_, row, grade))
    for members in groups.values():
        if len(members) < 2:
            context.notes["answers without another to compare"] += 1
        # rows are dictionaries without a hash; these live as long as `members` does
        numbers = {id(row): number_ for number_, row, _ in members}
        for pair in compared(None, [(_Answer(row), grade) for _, row, grade in members], context):
            better, worse = pair["chosen"].row, pair["rejected"].row
            texts: Mapping[str, object] = {
                "prompt": better["prompt"],
                "chosen": better["response"],
                "rejected": worse["response"],
            }
            rest = {k: v for k, v in better.items() if k not in ("response", "helpfulness")}
            out.append((max(numbers[id(better)], numbers[id(worse)]), {**rest, **pair, **texts}))
    return sorted(out, key=lambda item: item[0])


class _Answer:
    """A graded row that is equal to another where their answers are."""

    def __init__(self, row: Row) -> None:
        self.row = row

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Answer) and self.row["response"] == other.row["response"]

    __hash__ = None  # type: ignore[assignment]


LAYOUTS = (
    _of_objects("nectar", "prompt", "answers", "answer", "rank", -1),
    _of_objects("ultrafeedback-completions", "instruction", "completions", "response", "overall_score"),
    _of_objects("stack-exchange-preferences", "question", "answers", "text", "pm_score"),
    _of_objects("responses-and-scores", "user_input", "responses_and_scores", "response", "score"),
    *(
        _listed(prompt, answers, grades, sign)
        for prompt in ("prompt", "instruction")
        for answers in ("responses", "completions", "answers", "generations")
        for grades, sign in (
            ("ranks", -1),
            ("rank", -1),
            ("scores", 1),
            ("ratings", 1),
            ("rating", 1),
            ("rewards", 1),
        )
    ),
    Layout(
        "helpsteer2-graded",
        {
            "prompt": "prompt",
            "pairs": "response of the same prompt",
            "ranking": "helpfulness (higher is better)",
        },
        words("prompt response helpfulness"),
        gather=_by_prompt,
    ),
)
"""In the order in which they are looked for."""
