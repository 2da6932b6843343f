"""Preference sets by hub id: files of one commit, downloaded, streamed, or from the local cache.

The client's data-set builder says which files make which split. They are read by the readers of local files,
so that a set is the same rows either way: the builders' own readers guess types, and texts such as `None`,
`007` or dates would not survive.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from xpo_bench.data.formats import Row
from xpo_bench.data.hub_files import Asked, File, Listing, check, files_of, is_used, read_rows
from xpo_bench.data.layouts import wanted
from xpo_bench.data.readers import first_line, kind_of
from xpo_bench.errors import DataError, UnreachableError

ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+)?(@[A-Za-z0-9][\w./-]*)?")
"""OWNER/NAME, OWNER/NAME:CONFIGURATION, and either with @REVISION."""
SHA = re.compile(r"[0-9a-f]{40}")
TIMEOUT = 5.0
"""Seconds after which the hub counts as unreachable."""
LOSSLESS = "parquet"
"""The builder whose prepared tables hold what the files hold."""


class HubRows(NamedTuple):
    """Rows of a hub set, with its own splits as their `split` column, and the commit."""

    rows: list[Row]
    revision: str


def load(
    name: str,
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    also: Collection[str] = (),
) -> HubRows:
    """The rows of `OWNER/NAME[:CONFIGURATION][@REVISION]`, its train split first, then those held out.

    The revision is resolved to a commit before anything is read, once in a process. Without a network, or
    with `HF_HUB_OFFLINE` or `HF_DATASETS_OFFLINE`, the local cache answers.

    Args:
        limit: rows of each split, the first ones; they are streamed, so that the rest is not downloaded.
        columns: of `--columns`, which tables are then read with. also: further columns that are read.

    Raises:
        UnreachableError: neither the hub nor the cache has the set.
        DataError: it has no split called train, several configurations of which none is named, or a malformed
        file.
    """
    path, _, revision = name.partition("@")
    repository, _, configuration = path.partition(":")
    mapped = tuple((columns or {}).items())
    asked = Asked(repository, configuration or None, revision or None, limit, mapped, tuple(also))
    return _load(asked, name) if limit is None else _streamed(asked, name)


@lru_cache(maxsize=8)
def _streamed(asked: Asked, name: str) -> HubRows:
    """Kept, unlike whole sets, which the client keeps on disk: every seed of a task asks."""
    return _load(asked, name)


def _load(asked: Asked, name: str) -> HubRows:
    try:
        with _quiet():
            return _found(asked)
    except DataError:
        raise
    except Exception as error:  # the client raises a dozen kinds, most of them about the network
        if several := re.search(r"Config name is missing.*?\[(.*?)\]", str(error), re.DOTALL):
            names = several[1].replace("'", "").replace('"', "")
            raise DataError(
                f"hub data set {name!r} has several configurations ({names}); name one: "
                f"{asked.repository}:NAME"
            ) from None
        raise UnreachableError(
            f"hub data set {name!r} cannot be reached or read ({first_line(error)}); "
            "want an existing id, or a local file"
        ) from None


def _found(asked: Asked) -> HubRows:
    """The rows from the hub if it can be reached, else from the cache."""
    import datasets
    from huggingface_hub import constants
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    unreachable: Exception
    if datasets.config.HF_HUB_OFFLINE or constants.HF_HUB_OFFLINE:
        unreachable = FileNotFoundError("offline, and the local cache has no complete copy")
    else:
        try:
            sha = _resolve(asked.repository, asked.revision)
            listing = _at_hub(asked, sha)
            return HubRows(asked.rows(listing.splits, partial(read_rows, asked, listing)), sha)
        except (RepositoryNotFoundError, RevisionNotFoundError, DataError):
            raise
        except Exception as error:
            if "Config name is missing" in str(error):
                raise
            unreachable = error
    revision = _commit(asked.repository, asked.revision)
    if revision is not None and (cached := _snapshot(asked, revision) or _prepared(asked, revision)):
        return cached
    if asked.revision is None and (cached := _prepared(asked, "*")):
        return cached
    raise unreachable


def _at_hub(asked: Asked, sha: str) -> Listing:
    """The files of a commit: downloaded where all rows are wanted, else left there to be streamed."""
    import datasets
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    root = f"hf://datasets/{asked.repository}@{sha}/"
    listing = files_of(
        datasets.load_dataset_builder(asked.repository, name=asked.configuration, revision=sha), root
    )
    check(asked, listing)
    options: dict[str, Any] = {"repo_type": "dataset", "revision": sha}

    def have(file: File) -> File:
        cached = try_to_load_from_cache(asked.repository, file.name, **options)
        if isinstance(cached, str):
            return File(file.name, cached)
        return (
            file
            if asked.limit is not None
            else File(file.name, hf_hub_download(asked.repository, file.name, **options))
        )

    used = {split for split in listing.splits if is_used(split, listing.splits)}
    splits = {
        split: [have(file) for file in files] if split in used else files
        for split, files in listing.splits.items()
    }
    return listing._replace(splits=splits)


@lru_cache(maxsize=64)
def _resolve(repository: str, asked: str | None) -> str:
    """The commit of a revision: one request without retries, so that a missing network shows at once."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError

    api = HfApi()
    sha = str(api.dataset_info(repository, revision=asked, timeout=TIMEOUT).sha)
    for name in (
        "README.md",
        ".gitattributes",
    ):  # by the revision's name: the client then notes which commit it means
        with suppress(EntryNotFoundError):
            api.hf_hub_download(repository, name, repo_type="dataset", revision=asked)
            break
    return sha


