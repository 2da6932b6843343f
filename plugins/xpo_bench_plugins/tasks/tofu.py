"""tofu: questions about fictitious authors, some to forget and the rest to retain.

600 question-answer rows, read as `tofu` from the directory that `XPO_BENCH_DATA` names: the forget05 split is
the forget set (undesirable), the retain90 split the retain set (desirable). No preferences: losses on pairs
are refused; npo is meant for it, kto runs too. Bad rows are left out and counted. MIT.

What to expect: the log-probability of forget answers falls; without a retain term that of the others falls
along.

Source: Maini et al. 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from xpo_bench import DataError, Dataset, ModelSpec, Task, hookimpl
from xpo_bench.data.dataset import dataset_of
from xpo_bench.data.sources import Loaded, NumberedRows, find, first
from xpo_bench.data.synthetic import world_stream
from xpo_bench_plugins.text_set import TextSet

LABELS = {"forget05": False, "retain90": True}


def row_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the set in the columns that the loader reads; what is absent or no text stays so."""
    question, answer = raw.get("question"), raw.get("answer")
    return {
        "prompt": f"Question: {question}\nAnswer:"
        if isinstance(question, str) and question.strip()
        else question,
        "completion": f" {answer}" if isinstance(answer, str) else answer,
        "label": LABELS.get(str(raw.get("split"))),
        "source": raw.get("split"),
    }


@dataclass(frozen=True)
class Tofu(TextSet):
    """Unlearning: forget some authors, retain the others."""

    name: ClassVar[str] = "tofu"
    source: ClassVar[str] = "tofu"

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """The set as it is, without held-out rows; the seed changes nothing.

        Raises:
            UnreachableError: `XPO_BENCH_DATA` does not lead to the set.
            DataError: it is no readable parquet file.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.check()
        path = find(self.source)
        try:
            raw = pq.read_table(path).to_pylist()
        except (pa.ArrowException, OSError, ValueError):
            raise DataError(
                f"tofu: {path} is not a readable parquet file; want split, question, answer"
            ) from None
        rows: NumberedRows = [(number, row_of(row)) for number, row in first(enumerate(raw, 1), self.rows)]
        dataset = dataset_of(
            Loaded(rows, self.source), self.spec, 0.0, world_stream(self.name, self.version), model
        )
        return replace(dataset, kind="forget_retain")


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [Tofu]
