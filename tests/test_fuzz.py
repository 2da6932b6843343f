"""What is read from files is taken or refused by one of our errors in one line: random bytes, damaged files.

`XPO_BENCH_FUZZ=N` tries N inputs per loader in place of the few hundred of every run, `XPO_BENCH_FUZZ_SEED=K`
others.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from xpo_bench.contract.settings import DataSpec
from xpo_bench.data.dataset import load_dataset
from xpo_bench.data.world_file import read_world
from xpo_bench.errors import UsageError
from xpo_bench.runner.references import References
from xpo_bench.runner.request import parse_seeds, read_file, requests
from xpo_bench.runner.settings import parse_set
from xpo_bench.runner.store import Store

INPUTS = int(os.environ.get("XPO_BENCH_FUZZ", "150"))
SEED = os.environ.get("XPO_BENCH_FUZZ_SEED", "")
KEY = "0123456789abcdef01234567"

PAIRS = [{"prompt": "x", "chosen": "a", "rejected": "b", "p_chosen": 0.8, "split": "train"}] * 3
TALK = [
    {
        "prompt": [{"role": "user", "content": "q"}],
        "chosen": [{"role": "assistant", "content": "y"}],
        "rejected": [{"role": "assistant", "content": "n"}],
    }
] * 2
SINGLES = [
    {"prompt": "x", "completion": "a", "label": True},
    {"prompt": "x", "completion": "b", "label": False},
]
WORLD = {"x": {"reference": {"a": 0.4, "b": 0.6}, "reward": {"a": 1.2, "b": 0.3}}}
PLAN = 'algos = ["dpo"]\nseeds = 3\n[[runs]]\ntasks = ["bandit"]\nset = { "dpo.beta" = [0.05, 0.1] }\n'
WORDS_PLAN = 'algos = "dpo"\nset = ["dpo.beta=0.1,0.5"]\n[[runs]]\nset = { dpo = { beta = 0.2 } }\n'
RECORD = {"schema": 1, "key": KEY, "status": "ok", "metrics": {"kl": 1.0}, "algorithm": {"name": "dpo"}}


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def frame(rows: list[dict[str, Any]], kind: str) -> bytes:
    table = pd.DataFrame(rows)
    if kind == "csv":
        return table.to_csv(index=False).encode()
    import io

    sink = io.BytesIO()
    table.to_parquet(sink)
    return sink.getvalue()


def load(path: Path) -> Any:
    return load_dataset(DataSpec(source=str(path)), 0.0, np.random.default_rng(0))


def read_references(path: Path) -> Any:
    found = References(path)
    for damaged in path.parent.glob("*.damaged"):
        damaged.unlink()
    return found


def read_record(path: Path) -> Any:
    return Store(path.parent.parent)._read(path)


LOADERS: dict[str, tuple[str, Callable[[Path], Any], list[bytes]]] = {
    "jsonl": ("rows.jsonl", load, [lines(PAIRS), lines(TALK), lines(SINGLES)]),
    "json": ("rows.json", load, [json.dumps(rows).encode() for rows in (PAIRS, TALK, SINGLES)]),
    "csv": ("rows.csv", load, [frame(PAIRS, "csv"), frame(SINGLES, "csv")]),
    "parquet": ("rows.parquet", load, [frame(PAIRS, "parquet"), frame(SINGLES, "parquet")]),
    "world": ("world.json", read_world, [json.dumps(WORLD).encode()]),
    "plan": ("plan.toml", lambda path: requests({}, path), [PLAN.encode(), WORDS_PLAN.encode()]),
    "record": (f"{KEY}.json", read_record, [json.dumps(RECORD).encode()]),
    "references": (
        "cache.parquet",
        read_references,
        [frame([{"completion": b"x" * 16, "token_logps": [1.0], "seconds": 1.0}], "p")],
    ),
}
WORDS = [
    '"',
    "{",
    "[",
    "]",
    "}",
    ":",
    ",",
    "null",
    "NaN",
    "1e999",
    "-1",
    "true",
    "\\u0000",
    "\\ud800",
    "\ufeff",
    "\n",
    "\r",
    "[[runs]]",
    "=",
    "chosen",
    "../../etc/passwd",
    "\x1b[31m",
    "[" * 3000,
    "9" * 400,
    "0x1",
    "'",
    "🦊",
]


def damaged(good: bytes, rng: random.Random) -> bytes:
    """A good file after a few random edits."""
    out = bytearray(good)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            out[at : at + rng.randint(1, 20)] = b""
        elif kind == 1:
            out[at:at] = rng.choice(WORDS).encode("utf-8", "surrogatepass")
        elif kind == 2 and out:
            out[min(at, len(out) - 1)] = rng.randrange(256)
        elif kind == 3:
            out[at:at] = out[rng.randrange(len(out) + 1) :][: rng.randint(1, 200)]
        else:
            out[:] = out[:at]
    return bytes(out)


@pytest.mark.parametrize("loader", LOADERS)
def test_a_damaged_file_is_taken_or_refused_in_one_line(
    loader: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, read, seeds = LOADERS[loader]
    rng = random.Random(loader + SEED)
    (tmp_path / "cells").mkdir()
    path = tmp_path / "cells" / name
    taken, refusals = 0, []
    for number in range(INPUTS):
        content = rng.randbytes(rng.randint(0, 300)) if number % 10 == 0 else damaged(rng.choice(seeds), rng)
        path.write_bytes(content)
        try:
            read(path)
            taken += 1
        except UsageError as error:
            refusals.append(str(error))
        except Exception as error:
            raise AssertionError(f"{loader}: {type(error).__name__}: {error} from {content!r}") from error
    assert not [message for message in refusals if "\n" in message or not message]
    assert taken > 0  # some edits leave a file whole
    if loader not in ("record", "references"):
        assert taken < INPUTS


@seed(SEED or "words")
@settings(max_examples=INPUTS, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.one_of(st.text(), st.from_regex(r"[a-z]{1,5}(\.train)?\.[a-z_]{1,8}=[-0-9.,e]{0,9}")))
def test_words_are_taken_or_refused(text: str) -> None:
    for read in (parse_seeds, lambda word: parse_set([word])):
        with contextlib.suppress(UsageError):
            read(text)


def test_good_files_are_taken(tmp_path: Path) -> None:
    """Otherwise the edits above would be refused for the same reason as the file."""
    (tmp_path / "cells").mkdir()
    for name, read, seeds in LOADERS.values():
        for content in seeds:
            (tmp_path / "cells" / name).write_bytes(content)
            assert read(tmp_path / "cells" / name) is not None


def test_plans_of_a_size_that_no_plan_has_are_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text("#" * (1 << 21), "utf-8")
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        read_file(tmp_path / "plan.toml")
    (tmp_path / "deep.toml").write_text(f"seeds = {'[' * 10**5}", "utf-8")
    with pytest.raises(UsageError, match="nested too deeply"):
        read_file(tmp_path / "deep.toml")
