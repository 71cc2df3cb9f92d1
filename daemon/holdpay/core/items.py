"""What an order delivers: numbers, codes, messages, how a sending goes. Long after the end it is erased."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

MAX_OTHERS = 5
"""Numbers besides the one that counts, and codes: a provider that names a new one each time must not fill the disk."""
MAX_MESSAGES = 2_000
"""Of one rented number."""
MAX_STATES = 10
"""Of one sending: a provider that goes back and forth must not fill the disk."""

MAX_UNREAD = 20
"""Replies that cannot be read; half of the places are for those that surely have something for the buyer."""

_AROUND = ".,;:!?()[]<>\"'"
_WORDS = (re.compile("[0-9A-Za-z]+"), re.compile("[0-9]+"), re.compile("[0-9]+(?:[ .-][0-9]+)*"))
_CODE = re.compile("(?=.{4,16}$)(?=.*[0-9])(?:[0-9A-Za-z]+(?:-[0-9A-Za-z]+)*|[0-9]+(?:[ .-][0-9]+)*)")
"""A code that stands alone. Any other text may hold it by chance."""
_LEAST_OVERLAP = 2
"""So many messages at the end of what is known, and at the beginning of a list, show where the list goes on."""
_TIMESTAMP = re.compile(r'"timestamp"\s*:\s*"?[0-9.]*')
"""Of the reply, not of what is in it."""


class ItemKind(StrEnum):
    """What an item is."""

    NUMBER = "number"
    """A phone number, with country prefix, digits only. Of several the last counts."""
    CODE = "code"
    """An activation code. Of several the first counts."""
    MESSAGE = "message"
    """A text message that came to a rented number; the whole SMS of a code that was known before."""
    SENDING = "sending"
    """How the sending of an SMS or an e-mail goes: ``events.SendStatus``."""
    END = "end"
    """When a rental ends, as the provider says: ms since 1970, in digits. The first counts."""
    UNREAD = "unread"
    """A reply, or a message of it, as it came and cut, that has something for the buyer which cannot be read."""
    UNREAD_MAYBE = "unread_maybe"
    """A reply of which that cannot be said for sure."""
    UNREAD_MORE = "unread_more"
    """How many replies besides could not be read, and are not kept: a number, and at least so many. One."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing that the provider delivered. Its place in ``Order.items`` is its number, and it stays what it is: but a
    code that stood for a message gives way to the whole text, and an UNREAD_MORE counts on."""

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


def holds(message: str, code: str, *, may_lack_zeros: bool = False) -> bool:
    """Whether a message is that of a code. ``may_lack_zeros``: the code's leading ones may be missing."""
    if code not in message:
        return False
    found = words(message)
    return code in found or (may_lack_zeros and any(word.isdecimal() and word.lstrip("0") == code for word in found))


def new_of(known: Sequence[str], listed: Sequence[str]) -> Sequence[str]:
    """Of the messages that a reply lists, oldest or newest first, those that are not among the ``known`` ones, oldest
    first.

    A list that is a part of what is known is a stale one, or one without news. One that begins with all that is known,
    or with the end of it, has its news behind that: so the same text once more is seen although the list shows its last
    messages only. Of any other list a text is new that it has more often than it is known.
    """
    both = (listed, listed[::-1])
    if any(_is_part_of(known, said) for said in both):
        return ()
    for said in both if known else ():
        if said[: len(known)] == known:
            return said[len(known) :]
    for said in both if len(listed) <= len(known) else ():
        if overlap := _overlap(known, said):
            return said[overlap:]
    new, at = _more_often(known, listed)
    # Those that stand before all that is known came after it: the newest stands first.
    is_newest_first = bool(new) and len(new) < len(listed) and at == list(range(len(new)))
    return new[::-1] if is_newest_first else new


def _is_part_of(known: Sequence[str], said: Sequence[str]) -> bool:
    if not said:
        return True
    starts = (at for at, text in enumerate(known[: len(known) - len(said) + 1]) if text == said[0])
    return any(known[at : at + len(said)] == said for at in starts)


def _overlap(known: Sequence[str], said: Sequence[str]) -> int:
    """How many of the last known ones ``said`` begins with; 0: too few to tell."""
    counts = range(min(len(known), len(said)), _LEAST_OVERLAP - 1, -1)
    return next((n for n in counts if known[-n] == said[0] and known[-n:] == said[:n]), 0)


def _more_often(known: Sequence[str], listed: Sequence[str]) -> tuple[list[str], list[int]]:
    """Those texts, and where they stand."""
    left = Counter(known)
    new: list[str] = []
    at: list[int] = []
    for place, text in enumerate(listed):
        if left[text] > 0:
            left[text] -= 1
        else:
            new.append(text)
            at.append(place)
    return new, at


