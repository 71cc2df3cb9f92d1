"""HTTP/1.1 over one connection, as its client: h11 knows the protocol, what is here moves the bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, cast

import h11

from holdpay.sms4sats.wire import Broken, Stream

READ_BYTES: Final = 64 * 1024
MAX_HEAD_BYTES: Final = 100 * 1024
MAX_PIECES: Final = 10_000
"""Of one answer: chunks of its body, and answers before it (100 Continue). Each costs some 10 µs, however small it is;
an honest server's chunks have kilobytes."""
PIECES_IN_A_TURN: Final = 100
"""Of the event loop; others have theirs between."""


@dataclass(slots=True, kw_only=True)
class Request:
    """``headers``: without a length, which its body tells."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""
    is_sent: bool = field(default=False, init=False)
    """Perhaps: the server may have had some of it, in this try or an earlier one."""


@dataclass(frozen=True, slots=True)
class Response:
    """``headers``: by their names in lower case. ``body``: one that is too long is cut, but is still too long."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """One request after the other."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._pieces = 0
        """Of the answer that is being read."""

    async def exchange(self, request: Request, max_bytes: int) -> Response:
        """Raises Broken. After anything but ``is_free`` the connection is of no use any more."""
        data = self._written(request)
        request.is_sent, self._pieces = True, 0
        # Who hangs up before the end of a request may have said why.
        with contextlib.suppress(Broken):
            await self._stream.write(data)
        head, body = await self._head(), bytearray()
        while len(body) <= max_bytes and isinstance(event := await self._next(), h11.Data):
            body += event.data
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        return Response(head.status_code, headers, bytes(body))

    def is_free(self) -> bool:
        """Whether the next request may follow: the answer was whole, the server goes on, and nothing else came, nor
        the end: that of TLS is said once, however long the connection under it stays open."""
        is_done = self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE
        if not is_done or any(self._h11.trailing_data):
            return False
        self._h11.start_next_cycle()
        return True

    @property
    def is_stale(self) -> bool:
        """Of one that was kept: it was closed, or there is what nobody asked for."""
        return self._stream.is_readable

    def close(self) -> None:
        self._stream.close()

    def _written(self, request: Request) -> bytes:
        headers = list(request.headers.items())
        if request.body:
            headers.append(("Content-Length", str(len(request.body))))
        head = h11.Request(method=request.method, target=request.target, headers=headers)
        parts = [head, h11.Data(data=request.body), h11.EndOfMessage()] if request.body else [head, h11.EndOfMessage()]
        return b"".join(self._h11.send(part) or b"" for part in parts)

    async def _head(self) -> h11.Response:
        while not isinstance(event := await self._next(), h11.Response):
            pass  # 100 Continue and the like
        return event

    async def _next(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise Broken(str(error)) from error
            if event is not h11.NEED_DATA:
                await self._count(event)
                return cast("h11.Event | type[h11.PAUSED]", event)
            data = await self._stream.read(READ_BYTES)
            if not data and self._h11.their_state is h11.SEND_RESPONSE:
                raise Broken("Server disconnected without sending a response.")
            self._h11.receive_data(data)

    async def _count(self, event: object) -> None:
        """Raises Broken where an answer has too many pieces."""
        if not (isinstance(event, h11.InformationalResponse) or (isinstance(event, h11.Data) and event.chunk_start)):
            return
        self._pieces += 1
        if self._pieces > MAX_PIECES:
            raise Broken(f"The answer comes in more than {MAX_PIECES:,} pieces.")
        if self._pieces % PIECES_IN_A_TURN == 0:
            await asyncio.sleep(0)
