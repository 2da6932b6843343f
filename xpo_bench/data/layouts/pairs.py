"""Layouts of two answers as text, with a verdict, votes, grades or an order that says which is better."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from xpo_bench.data.cells import structure
from xpo_bench.data.formats import BadRow, Row, shown
from xpo_bench.data.layouts.base import (
    Context,
    Layout,
    Rows,
    graded,
    inside,
    listed,
    number,
    one_of,
    preferred,
    winner,
    words,
)
from xpo_bench.data.layouts.conversations import with_system

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


def _safe(row: Row, _: Context) -> Iterable[Row]:
    side = one_of(row, "better_response_id", {0: "first", 1: "second"})
    return [preferred(row["prompt"], row["response_0"], row["response_1"], side)]


def _shp(row: Row, _: Context) -> Iterable[Row]:
    side = one_of(row, "labels", {1: "first", 0: "second"})
    return [
        {
            "source": row.get("domain"),
            **preferred(row["history"], row["human_ref_A"], row["human_ref_B"], side),
        }
    ]


def _webgpt(row: Row, _: Context) -> Iterable[Row]:
    question = structure(row["question"])
    text = question.get("full_text") if isinstance(question, dict) else question
    a, b = number(row, "score_0"), number(row, "score_1")
    pair = preferred(
        text, row["answer_0"], row["answer_1"], "tie" if a == b else "first" if a > b else "second"
    )
    return [{"source": inside(question, "dataset"), **pair}]


def _summaries(row: Row, _: Context) -> Iterable[Row]:
    """The prompt as in Stiennon et al. 2020: a post with its subreddit and title, or an article."""
    side = one_of(row, "choice", {0: "first", 1: "second"})
    summaries = listed(row, "summaries")
    if len(summaries) != 2:
        raise BadRow("missing column", f"summaries holds {len(summaries)}; want two")
    info: Any = structure(row["info"])
    post, article = inside(info, "post"), inside(info, "article")
    if isinstance(post, str) and post.strip():
        head = [f"SUBREDDIT: r/{info['subreddit']}"] if info.get("subreddit") else []
        head += [f"TITLE: {info['title']}"] if info.get("title") else []
        prompt = "\n\n".join([*head, f"POST: {post}", "TL;DR:"])
    elif isinstance(article, str) and article.strip():
        prompt = f"Article: {article}\n\nTL;DR:"
    else:
        raise BadRow("empty prompt", "info holds neither post nor article; want one of them")
    first, second = (s.get("text") if isinstance(s, dict) else s for s in summaries)
    return [preferred(prompt, first, second, side)]


def _multipref(row: Row, _: Context) -> Iterable[Row]:
    votes = {"a": 0, "b": 0, "tie": 0}
    for column in ("normal_worker_annotations", "expert_worker_annotations"):
        for annotation in listed(row, column) if row.get(column) is not None else []:
            given = str(inside(annotation, "overall_pref") or "").strip().lower()
            side = next((s for s in votes if given == s or given.startswith(f"{s}-")), None)
            if side is None:
                raise BadRow(
                    "unreadable preference", f"overall_pref is {shown(given)}; want A-is-..., B-is-... or Tie"
                )
            votes[side] += 1
    if not sum(votes.values()):
        raise BadRow("unreadable preference", "no annotation with an overall_pref; want at least one")
    first, second = ("b", "a") if votes["b"] > votes["a"] else ("a", "b")
    pair = {
        "prompt": row["text"],
        "chosen": row[f"completion_{first}"],
        "rejected": row[f"completion_{second}"],
    }
    return [
        {**pair, "votes_chosen": votes[first], "votes_rejected": votes[second], "votes_tie": votes["tie"]}
    ]


def _helpsteer2(row: Row, context: Context) -> Iterable[Row]:
    return [graded(row["prompt"], row["response_1"], row["response_2"], row, "preference_strength", context)]


def _judged(row: Row, _: Context) -> Iterable[Row]:
    return [preferred(row["prompt"], row["response_a"], row["response_b"], winner(row, "winner"))]


def _paired(prompt: str, chosen: str, rejected: str) -> Rows:
    def rows(row: Row, _: Context) -> Iterable[Row]:
        return [{"prompt": row.get(prompt), "chosen": row.get(chosen), "rejected": row.get(rejected)}]

    return rows


def _alpaca_prompt(row: Row) -> object:
    """Instruction, line break and input; messages in sets with a system text or a history."""
    instruction, more = row.get("instruction"), row.get("input")
    if more is not None and not isinstance(more, str):
        raise BadRow("not text", f"input is {shown(more)}; give a string")
    text = f"{instruction}\n{more}" if isinstance(instruction, str) and more and more.strip() else instruction
    if "system" not in row and "history" not in row:
        return text
    past = listed(row, "history") if row.get("history") else []
    if not all(isinstance(turn, list) and len(turn) == 2 for turn in past):
        raise BadRow("bad message", "history wants pairs of an instruction and an answer")
    messages = with_system(row, text)
    turns = [
        m for q, a in past for m in ({"role": "user", "content": q}, {"role": "assistant", "content": a})
    ]
    return [*messages[:-1], *turns, messages[-1]]


def _alpaca(row: Row, _: Context) -> Iterable[Row]:
    prompt = _alpaca_prompt(row)
    if "output" in row and row.get("chosen") is None:
        output = listed(row, "output")
        if len(output) != 2:
            raise BadRow(
                "missing column", f"output holds {len(output)} answers; want two, the chosen one first"
            )
        chosen, rejected = output
    else:
        chosen, rejected = row.get("chosen"), row.get("rejected")
    return [{"prompt": prompt, "chosen": _as(chosen, prompt), "rejected": _as(rejected, prompt)}]


def _alpaca_labelled(row: Row, _: Context) -> Iterable[Row]:
    prompt = _alpaca_prompt(row)
    return [{"prompt": prompt, "completion": _as(row.get("output"), prompt), "label": row.get("kto_tag")}]


def _as(answer: object, prompt: object) -> object:
    return (
        [{"role": "assistant", "content": answer}]
        if isinstance(prompt, list) and isinstance(answer, str)
        else answer
    )


def _transcripts(row: Row, _: Context) -> Iterable[Row]:
    """The prompt ends after the last Assistant mark up to which the two transcripts agree."""
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        return [row]
    end, place = 0, chosen.find(ASSISTANT)
    while place >= 0 and rejected.startswith(chosen[: place + len(ASSISTANT)]):
        end = place + len(ASSISTANT)
        # marks of earlier turns are part of the prompt: only the last common one starts the completions
        place = chosen.find(ASSISTANT, end)
    return (
        [{**row, "prompt": chosen[:end], "chosen": chosen[end:], "rejected": rejected[end:]}]
        if end
        else [row]
    )


def _transcript(row: Row) -> bool:
    texts = [row["chosen"], row["rejected"]]
    return all(isinstance(t, str) and HUMAN in f"\n\n{t}" and ASSISTANT in t for t in texts)


def _text(column: str) -> Callable[[Row], bool]:
    return lambda row: isinstance(row[column], str)


LAYOUTS = (
    Layout(
        "hh",
        {"prompt": "what the transcripts share", "pair": "chosen, rejected"},
        words("chosen rejected"),
        rows=_transcripts,
        fits=_transcript,
    ),
    Layout(
        "pku-saferlhf",
        {"prompt": "prompt", "pair": "response_0, response_1", "preference": "better_response_id"},
        words("prompt response_0 response_1 better_response_id"),
        words("prompt_source"),
        _safe,
    ),
    Layout(
        "shp",
        {"prompt": "history", "pair": "human_ref_A, human_ref_B", "preference": "labels", "source": "domain"},
        words("history human_ref_A human_ref_B labels"),
        words("domain"),
        _shp,
    ),
    Layout(
        "webgpt",
        {"prompt": "question.full_text", "pair": "answer_0, answer_1", "preference": "score_0, score_1"},
        words("question answer_0 answer_1 score_0 score_1"),
        rows=_webgpt,
    ),
    Layout(
        "summarize-from-feedback",
        {"prompt": "info", "pair": "summaries", "preference": "choice"},
        words("info summaries choice"),
        rows=_summaries,
    ),
    Layout(
        "multipref",
        {"prompt": "text", "pair": "completion_a, completion_b", "votes": "overall_pref of every annotation"},
        words("text completion_a completion_b normal_worker_annotations"),
        words("expert_worker_annotations"),
        _multipref,
    ),
    Layout(
        "helpsteer2",
        {"prompt": "prompt", "pair": "response_1, response_2", "p_chosen": "preference_strength"},
        words("prompt response_1 response_2 preference_strength"),
        rows=_helpsteer2,
    ),
    Layout(
        "judged",
        {"prompt": "prompt", "pair": "response_a, response_b", "preference": "winner"},
        words("prompt response_a response_b winner"),
        rows=_judged,
    ),
    Layout(
        "stack-exchange-paired",
        {"prompt": "question", "chosen": "response_j", "rejected": "response_k"},
        words("question response_j response_k"),
        rows=_paired("question", "response_j", "response_k"),
    ),
    Layout(
        "argilla",
        {"prompt": "instruction", "chosen": "chosen_response", "rejected": "rejected_response"},
        words("instruction chosen_response rejected_response"),
        rows=_paired("instruction", "chosen_response", "rejected_response"),
    ),
    Layout(
        "alpaca",
        {"prompt": "instruction, input", "pair": "output (chosen first)"},
        words("instruction output"),
        words("input system history"),
        _alpaca,
        lambda row: isinstance(structure(row["output"]), list),
    ),
    Layout(
        "alpaca-chosen",
        {"prompt": "instruction, input", "pair": "chosen, rejected"},
        words("instruction chosen rejected"),
        words("input system history"),
        _alpaca,
        _text("chosen"),
    ),
    Layout(
        "alpaca-labelled",
        {"prompt": "instruction, input", "completion": "output", "label": "kto_tag"},
        words("instruction output kto_tag"),
        words("input system history"),
        _alpaca_labelled,
        _text("output"),
    ),
    Layout(
        "question-pairs",
        {"prompt": "question", "pair": "chosen, rejected"},
        words("question chosen rejected"),
        rows=_paired("question", "chosen", "rejected"),
        fits=_text("chosen"),
    ),
)
"""In the order in which they are looked for."""
