"""What hooks are told, where each of them is in it, and when one that does not answer is tried again, or no more.

What happened to orders is read off the journal; what is about no journal row (an alarm, lnd, a limit) is a notice, with
the last row that was there before it. So all of it has one order, and a hook's position is three numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from holdpay.core.items import Item, ItemKind
from holdpay.core.model import Order
from holdpay.core.states import End

FIRST_DELAY_S: Final = 5
MAX_DELAY_S: Final = 3600
DEAD_AFTER_S: Final = 24 * 3600
DEAD_AFTER_TRIES: Final = 20
"""At least: a day of trying has more. Time in which nobody tried, as holdpayd was off or the clock was set, is none."""


class Topic(StrEnum):
    """What a hook can be told."""

    NUMBER = "number"
    """A number came."""
    CODE = "code"
    """A code came."""
    MESSAGE = "message"
    """An SMS came to a rented number, or the whole SMS of a code that was known before."""
    CLOSED = "closed"
    """An order ended."""
    CHARGED_WITHOUT_CODE = "charged_without_code"
    """An order ended, was charged, and nothing came."""
    ALARM = "alarm"
    """Something that an operator should look at began, or became more or less urgent."""
    LIMIT_NEAR = "limit_near"
    """Of a limit in sat 80 % are used."""
    LND_NOT_READY = "lnd_not_ready"
    """lnd cannot pay, for a minute already."""
    LND_READY = "lnd_ready"
    """It can again."""


OF_ITEMS: Final = {ItemKind.NUMBER: Topic.NUMBER, ItemKind.CODE: Topic.CODE, ItemKind.MESSAGE: Topic.MESSAGE}
TEST: Final = "test"
"""The type of what `holdpay hooks test` sends; no hook can choose it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One thing that hooks are told. ``secret``: what only a hook with include_secrets gets. ``key``: what tells it
    from all others, now and after a restart. ``part``: its place in its row, from 1 on, whatever was erased of that."""

    type: str
    at_ms: int
    key: str
    data: Mapping[str, Any]
    part: int = 1
    secret: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The same each time that it is delivered. A database that is set back has the same cursors and numbers again,
        for other things at other times."""
        return "msg_" + hashlib.sha256(f"{self.type}\n{self.at_ms}\n{self.key}".encode()).hexdigest()[:32]


