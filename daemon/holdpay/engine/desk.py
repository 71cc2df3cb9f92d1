"""Takes requests in: before an order is durable it may be refused, and nothing is recorded or ordered."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import asdict

from holdpay.core.holds import WhenFull
from holdpay.core.kinds import AnySpec, CodeSpec
from holdpay.core.model import Order, Request
from holdpay.core.policy import Policy
from holdpay.engine.account import Account
from holdpay.engine.engine import Engine
from holdpay.engine.quoting import Quoted, Quoter
from holdpay.engine.wanted import Asked, FundWanted, Wanted
from holdpay.errors import BalanceTooLow, InvalidRequest, KeyTaken, NotReady, PriceTooHigh, PriceUnknown
from holdpay.ports import Catalog, NodeState

MAX_KEY_LENGTH = 128
_ID_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_ID_LENGTH = 10


class Desk:
    """Checks requests and hands them to the engine."""

    def __init__(self, engine: Engine, catalog: Catalog, account: Account, ref: str | None = None) -> None:
        """``ref``: a Lightning Address that earns a share of each order."""
        self._engine = engine
        self._account = account
        self._quoter = Quoter(engine.provider, catalog, ref)

    async def submit(self, asked: Asked, wanted: Wanted) -> Order:
        """The recorded order, or the first one of the same key. Raises HoldpayError where it is refused."""
        _check_asked(asked, wanted)
        self._quoter.check(wanted)
        first = self._engine.store.find_key(asked.key)
        if first is not None:
            return self._same_again(first, asked, wanted)
        self.check_ready(is_prepaid=asked.is_prepaid)
        if asked.is_prepaid or isinstance(wanted, FundWanted):
            # Without a key nothing of it can be ordered.
            balance_sat = (await self._account.balance()).balance_sat
        quoted = await self._quoter.quote(wanted, force=asked.force, needs_price=asked.max_price_sat is None)
        cap_sat = self._price_cap_sat(asked, quoted)
        if asked.is_prepaid and balance_sat < (quoted.quote_sat or 1):
            raise BalanceTooLow(
                f"The prepaid account has {balance_sat:,} sat, and the price is {quoted.quote_sat or 1:,} sat."
                " Put money into it, or order without it.",
                balance_sat=balance_sat,
                price_sat=quoted.quote_sat or 1,
            )
        return self._engine.request(self._order(asked, quoted, cap_sat))

    def _order(self, asked: Asked, quoted: Quoted, cap_sat: int) -> Order:
        policy, now_ms, webhooks = self._engine.policy, self._engine.clock.now_ms(), self._engine.webhooks
        request = Request(
            id="".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH)),
            key=asked.key,
            # Without a webhook of ours: it is another one each time.
            fingerprint=_fingerprint(asked, quoted.spec),
            spec=quoted.spec if webhooks is None else quoted.spec.with_webhook(webhooks.new_url),
            is_prepaid=asked.is_prepaid,
            created_at_ms=now_ms,
        )
        return Order(
            id=request.id,
            request=request,
            created_at_ms=now_ms,
            pay_by_ms=now_ms + policy.pay_within_s * 1000,
            max_price_sat=cap_sat,
            max_fee_sat=0 if asked.is_prepaid else _max_fee_sat(asked, cap_sat, policy),
            quote_sat=quoted.quote_sat,
            state_since_ms=now_ms,
            place_at_ms=now_ms,
        )

    def _same_again(self, first: Order, asked: Asked, wanted: Wanted) -> Order:
        """The first order of a key, if the request is the same one, in whatever words. Raises KeyTaken."""
        spec = self._quoter.read_again(wanted, first.spec)
        if first.request.fingerprint != _fingerprint(asked, spec):
            raise KeyTaken
        return first

    def check_ready(self, *, is_prepaid: bool = False) -> None:
        """Raises NotReady with the reason while no new order can be paid, or recorded to its end."""
        self._engine.store.check_space()
        status = self._engine.node_status()
        if status.state is not NodeState.READY and not is_prepaid:
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
        reached = self._engine.limits.reached_by(self._engine.totals())
        if reached is None and self._engine.places.caps.when_full is WhenFull.REFUSE:
            reached = self._engine.places.full(1)
        return "" if reached is None else reached.message

    def _price_cap_sat(self, asked: Asked, quoted: Quoted) -> int:
        policy, quote_sat = self._engine.policy, quoted.quote_sat
        if quote_sat is not None and asked.max_price_sat is not None and quote_sat > asked.max_price_sat:
            raise PriceTooHigh(
                f"The price is {quote_sat:,} sat, and the request allows {asked.max_price_sat:,}."
                " Allow more, or order something else.",
                price_sat=quote_sat,
                limit="max_price_sat",
                limit_sat=asked.max_price_sat,
            )
        if quote_sat is not None and quote_sat > policy.max_price_sat:
            raise PriceTooHigh(
                f"The price is {quote_sat:,} sat, and payment.max_price_sat allows {policy.max_price_sat:,}."
                " Raise it in the configuration, or order something else.",
                price_sat=quote_sat,
                limit="payment.max_price_sat",
                limit_sat=policy.max_price_sat,
            )
        cap_sat = quote_sat if quoted.is_exact else policy.price_cap_sat(quote_sat, asked.max_price_sat)
        if cap_sat is None:
            raise PriceUnknown(limit="max_price_sat")
        return cap_sat


def _max_fee_sat(asked: Asked, cap_sat: int, policy: Policy) -> int:
    if asked.max_fee_sat is None:
        return policy.fee_cap_sat(cap_sat)
    bound_sat = policy.fee_bound_sat(cap_sat)
    if asked.max_fee_sat <= bound_sat:
        return asked.max_fee_sat
    raise InvalidRequest(
        f"A fee limit of {asked.max_fee_sat:,} sat was asked for, and payment.max_fee_sat allows {bound_sat:,} sat"
        f" for an order of up to {cap_sat:,} sat. Ask for a smaller one, or raise the key in the configuration.",
        field="max_fee_sat",
        limit="payment.max_fee_sat",
        limit_sat=bound_sat,
    )


def _fingerprint(asked: Asked, spec: AnySpec) -> str:
    parts = (*_identity(spec), asked.max_price_sat, asked.max_fee_sat)
    if asked.is_prepaid:
        parts = (*parts, "prepaid")
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _identity(spec: AnySpec) -> tuple[object, ...]:
    """What makes two requests the same: not how the provider calls it."""
    if isinstance(spec, CodeSpec):
        # As the first release had it, for keys that were used then.
        more = tuple(value for value in (spec.is_real_phone, spec.ref) if value)
        return (spec.kind.value, spec.country, spec.service, *more)
    said = asdict(spec)
    return tuple(str(said[name]) for name in sorted(said) if not name.endswith("_name"))


def _check_asked(asked: Asked, wanted: Wanted) -> None:
    if not 1 <= len(asked.key) <= MAX_KEY_LENGTH or not asked.key.isprintable():
        raise InvalidRequest(
            f"The idempotency key must have 1 to {MAX_KEY_LENGTH} printable characters. Give another one.",
            field="idempotency_key",
        )
    if asked.max_price_sat == 0:
        raise InvalidRequest(
            "A price limit of 0 sat allows nothing. Give a positive number of sat.", field="max_price_sat"
        )
    if asked.is_prepaid and isinstance(wanted, FundWanted):
        raise InvalidRequest("The account cannot be funded from itself. Order it without the account.", field="prepaid")
