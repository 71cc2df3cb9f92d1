"""JSON over HTTPS with the node's own certificate: lnd's REST interface, and btcd's RPC.

REST needs no generated stubs, so the harness shares a process with any code that has lnd stubs of its own.
"""

import json
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx

TIMEOUT_S: Final = 60

Json = dict[str, Any]


class NodeError(Exception):
    """The node refused: `code` is the gRPC status code, `message` the node's text."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} (gRPC code {code})")
        self.code = code
        self.message = message


def b64(raw: bytes) -> str:
    """Bytes as lnd's JSON carries them."""
    return b64encode(raw).decode()


def https_client(tls_cert_path: Path, **options: Any) -> httpx.AsyncClient:
    """A client that trusts this one certificate, ignores the environment's proxies, and fits any event loop.

    Connections are not kept: a pooled one belongs to the loop that opened it, and every test has a loop of its own.
    """
    return httpx.AsyncClient(
        verify=ssl.create_default_context(cafile=str(tls_cert_path)),
        limits=httpx.Limits(max_keepalive_connections=0),
        timeout=TIMEOUT_S,
        trust_env=False,
        **options,
    )


class Rest:
    """lnd's REST interface at `address` (host:port), with one macaroon."""

    def __init__(self, address: str, tls_cert_path: Path, macaroon: bytes) -> None:
        self._http = https_client(
            tls_cert_path, base_url=f"https://{address}", headers={"Grpc-Metadata-macaroon": macaroon.hex()}
        )

    async def get(self, path: str, query: Mapping[str, str | int | bool] | None = None) -> Json:
        """GET; raises NodeError, or httpx.TransportError when the node is not reachable."""
        return _checked(await self._http.get(path, params=query))

    async def post(self, path: str, body: Json) -> Json:
        """POST; errors as for `get`. Byte fields of lnd's messages are base64 (`b64`), 64-bit numbers are strings."""
        return _checked(await self._http.post(path, json=body))

    async def delete(self, path: str, query: Mapping[str, str | int | bool] | None = None) -> Json:
        """DELETE; errors as for `get`."""
        return _checked(await self._http.delete(path, params=query))

    async def stream(self, path: str, body: Json) -> AsyncIterator[Json]:
        """POST to a server stream: every message as it comes, without a deadline. Errors as for `get`."""
        async with self._http.stream("POST", path, json=body, timeout=httpx.Timeout(TIMEOUT_S, read=None)) as reply:
            if reply.is_error:
                await reply.aread()
                _checked(reply)
            async for line in reply.aiter_lines():
                message = json.loads(line)
                if "error" in message:
                    raise NodeError(message["error"]["code"], message["error"]["message"])
                yield message["result"]


def _checked(reply: httpx.Response) -> Json:
    answer: Json = reply.json()
    if reply.is_error:
        # A stream's first error comes wrapped, a unary call's does not.
        error = answer.get("error", answer)
        raise NodeError(error["code"], error["message"])
    return answer
