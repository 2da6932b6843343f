"""Layouts whose rows hold roles: messages, conversations, system prompts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xpo_bench.data.cells import conversation
from xpo_bench.data.formats import BadRow, Row, shown
from xpo_bench.data.layouts.base import (
    Context,
    Layout,
    Side,
    graded,
    is_list,
    listed,
    number,
    preferred,
    said,
    winner,
    words,
)
from xpo_bench.data.values import absent

NO_ASSISTANT = "last message is not the assistant's"
PROMPT_DIFFERS = "prompt column is not the first user turn"


def _first_role(value: object) -> object:
    return (
        value[0].get("role", value[0].get("from"))
        if isinstance(value, list) and value and isinstance(value[0], dict)
        else None
    )


def _whole_conversations(row: Row) -> bool:
    return isinstance(row["prompt"], str) and all(
        isinstance(row[c], list) and _first_role(row[c]) not in (None, "assistant", "gpt")
        for c in ("chosen", "rejected")
    )


def _prompted(row: Row, context: Context) -> Iterable[Row]:
    """The prompt is what both conversations have in common; a column that repeats it as text is left out."""
    if not _whole_conversations({"prompt": "", "chosen": None, "rejected": None, **row}):
        return [row]  # as it is: refused where text and messages are mixed
    turns = conversation(row["chosen"], "chosen")
    first = (
        next((m.get("content") for m in turns if m.get("role") == "user"), None)
        if isinstance(turns, list)
        else None
    )
    if isinstance(first, str) and isinstance(row["prompt"], str) and first.strip() != row["prompt"].strip():
        context.notes[PROMPT_DIFFERS] += 1
    return [{**row, "prompt": None}]


def _with_texts(row: Row, _: Context) -> Iterable[Row]:
    """Answers as text after a prompt of messages are the assistant's."""
    if not isinstance(row.get("prompt"), list | dict):
        return [row]
    return [{**row, **{c: said(row[c]) for c in ("chosen", "rejected", "completion") if c in row}}]


def _messages_and_texts(row: Row) -> bool:
    return isinstance(row["prompt"], list | dict) and all(
        isinstance(row[c], str) for c in ("chosen", "rejected", "completion") if c in row
    )


def _verl(row: Row, context: Context) -> Iterable[Row]:
    return ({"source": row.get("data_source"), **r} for r in _with_texts(row, context))


def _steps(row: Row, _: Context) -> Iterable[Row]:
    """The reasoning before the step that is judged is the beginning of the assistant's answer."""
    before = row.get("initial_reason_steps")
    if absent(before) or not isinstance(row.get("prompt"), str):
        return [row]
    if not isinstance(before, str):
        raise BadRow("not text", f"initial_reason_steps is {shown(before)}; give a string")
    sides = {c: said(row[c]) for c in ("chosen", "rejected") if c in row}
    return [{**row, "prompt": [*_user(row["prompt"]), *said(before)], **sides}]


def with_system(row: Row, prompt: object, system: str = "system") -> list[object]:
    """Messages of a system text, where there is any, and a user's text."""
    before = row.get(system)
    return [*(said(before, "system") if isinstance(before, str) and before.strip() else []), *_user(prompt)]


def _user(prompt: object) -> list[object]:
    if not isinstance(prompt, str):
        raise BadRow("not text", f"the question is not text but {type(prompt).__name__}; give a string")
    return list(said(prompt, "user"))


def _orca(row: Row, _: Context) -> Iterable[Row]:
    question = row.get("question") if row.get("question") is not None else row.get("input")
    if question is None or row.get("chosen") is None or row.get("rejected") is None:
        raise BadRow(
            "missing column",
            "missing a question, chosen or rejected; want system, question, chosen, rejected",
        )
    side: Side = "tie" if row.get("status") == "tie" else "first"
    return [preferred(with_system(row, question), said(row["chosen"]), said(row["rejected"]), side)]


def _helpsteer3(row: Row, context: Context) -> Iterable[Row]:
    first, second = said(row["response1"]), said(row["response2"])
    return [graded(listed(row, "context"), first, second, row, "overall_preference", context)]


def _arena(row: Row, _: Context) -> Iterable[Row]:
    turn = None if row.get("turn") in (None, "") else int(number(row, "turn"))
    first, second = (
        _until(conversation(listed(row, c), c), turn) for c in ("conversation_a", "conversation_b")
    )
    return [preferred(None, first, second, winner(row, "winner"))]


def _until(messages: Any, turn: int | None) -> object:
    """The conversation up to the turn that was judged."""
    # a turn ends with the assistant: turn k is judged by what stands up to its k-th message
    ends = [i for i, m in enumerate(messages) if isinstance(m, dict) and m.get("role") == "assistant"]
    if turn is not None and 0 < turn < len(ends):
        return messages[: ends[turn - 1] + 1]
    return messages


def _arena_turns(row: Row, _: Context) -> Iterable[Row]:
    """Prompts and answers turn by turn, as lists that JSON spells; or one prompt with two answers as text."""
    won = {side: number(row, f"winner_{side}") > 0 for side in ("model_a", "model_b", "tie")}
    if sum(won.values()) != 1:
        raise BadRow(
            "unreadable preference", "winner_model_a, winner_model_b, winner_tie want one 1 and two 0"
        )
    side: Side = "first" if won["model_a"] else "second" if won["model_b"] else "tie"
    if not all(is_list(row.get(c)) for c in ("prompt", "response_a", "response_b")):
        return [preferred(row.get("prompt"), row.get("response_a"), row.get("response_b"), side)]
    prompts, first, second = (listed(row, c) for c in ("prompt", "response_a", "response_b"))
    return [preferred(None, _turns(prompts, first), _turns(prompts, second), side)]


