"""A small HTTP/1.1 server on asyncio and h11: bounded, with kept connections, for the loopback only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import h11

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_BODY_BYTES: Final = 64 * 1024
MAX_CONNECTIONS: Final = 512
IDLE_S: Final = 75

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """One request; of several query fields or headers with one name the last counts. Header names are lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = json.dumps(value).encode()
    return Response(body, status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})})


Handler = Callable[[Request], Awaitable[Response]]


class HangUp(Exception):
    """What a handler raises to close the connection without an answer."""


class _TooLarge(Exception):
    """The request's body is over MAX_BODY_BYTES."""


class HttpServer:
    """Serves until stopped, and may be started again on the same port. ``port`` 0 picks a free one."""

    def __init__(self, handler: Handler, host: str = "127.0.0.1", port: int = 0) -> None:
        self._handler = handler
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Known once started."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Raises OSError if the port is taken."""
        self._server = await asyncio.start_server(self._connected, self._host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Closes the port and every connection, answered or not."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await _Connection(reader, writer, self._handler).serve()
        except (OSError, TimeoutError, HangUp):
            pass  # the client went away, or was silent for too long, or is to get no answer
        except asyncio.CancelledError:
            pass  # stop(): asyncio.streams would report it as an error
        finally:
            self._connections.discard(task)
            writer.close()


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
        self._reader = reader
        self._writer = writer
        self._handler = handler
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)

    async def serve(self) -> None:
        both_done = {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}
        await self._serve_one()
        while self._h11.states == both_done:
            self._h11.start_next_cycle()
            await self._serve_one()

    async def _serve_one(self) -> None:
        try:
            request = await self._receive()
        except (h11.RemoteProtocolError, ValueError) as error:
            status = getattr(error, "error_status_hint", 400)
            await self._send(Response(b"bad request", status, {"Connection": "close"}))
            return
        except _TooLarge:
            await self._send(Response(b"request too large", 413, {"Connection": "close"}))
            return
        if request is not None:
            await self._send(await self._answer(request))

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._handler(request)
        except HangUp:
            raise
        except Exception:
            # One broken request must not end the server.
            log.exception("the simulated sms4sats failed")
            return Response(b"internal error", 500)

    async def _receive(self) -> Request | None:
        """The next request, or None when the client has closed."""
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_BODY_BYTES:
                    raise _TooLarge
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return _request(head, bytes(body))
            elif isinstance(event, h11.ConnectionClosed):
                return None

    async def _next_event(self) -> object:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            async with asyncio.timeout(IDLE_S):
                self._h11.receive_data(await self._reader.read(MAX_HEAD_BYTES))
        return event

    async def _send(self, response: Response) -> None:
        headers = {"Date": formatdate(usegmt=True), **response.headers, "Content-Length": str(len(response.body))}
        with contextlib.suppress(h11.LocalProtocolError):  # the client broke off in a state that takes no answer
            head = h11.Response(status_code=response.status, headers=list(headers.items()))
            parts = (head, h11.Data(data=response.body), h11.EndOfMessage())
            self._writer.write(b"".join(self._h11.send(part) or b"" for part in parts))
            await self._writer.drain()


def _request(head: h11.Request, body: bytes) -> Request:
    target = urlsplit(head.target.decode("ascii", "replace"))
    query = dict(parse_qsl(target.query, keep_blank_values=True, max_num_fields=50))
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
    return Request(head.method.decode(), target.path, query, headers, body)
