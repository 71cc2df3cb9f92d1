"""The engine's world in memory, on virtual time: a clock, an lnd and a provider that hang together and lag each other.

Use it on ``tests.virtual_loop.VirtualLoop``. What a test does not script goes well: a send arrives, the provider holds
the HTLC, a number and a code come, the hold invoice is settled.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace

from holdpay.core.events import ProviderStatus
from holdpay.core.kinds.spec import Placing
from holdpay.core.lightning import (
    Attempt,
    AttemptStatus,
    DispatchSpec,
    FailureReason,
    HtlcLook,
    Invoice,
    LndMessage,
    Lost,
    NodeIdentity,
    NotKnown,
    OfferedHtlc,
    OpenChannel,
    PaymentStatus,
    PaymentUpdate,
    Refused,
    Reported,
    short_channel_id,
)
from holdpay.core.routes import RouteLook, RouteQuery
from holdpay.errors import LndUnavailable, LndWrongNode, ProviderRefused, ProviderUnavailable
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
from tests.virtual_loop import VirtualLoop

START_MS = 1_800_000_000_000
PAYEE = "02" + "cc" * 32
ALICE = NodeIdentity("03" + "aa" * 32, "simnet")
MALLORY = NodeIdentity("03" + "bb" * 32, "simnet")
PEER = "02" + "b0" * 32
CHANNEL = 812_000 << 40 | 1 << 16 | 1
LATENCY_S = 0.02
BACK_LOOK_S = 0.5
"""Of every call, there and back together. Without it a loop that never waits would look like one that does."""


class FakeClock:
    """Wall-clock time that goes with the running ``VirtualLoop``, and can be set."""

    def __init__(self) -> None:
        self.offset_ms = START_MS
        self.set_by_ms = 0
        """How far the wall clock was set forward while the daemon ran."""

    def wall_ahead_ms(self) -> int:
        return self.set_by_ms

    def now_ms(self) -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        return self.offset_ms + loop.now_ms

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0.0))


# --- lnd ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """What becomes of one SendPaymentV2. ``arrives_after_s`` None: it never arrives."""

    arrives_after_s: float | None = 0.0
    is_lost: bool = False
    """The stream breaks at once, whether it arrives or not."""
    refusal: str | None = None
    is_silent: bool = False
    """The stream stays open and says nothing."""
    fails: PaymentUpdate | None = None
    """It arrives and ends like this, instead of reaching the payee."""


def failing(reason: FailureReason, *attempts: Attempt) -> PaymentUpdate:
    """LND's terminal failure; its payment index is filled in by the fake."""
    return PaymentUpdate(PaymentStatus.FAILED, reason, attempts, fee_msat=0, preimage=None, payment_index=0)