def _turns(prompts: list[object], answers: list[object]) -> list[object]:
    if len(prompts) != len(answers) or not prompts:
        raise BadRow(
            "missing column", f"{len(prompts)} prompts and {len(answers)} answers; want one answer to each"
        )
    if not all(isinstance(text, str) for text in (*prompts, *answers)):
        raise BadRow("not text", "a turn is null or no text; give strings")
    return [m for q, a in zip(prompts, answers, strict=True) for m in (*said(q, "user"), *said(a))]


def _sharegpt(row: Row, _: Context) -> Iterable[Row]:
    prompt: Any = conversation(listed(row, "conversations"), "conversations")
    system = row.get("system")
    if isinstance(system, str) and system.strip():
        prompt = [*said(system, "system"), *prompt]
    return [{"prompt": prompt, "chosen": _answer(row["chosen"]), "rejected": _answer(row["rejected"])}]


def _answer(value: object) -> object:
    return said(value) if isinstance(value, str) else value


def _labelled(row: Row, _: Context) -> Iterable[Row]:
    column = "messages" if row.get("messages") is not None else "conversations"
    messages: Any = conversation(listed(row, column), column)
    if not messages:
        raise BadRow(
            "empty prompt", f"empty {column}; give a conversation that ends in an assistant's message"
        )
    if not isinstance(messages[-1], dict) or messages[-1].get("role") != "assistant":
        raise BadRow(
            NO_ASSISTANT,
            f"the last message of {column} is not an assistant's; the label wants an answer to judge",
        )
    label = row.get("label") if row.get("label") is not None else row.get("kto_tag")
    system = row.get("system")
    before = (
        said(system, "system")
        if isinstance(system, str) and system.strip() and messages[0].get("role") != "system"
        else []
    )
    return [{"prompt": [*before, *messages[:-1]], "completion": messages[-1:], "label": label}]


_IMPLICIT = {"prompt": "the messages that chosen and rejected share", "pair": "chosen, rejected"}


def _family(name: str, more: str) -> Layout:
    return Layout(
        name,
        _IMPLICIT,
        words("prompt chosen rejected") | words(more),
        rows=_prompted,
        fits=_whole_conversations,
        beside=True,
    )


LAYOUTS = (
    _family("ultrafeedback", "prompt_id messages"),
    _family("orpo-dpo-mix", "source question"),
    _family("tulu-3", "id source"),
    Layout(
        "verl",
        {"prompt": "prompt", "pair": "chosen, rejected", "source": "data_source"},
        words("data_source prompt chosen rejected"),
        rows=_verl,
        fits=lambda row: isinstance(row["prompt"], list | dict),
        beside=True,
    ),
    Layout(
        "step-dpo",
        {"prompt": "prompt, initial_reason_steps (the answer's beginning)", "pair": "chosen, rejected"},
        words("prompt initial_reason_steps chosen rejected"),
        rows=_steps,
        fits=lambda row: all(isinstance(row[c], str) for c in ("prompt", "chosen", "rejected")),
        beside=True,
    ),
    _family("conversations", ""),
    Layout(
        "prompt-messages",
        {"prompt": "prompt (messages)", "pair": "chosen, rejected (text)"},
        words("prompt chosen rejected"),
        rows=_with_texts,
        fits=_messages_and_texts,
        beside=True,
    ),
    Layout(
        "prompt-messages-labelled",
        {"prompt": "prompt (messages)", "completion": "completion (text)", "label": "label"},
        words("prompt completion label"),
        rows=_with_texts,
        fits=_messages_and_texts,
        beside=True,
    ),
    Layout(
        "orca",
        {"prompt": "system, question", "pair": "chosen, rejected", "tie": "status"},
        words("system question chosen rejected"),
        words("status"),
        _orca,
        lambda row: isinstance(row["chosen"], str),
    ),
    Layout(
        "orca-argilla",
        {"prompt": "system, input", "pair": "chosen, rejected", "tie": "status"},
        words("system input chosen rejected"),
        words("status"),
        _orca,
        lambda row: isinstance(row["chosen"], str) and "instruction" not in row,
    ),
    Layout(
        "helpsteer3",
        {"prompt": "context", "pair": "response1, response2", "p_chosen": "overall_preference"},
        words("context response1 response2 overall_preference"),
        words("domain"),
        _helpsteer3,
    ),
    Layout(
        "arena",
        {"pair": "conversation_a, conversation_b", "preference": "winner"},
        words("conversation_a conversation_b winner"),
        words("turn"),
        _arena,
    ),
    Layout(
        "arena-turns",
        {
            "prompt": "prompt",
            "pair": "response_a, response_b",
            "preference": "winner_model_a, winner_model_b, winner_tie",
        },
        words("prompt response_a response_b winner_model_a winner_model_b winner_tie"),
        rows=_arena_turns,
    ),
    Layout(
        "sharegpt",
        {"prompt": "conversations", "pair": "chosen, rejected"},
        words("conversations chosen rejected"),
        words("system"),
        _sharegpt,
    ),
    Layout(
        "messages-labelled",
        {"prompt": "messages up to the last", "completion": "the last message", "label": "label"},
        words("messages label"),
        words("system"),
        _labelled,
    ),
    Layout(
        "sharegpt-labelled",
        {"prompt": "conversations up to the last", "completion": "the last message", "label": "kto_tag"},
        words("conversations kto_tag"),
        words("system"),
        _labelled,
    ),
    Layout(
        "messages-kto-tag",
        {"prompt": "messages up to the last", "completion": "the last message", "label": "kto_tag"},
        words("messages kto_tag"),
        words("system"),
        _labelled,
    ),
)
"""In the order in which they are looked for."""
