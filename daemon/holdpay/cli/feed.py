"""A request's updates across lost connections and daemon restarts. Imports grpc: import this module late."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

import grpc

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli import background
from holdpay.cli.app import App
from holdpay.cli.client import Client, details, is_lost, refusal
from holdpay.cli.exit_codes import ExitCode
from holdpay.cli.failure import Failure, Unreachable
from holdpay.cli.sockets import find_socket

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 2.0
"""Between two tries to reach a daemon that went away. Looking at a local socket costs nothing."""


class Stream(Protocol):
    """A call of the stub that streams updates."""

    def __iter__(self) -> Iterator[pb.RequestUpdates]: ...

    def cancel(self) -> object: ...


class TimedOut(Exception):
    """The time given by the user is over; the order, if there is one, goes on."""


class Lost(Exception):
    """The stream ended before the order did. The message says how."""


@dataclass(slots=True, kw_only=True)
class Feed:
    """Updates of one request, or of all: each once, in their order, none left out.

    It begins with `submit` (a new request, or the one that its key belongs to) or as a watch on `request_id` ("" for
    all) after `cursor`. Once a request is accepted only WatchRequests is used, so that no reconnect can order anything.
    """

    app: App
    say: Callable[[str], None]
    """Takes a sentence about the connection, for people."""
    started_ms: int
    """When the command began, before it asked anything: updates from before it are the past."""
    deadline_s: float | None = None
    """On the app's monotonic clock. None: no end."""
    submit: pb.SubmitRequest | None = None
    request_id: str = ""
    cursor: int | None = None
    known: pb.Request | None = None
    """The request as it was when this feed met it: its first updates may be older."""
    is_sent: bool = field(default=False, init=False)
    """The request may have reached the daemon."""
    _call: Stream | None = field(default=None, init=False)
    _is_stopped: bool = field(default=False, init=False)
    _has_connected: bool = field(default=False, init=False)
    _has_news: bool = field(default=False, init=False)
    _told: set[str] = field(default_factory=set, init=False)
    """How the connection was lost since the last update: each is said once, lest a flapping daemon fill the screen."""
    _owes_return: bool = field(default=False, init=False)
    _wait_s: float = field(default=FIRST_WAIT_S, init=False)

    @property
    def is_accepted(self) -> bool:
        """The daemon recorded the request."""
        return self.submit is None or bool(self.request_id)

    def updates(self) -> Generator[pb.RequestUpdate, None, None]:
        """Goes on until the caller closes it, or ends with the replay of an order that was closed before.

        Raises Unreachable (only at first: nothing was sent), Failure (the daemon refused) and TimedOut.
        """
        try:
            yield from background.stream(self._produce, self._stop, self._remaining_s)
        except background.Overdue:
            raise TimedOut from None

    def _produce(self) -> Generator[pb.RequestUpdate, None, None]:
        while not self._is_stopped:
            try:
                with self._connect() as client, closing(self._read(client)) as stream:
                    yield from stream
                if self.known is not None and self.known.terminal:
                    return
                raise Lost("the stream ended")
            except Lost as lost:
                self._note_loss(str(lost))
            self._pause()

    def _stop(self) -> None:
        self._is_stopped = True
        if self._call is not None:
            self._call.cancel()

    def _connect(self) -> Client:
        try:
            client = Client(find_socket(self.app.socket))
        except Unreachable:
            if self._has_connected:
                raise Lost("it is away") from None
            raise
        self._has_connected = True
        if self._owes_return:
            self._owes_return = False
            self.say("The daemon is back.")
        return client

    def _read(self, client: Client) -> Generator[pb.RequestUpdate, None, None]:
        self._call = self._open(client)
        try:
            for update in chain.from_iterable(message.updates for message in self._call):
                if update.shutting_down:
                    raise Lost("it is stopping")
                if update.HasField("request") and self._is_new(update):
                    self.known = self.known or self._as_it_is_now(client, update.request)
                    self._remember(update)
                    yield update
        except grpc.RpcError as error:
            raise self._judge(error) from error
        finally:
            self._call.cancel()

    def _as_it_is_now(self, client: Client, request: pb.Request) -> pb.Request:
        """A request that was there before this command replays its past."""
        if request.created_at_ms >= self.started_ms or self.submit is None:
            return request
        try:
            return client.get_request(request.id)
        except Unreachable as lost:
            raise Lost(str(lost)) from lost

    def _open(self, client: Client) -> Stream:
        timeout_s = self._remaining_s()
        if self.submit is not None and not self.request_id:
            self.is_sent = True
            return client.stub.Submit(self.submit, timeout=timeout_s)
        after_cursor = self.cursor
        if after_cursor is None and self.is_sent:
            after_cursor = 0  # nothing came before the connection was lost: read all, and leave out what is older
        self.is_sent = True
        return client.stub.WatchRequests(
            pb.WatchRequestsRequest(request_id=self.request_id, after_cursor=after_cursor), timeout=timeout_s
        )

    def _is_new(self, update: pb.RequestUpdate) -> bool:
        if self.cursor is not None:
            return update.cursor > self.cursor
        return self.submit is not None or update.at_ms >= self.started_ms

    def _remember(self, update: pb.RequestUpdate) -> None:
        self._wait_s = FIRST_WAIT_S
        self._told.clear()
        self._has_news = True
        self.cursor = max(update.cursor, self.cursor or 0)
        if self.submit is not None:
            self.request_id = update.request.id

    def _judge(self, error: grpc.RpcError) -> Exception:
        """What a broken stream means. Once something came, all but an unknown order is a lost stream."""
        code = error.code()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and self.deadline_s is not None:
            return TimedOut()
        if is_lost(error) or (self._has_news and code is not grpc.StatusCode.NOT_FOUND):
            return Lost(details(error))
        if self._has_news:
            return Failure(
                f"The daemon does not know order {self.request_id} any more ({details(error)}). "
                "See whether it runs on another state directory: `holdpay status`.",
                ExitCode.STILL_OPEN,
            )
        failure = refusal(error)
        if self.submit is not None and failure.exit_code is ExitCode.UNEXPECTED:
            return Failure(
                f"{failure} It is not known whether it was ordered: the same command with --key "
                f"{self.submit.idempotency_key} asks again and orders nothing twice.",
                ExitCode.UNEXPECTED,
            )
        return failure

    def _note_loss(self, how: str) -> None:
        if self._is_stopped or how in self._told or self._owes_return:
            return
        self._told.add(how)
        self._owes_return = True
        subject = "The order goes on; connecting again" if self.is_accepted else "Asking again with the same key"
        self.say(f"The connection to the daemon was lost ({how}). {subject} …")

    def _pause(self) -> None:
        if self._is_stopped:
            return
        remaining_s = self._remaining_s()
        if remaining_s is not None and remaining_s <= 0:
            raise TimedOut
        self.app.clock.sleep(self._wait_s if remaining_s is None else min(self._wait_s, remaining_s))
        self._wait_s = min(self._wait_s * 2, LONGEST_WAIT_S)

    def _remaining_s(self) -> float | None:
        return None if self.deadline_s is None else self.deadline_s - self.app.clock.monotonic_s()
