"""The names that plugins may import: they exist, they are documented, and the built-ins import no other."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from xpo_bench import contract

ROOT = Path(__file__).parents[1]
PUBLIC = (
    "xpo_bench",
    "xpo_bench.data.dataset",
    "xpo_bench.data.preferences",
    "xpo_bench.data.sources",
    "xpo_bench.data.synthetic",
    "xpo_bench.policy.language.ches",
    "xpo_bench.testing",
)
AUTHORS = sorted(path for folder in ("plugins", "examples") for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of everything that a file imports from the suite, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "xpo_bench":
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((a.name, "") for a in node.names if a.name.split(".")[0] == "xpo_bench")


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_exist_and_are_documented(module: str) -> None:
    found = importlib.import_module(module)
    page = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    table = page.split("\n## What to import\n")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith(f"| `{module}`,")]
    assert rows
    named = {word for row in rows for word in row.split("`")[3::2]}
    assert set(found.__all__) <= {word.split("(")[0] for word in named}
    for name in found.__all__:
        assert hasattr(found, name), name


def test_built_ins_and_examples_import_public_names_alone() -> None:
    public = {module: {"", *importlib.import_module(module).__all__} for module in PUBLIC}
    found = {(path.relative_to(ROOT).as_posix(), *imported) for path in AUTHORS for imported in imports(path)}
    assert len({path for path, *_ in found}) > 40
    private = {(path, module, name) for path, module, name in found if name not in public.get(module, ())}
    assert not private


def test_importing_the_contract_loads_no_torch() -> None:
    modules = [f"xpo_bench.contract.{module.name}" for module in pkgutil.iter_modules(contract.__path__)]
    assert len(modules) >= 8
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_package_loads_neither_torch_nor_numpy() -> None:
    code = "import sys, xpo_bench; sys.exit(bool({'torch', 'numpy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_that_are_loaded_late_are_those_of_their_modules() -> None:
    import xpo_bench
    from xpo_bench.contract.metric import TIE
    from xpo_bench.random_streams import stream

    assert (xpo_bench.TIE, xpo_bench.stream) == (TIE, stream)
    with pytest.raises(AttributeError, match="no attribute 'streams'"):
        xpo_bench.streams  # noqa: B018
