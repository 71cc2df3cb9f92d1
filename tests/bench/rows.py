"""A figure beside what is demanded of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Row:
    """``is_met`` None: nothing is demanded, it is only told."""

    what: str
    value: str
    target: str = ""
    is_met: bool | None = None

    def __str__(self) -> str:
        verdict = {True: "met", False: "MISSED", None: ""}[self.is_met]
        return f"{self.what:<66}{self.value:>22}  {self.target:<18}{verdict}".rstrip()


class Figures(Protocol):
    """What one part of the benchmark measured: a dataclass."""

    def rows(self) -> Iterator[Row]: ...


def at_most(what: str, value: float, limit: float, unit: str, digits: int = 1) -> Row:
    """A row whose value may not be over the limit."""
    return Row(what, f"{value:.{digits}f} {unit}", f"<= {limit:g} {unit}", value <= limit)


def at_least(what: str, value: float, limit: float) -> Row:
    """A ratio that may not be under the limit."""
    return Row(what, f"{value:.2f}", f">= {limit:g}", value >= limit)


def ms(value_ms: float) -> str:
    return f"{value_ms:.1f} ms"
