"""A publishable plugin package from templates."""

from __future__ import annotations

import keyword
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from xpo_bench import plugins
from xpo_bench.errors import UsageError
from xpo_bench.version import __version__

TEMPLATES = {
    "pyproject.toml.j2": "pyproject.toml",
    "algorithm.py.j2": "{module}.py",
    "test.py.j2": "tests/test_{module}.py",
    "README.md.j2": "README.md",
    "ci.yml.j2": ".github/workflows/ci.yml",
    "gitignore.j2": ".gitignore",
}
"""Template -> the file that it becomes."""


@dataclass(frozen=True)
class Made:
    """Where a package was written, and what it is called."""

    folder: Path
    distribution: str
    module: str
    class_name: str


def scaffold(name: str, folder: Path | None = None) -> Made:
    """Write the package of the algorithm `name`, whole or not at all.

    Raises:
        UsageError: the name cannot be an algorithm's or a package's, or is taken; or the directory exists.
    """
    _check_name(name)
    distribution = f"xpo-bench-{name}"
    made = Made(
        folder if folder is not None else Path(distribution),
        distribution,
        re.sub(r"[.-]", "_", distribution),
        "".join(part[:1].upper() + part[1:] for part in re.split(r"[._-]+", name)),
    )
    if not made.class_name.isidentifier():  # begins with a digit
        made = Made(made.folder, distribution, made.module, f"X{made.class_name}")
    if made.folder.exists():
        raise UsageError(f"{made.folder} exists; name another directory by --dir, or remove it")
    parent = made.folder.absolute().parent
    if not parent.is_dir():
        raise UsageError(f"--dir {made.folder}: {parent} is not a directory")
    try:
        draft = Path(tempfile.mkdtemp(prefix=f".{distribution}-", dir=parent))
    except OSError as error:
        raise UsageError(f"{parent}: cannot be written ({error.strerror})") from None
    try:
        for target, text in _rendered(name, made).items():
            path = draft / target
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        draft.chmod(0o755)
        draft.rename(made.folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return made


def _check_name(name: str) -> None:
    if not plugins.NAME.fullmatch(name):
        raise UsageError(f"the name {name!r} does not match {plugins.NAME.pattern}; apo-zero would")
    if not name[-1].isalnum():
        raise UsageError(
            f"the name {name!r} ends in {name[-1]!r}: names of packages end in a letter or a digit"
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise UsageError(f"the name {name!r} is a keyword of Python")
    if name in plugins.RESERVED:
        raise UsageError(f"the name {name!r} is reserved, as are {', '.join(sorted(plugins.RESERVED))}")
    registry = plugins.load()
    for info in registry.plugins:
        if name in (info.name, *info.algorithms):
            raise UsageError(f"the name {name!r} is taken: plugin {info.name} ({info.origin}) offers it")


def _rendered(name: str, made: Made) -> dict[str, str]:
    """File -> text. GitHub's workflows use {{ }} themselves, so the templates use << >>."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("xpo_bench.testing"),
        variable_start_string="<<",
        variable_end_string=">>",
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # source code and Markdown, from a name of letters, digits and . _ -
    )
    words = {
        "name": name,
        "distribution": made.distribution,
        "module": made.module,
        "class_name": made.class_name,
        "minor": ".".join(__version__.split(".")[:2]),
    }
    return {
        target.format(module=made.module): environment.get_template(template).render(words)
        for template, target in TEMPLATES.items()
    }