def _prepared(asked: Asked, revision: str) -> HubRows | None:
    """The complete tables of a commit that `datasets` has prepared before; `*` is the newest of any.

    Raises:
        UnreachableError: they were prepared from files whose texts the client's own readers change.
    """
    import datasets
    from datasets.naming import camelcase_to_snakecase
    from datasets.packaged_modules.cache.cache import Cache

    owner, name = asked.repository.split("/")
    root = Path(datasets.config.HF_DATASETS_CACHE).expanduser() / f"{owner}___{camelcase_to_snakecase(name)}"
    copies = sorted(
        root.glob(f"{asked.configuration or '*'}/*/{revision}"),
        key=lambda copy: copy.stat().st_mtime,
        reverse=True,
    )
    copies = [copy for copy in copies if SHA.fullmatch(copy.name) and (copy / "dataset_info.json").is_file()]
    kinds = [
        json.loads((copy / "dataset_info.json").read_text("utf-8")).get("builder_name") for copy in copies
    ]
    for copy in (copy for copy, kind in zip(copies, kinds, strict=True) if kind == LOSSLESS):
        config, version, sha = copy.parts[-3:]
        builder = Cache(
            cache_dir=str(root.parent),
            dataset_name=name,
            repo_id=asked.repository,
            config_name=config,
            version=version,
            hash=sha,
        )
        return HubRows(asked.rows(dict(builder.as_dataset()), partial(_table, asked)), sha)
    if copies:
        raise UnreachableError(
            f"hub data set {asked.repository!r}: the only copy was prepared from {kinds[0]} files by "
            "a reader that "
            "guesses types, so that texts such as 007 or None are lost; go online, or "
            f"`hf download --repo-type dataset {asked.repository}`"
        )
    return None


def _table(asked: Asked, table: Any) -> Iterator[Row]:
    names = wanted(table.column_names, dict(asked.columns), asked.also)
    return iter(table.select_columns(list(names)) if names else [dict.fromkeys(table.column_names)])


def _snapshot(asked: Asked, revision: str) -> HubRows | None:
    """The repository's files as they are in the hub cache, downloaded before or by `hf download`."""
    import datasets

    folder = _cache(asked.repository) / "snapshots" / revision
    if not any(kind_of(file.name) for file in folder.rglob("*")):
        return None
    listing = files_of(datasets.load_dataset_builder(str(folder), name=asked.configuration), f"{folder}/")
    check(asked, listing)
    return HubRows(asked.rows(listing.splits, partial(read_rows, asked, listing)), revision)


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

    loggers = [
        logging.getLogger(name) for name in ("huggingface_hub", "huggingface_hub.utils._http", "datasets")
    ]
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