@dataclass(slots=True)
class Keeper:
    """Takes in what one reply delivers: nothing is forgotten, nothing is kept twice, nothing fills the disk."""

    items: tuple[Item, ...]
    now_ms: int
    may_count_unread: bool = True
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
        """The first one counts. One that stands in an SMS that is kept as a code already is that one."""
        known = texts(self.items, ItemKind.CODE)
        is_known = text in known
        if not is_known and any(holds(other, text, may_lack_zeros=may_lack_zeros) for other in known):
            return
        if known and text != known[0]:
            self.notes.append("the provider sent another code; the first one counts")
        if not is_known and len(known) <= MAX_OTHERS:
            self._add(ItemKind.CODE, text, may_lack_zeros)

    def sms(self, text: str) -> None:
        """The SMS itself, in place of the code that is to be found in it, or behind one that is known."""
        codes = [item for item in self.items if item.kind is ItemKind.CODE]
        if not any(holds(text, item.text, may_lack_zeros=item.may_lack_zeros) for item in codes):
            self.code(text, may_lack_zeros=False)
        elif text not in texts(codes, ItemKind.CODE):
            known = texts(self.items, ItemKind.MESSAGE)
            if text not in known and len(known) <= MAX_OTHERS:
                self._add(ItemKind.MESSAGE, text)

    def messages(self, said: Iterable[str]) -> None:
        """Each new one of a reply's list: see ``new_of``. The whole text of a message of which only the code was known
        takes its place."""
        listed = tuple(said)
        for text in new_of(texts(self.items, ItemKind.MESSAGE), listed):
            if (at := self._place_of_its_code(text, listed)) is not None:
                whole = replace(self.items[at], text=text, may_lack_zeros=False)
                self.items = (*self.items[:at], whole, *self.items[at + 1 :])
            elif not self._message(text):
                return

    def message_of_code(self, code: str, *, may_lack_zeros: bool) -> None:
        """A reply's code, which stands for a message: unless there is one that has it."""
        known = texts(self.items, ItemKind.MESSAGE)
        if not any(holds(text, code, may_lack_zeros=may_lack_zeros) for text in known):
            self._message(code, may_lack_zeros=may_lack_zeros)

    def _message(self, text: str, *, may_lack_zeros: bool = False) -> bool:
        """False: no more are kept."""
        has_room = len(texts(self.items, ItemKind.MESSAGE)) < MAX_MESSAGES
        if has_room:
            self._add(ItemKind.MESSAGE, text, may_lack_zeros)
        else:
            self.notes.append(f"more than {MAX_MESSAGES:,} messages came to the number; no more are kept")
        return has_room

    def _place_of_its_code(self, text: str, listed: Sequence[str]) -> int | None:
        for at, item in enumerate(self.items):
            is_code = item.kind is ItemKind.MESSAGE and _CODE.fullmatch(item.text) and item.text not in listed
            if is_code and item.text != text and holds(text, item.text, may_lack_zeros=item.may_lack_zeros):
                return at
        return None

    def end(self, at_ms: int) -> None:
        """The first one counts: one that is later each time is no end."""
        if not texts(self.items, ItemKind.END):
            self._add(ItemKind.END, str(at_ms))

    def sending(self, status: str) -> None:
        """Each word that differs from the last one. One that was never said is kept in any case: there are few."""
        known = texts(self.items, ItemKind.SENDING)
        if status not in known or (known[-1] != status and len(known) < MAX_STATES):
            self._add(ItemKind.SENDING, status)

    def unread(self, raw: str, *, has_value: bool) -> None:
        """Each that differs in more than its time, up to MAX_UNREAD; the rest is counted."""
        known = [item for item in self.items if item.kind in _UNREAD]
        if any(_TIMESTAMP.sub("", item.text) == _TIMESTAMP.sub("", raw) for item in known):
            return
        vague_count = sum(item.kind is ItemKind.UNREAD_MAYBE for item in known)
        if len(known) < MAX_UNREAD and (has_value or vague_count < MAX_UNREAD // 2):
            self._add(ItemKind.UNREAD if has_value else ItemKind.UNREAD_MAYBE, raw)
            self.notes += [_IS_KEPT] if has_value else []
        elif self.may_count_unread:
            self._count_unread()
            self.notes += [_IS_COUNTED] if has_value else []

    def _count_unread(self) -> None:
        at = next((n for n, item in enumerate(self.items) if item.kind is ItemKind.UNREAD_MORE), None)
        if at is None:
            self._add(ItemKind.UNREAD_MORE, "1")
            return
        more = replace(self.items[at], text=str(int(self.items[at].text) + 1))
        self.items = (*self.items[:at], more, *self.items[at + 1 :])

    def _add(self, kind: ItemKind, text: str, may_lack_zeros: bool = False) -> None:
        item = Item(kind=kind, text=text, seen_at_ms=self.now_ms, may_lack_zeros=may_lack_zeros)
        self.items = (*self.items, item)


_UNREAD = frozenset({ItemKind.UNREAD, ItemKind.UNREAD_MAYBE})
_IS_KEPT = "something in the provider's reply cannot be read; the reply is kept"
_IS_COUNTED = f"{_IS_KEPT.partition(';')[0]}; no more are kept"
