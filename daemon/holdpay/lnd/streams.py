"""A payment stream as the port's messages: up to exactly one last one, and no exception but the task's own cancel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TypeAlias

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay.core.lightning import LndMessage, Lost, NotKnown, Refused, Reported
from holdpay.lnd.connection import Connection, PaymentCall
from holdpay.lnd.convert import to_update
from holdpay.lnd.failures import Failure, FailureKind, explain, failure_of, is_own_cancel
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


async def follow(
    link: Link, connection: Connection, open_call: Callable[[], PaymentCall], *, is_live: bool, judge: Judge
) -> AsyncGenerator[LndMessage, None]:
    """Opens a payment stream at once and reads it to its end.

    ``is_live`` says whether the first message is already LND's first word; the later ones are. ``judge`` reads an error
    in place of a first message. Closing the generator ends the call and leaves the payment alone (cancelable=false).
    """
    address = link.settings.address
    with connection.in_use():
        try:
            call = open_call()
        except Exception as error:  # noqa: BLE001 - a closed channel has a type of its own for this
            yield Lost(explain(failure_of(error), address))
            return
        connection.guard(call)
        try:
            while True:
                said = await _next(call)
                connection.release(call)
                if isinstance(said, Failure):
                    link.note(connection, said)
                    if said.is_without_right:
                        link.on_no_right(said)
                    yield judge(said, address)
                    return
                update = to_update(said)
                yield Reported(update, is_live)
                if update.is_terminal:
                    return
                is_live, judge = True, _judge_break
        finally:
            connection.release(call)
            call.cancel()


def _judge_break(failure: Failure, address: str) -> LndMessage:
    return Lost(explain(failure, address))


async def _next(call: PaymentCall) -> lnrpc.Payment | Failure:
    try:
        message = await call.read()
    except (Exception, asyncio.CancelledError) as error:
        if is_own_cancel(error):
            raise
        return failure_of(error)
    if isinstance(message, lnrpc.Payment):
        return message
    return Failure(FailureKind.UNREACHABLE, "the stream ended without a result")
