"""Typed, frozen, validated settings: the machinery under every configuration class.

A settings class is a frozen dataclass deriving from `Settings`. Types are checked on construction from the annotations (int,
float, bool, str, Optional, Literal, tuple[T, ...], tuple[T, T], nested Settings), ranges from `setting(minimum=…)`.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.names import suggestion

S = TypeVar("S", bound="Settings")


def setting(
    default: Any = dataclasses.MISSING,
    *,
    help: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field with a range: minimum <= value <= maximum, above < value < below; `help` is shown by `describe`.

    A range on a tuple field holds for each element.
    """
    metadata = {"help": help, "minimum": minimum, "maximum": maximum, "above": above, "below": below}
    if isinstance(default, type) and issubclass(default, Settings):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of all configuration classes. Subclasses override `check` for rules between fields."""

    def __post_init__(self) -> None:
        for field, kind in _fields(type(self)):
            where = f"{type(self).__name__}.{field.name}"
            value = _coerced(getattr(self, field.name), kind, where)
            _check_range(value, field.metadata, where)
            object.__setattr__(self, field.name, value)
        self.check()

    def check(self) -> None:
        """Rules that span several fields; raises ConfigError. The base has none."""

    @classmethod
    def from_dict(cls: type[S], values: Mapping[str, Any], where: str = "") -> S:
        """Builds from nested plain values.

        Raises:
            ConfigError: a key is unknown (the nearest valid one is named), a required one missing, a value not allowed.
        """
        fields = dict((field.name, (field, kind)) for field, kind in _fields(cls))
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where or cls.__name__}: expected a mapping of settings, got {values!r}")
        arguments = {}
        for key, value in values.items():
            path = f"{where}.{key}" if where else str(key)
            if key not in fields:
                raise ConfigError(f"unknown setting '{path}'" + suggestion(str(key), fields))
            kind = fields[key][1]
            nested = isinstance(kind, type) and issubclass(kind, Settings) and not isinstance(value, Settings)
            arguments[key] = kind.from_dict(value, path) if nested else value
        missing = [
            name
            for name, (field, _) in fields.items()
            if name not in arguments and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        ]
        if missing:
            raise ConfigError(f"{where or cls.__name__}: missing setting(s) {', '.join(missing)}")
        return cls(**arguments)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values (tuples as lists), such that `from_dict(to_dict())` equals the original."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def replace(self: S, overrides: Mapping[str, Any]) -> S:
        """A copy with settings replaced; keys may be dotted (`training.batch_size`) or nested mappings."""
        values = self.to_dict()
        for key, value in overrides.items():
            _set_dotted(values, key, value)
        return type(self).from_dict(values)


def _fields(cls: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    kinds = typing.get_type_hints(cls)
    return [(field, kinds[field.name]) for field in dataclasses.fields(cls)]


def _set_dotted(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = str(key).split(".")
    for depth, parent in enumerate(parents):
        if parent not in values or not isinstance(values[parent], dict):
            raise ConfigError(f"unknown setting '{'.'.join(parents[: depth + 1])}'" + suggestion(parent, values))
        values = values[parent]
    if isinstance(value, Mapping) and isinstance(values.get(last), dict):
        for inner_key, inner in value.items():
            _set_dotted(values[last], inner_key, inner)
    else:
        values[last] = value


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _type_name(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(kind))
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)


def _coerced(value: Any, kind: Any, where: str) -> Any:
    """The value as `kind`: ints widen to float, lists become tuples; anything else must already be of the type."""
    refusal = ConfigError(f"{where} = {value!r}: expected {_type_name(kind)}")
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return _coerced(value, option, where)
            except ConfigError:
                continue
        raise refusal
    if origin is typing.Literal:
        if value in arguments and any(value == a and type(value) is type(a) for a in arguments):
            return value
        raise refusal
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise refusal
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(value):
            raise refusal
        return tuple(_coerced(item, item_kind, f"{where}[{i}]") for i, (item, item_kind) in enumerate(zip(value, kinds)))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 (no dot) as a string
        try:
            return float(value)
        except ValueError:
            raise refusal from None
    if kind is type(None):
        if value is None:
            return None
        raise refusal
    if not isinstance(value, kind) or (kind in (int, float) and isinstance(value, bool)):
        raise refusal
    return value


def _check_range(value: Any, metadata: Mapping[str, Any], where: str) -> None:
    values = value if isinstance(value, tuple) else (value,)
    for number in values:
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            continue
        if not math.isfinite(number):
            raise ConfigError(f"{where} = {value!r}: must be finite")
        rules = [
            ("minimum", lambda n, bound: n >= bound, ">="),
            ("maximum", lambda n, bound: n <= bound, "<="),
            ("above", lambda n, bound: n > bound, ">"),
            ("below", lambda n, bound: n < bound, "<"),
        ]
        for name, holds, sign in rules:
            bound = metadata.get(name)
            if bound is not None and not holds(number, bound):
                raise ConfigError(f"{where} = {value!r}: must be {sign} {bound}")