def body(data: Mapping[str, Any], happening: Happening) -> bytes:
    """JSON in the form of Standard Webhooks. ``data``: what of the happening's the hook may have."""
    at = datetime.fromtimestamp(happening.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    told = {"type": happening.type, "timestamp": at.replace("+00:00", "Z"), "data": data}
    # Text that is none (a flipped bit on the disk) must not keep a hook from all that comes after it.
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """A row of the journal that hooks may be told of. ``order``: as it was right after it. ``brought``: what it
    delivered, by its place among the order's items. ``is_end``: it closed the order. ``is_end_after_all``: the order
    was closed, another one was to follow, and none does."""

    cursor: int
    at_ms: int
    order: Order
    brought: Mapping[int, Item]
    is_end: bool
    is_end_after_all: bool


_PART_OF_END: Final = 1_000_000
"""Behind all items."""


def happenings(news: News) -> tuple[Happening, ...]:
    """All of a row, always in the same order."""
    return (*_of_items(news), *_of_end(news))


def _of_items(news: News) -> Iterator[Happening]:
    for place, item in sorted(news.brought.items()):
        topic = OF_ITEMS.get(item.kind)
        if topic is None:
            continue
        text = f"+{item.text}" if item.kind is ItemKind.NUMBER else item.text
        secret: dict[str, Any] = {topic.value: text}
        if item.may_lack_zeros:
            secret["may_lack_zeros"] = True
        yield _of_order(news, topic, place + 1, {}, secret)


def _of_end(news: News) -> Iterator[Happening]:
    order = news.order
    if not (news.is_end or news.is_end_after_all) or order.end is None:
        return
    facts = {
        "end": order.end.value,
        "reason": order.reason,
        "spent_msat": order.spent_msat,
        "fee_msat": order.spent_fee_msat,
        "request_is_over": order.ends_request,
    }
    yield _of_order(news, Topic.CLOSED, _PART_OF_END, facts)
    if news.is_end and order.end is End.CHARGED_UNFULFILLED:
        yield _of_order(news, Topic.CHARGED_WITHOUT_CODE, _PART_OF_END + 1, facts)


def _of_order(
    news: News, topic: Topic, part: int, facts: Mapping[str, Any], secret: Mapping[str, Any] | None = None
) -> Happening:
    request = news.order.request
    return Happening(
        type=topic.value,
        at_ms=news.at_ms,
        key=f"row {news.cursor} {part}",
        part=part,
        data={
            "cursor": news.cursor,
            "request_id": request.id,
            "order_id": news.order.id,
            "client": request.client or None,
            "kind": news.order.spec.kind.value,
            "what": news.order.spec.without_secrets().what,
            **facts,
        },
        secret=secret or {},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What happened to no order in particular, or is in no row of the journal. ``number``: 0 before it is on disk."""

    topic: Topic
    at_ms: int
    data: Mapping[str, Any]
    number: int = 0
    after_cursor: int = 0

    def happening(self) -> Happening:
        return Happening(type=self.topic.value, at_ms=self.at_ms, key=f"notice {self.number}", data=self.data)


# --- where a hook is ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """All rows up to ``cursor`` are done, and of the row after it the happenings up to ``part``; all notices up to
    ``notice``."""

    cursor: int
    part: int = 0
    notice: int = 0

    def after_part(self, cursor: int, part: int) -> Position:
        """That of this row those up to ``part`` are done."""
        return replace(self, cursor=cursor - 1, part=part)

    def after_rows(self, cursor: int) -> Position:
        """That all rows up to this one are done."""
        return replace(self, cursor=cursor, part=0) if cursor > self.cursor else self

    def after_notice(self, number: int) -> Position:
        return replace(self, notice=number)


@dataclass(frozen=True, slots=True, kw_only=True)
class HookState:
    """What is on disk of a hook."""

    name: str
    position: Position
    delivered_at_ms: int | None = None
    """The latest that was. None: none yet."""
    failing_since_ms: int | None = None
    """When the one at the position was first tried in vain. None: it was not."""
    attempt_count: int = 0
    """So often since."""
    next_try_at_ms: int | None = None
    dead_at_ms: int | None = None
    """Since when nothing is tried any more, until somebody says so. None: it lives."""
    trouble: str = ""
    """Why the latest try was in vain: the end of a sentence."""

    def passed(self, position: Position) -> HookState:
        """What lies before ``position`` does not concern it."""
        return replace(self, position=position)

    def delivered(self, position: Position, now_ms: int) -> HookState:
        """What lies before ``position`` was acknowledged."""
        return HookState(name=self.name, position=position, delivered_at_ms=now_ms)

    def failed(self, trouble: str, now_ms: int, jitter: float, *, is_final: bool = False) -> HookState:
        """A try was in vain. ``jitter``: from 0.8 to 1.2. ``is_final``: another one would be, too."""
        # One that lies ahead is of a clock that was set back since.
        since_ms = now_ms if self.failing_since_ms is None else min(self.failing_since_ms, now_ms)
        delay_s = min(FIRST_DELAY_S * 2.0**self.attempt_count, MAX_DELAY_S) * jitter
        attempt_count = self.attempt_count + 1
        is_given_up = attempt_count >= DEAD_AFTER_TRIES and now_ms - since_ms >= DEAD_AFTER_S * 1000
        is_dead = is_final or is_given_up
        return replace(
            self,
            failing_since_ms=since_ms,
            attempt_count=attempt_count,
            next_try_at_ms=None if is_dead else now_ms + int(delay_s * 1000),
            dead_at_ms=now_ms if is_dead else None,
            trouble=trouble,
        )

    def replayed(self, position: Position) -> HookState:
        """Tried again at once, from there on."""
        return HookState(name=self.name, position=position, delivered_at_ms=self.delivered_at_ms)

    def wait_ms(self, now_ms: int) -> int:
        """Until the next try; 0: it is due. Not longer than a delay can be, if the clock was set back meanwhile."""
        if self.next_try_at_ms is None:
            return 0
        left_ms = self.next_try_at_ms - now_ms
        return 0 if left_ms > 2 * MAX_DELAY_S * 1000 else max(left_ms, 0)


def first_wanted(news: News, position: Position, topics: Collection[str]) -> tuple[Happening, Position] | None:
    """What a hook at ``position`` is to be told next of a row behind it, and where it is then. None: nothing of it."""
    done = position.part if news.cursor == position.cursor + 1 else 0
    for happening in happenings(news):
        if happening.part > done and happening.type in topics:
            return happening, position.after_part(news.cursor, happening.part)
    return None
