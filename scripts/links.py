"""The links of a Markdown page, as GitHub reads it: what they lead to, and which of them lead nowhere.

Offline: of a link to elsewhere only the shape is looked at.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?P<image>!?)\[(?P<label>[^\[\]]*)\]\((?P<target>[^()\s]+)\)")
CODE = re.compile(
    r"^(?P<fence>```|~~~).*?^(?P=fence)[ \t]*$|(?P<ticks>`+)[^`].*?(?<!`)(?P=ticks)(?!`)", re.MULTILINE | re.DOTALL
)
FENCE = re.compile(r"(?ms)^(?P<fence>```|~~~).*?^(?P=fence)[ \t]*$")
HEADING = re.compile(r"^ {0,3}#{1,6} +(.+?)(?: +#+)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Link:
    """`label` and `target` as they stand there; an image has an exclamation mark before it."""

    is_image: bool
    label: str
    target: str
    line: int


def pages() -> list[Path]:
    """All that people read: the pages beside the README, and those of docs/ and of the folders of contrib/."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "contrib").glob("*/*.md")])


def links(text: str) -> Iterator[Link]:
    """Those outside of code."""
    for link, _ in found(text):
        yield link


def found(text: str) -> Iterator[tuple[Link, slice]]:
    """Each link with its place in the text."""
    for match in LINK.finditer(without_code(text)):
        label = text[match.start("label") : match.end("label")]
        line = text.count("\n", 0, match.start()) + 1
        yield Link(bool(match["image"]), label, match["target"], line), slice(*match.span())


def replaced(text: str, other: Callable[[Link], str]) -> str:
    """The text with `other` in place of each link."""
    parts, done = list[str](), 0
    for link, place in found(text):
        parts += [text[done : place.start], other(link)]
        done = place.stop
    return "".join([*parts, text[done:]])


def without_code(text: str) -> str:
    """The same length and lines; what stands in code is blank."""
    return blanked(CODE, text)


def without_fences(text: str) -> str:
    """The same of code that stands in lines of its own."""
    return blanked(FENCE, text)


def blanked(what: re.Pattern[str], text: str) -> str:
    return what.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def anchors(text: str) -> set[str]:
    """What `#...` may name: of each heading its words, and a number from the second one of the same words on."""
    slugs, seen = set[str](), Counter[str]()
    for heading in HEADING.findall(without_fences(text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", words.lower()).strip().replace(" ", "-")
        slugs.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return slugs


def problems(page: Path, text: str) -> Iterator[str]:
    """A sentence for each link of a page that leads nowhere."""
    for link in links(text):
        if (why := trouble(page, text, link.target)) is not None:
            yield f"{page.relative_to(ROOT)}:{link.line}: {link.target} {why}"


def trouble(page: Path, text: str, target: str) -> str | None:
    """What is wrong with where a link of a page leads; None: nothing."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        is_whole = parts.scheme == "https" and "." in parts.netloc and " " not in unquote(target)
        return None if is_whole else "is no https:// URL"
    path = place(page, target)
    if path is None or not (path == page or path.exists()):
        return "is no file of this repository"
    if not parts.fragment:
        return None
    if path.suffix != ".md":
        return "names a heading of what is no page"
    there = anchors(text if path == page else path.read_text())
    return None if parts.fragment in there else "names no heading of that page"


def place(page: Path, target: str) -> Path | None:
    """The file that a relative link of a page leads to, which need not be there. None: it is none of the repository."""
    relative = unquote(urlsplit(target).path)
    path = (page.parent / relative).resolve() if relative else page
    return path if path.is_relative_to(ROOT) else None
