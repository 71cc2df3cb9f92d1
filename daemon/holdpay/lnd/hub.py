"""One stream for all payments. It tells each order of its own, and looks a payment up where the stream may not know.

What LND promises (lnd: routing/control_tower.go SubscribeAllPayments, the same in 0.18.5 and 0.21): TrackPayments tells
first each payment that is not over, then every change, from a queue without end, so that none is dropped. It says
nothing of a payment that ended before, nor when it has begun: only its first message proves that it has. So

- a follower is *sure* of the stream when that has spoken of its payment, or when LND was asked about the payment after
  the stream's first message; until then it is looked up again and again, ever less often;
- what a new stream says first spares whoever follows soon after the question, once;
- what the stream then keeps to itself, while a look-up tells it, shows that the stream hangs (lnd issue 7727): it is
  broken, and all begin anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Final, Protocol

import structlog

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay.core.lightning import LndMessage, Lost, NodeIdentity, NotKnown, PaymentUpdate, Reported
from holdpay.errors import LndError, LndUnavailable, LndWrongNode
from holdpay.lnd.convert import to_update
from holdpay.lnd.failures import is_own_cancel
from holdpay.lnd.follower import Follower, Try, progress_of, try_of
from holdpay.lnd.gate import Gate

LOOK_UPS_AT_ONCE: Final = 8
"""Streams of TrackPaymentV2; each ends with its first word."""
DOUBT_S: Final = (2.0, 4.0, 8.0, 16.0, 30.0)
"""How long the stream has to speak of a payment before it is looked up again; the last one repeats."""
OWED_S: Final = 5.0
"""How long the stream may be behind a look-up with the end of a payment."""
BEGIN_S: Final = 60.0
"""How long the stream has for its first message: an lnd on bbolt reads all payments that it ever made before it."""
OPENING_S: Final = 120.0
"""For so long what a new stream says is kept for orders that do not follow yet: at a start, or after a break."""
OPENING_MAX: Final = 20_000
"""Of as many payments."""
STAND_S: Final = 5.0
"""How long whoever wants to follow a payment waits for the stream while lnd answers."""
STAND_AWAY_S: Final = 2.0
"""The same while it does not: the look that said so may have met the very moment of a break."""
TRY_AWAY_S: Final = 1.0
"""After a look that found lnd away, the stream is tried all the same, first after this time."""
REOPEN_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Between two streams that broke soon; the last one repeats."""
HEALTHY_S: Final = 30.0
"""A stream that lived this long was healthy."""
ENDED_SOON: Final = 3
"""After so many in a row that lnd ended sooner, it goes without one for a while."""
WITHOUT_S: Final = 50.0
"""How long; shorter than ``BEGIN_S``, after which silence is a hang."""
LET_IN_AT_ONCE: Final = 100
"""Of those who waited for the stream, as many go on in one turn of the event loop when it stands."""
ENDED_AT_ONCE: Final = 25
"""Followers that learn in one turn of the event loop that the stream broke."""
END_EVERY_S: Final = 0.02
RESTART_AFTER_S: Final = 5.0

_log = structlog.get_logger(__name__)


class PaymentsCall(Protocol):
    """TrackPayments, begun."""

    @property
    def node(self) -> NodeIdentity:
        """Who tells."""
        ...

    async def read(self) -> lnrpc.Payment | Lost:
        """The next message, or why none comes any more. Raises nothing."""
        ...

    def cancel(self) -> None: ...


class Router(Protocol):
    """What the hub asks lnd."""

    async def open(self) -> PaymentsCall:
        """Begins TrackPayments; lnd has answered another call since. Raises LndError's children."""
        ...

    async def first_word(self, payment_hash: str, payer: NodeIdentity) -> LndMessage:
        """Of a fresh TrackPaymentV2 to that node: ``Reported``, ``NotKnown`` or ``Lost``. Raises nothing."""
        ...


class _NoCall:
    """In place of a stream that lnd ends again and again, as it does for a payment, of whomever, that it cannot put
    into a message (lnd: routerrpc/router_server.go trackPaymentStream): a stream that says nothing. Whoever follows is
    told by look-ups then."""

    def __init__(self, node: NodeIdentity) -> None:
        self.node = node
        self._is_over = asyncio.Event()

    async def read(self) -> Lost:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WITHOUT_S):
                await self._is_over.wait()
        return Lost("lnd's stream of payments is tried again. Nothing is to be done.")

    def cancel(self) -> None:
        self._is_over.set()


