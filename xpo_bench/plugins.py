"""Discovery of plugins: provenance, name clashes, errors, disabling. The only caller of pluggy's hooks."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar

import pluggy

from xpo_bench.contract import hooks
from xpo_bench.contract.algorithm import SPEC, Algorithm
from xpo_bench.contract.metric import Metric, metric_of
from xpo_bench.contract.task import Task
from xpo_bench.contract.tracker import Tracker
from xpo_bench.errors import UsageError, unknown
from xpo_bench.metrics.registry import METRICS

T = TypeVar("T")

GROUP = "xpo_bench"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
RESERVED = frozenset({"task", "all", "train"})

METRIC_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
COLUMNS = frozenset({"step", "loss", "total_flops", "validation_accuracy", "test_accuracy"})
"""Columns of a curve that are no metrics of an evaluation."""

Kind = Literal["algorithm", "task", "metric", "tracker", "claim"]
KINDS: tuple[Kind, ...] = ("algorithm", "task", "metric", "tracker", "claim")
BASES: Mapping[Kind, type] = {"algorithm": Algorithm, "task": Task, "tracker": Tracker}
Status = Literal["ok", "broken", "refused", "disabled"]
UNPACKAGED = ("in-memory", "file")
"""What stands in place of a distribution where a class was handed over, or named by its file."""


@dataclass(frozen=True)
class ClaimFile:
    """The file of a claim, whose name is that of the claim; it is read when the claim is asked for."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem


Offered = type[Algorithm] | type[Task] | type[Tracker] | Metric | ClaimFile
"""What the hook of a kind returns, as the registry holds it."""


@dataclass
class PluginInfo:
    """One entry point: where it came from, what it offers, and whether it could be used."""

    name: str
    distribution: str
    version: str
    module: str
    status: Status = "ok"
    error: str | None = None
    traceback: str | None = None
    hooks: list[str] = field(default_factory=list)
    algorithms: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    trackers: list[str] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)

    @property
    def origin(self) -> str:
        return f"{self.distribution} {self.version}"

    @property
    def installed(self) -> bool:
        """Whether its name is enough to find what it offers."""
        return self.distribution not in UNPACKAGED

    def refuse(self, status: Status, error: str) -> None:
        self.status, self.error = status, error if self.error is None else f"{self.error}; {error}"


IN_MEMORY = PluginInfo("in-memory", "in-memory", "0", "__main__")
"""Where classes and instances are from that need no packaging."""


@dataclass
class Registry:
    """Every plugin that was found, and what those offer that are usable."""

    plugins: list[PluginInfo]
    manager: pluggy.PluginManager
    algorithms: dict[str, tuple[type[Algorithm], PluginInfo]] = field(default_factory=dict)
    tasks: dict[str, tuple[type[Task], PluginInfo]] = field(default_factory=dict)
    metrics: dict[str, tuple[Metric, PluginInfo]] = field(default_factory=dict)
    trackers: dict[str, tuple[type[Tracker], PluginInfo]] = field(default_factory=dict)
    claims: dict[str, tuple[ClaimFile, PluginInfo]] = field(default_factory=dict)
    lost: dict[str, PluginInfo] = field(default_factory=dict)
    """Names of plugins, and of what they offer, that cannot be used, with the plugin that says why."""

    def algorithm(self, name: str) -> tuple[type[Algorithm], PluginInfo]:
        """The algorithm of that name; UsageError names the remedy otherwise."""
        return self._find("algorithm", name, self.algorithms)

    def task(self, name: str) -> tuple[type[Task], PluginInfo]:
        """The task of that name; UsageError names the remedy otherwise."""
        return self._find("task", name, self.tasks)

    def tracker(self, name: str) -> tuple[type[Tracker], PluginInfo]:
        """The tracker of that name; UsageError names the remedy otherwise."""
        return self._find("tracker", name, self.trackers)

    def claim(self, name: str) -> tuple[ClaimFile, PluginInfo]:
        """The claim of that name; UsageError names the remedy otherwise."""
        return self._find("claim", name, self.claims)

    def _find(self, kind: str, name: str, table: Mapping[str, tuple[T, PluginInfo]]) -> tuple[T, PluginInfo]:
        if name in table:
            return table[name]
        if name in self.lost:
            info = self.lost[name]
            raise UsageError(
                f"{kind} {name!r}: plugin {info.name} ({info.origin}) is {info.status}: {info.error}"
            )
        raise UsageError(unknown(kind, name, table))

    def observe(self, hook: str, **arguments: object) -> list[str]:
        """Call an observer hook on every plugin; an observer that raises is reported, never fatal."""
        errors: list[str] = []
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            try:
                # as pluggy does: an implementation takes the arguments that it names, and no others
                implementation.function(**{name: arguments[name] for name in implementation.argnames})
            except Exception as error:
                errors.append(
                    f"plugin {implementation.plugin_name}: {hook} raised {type(error).__name__}: {error}"
                )
        return errors


