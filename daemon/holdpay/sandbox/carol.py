"""Hold invoices of a real lnd, over its REST interface: for a simulated sms4sats on a test net."""

from __future__ import annotations

import json
import ssl
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from holdpay.sandbox.payee import HoldInvoiceError, InvoiceState

TIMEOUT_S = 30


class Carol:
    """``HoldInvoices`` of the node at ``rest_url`` (https://host:port).

    The macaroon must allow invoices:write, invoices:read and info:read.
    A node that is away raises HoldInvoiceError like one that refuses: whoever waits repeats.
    """

    def __init__(self, rest_url: str, tls_cert_path: Path, macaroon_path: Path) -> None:
        self._http = httpx.AsyncClient(
            base_url=rest_url,
            verify=ssl.create_default_context(cafile=tls_cert_path),
            headers={"Grpc-Metadata-macaroon": macaroon_path.read_bytes().hex()},
            # Each order has a stream of its own.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
            timeout=TIMEOUT_S,
            trust_env=False,
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def pubkey(self) -> str:
        return str((await self._call("GET", "/v1/getinfo"))["identity_pubkey"])

    async def add(self, *, payment_hash: bytes, value_sat: int, memo: str, expiry_s: int, cltv_delta: int) -> str:
        invoice = {
            "hash": b64encode(payment_hash).decode(),
            "value": str(value_sat),
            "memo": memo,
            "expiry": str(expiry_s),
            "cltv_expiry": str(cltv_delta),
        }
        return str((await self._call("POST", "/v2/invoices/hodl", invoice))["payment_request"])

    async def state(self, payment_hash: bytes) -> InvoiceState:
        invoice = await self._call("GET", f"/v1/invoice/{payment_hash.hex()}")
        return InvoiceState(invoice["state"].lower())

    async def wait_state(self, payment_hash: bytes, *states: InvoiceState) -> InvoiceState:
        """Follows SubscribeSingleInvoice, which begins with the present state."""
        path = f"/v2/invoices/subscribe/{urlsafe_b64encode(payment_hash).decode()}"
        forever = httpx.Timeout(TIMEOUT_S, read=None)
        try:
            async with self._http.stream("GET", path, timeout=forever) as response:
                async for line in response.aiter_lines():
                    state = InvoiceState(_checked(json.loads(line))["result"]["state"].lower())
                    if state in states:
                        return state
        except (httpx.HTTPError, ValueError) as error:
            raise HoldInvoiceError(f"the node went away: {error}") from error
        raise HoldInvoiceError("the node ended the stream")

    async def settle(self, preimage: bytes) -> None:
        await self._call("POST", "/v2/invoices/settle", {"preimage": b64encode(preimage).decode()})

    async def cancel(self, payment_hash: bytes) -> None:
        await self._call("POST", "/v2/invoices/cancel", {"payment_hash": b64encode(payment_hash).decode()})

    async def _call(self, method: str, path: str, body: Mapping[str, str] | None = None) -> dict[str, Any]:
        try:
            response = await self._http.request(method, path, json=body)
            return _checked(response.json())
        except (httpx.HTTPError, ValueError) as error:
            raise HoldInvoiceError(f"the node does not answer: {error}") from error


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    """A unary call's error has its text on top, a stream's first one wraps it."""
    error = answer.get("error", answer)
    if "code" in answer or "error" in answer:
        raise HoldInvoiceError(error["message"] if isinstance(error, dict) else str(error))
    return answer
