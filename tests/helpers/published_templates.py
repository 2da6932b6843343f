"""Chat templates inside published wheels: fetched into a temporary folder and read there, never imported."""

from __future__ import annotations

import ast
import enum
import subprocess
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGES = {"trl": "1.16.0", "axolotl": "0.19.0", "unsloth": "2026.10.9", "llamafactory": "0.9.5"}
"""What is read, at which version."""


def fetch(folder: Path) -> dict[str, zipfile.ZipFile]:
    """The wheels, by package."""
    names = [f"{name}=={version}" for name, version in PACKAGES.items()]
    words = (
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        str(folder),
    )
    subprocess.run([*words, *names], check=True, timeout=600, capture_output=True)
    return {name: zipfile.ZipFile(next(folder.glob(f"{name}-*.whl"))) for name in PACKAGES}


def templates(wheels: dict[str, zipfile.ZipFile], tokenizer: Any) -> dict[str, str]:
    """Name -> distinct template; `tokenizer` is what templates that are made for a tokenizer are made for."""
    out: dict[str, str] = {}
    for name, template in _all(wheels, tokenizer):
        if template not in out.values():
            out[name] = template
    return out


def _all(wheels: dict[str, zipfile.ZipFile], tokenizer: Any) -> Iterator[tuple[str, str]]:
    for package, wheel in wheels.items():
        for file in sorted(wheel.namelist()):
            if file.endswith(".jinja"):
                yield f"{package}/{Path(file).stem}", wheel.read(file).decode()
    for name, template in _constants(wheels["unsloth"].read("unsloth/chat_templates.py").decode()).items():
        yield f"unsloth/{name.removesuffix('_template')}", template
    for name, template in _registered(wheels["llamafactory"]).items():
        try:
            yield f"llamafactory/{name}", template._get_jinja_template(tokenizer)
        except ValueError:  # those that are none: they write ids that have no text
            continue


def _constants(source: str) -> dict[str, str]:
    """Module-level assignments of texts to names that end in `_template`; other expressions are left out."""
    known: dict[str, Any] = {}
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            continue
        if node.targets[0].id.endswith("_template"):
            try:
                known[node.targets[0].id] = _text(node.value, known)
            except ValueError:
                continue
    return {name: text for name, text in known.items() if "messages" in text}


def _text(node: ast.expr, known: dict[str, Any]) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Name) and node.id in known:
        return str(known[node.id])
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, known) + _text(node.right, known)
    raise ValueError(ast.dump(node)[:80])


class Role(enum.StrEnum):
    """The names that the template module asks for."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"
    FUNCTION = "function"
    OBSERVATION = "observation"


class _Silent:
    def __getattr__(self, name: str) -> Any:
        return lambda *words, **options: None


def _registered(wheel: zipfile.ZipFile) -> dict[str, Any]:
    """The registry of templates, from three modules that run beside stand-ins for what they import."""
    root = "published_llamafactory"

    def module(name: str, **values: Any) -> types.ModuleType:
        made = types.ModuleType(f"{root}{name}")
        made.__path__ = []
        made.__package__ = f"{root}{name}".rpartition(".")[0]
        made.__dict__.update(values)
        sys.modules[made.__name__] = made
        return made

    try:
        logging = types.SimpleNamespace(get_logger=lambda name: _Silent())
        for name, values in (
            ("", {}),
            (".extras", {"logging": logging}),
            (".data", {}),
            (".data.data_utils", {"Role": Role, "SLOTS": list}),
            (".data.mm_plugin", {"get_mm_plugin": lambda *words, **options: None}),
        ):
            module(name, **values)
        for name in ("tool_utils", "formatter", "template"):
            file = f"llamafactory/data/{name}.py"
            made = module(f".data.{name}")
            exec(compile(wheel.read(file), file, "exec"), made.__dict__)
        return dict(sys.modules[f"{root}.data.template"].TEMPLATES)
    finally:
        for name in [name for name in sys.modules if name.startswith(root)]:
            del sys.modules[name]
