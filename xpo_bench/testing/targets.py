"""What `xpo-bench check` is given: an installed algorithm, a module, or a file."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from xpo_bench import plugins
from xpo_bench.contract import hooks
from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.errors import UsageError, unknown
from xpo_bench.runner.algorithm_files import algorithm_of, is_file_word
from xpo_bench.runner.source_files import line_of, load
from xpo_bench.testing.kit import instance


def find(target: str) -> list[Algorithm]:
    """The algorithms that a name, a dotted module or a path to a .py file stands for, at their defaults.

    A module offers what its hook `xpo_algorithms` returns, or without one the subclasses of `Algorithm` that
    it defines.

    Raises:
        UsageError: there is no such algorithm or module, it cannot be imported, or it offers no algorithm.
    """
    registry = plugins.load()
    if target in registry.algorithms:
        return [instance(registry.algorithms[target][0])]
    if is_file_word(target):
        if ":" in Path(target).name:
            return [instance(algorithm_of(target, "check"))]
        return _offered(load(target, "check"), target)
    if target not in registry.lost and (module := _from_name(target)):
        return _offered(module, target)
    if target in registry.lost:
        registry.algorithm(target)  # says why it cannot be used
    raise UsageError(
        f"{unknown('algorithm', target, registry.algorithms)}; nor is it a module, or the path of a .py file"
    )


def _from_name(name: str) -> ModuleType | None:
    """The module of that name, also from the current directory; None where there is none."""
    if not all(part.isidentifier() for part in name.split(".")):
        return None
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # the module itself is missing; where it is one that it imports, that is an error of the module
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise UsageError(f"module {name}: cannot be imported: {line_of(error)}") from error
    except (Exception, SystemExit) as error:
        raise UsageError(f"module {name}: cannot be imported: {line_of(error)}") from error


def _offered(module: ModuleType, target: str) -> list[Algorithm]:
    known = {name for name in vars(hooks) if name.startswith("xpo_")}
    for name, value in vars(module).items():
        if name.startswith("xpo_") and hasattr(value, f"{hooks.PROJECT}_impl") and name not in known:
            raise UsageError(f"{target}: {unknown('hook', name, known)}")
    hook = getattr(module, "xpo_algorithms", None)
    try:
        found = list(hook()) if hook else [c for c in vars(module).values() if _defined_in(c, module)]
    except Exception as error:
        raise UsageError(f"{target}: xpo_algorithms() raises {line_of(error)}") from error
    if not found:
        raise UsageError(
            f"{target}: offers no algorithm: define xpo_algorithms(), or a subclass of xpo_bench.Algorithm"
        )
    for cls in found:
        try:
            plugins.check_class(cls, "algorithm", "xpo_algorithms", Algorithm)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{target}: {error}") from None
    return [instance(cls) for cls in found]


def _defined_in(found: object, module: ModuleType) -> bool:
    return isinstance(found, type) and issubclass(found, Algorithm) and found.__module__ == module.__name__
