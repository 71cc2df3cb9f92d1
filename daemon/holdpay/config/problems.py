"""What is wrong with a configuration, in sentences: pydantic's findings, turned into the key and what to do."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

UNITS = {
    "max_requests_per_s": "requests a second",
    "s": "seconds",
    "days": "days",
    "sat": "sat",
    "percent": "percent",
    "delta": "blocks",
    "blocks": "blocks",
    "parts": "parts",
    "orders": "orders",
    "dispatches": "dispatches",
    "attempts": "attempts",
    "minute": "orders a minute",
}
"""The unit of a number, by how its key ends."""

_SHOWN_CHARACTERS = 40
_HUGE = 10**15


def unit_of(key: str) -> str:
    """The unit that a numeric key's name ends in. KeyError: the name has none."""
    name = key.rsplit(".", 1)[-1]
    return UNITS[name] if name in UNITS else UNITS[name.rsplit("_", 1)[-1]]


def keys_of(model: type[BaseModel]) -> list[str]:
    """Every known key, dotted."""
    return [f"{section}.{name}" for section in model.model_fields for name in _section(model, section).model_fields]


def wanted(model: type[BaseModel], key: str) -> str:
    """What the value of a known, dotted key must be, in words."""
    return _wanted(_field_at(model, tuple(key.split("."))), key, is_item=False)


