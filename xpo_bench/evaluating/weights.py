"""The files of a checkpoint: which kind it is, whether they are whole, and what identifies its weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final, Literal

from xpo_bench.checkpoints import ORIGIN, PICKLED
from xpo_bench.errors import UsageError

Kind = Literal["model", "adapter"]
ADAPTER: Final = "adapter"
NO_WEIGHTS = ("training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt")
"""Pickled files that trainers write beside weights."""
CONFIGS = ("config.json", "adapter_config.json", "generation_config.json", ORIGIN)
NO_MATTER = frozenset(
    {"_name_or_path", "transformers_version", "use_cache", "pad_token_id", "dtype", "torch_dtype"}
)
"""What of a configuration says nothing of what equal weights compute."""
CHUNK = 1 << 24


def kind_of(folder: Path) -> Kind | None:
    """What a directory says that it holds; None where it says nothing."""
    if (folder / "adapter_config.json").is_file():
        return "adapter"
    return "model" if (folder / "config.json").is_file() else None


def require_whole(folder: Path, shown: str) -> Kind:
    """The kind of a checkpoint, whose weights are all there and none of them pickled.

    Raises:
        UsageError: it is no checkpoint, or incomplete, or pickled, with the command that converts it.
    """
    kind = kind_of(folder)
    pickled = _pickled(folder)
    if kind is None:
        _refuse_other(folder, shown, pickled)
    files = weight_files(folder)
    own = [f for f in files if f.name.startswith("adapter_") == (kind == "adapter")]
    if kind == "adapter" and len(own) < len(files):
        raise UsageError(
            f"{shown}: holds an adapter ({own[0].name if own else 'adapter_config.json'}) and whole weights "
            f"({next(f.name for f in files if f not in own)}); want one of them alone"
        )
    if not own:
        _refuse_without(folder, shown, kind, pickled)
    for index in folder.glob("*.safetensors.index.json"):
        _require_shards(folder, shown, index)
    for file in own:
        _require_readable(file, shown)
    return "adapter" if kind == "adapter" else "model"


def weight_files(folder: Path) -> list[Path]:
    """The files that hold weights, in order."""
    return sorted(folder.glob("*.safetensors"))


def weights_digest(folder: Path) -> str:
    """32 hex digits of what decides what a model computes: its weights byte by byte, and configurations."""
    return _digest([*_tensors(folder), *(folder / name for name in CONFIGS)])


def same_model(one: Path, other: Path) -> bool:
    """Whether two directories hold one model, whichever version of a library wrote its configuration."""
    return _architecture(one) == _architecture(other) and _digest(_tensors(one)) == _digest(_tensors(other))


def _tensors(folder: Path) -> list[Path]:
    return [*weight_files(folder), *sorted(folder.glob("*.gguf"))]


def _architecture(folder: Path) -> object:
    path = folder / "config.json"
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else None
    except ValueError:
        return path  # corrupt: no other is like it
    return {k: v for k, v in found.items() if k not in NO_MATTER} if isinstance(found, dict) else found


def _digest(files: Sequence[Path]) -> str:
    digest = blake2b(digest_size=16)
    for path in files:
        if not path.is_file():
            continue
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while content := file.read(CHUNK):
                digest.update(content)
    return digest.hexdigest()


def _pickled(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.iterdir() if path.name.endswith(PICKLED))
    return [name for name in names if name not in NO_WEIGHTS and not name.startswith("rng_state")]


def _refuse_other(folder: Path, shown: str, pickled: Sequence[str]) -> None:
    """Refuse a directory that says of nothing that it is a model."""
    if pickled:
        raise UsageError(
            f"{shown}: {pickled[0]} is pickled, which runs code when it is read, and there is no "
            "config.json; "
            "want what save_pretrained writes: load it where it was trained, and save the model with "
            "model.save_pretrained(DIR)"
        )
    raise UsageError(
        f"{shown}: holds no checkpoint: neither config.json nor adapter_config.json, "
        "nor checkpoint-N directories with one of them"
    )


def _refuse_without(folder: Path, shown: str, kind: Kind | None, pickled: Sequence[str]) -> None:
    """Refuse a checkpoint without safetensors."""
    sharded = next((p.name for p in sorted(folder.iterdir()) if p.is_dir() and _of_parts(p.name)), None)
    if pickled:
        raise UsageError(
            f"{shown}: {pickled[0]} is pickled, which runs code when it is read; if you trust it, "
            "convert it: "
            + (_convert_adapter(folder, pickled[0]) if kind == "adapter" else _convert_model(folder))
        )
    if sharded and sharded.startswith("global_step"):
        raise UsageError(
            f"{shown}: {sharded} holds the parts of DeepSpeed; join them: "
            f"python {folder}/zero_to_fp32.py {folder} {folder} --safe_serialization"
        )
    if sharded:
        raise UsageError(
            f"{shown}: {sharded} holds the parts of FSDP; join them: "
            f"accelerate merge-weights {folder / sharded} {folder}"
        )
    name = "adapter_model.safetensors" if kind == "adapter" else "model.safetensors"
    raise UsageError(f"{shown}: has no weights; want {name}, whole or sharded, as save_pretrained writes it")


def _of_parts(name: str) -> bool:
    return name.startswith(("pytorch_model_fsdp", "global_step"))


def _convert_model(folder: Path) -> str:
    return (
        'python -c "from transformers import AutoModelForCausalLM as M; '
        f"M.from_pretrained('{folder}', use_safetensors=False).save_pretrained('{folder}')\""
    )


def _convert_adapter(folder: Path, name: str) -> str:
    return (
        'python -c "import torch; from safetensors.torch import save_file; '
        f"save_file(torch.load('{folder / name}', weights_only=True), "
        f"'{folder / 'adapter_model.safetensors'}')\""
    )


def _require_shards(folder: Path, shown: str, index: Path) -> None:
    try:
        wanted = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(
            f"{shown}: {index.name} is incomplete or corrupt; save the checkpoint again"
        ) from None
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise UsageError(
            f"{shown}: {missing[0]} is missing, one of {len(wanted)} shards; save or copy the "
            "checkpoint again"
        )


def _require_readable(file: Path, shown: str) -> None:
    """Refuse a safetensors file that is shorter or longer than its header says."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        head = opened.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        try:
            header = json.loads(opened.read(length)) if length < size else None
        except ValueError:
            header = None
    ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"] if header else [-1]
    if header is None or 8 + length + max(ends, default=0) != size:
        raise UsageError(f"{shown}: {file.name} is incomplete or corrupt; save or copy the checkpoint again")
