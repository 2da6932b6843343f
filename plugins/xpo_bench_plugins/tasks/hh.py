"""hh: the more helpful or harmless of two assistants' replies, as crowd workers saw it.

The hub set `Anthropic/hh-rlhf`. Its rows are two transcripts with turns marked Human and Assistant; the prompt ends after the
last Assistant mark up to which the two agree. Rows that share none, and other bad rows, are left out and counted. MIT.

What to expect: noisy labels, with held-out accuracies of 60 to 70 % at best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from xpo_bench import Dataset, ModelSpec, Task, hookimpl
from xpo_bench.data.dataset import dataset_of
from xpo_bench.data.formats import Row
from xpo_bench.data.sources import load
from xpo_bench.data.worlds import world_stream
from xpo_bench_plugins.text_set import TextSet

MARK = "\n\nAssistant:"


def split(row: Row) -> dict[str, Any]:
    """Two transcripts as prompt, chosen and rejected; as they are where they share no turn."""
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if row.get("prompt") is not None or not isinstance(chosen, str) or not isinstance(rejected, str):
        return dict(row)
    end, place = 0, chosen.find(MARK)
    while place >= 0 and rejected.startswith(chosen[: place + len(MARK)]):
        end = place + len(MARK)
        place = chosen.find(MARK, end)
    return {**row, "prompt": chosen[:end], "chosen": chosen[end:], "rejected": rejected[end:]} if end else dict(row)


@dataclass(frozen=True)
class HH(TextSet):
    """Transcripts with crowd preferences."""

    name: ClassVar[str] = "hh"
    source: ClassVar[str] = "Anthropic/hh-rlhf"

    def data(self, seed: int, model: ModelSpec) -> Dataset:
        """The set as it is; the seed changes nothing.

        Raises:
            UnreachableError: the hub cannot be reached.
        """
        loaded = load(self.spec)
        loaded = loaded._replace(rows=[(number, split(row)) for number, row in loaded.rows])
        return dataset_of(loaded, self.spec, 0.0, world_stream(self.name, self.version), model)


@hookimpl
def xpo_tasks() -> list[type[Task]]:
    return [HH]
