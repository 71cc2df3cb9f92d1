"""A provider on virtual time that counts what it is asked, and may refuse what is too much."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from holdpay.core.lightning import Invoice
from holdpay.sms4sats.http import Request, Response
from tests.bench.timings import Timing
from tests.fakes import NO_NUMBER, PAYEE, START_MS

PRICE_SAT: Final = 2_000
PAID_AFTER_S: Final = 0.4
"""From the HTLC's arrival until the status says so."""
ANSWERS_WITHIN_S: Final = (0.05, 0.3)
"""Of every request, there and back."""
FAILS_AFTER_S: Final = 0.5
"""From the provider's word that it is over until the HTLC is back."""
WEBSITE: Final = "bench.example"
TOO_MANY: Final = 429


@dataclass(slots=True, kw_only=True)
class Sale:
    """An order as the provider knows it. Times are those of the loop, in s; None: not yet."""

    name: str
    timing: Timing
    preimage: str
    payment_hash: str
    paid_at_s: float | None = None
    number_at_s: float | None = None
    code_at_s: float | None = None
    """When the status began to show it."""
    error: str = ""
    polls: int = 0
    cancel_asked_at_s: float | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The reply of ``/orderstatus``."""
        said = {
            "number": "15551234567" if self.number_at_s is not None else None,
            "code": "012345" if self.code_at_s is not None else None,
            "error": self.error or None,
        }
        is_paid = self.paid_at_s is not None
        return {"status": "OK", "paid": is_paid, **{name: text for name, text in said.items() if text}}

    @property
    def is_over(self) -> bool:
        return bool(self.error) or self.code_at_s is not None


@dataclass(slots=True)
class Market:
    """Sells orders whose lives are the drawn ones.

    ``timing_of``: by the name of an order. ``allows_per_s``: more requests than this, after a burst of as many, are
    refused with 429; None: none is. ``settled``, ``failed``: what becomes of a held HTLC.
    """

    timing_of: Callable[[str], Timing]
    rng: Random
    allows_per_s: float | None = None
    sales: dict[str, Sale] = field(default_factory=dict)
    """By payment hash."""
    invoices: dict[str, Invoice] = field(default_factory=dict)
    """By payment request."""
    requests: Counter[str] = field(default_factory=Counter)
    """By path."""
    by_second: Counter[int] = field(default_factory=Counter)
    refused: int = 0
    settled: Callable[[Sale], None] = lambda sale: None
    failed: Callable[[Sale], None] = lambda sale: None
    _room: float = 0.0
    _room_at_s: float = 0.0

    # --- what it answers

    async def answer(self, method: str, path: str, given: dict[str, Any]) -> tuple[int, Any]:
        """HTTP status and body."""
        took_s = self.rng.uniform(*ANSWERS_WITHIN_S)
        await asyncio.sleep(took_s / 2)
        self.requests[path] += 1
        self.by_second[int(_now_s())] += 1
        if self._is_too_much():
            self.refused += 1
            reply: tuple[int, Any] = TOO_MANY, {"status": "ERROR", "reason": "Too many requests"}
        else:
            reply = 200, self._look_up(path, given)
        await asyncio.sleep(took_s / 2)
        return reply

    async def exchange(self, request: Request, max_bytes: int) -> Response:
        """In the place of the provider's server."""
        url = urlsplit(request.target)
        given = json.loads(request.body) if request.body else dict(parse_qsl(url.query))
        status, body = await self.answer(request.method, url.path, given)
        return Response(status, {}, json.dumps(body).encode())

    async def aclose(self) -> None:
        """Nothing is open."""

    def _is_too_much(self) -> bool:
        if self.allows_per_s is None:
            return False
        now_s = _now_s()
        burst = max(1.0, self.allows_per_s)
        self._room = min(burst, self._room + (now_s - self._room_at_s) * self.allows_per_s)
        self._room_at_s = now_s
        if self._room < 1:
            return True
        self._room -= 1
        return False

    def _look_up(self, path: str, given: dict[str, Any]) -> Any:
        match path.lower():
            case "/createorder":
                return self._sell(given["ref"].partition("@")[0])
            case "/orderstatus":
                sale = self.sales[given["orderId"]]
                sale.polls += 1
                return sale.body
            case "/cancelorder":
                return self._cancel(self.sales[given["orderId"]])
            case "/getnumbersstatus":
                return [{"value": code, "text": code, "count": 1000} for code in ("dr", "go", "tg", "wa")]
            case "/price":
                return {"status": "OK", "receive": PRICE_SAT}
        raise AssertionError(f"nobody asks for {path}")

    def _sell(self, name: str) -> dict[str, Any]:
        preimage = f"{len(self.sales) + 1:064x}"
        payment_hash, payreq = hashlib.sha256(bytes.fromhex(preimage)).hexdigest(), f"lnsb20u1bench{len(self.sales)}"
        timing = self.timing_of(name)
        self.sales[payment_hash] = Sale(name=name, timing=timing, preimage=preimage, payment_hash=payment_hash)
        self.invoices[payreq] = Invoice(
            payment_hash=payment_hash,
            payee=PAYEE,
            amount_msat=PRICE_SAT * 1000,
            created_at_ms=START_MS + int(_now_s() * 1000),
            expiry_s=86_400,
            final_cltv_delta=40,
            has_payment_address=True,
            memo="sms4sats payment",
        )
        return {"status": "OK", "orderId": payment_hash, "payreq": payreq}

    def _cancel(self, sale: Sale) -> dict[str, Any]:
        if sale.cancel_asked_at_s is None:
            sale.cancel_asked_at_s = _now_s()
        if sale.is_over:
            return {"status": "ERROR", "reason": "too late"}
        self._end(sale, "Order canceled, payment request is canceled.")
        return {"status": "OK"}

    # --- the life of an order

    def hold(self, payment_hash: str) -> None:
        """An HTLC came for it."""
        sale, timing = self.sales[payment_hash], self.sales[payment_hash].timing
        if sale.is_over:
            self.failed(sale)
            return
        _later(PAID_AFTER_S, lambda: self._is_paid(sale))
        if timing.number_after_s is None:
            _later(timing.gives_up_after_s, lambda: self._end(sale, NO_NUMBER))
        else:
            _later(timing.number_after_s, lambda: self._number(sale))

    def _is_paid(self, sale: Sale) -> None:
        sale.paid_at_s = _now_s()

    def _number(self, sale: Sale) -> None:
        if sale.is_over:
            return
        sale.number_at_s = _now_s()
        if sale.timing.code_after_s is not None:
            _later(sale.timing.code_after_s, lambda: self._code(sale))

    def _code(self, sale: Sale) -> None:
        """The SMS is here."""
        if sale.is_over:
            return
        _later(sale.timing.shown_after_s, lambda: self._show(sale))
        _later(sale.timing.settles_after_s, lambda: self._settle(sale))

    def _show(self, sale: Sale) -> None:
        if not sale.error:
            sale.code_at_s = _now_s()

    def _settle(self, sale: Sale) -> None:
        if not sale.error:
            self.settled(sale)

    def _end(self, sale: Sale, text: str) -> None:
        if not sale.is_over:
            sale.error = text
            _later(FAILS_AFTER_S, lambda: self.failed(sale))


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _later(seconds: float, act: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, act)
