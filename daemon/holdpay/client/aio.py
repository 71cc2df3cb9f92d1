"""The client for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, Unpack

import grpc.aio

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay._pb.v1.holdpay_pb2_grpc import HoldpayStub
from holdpay.client import asking
from holdpay.client.asking import ANSWER_S, OPTIONS, WAIT_S, Terms
from holdpay.client.errors import EndedWithout, TimedOut, Unreachable, failure_of
from holdpay.client.following import Following
from holdpay.client.types import Cancellation, Request, Until, Update, cancellation_of, request_of


class AsyncClient:
    """One connection to holdpayd; an asynchronous context manager, to be made where the event loop runs. ``socket``: by
    default HOLDPAY_SOCKET, then the system's.

    Each method raises HoldpayClientError's children only: Refused (with ``reason``) where the daemon says no,
    Unreachable where none answers.
    """

    def __init__(self, socket: str | os.PathLike[str] | None = None) -> None:
        self._channel = grpc.aio.insecure_channel(asking.target(socket), options=OPTIONS)
        self._stub: Any = HoldpayStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection. No request is touched by it."""
        await self._channel.close()

    # --- to buy -------------------------------------------------------------------------------------------------------

    async def code(self, country: str, service: str, *, real_phone: bool = False, **terms: Unpack[Terms]) -> Request:
        """An activation code: returns as soon as the request is durable. ``wait`` for "number" and "code" then."""
        return await self._submit(asking.code(country, service, real_phone, terms))

    async def rent(
        self, country: str, service: str | None = None, *, weeks: int | None = None, **terms: Unpack[Terms]
    ) -> Request:
        """A number for some weeks. ``wait`` for "number"; ``watch`` tells each message."""
        return await self._submit(asking.rental(country, service, weeks, terms))

    async def sms(self, phone: str, text: str, *, country: str | None = None, **terms: Unpack[Terms]) -> Request:
        """An SMS that the provider sends to ``phone``: E.164, or as people of ``country`` write it."""
        return await self._submit(asking.sms(phone, text, country, terms))

    async def email(self, address: str, text: str, **terms: Unpack[Terms]) -> Request:
        """An e-mail that the provider sends."""
        return await self._submit(asking.email(address, text, terms))

    async def fund(self, amount_sat: int, **terms: Unpack[Terms]) -> Request:
        """Money for the prepaid account at the provider."""
        return await self._submit(asking.fund(amount_sat, terms))

    async def _submit(self, submit: pb.SubmitRequest) -> Request:
        async with aclosing(self._follow(Following(submit=submit), ANSWER_S)) as updates:
            async for update in updates:
                return update.request
        raise Unreachable("holdpayd said nothing. Ask again with the same key.")

    # --- to follow ----------------------------------------------------------------------------------------------------

    async def wait(self, request: Request | str, until: Until = "end", timeout_s: float = WAIT_S) -> Request:
        """The request once it ``has`` what is waited for. Goes on over lost connections and restarts of the daemon.

        Raises EndedWithout if it ended before, TimedOut if the time is over; the request goes on then.
        """
        known = await self.get(request) if isinstance(request, str) else request
        if not known.has(until) and not known.is_over:
            following = Following(request_id=known.id, after=known.cursor, is_known=True)
            async with aclosing(self._follow(following, timeout_s)) as updates:
                async for update in updates:
                    known = update.request
                    if known.has(until) or known.is_over:
                        break
        if not known.has(until):
            raise EndedWithout(known)
        return known

    def watch(
        self, after: int | None = None, request: str = "", timeout_s: float | None = None
    ) -> AsyncGenerator[Update, None]:
        """Each update once, in order, from behind the cursor ``after`` (0: the beginning; None: from now on): of one
        request until it is over, or of all for ever. Goes on over lost connections and restarts of the daemon.

        Raises TimedOut when ``timeout_s`` is over.
        """
        return self._follow(Following(request_id=request, after=after), timeout_s)

    async def _follow(self, following: Following, timeout_s: float | None) -> AsyncGenerator[Update, None]:
        loop = asyncio.get_running_loop()
        until_s = None if timeout_s is None else loop.time() + timeout_s
        while True:
            call = following.next_call()
            left_s = None if until_s is None else max(0.001, until_s - loop.time())
            is_new = isinstance(call, pb.SubmitRequest)
            method: Any = self._stub.Submit if is_new else self._stub.WatchRequests
            stream = method(call, timeout=left_s)
            try:
                async for message in stream:
                    for told in message.updates:
                        if (update := following.heard(told)) is not None:
                            yield update
                wait_s = following.ended()
            except grpc.RpcError as error:
                wait_s = following.lost(failure_of(error))
            finally:
                stream.cancel()
            if wait_s is None:
                return
            if until_s is not None and loop.time() + wait_s > until_s:
                raise TimedOut(following.request_id)
            await asyncio.sleep(wait_s)

    # --- to ask -------------------------------------------------------------------------------------------------------

    async def get(self, request_id: str = "", *, key: str | None = None) -> Request:
        """By its id, or by the key it was made with. Raises NotFound."""
        return request_of(await self._ask(self._stub.GetRequest, asking.by(request_id, key)))

    async def list(self, *, open_only: bool = False, closed_only: bool = False) -> AsyncIterator[Request]:
        """Newest first, page by page as they are taken."""
        token = ""
        while True:
            asked = pb.ListRequestsRequest(open_only=open_only, closed_only=closed_only, page_token=token)
            page = await self._ask(self._stub.ListRequests, asked)
            for found in page.requests:
                yield request_of(found)
            token = page.next_page_token
            if not token:
                return

    async def cancel(self, request_id: str) -> Cancellation:
        """Records the wish to cancel. What is delivered first wins."""
        asked = pb.CancelRequestRequest(request_id=request_id)
        return cancellation_of(await self._ask(self._stub.CancelRequest, asked))

    async def explain(self, request_id: str) -> pb.ExplainRequestResponse:
        """In plain words: ``summary``, ``money``, ``next`` and ``history``."""
        reply: pb.ExplainRequestResponse = await self._ask(
            self._stub.ExplainRequest, pb.ExplainRequestRequest(request_id=request_id)
        )
        return reply

    async def status(self) -> pb.GetStatusResponse:
        """As `holdpay status` has it: ``ready``, ``not_ready_reason``, ``lnd``, ``money``, ``alarms``, ..."""
        reply: pb.GetStatusResponse = await self._ask(self._stub.GetStatus, pb.GetStatusRequest())
        return reply

    async def _ask(self, method: Any, asked: Any) -> Any:
        try:
            return await method(asked, timeout=ANSWER_S)
        except grpc.RpcError as error:
            failure = failure_of(error)
            raise failure.refusal or Unreachable(f"holdpayd did not answer: {failure.words}") from None
