"""The daemon, asked in threads of their own, across its restarts. What it says is told as news of ``state``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import grpc

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli.app import App
from holdpay.cli.client import Client, details, is_lost, refusal
from holdpay.cli.failure import Failure
from holdpay.cli.feed import FIRST_WAIT_S, LONGEST_WAIT_S
from holdpay.cli.sockets import find_socket
from holdpay.cli.top.state import Cancel, Connected, Explain, Explained, Lost, News, Said, StatusSeen, Updated

STATUS_EVERY_S = 2.0
STATUS_APART_S = 0.5
"""Between two looks at the status, also while updates come one after the other."""
STATUS_WITHIN_S = 5.0
"""A daemon that takes longer for its status is away."""
EVENTS_BACK = 40
"""Journal rows from before the connection that are told of, too."""
MOST_OPEN = 300
"""Open requests that are read at a connection."""
_PAGE = 64


@dataclass(frozen=True, slots=True)
class Broke:
    """A defect of our own in another thread: for the main thread to raise."""

    error: Exception


Tell = Callable[[News | Broke], None]


def snapshot(client: Client) -> Connected:
    """All that a view begins with. Raises Failure."""
    status = client.ask(client.stub.GetStatus, pb.GetStatusRequest(), STATUS_WITHIN_S)
    # First the cursor, then what is open: updates after the cursor that are in it already change nothing.
    newest = client.ask(client.stub.ListRequests, pb.ListRequestsRequest(page_size=1)).requests
    found = {request.id: request for request in _open_requests(client)}
    for out in status.out:
        if out.request_id not in found:
            found[out.request_id] = client.get_request(out.request_id)
    return Connected(status, list(found.values()), max((request.cursor for request in newest), default=0))


def _open_requests(client: Client) -> list[pb.Request]:
    """The newest of them."""
    found: list[pb.Request] = []
    asked = pb.ListRequestsRequest(open_only=True, page_size=_PAGE)
    while True:
        page = client.ask(client.stub.ListRequests, asked)
        found += page.requests
        if not page.next_page_token or len(found) >= MOST_OPEN:
            return found
        asked.page_token = page.next_page_token


class Source:
    """Follows the daemon from ``start`` on. ``stop`` waits for nothing: the threads end by themselves, soon."""

    def __init__(self, app: App, tell: Tell) -> None:
        self._app = app
        self._tell = tell
        self._wait_s = FIRST_WAIT_S
        self._is_stopped = False

    def start(self) -> None:
        self._in_background(self._follow)

    def stop(self) -> None:
        self._is_stopped = True

    def do(self, wish: Explain | Cancel) -> None:
        """Its answer is told."""

        def ask() -> None:
            try:
                with Client(find_socket(self._app.socket)) as client:
                    self._tell(_answer(client, wish))
            except Failure as failure:
                self._tell(Said(str(failure)))

        self._in_background(ask)

    def _in_background(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - it is raised again in the main thread
                self._tell(Broke(error))

        threading.Thread(target=guarded, daemon=True).start()

    def _follow(self) -> None:
        while not self._is_stopped:
            try:
                with Client(find_socket(self._app.socket)) as client:
                    self._stay(client)
            except Failure as failure:
                self._tell(Lost(str(failure)))
            self._app.clock.sleep(self._wait_s)
            self._wait_s = min(self._wait_s * 2, LONGEST_WAIT_S)

    def _stay(self, client: Client) -> None:
        """Until the connection is lost. Raises Failure."""
        found = snapshot(client)
        self._tell(found)
        watch = _Watch(client, max(found.cursor - EVENTS_BACK, 0), self._tell)
        self._in_background(watch.run)
        try:
            while not watch.is_over_by(STATUS_EVERY_S) and not self._is_stopped:
                self._app.clock.sleep(STATUS_APART_S)
                self._tell(StatusSeen(client.ask(client.stub.GetStatus, pb.GetStatusRequest(), STATUS_WITHIN_S)))
                self._wait_s = FIRST_WAIT_S
        finally:
            watch.stop()
        self._tell(Lost(watch.why))


class _Watch:
    """The stream of all updates. ``why`` says how it ended."""

    def __init__(self, client: Client, after_cursor: int, tell: Tell) -> None:
        self.why = "The stream of updates ended."
        self._tell = tell
        self._call = client.stub.WatchRequests(pb.WatchRequestsRequest(after_cursor=after_cursor))
        self._news = threading.Event()
        self._is_over = False

    def run(self) -> None:
        try:
            for update in chain.from_iterable(message.updates for message in self._call):
                if update.shutting_down:
                    self.why = "It is stopping."
                    break
                self._tell(Updated(update))
                self._news.set()
        except grpc.RpcError as error:
            self.why = f"The connection was lost ({details(error)})." if is_lost(error) else str(refusal(error))
        finally:
            self._is_over = True
            self._news.set()

    def is_over_by(self, wait_s: float) -> bool:
        """Waits as long, or until something came, or it ended."""
        self._news.wait(wait_s)
        self._news.clear()
        return self._is_over

    def stop(self) -> None:
        self._call.cancel()


def _answer(client: Client, wish: Explain | Cancel) -> News:
    if isinstance(wish, Explain):
        asked = pb.ExplainRequestRequest(request_id=wish.request_id)
        return Explained(client.ask(client.stub.ExplainRequest, asked))
    reply = client.ask(client.stub.CancelRequest, pb.CancelRequestRequest(request_id=wish.request_id))
    return Said(f"{wish.request_id}: {reply.message}")
