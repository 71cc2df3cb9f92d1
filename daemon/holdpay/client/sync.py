"""The client that blocks."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay._pb.v1.holdpay_pb2_grpc import HoldpayStub
from holdpay.client import asking
from holdpay.client.asking import ANSWER_S, OPTIONS, WAIT_S, Terms
from holdpay.client.errors import EndedWithout, TimedOut, Unreachable, failure_of
from holdpay.client.following import Following
from holdpay.client.types import Cancellation, Request, Until, Update, cancellation_of, request_of


class Client:
    """One connection to holdpayd; a context manager. ``socket``: by default HOLDPAY_SOCKET, then the system's.

    Each method raises HoldpayClientError's children only: Refused (with ``reason``) where the daemon says no,
    Unreachable where none answers.
    """

    def __init__(self, socket: str | os.PathLike[str] | None = None) -> None:
        self._channel = grpc.insecure_channel(asking.target(socket), options=OPTIONS)
        self._stub = HoldpayStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection. No request is touched by it."""
        self._channel.close()

    # --- to buy -------------------------------------------------------------------------------------------------------

    def code(self, country: str, service: str, *, real_phone: bool = False, **terms: Unpack[Terms]) -> Request:
        """An activation code: returns as soon as the request is durable. ``wait`` for "number" and "code" then."""
        return self._submit(asking.code(country, service, real_phone, terms))

    def rent(
        self, country: str, service: str | None = None, *, weeks: int | None = None, **terms: Unpack[Terms]
    ) -> Request:
        """A number for some weeks. ``wait`` for "number"; ``watch`` tells each message."""
        return self._submit(asking.rental(country, service, weeks, terms))

    def sms(self, phone: str, text: str, *, country: str | None = None, **terms: Unpack[Terms]) -> Request:
        """An SMS that the provider sends to ``phone``: E.164, or as people of ``country`` write it."""
        return self._submit(asking.sms(phone, text, country, terms))

    def email(self, address: str, text: str, **terms: Unpack[Terms]) -> Request:
        """An e-mail that the provider sends."""
        return self._submit(asking.email(address, text, terms))

    def fund(self, amount_sat: int, **terms: Unpack[Terms]) -> Request:
        """Money for the prepaid account at the provider."""
        return self._submit(asking.fund(amount_sat, terms))

    def _submit(self, submit: pb.SubmitRequest) -> Request:
        with closing(self._follow(Following(submit=submit), ANSWER_S)) as updates:
            for update in updates:
                return update.request
        raise Unreachable("holdpayd said nothing. Ask again with the same key.")

    # --- to follow ----------------------------------------------------------------------------------------------------

    def wait(self, request: Request | str, until: Until = "end", timeout_s: float = WAIT_S) -> Request:
        """The request once it ``has`` what is waited for. Goes on over lost connections and restarts of the daemon.

        Raises EndedWithout if it ended before, TimedOut if the time is over; the request goes on then.
        """
        known = self.get(request) if isinstance(request, str) else request
        if not known.has(until) and not known.is_over:
            following = Following(request_id=known.id, after=known.cursor, is_known=True)
            with closing(self._follow(following, timeout_s)) as updates:
                for update in updates:
                    known = update.request
                    if known.has(until) or known.is_over:
                        break
        if not known.has(until):
            raise EndedWithout(known)
        return known

    def watch(
        self, after: int | None = None, request: str = "", timeout_s: float | None = None
    ) -> Generator[Update, None, None]:
        """Each update once, in order, from behind the cursor ``after`` (0: the beginning; None: from now on): of one
        request until it is over, or of all for ever. Goes on over lost connections and restarts of the daemon.

        Raises TimedOut when ``timeout_s`` is over.
        """
        return self._follow(Following(request_id=request, after=after), timeout_s)

    def _follow(self, following: Following, timeout_s: float | None) -> Generator[Update, None, None]:
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            call = following.next_call()
            left_s = None if until_s is None else max(0.001, until_s - time.monotonic())
            is_new = isinstance(call, pb.SubmitRequest)
            method: Any = self._stub.Submit if is_new else self._stub.WatchRequests
            stream = method(call, timeout=left_s)
            try:
                for message in stream:
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
            if until_s is not None and time.monotonic() + wait_s > until_s:
                raise TimedOut(following.request_id)
            time.sleep(wait_s)

    # --- to ask -------------------------------------------------------------------------------------------------------

    def get(self, request_id: str = "", *, key: str | None = None) -> Request:
        """By its id, or by the key it was made with. Raises NotFound."""
        return request_of(self._ask(self._stub.GetRequest, asking.by(request_id, key)))

    def list(self, *, open_only: bool = False, closed_only: bool = False) -> Iterator[Request]:
        """Newest first, page by page as they are taken."""
        token = ""
        while True:
            asked = pb.ListRequestsRequest(open_only=open_only, closed_only=closed_only, page_token=token)
            page = self._ask(self._stub.ListRequests, asked)
            yield from map(request_of, page.requests)
            token = page.next_page_token
            if not token:
                return

    def cancel(self, request_id: str) -> Cancellation:
        """Records the wish to cancel. What is delivered first wins."""
        asked = pb.CancelRequestRequest(request_id=request_id)
        return cancellation_of(self._ask(self._stub.CancelRequest, asked))

    def explain(self, request_id: str) -> pb.ExplainRequestResponse:
        """In plain words: ``summary``, ``money``, ``next`` and ``history``."""
        reply: pb.ExplainRequestResponse = self._ask(
            self._stub.ExplainRequest, pb.ExplainRequestRequest(request_id=request_id)
        )
        return reply

    def status(self) -> pb.GetStatusResponse:
        """As `holdpay status` has it: ``ready``, ``not_ready_reason``, ``lnd``, ``money``, ``alarms``, ..."""
        reply: pb.GetStatusResponse = self._ask(self._stub.GetStatus, pb.GetStatusRequest())
        return reply

    def _ask(self, method: Any, asked: Any) -> Any:
        try:
            return method(asked, timeout=ANSWER_S)
        except grpc.RpcError as error:
            failure = failure_of(error)
            raise failure.refusal or Unreachable(f"holdpayd did not answer: {failure.words}") from None
