"""Who orders codes on a ``Market``: holdpay, of its own parts, and the habits that people have instead."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol
from unittest.mock import patch

import structlog

from holdpay.app import provider_settings
from holdpay.config.settings import LndSection, Settings
from holdpay.core.model import Order
from holdpay.engine import desk as desk_module
from holdpay.engine.account import Account
from holdpay.engine.desk import Desk
from holdpay.engine.engine import Engine
from holdpay.engine.wanted import Asked, CodeWanted
from holdpay.errors import ProviderUnavailable
from holdpay.ports import CountryInfo, Limits, ServiceInfo
from holdpay.rpc.feed import Feed
from holdpay.sms4sats.client import Sms4Sats
from holdpay.store.store import SqliteStore
from tests.bench.market import TOO_MANY, WEBSITE, Market
from tests.fakes import PAYEE, REFUSED_BY_PAYEE, FakeClock, FakeLnd

PATIENCE_S: Final = 180.0
"""A client cancels when no code came in this time after its number. It goes when the provider agrees."""
AGAIN_S: Final = 5.0
"""After a request that the daemon did not take."""
NO_LIMITS: Final = Limits(max_open_orders=10_000, max_pending_sat=100_000_000, max_spend_per_day_sat=1_000_000_000)
IN_MEMORY: Final = Path("/dev/shm")


@dataclass(slots=True)
class Seen:
    """When a client had what, in s of the loop. None: it never had it."""

    number_at_s: float | None = None
    code_at_s: float | None = None
    has_canceled: bool = False


class Contender(Protocol):
    """Orders one code after the other, or many at once."""

    async def order(self, name: str, service: str) -> Seen:
        """Ends when the client has the code, or knows that none comes, or has lost its patience."""
        ...


@dataclass(frozen=True, slots=True)
class Habit:
    """A loop as people write it: pay, sleep, ask every so often."""

    words: str
    first_s: float
    every_s: float

    def on(self, market: Market) -> Contender:
        return _Habitual(self, market)


HABITS: Final = (
    Habit("12 s sleep, then a poll every 5 s", 12.0, 5.0),
    Habit("a poll every 5 s", 5.0, 5.0),
    Habit("a poll every 2 s", 2.0, 2.0),
)


class _Habitual:
    def __init__(self, habit: Habit, market: Market) -> None:
        self._habit = habit
        self._market = market

    async def order(self, name: str, service: str) -> Seen:
        while (sold := await self._place(name)) is None:
            await asyncio.sleep(self._habit.every_s)
        self._market.hold(sold["orderId"])
        await asyncio.sleep(self._habit.first_s)
        seen = Seen()
        while not await self._poll(sold["orderId"], seen):
            await asyncio.sleep(self._habit.every_s)
            if seen.number_at_s is not None and _now_s() > seen.number_at_s + PATIENCE_S:
                await self._market.answer("GET", "/cancelorder", {"orderId": sold["orderId"]})
        return seen

    async def _place(self, name: str) -> dict[str, Any] | None:
        """None: it was refused."""
        status, sold = await self._market.answer("POST", "/createorder", {"ref": f"{name}@{WEBSITE}"})
        return None if status == TOO_MANY else sold

    async def _poll(self, order_id: str, seen: Seen) -> bool:
        """Whether that was the last."""
        status, reply = await self._market.answer("GET", "/orderstatus", {"orderId": order_id})
        if status == TOO_MANY:
            return False
        if "number" in reply and seen.number_at_s is None:
            seen.number_at_s = _now_s()
        if "code" in reply:
            seen.code_at_s = _now_s()
        return seen.code_at_s is not None or "error" in reply


def _now_s() -> float:
    return asyncio.get_running_loop().time()


class _OneCountry:
    """``ports.Catalog`` of one country with the services that the provider lists."""

    def countries(self) -> Sequence[CountryInfo]:
        return (CountryInfo(187, "United States", ()),)

    def resolve_country(self, text: str) -> CountryInfo:
        return self.countries()[0]

    def resolve_service(self, text: str, services: Sequence[ServiceInfo]) -> ServiceInfo:
        return next(service for service in services if service.code == text)


class Holdpay:
    """The real engine, scheduler, adapter and store; lnd is the fake, HTTP is the market. See ``running``."""

    def __init__(self, engine: Engine, desk: Desk, feed: Feed) -> None:
        self.engine = engine
        self._desk = desk
        self._feed = feed

    async def order(self, name: str, service: str) -> Seen:
        wanted = CodeWanted(countries=("usa",), service=service, ref=f"{name}@{WEBSITE}")
        while (order := await self._submit(Asked(key=name), wanted)) is None:
            await asyncio.sleep(AGAIN_S)
        seen = Seen()
        with self.engine.watching(order.id):
            while True:
                commit = self._feed.next_commit(order.id)
                order = self.engine.order(order.id) or self.engine.store.get(order.id)
                if order.number is not None and seen.number_at_s is None:
                    seen.number_at_s = _now_s()
                if order.code is not None:
                    seen.code_at_s = _now_s()
                if order.code is not None or order.is_closed:
                    return seen
                await self._wait(order.id, seen, commit)

    async def _submit(self, asked: Asked, wanted: CodeWanted) -> Order | None:
        """None: the provider cannot say now what it costs."""
        try:
            return await self._desk.submit(asked, wanted)
        except ProviderUnavailable:
            return None

    async def _wait(self, order_id: str, seen: Seen, commit: asyncio.Event) -> None:
        """For news; cancels when patience is over."""
        is_patient = seen.number_at_s is None or seen.has_canceled
        timeout_s = None if is_patient else (seen.number_at_s or 0) + PATIENCE_S - _now_s()
        try:
            async with asyncio.timeout(timeout_s):
                await commit.wait()
        except TimeoutError:
            seen.has_canceled = True
            await self.engine.cancel(order_id)


@contextlib.asynccontextmanager
async def holdpay(market: Market, seed: int) -> AsyncIterator[Holdpay]:
    """On the defaults of the configuration, but for the limits."""
    clock, rng, settings = FakeClock(), Random(seed), Settings.model_construct(lnd=LndSection.model_construct())
    lnd = FakeLnd(clock)
    lnd.invoices, lnd.on_arrival = market.invoices, market.hold
    market.settled = lambda sale: lnd.settle(sale.payment_hash, sale.preimage)
    market.failed = lambda sale: lnd.say(sale.payment_hash, REFUSED_BY_PAYEE)
    with _folder() as folder, _quiet(rng):
        store = SqliteStore(folder / "holdpay.db")
        feed = Feed()
        store.on_commit = feed.committed
        provider = Sms4Sats(provider_settings(settings), clock, rng)
        await provider._http.aclose()
        provider._http = market
        policy = replace(settings.policy(), payee_pubkeys=frozenset({PAYEE}))
        engine = Engine(store=store, node=lnd, provider=provider, policy=policy, limits=NO_LIMITS, clock=clock, rng=rng)
        engine.take_over()
        running = asyncio.create_task(engine.run(), name="engine")
        try:
            yield Holdpay(engine, Desk(engine, _OneCountry(), Account(provider, warn_below_sat=None)), feed)
            if running.done():
                running.result()
        finally:
            running.cancel()
            await asyncio.wait({running})
            await provider.aclose()
            store.close()


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """In memory if possible: virtual time has no disk."""
    with tempfile.TemporaryDirectory(prefix="holdpay-bench-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as name:
        yield Path(name)


@contextlib.contextmanager
def _quiet(rng: Random) -> Iterator[None]:
    """No log, and order ids from the seed."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        with patch.object(desk_module, "secrets", rng):
            yield
    finally:
        structlog.configure(**before)
