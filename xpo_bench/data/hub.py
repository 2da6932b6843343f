"""Preference sets by hub id: one commit of the repository, read whole, streamed, or from the local cache."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from xpo_bench.data.formats import COLUMNS, HELDOUT_SPLITS, Row
from xpo_bench.errors import DataError, UnreachableError

ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[A-Za-z0-9][\w./-]*)?")
"""OWNER/NAME, or OWNER/NAME@REVISION."""
SHA = re.compile(r"[0-9a-f]{40}")
TIMEOUT = 5.0
"""Seconds after which the hub counts as unreachable."""


class HubRows(NamedTuple):
    """Rows of a hub set with its own splits as their `split` column, and the commit that they were read from."""

    rows: list[Row]
    revision: str


def load(name: str, limit: int | None = None) -> HubRows:
    """The rows of `OWNER/NAME` or `OWNER/NAME@REVISION`, its train split first, then those held out.

    The revision is resolved to a commit before anything is read, once in a process. Without a network, or with
    `HF_HUB_OFFLINE` or `HF_DATASETS_OFFLINE`, the local cache answers.

    Args:
        limit: rows of each split, the first ones; they are streamed, so that the rest is not downloaded.

    Raises:
        UnreachableError: neither the hub nor the cache has the set.
        DataError: it has no split called train.
    """
    return _load(name, None) if limit is None else _streamed(name, limit)


@lru_cache(maxsize=8)
def _streamed(name: str, limit: int) -> HubRows:
    """Kept, unlike whole sets, which the client keeps on disk: every seed of a task asks."""
    return _load(name, limit)


def _load(name: str, limit: int | None) -> HubRows:
    repository, _, asked = name.partition("@")
    try:
        with _quiet():
            revision, parts = _open(repository, asked or None, limit is not None)
            found = [split for split in parts if split == "train" or split in HELDOUT_SPLITS]
            if "train" in found:
                rows = [row for split in found for row in _rows(split, parts[split], limit)]
                return HubRows(rows, revision)
    except Exception as error:  # the client raises a dozen kinds, most of them about the network
        raise UnreachableError(
            f"hub data set {name!r} cannot be reached or read ({first_line(error)}); want an existing id, or a local file"
        ) from None
    raise DataError(
        f"hub data set {name!r} has no split called train but {', '.join(parts)}; save one as .parquet and give the file"
    )


def _rows(split: str, part: Any, limit: int | None) -> Iterator[Row]:
    names = part.column_names or list(next(iter(part), ()))  # a stream of JSON lines knows its columns from its rows
    rows: Iterable[Mapping[str, Any]] = part.select_columns([column for column in names if column in COLUMNS])
    return ({"split": split, **row} for row in islice(rows, limit))


def _open(repository: str, asked: str | None, stream: bool) -> tuple[str, dict[str, Any]]:
    """The commit and its splits, from the hub if it can be reached, else from the cache."""
    import datasets
    from huggingface_hub import constants
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    unreachable: Exception
    if datasets.config.HF_HUB_OFFLINE or constants.HF_HUB_OFFLINE:
        unreachable = FileNotFoundError("offline, and the local cache has no complete copy")
    else:
        try:
            sha = _resolve(repository, asked)
            return sha, dict(datasets.load_dataset(repository, revision=sha, streaming=stream))
        except (RepositoryNotFoundError, RevisionNotFoundError):
            raise
        except Exception as error:
            unreachable = error
    revision = _commit(repository, asked)
    if revision is not None and (cached := _prepared(repository, revision) or _snapshot(repository, revision, stream)):
        return cached
    if asked is None and (cached := _prepared(repository, "*")):
        return cached
    raise unreachable


@lru_cache(maxsize=64)
def _resolve(repository: str, asked: str | None) -> str:
    """The commit that the hub means by a revision: one request without retries, so that no network is noticed at once."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError

    api = HfApi()
    sha = str(api.dataset_info(repository, revision=asked, timeout=TIMEOUT).sha)
    with suppress(EntryNotFoundError):  # by its name: the client then notes in its cache which commit the name means
        api.hf_hub_download(repository, "README.md", repo_type="dataset", revision=asked)
    return sha


def _prepared(repository: str, revision: str) -> tuple[str, dict[str, Any]] | None:
    """The complete tables of a commit that `datasets` has prepared before; `*` is the newest of any."""
    import datasets
    from datasets.naming import camelcase_to_snakecase
    from datasets.packaged_modules.cache.cache import Cache

    owner, name = repository.split("/")
    root = Path(datasets.config.HF_DATASETS_CACHE).expanduser() / f"{owner}___{camelcase_to_snakecase(name)}"
    copies = sorted(root.glob(f"*/*/{revision}"), key=lambda copy: copy.stat().st_mtime, reverse=True)
    for copy in copies:
        if SHA.fullmatch(copy.name) and (copy / "dataset_info.json").is_file():
            config, version, sha = copy.parts[-3:]
            builder = Cache(
                cache_dir=str(root.parent), dataset_name=name, repo_id=repository, config_name=config, version=version, hash=sha
            )
            return sha, dict(builder.as_dataset())
    return None


def _snapshot(repository: str, revision: str, stream: bool) -> tuple[str, dict[str, Any]] | None:
    """The repository's files as `hf download` leaves them in the hub cache."""
    import datasets

    folder = _cache(repository) / "snapshots" / revision
    if not any(file.suffix in (".parquet", ".jsonl", ".json", ".csv") for file in folder.rglob("*")):
        return None
    return revision, dict(datasets.load_dataset(str(folder), streaming=stream))


def _commit(repository: str, asked: str | None) -> str | None:
    """The commit that a revision means by the hub cache's notes; a full hash means itself."""
    if asked and SHA.fullmatch(asked):
        return asked
    note = _cache(repository) / "refs" / (asked or "main")
    text = note.read_text().strip() if note.is_file() else ""
    return text if SHA.fullmatch(text) else None


def _cache(repository: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"datasets--{repository.replace('/', '--')}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the clients log about each retry and each file, and their progress bars."""
    import datasets

    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "huggingface_hub.utils._http", "datasets")]
    levels = [logger.level for logger in loggers]
    bars = datasets.are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


def first_line(error: BaseException) -> str:
    """An exception as one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
