"""The engine's ports on the simulated parties: what an adapter does, with everything that can go wrong at its edge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn, TypeVar

from holdpay.core.events import ProviderStatus
from holdpay.core.kinds.spec import Placing
from holdpay.core.lightning import (
    DispatchSpec,
    HtlcLook,
    Invoice,
    LndMessage,
    Lost,
    NodeIdentity,
    OpenChannel,
    Reported,
)
from holdpay.core.routes import Route, RouteLook, RouteQuery
from holdpay.errors import (
    LndUnavailable,
    LndWrongNode,
    ProviderProtocolError,
    ProviderRefused,
    ProviderUnavailable,
)
from holdpay.ports import (
    Balance,
    Funding,
    Lane,
    ListedCountry,
    NodeState,
    NodeStatus,
    Placed,
    Prices,
    ProviderHealth,
    RentalOffer,
    Reply,
    ServiceInfo,
)
from tests.fakes import FreeSlot
from tests.simulation.auditor import Violation
from tests.simulation.parties import LATE_SEND_MS
from tests.simulation.provider import PRICES_SAT, Sale, Spend
from tests.simulation.story import short

if TYPE_CHECKING:
    from tests.simulation.process import Process

DEFECT = "a defect of the adapter"
"""What an adapter is made to die of. A task that dies of anything else has found a defect of the daemon's own."""
PRICES = Prices(receive_sat=PRICES_SAT["code"], send_sat=PRICES_SAT["sms"], asked_at_ms=0)
COUNTRY_CODE = 187
PROVIDER_TIMEOUT_S = 15
STALE_S = 20
LATENCY_MS = 150
T = TypeVar("T")


