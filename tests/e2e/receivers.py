"""A receiver of hooks as a program of its own would be: real HTTP, and it can hold an answer back."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Got:
    """One POST."""

    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    @property
    def type(self) -> str:
        return str(self.told["type"])

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass(slots=True)
class Receiver:
    """What came, in order. ``status``: how it answers; ``may_answer``: cleared, it has the request and stays silent."""

    status: int = 204
    reply: bytes = b""
    extra_headers: str = ""
    got: list[Got] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    url: str = ""

    def of_type(self, *types: str) -> list[Got]:
        return [got for got in self.got if got.type in types]

    async def until(self, count: int, *types: str, within_s: float = 120) -> list[Got]:
        """Once so many came of these types, or of any."""
        async with asyncio.timeout(within_s), self.news:
            await self.news.wait_for(lambda: len(self.of_type(*types) if types else self.got) >= count)
        return self.of_type(*types) if types else list(self.got)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                _, *lines = head.split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                async with self.news:
                    self.got.append(Got(headers, body))
                    self.news.notify_all()
                await self.may_answer.wait()
                length = f"content-length: {len(self.reply)}\r\n" if self.status != 204 else ""
                writer.write(f"HTTP/1.1 {self.status} X\r\n{length}{self.extra_headers}\r\n".encode() + self.reply)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def receiving(**changes: Any) -> AsyncIterator[Receiver]:
    receiver = Receiver(**changes)
    receiver.may_answer.set()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks/from-holdpay"
    try:
        yield receiver
    finally:
        receiver.may_answer.set()
        server.close()
