"""The enumerable world of a set: every prompt's actions, and a side file of references and rewards.

The side file is one JSON object, `{"x": {"reference": {"a": 0.4, "b": 0.6}, "reward": {"a": 1.2, "b":
0.3}}}`. The keys below a prompt are its action set; `reference` (probabilities) and `reward` may each be left
out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

from xpo_bench.contract.examples import Completion, Example, Pair, World
from xpo_bench.data.formats import finite, shown
from xpo_bench.errors import DataError, unknown

SIZE_LIMIT = 64 * 2**20
"""Largest side file that is read, bytes."""
TOLERANCE = 1e-6
"""How far the reference of a prompt may sum from 1."""

Table = dict[str, dict[str, float]]


def world_of(examples: Iterable[Example], world_file: str | Path | None = None) -> World:
    """The world that examples live in.

    Without a side file the actions of a prompt are its distinct completions in order of first appearance,
    over all rows given, held-out ones included. With one, its keys are the actions of the prompts that it
    names; the others are as without. Prompts that occur in no example are left out.

    Raises:
        DataError: the side file is wrong, or lacks a completion of the data, or gives rewards for some
        prompts only.
    """
    found: dict[str, dict[str, None]] = {}
    for completion in completions(examples):
        found.setdefault(completion.prompt, {})[completion.text] = None
    actions = {prompt: tuple(texts) for prompt, texts in found.items()}
    if world_file is None:
        return World(actions=actions)

    reference, reward = read_world(world_file)
    named = {**reference, **reward}
    if not named.keys() & actions.keys():
        raise DataError(
            f"{world_file}: names no prompt of the data; want the data's own prompts, "
            f"such as {shown(next(iter(actions)))}"
        )
    for prompt, texts in actions.items():
        if prompt not in named:
            continue
        missing = next((text for text in texts if text not in named[prompt]), None)
        if missing is not None:
            raise DataError(
                f"{world_file}: prompt {shown(prompt)} lacks the completion {shown(missing)} of the data; "
                "want every completion of the data among its keys"
            )
        actions[prompt] = tuple(named[prompt])
    # expected reward is a mean over all prompts: over some of them it would be another metric
    unrewarded = [prompt for prompt in actions if prompt not in reward]
    if unrewarded and len(unrewarded) < len(actions):
        raise DataError(
            f"{world_file}: prompt {shown(unrewarded[0])} has no reward while others have; "
            "want one for every prompt, or none"
        )
    return World(
        actions=actions,
        reference={prompt: reference[prompt] for prompt in actions if prompt in reference},
        reward={prompt: reward[prompt] for prompt in actions if prompt in reward},
    )


def completions(examples: Iterable[Example]) -> Iterable[Completion]:
    """Every completion of the examples in row order, chosen before rejected, repeats included."""
    for e in examples:
        texts = (e.chosen, e.rejected) if isinstance(e, Pair) else (e.completion,)
        for text in texts:
            yield Completion(e.prompt, text)


def read_world(path: str | Path) -> tuple[Table, Table]:
    """Reference and reward tables of a side file, prompt -> {completion: number}.

    Raises:
        DataError: missing, over 64 MB, malformed, or a table that is no probability or no number.
    """
    path = Path(path)
    content = _read(path)
    if not isinstance(content, dict) or not content:
        raise DataError(
            f'{path}: want an object {{prompt: {{"reference": {{...}}, "reward": {{...}}}}}}, not empty'
        )
    reference: Table = {}
    reward: Table = {}
    for prompt, entry in content.items():
        where = f"{path}: prompt {shown(prompt)}"
        if not isinstance(entry, dict) or not entry:
            raise DataError(f'{where}: want an object with "reference", "reward" or both')
        for key in entry:
            if key not in ("reference", "reward"):
                raise DataError(f"{where}: {unknown('table', key, ('reference', 'reward'))}")
        if "reference" in entry:
            reference[prompt] = _reference(entry["reference"], where)
        if "reward" in entry:
            reward[prompt] = _numbers(entry["reward"], f"{where}: reward")
        # both list the actions of the prompt: KL needs the reference of each, expected reward the reward
        if len(entry) == 2 and (odd := reference[prompt].keys() ^ reward[prompt].keys()):
            lacking = "reward" if min(odd) in reference[prompt] else "reference"
            raise DataError(
                f"{where}: {lacking} lacks {shown(min(odd))}; "
                "want the same completions in reference and reward"
            )
    return reference, reward


def _read(path: Path) -> object:
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise DataError(
                f"{path}: larger than {SIZE_LIMIT >> 20} MB; a world file lists a few completions per prompt"
            )
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique)
    except FileNotFoundError:
        raise DataError(f"{path}: no such world file; want a JSON file") from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or type(error).__name__}); want a readable JSON file"
        ) from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: malformed JSON at line {error.lineno} column {error.colno} ({error.msg})"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except RecursionError:
        raise DataError(f"{path}: malformed JSON (nested too deeply)") from None
    except ValueError as error:
        raise DataError(f"{path}: malformed JSON ({error})") from None


def _unique(items: list[tuple[str, object]]) -> dict[str, object]:
    out = dict(items)
    if len(out) < len(items):
        keys = [key for key, _ in items]
        raise ValueError(f"{shown(next(key for key in keys if keys.count(key) > 1))} is given twice")
    return out


def _numbers(table: object, where: str) -> dict[str, float]:
    if not isinstance(table, dict) or not table:
        raise DataError(f"{where}: want an object {{completion: number}} with at least one completion")
    out: dict[str, float] = {}
    for text, value in table.items():
        if not text.strip():
            raise DataError(f"{where}: empty completion; give a string with at least one visible character")
        number = finite(value)
        if number is None:
            raise DataError(f"{where} of {shown(text)} is {shown(value)}; want a finite number")
        out[text] = number
    return out


def _reference(table: object, where: str) -> dict[str, float]:
    numbers = _numbers(table, f"{where}: reference")
    for text, value in numbers.items():
        if value <= 0:
            raise DataError(f"{where}: reference of {shown(text)} is {value:g}; want a probability above 0")
    total = math.fsum(numbers.values())
    if abs(total - 1) > TOLERANCE:
        raise DataError(f"{where}: reference sums to {total:.8g}; want 1 within {TOLERANCE:g}")
    return numbers
