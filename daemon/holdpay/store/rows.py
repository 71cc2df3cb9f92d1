"""Dataclass ⇄ row. A column has its field's name; a nested dataclass's columns begin with its field's name."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Final, TypeVar

T = TypeVar("T")
Value = str | int | None
Row = dict[str, Value]


NOTHING: Final[frozenset[str]] = frozenset()


@cache
def _fields(cls: Any, without: frozenset[str] = NOTHING) -> list[tuple[str, Any, bool]]:
    """Name, type without ``| None``, and whether that is a dataclass."""
    hints = typing.get_type_hints(cls)
    types_by_name = {f.name: _bare(hints[f.name]) for f in fields(cls) if f.name not in without}
    return [(name, kind, is_dataclass(kind)) for name, kind in types_by_name.items()]


def _bare(hint: Any) -> Any:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (hint,) = (a for a in typing.get_args(hint) if a is not type(None))
    return typing.get_origin(hint) or hint


def to_row(obj: Any, *, without: frozenset[str] = NOTHING, prefix: str = "") -> Row:
    """One dataclass instance as column → value. A nested one that is None becomes a NULL in each of its columns."""
    row: Row = {}
    cls: Any = type(obj)
    for name, kind, is_nested in _fields(cls, without):
        value = getattr(obj, name)
        if is_nested:
            row.update(_nested_row(kind, name, value))
        else:
            row[prefix + name] = to_value(value)
    return row


def changed(before: Any, after: Any, *, without: frozenset[str] = NOTHING) -> Row:
    """What in the row of ``after`` is not as in that of ``before``, another instance of its class."""
    row: Row = {}
    cls: Any = type(after)
    for name, kind, is_nested in _fields(cls, without):
        then, now = getattr(before, name), getattr(after, name)
        if then is now or then == now:
            continue
        if is_nested:
            known = _nested_row(kind, name, then)
            row.update(
                {column: value for column, value in _nested_row(kind, name, now).items() if known[column] != value}
            )
        else:
            row[name] = to_value(now)
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


def column_names(cls: Any, *, without: frozenset[str] = NOTHING, prefix: str = "") -> list[str]:
    """All columns of a dataclass, in field order."""
    names: list[str] = []
    for name, kind, is_nested in _fields(cls, without):
        names += column_names(kind, prefix=f"{name}_") if is_nested else [prefix + name]
    return names


@cache
def defaults(cls: Any, *, without: frozenset[str] = NOTHING) -> Row:
    """What a column stands for where a row does not have it yet, of the fields that have a default. To be read only."""
    found: Row = {}
    has_default = {f.name: f.default for f in fields(cls) if f.default is not MISSING}
    for name, kind, is_nested in _fields(cls, without):
        if name not in has_default:
            continue
        if is_nested:
            found.update(dict.fromkeys(column_names(kind, prefix=f"{name}_")))
        else:
            found[name] = to_value(has_default[name])
    return found


def from_row(cls: type[T], row: Mapping[str, Any], *, prefix: str = "", **given: Any) -> T:
    """The inverse of ``to_row``; ``given`` are the fields that it left out. Only what has its columns in ``row``."""
    values: dict[str, Any] = dict(given)
    hashable: Any = cls
    for name, columns, kind, converted in _places(hashable, prefix, tuple(given)):
        if converted is None:
            is_there = any(row[column] is not None for column in columns)
            values[name] = from_row(kind, row, prefix=f"{prefix}{name}_") if is_there else None
        else:
            value = row[columns[0]]
            values[name] = value if value is None or type(value) is kind else converted(value)
    return cls(**values)


@cache
def _places(
    cls: Any, prefix: str, without: tuple[str, ...]
) -> list[tuple[str, list[str], Any, Callable[[Any], Any] | None]]:
    """Of each field its name, its columns, its type, and what makes that of a column's value; None: it is a dataclass,
    whose columns they are."""
    return [
        (name, column_names(kind, prefix=f"{prefix}{name}_"), kind, None)
        if is_nested
        else (name, [prefix + name], kind, _CONVERTED.get(kind, kind))
        for name, kind, is_nested in _fields(cls)
        if name not in without
    ]


def _texts(value: str) -> tuple[str, ...]:
    """Raises ValueError for anything but a list of text."""
    values = json.loads(value)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("not a list of text")
    return tuple(values)


_CONVERTED: Final[Mapping[Any, Callable[[Any], Any]]] = {Mapping: json.loads, tuple: _texts}
"""A class that is not here makes itself of the value."""
