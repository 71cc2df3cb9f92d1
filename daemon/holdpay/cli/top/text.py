"""Words in columns: cut, padded, wrapped and coloured, and never an escape sequence of others among them.

Of our own, not of rich: structlog loads rich wherever it is installed, so the daemon would pay for it with 3 MB.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from holdpay.cli import render


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Signs that a terminal can show, one column each but for ``arrows``."""

    spent: str
    reserved: str
    free: str
    chosen: str
    more: str
    dot: str
    arrows: str


UNICODE = Glyphs("█", "▒", "░", "►", "…", "·", "↑↓")
ASCII = Glyphs("#", "=", ".", ">", "~", "-", "up/down")

Style: TypeAlias = tuple[int, ...]
"""Parameters of SGR (ECMA-48), as every terminal knows them: 1 bold, 2 faint, 7 reverse, from 30 on colours."""
PLAIN: Style = ()
HEADING, FAINT, REVERSE = (1,), (2,), (7,)
BAD, GOOD, ODD = (1, 31), (32,), (33,)
LEVEL_STYLES: dict[str, Style] = {"late": (33,), "warning": (1, 33), "critical": (1, 37, 41)}
_FIRST_COLOUR = 30


@dataclass(frozen=True, slots=True)
class Line:
    """Words with their styles. Made by ``text``."""

    parts: tuple[tuple[str, Style], ...] = ()

    @property
    def plain(self) -> str:
        return "".join(words for words, _ in self.parts)

    @property
    def columns(self) -> int:
        return columns_of(self.plain)

    def __add__(self, other: Line) -> Line:
        return Line(self.parts + other.parts)

    def cut(self, columns: int, glyphs: Glyphs) -> Line:
        """Of at most so many columns; one that is longer ends with a sign of that."""
        if self.columns <= columns:
            return self
        parts, room = [], max(columns - 1, 0)
        for words, style in self.parts:
            kept = head(words, room)
            parts.append((kept, style))
            room -= columns_of(kept)
            if kept != words:
                break
        return Line((*parts, (glyphs.more if columns > 0 else "", PLAIN)))

    def padded(self, columns: int) -> Line:
        return self + Line(((" " * (columns - self.columns), PLAIN),))

    def coded(self, *, has_colour: bool) -> str:
        """For a terminal."""
        return "".join(_coded(words, style, has_colour=has_colour) for words, style in self.parts)


def _coded(words: str, style: Style, *, has_colour: bool) -> str:
    codes = [str(code) for code in style if has_colour or code < _FIRST_COLOUR]
    return f"\x1b[{';'.join(codes)}m{words}\x1b[0m" if codes and words else words


def text(*parts: str | tuple[str, Style]) -> Line:
    """One line of words, each part perhaps with a style. What the provider, lnd or another client wrote comes to the
    terminal through here alone: its control characters do not."""
    pairs = [(part, PLAIN) if isinstance(part, str) else part for part in parts]
    return Line(tuple((render.plain(words), style) for words, style in pairs))


def columns_of(words: str) -> int:
    """How many a terminal gives them."""
    return len(words) if words.isascii() else sum(map(_columns_of_char, words))


def _columns_of_char(char: str) -> int:
    if unicodedata.category(char) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1


def head(words: str, columns: int) -> str:
    """The beginning that fits into so many."""
    used = 0
    for at, char in enumerate(words):
        used += _columns_of_char(char)
        if used > columns:
            return words[:at]
    return words


def cell(words: str, width: int, glyphs: Glyphs, *, to_right: bool = False) -> str:
    """``words`` in exactly so many columns."""
    words = text(words).cut(width, glyphs).plain
    space = " " * (width - columns_of(words))
    return space + words if to_right else words + space


def wrapped(words: str, columns: int, indent: int = 0) -> list[str]:
    """Lines of at most so many columns, all but the first one indented."""
    found: list[str] = []
    line = ""
    for word in render.plain(words).split():
        rest = word
        while True:
            room = max(columns - (indent if found else 0), 1)
            joined = f"{line} {rest}" if line else rest
            if columns_of(joined) <= room:
                line = joined
                break
            if line:
                found, line = [*found, line], ""
                continue
            begin = head(rest, room) or rest[0]
            found, rest = [*found, begin], rest[len(begin) :]
    found += [line] if line else []
    return found[:1] + [" " * indent + line for line in found[1:]]


def bar(width: int, parts: Sequence[tuple[str, int]], limit: int, free: str) -> str:
    """``parts``: signs, and how much of ``limit`` each stands for, in their order. More than nothing is seen."""
    drawn, total = "", 0
    for sign, amount in parts:
        total += amount
        upto = min(-(-total * width // limit), width) if limit > 0 else width
        drawn += sign * max(upto - len(drawn), 0)
    return drawn + free * (width - len(drawn))


def filled(lines: Sequence[Line], height: int) -> list[Line]:
    """Exactly so many."""
    return [*lines[:height], *(Line() for _ in range(height - len(lines)))]


def seconds(duration_ms: int) -> str:
    """As ``render.span``, without tenths: it is looked at once a second."""
    whole_s = max(duration_ms, 0) // 1000
    return f"{whole_s}s" if whole_s < 60 else render.span(whole_s * 1000)
