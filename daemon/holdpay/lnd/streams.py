"""LND's payment streams as the port's messages. Nothing here raises but the task's own cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeAlias

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay.core.lightning import LndMessage, Lost, NodeIdentity, NotKnown, Refused, Reported
from holdpay.errors import LndError, LndUnavailable, LndWrongNode
from holdpay.lnd.connection import Connection, PaymentCall
from holdpay.lnd.convert import to_update
from holdpay.lnd.failures import Failure, FailureKind, explain, failure_of, is_own_cancel, to_error
from holdpay.lnd.link import Link

Judge: TypeAlias = Callable[[Failure, str], LndMessage]


def judge_send(failure: Failure, address: str) -> LndMessage:
    """What it means that SendPaymentV2 began with an error. Never that no money is out."""
    if not failure.is_answer:
        return Lost(explain(failure, address))
    return Refused(failure.text, has_hash=failure.kind is FailureKind.EXISTS)


def judge_track(failure: Failure, address: str) -> LndMessage:
    """What it means that TrackPaymentV2 began with an error."""
    return NotKnown() if failure.kind is FailureKind.NOT_FOUND else Lost(explain(failure, address))


async def first_word(
    link: Link,
    connection: Connection,
    open_call: Callable[[], PaymentCall],
    *,
    is_live: bool,
    judge: Judge,
    timeout_s: float | None = None,
) -> LndMessage:
    """Opens a payment stream at once, and ends it after its first message.

    The payment goes on without its stream: LND ends it with the stream only if it is cancelable, which none of ours is
    (lnd: routerrpc/router_server.go SendPaymentV2; ``to_send_request``). ``is_live``: the message is LND's first word
    of the payment. ``judge`` reads an error in its place.
    """
    address = link.settings.address
    with connection.in_use:
        try:
            call = open_call()
        except Exception as error:  # noqa: BLE001 - a closed channel has a type of its own for this
            return Lost(explain(failure_of(error), address))
        connection.guard(call)
        try:
            async with asyncio.timeout(timeout_s):
                said = await read(call)
        except TimeoutError:
            said = Failure(FailureKind.SLOW, f"no word in {timeout_s:g} s")
        finally:
            connection.release(call)
            call.cancel()
    if isinstance(said, Failure):
        _note(link, connection, said)
        return judge(said, address)
    return Reported(to_update(said), is_live)


class AllPayments:
    """TrackPayments on a connection of its own: a ``PaymentsCall`` of the hub."""

    def __init__(
        self,
        link: Link,
        connection: Connection,
        node: NodeIdentity,
        call: PaymentCall,
        on_no_right: Callable[[Failure], None],
    ) -> None:
        self._on_no_right = on_no_right
        self._link = link
        self._connection = connection
        self._call = call
        self._use = ExitStack()
        self._use.enter_context(connection.in_use)
        self.node = node
        connection.guard(call)

    async def read(self) -> lnrpc.Payment | Lost:
        said = await read(self._call)
        self._connection.release(self._call)
        if isinstance(said, Failure):
            _note(self._link, self._connection, said)
            if said.is_without_right:
                self._on_no_right(said)
            return Lost(explain(said, self._link.settings.address))
        return said

    def cancel(self) -> None:
        self._connection.release(self._call)
        self._call.cancel()
        self._use.close()


class LndRouter:
    """The ``Router`` of the hub. The stream of all payments has a connection of its own; what is answered at once has
    the other, and never waits for it."""

    def __init__(self, link: Link, stream_link: Link) -> None:
        self._link = link
        self._stream_link = stream_link
        self._next_look: asyncio.Task[Connection] | None = None
        self._looks: set[asyncio.Task[Connection]] = set()
        """That one, and the one that runs."""
        self._looking = asyncio.Lock()
        self._denied: Failure | None = None
        """The macaroon does not allow the stream. It is read at the start only, so lnd is not asked again."""

    async def open(self) -> AllPayments:
        """See ``Router``."""
        if self._denied is not None:
            raise to_error(self._denied, self._link.settings.address)
        connection = await self._stream_link.verified()
        node = connection.identity
        if node is None:
            raise LndUnavailable("The connection to lnd broke. holdpayd tries again.")
        call = connection.track_all()
        begun = AllPayments(self._stream_link, connection, node, call, self._deny)
        try:
            # A proxy keeps its connection to us while another node takes lnd's place behind it: the stream breaks then.
            now = await self._stream_link.verified(afresh=True)
            if now is not connection or now.identity != node:
                raise LndUnavailable("Another connection, or another node, stands for lnd now. holdpayd tries again.")
        except BaseException:
            begun.cancel()
            raise
        return begun

    async def first_word(self, payment_hash: str, payer: NodeIdentity) -> LndMessage:
        """See ``Router``. GetInfo comes first: an lnd that does not answer is told from one that does not know."""
        try:
            connection = await self._verified()
        except LndError as error:
            return Lost(error.message)
        if connection.identity != payer:
            return Lost(LndWrongNode().message)
        timeout_s = self._link.settings.call_timeout_s
        return await first_word(
            self._link,
            connection,
            lambda: connection.track(payment_hash),
            is_live=False,
            judge=judge_track,
            timeout_s=timeout_s,
        )

    async def close(self) -> None:
        """Once nobody asks any more."""
        for look in self._looks:
            look.cancel()
        if self._looks:
            await asyncio.wait(self._looks)

    def _deny(self, failure: Failure) -> None:
        self._denied = failure

    async def _verified(self) -> Connection:
        """One GetInfo for all who ask before it begins."""
        if self._next_look is None:
            self._next_look = asyncio.create_task(self._look(), name="lnd look-up")
            self._looks.add(self._next_look)
            self._next_look.add_done_callback(self._looks.discard)
        return await asyncio.shield(self._next_look)

    async def _look(self) -> Connection:
        async with self._looking:
            self._next_look = None
            return await self._link.verified(afresh=True)


async def read(call: PaymentCall) -> lnrpc.Payment | Failure:
    """The next message of a payment stream."""
    try:
        message = await call.read()
    except (Exception, asyncio.CancelledError) as error:
        if is_own_cancel(error):
            raise
        return failure_of(error)
    if isinstance(message, lnrpc.Payment):
        return message
    return Failure(FailureKind.UNREACHABLE, "the stream ended without a result")


def _note(link: Link, connection: Connection, failure: Failure) -> None:
    link.note(connection, failure)
    if failure.is_without_right:
        link.on_no_right(failure)
