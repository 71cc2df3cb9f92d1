"""The provider over HTTPS: requests out, ``parse`` makes sense of what comes back.

No URL is ever logged or put into an error: the provider's order id is in it, it is the payment hash, and whoever has it
can fetch the code or cancel the order.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final, Protocol, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import certifi
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

from holdpay import __version__
from holdpay.core.events import ProviderStatus
from holdpay.core.kinds.spec import Placing
from holdpay.errors import (
    ProviderError,
    ProviderKeyMissing,
    ProviderProtocolError,
    ProviderRefused,
    ProviderUnavailable,
)
from holdpay.ports import (
    Balance,
    Clock,
    Funding,
    Lane,
    ListedCountry,
    Placed,
    Prices,
    ProviderHealth,
    RentalOffer,
    Reply,
    ServiceInfo,
    Slot,
)
from holdpay.sms4sats import parse
from holdpay.sms4sats.cache import FreshCache
from holdpay.sms4sats.http import Request, Response
from holdpay.sms4sats.parse import Answer
from holdpay.sms4sats.rate import RateLimiter
from holdpay.sms4sats.transport import Transport
from holdpay.sms4sats.wire import Broken, NotConnected

T = TypeVar("T")

MAX_ORDER_BYTES: Final = 64 * 1024
MAX_LIST_BYTES: Final = 1024 * 1024
"""Of an order's status, too: a rental's may have all its messages."""
GET_TRIES: Final = 3
LOOK_UP_TRIES: Final = 2
FRESH_S: Final = 10
"""Stock and prices are looked up again after this: quotes are fresh by seconds."""
PATIENCE_S: Final = 10
"""A request that a person may be waiting for fails at once if the provider wants a longer pause than this."""
MAX_RETRY_AFTER_S: Final = 60
"""Orders are held meanwhile, and an SMS code is worth nothing after some minutes: no longer silence is granted."""
SLOW_S: Final = 3.0
"""An answer that takes longer says that the provider has more to do than it can."""
BAD_STATUS: Final = 500

KEY_HEADER: Final = "X-API-Key"

_LOST_CONNECTION = (NotConnected, Broken)
"""The answer never began, or was cut off: mostly a kept connection that the server had closed meanwhile."""


class Server(Protocol):
    """Implemented by ``transport.Transport``."""

    async def exchange(self, request: Request, max_bytes: int) -> Response:
        """The whole answer. Raises OSError; TimeoutError if the system gave up."""
        ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sms4SatsSettings:
    """How to reach the provider, and how often.

    ``url``: in ASCII. ``proxy``: http://, https:// or socks5h://; the environment's is never used. ``ca_file``: PEM,
    instead of the usual roots. ``api_key``: of the prepaid account; sent with the requests that are about it only.
    ``timeout_s``: for one request, from connecting to the last byte. ``max_requests_per_s``: all together; 0 means no
    limit.
    """

    url: str
    proxy: str | None
    ca_file: Path | None
    api_key: str | None = field(repr=False)
    timeout_s: float
    max_requests_per_s: float


class Sms4Sats:
    """``CodeProvider`` for the real sms4sats and for the sandbox's."""

    def __init__(self, settings: Sms4SatsSettings, clock: Clock, rng: random.Random) -> None:
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._limiter = RateLimiter(clock, settings.max_requests_per_s)
        self._services: FreshCache[int, tuple[ServiceInfo, ...]] = FreshCache(clock, FRESH_S)
        self._rentals: FreshCache[str | None, tuple[RentalOffer, ...]] = FreshCache(clock, FRESH_S)
        self._prices: FreshCache[tuple[int | None, str | None], Prices] = FreshCache(clock, FRESH_S)
        self.on_services: Callable[[Sequence[ServiceInfo]], None] = lambda services: None
        """Called with what the provider lists for some country."""
        self.on_answer: Callable[[str, str, float], None] = lambda endpoint, outcome, after_s: None
        """Called with each request's endpoint, what became of it (ok, too_many, 4xx, 5xx, timeout, unreachable or
        canceled), and the seconds that it took."""
        self._dated: tuple[str, int] = ("", 0)
        """The Date header of the latest answer, and when it came."""
        self._answered_at_ms: int | None = None
        self._last_error = ""
        self._request_count = 0
        self._http: Server = Transport(settings.url, _tls(settings.ca_file), settings.proxy)
        url = urlsplit(settings.url)
        self._base_path = quote(url.path.rstrip("/"), safe="/%:@!$&'()*+,;=")
        self._headers = {
            "Host": url.netloc,
            "User-Agent": f"holdpay/{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Cache-Control": "no-cache",
            "Connection": "keep-alive",
        }

    @property
    def health(self) -> ProviderHealth:
        return ProviderHealth(
            url=self._settings.url,
            answered_at_ms=self._answered_at_ms,
            last_error=self._last_error,
            request_count=self._request_count,
            requests_per_s=self._limiter.per_s,
        )

    @property
    def ahead_ms(self) -> int | None:
        """How far the provider's clock was ahead of ours at its latest answer, to a second. None: it told no date."""
        return date_ahead_ms(*self._dated)

    async def aclose(self) -> None:
        """Closes the connections. Orders go on at the provider; nothing is canceled."""
        await self._services.aclose()
        await self._rentals.aclose()
        await self._prices.aclose()
        await self._limiter.aclose()
        await self._http.aclose()

    async def place(self, placing: Placing) -> Reply[Placed]:
        """See ``CodeProvider``."""
        request = self._request("POST", placing.path, content=dict(placing.body), needs_key=placing.needs_key)
        self._check_pause()
        read = parse.placed_prepaid if placing.is_prepaid else parse.placed
        with await self._limiter.slot(Lane.PERSON):
            return await self._ask(request, read, MAX_ORDER_BYTES, tries=1)

    async def slot(self, lane: Lane) -> Slot:
        """See ``CodeProvider``."""
        return await self._limiter.slot(lane)

    async def order_status(self, provider_order_id: str) -> Reply[ProviderStatus]:
        """See ``CodeProvider``."""
        request = self._request("GET", "/orderstatus", {"orderId": provider_order_id})
        return await self._ask(
            request, lambda answer: parse.order_status(answer, provider_order_id), MAX_LIST_BYTES, tries=GET_TRIES
        )

    async def cancel(self, provider_order_id: str) -> Reply[None]:
        """See ``CodeProvider``. Waits for the end of a pause, since money is out."""
        request = self._request("GET", "/cancelorder", {"orderId": provider_order_id})
        with await self._limiter.slot(Lane.CANCEL):
            return await self._ask(request, parse.cancel_accepted, MAX_ORDER_BYTES, tries=1)

    async def countries(self) -> Sequence[ListedCountry]:
        """See ``CodeProvider``."""
        self._check_pause()
        request = self._request("GET", "/getCountries")
        return await self._look_up(request, parse.countries, MAX_LIST_BYTES)

    async def services(self, country_code: int) -> Sequence[ServiceInfo]:
        """See ``CodeProvider``. Up to FRESH_S old."""

        async def ask() -> tuple[ServiceInfo, ...]:
            self._check_pause()
            request = self._request("GET", "/getnumbersstatus", {"country": country_code})
            found = await self._look_up(request, parse.services, MAX_LIST_BYTES)
            self.on_services(found)
            return found

        return await self._services.get(country_code, ask)

    async def rentals(self, service: str | None = None) -> Sequence[RentalOffer]:
        """See ``CodeProvider``. Up to FRESH_S old."""

        async def ask() -> tuple[RentalOffer, ...]:
            self._check_pause()
            query = {} if service is None else {"service": service}
            request = self._request("GET", "/getRentalCountries", query)
            return await self._look_up(request, parse.rentals, MAX_LIST_BYTES)

        return await self._rentals.get(service, ask)

    async def prices(self, country_code: int | None = None, service: str | None = None) -> Prices:
        """See ``CodeProvider``. Up to FRESH_S old."""
        params = {"country": country_code, "service": service}
        query = {name: value for name, value in params.items() if value is not None}

        async def ask() -> Prices:
            self._check_pause()
            asked_at_ms = self._clock.now_ms()
            request = self._request("GET", "/price", query)
            return await self._look_up(request, lambda answer: parse.prices(answer, asked_at_ms), MAX_ORDER_BYTES)

        return await self._prices.get((country_code, service), ask)

    async def balance(self) -> Balance:
        """See ``PrepaidAccount``. Always asked anew."""
        asked_at_ms = self._clock.now_ms()
        return await self._look_into_account("/balance", lambda answer: parse.balance(answer, asked_at_ms))

    async def funding(self) -> Funding:
        """See ``PrepaidAccount``."""
        return await self._look_into_account("/history", parse.funding)

    async def _look_into_account(self, path: str, read: Callable[[Answer], T]) -> T:
        request = self._request("GET", path, needs_key=True)
        self._check_pause()
        try:
            return await self._look_up(request, read, MAX_LIST_BYTES)
        except ProviderRefused as error:
            raise ProviderRefused(
                f"{error.message}. See that provider.api_key_file holds the account's key.", error.raw
            ) from None

    async def _look_up(self, request: Request, read: Callable[[Answer], T], max_bytes: int) -> T:
        """What a person waits for: asked a second time if the provider stumbles and names no pause."""
        retrying = AsyncRetrying(
            stop=stop_after_attempt(LOOK_UP_TRIES),
            wait=lambda state: self._backoff_s(state.attempt_number),
            sleep=self._clock.sleep,
            retry=retry_if_exception(_is_stumble),
            reraise=True,
        )
        with await self._limiter.slot(Lane.PERSON):
            reply: Reply[T] = await retrying(self._ask, request, read, max_bytes, tries=GET_TRIES)
        return reply.value

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None = None,
        *,
        content: object | None = None,
        needs_key: bool = False,
    ) -> Request:
        target = f"{self._base_path}{path}?{urlencode(query)}" if query else f"{self._base_path}{path}"
        headers, body = self._headers, b""
        if content is not None:
            headers = {**headers, "Content-Type": "application/json"}
            body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        if needs_key:
            if self._settings.api_key is None:
                raise ProviderKeyMissing
            headers = {**headers, KEY_HEADER: self._settings.api_key}
        return Request(method=method, target=target, headers=headers, body=body)

    def _check_pause(self) -> None:
        left_s = self._limiter.pause_left_s
        if left_s > PATIENCE_S:
            raise ProviderUnavailable(
                f"sms4sats takes no requests for the next {left_s:.0f} s. Try again then.",
                retry_after_s=left_s,
                is_turned_away=True,
            )

    async def _ask(self, request: Request, read: Callable[[Answer], T], max_bytes: int, *, tries: int) -> Reply[T]:
        try:
            answer = _without_key(await self._exchange(request, max_bytes, tries), request)
            reply = Reply(read(answer), answer.raw)
        except ProviderRefused:
            self._last_error = ""
            raise
        except ProviderError as error:
            now = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
            self._last_error = f"{now:%Y-%m-%dT%H:%M:%SZ}: {error.message}"
            if isinstance(error, ProviderUnavailable):
                if error.retry_after_s is None:
                    self._limiter.trouble()
                else:
                    self._limiter.too_many()
                    self._limiter.pause(error.retry_after_s)
            raise
        self._last_error = ""
        return reply

    async def _exchange(self, request: Request, max_bytes: int, tries: int) -> Answer:
        """One answer, up to ``tries`` times if the connection fails. Raises ProviderError only."""
        began_ms = self._clock.now_ms()
        outcome = "canceled"
        try:
            answer = await self._transferred(request, max_bytes, tries)
            outcome = _outcome(answer.http_status)
        except TimeoutError as error:
            outcome = "timeout"
            raise ProviderUnavailable(
                f"sms4sats did not answer within {self._settings.timeout_s:g} s. Try again later.",
                is_turned_away=not request.is_sent,
            ) from error
        except OSError as error:
            outcome = "unreachable"
            # h11 quotes what it could not read: as long as the server likes, with whatever is in it.
            why = f" ({parse.masked(parse.one_line(str(error)))})" if str(error) else ""
            raise ProviderUnavailable(
                f"sms4sats cannot be reached{why}. {_advice(str(error))}", is_turned_away=not request.is_sent
            ) from error
        finally:
            self.on_answer(_endpoint(request), outcome, (self._clock.now_ms() - began_ms) / 1000)
        self._answered_at_ms = self._clock.now_ms()
        if self._answered_at_ms - began_ms > SLOW_S * 1000:
            self._limiter.trouble()
        elif answer.http_status < BAD_STATUS:
            self._limiter.fine()
        return answer

    async def _transferred(self, request: Request, max_bytes: int, tries: int) -> Answer:
        # No tenacity: nearly always the first try is the only one, and its bookkeeping costs more than that.
        for attempt in range(1, tries):
            try:
                return await self._transfer(request, max_bytes)
            except _LOST_CONNECTION:
                await self._clock.sleep(self._backoff_s(attempt))
        return await self._transfer(request, max_bytes)

    def _backoff_s(self, attempt: int) -> float:
        return self._rng.uniform(0.2, 0.6) * attempt

    async def _transfer(self, request: Request, max_bytes: int) -> Answer:
        self._request_count += 1
        async with asyncio.timeout(self._settings.timeout_s):
            response = await self._http.exchange(request, max_bytes)
        if len(response.body) > max_bytes:
            raise ProviderProtocolError(
                f"sms4sats answered with more than {max_bytes} bytes. See that provider.base_url is right.",
                response.body[:max_bytes].decode("utf-8", errors="replace"),
            )
        self._dated = response.headers.get("date", ""), self._clock.now_ms()
        retry_after_s = retry_after(response.headers.get("retry-after", ""), self._clock.now_ms())
        return Answer(response.status, response.body, retry_after_s)