def split_names(text: str | None) -> frozenset[str]:
    return frozenset(part.strip() for part in (text or "").split(",") if part.strip())


@lru_cache(maxsize=8)
def load(disable: frozenset[str] = frozenset()) -> Registry:
    """Walk the entry points of group `xpo_bench` and load each on its own.

    A plugin that fails to import, to register or to return classes is listed with its error and fails
    only a run that asks for it. Two distributions that offer one name are both refused.
    `XPO_BENCH_DISABLE` (names) and `XPO_BENCH_PLUGINS` (allow-list) are honoured without importing.
    """
    disabled = disable | split_names(os.environ.get("XPO_BENCH_DISABLE"))
    allowed = split_names(os.environ.get("XPO_BENCH_PLUGINS"))
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    registry = Registry([], manager)

    found = _unique(entry_points(group=GROUP))
    names = {info.name for _, info in found}
    for name in sorted(disable - names):
        raise UsageError(f"--disable: {unknown('plugin', name, names)}")
    for point, info in sorted(found, key=lambda item: (item[1].name, item[1].distribution)):
        registry.plugins.append(info)
        rivals = [other for _, other in found if other.name == info.name and other is not info]
        if info.name in disabled or (allowed and info.name not in allowed):
            info.refuse(
                "disabled",
                "disabled by --disable or XPO_BENCH_DISABLE"
                if info.name in disabled
                else "not in XPO_BENCH_PLUGINS",
            )
        elif rivals:
            info.refuse(
                "refused",
                f"the plugin name {info.name!r} is offered by both {info.origin} and {rivals[0].origin}",
            )
        else:
            _register(point, info, manager)
    _check_hook_names(registry)
    for kind in KINDS:
        _collect(registry, kind)
    for kind in KINDS:  # a plugin refused for its tasks loses its algorithms too
        table: dict[str, tuple[object, PluginInfo]] = getattr(registry, f"{kind}s")
        for name in [name for name, (_, info) in table.items() if info.status != "ok"]:
            del table[name]
    for info in registry.plugins:
        if info.status != "ok":
            for name in (
                info.name,
                *info.algorithms,
                *info.tasks,
                *info.metrics,
                *info.trackers,
                *info.claims,
            ):
                registry.lost.setdefault(name, info)
    return registry


def _unique(points: Iterable[EntryPoint]) -> list[tuple[EntryPoint, PluginInfo]]:
    # a distribution found twice on the path (source tree and site-packages) is one distribution
    seen: dict[tuple[str, str, str], tuple[EntryPoint, PluginInfo]] = {}
    known: dict[Distribution | None, tuple[str, str]] = {}
    for point in points:
        if point.dist not in known:
            known[point.dist] = _named(point.dist)
        name, version = known[point.dist]
        info = PluginInfo(point.name, name, version, point.value)
        seen.setdefault((point.name, point.value, name), (point, info))
    return list(seen.values())


def _named(dist: Distribution | None) -> tuple[str, str]:
    """Name and version of a distribution, which parses all of its metadata whenever it is asked for one."""
    if dist is None:
        return "unknown", "0"
    told = dist.metadata
    return told["Name"], told["Version"]


def _register(point: EntryPoint, info: PluginInfo, manager: pluggy.PluginManager) -> None:
    if not NAME.fullmatch(info.name):
        return info.refuse("refused", f"plugin names match {NAME.pattern}")
    try:
        plugin = point.load()
        manager.register(plugin, name=info.name)
        info.hooks = sorted(caller.name for caller in manager.get_hookcallers(plugin) or [])
    except (Exception, SystemExit) as error:
        _broken(info, error)
    return None


def _broken(info: PluginInfo, error: BaseException) -> None:
    message = " ".join(str(error).split()) or "no message"  # the reason may stand on any line
    info.refuse(
        "broken", f"{type(error).__name__}: {message if len(message) <= 300 else message[:297] + '...'}"
    )
    info.traceback = "".join(traceback.format_exception(error))


def _check_hook_names(registry: Registry) -> None:
    """A hook that the specification does not know is mistyped: the plugin is refused."""
    known = {name for name in vars(hooks) if name.startswith("xpo_")}
    for info in registry.plugins:
        wrong = [name for name in info.hooks if name not in known]
        if info.status == "ok" and wrong:
            info.refuse("broken", unknown("hook", wrong[0], known))
            registry.manager.unregister(name=info.name)
    registry.manager.check_pending()


