"""Where HTTP comes in: webhooks of the provider, and whoever scrapes the metrics.

Nothing that is sent is read but method and path: a body only counts towards its bound. Each connection has one request
and a time limit, there are few at once, and few a second. Paths may be secrets, so no log has them.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import h11
import structlog

from holdpay.errors import ConfigError
from holdpay.lock import AlreadyRunning

MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 64 * 1024
LEAST_CHUNK_BYTES = 64
"""What a chunk of a body counts for at least: one of a byte takes as long to read."""
MAX_CONNECTIONS = 32
TIME_LIMIT_S = 10.0
"""From the connection to the answer."""
CONNECTIONS_PER_S = 20.0
CONNECTION_BURST = 100
PROXY_SOCKET_MODE = 0o666
"""Of one that a reverse proxy opens, whoever that is: a TCP port is open to every user of the machine too."""
TELL_EVERY_S = 60

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """To one request."""

    status: HTTPStatus
    body: bytes = b""
    content_type: str = "text/plain"


Respond = Callable[[str, str], Answer]
"""Of a method and a target, as it came."""


def hinting(on_hint: Callable[[str], bool]) -> Respond:
    """A POST to a known path is a hint, and no more. ``on_hint`` gets the last segment of a path; False: nobody knows
    it. So a reverse proxy may take a prefix away, or leave it."""

    def respond(method: str, target: str) -> Answer:
        is_hint = method == "POST" and on_hint(target.rpartition("/")[2])
        return Answer(HTTPStatus.OK if is_hint else HTTPStatus.NOT_FOUND)

    return respond


class Listener:
    """``listen``: "host:port", or the path of a Unix socket that the caller has claimed (``lock.SocketClaim``).
    ``key``: where the configuration names it. ``socket_mode``: of a Unix socket."""

    def __init__(self, listen: str | Path, respond: Respond, key: str, socket_mode: int = PROXY_SOCKET_MODE) -> None:
        self._listen = listen
        self._socket_mode = socket_mode
        self._respond = respond
        self._key = key
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._rate = _Rate()
        self._told_at_s = -float(TELL_EVERY_S)

    @property
    def is_up(self) -> bool:
        is_serving = self._server is not None and self._server.is_serving()
        return is_serving and (isinstance(self._listen, str) or self._listen.is_socket())

    async def start(self) -> None:
        """Raises AlreadyRunning if something else listens there, ConfigError if nothing can."""
        try:
            if isinstance(self._listen, str):
                host, _, port = self._listen.rpartition(":")
                self._server = await asyncio.start_server(
                    self._connected, host.strip("[]"), int(port), limit=MAX_HEAD_BYTES
                )
            else:
                self._server = await asyncio.start_unix_server(self._connected, self._listen, limit=MAX_HEAD_BYTES)
                self._listen.chmod(self._socket_mode)
        except OSError as error:
            raise self._unusable(error) from None

    async def keep(self) -> None:
        """Starts it again if it does not serve any more."""
        if not self.is_up:
            await self.stop()
            await self.start()

    async def stop(self) -> None:
        """Ends every connection too, answered or not."""
        if self._server is not None:
            self._server.close()
            self._server = None
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def _unusable(self, error: OSError) -> AlreadyRunning | ConfigError:
        if error.errno == errno.EADDRINUSE:
            return AlreadyRunning(
                f"Something else listens on {self._listen}, the address in {self._key}. End it, or name another one."
            )
        # asyncio words the errors of bind(2) itself, and those of names have numbers of their own.
        number = error.errno or 0
        why = os.strerror(number) if number > 0 else error.strerror
        return ConfigError(
            [f"{self._key}: {self._listen} cannot be listened on ({why}); name an address of this machine."]
        )

    # --- one connection -----------------------------------------------------------------------------------------------

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS or not self._rate.has_room():
            self._tell_of_flood()
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            async with asyncio.timeout(TIME_LIMIT_S):
                if (answer := await self._answer(reader)) is not None:
                    writer.write(_written(answer))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # the client went away or was too slow; or stop(), which asyncio.streams would report as an error
        except Exception as error:  # noqa: BLE001 - a defect of ours must not reach asyncio, whose report has more in it
            log.error("a request could not be answered", at=self._key, error=type(error).__name__)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> Answer | None:
        """None: the client left."""
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        head: h11.Request | None = None
        size = 0
        try:
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(await reader.read(MAX_HEAD_BYTES))
                elif isinstance(event, h11.Request):
                    head = event
                elif isinstance(event, h11.Data):
                    size += max(len(event.data), LEAST_CHUNK_BYTES if event.chunk_start else 0)
                    if size > MAX_BODY_BYTES:
                        return Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
                elif isinstance(event, h11.EndOfMessage) and head is not None:
                    return self._respond(head.method.decode("ascii"), head.target.decode("ascii", "replace"))
                else:
                    return None
        except h11.RemoteProtocolError as error:
            return Answer(HTTPStatus(error.error_status_hint))

    def _tell_of_flood(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._told_at_s >= TELL_EVERY_S:
            self._told_at_s = now_s
            log.warning("more comes there than is answered; let a reverse proxy limit it", at=self._key)


class _Rate:
    """CONNECTIONS_PER_S, and CONNECTION_BURST at once."""

    def __init__(self) -> None:
        self._room = float(CONNECTION_BURST)
        self._at_s = asyncio.get_running_loop().time()

    def has_room(self) -> bool:
        """Takes it, if there is some."""
        now_s = asyncio.get_running_loop().time()
        self._room = min(CONNECTION_BURST, self._room + (now_s - self._at_s) * CONNECTIONS_PER_S)
        self._at_s = now_s
        if self._room < 1:
            return False
        self._room -= 1
        return True


def _written(answer: Answer) -> bytes:
    head = f"HTTP/1.1 {answer.status:d} {answer.status.phrase}\r\nContent-Length: {len(answer.body)}\r\n"
    kind = f"Content-Type: {answer.content_type}\r\n" if answer.body else ""
    return f"{head}{kind}Connection: close\r\n\r\n".encode() + answer.body