class NodePort:
    """``ports.LightningNode`` over the lnd that is at the address."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world

    @property
    def status(self) -> NodeStatus:
        if self.identity is None:
            return NodeStatus(state=NodeState.LOCKED, detail="Unlock it.")
        height = self._world.lnd_there.height
        return NodeStatus(state=NodeState.READY, identity=self.identity, block_height=height)

    @property
    def identity(self) -> NodeIdentity | None:
        return None if self._world.lnd_there.is_down else self._world.address

    async def decode(self, payreq: str) -> tuple[Invoice, NodeIdentity]:
        self._process.may_die("before lnd decodes")
        identity = self.identity
        await self._world.lag(10)
        self._process.enter()
        self._break("decode")
        if identity is None or identity != self.identity:
            raise LndUnavailable
        return self._world.lnd.truths[payreq].invoice, identity

    async def send(self, spec: DispatchSpec, payer: NodeIdentity) -> AsyncGenerator[LndMessage, None]:
        self._process.ask("lnd", spec.payment_hash)
        self._process.may_die("right before SendPaymentV2")
        if self.identity is None:
            yield Lost("lnd is locked")
            return
        if self.identity != payer:
            raise LndWrongNode
        with self._stream(spec.payment_hash):
            self._world.tell(f"→ lnd: send {short(spec.payment_hash)}")
            with self._world.judged():
                self._world.auditor.sent(spec.payment_hash)
            said: asyncio.Queue[LndMessage] = asyncio.Queue()
            self._world.lnd_there.send(spec, said.put_nowait)
            self._process.may_die("right after SendPaymentV2")
            while True:
                message = await self._hear(said)
                yield message
                if _is_last(message):
                    return

    async def track(self, payment_hash: str, payer: NodeIdentity) -> AsyncGenerator[LndMessage, None]:
        self._process.ask("lnd", payment_hash)
        self._process.may_die("before TrackPaymentV2")
        await self._world.lag(10)
        self._process.enter()
        if self.identity != payer:
            yield Lost("lnd is locked" if self.identity is None else "another node is at the address")
            return
        with self._stream(payment_hash):
            self._world.tell(f"→ lnd: track {short(payment_hash)}")
            said: asyncio.Queue[LndMessage] = asyncio.Queue()
            self._world.lnd_there.track(payment_hash, said.put_nowait)
            while True:
                message = await self._hear(said)
                yield message
                if _is_last(message):
                    return

    async def until_back(self, payer: NodeIdentity) -> None:
        while self.identity != payer:
            await self._world.lag(1_000)
            self._process.enter()

    async def look_for_htlc(self, payment_hash: str, payer: NodeIdentity) -> HtlcLook:
        self._process.ask("lnd", payment_hash)
        self._process.may_die("before lnd's channels are looked at")
        await self._world.lag(50)
        self._process.enter()
        self._break("look")
        if self.identity != payer:
            raise LndUnavailable
        look = self._world.lnd_there.look(payment_hash)
        self._world.tell(f"← lnd: {short(payment_hash)} at block {look.block_height}: carried {look.is_carried}")
        return look

    async def look_for_route(self, query: RouteQuery, payer: NodeIdentity) -> RouteLook:
        self._process.may_die("before lnd is asked for a route")
        await self._world.lag(50)
        self._process.enter()
        self._break("route")
        if self.identity != payer:
            return RouteLook(is_route_known=False, unknown=("lnd is away",))
        is_found = self._world.rng.random() < 0.5
        route = Route(fee_msat=37_000, lock_blocks=163, hops=(query.payee,), first_channel="1x1x0")
        if not query.avoids_failed:
            # Before an order: mostly there is a way, or nothing is known.
            is_there = self._world.faults.is_calm or self._world.rng.random() < 0.8
            return RouteLook(is_route_known=is_found, route=replace(route, fee_msat=1_000) if is_there else None)
        return RouteLook(is_route_known=True, dearer=route if is_found else None)

    async def channels(self, payer: NodeIdentity) -> tuple[OpenChannel, ...]:
        self._process.ask("lnd", "channels")
        self._process.may_die("before lnd's channels are listed")
        await self._world.lag(50)
        self._process.enter()
        self._break("channels")
        if self.identity != payer:
            raise LndUnavailable
        return self._world.lnd_there.channels()

    @contextmanager
    def _stream(self, payment_hash: str) -> Iterator[None]:
        """A payment is followed by one task, on one stream."""
        streams = self._process.streams
        with self._world.judged():
            if payment_hash in streams:
                raise Violation(f"two payment streams at once for {payment_hash[:8]}…")
        streams.add(payment_hash)
        try:
            yield
        finally:
            streams.discard(payment_hash)

    async def _hear(self, said: asyncio.Queue[LndMessage]) -> LndMessage:
        message = await said.get()
        await self._world.lag(20)
        self._process.may_die("before it reads what lnd said")
        self._break("stream")
        if self._world.is_traced:
            self._world.tell(f"← lnd: {short(message)}")
        return message

    def _break(self, what: str) -> None:
        if self._world.hits("stray_cancel"):
            self._world.tell(f"lnd's {what} raises CancelledError, and nobody canceled it")
            raise asyncio.CancelledError
        if self._world.hits("defect"):
            self._world.tell(f"lnd's {what} raises what it never should")
            raise RuntimeError(DEFECT)


def _is_last(message: LndMessage) -> bool:
    return not isinstance(message, Reported) or message.update.is_terminal


def _owner() -> str:
    """Whose duty it is that asks."""
    task = asyncio.current_task()
    assert task is not None
    return task.get_name().split()[1]


class ProviderPort:
    """``ports.Provider``: requests that are slow, fail, are carried out without an answer, or answered late."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world

    @property
    def health(self) -> ProviderHealth:
        return ProviderHealth(url="simulated", answered_at_ms=None, last_error="", request_count=0, requests_per_s=20)

    async def place(self, placing: Placing) -> Reply[Placed]:
        if placing.is_prepaid:
            return await self._place_prepaid(placing)
        with self._world.judged():
            self._world.auditor.placing_for_a_hold(self._world.on_disk[_owner()])
        sale = await self._request("place", lambda: self._world.provider.place(placing))
        if sale is None:
            raise ProviderRefused("no", raw="no")
        return Reply(Placed(sale.id, sale.id), sale.id)

    async def _place_prepaid(self, placing: Placing) -> Reply[Placed]:
        world, process = self._world, self._process
        process.may_die("before it orders from the account")
        await world.lag(LATENCY_MS)
        process.enter()
        owner = _owner()
        with world.judged():
            world.auditor.placing(world.on_disk[owner])
        world.tell(f"→ provider: place {owner} from the account")
        sale = await self._taken(placing, world.provider.announce(placing, owner))
        await self._travel()
        process.may_die("before it reads the provider's answer (place)")
        if world.hits("defect"):
            raise RuntimeError(DEFECT)
        if world.hits("garbage"):
            raise ProviderProtocolError("the provider's answer makes no sense", raw="<html>")
        if sale is None:
            raise ProviderRefused("balance too low", raw="no")
        return Reply(Placed(sale.id, None), sale.id)

    async def _taken(self, placing: Placing, spend: Spend) -> Sale | None:
        """What becomes of it at the provider, and whether anybody hears of that."""
        world, provider = self._world, self._world.provider
        if world.is_provider_down or world.hits("provider_error"):
            spend.state = "refused"
            is_turned_away = world.rng.random() < 0.5
            raise ProviderUnavailable("no", world.rng.choice((5, 60)), "oops", is_turned_away=is_turned_away)
        if world.hits("never_placed"):
            spend.state = "lost"
            await self._time_out()
        if world.hits("late_placing"):
            world.heap.after(world.rng.randrange(LATE_SEND_MS), lambda: provider.place_prepaid(placing, spend))
            await self._time_out()
        sale = provider.place_prepaid(placing, spend)
        self._process.may_die("before the provider's answer (place)")
        if world.hits("error_after"):
            raise ProviderUnavailable("HTTP 503", world.rng.choice((None, 5, 60)), "oops")
        if world.hits("lost_reply"):
            await self._time_out()
        return sale

    async def _time_out(self) -> NoReturn:
        await asyncio.sleep(PROVIDER_TIMEOUT_S)
        raise ProviderUnavailable("sms4sats did not answer in time")

    async def balance(self) -> Balance:
        return await self._request("balance", lambda: Balance(self._world.provider.balance_sat, 0))

    async def funding(self) -> Funding:
        raise NotImplementedError("no order needs it")

    async def slot(self, lane: Lane) -> FreeSlot:
        return FreeSlot()

    async def order_status(self, provider_order_id: str) -> Reply[ProviderStatus]:
        self._process.ask("the provider", provider_order_id)
        if self._world.hits("queued"):
            await asyncio.sleep(self._world.rng.randrange(60))
        what = f"status {short(provider_order_id)}"
        status = await self._request(what, lambda: self._world.provider.status(provider_order_id))
        return Reply(status, str(status))

    async def cancel(self, provider_order_id: str) -> Reply[None]:
        what = f"cancel {short(provider_order_id)}"
        if not await self._request(what, lambda: self._world.provider.cancel(provider_order_id)):
            raise ProviderRefused("too early")
        return Reply(None, "OK")

    async def countries(self) -> Sequence[ListedCountry]:
        row = ListedCountry(code=187, name="United States", is_shown=True, has_rentals=True)
        return await self._request("countries", lambda: (row,))

    async def services(self, country_code: int) -> Sequence[ServiceInfo]:
        return await self._request("services", lambda: ())

    async def rentals(self, service: str | None = None) -> Sequence[RentalOffer]:
        offer = RentalOffer(COUNTRY_CODE, "United States", 1, PRICES_SAT["rental"])
        return await self._request("rentals", lambda: (offer,))

    async def prices(self, country_code: int | None = None, service: str | None = None) -> Prices:
        return await self._request("prices", lambda: PRICES)

    async def _request(self, what: str, answering: Callable[[], T]) -> T:
        world, process = self._world, self._process
        process.may_die(f"before it asks the provider ({what})")
        await world.lag(LATENCY_MS)
        process.enter()
        if world.hits("defect"):
            raise RuntimeError(DEFECT)
        if world.is_provider_down or world.hits("provider_error"):
            raise ProviderUnavailable("HTTP 503", retry_after_s=world.rng.choice((None, None, 5, 60)), raw="oops")
        answer = answering()
        process.may_die(f"before the provider's answer ({what})")
        if world.hits("lost_reply"):
            world.tell(f"→ provider: {what}; it is done, and the answer is lost")
            await self._time_out()
        await self._travel()
        process.may_die(f"before it reads the provider's answer ({what})")
        if world.hits("garbage"):
            raise ProviderProtocolError("the provider's answer makes no sense", raw="<html>")
        if world.is_traced:
            world.tell(f"← provider: {what}: {short(answer)}")
        return answer

    async def _travel(self) -> None:
        if self._world.hits("stale_reply"):
            await asyncio.sleep(STALE_S)
        else:
            await self._world.lag(LATENCY_MS)
