"""Decisions about money that need no state: what may be paid, up to which fee, and whether to try again."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from holdpay.core.lightning import (
    AttemptStatus,
    DispatchSpec,
    FailureCode,
    FailureReason,
    PaymentUpdate,
)
from holdpay.core.model import Order, Payment
from holdpay.core.payees import PayeeCheck
from holdpay.core.routes import RouteQuery
from holdpay.core.states import FailureClass

CLTV_PADDING_DELTA = 3
"""Blocks that LND adds to the final delta (lnd: routing/payment_session.go, BlockPadding)."""


DEFAULT_MAX_FEE_SAT = 50
DEFAULT_MAX_FEE_PERCENT = 5
"""Without ``max_fee_sat`` a fee limit may be the greater of both: a small sum has no route for 5 % of it."""


class Strictness(StrEnum):
    """What a check of the hold invoice does when it fails."""

    PIN = "pin"
    """Refuse the invoice."""
    WARN = "warn"
    """Log it and pay."""
    OFF = "off"
    """Do not look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Every number of the configuration that the pure part needs."""

    payee_pubkeys: frozenset[str]
    payee_check: PayeeCheck
    order_id_check: Strictness
    network: str | None
    """None: whatever network the paying node is on."""
    price_tolerance_percent: float
    max_price_sat: int
    fee_limit_percent: float
    fee_limit_floor_sat: int
    max_fee_sat: int | None
    """What a client may allow for the route at most. None: ``fee_bound_sat`` has the default."""
    fee_rungs_percent: tuple[float, ...]
    """Rising, in percent of the usual fee limit: see ``ladder``."""
    max_final_cltv_delta: int
    route_cltv_delta: int
    mpp_from_sat: int
    mpp_max_parts: int
    min_expiry_left_s: int
    pay_within_s: int
    close_unpaid_after_s: int
    retry_delays_s: tuple[int, ...]
    """Waits before the second, third ... dispatch after one that tried a route, or that had the whole fee limit; the
    last one repeats."""
    max_dispatches: int
    retrack_s: int
    prove_absent_s: int
    confirm_unpaid_s: int
    cancel_after_s: int
    cancel_retry_s: int
    promise_s: int
    settled_grace_s: int
    hold_max_wait_s: int
    guard_in_transit_s: int
    guard_refund_s: int
    guard_peer_offline_s: int
    guard_warning_blocks: int
    guard_critical_blocks: int
    place_attempts: int
    place_retry_s: int
    poll_min_s: float
    poll_max_s: float
    max_attempts: int
    """Orders that one request may make in turn."""
    poll_late_max_s: float
    """The upper bound once ``promise_s`` has been waited: a code that is so late is in no hurry."""

    def fee_cap_sat(self, amount_sat: int) -> int:
        """The usual fee limit for an amount, which is the whole one where the client named none; within the bound."""
        return min(self.wanted_fee_cap_sat(amount_sat), self.fee_bound_sat(amount_sat))

    def wanted_fee_cap_sat(self, amount_sat: int) -> int:
        """The same as percent and floor alone would have it."""
        return max(self.fee_limit_floor_sat, int(amount_sat * self.fee_limit_percent / 100))

    def fee_bound_sat(self, amount_sat: int) -> int:
        """What no fee limit may be over, whoever names it.

        The amount is what the order may cost at most until its hold invoice is there, and what that asks from then on.
        """
        if self.max_fee_sat is not None:
            return self.max_fee_sat
        return max(DEFAULT_MAX_FEE_SAT, amount_sat * DEFAULT_MAX_FEE_PERCENT // 100)

    def price_cap_sat(self, quote_sat: int | None, max_price_sat: int | None) -> int | None:
        """What the invoice may ask at most; None where neither a quote nor the client's limit says anything."""
        caps = [] if max_price_sat is None else [max_price_sat]
        if quote_sat is not None:
            caps.append(int(quote_sat * (1 + self.price_tolerance_percent / 100)))
        return min([*caps, self.max_price_sat]) if caps else None


def cltv_limit(payment: Payment, policy: Policy) -> int:
    """How many blocks from its dispatch the HTLC of a payment may live at most."""
    return payment.final_cltv_delta + CLTV_PADDING_DELTA + policy.route_cltv_delta


def latest_expiry_height(payment: Payment, policy: Policy) -> int | None:
    """Up to which block height an HTLC of the latest dispatch can exist. None: LND has named none (yet)."""
    if payment.expiry_height is not None or payment.first_look_height is None:
        return payment.expiry_height
    return payment.first_look_height + cltv_limit(payment, policy)


def dispatch_spec(payment: Payment, pay_by_ms: int, policy: Policy, now_ms: int) -> DispatchSpec:
    """The whole of one SendPaymentV2 call, from what is on disk.

    lnd's time-out is what is left until ``pay_by_ms``, in whole seconds (1 at least: 0 would be lnd's own default). lnd
    looks at it before each attempt and at no other time (lnd: routing/payment_lifecycle.go, checkContext), so none
    starts later, also if this daemon is dead by then; an HTLC that is held stays held. An HTLC that ends after it has
    its reason overwritten by TIMEOUT for all who ask lnd later, while the stream that saw it end still tells the true
    one. That costs nothing here: no dispatch is licensed after ``pay_by_ms`` whatever the reason, ``classify`` knows
    the later word as READ_LATER, and the provider's word says whether the HTLC had been held. The other way, a
    ``cancelable`` stream that is dropped in time, would bind the bound, and with it every reason, to the life of this
    process and of its connection.
    """
    return DispatchSpec(
        payreq=payment.payreq,
        payment_hash=payment.payment_hash,
        fee_limit_msat=payment.fee_limit_msat,
        timeout_s=max(1, (pay_by_ms - now_ms) // 1000),
        max_parts=max_parts(payment.amount_msat, policy),
        cltv_limit=cltv_limit(payment, policy),
    )


def max_parts(amount_msat: int, policy: Policy) -> int:
    """Into how many HTLCs a payment may be split."""
    return policy.mpp_max_parts if amount_msat > policy.mpp_from_sat * 1000 else 1


def route_query(order: Order, payment: Payment, policy: Policy) -> RouteQuery:
    """What a dispatch with the whole fee limit would ask LND for."""
    return RouteQuery(
        payee=payment.payee,
        amount_msat=payment.amount_msat,
        fee_limit_msat=order.max_fee_sat * 1000,
        final_cltv_delta=payment.final_cltv_delta,
        cltv_limit=cltv_limit(payment, policy),
        max_parts=max_parts(payment.amount_msat, policy),
    )


def classify(update: PaymentUpdate, live: bool) -> FailureClass:
    """What a terminal failure means. Only a failure seen live may license the next dispatch by itself."""
    failed = [a for a in update.attempts if a.status is AttemptStatus.FAILED]
    if any(a.failure_code == FailureCode.PERMANENT_CHANNEL_FAILURE for a in failed):
        return FailureClass.ON_CHAIN
    if update.failure_reason is FailureReason.INCORRECT_PAYMENT_DETAILS or any(a.failed_at_payee for a in failed):
        return FailureClass.PAYEE_REFUSED
    if not live:
        return FailureClass.READ_LATER
    return FailureClass.ROUTING if failed else FailureClass.NO_ATTEMPT