def _collect(registry: Registry, kind: Kind) -> None:
    table: dict[str, tuple[Offered, PluginInfo]] = getattr(registry, f"{kind}s")
    infos = {info.name: info for info in registry.plugins}
    offers: list[tuple[PluginInfo, list[Offered]]] = []
    for implementation in getattr(registry.manager.hook, f"xpo_{kind}s").get_hookimpls():
        info = infos[implementation.plugin_name]
        if info.status != "ok":
            continue
        try:
            found = [_checked(thing, kind) for thing in implementation.function()]
        except (Exception, SystemExit) as error:
            _broken(info, error)
            continue
        getattr(info, f"{kind}s").extend(thing.name for thing in found)
        offers.append((info, found))
    owners: dict[str, list[PluginInfo]] = {}
    for info, found in offers:
        for thing in found:
            owners.setdefault(thing.name, []).append(info)
    for name, claims in owners.items():
        # neither is taken: which one ran would depend on the order of installation
        if len(claims) > 1:
            both = " and ".join(f"{info.name} ({info.origin})" for info in claims)
            for info in claims:
                info.refuse("refused", f"the {kind} name {name!r} is offered by both {both}")
    for info, found in offers:
        if info.status == "ok":
            table.update({thing.name: (thing, info) for thing in found})


def _checked(thing: object, kind: Kind) -> Any:
    """What a hook returned, as the registry holds it: a class as it is, of a function what `metric` said of
    it.

    Raises:
        TypeError, ValueError: it is not what the hook is for, or has a name that cannot be.
    """
    if kind == "metric":
        return check_metric(thing)
    if kind == "claim":
        return check_claim(thing)
    check_class(thing, kind, f"xpo_{kind}s", BASES[kind])
    return thing


def check_metric(function: object) -> Metric:
    """The metric of a function; TypeError or ValueError unless a plugin may offer it."""
    found = metric_of(function)
    if found is None:
        raise TypeError(
            f"xpo_metrics() must return functions marked by @xpo_bench.metric(unit), got {function!r}"
        )
    if found.kind not in ("point", "curve"):
        raise ValueError(
            f"the metric {found.name!r} is of kind {found.kind!r}, a plugin's is 'point' or 'curve'"
        )
    if found.better not in ("higher", "lower", None) or not found.unit or not isinstance(found.unit, str):
        raise ValueError(f"the metric {found.name!r} needs a unit, and better='higher', 'lower' or None")
    if not METRIC_NAME.fullmatch(found.name) or found.name.startswith("heldout_") or found.name in COLUMNS:
        raise ValueError(
            f"the metric name {found.name!r} must match {METRIC_NAME.pattern}, not begin with heldout_ "
            f"and not be one of {', '.join(sorted(COLUMNS))}"
        )
    if found.name in METRICS:
        raise ValueError(f"the metric name {found.name!r} is that of one of the suite's own")
    return found


def check_claim(path: object) -> ClaimFile:
    """The file of a claim; TypeError or ValueError unless a plugin may offer it."""
    if not isinstance(path, Path):
        raise TypeError(f"xpo_claims() must return paths (pathlib.Path) of TOML files, got {path!r}")
    if path.suffix != ".toml" or not NAME.fullmatch(path.stem) or not path.is_file():
        raise ValueError(
            f"the claim {path.name!r} must be a file NAME.toml, its name matching {NAME.pattern}"
        )
    return ClaimFile(path)


def check_class(cls: object, kind: str, hook: str, base: type) -> None:
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise TypeError(f"{hook}() must return subclasses of xpo_bench.{base.__name__}, got {cls!r}")
    if issubclass(cls, Algorithm):
        check_spec(cls)
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in RESERVED:
        raise ValueError(
            f"the {kind} name {name!r} must match {NAME.pattern} "
            f"and not be one of {', '.join(sorted(RESERVED))}"
        )
    if base is Tracker:
        return
    params = getattr(cls, "__dataclass_params__", None)
    if params is None or not params.frozen or "__dataclass_fields__" not in vars(cls):
        raise TypeError(f"{cls.__name__} must be a frozen dataclass (@dataclass(frozen=True))")


def check_spec(cls: type[Algorithm]) -> None:
    """TypeError or ValueError unless this suite knows the version of the contract that the class was made
    for.
    """
    if not isinstance(cls.spec, int) or isinstance(cls.spec, bool) or cls.spec < 1:
        raise TypeError(
            f"{cls.__name__}.spec must be a version of the contract, a whole number from 1 on, "
            f"got {cls.spec!r}"
        )
    if cls.spec > SPEC:
        raise ValueError(
            f"{cls.__name__} is made for version {cls.spec} of the contract of algorithms, "
            f"this xpo-bench knows 1 to {SPEC}: upgrade xpo-bench"
        )


def first_paragraph(text: str) -> str:
    """What a docstring says first, on one line."""
    return " ".join(text.strip().partition("\n\n")[0].split())


def summary_line(cls: type) -> str:
    """First paragraph of a class's own docstring or its module's, for listings."""
    import sys

    module = sys.modules.get(cls.__module__)
    for text in (cls.__doc__, module.__doc__ if module else None):
        # dataclasses without a docstring get their signature as one
        if text and not text.startswith(f"{cls.__name__}("):
            return first_paragraph(text).rstrip(".")
    return ""
