"""A receiver in memory, and a database whose orders a test moves on."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from holdpay.core import events as ev
from holdpay.core.hooks import Topic
from holdpay.core.items import Item, ItemKind
from holdpay.core.model import Order
from holdpay.core.states import End
from holdpay.core.step import Step
from holdpay.hooks.delivering import Delivering
from holdpay.hooks.sending import Message, Trouble
from holdpay.hooks.settings import Command, Hook
from holdpay.ports import Clock, Limits
from holdpay.store.hooks import SqliteHookStore
from holdpay.store.store import SqliteStore
from tests.databases import empty_database
from tests.unit.build import changed, order

NUMBER, CODE = "18826202473", "246810"
LIMITS = Limits(max_open_orders=1_000, max_pending_sat=10**9, max_spend_per_day_sat=10**9)
ALL = tuple(Topic)


@dataclass(slots=True)
class Sink:
    """Where messages end. ``troubles``: what becomes of the next ones, the last of them again and again."""

    got: list[Message] = field(default_factory=list)
    troubles: list[Trouble | None] = field(default_factory=lambda: [None])
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    is_closed: bool = False
    target: str = "sink"

    def __post_init__(self) -> None:
        self.may_answer.set()

    async def send(self, message: Message) -> Trouble | None:
        self.got.append(message)
        await self.may_answer.wait()
        return self.troubles.pop(0) if len(self.troubles) > 1 else self.troubles[0]

    async def close(self) -> None:
        self.is_closed = True

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(message.body) for message in self.got]

    @property
    def types(self) -> list[str]:
        return [message.type for message in self.got]


def hook(*topics: Topic, name: str = "shop", include_secrets: bool = False) -> Hook:
    target = Command(argv=("/bin/true",), timeout_s=1)
    return Hook(name=name, topics=topics or ALL, include_secrets=include_secrets, target=target)


class Shop:
    """A database with orders, whose steps are as the engine would write them."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.path = folder / "holdpay.db"
        self.path.write_bytes(empty_database())
        self.store = SqliteStore(self.path)
        self.hooks = SqliteHookStore(self.store)
        self.clock = clock
        self._count = 0

    def close(self) -> None:
        self.hooks.close()
        self.store.close()

    def delivering(self, sink: Sink, *topics: Topic, **changes: Any) -> Delivering:
        """As after a start."""
        wanted = hook(*topics, **changes)
        self.hooks.begin(wanted.name)
        return Delivering(wanted, sink, self.hooks, self.clock, Random(1))

    def make(self, **changes: Any) -> Order:
        self._count += 1
        number = self._count
        plain = order(id=f"order{number:05d}", key=f"key-{number}", **changes)
        return self.store.create(plain, LIMITS, self.clock.now_ms())

    def commit(self, before: Order, after: Order) -> Order:
        self.store.commit(before, ev.TimePassed(), Step(after, is_change=True), None, self.clock.now_ms())
        return after

    def bring(self, before: Order, *items: Item) -> Order:
        return self.commit(before, replace(before, items=(*before.items, *items)))

    def end(self, before: Order, end: End = End.REFUNDED, **changes: Any) -> Order:
        after = changed(before, closed_at_ms=self.clock.now_ms(), end=end, reason="the money is back", **changes)
        return self.commit(before, after)

    def item(self, kind: ItemKind, text: str, *, may_lack_zeros: bool = False) -> Item:
        return Item(kind=kind, text=text, seen_at_ms=self.clock.now_ms(), may_lack_zeros=may_lack_zeros)

    def sell(self) -> Order:
        """One whose number, then code come, and that ends with it: three rows with news, and one without."""
        made = self.make()
        numbered = self.bring(made, self.item(ItemKind.NUMBER, NUMBER))
        coded = self.bring(numbered, self.item(ItemKind.CODE, CODE, may_lack_zeros=True))
        return self.end(coded, End.FULFILLED)