def attempt(status: AttemptStatus, **changes: int) -> Attempt:
    """A two-hop HTLC attempt."""
    plain = Attempt(
        attempt_id=1,
        status=status,
        amount_msat=2_000_000,
        fee_msat=1_002,
        expiry_height=800_163,
        hop_count=2,
        attempted_at_ms=START_MS,
        first_hop=PEER,
        first_channel=short_channel_id(CHANNEL),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


NO_ROUTE = failing(FailureReason.NO_ROUTE)
HOP_DOWN = failing(FailureReason.NO_ROUTE, attempt(AttemptStatus.FAILED, failure_code=18, failure_source_index=1))
REFUSED_BY_PAYEE = failing(
    FailureReason.INCORRECT_PAYMENT_DETAILS, attempt(AttemptStatus.FAILED, failure_code=1, failure_source_index=2)
)


class FakeLnd:
    """``ports.LightningNode``: keeps one record for each payment hash, as LND does, and tells every open stream."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.node: NodeIdentity | None = ALICE
        self.is_down = False
        self.invoices: dict[str, Invoice] = {}
        self.next_sends: deque[Send] = deque()
        self.next_tracks: deque[tuple[LndMessage, ...]] = deque()
        """Overrule the records, one Track each. An empty tuple: the stream ends without a word."""
        self.records: dict[str, PaymentUpdate] = {}
        self.sends: list[tuple[int, DispatchSpec]] = []
        self.tracks: list[tuple[int, str]] = []
        self.looks: list[tuple[int, str]] = []
        self.look_error: Exception | None = None
        self.block_height = 800_000
        self.carried: set[str] = set()
        """Payment hashes that a channel carries."""
        self.is_maybe_closing = False
        """A channel is being closed that may carry any of them."""
        self.channels_looks_ms: list[int] = []
        self.is_peer_online = True
        self.channel_ids = [CHANNEL]
        """A payment leaves by the first of them that it may use."""
        self.hidden: set[str] = set()
        """Payment hashes that no channel carries, though they are in flight."""
        self.answered_at_ms: int | None = None
        self.decode_count = 0
        self.route_look = RouteLook(is_route_known=False)
        """What it knows of a way to anybody."""
        self.route_look_s = LATENCY_S
        """How long it takes to say so."""
        self.route_queries: list[RouteQuery] = []
        self.on_arrival: Callable[[str], None] = lambda payment_hash: None
        self.on_look: Callable[[], None] = lambda: None
        """Called whenever somebody looks at ``identity``."""
        self._index = 40
        self._streams: dict[str, set[asyncio.Queue[LndMessage]]] = {}

    # --- the port

    @property
    def status(self) -> NodeStatus:
        state = NodeState.UNREACHABLE if self.is_down else NodeState.READY
        height = self.block_height
        return NodeStatus(
            state=state,
            detail="lnd is unreachable." if self.is_down else "",
            identity=self.node,
            alias="alice",
            version="0.21.0",
            block_height=height,
            answered_at_ms=self.answered_at_ms,
        )

    @property
    def identity(self) -> NodeIdentity | None:
        self.on_look()
        return None if self.is_down else self.node

    async def decode(self, payreq: str) -> tuple[Invoice, NodeIdentity]:
        self.decode_count += 1
        await asyncio.sleep(LATENCY_S)
        if self.is_down or self.node is None:
            raise LndUnavailable
        return self.invoices[payreq], self.node

    async def send(self, spec: DispatchSpec, payer: NodeIdentity) -> AsyncGenerator[LndMessage, None]:
        if self.is_down or self.node is None:
            yield Lost("connection refused")
            return
        if payer != self.node:
            raise LndWrongNode
        self.sends.append((self._clock.now_ms(), spec))
        way = self.next_sends.popleft() if self.next_sends else Send()
        heard: asyncio.Queue[LndMessage] = asyncio.Queue()
        if way.arrives_after_s is not None:
            listening = None if way.is_lost or way.is_silent else heard
            asyncio.get_running_loop().call_later(
                LATENCY_S / 2 + way.arrives_after_s, self._arrive, spec, way, listening
            )
        await asyncio.sleep(LATENCY_S / 2)
        if way.is_lost:
            yield Lost("stream removed")
            return
        if way.refusal is not None:
            yield Refused(way.refusal)
            return
        async for message in self._listen(spec.payment_hash, heard):
            yield message

    async def track(self, payment_hash: str, payer: NodeIdentity) -> AsyncGenerator[LndMessage, None]:
        self.tracks.append((self._clock.now_ms(), payment_hash))
        await asyncio.sleep(LATENCY_S)
        if self.is_down or payer != self.node:
            yield Lost("connection refused")
            return
        if self.next_tracks:
            for message in self.next_tracks.popleft():
                yield message
            return
        record = self.records.get(payment_hash)
        if record is None:
            yield NotKnown()
            return
        heard: asyncio.Queue[LndMessage] = asyncio.Queue()
        heard.put_nowait(Reported(record, live=False))
        async for message in self._listen(payment_hash, heard):
            yield message

    async def until_back(self, payer: NodeIdentity) -> None:
        while self.is_down or self.node != payer:
            await asyncio.sleep(BACK_LOOK_S)

    async def look_for_htlc(self, payment_hash: str, payer: NodeIdentity) -> HtlcLook:
        self.looks.append((self._clock.now_ms(), payment_hash))
        await asyncio.sleep(LATENCY_S)
        if self.is_down or payer != self.node:
            raise LndUnavailable
        if self.look_error is not None:
            raise self.look_error
        return HtlcLook(self.block_height, True, payment_hash in self.carried, self.is_maybe_closing)

    async def look_for_route(self, query: RouteQuery, payer: NodeIdentity) -> RouteLook:
        self.route_queries.append(query)
        await asyncio.sleep(self.route_look_s)
        return RouteLook(is_route_known=False) if self.is_down or payer != self.node else self.route_look

    async def channels(self, payer: NodeIdentity) -> tuple[OpenChannel, ...]:
        """Each with the HTLCs that left by it, of all payments in flight."""
        self.channels_looks_ms.append(self._clock.now_ms())
        await asyncio.sleep(LATENCY_S)
        if self.is_down or payer != self.node:
            raise LndUnavailable
        if self.look_error is not None:
            raise self.look_error
        offered = [
            (one.first_channel, OfferedHtlc(payment_hash, one.expiry_height))
            for payment_hash, record in self.records.items()
            for one in record.attempts
            if record.status is PaymentStatus.IN_FLIGHT
            and one.status is AttemptStatus.IN_FLIGHT
            and payment_hash not in self.hidden
        ]
        return tuple(
            OpenChannel(
                chan_id,
                self.is_peer_online,
                tuple(htlc for channel, htlc in offered if channel == short_channel_id(chan_id)),
                PEER,
                "bob",
            )
            for chan_id in self.channel_ids
        )

    async def _listen(self, payment_hash: str, heard: asyncio.Queue[LndMessage]) -> AsyncGenerator[LndMessage, None]:
        streams = self._streams.setdefault(payment_hash, set())
        streams.add(heard)
        try:
            while True:
                message = await heard.get()
                yield message
                if not isinstance(message, Reported) or message.update.is_terminal:
                    return
        finally:
            streams.discard(heard)

    # --- what a test does to it

    def say(self, payment_hash: str, update: PaymentUpdate, *, to_streams: bool = True) -> None:
        """The payment is like this from now on; every open stream is told, unless they hang."""
        update = replace(update, payment_index=self._index)
        self.records[payment_hash] = update
        if to_streams:
            for heard in self._streams.get(payment_hash, set()):
                heard.put_nowait(Reported(update, live=True))

    def break_streams(self) -> None:
        """Every payment stream ends without a terminal message."""
        for streams in self._streams.values():
            for heard in streams:
                heard.put_nowait(Lost("stream removed"))

    def settle(self, payment_hash: str, preimage: str, *, to_streams: bool = True) -> None:
        """The payee takes the held HTLC."""
        done = attempt(AttemptStatus.SUCCEEDED)
        settled = PaymentUpdate(
            PaymentStatus.SUCCEEDED, FailureReason.NONE, (done,), done.fee_msat, preimage, payment_index=0
        )
        self.say(payment_hash, settled, to_streams=to_streams)

    def _arrive(self, spec: DispatchSpec, way: Send, heard: asyncio.Queue[LndMessage] | None) -> None:
        payment_hash = spec.payment_hash
        known = self.records.get(payment_hash)
        if known is not None and known.status is not PaymentStatus.FAILED:
            if heard is not None:
                is_paid = known.status is PaymentStatus.SUCCEEDED
                text = "invoice is already paid" if is_paid else "payment is in transition"
                heard.put_nowait(Refused(text, has_hash=True))
            return
        self._index += 1
        first = PaymentUpdate(PaymentStatus.IN_FLIGHT, FailureReason.NONE, (), 0, None, payment_index=0)
        if heard is not None:
            self._streams.setdefault(payment_hash, set()).add(heard)
        self.say(payment_hash, first)
        if way.fails is not None:
            self.say(payment_hash, way.fails)
            return
        usable = [one for one in self.channel_ids if not spec.outgoing_chan_ids or one in spec.outgoing_chan_ids]
        out = replace(attempt(AttemptStatus.IN_FLIGHT), first_channel=short_channel_id(usable[0]))
        self.say(payment_hash, replace(first, attempts=(out,)))
        self.on_arrival(payment_hash)


# --- the provider ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What the provider does with an order, in seconds after the HTLC reached it. None: never."""

    paid_after_s: float = 0.4
    number_after_s: float | None = 12.0
    code_after_s: float | None = 40.0
    over_after_s: float | None = None
    """No number, or no code: the hold invoice is canceled."""
    resolve_lag_s: float = 0.5
    """From its word to the settling or canceling of the hold invoice."""
    refuses_cancel: bool = False


@dataclass(slots=True)
class ProviderOrder:
    """An order as the provider knows it."""

    payment_hash: str
    preimage: str
    story: Story
    status: ProviderStatus = field(default_factory=lambda: ProviderStatus(is_paid=False))
    is_held: bool = False

    @property
    def is_over(self) -> bool:
        return self.status.error is not None or self.status.code is not None


NO_NUMBER = "No available number, payment request is canceled."


class FreeSlot:
    """A slot at a provider without a budget."""

    def done(self) -> None:
        pass

    def give_back(self) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class FakeProvider:
    """``ports.CodeProvider``, with the node that holds the invoices."""

    def __init__(self, clock: FakeClock, lnd: FakeLnd, story: Story | None = None) -> None:
        self._clock = clock
        self._lnd = lnd
        self.story = story or Story()
        lnd.on_arrival = self._hold
        self.orders: dict[str, ProviderOrder] = {}
        self.place_count = 0
        self.next_place_errors: deque[Exception] = deque()
        self.status_error: Exception | None = None
        self.polls: list[int] = []
        self.cancels: list[int] = []
        self.stock: int | None = 5
        self.price: Prices | Exception = Prices(receive_sat=3_000, exact_sat=2_000, asked_at_ms=START_MS)
        self.balance_sat: int | Exception = 10_000
        self.rental_offers = [
            RentalOffer(country_code=code, country="?", weeks=weeks, price_sat=price_sat)
            for code, weeks, price_sat in ((0, 4, 9_000), (0, 1, 3_000), (16, 2, 4_000))
        ]
        self.placings: list[Placing] = []
        self.expiry_s = 86_400
        self.amount_msat = 2_000_000
        self.payee = PAYEE

    # --- the port

    @property
    def health(self) -> ProviderHealth:
        last_error = "" if self.status_error is None else str(self.status_error)
        return ProviderHealth(
            url="fake", answered_at_ms=None, last_error=last_error, request_count=len(self.polls), requests_per_s=0
        )

    async def place(self, placing: Placing) -> Reply[Placed]:
        self.place_count += 1
        preimage, payreq = f"{self.place_count:064x}", f"lnsb20u1fake{self.place_count}"
        self.placings.append(placing)
        await asyncio.sleep(LATENCY_S)
        if self.next_place_errors:
            raise self.next_place_errors.popleft()
        payment_hash = hashlib.sha256(bytes.fromhex(preimage)).hexdigest()
        self.orders[payment_hash] = ProviderOrder(payment_hash, preimage, self.story)
        if placing.is_prepaid:
            assert isinstance(self.balance_sat, int)
            self.balance_sat -= 2_000
            self._begin(self.orders[payment_hash])
            return Reply(Placed(payment_hash, None), raw='{"status":"OK"}')
        self._lnd.invoices[payreq] = Invoice(
            payment_hash=payment_hash,
            payee=self.payee,
            amount_msat=self.amount_msat,
            created_at_ms=self._clock.now_ms(),
            expiry_s=self.expiry_s,
            final_cltv_delta=40,
            has_payment_address=True,
            memo="sms4sats payment",
        )
        return Reply(Placed(payment_hash, payreq), raw='{"status":"OK"}')

    async def slot(self, lane: Lane) -> FreeSlot:
        return FreeSlot()

    async def order_status(self, provider_order_id: str) -> Reply[ProviderStatus]:
        self.polls.append(self._clock.now_ms())
        status = self.orders[provider_order_id].status
        await asyncio.sleep(LATENCY_S)
        if self.status_error is not None:
            raise self.status_error
        return Reply(status, raw='{"status":"OK"}')

    async def cancel(self, provider_order_id: str) -> Reply[None]:
        self.cancels.append(self._clock.now_ms())
        await asyncio.sleep(LATENCY_S)
        order = self.orders[provider_order_id]
        if order.is_over or order.story.refuses_cancel:
            raise ProviderRefused('sms4sats says "too late"')
        self._end(order, "canceled by the client")
        return Reply(None, raw='{"status":"OK"}')

    async def countries(self) -> Sequence[ListedCountry]:
        await asyncio.sleep(LATENCY_S)
        return [ListedCountry(code=0, name="Russia", is_shown=True, has_rentals=None)]

    async def balance(self) -> Balance:
        await asyncio.sleep(LATENCY_S)
        if isinstance(self.balance_sat, Exception):
            raise self.balance_sat
        return Balance(self.balance_sat, self._clock.now_ms())

    async def funding(self) -> Funding:
        return Funding(None, ())

    async def services(self, country_code: int) -> Sequence[ServiceInfo]:
        await asyncio.sleep(LATENCY_S)
        return [ServiceInfo("oi", "OpenAI", self.stock)]

    async def rentals(self, service: str | None = None) -> Sequence[RentalOffer]:
        await asyncio.sleep(LATENCY_S)
        return self.rental_offers

    async def prices(self, country_code: int | None = None, service: str | None = None) -> Prices:
        await asyncio.sleep(LATENCY_S)
        if isinstance(self.price, Exception):
            raise self.price
        return self.price

    # --- its own life

    def go_down(self) -> None:
        self.status_error = ProviderUnavailable("sms4sats has a problem of its own (HTTP 503). Try again later.")

    def come_back(self) -> None:
        self.status_error = None

    def _hold(self, payment_hash: str) -> None:
        order = self.orders[payment_hash]
        if order.is_over:
            self._lnd.say(payment_hash, REFUSED_BY_PAYEE)
            return
        order.is_held = True
        self._begin(order)

    def _begin(self, order: ProviderOrder) -> None:
        story = order.story
        self._later(story.paid_after_s, lambda: self._says(order, replace(order.status, is_paid=True)))
        self._later(story.number_after_s, lambda: self._says(order, replace(order.status, number="15551234567")))
        self._later(story.over_after_s, lambda: self._end(order, NO_NUMBER))
        self._later(story.code_after_s, lambda: self._deliver(order))

    def _later(self, seconds: float | None, act: Callable[[], None]) -> None:
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, act)

    def _says(self, order: ProviderOrder, status: ProviderStatus) -> None:
        if not order.is_over:
            order.status = status

    def _deliver(self, order: ProviderOrder) -> None:
        if not order.is_over:
            order.status = replace(order.status, is_paid=True, code="012345")
            self._later(order.story.resolve_lag_s, lambda: self._lnd.settle(order.payment_hash, order.preimage))

    def _end(self, order: ProviderOrder, text: str) -> None:
        if order.is_over:
            return
        order.status = replace(order.status, error=text)
        if order.is_held:
            self._later(order.story.resolve_lag_s, lambda: self._lnd.say(order.payment_hash, REFUSED_BY_PAYEE))
