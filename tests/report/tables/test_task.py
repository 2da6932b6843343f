"""The tables of one task: what its data asks for, what the algorithms cost, and what competes with nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reports import print_run

Make = Callable[..., dict[str, Any]]
Printed = Callable[..., str]


def text_cells(
    record: Make, task: str = "ukp", algorithms: str = "dpo ipo kto", **more: float
) -> list[dict[str, Any]]:
    """Runs on text pairs of which the longer completion wins 72 %."""
    return [
        record(
            a,
            task,
            s,
            data={"kind": "pairs", "heldout": 64},
            reward_accuracy=0.8 + 0.01 * i,
            longer_accuracy=0.7 + 0.01 * s,
            accuracy_lc=0.55 + 0.01 * i,
            heldout_reward_accuracy=0.6 + 0.01 * i,
            heldout_longer_accuracy=0.72,
            heldout_accuracy_lc=0.5 + 0.01 * i,
            kl=0.5,
            pairs_per_s=30.0 + i,
            tokens_per_s=30000.0 + i,
            overhead=1.5 + 0.1 * i,
            prepare_s=0.5 + i,
            peak_memory_mb=600.0 + i,
            total_flops=3.1e12 * (1 + i),
            **more,
        )
        for i, a in enumerate(algorithms.split())
        for s in range(3)
    ]


def part(text: str, title: str) -> list[str]:
    """The lines from a title to the next, which stands at the margin behind a blank line, outside a table."""
    lines = text.splitlines()
    start = next(i for i, x in enumerate(lines) if x.startswith(title))
    ends = [
        i
        for i in range(start + 1, len(lines))
        if lines[i].split(":")[0] in ("ukp", "tofu (unlearning)", "tofu", "gold_text")
    ]
    ends += [i for i in range(start + 1, len(lines)) if lines[i].startswith("What the numbers show")]
    return lines[start : min(ends, default=len(lines))]


def test_the_longer_completion_is_a_row_that_never_competes(record: Make, printed: Printed) -> None:
    text = printed(print_run, text_cells(record), width=120)
    table = part(text, "ukp: adam")
    rows = [x for x in table if x.startswith("always longer  ")]
    assert len(rows) == 1
    # lr, held out, length-controlled, kl, training pairs, length-controlled: what the rule has no number for
    # is absent
    assert rows[0].removeprefix("always longer").split() == ["–", "0.72", "–", "–", "0.71±0.025", "–"]
    assert "0.72*" not in text  # higher than any held-out accuracy, and no algorithm
    (kto,) = (x for x in table if x.startswith("kto"))
    assert "0.82*" in kto  # the best of the algorithms is marked as such
    assert "0.62*" not in kto  # 64 held-out pairs do not tell 0.62 from 0.61
    assert "accuracy_lc" in "".join(table)
    assert text.count("always longer  ") == 1  # neither on the first screen nor among the costs
    assert "always longer: the rule that prefers the completion with more tokens" in text


def test_the_row_stands_only_where_it_has_a_number(record: Make, printed: Printed) -> None:
    cells = text_cells(
        record, collapsed=0.0, rejected_drift=0.0, rejected_prob=0.1, displacement=-0.5, calibration_error=0.1
    )
    text = printed(print_run, cells, width=60)
    assert max(map(len, text.splitlines())) <= 60
    table = part(text, "ukp: adam")
    rows = [x for x in table if x.startswith("always longer  ")]
    assert all("0.7" in x for x in rows)
    assert 0 < len(rows) < sum(x.startswith("──") for x in table)
    level = [
        record(a, s, reward_accuracy=0.5, heldout_reward_accuracy=0.5)
        for a in ("dpo", "ipo")
        for s in ("bandit", "travel")
    ]
    assert "always longer" not in printed(print_run, level)


def test_costs_of_language_models_stand_apart(record: Make, printed: Printed) -> None:
    text = printed(print_run, text_cells(record), width=120)
    assert "pairs_per_s" not in "".join(part(text, "ukp: adam"))
    cost = part(text, "ukp: cost")
    for name in ("pairs_per_s", "tokens_per_s", "overhead", "prepare_s", "peak_memory_mb", "total_flops"):
        assert name.removesuffix("mb") in "".join(cost)
    assert next(x for x in cost if x.startswith("dpo")).split() == [
        "dpo",
        "30",
        "30000",
        "1.5*",
        "0.5*",
        "600",
        "3.1",
        "T*",
    ]
    assert "cost" not in printed(print_run, [record(pairs_per_s=10.0), record("ipo", pairs_per_s=20.0)])


def test_gold_columns(record: Make, printed: Printed) -> None:
    cells = text_cells(record, "gold_text", gold_reward=1.5, gold_gain=0.5, win_rate=0.6, sample_length=40.0)
    lines = part(printed(print_run, cells, width=200), "gold_text: adam")
    header = " ".join(lines[1:4])
    for name in ("gold_reward", "gold_gain", "win_rate", "length"):
        assert name in header
    assert "gold_gain" not in printed(print_run, text_cells(record), width=200)


def unlearning_cells(record: Make, kind: str = "forget_retain", task: str = "tofu") -> list[dict[str, Any]]:
    return [
        record(
            a,
            task,
            s,
            data={"kind": kind},
            forget_logp=-900.0 + s,
            forget_token_logp=-5.5,
            forget_change=-20.0 - i,
            retain_logp=-800.0,
            retain_token_logp=-5.4,
            retain_change=-19.0 - i,
            chosen_logp=-800.0,
            rejected_logp=-900.0,
            displacement=-19.0,
            rejected_prob=0.004,
            kl=0.1,
            collapsed=0.0,
            rejected_drift=-3.0,
            overhead=1.0 + i,
            pairs_per_s=10.0,
        )
        for i, a in enumerate(("kto", "npo"))
        for s in range(3)
    ]


def test_forget_and_retain_have_their_own_table(record: Make, printed: Printed) -> None:
    text = printed(print_run, unlearning_cells(record), width=200)
    assert "Which algorithm?" not in text
    table = part(text, "tofu (unlearning): adam, 2000 steps, 3 seeds")
    header = "".join("".join(table[1:4]).split())
    assert header.count("forget_") == 3
    assert header.count("retain_") == 3
    npo = next(x for x in table if x.startswith("npo")).split()
    assert npo[4:] == ["-899±2.5", "-5.5", "-21", "-800", "-5.4", "-20", "0.1", "0", "-3"]
    assert "accuracy" not in text
    assert "displacement" not in text
    assert "-20*" not in text  # what is forgotten is read against what is retained
    assert "tofu: cost" in text
    assert max(map(len, printed(print_run, unlearning_cells(record), width=80).splitlines())) <= 80


def test_forget_and_retain_stay_off_the_first_screen(record: Make, printed: Printed) -> None:
    pairs = [
        record(a, "bandit", s, kl=1.0 + s, reward_accuracy=0.9, attained_1=0.5 + 0.1 * i)
        for i, a in enumerate(("dpo", "npo"))
        for s in range(3)
    ]
    text = printed(print_run, [*pairs, *unlearning_cells(record)])
    screen = text.split("bandit: adam")[0]
    assert screen.startswith("Which algorithm? 1 task")
    assert "npo" in screen
    for absent in ("tofu", "kto"):
        assert absent not in screen
    assert "tofu (unlearning): adam" in text


def test_unpaired_preferences_are_not_unlearning(record: Make, printed: Printed) -> None:
    text = printed(print_run, unlearning_cells(record, "singles", "tulu_unpaired"), width=200)
    assert "tulu_unpaired: adam" in text
    assert "Which algorithm?" in text
    assert "forget" not in text
    assert "unlearning" not in text


def test_a_regret_that_cannot_be_is_explained(record: Make, printed: Printed) -> None:
    known = [record("dpo", "bandit", seed, regret=0.1, kl=1.0) for seed in range(2)]
    without = [record("simpo", "bandit", seed, kl=1.0) for seed in range(2)]
    said = "regret: – where an algorithm names no strength of its KL"
    assert said in printed(print_run, known + without)
    assert said not in printed(print_run, known)
    assert said not in printed(print_run, without)  # nor is there such a column
