"""What has to be carried to a machine that reaches no package index: `python -m benchmarks.gpu --check`.

bare.txt lists what such a machine has, as `python -m pip list --format=freeze` prints it there; `NAME` alone
stands for a version that is not known.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from benchmarks.gpu.parts import ROOT

BARE = Path(__file__).with_name("bare.txt")
TARGET = {
    "python_version": "3.12",
    "python_full_version": "3.12.3",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "extra": "",
}
"""The machine, as markers of requirements call it."""
WANTED = ("xpo-bench", "peft", "pytest", "pytest-timeout", "hypothesis", "pyyaml", "psutil")
"""What the parts import: the package, adapters, and what the tests of devices need."""
OPTIONAL = ("trl",)
"""What adds a contender where it is there."""
PLATFORMS = tuple(
    f"manylinux{tag}_x86_64" for tag in ("_2_28", "_2_27", "_2_24", "_2_17", "2014", "2010", "1")
)
"""Tags of wheels, which pip takes by their names alone."""


@dataclass
class Carried:
    """What was found out.

    Attributes:
        missing: name -> version of constraints.txt, or None where it names none. conflicts: what is there in
            a version that somebody refuses, in words. unknown: what is not installed here, so that nobody
            knows what it needs.
    """

    missing: dict[str, str | None] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def main(have: Path) -> int:
    """Print what is missing and the commands that bring it; 1 where something there does not fit."""
    there, pinned = freeze(have), freeze(ROOT / "constraints.txt")
    needed = carried(WANTED, there, pinned)
    extra = carried([name for name in OPTIONAL if _installed(name)], there | needed.missing, pinned)
    machine = f"Python {TARGET['python_version']} on {TARGET['platform_machine']}"
    print(f"{have.name}: {len(there)} packages; {machine}")
    for name in ("torch", "transformers"):
        print(f"{name}: {there.get(name) or 'missing'}")
    print(f"to carry: {', '.join(map(_named, needed.missing.items())) or 'nothing'}, and xpo-bench itself")
    print(f"to compare with, if wanted: {', '.join(map(_named, extra.missing.items())) or 'nothing more'}")
    for line in (*needed.conflicts, *extra.conflicts):
        print(f"does not fit: {line}")
    for name in (*needed.unknown, *extra.unknown):
        print(f"not installed here, what it needs is not known: {name}")
    wheels = needed.missing | extra.missing
    platforms = " ".join(f"--platform {name}" for name in PLATFORMS)
    print("\nhere:")
    if wheels:
        print(
            f"  python -m pip download --no-deps --only-binary=:all: --implementation cp --python-version "
            f"{TARGET['python_version']} {platforms} -d wheels {' '.join(map(_named, wheels.items()))}"
        )
    print("  python -m pip wheel --no-deps -w wheels .")
    print(
        "there, in the tree:\n"
        "  python -m pip install --no-index --no-deps --target site wheels/*.whl\n"
        "  PYTHONPATH=site python -m benchmarks.gpu --minutes 12 --write DIR"
    )
    return 1 if needed.conflicts or needed.unknown else 0


def carried(
    wanted: Iterable[str], there: Mapping[str, str | None], pinned: Mapping[str, str | None]
) -> Carried:
    """Follow the requirements of what is wanted, as the packages installed here state them."""
    found = Carried()
    queue = [("the benchmark", Requirement(name)) for name in wanted]
    seen: set[tuple[str, str]] = set()
    while queue:
        by, need = queue.pop()
        name = canonicalize_name(need.name)
        if (by, name) in seen or (need.marker and not need.marker.evaluate(TARGET)):
            continue
        seen.add((by, name))
        if name in there:
            version = there[name]
            if version and not need.specifier.contains(Version(version), prereleases=True):
                found.conflicts.append(f"{by} wants {need}, there is {name} {version}")
            continue
        if not _installed(name):
            if name not in found.unknown:
                found.unknown.append(name)
            continue
        if name != "xpo-bench":
            found.missing[name] = pinned.get(name)
        queue += [(name, Requirement(text)) for text in requires(name) or ()]
    return found


def freeze(file: Path) -> dict[str, str | None]:
    """Canonical name -> version of a file of `NAME==VERSION` lines; None for a bare name."""
    found: dict[str, str | None] = {}
    for line in file.read_text("utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if text:
            name, _, version = text.partition("==")
            found[canonicalize_name(name)] = version or None
    return found


def _named(entry: tuple[str, str | None]) -> str:
    name, version = entry
    return f"{name}=={version}" if version else name


def _installed(name: str) -> bool:
    try:
        metadata(name)
    except PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(BARE))
