"""The rows of `xpo-bench list`: plain data, importing nothing heavy beyond what plugins need themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xpo_bench import plugins
from xpo_bench.version import __version__

if TYPE_CHECKING:
    from xpo_bench.contract.algorithm import Algorithm
    from xpo_bench.contract.task import Task


def rows(what: str, disable: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    """One dictionary per algorithm, task, metric, tracker, claim or plugin."""
    if what == "metrics":
        from xpo_bench.metrics.registry import describe, row_of

        here: dict[str, object] = {"plugin": None, "distribution": "xpo-bench", "version": __version__}
        others = sorted(plugins.load(disable).metrics.items())
        return [{**row, **here} for row in describe()] + [
            {**row_of(m), **_origin(info)} for _, (m, info) in others
        ]
    registry = plugins.load(disable)
    if what == "plugins":
        return [
            {
                "name": p.name,
                "distribution": p.distribution,
                "version": p.version,
                "module": p.module,
                "hooks": p.hooks,
                "algorithms": p.algorithms,
                "tasks": p.tasks,
                "metrics": p.metrics,
                "trackers": p.trackers,
                "claims": p.claims,
                "status": p.status,
                "error": p.error,
            }
            for p in registry.plugins
        ]
    if what == "trackers":
        found = sorted(registry.trackers.items())
        return [
            {"name": name, "about": plugins.summary_line(cls), **_origin(info)} for name, (cls, info) in found
        ]
    if what == "claims":
        return [_claim(file, info) for _, (file, info) in sorted(registry.claims.items())]
    if what == "algos":
        return [_algorithm(cls, info) for _, (cls, info) in sorted(registry.algorithms.items())]
    return [_task(cls, info) for _, (cls, info) in sorted(registry.tasks.items())]


def _claim(file: plugins.ClaimFile, info: plugins.PluginInfo) -> dict[str, object]:
    """The head of a claim's file; the rest is read when it is run."""
    import tomllib

    try:
        head = tomllib.loads(file.path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # of TOML, or no text
        return {"name": file.name, "paper": None, "about": f"cannot be read: {error}", **_origin(info)}
    about = " ".join(str(head.get("statement", "")).split())
    return {"name": file.name, "paper": head.get("paper"), "about": about, **_origin(info)}


def _algorithm(cls: type[Algorithm], info: plugins.PluginInfo) -> dict[str, object]:
    from xpo_bench.runner.settings import docs, dump

    try:
        defaults = dump(cls())
    except TypeError:  # a field without a default
        defaults = {}
    return {
        "name": cls.name,
        "about": plugins.summary_line(cls),
        "data": "singles" if cls.accepts.__name__ == "Single" else "pairs",
        "reference": any(group.reference for group in cls.groups.values()),
        "fields": defaults,
        "docs": docs(cls),
        "requires": sorted(cls.requires),
        "source": cls.source,
        "paper": cls.paper,
        **_origin(info),
    }


def _task(cls: type[Task], info: plugins.PluginInfo) -> dict[str, object]:
    from xpo_bench.runner.settings import docs, dump

    return {
        "name": cls.name,
        "task_version": cls.version,
        "about": plugins.summary_line(cls),
        "model": cls.model.name,
        "steps": cls.budget.steps,
        "cannot_see": cls.blind_to(cls.model),
        "options": dump(cls()),
        "docs": docs(cls),
        **_origin(info),
    }


def _origin(info: plugins.PluginInfo) -> dict[str, str]:
    return {"plugin": info.name, "distribution": info.distribution, "version": info.version}