def _without_key(answer: Answer, request: Request) -> Answer:
    """The account's key is in no reply that is kept or told: the provider names it in some (``/history``: userId)."""
    key = request.headers.get(KEY_HEADER, "")
    return replace(answer, body=answer.body.replace(key.encode(), "…".encode())) if key else answer


def _endpoint(request: Request) -> str:
    return request.target.partition("?")[0].rpartition("/")[2]


def _outcome(http_status: int) -> str:
    if http_status == HTTPStatus.TOO_MANY_REQUESTS:
        return "too_many"
    return "ok" if http_status < HTTPStatus.BAD_REQUEST else f"{http_status // 100}xx"


def _advice(why: str) -> str:
    """What to do about a connection that failed; the words are OpenSSL's."""
    if "certificate has expired" in why or "certificate is not yet valid" in why:
        return (
            "See that this machine's clock is right (`timedatectl`); if it is, only sms4sats can mend its certificate."
        )
    if "CERTIFICATE_VERIFY_FAILED" in why:
        return (
            "Somebody else answers in its place, or this machine lacks the root: log in to the network if it has a"
            " login page, and see that provider.base_url and provider.proxy are right."
        )
    return "See that the network, provider.base_url and provider.proxy are right."


def retry_after(text: str, now_ms: int) -> float | None:
    """What a Retry-After header asks for, seconds or an HTTP date, at most MAX_RETRY_AFTER_S. None: nothing usable."""
    text = text.strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), MAX_RETRY_AFTER_S))
    try:
        at = parsedate_to_datetime(text)
        left_s = at.timestamp() - now_ms / 1000
    except (ValueError, OverflowError):
        return None
    return min(max(left_s, 0.0), float(MAX_RETRY_AFTER_S))


def date_ahead_ms(text: str, now_ms: int) -> int | None:
    """How far a Date header is ahead of ``now_ms``; in the middle of its second. None: it is no date."""
    try:
        return round(parsedate_to_datetime(text.strip()).timestamp() * 1000) + 500 - now_ms
    except (ValueError, OverflowError):
        return None


def _is_stumble(error: BaseException) -> bool:
    return isinstance(error, ProviderUnavailable) and error.raw is not None and error.retry_after_s is None


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    """The authorities of browsers vouch for the provider, or a given one."""
    context = ssl.create_default_context(cafile=ca_file or certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context