class _Stream:
    """One life of TrackPayments. Those who follow it are told when it ends."""

    def __init__(self, call: PaymentsCall, now_s: float) -> None:
        self.call = call
        self.opened_s = now_s
        self.is_proven = False
        """A message came, so it has begun: whatever happens from now on, it tells."""
        self.heard_s = now_s
        """When its latest message came, of whatever payment."""
        self.followers: dict[str, tuple[Follower, ...]] = {}
        """By payment hash, nearly always one."""
        self.owed: dict[str, Try] = {}
        """Payments that it has to tell the end of, each with the try that ends."""
        self.opening: dict[str, PaymentUpdate] = {}
        """The latest word about payments that nobody followed when it came, while the stream is new."""
        self.defect = ""
        """Why we broke it."""


class Hub:
    """``start`` it in the event loop, ``close`` it at the end."""

    def __init__(self, router: Router, rng: random.Random | None = None) -> None:
        self._router = router
        self._rng = rng or random.Random()  # noqa: S311 - it only spreads waits
        self.gate = Gate(self._rng)
        """Of those who wait for lnd. It is open while the stream stands."""
        self._stream: _Stream | None = None
        self._is_answering: bool | None = None
        """What the latest look at lnd saw; None: there was none yet."""
        self._is_closed = False
        self._why_not = "lnd was not asked yet. Wait a second."
        self._change = asyncio.Event()
        """What the latest look saw is another than before."""
        self._waiting: dict[asyncio.Future[None], None] = {}
        """Who waits for the stream, in the order of coming."""
        self._doubtful: asyncio.Queue[tuple[_Stream, Follower, int]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begins to look for lnd in the background."""
        self._begin(self._keep_open)
        for _ in range(LOOK_UPS_AT_ONCE):
            self._begin(self._look_up_next)

    async def close(self) -> None:
        """Ends the stream and the look-ups; whoever follows is told."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.gate.stop()
        self._stream, self._is_closed, self._why_not = None, True, "holdpayd ends."
        self._let_in()

    @property
    def node(self) -> NodeIdentity | None:
        """Whose payments the stream tells; None while none stands."""
        return None if self._stream is None else self._stream.call.node

    def looked(self, *, answers: bool, why_not: str) -> None:
        """What the latest look at lnd saw: while it does not answer, little is tried."""
        if answers != self._is_answering:
            self._is_answering = answers
            change, self._change = self._change, asyncio.Event()
            change.set()
        if not answers:
            self._why_not = why_not
            if self._stream is not None and isinstance(self._stream.call, _NoCall):
                self._stream.call.cancel()

    async def follow(self, payment_hash: str, payer: NodeIdentity, *, is_sending: bool = False) -> Follower:
        """What LND says of the payment from now on; ``leave`` it at the end. LND is asked for its present word, unless
        it is about to be sent. Raises LndUnavailable, and LndWrongNode if another node than ``payer`` answers."""
        stream = await self._standing()
        if stream.call.node != payer:
            raise LndWrongNode
        follower = Follower(payment_hash, is_sending=is_sending)
        stream.followers[payment_hash] = (*stream.followers.get(payment_hash, ()), follower)
        known = stream.opening.pop(payment_hash, None)
        if is_sending:
            follower.is_owed = stream.is_proven
        elif known is not None:
            # Told only once: who follows again has heard too little of the stream, and asks lnd.
            self._tell(stream, payment_hash, known)
        else:
            self._doubtful.put_nowait((stream, follower, 0))
        return follower

    def sent(self, follower: Follower, said: LndMessage) -> None:
        """LND's first word to a send, after which its stream is left to us."""
        if isinstance(said, Lost):
            follower.begin(None)
            if not follower.has_word:
                follower.end(said)
        elif isinstance(said, Reported):
            follower.begin(said.update)
            stream = self._stream
            if stream is not None and follower in stream.followers.get(follower.payment_hash, ()):
                self._doubt_later(stream, follower, 0)
        else:
            follower.end(said)

    def leave(self, follower: Follower) -> None:
        """Nobody listens any more, and nobody needs to know."""
        follower.is_over = True
        if self._stream is None:
            return
        followers = self._stream.followers
        if follower in (of_it := followers.pop(follower.payment_hash, ())):
            of_it = tuple(one for one in of_it if one is not follower)
        if of_it:
            followers[follower.payment_hash] = of_it

    # --- the stream ---------------------------------------------------------------------------------------------------

    async def _standing(self) -> _Stream:
        if self._stream is None and not self._is_closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STAND_AWAY_S if self._is_answering is False else STAND_S):
                    while self._stream is None and not self._is_closed:
                        await self._wait()
        if self._stream is None:
            raise LndUnavailable(self._why_not)
        return self._stream

    async def _wait(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[place] = None
        try:
            await place
        finally:
            self._waiting.pop(place, None)

    def _let_in(self) -> None:
        """A hundred in each turn of the event loop: all orders may wait."""
        if self._stream is None and not self._is_closed:
            return
        for place in [*islice(self._waiting, LET_IN_AT_ONCE)]:
            del self._waiting[place]
            if not place.done():
                place.set_result(None)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._let_in)

    async def _keep_open(self) -> None:
        breaks = ended = 0
        while True:
            await self._until_worth_a_try()
            began_s = self._now_s()
            call = await self._open()
            if call is not None:
                await self._live(call)
            is_healthy = self._now_s() - began_s >= HEALTHY_S
            breaks = 1 if is_healthy else breaks + 1
            ended = 0 if is_healthy or call is None else ended + 1
            if call is not None and ended >= ENDED_SOON:
                _log.warning(
                    "lnd ends its stream of payments at once; they are looked up for a while", why=self._why_not
                )
                await self._live(_NoCall(call.node))
                continue  # whoever follows has waited for nothing: the stream is tried again at once
            wait_s = REOPEN_S[min(breaks, len(REOPEN_S)) - 1]
            await asyncio.sleep(wait_s * self._rng.uniform(0.75, 1.25))

    async def _until_worth_a_try(self) -> None:
        while self._is_answering is None:
            await self._change.wait()
        if not self._is_answering:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TRY_AWAY_S):
                    await self._change.wait()

    async def _open(self) -> PaymentsCall | None:
        try:
            return await self._router.open()
        except LndError as error:
            if self._is_answering is not False:
                self._why_not = error.message
            return None

    async def _live(self, call: PaymentsCall) -> None:
        """One stream from its beginning to its end."""
        stream = self._stream = _Stream(call, self._now_s())
        self.gate.open(call.node)
        self._let_in()
        asyncio.get_running_loop().call_later(OPENING_S, stream.opening.clear)
        lost = Lost("holdpayd ends.")
        try:
            while not isinstance(said := await call.read(), Lost):
                self._hear(stream, said)
            lost = Lost(stream.defect or said.text)
            if self._is_answering is not False:
                self._why_not = lost.text
        finally:
            self._stream = None
            self.gate.close()
            call.cancel()
            self._end([one for several in stream.followers.values() for one in several], lost)

    def _end(self, followers: list[Follower], lost: Lost) -> None:
        """A few in each turn of the event loop: what they do then, all at once, would hold up everything else."""
        for follower in followers[:ENDED_AT_ONCE]:
            follower.end(lost)
        if rest := followers[ENDED_AT_ONCE:]:
            asyncio.get_running_loop().call_later(END_EVERY_S, self._end, rest, lost)

    def _hear(self, stream: _Stream, said: lnrpc.Payment) -> None:
        stream.is_proven, stream.heard_s = True, self._now_s()
        followers = stream.followers.get(said.payment_hash)
        if followers or said.payment_hash in stream.owed:
            self._tell(stream, said.payment_hash, to_update(said))
        elif self._now_s() - stream.opened_s < OPENING_S:
            update = to_update(said)
            before = stream.opening.get(said.payment_hash)
            if before is None:
                if len(stream.opening) < OPENING_MAX:
                    stream.opening[said.payment_hash] = update
            elif progress_of(update) >= progress_of(before):
                stream.opening[said.payment_hash] = update
        else:
            stream.opening.pop(said.payment_hash, None)

    def _tell(self, stream: _Stream, payment_hash: str, update: PaymentUpdate) -> None:
        if update.is_terminal:
            stream.owed.pop(payment_hash, None)
        for follower in stream.followers.get(payment_hash, ()):
            if not (update.is_terminal or follower.is_over):
                stream.owed[payment_hash] = try_of(update)
            follower.is_heard = True
            follower.tell(update, is_live=True)

    def _break(self, stream: _Stream, defect: str) -> None:
        if stream is self._stream and not stream.defect:
            _log.warning("lnd's stream of payments hangs; it is opened anew", why=defect)
            stream.defect = f"lnd's stream of payments hung: {defect}. It is opened anew."
            stream.call.cancel()

    # --- looking up ---------------------------------------------------------------------------------------------------

    async def _look_up_next(self) -> None:
        while True:
            stream, follower, looks = await self._doubtful.get()
            if stream is self._stream and not follower.is_over:
                was_proven = stream.is_proven
                said = await self._router.first_word(follower.payment_hash, stream.call.node)
                if stream is self._stream and not follower.is_over:
                    self._take(stream, follower, looks, said, was_proven=was_proven)

    def _take(self, stream: _Stream, follower: Follower, looks: int, said: LndMessage, *, was_proven: bool) -> None:
        payment_hash = follower.payment_hash
        if not isinstance(said, Reported):
            self._take_no_snapshot(follower, said)
            return
        follower.tell(said.update, is_live=False)
        if said.update.is_terminal:
            of_try = try_of(said.update)
            if follower.is_owed and not follower.is_heard:
                stream.owed[payment_hash] = of_try
            self._expect_end(stream, payment_hash, of_try, self._now_s() + BEGIN_S)
        elif follower.is_heard:
            return
        elif follower.is_owed:
            # Words that come one after the other are late; only silence, or too much lateness, shows a hang.
            if self._now_s() - stream.heard_s < DOUBT_S[0] and looks < len(DOUBT_S):
                self._doubt_later(stream, follower, looks)
            else:
                self._break(stream, "it does not speak of a payment that was sent after it began")
        elif was_proven:
            stream.owed[payment_hash] = try_of(said.update)
        elif self._now_s() - stream.opened_s > BEGIN_S:
            self._break(stream, "payments are in flight, and it never said a word")
        else:
            self._doubt_later(stream, follower, looks)

    def _take_no_snapshot(self, follower: Follower, said: LndMessage) -> None:
        if not isinstance(said, NotKnown) or not follower.has_word:
            follower.end(said)
        elif not follower.is_heard:
            # Its record was deleted; else it came to lnd just now, and the stream has said so.
            follower.end(Lost("lnd knew the payment, and does not any more."))

    def _doubt_later(self, stream: _Stream, follower: Follower, looks: int) -> None:
        delay_s = DOUBT_S[min(looks, len(DOUBT_S) - 1)]
        asyncio.get_running_loop().call_later(delay_s, self._doubt, stream, follower, looks)

    def _doubt(self, stream: _Stream, follower: Follower, looks: int) -> None:
        if stream is self._stream and not follower.is_over and not follower.is_heard:
            self._doubtful.put_nowait((stream, follower, looks + 1))

    def _expect_end(self, stream: _Stream, payment_hash: str, of_try: Try, until_s: float) -> None:
        asyncio.get_running_loop().call_later(OWED_S, self._is_still_owed, stream, payment_hash, of_try, until_s)

    def _is_still_owed(self, stream: _Stream, payment_hash: str, of_try: Try, until_s: float) -> None:
        if stream is not self._stream or stream.owed.get(payment_hash) != of_try:
            return
        if self._now_s() - stream.heard_s < OWED_S and self._now_s() < until_s:
            self._expect_end(stream, payment_hash, of_try, until_s)
        else:
            self._break(stream, "it kept the end of a payment to itself")

    # --- tasks --------------------------------------------------------------------------------------------------------

    def _begin(self, run: Callable[[], Awaitable[None]]) -> None:
        self._tasks.add(asyncio.create_task(_again_and_again(run), name="lnd payments"))

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()


async def _again_and_again(run: Callable[[], Awaitable[None]]) -> None:
    """A defect of ours is logged, and ends neither the stream nor the look-ups for good."""
    while True:
        try:
            await run()
        except (Exception, asyncio.CancelledError) as error:
            if is_own_cancel(error):
                raise
            _log.error("following the payments failed; it goes on after a pause", exc_info=error)
            await asyncio.sleep(RESTART_AFTER_S)
