"""Reference log-probabilities beside the records: a resumed run does not score them again.

`RUN/references/FINGERPRINT.parquet` holds the scores of fixed completions under one initial policy, each with
what it cost. The fingerprint hashes the weights themselves, how text becomes tokens, and the suite's source,
so a file can only be read by a policy that would write the same. A file that is incomplete or corrupt is
set aside under another name and scored again.
"""

from __future__ import annotations

import json
import sys
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from xpo_bench.contract.examples import Completion
from xpo_bench.policy.language.sharding import full
from xpo_bench.runner.keys import host_source
from xpo_bench.runner.store import write_atomic
from xpo_bench.train.reference_scores import CachedScore

if TYPE_CHECKING:
    from xpo_bench.policy.language.causal_lm import CausalLM

SCHEMA = 1
COLUMNS = ("completion", "token_logps", "seconds")


def fingerprint(policy: CausalLM, truncate: str) -> str:
    """32 hex digits of everything that decides the scores under a language model as it stands."""
    digest = blake2b(digest_size=16)
    facts = [
        SCHEMA,
        host_source(),
        policy.dtype,
        policy.device.type,
        policy.spec.eos,
        policy.tokenizer.name,
        policy.context,
        truncate,
        policy.notes,
    ]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    for name, values in sorted(policy.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(full(values).detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class References:
    """Scores by completion, read from a file when there is an intact one, and written back by `save`.

    Args:
        path: the file, or None to keep the scores in memory alone.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._known = self._load()
        self._unsaved = False

    def save(self) -> None:
        """Write what was added since the last time next to what others have written, whole or not at all."""
        if self.path is not None and self._unsaved:
            self._known = self._load() | self._known
            try:
                self.path.parent.mkdir(exist_ok=True)
                write_atomic(self.path, _parquet(self._known))
            except OSError as error:  # not fatal: they can be computed again
                print(
                    f"xpo-bench: {self.path}: cannot be written ({error.strerror or error})", file=sys.stderr
                )
        self._unsaved = False

    def _load(self) -> dict[bytes, CachedScore]:
        if self.path is None or not self.path.exists():
            return {}
        try:
            return _read(self.path)
        except Exception as error:  # whatever a damaged file makes its reader raise
            aside = self.path.with_suffix(".damaged")
            self.path.replace(aside)
            print(
                f"xpo-bench: {self.path} is incomplete or corrupt ({type(error).__name__}); "
                f"set aside as {aside.name}",
                file=sys.stderr,
            )
            return {}

    def __getitem__(self, item: Completion) -> CachedScore:
        return self._known[_digest(item)]

    def __setitem__(self, item: Completion, score: CachedScore) -> None:
        self._known[_digest(item)] = score
        self._unsaved = True

    def __contains__(self, item: object) -> bool:
        return isinstance(item, Completion) and _digest(item) in self._known

    def __len__(self) -> int:
        return len(self._known)


def _digest(item: Completion) -> bytes:
    identity = [item.prompt, item.text, *([item.tokens] if item.tokens else [])]
    return blake2b(json.dumps(identity).encode(), digest_size=16).digest()


def _parquet(known: dict[bytes, CachedScore]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    scores = list(known.values())
    double = any(score.token_logps.dtype == torch.float64 for score in scores)
    columns = {
        "completion": pa.array(list(known), pa.binary(16)),
        "token_logps": pa.array(
            [score.token_logps.tolist() for score in scores],
            pa.list_(pa.float64() if double else pa.float32()),
        ),
        "seconds": pa.array([score.seconds for score in scores], pa.float64()),
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, write_page_checksum=True)
    return bytes(sink.getvalue().to_pybytes())


def _read(path: Path) -> dict[bytes, CachedScore]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        table = file.read()
    if tuple(table.column_names) != COLUMNS:
        raise ValueError(f"columns {table.column_names}")
    dtype = (
        torch.float64 if table.schema.field("token_logps").type.value_type == pa.float64() else torch.float32
    )
    rows = zip(*(table.column(name).to_pylist() for name in COLUMNS), strict=True)
    return {key: CachedScore(torch.tensor(logps, dtype=dtype), seconds) for key, logps, seconds in rows}
