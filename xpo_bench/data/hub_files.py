"""The files of a hub set: which of them make which split, and the rows that they hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from xpo_bench.data.formats import HELDOUT_SPLITS, SPLIT_SUFFIX, Row
from xpo_bench.data.layouts import wanted
from xpo_bench.data.readers import READERS, Reading, kind_of, rows_of
from xpo_bench.errors import DataError

_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\..*)")

Part = TypeVar("Part")
"""What a loader has of one split: its files, or an open table."""


class Asked(NamedTuple):
    """A hub id in parts, and the request: the first `limit` rows of each split, by `--columns`.

    `also` names further columns that are read.
    """

    repository: str
    configuration: str | None
    revision: str | None
    limit: int | None
    columns: tuple[tuple[str, str], ...]
    also: tuple[str, ...] = ()

    def rows(self, splits: Mapping[str, Part], read: Callable[[Part], Iterable[Row]]) -> list[Row]:
        """Rows of the train split, then of the held-out ones; `read` gives the rows of a split's parts."""
        # sets that hold train_prefs and train_sft have preferences in the former only
        suffix = "" if "train" in splits else SPLIT_SUFFIX
        names = {split: split.removesuffix(suffix) for split in splits if split.endswith(suffix)}
        names = {split: name for split, name in names.items() if name == "train" or name in HELDOUT_SPLITS}
        if "train" not in names.values():
            raise DataError(
                f"hub data set {self.repository!r} has no split called train but "
                f"{', '.join(map(str, splits))}; "
                "save one as .parquet and give the file"
            )
        return [
            {**row, "split": name if row.get("split") is None else row["split"]}
            for split, name in names.items()
            for row in islice(read(splits[split]), self.limit)
        ]


class File(NamedTuple):
    """One file of a repository: its name there, and where it lies, on this machine or at the hub."""

    name: str
    place: str


class Listing(NamedTuple):
    """The files of each split, and what the repository says about how to read them."""

    splits: Mapping[str, Sequence[File]]
    separator: str | None
    field: str | None


def files_of(builder: Any, root: str) -> Listing:
    config = builder.config
    found = config.data_files or {}
    splits = {
        str(split): [File(str(url).removeprefix(root), str(url)) for url in urls]
        for split, urls in found.items()
    }
    separator = getattr(config, "sep", None) or getattr(config, "delimiter", None)
    return Listing(splits, separator if separator != "," else None, getattr(config, "field", None))


def read_rows(asked: Asked, listing: Listing, files: Sequence[File]) -> Iterator[Row]:
    for file in files:
        reading = Reading(
            file.name,
            asked.limit,
            partial(wanted, columns=dict(asked.columns), also=asked.also),
            listing.separator,
            listing.field,
        )
        try:
            with _opened(file) as stream:
                yield from (row for _, row in rows_of(file.name, stream, reading))
        except UnicodeDecodeError as error:
            raise DataError(
                f"{asked.repository}: {file.name}: not UTF-8 text (byte {error.start}); save it as UTF-8"
            ) from None


def _opened(file: File) -> IO[bytes]:
    if not file.place.startswith("hf://"):
        return Path(file.place).open("rb")
    from huggingface_hub import HfFileSystem

    return HfFileSystem().open(file.place, "rb")  # type: ignore[no-any-return]


def check(asked: Asked, listing: Listing) -> None:
    """Refuse files of a kind that has no reader, and shards that are not all there."""
    for split, files in listing.splits.items():
        if not is_used(split, listing.splits):
            continue
        for file in files:
            if kind_of(file.name) is None:
                raise DataError(
                    f"hub data set {asked.repository!r}: {file.name} is of no known kind; "
                    f"want {', '.join(READERS)}"
                )
            if shard := _SHARD.fullmatch(file.name):
                have = sum(
                    bool((o := _SHARD.fullmatch(f.name)) and (o[1], o[3]) == (shard[1], shard[3]))
                    for f in files
                )
                if have != int(shard[3]):
                    raise FileNotFoundError(f"{have} of the {int(shard[3])} files of {shard[1]} are there")


def is_used(split: str, splits: Mapping[str, object]) -> bool:
    name = split if "train" in splits else split.removesuffix(SPLIT_SUFFIX)
    return name == "train" or name in HELDOUT_SPLITS
