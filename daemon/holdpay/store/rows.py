"""Dataclass ⇄ row. A column has its field's name; a nested dataclass's columns begin with its field's name."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
Value = str | int | None
Row = dict[str, Value]


@cache
def _fields(cls: Any) -> list[tuple[str, Any, bool]]:
    """Name, type without ``| None``, and whether that is a dataclass."""
    hints = typing.get_type_hints(cls)
    types_by_name = {f.name: _bare(hints[f.name]) for f in fields(cls)}
    return [(name, kind, is_dataclass(kind)) for name, kind in types_by_name.items()]


def _bare(hint: Any) -> Any:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (hint,) = (a for a in typing.get_args(hint) if a is not type(None))
    return typing.get_origin(hint) or hint


def to_row(obj: Any, *, without: frozenset[str] = frozenset(), prefix: str = "") -> Row:
    """One dataclass instance as column → value. A nested one that is None becomes a NULL in each of its columns."""
    row: Row = {}
    cls: Any = type(obj)
    for name, kind, is_nested in _fields(cls):
        if name in without:
            continue
        value = getattr(obj, name)
        if is_nested:
            row.update(_nested_row(kind, name, value))
        else:
            row[prefix + name] = to_value(value)
    return row


def changed(before: Any, after: Any, *, without: frozenset[str] = frozenset(), prefix: str = "") -> Row:
    """What in the row of ``after`` is not as in that of ``before``, another instance of its class."""
    row: Row = {}
    cls: Any = type(after)
    for name, kind, is_nested in _fields(cls):
        then, now = getattr(before, name), getattr(after, name)
        if then is now or name in without or then == now:
            continue
        if is_nested:
            known = _nested_row(kind, name, then)
            row.update(
                {column: value for column, value in _nested_row(kind, name, now).items() if known[column] != value}
            )
        else:
            row[prefix + name] = to_value(now)
    return row


def _nested_row(kind: Any, name: str, value: Any) -> Row:
    prefix = f"{name}_"
    return dict.fromkeys(column_names(kind, prefix=prefix)) if value is None else to_row(value, prefix=prefix)


def to_value(value: Any) -> Value:
    """One field as its column has it."""
    if value is None or type(value) is str or type(value) is int:
        return value
    if isinstance(value, Enum):
        return typing.cast(str, value.value)
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, Mapping):
        return json.dumps(dict(value), sort_keys=True)
    if isinstance(value, tuple):
        return json.dumps(value)
    return typing.cast(Value, value)


def column_names(cls: Any, *, without: frozenset[str] = frozenset(), prefix: str = "") -> list[str]:
    """All columns of a dataclass, in field order."""
    names: list[str] = []
    for name, kind, is_nested in _fields(cls):
        if name not in without:
            names += column_names(kind, prefix=f"{name}_") if is_nested else [prefix + name]
    return names


@cache
def defaults(cls: Any, *, without: frozenset[str] = frozenset()) -> Row:
    """What a column stands for where a row does not have it yet, of the fields that have a default. To be read only."""
    found: Row = {}
    has_default = {f.name: f.default for f in fields(cls) if f.default is not MISSING}
    for name, kind, is_nested in _fields(cls):
        if name in without or name not in has_default:
            continue
        if is_nested:
            found.update(dict.fromkeys(column_names(kind, prefix=f"{name}_")))
        else:
            found[name] = to_value(has_default[name])
    return found


def from_row(cls: type[T], row: Mapping[str, Any], *, prefix: str = "", **given: Any) -> T:
    """The inverse of ``to_row``; ``given`` are the fields that it left out."""
    values: dict[str, Any] = dict(given)
    hashable: Any = cls
    for name, kind, is_nested in _fields(hashable):
        if name in given:
            continue
        if is_nested:
            values[name] = _nested(kind, row, name)
            continue
        value = row[prefix + name]
        values[name] = value if type(value) is kind else _from_value(kind, value)
    return cls(**values)


def _nested(kind: Any, row: Mapping[str, Any], name: str) -> Any:
    prefix = f"{name}_"
    if all(row[column] is None for column in column_names(kind, prefix=prefix)):
        return None
    return from_row(kind, row, prefix=prefix)


def _from_value(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    if kind is bool:
        return bool(value)
    if kind is Mapping:
        return json.loads(value)
    if kind is tuple:
        return _texts(json.loads(value))
    return kind(value)


def _texts(values: Any) -> tuple[str, ...]:
    """Raises ValueError for anything but a list of text."""
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("not a list of text")
    return tuple(values)