def sentences(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One sentence for each finding, in the order of the sections."""
    findings = error.errors(include_url=False)
    return [sentence for finding in findings for sentence in _sentences(finding, model)]


def _sentences(finding: ErrorDetails, model: type[BaseModel]) -> list[str]:
    """Of a check over all sections as many as it has found problems."""
    if finding["type"] == "value_error" and not finding["loc"]:
        return [f"{problem}." for problem in finding["ctx"]["error"].args]
    return [_sentence(finding, model)]


def _sentence(finding: ErrorDetails, model: type[BaseModel]) -> str:
    key, kind = _dotted(finding["loc"]), finding["type"]
    is_section = len(_names(finding["loc"])) <= 1
    if kind == "extra_forbidden":
        return _unknown(key, model)
    if kind == "value_error":
        # A check over a whole section begins with the name of one of its keys.
        return f"{key}{'.' if is_section else ' '}{finding['ctx']['error']}.".lstrip(".")
    if kind == "tuple_type" and is_section:
        return f"{key} must be a list of sections: write [[{key}]] on a line of its own and its keys below."
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return f"{key} must be a section: write [{_plain(key)}] on a line of its own and its keys below."
    if is_section:
        return f"{key} is a list of {len(finding['input']):,} sections, which is too long: have fewer of them."
    field, given = _field_at(model, finding["loc"]), finding["input"]
    if kind == "missing":
        return f"{key} is missing: {field.description or 'add it'}."
    must_be = _wanted(field, key, isinstance(finding["loc"][-1], int))
    return f"{key} must be {must_be}, not {_shown(given)}{_default(field)}."


def _unknown(key: str, model: type[BaseModel]) -> str:
    nearest = _nearest(key, model)
    kind = "key" if "." in key else "section"
    if nearest is None:
        return f"{key} is not a known {kind}: delete it, or see config.example.toml for every key."
    # A nearest key of another section is in the wrong place, whatever its name.
    remedy = "Rename it" if nearest.rpartition(".")[0] == _plain(key).rpartition(".")[0] else "Move it there"
    return f"{key} is not a known {kind}: did you mean {nearest}? {remedy} or delete it."


def _nearest(key: str, model: type[BaseModel]) -> str | None:
    section, _, name = _plain(key).rpartition(".")
    known = keys_of(model)
    moved = [other for other in known if other.rsplit(".", 1)[-1] == name]
    if moved:
        return moved[0]
    if not section and (near := difflib.get_close_matches(name, model.model_fields, n=1)):
        return near[0]
    here = {other.rsplit(".", 1)[-1]: other for other in known if other.startswith(f"{section}.")}
    anywhere = {other.rsplit(".", 1)[-1]: other for other in known}
    for names in (here, anywhere):
        if near := difflib.get_close_matches(name, names, n=1):
            return names[near[0]]
    return None


def _wanted(field: FieldInfo, key: str, is_item: bool) -> str:
    span = _range(field, is_item)
    if span is not None:
        number = "a whole number" if span.is_whole else "a number"
        return f"{number} from {_number(span.low)} to {_number(span.high)} ({unit_of(_plain(key))})"
    if field.annotation is bool:
        return "true or false"
    choices = _choices(field.annotation)
    if choices:
        return "one of " + ", ".join(f'"{choice}"' for choice in choices)
    if not is_item and _item_type(field.annotation) is not None:
        return f"a list in brackets, {_lengths(field)}"
    return "text in quotes"


@dataclass(frozen=True, slots=True)
class _Range:
    low: float
    high: float
    is_whole: bool


def _range(field: FieldInfo, is_item: bool) -> _Range | None:
    """The bounds of a number, or of the numbers in a list. None: it is not a number."""
    kind, metadata = field.annotation, field.metadata
    if is_item:
        kind, *extras = get_args(_item_type(field.annotation)) or (None,)
        metadata = [item for extra in extras for item in getattr(extra, "metadata", ())]
    low = next((item.ge for item in metadata if isinstance(item, annotated_types.Ge)), None)
    high = next((item.le for item in metadata if isinstance(item, annotated_types.Le)), None)
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return None
    return _Range(low, high, int in (kind, *get_args(kind)))


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:,g}"


def _lengths(field: FieldInfo) -> str:
    least = next((item.min_length for item in field.metadata if isinstance(item, annotated_types.MinLen)), 0)
    most = next((item.max_length for item in field.metadata if isinstance(item, annotated_types.MaxLen)), None)
    return f"{least} to {most} long"


def _item_type(annotation: Any) -> Any:
    """``X`` of ``tuple[X, ...]``, also of one with ``| None`` or with checks of its own; None for anything else."""
    arguments = get_args(annotation)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return arguments[0]
    return next((found for argument in arguments if (found := _item_type(argument)) is not None), None)


def _choices(annotation: Any) -> list[str]:
    """Of an enum, of a Literal, or of either with ``| None``."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Enum):
            return [str(member.value) for member in kind]
        if get_origin(kind) is Literal:
            return list(get_args(kind))
    return []


def _default(field: FieldInfo) -> str:
    default = field.get_default()
    if isinstance(default, bool):
        return f"; {_shown(default)} is the default"
    return f"; {_number(default)} is the default" if isinstance(default, int | float) else ""


def _shown(given: object) -> str:
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, int | float):
        return "a huge number" if _HUGE <= abs(given) < math.inf else f"{given:,}"
    if isinstance(given, str):
        return f"the text {_cut(given)}"
    if isinstance(given, Mapping):
        return "a section"
    if isinstance(given, list | tuple):
        return f"a list of {len(given):,}"
    return f"a {type(given).__name__}"


def _cut(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")


def _dotted(loc: tuple[int | str, ...]) -> str:
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part + 1}]"
        else:
            name = part if part.isprintable() and len(part) <= _SHOWN_CHARACTERS else _cut(part)
            text += f".{name}" if text else name
    return text


def _plain(key: str) -> str:
    """Without the places in lists."""
    return re.sub(r"\[\d+\]", "", key)


def _names(loc: tuple[int | str, ...]) -> list[str]:
    """Section and key, without the places in lists."""
    return [part for part in loc if isinstance(part, str)]


def _section(model: type[BaseModel], name: str) -> type[BaseModel]:
    """Of a list of them: the one that each is."""
    annotation = model.model_fields[name].annotation
    section = _item_type(annotation) or annotation
    assert isinstance(section, type)
    assert issubclass(section, BaseModel)
    return section


def _field_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> FieldInfo:
    section, key, *_ = _names(loc)
    return _section(model, section).model_fields[key]
