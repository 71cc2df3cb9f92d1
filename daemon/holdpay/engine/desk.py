"""Takes requests in: before an order is durable it may be refused, and nothing is recorded or ordered."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from holdpay.core.model import Order
from holdpay.core.policy import Policy
from holdpay.engine.engine import Engine
from holdpay.errors import InvalidRequest, KeyTaken, NotReady, OutOfStock, PriceTooHigh, PriceUnknown, ProviderError
from holdpay.ports import Catalog, CountryInfo, NodeState, Prices, ServiceInfo

KIND_CODE = "code"
MAX_KEY_LENGTH = 128
MAX_TEXT_LENGTH = 64
_ID_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_ID_LENGTH = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRequest:
    """What a client asks for. Absent limits are None; 0 is a limit."""

    country: str
    service: str
    max_price_sat: int | None
    max_fee_sat: int | None
    key: str
    force: bool


class Desk:
    """Checks requests and hands them to the engine."""

    def __init__(self, engine: Engine, catalog: Catalog, ref: str | None = None) -> None:
        """``ref``: a Lightning Address that earns a share of each order."""
        self._engine = engine
        self._catalog = catalog
        self._ref = ref

    async def request_code(self, request: CodeRequest) -> Order:
        """The recorded order, or the first one of the same key. Raises HoldpayError where it is refused."""
        _check_texts(request)
        country = self._catalog.resolve_country(request.country)
        first = self._engine.store.find_key(request.key)
        if first is not None:
            return self._same_again(first, request, country)
        self.check_ready()
        service, prices = await self._look_up(request, country)
        quote_sat = prices.receive_sat if prices.exact_sat is None else prices.exact_sat
        cap_sat = self._price_cap_sat(request, quote_sat)
        policy, now_ms = self._engine.policy, self._engine.clock.now_ms()
        return self._engine.request(
            Order(
                id="".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH)),
                kind=KIND_CODE,
                params={
                    "country": str(country.code),
                    "country_name": country.name,
                    "service": service.code,
                    "service_name": service.name,
                    **({} if self._ref is None else {"ref": self._ref}),
                },
                key=request.key,
                fingerprint=_fingerprint(request, country, service),
                created_at_ms=now_ms,
                pay_by_ms=now_ms + policy.pay_within_s * 1000,
                max_price_sat=cap_sat,
                max_fee_sat=_max_fee_sat(request, cap_sat, policy),
                quote_sat=quote_sat,
                state_since_ms=now_ms,
                place_at_ms=now_ms,
            )
        )

    def _same_again(self, first: Order, request: CodeRequest, country: CountryInfo) -> Order:
        """The first order of a key, if the request is the same one, in whatever words. Raises KeyTaken."""
        bought = ServiceInfo(first.params["service"], first.params["service_name"], None)
        try:
            service = self._catalog.resolve_service(request.service, [bought])
        except InvalidRequest:
            raise KeyTaken from None
        if first.fingerprint != _fingerprint(request, country, service):
            raise KeyTaken
        return first

    def check_ready(self) -> None:
        """Raises NotReady with the reason while no new order can be paid, or recorded to its end."""
        self._engine.store.check_space()
        status = self._engine.node_status()
        if status.state is not NodeState.READY:
            raise NotReady(
                status.detail or f"lnd is {status.state.value}. Wait until it is ready.", lnd_state=status.state.value
            )
        for cause, trouble in (("tasks", self._engine.trouble()), ("clock", self._engine.clock_trouble())):
            if trouble:
                raise NotReady(trouble, cause=cause)

    def reason_against_orders(self) -> str:
        """Why any order would be refused now, before the provider is even asked. Empty: it would not."""
        try:
            self.check_ready()
        except NotReady as error:
            return error.message
        reached = self._engine.limits.reached_by(self._engine.store.totals(self._engine.clock.now_ms()))
        return "" if reached is None else reached.message

    async def _look_up(self, request: CodeRequest, country: CountryInfo) -> tuple[ServiceInfo, Prices]:
        provider = self._engine.provider
        services = await provider.services(country.code)
        service = self._catalog.resolve_service(request.service, services)
        if service.stock == 0 and not request.force:
            raise OutOfStock(
                f"The provider has no numbers for {service.name} in {country.name} now. Try another country.",
                country=country.name,
                service=service.code,
            )
        try:
            return service, await provider.prices(country.code, service.code)
        except ProviderError:
            # The client's own limit is all that is needed to vet the invoice.
            if request.max_price_sat is None:
                raise
            return service, Prices(asked_at_ms=self._engine.clock.now_ms())

    def _price_cap_sat(self, request: CodeRequest, quote_sat: int | None) -> int:
        policy = self._engine.policy
        if quote_sat is not None and request.max_price_sat is not None and quote_sat > request.max_price_sat:
            raise PriceTooHigh(
                f"The price is {quote_sat:,} sat, and the request allows {request.max_price_sat:,}."
                " Allow more, or try another country.",
                price_sat=quote_sat,
                limit="max_price_sat",
                limit_sat=request.max_price_sat,
            )
        if quote_sat is not None and quote_sat > policy.max_price_sat:
            raise PriceTooHigh(
                f"The price is {quote_sat:,} sat, and payment.max_price_sat allows {policy.max_price_sat:,}."
                " Raise it in the configuration, or try another country.",
                price_sat=quote_sat,
                limit="payment.max_price_sat",
                limit_sat=policy.max_price_sat,
            )
        cap_sat = policy.price_cap_sat(quote_sat, request.max_price_sat)
        if cap_sat is None:
            raise PriceUnknown(limit="max_price_sat")
        return cap_sat


def _max_fee_sat(request: CodeRequest, cap_sat: int, policy: Policy) -> int:
    if request.max_fee_sat is None:
        return policy.fee_cap_sat(cap_sat)
    bound_sat = policy.fee_bound_sat(cap_sat)
    if request.max_fee_sat <= bound_sat:
        return request.max_fee_sat
    raise InvalidRequest(
        f"A fee limit of {request.max_fee_sat:,} sat was asked for, and payment.max_fee_sat allows {bound_sat:,} sat"
        f" for an order of up to {cap_sat:,} sat. Ask for a smaller one, or raise the key in the configuration.",
        field="max_fee_sat",
        limit="payment.max_fee_sat",
        limit_sat=bound_sat,
    )


def _fingerprint(request: CodeRequest, country: CountryInfo, service: ServiceInfo) -> str:
    parts = (KIND_CODE, country.code, service.code, request.max_price_sat, request.max_fee_sat)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _check_texts(request: CodeRequest) -> None:
    if not 1 <= len(request.key) <= MAX_KEY_LENGTH or not request.key.isprintable():
        raise InvalidRequest(
            f"The idempotency key must have 1 to {MAX_KEY_LENGTH} printable characters. Give another one.",
            field="idempotency_key",
        )
    for name, text in (("country", request.country), ("service", request.service)):
        if not 1 <= len(text.strip()) <= MAX_TEXT_LENGTH or not text.isprintable():
            raise InvalidRequest(
                f"The {name} must have 1 to {MAX_TEXT_LENGTH} printable characters. Give its name or its code.",
                field=name,
            )
    if request.max_price_sat == 0:
        raise InvalidRequest(
            "A price limit of 0 sat allows nothing. Give a positive number of sat.", field="max_price_sat"
        )
