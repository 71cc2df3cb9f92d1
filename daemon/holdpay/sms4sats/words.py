"""Names as people type them: compared, suggested and said back. Pure."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Hashable, Mapping
from typing import Final

MAX_SUGGESTIONS: Final = 3
MAX_ECHO_CHARS: Final = 40
_OTHERS: Final = re.compile(r"[\W_]+")
"""Whatever is neither letter nor digit."""


def word(text: str) -> str:
    """Letters and digits only, lower case, without accents."""
    return _OTHERS.sub("", unicodedata.normalize("NFKD", text[:200]).casefold())


def nearest(to: str, labels: Mapping[str, tuple[Hashable, str]]) -> str:
    """``labels``: word → (what it names, how to show it); each thing is shown once."""
    begins = [known for known in labels if len(to) > 1 and known.startswith(to)]
    close = [] if to.isdecimal() else difflib.get_close_matches(to, labels, n=2 * MAX_SUGGESTIONS)
    shown: dict[Hashable, str] = {}
    for known in [*begins, *close]:
        shown.setdefault(*labels[known])
    names = list(shown.values())[:MAX_SUGGESTIONS]
    return f" Did you mean {' or '.join(names)}?" if names else ""


def echo(text: str) -> str:
    """What somebody typed, in quotes and cut."""
    printable = "".join(char if char.isprintable() else "?" for char in text)
    return f'"{printable if len(printable) <= MAX_ECHO_CHARS else printable[:MAX_ECHO_CHARS] + "…"}"'
