"""Configurations at the boundary: `--set` words, validation, and errors of one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import product
from typing import Annotated, Any, TypeVar, get_type_hints

from annotated_types import Gt
from pydantic import TypeAdapter, ValidationError
from typing_extensions import Doc

from xpo_bench.contract.settings import Optimizer
from xpo_bench.errors import UsageError, unknown
from xpo_bench.runner.words import Settings

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TrainOverrides:
    """What `--set ALGORITHM.train.FIELD` may change for one algorithm."""

    __pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # noqa: RUF012

    lr: Annotated[float | None, Gt(0), Doc("learning rate of this algorithm")] = None
    optimizer: Annotated[Optimizer | None, Doc("update rule of this algorithm")] = None


_ADAPTERS: dict[type, TypeAdapter[Any]] = {}
_NAMES: dict[type, tuple[str, ...]] = {}


def adapter(cls: type) -> TypeAdapter[Any]:
    """The validator of a dataclass, built once."""
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def names(cls: type) -> tuple[str, ...]:
    """Field names as a user writes them (aliases where a field has one)."""
    if cls not in _NAMES:
        schema = adapter(cls).json_schema(by_alias=True)
        _NAMES[cls] = tuple(schema.get("properties", {}))
    return _NAMES[cls]


def validate(cls: type[T], values: Mapping[str, object], where: str) -> T:
    """Build a dataclass from user values.

    Raises:
        UsageError: `where.field = value: reason`, with the known names for an unknown field.
    """
    known = names(cls)
    for key in values:
        if key not in known:
            raise UsageError(unknown(f"setting of {where}", key, known))
    try:
        # pydantic also reads text, so that words of a shell and values of TOML take one path
        built: T = adapter(cls).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][:1]) or "config"
        raise UsageError(f"{where}.{field} = {values.get(field)}: {first['msg'].lower()}") from None
    return built


def dump(instance: object) -> dict[str, object]:
    """A validated dataclass as JSON-ready values, under the names that users write."""
    dumped: dict[str, object] = adapter(type(instance)).dump_python(instance, mode="json", by_alias=True)
    return dumped


def docs(cls: type) -> dict[str, str]:
    """Field name as a user writes it -> its sentence (`Doc`)."""
    hints = get_type_hints(cls, include_extras=True)
    out = {}
    if is_dataclass(cls):
        for f, name in zip(fields(cls), names(cls), strict=True):
            notes = [
                m.documentation for m in getattr(hints[f.name], "__metadata__", ()) if isinstance(m, Doc)
            ]
            out[name] = notes[0] if notes else ""
    return out


def parse_set(words: Iterable[str]) -> Settings:
    """`A.FIELD=v1,v2` words into settings; the last dot splits, a comma makes a sweep.

    Raises:
        UsageError: no word, one without `=` or without a dot, or the same field twice.
    """
    out: Settings = {}
    for word in words:
        if not isinstance(word, str):  # of a plan file
            raise UsageError(f"set: expected words ALGORITHM.FIELD=VALUE, or a table, got {word!r}")
        left, equals, right = word.partition("=")
        add_setting(out, left.strip(), right.split(",") if equals else None)
    return out


def add_setting(out: Settings, left: str, values: Sequence[object] | None) -> None:
    """Add one `A.FIELD` with its values to the settings."""
    target, dot, field = left.rpartition(".")
    cleaned = [v.strip() if isinstance(v, str) else v for v in values or []]
    if not (dot and target and field) or not cleaned or any(v == "" for v in cleaned):
        raise UsageError(
            f"--set {left}: expected ALGORITHM.FIELD=VALUE[,VALUE], ALGORITHM.train.lr=VALUE "
            "or task.FIELD=VALUE"
        )
    if field in out.setdefault(target, {}):
        raise UsageError(f"--set {left}: given twice; separate the values of a sweep by commas")
    out[target][field] = cleaned


def settings_of(value: object) -> Settings:
    """Settings from `--set` words, from a table of a plan file or call, flat or nested, or as they are.

    Raises:
        UsageError: a value of another kind.
    """
    if not value:
        return {}
    if isinstance(value, str | list | tuple):
        return parse_set([value] if isinstance(value, str) else value)
    if not isinstance(value, Mapping):
        raise UsageError(
            f'set = {value}: expected a table such as {{ "dpo.beta" = [0.1, 0.5] }}, '
            "or words ALGORITHM.FIELD=VALUE"
        )
    settings: Settings = {}
    for left, values in value.items():
        inner = values if isinstance(values, Mapping) else None
        flat = {f"{left}.{field}": v for field, v in inner.items()} if inner is not None else {left: values}
        # {"dpo": {"beta": [0.1]}} and {"dpo.beta": [0.1]} mean the same; a list is a sweep
        for name, entry in flat.items():
            add_setting(settings, name, entry if isinstance(entry, list | tuple) else [entry])
    return settings


def swept(settings: Settings) -> str | None:
    """The first field that is given several values, as TARGET.FIELD."""
    return next(
        (
            f"{target}.{name}"
            for target, chosen in settings.items()
            for name, v in chosen.items()
            if len(v) > 1
        ),
        None,
    )


def grid(settings: Mapping[str, Sequence[object]]) -> list[dict[str, object]]:
    """All combinations of the values, as one dictionary each."""
    return [dict(zip(settings, combination, strict=True)) for combination in product(*settings.values())]
