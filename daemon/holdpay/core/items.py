"""What an order delivers: numbers, codes, messages, how a sending goes. Long after the end it is erased."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

MAX_OTHERS = 5
"""Numbers besides the one that counts, and codes: a provider that names a new one each time must not fill the disk."""
MAX_MESSAGES = 2_000
"""Of one rented number."""
MAX_STATES = 10
"""Of one sending: a provider that goes back and forth must not fill the disk."""

_AROUND = ".,;:!?()[]<>\"'"
_WORDS = (re.compile("[0-9A-Za-z]+"), re.compile("[0-9]+"), re.compile("[0-9]+(?:[ .-][0-9]+)*"))


class ItemKind(StrEnum):
    """What an item is."""

    NUMBER = "number"
    """A phone number, with country prefix, digits only. Of several the last counts."""
    CODE = "code"
    """An activation code. Of several the first counts."""
    MESSAGE = "message"
    """A text message that came to a rented number."""
    SENDING = "sending"
    """How the sending of an SMS or an e-mail goes: ``events.SendStatus``."""
    UNREAD = "unread"
    """A reply, as it came and cut, that has something for the buyer which cannot be read: the latest such."""
    UNREAD_MAYBE = "unread_maybe"
    """A reply of which that cannot be said for sure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing that the provider delivered. Its place in ``Order.items`` is its number; it never changes, but for an
    UNREAD one, which gives way to a later one."""

    kind: ItemKind
    text: str
    seen_at_ms: int
    may_lack_zeros: bool = False
    """The provider sent it as a JSON number: leading zeros may be missing."""


def texts(items: Iterable[Item], kind: ItemKind) -> tuple[str, ...]:
    """Of one kind, oldest first."""
    return tuple(item.text for item in items if item.kind is kind)


def words(message: str) -> set[str]:
    """What in a message may be a code: itself, each word with and without what stands around and between its letters,
    each run of digits (letters may be next to it, since not every language has spaces), and runs in groups ("123 456").
    Never a part of a longer number, or of a longer word."""
    found = {message, *(word.strip(_AROUND) for word in message.split())}
    return found.union(*(pattern.findall(message) for pattern in _WORDS))


@dataclass(slots=True)
class Keeper:
    """Takes in what one reply delivers: nothing is forgotten, nothing is kept twice, nothing fills the disk."""

    items: tuple[Item, ...]
    now_ms: int
    may_replace_unread: bool = True
    notes: list[str] = field(default_factory=list)
    """What is odd about it."""

    def number(self, text: str) -> None:
        """A provider replaces one that receives nothing. One that it had replaced does not come back: a stale reply."""
        known = texts(self.items, ItemKind.NUMBER)
        if text == (known[-1] if known else None):
            return
        if not known:
            self._add(ItemKind.NUMBER, text)
        elif texts(self.items, ItemKind.CODE):
            self.notes.append("the provider named another number after the code; the one to which the code came stays")
        elif text in known:
            self.notes.append("the provider named a number again that it had replaced; the latest one counts")
        elif len(known) > MAX_OTHERS:
            self.notes.append("the provider replaced the number once more; it is not followed any further")
        else:
            self.notes.append("the provider replaced the number; the new one counts")
            self._add(ItemKind.NUMBER, text)

    def code(self, text: str, *, may_lack_zeros: bool) -> None:
        """The first one counts."""
        known = texts(self.items, ItemKind.CODE)
        if known and text != known[0]:
            self.notes.append("the provider sent another code; the first one counts")
        if text not in known and len(known) <= MAX_OTHERS:
            self._add(ItemKind.CODE, text, may_lack_zeros)

    def messages(self, said: Iterable[str]) -> None:
        """Each new one. A text that a reply has twice came twice; one that is said again in a later reply is known."""
        known = texts(self.items, ItemKind.MESSAGE)
        counted: dict[str, int] = {}
        for text in said:
            counted[text] = counted.get(text, 0) + 1
            if counted[text] <= known.count(text):
                continue
            if len(texts(self.items, ItemKind.MESSAGE)) >= MAX_MESSAGES:
                self.notes.append(f"more than {MAX_MESSAGES:,} messages came to the number; no more are kept")
                return
            self._add(ItemKind.MESSAGE, text)

    def sending(self, status: str) -> None:
        """Each word that differs from the last one. One that was never said is kept in any case: there are few."""
        known = texts(self.items, ItemKind.SENDING)
        if status not in known or (known[-1] != status and len(known) < MAX_STATES):
            self._add(ItemKind.SENDING, status)

    def unread(self, raw: str, *, has_value: bool) -> None:
        """The first in any case; a later one in its place, unless it says less."""
        kind = ItemKind.UNREAD if has_value else ItemKind.UNREAD_MAYBE
        at = next((n for n, item in enumerate(self.items) if item.kind in _UNREAD), None)
        if at is None:
            self._add(kind, raw)
            return
        known = self.items[at]
        is_more = has_value and known.kind is ItemKind.UNREAD_MAYBE
        is_less = not has_value and known.kind is ItemKind.UNREAD
        if is_less or known.text == raw or not (is_more or self.may_replace_unread):
            return
        new = Item(kind=kind, text=raw, seen_at_ms=self.now_ms)
        self.items = (*self.items[:at], new, *self.items[at + 1 :])

    def _add(self, kind: ItemKind, text: str, may_lack_zeros: bool = False) -> None:
        item = Item(kind=kind, text=text, seen_at_ms=self.now_ms, may_lack_zeros=may_lack_zeros)
        self.items = (*self.items, item)


_UNREAD = frozenset({ItemKind.UNREAD, ItemKind.UNREAD_MAYBE})
