"""The order and its payment: one pair, two truths.

The provider owns what became of the order, LND owns what became of the HTLC; both are recorded as each said it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from holdpay.core.lightning import FailureReason


class OrderState(StrEnum):
    """The order, in the provider's words (the first and the last are ours). None of them says whether money is out."""

    REQUESTED = "requested"
    """We want it; the provider has not answered. No money is out: there is no invoice yet."""
    AWAITING_PAYMENT = "awaiting_payment"
    """Order id and hold invoice are known. Money may be out: ask the HTLC."""
    PAID = "paid"
    """The provider says that it holds the HTLC. Money was out: ask the HTLC for now."""
    NUMBER_ASSIGNED = "number_assigned"
    """A number to receive the SMS on. Money was out."""
    DELIVERED = "delivered"
    """The code arrived. Money is spent, or about to be."""
    CANCELED = "canceled"
    """The provider says that it is over. Money may still be on its way back."""
    ABANDONED = "abandoned"
    """We stopped asking. No money is out: this is law."""


class HtlcState(StrEnum):
    """The HTLC, in LND's words."""

    NONE = "none"
    """Never dispatched, or proven absent. No money is out."""
    DISPATCHING = "dispatching"
    """The intent is on disk, SendPaymentV2 may or may not have arrived. Assume that money is out."""
    UNKNOWN = "unknown"
    """Only TrackPaymentV2 can say. Assume that money is out."""
    IN_FLIGHT = "in_flight"
    """LND has it in work. Money is out."""
    SETTLED = "settled"
    """The preimage is known and fits. The money is spent."""
    FAILED = "failed"
    """LND's terminal failure, or an HTLC that no channel ever carried. The money is back."""
    GONE = "gone"
    """LND has no record of it any more and no channel carries it, or an operator wrote it off. No money is out; whether
    it was spent nobody can say, so it counts as spent. Only closed orders are here."""


MONEY_MAY_BE_OUT = frozenset({HtlcState.DISPATCHING, HtlcState.UNKNOWN, HtlcState.IN_FLIGHT})
SPENT = frozenset({HtlcState.SETTLED, HtlcState.GONE})
"""What the limits count as spent."""


class End(StrEnum):
    """How a closed order ended. Money is out in none of them."""

    CODE_RECEIVED = "code_received"
    """Spent, and worth it."""
    CODE_FREE = "code_free"
    """A code without a charge: an anomaly in our favour. Nothing was spent."""
    REFUNDED = "refunded"
    """The HTLC had reached the payee and came back."""
    CANCELED_UNPAID = "canceled_unpaid"
    """Over before money was out."""
    INVOICE_REJECTED = "invoice_rejected"
    """Our own rules refused the hold invoice. Nothing was sent."""
    PROVIDER_REFUSED = "provider_refused"
    """The provider did not take the order. Nothing was sent."""
    PAYMENT_FAILED = "payment_failed"
    """No route in time. Nothing was spent."""
    CHARGED_WITHOUT_CODE = "charged_without_code"
    """Spent for nothing; the preimage is the proof."""
    OUTCOME_UNKNOWN = "outcome_unknown"
    """No code, and nobody can say whether the money was spent. It counts as spent."""


class FailureClass(StrEnum):
    """What a terminal failure of LND means for the next dispatch."""

    ROUTING = "routing"
    """It failed on the way, seen live. The same invoice may be tried again once the provider says unpaid."""
    NO_ATTEMPT = "no_attempt"
    """LND found nothing to try within the limits, seen live. As ROUTING, but nothing was learnt about the way."""
    READ_LATER = "read_later"
    """Attempts are gone and the reason may be overwritten. Two unpaid replies of the provider license another try."""
    PAYEE_REFUSED = "payee_refused"
    """The payee canceled the hold invoice, or refused the HTLC. Never dispatched again."""
    ON_CHAIN = "on_chain"
    """A channel was closed under the HTLC. Its reason looks retryable and is not: never dispatched again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentFailure:
    """The first terminal failure of the latest dispatch, kept because LND overwrites and deletes it."""

    reason: FailureReason
    failure_class: FailureClass
    attempt_count: int
    payment_index: int
    """LND's number of the try that failed: a later read with the same number is not about the latest dispatch."""
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """One vetted hold invoice and all that LND said of it. Its payment hash is unique for ever."""

    payment_hash: str
    payreq: str
    payee: str
    amount_msat: int
    expires_at_ms: int
    final_cltv_delta: int
    node_pubkey: str
    """The node that vetted it, and the only one that may ever pay or be asked about it."""
    node_network: str
    htlc: HtlcState = HtlcState.NONE
    htlc_since_ms: int
    dispatch_count: int = 0
    fee_limit_msat: int = 0
    """Of the latest dispatch; of the next one while none is out."""
    dispatch_at_ms: int | None = None
    """Not before this time may the next dispatch start. None: no dispatch is planned."""
    is_known_to_lnd: bool = False
    """LND has spoken of the latest dispatch: a NOT_FOUND then means a deleted record, and proves nothing."""
    reached_payee: bool = False
    """The payee had the HTLC, or may have had it, or the provider called the order paid. Never dispatched again."""
    money_out_since_ms: int | None = None
    expiry_height: int | None = None
    """The highest expiry height of the attempts that are out."""
    fee_msat: int = 0
    """Of the attempts that are out or settled."""
    attempt_count: int = 0
    preimage: str | None = None
    failure: PaymentFailure | None = None
    unpaid_since_ms: int | None = None
    """The first provider reply, asked after the latest failure or proven absence, that said unpaid and no error."""
    unpaid_again_at_ms: int | None = None
    """The latest such reply, at least ``confirm_unpaid_s`` after the first."""
    absent_since_ms: int | None = None
    """When LND first said that the latest dispatch never arrived. Once proves nothing: ``prove_absent_s``."""
    refusal: str | None = None
    """LND's text when it refused the latest dispatch. It proves nothing."""
    was_there_before: bool = False
    """It refused the very first dispatch because it had a payment of this hash: one that is not this order's."""
    gone_since_ms: int | None = None
    """Since when LND, which had spoken of the latest dispatch, has no record of it. None: it has one."""
    first_look_height: int | None = None
    """The block height of the first look at the node's channels for it. Where LND never named an expiry height, it says
    how long an HTLC can live."""
    uncarried_since_ms: int | None = None
    """Since when, after its expiry height, no channel carried the HTLC. Once proves nothing: ``prove_absent_s``."""
    is_paid_before: bool = False
    """It is settled, and the node had paid it before the order was requested: for this order nothing was spent."""


MAX_OTHERS = 5
"""Numbers besides the one that counts, and codes: a provider that names a new one each time must not fill the disk."""
RECOVERED: Final = "recovered"
"""The fingerprint of an order that `holdpayd recover` made. No request has it, so its key is never a client's."""
UNKNOWN: Final = "unknown"
"""The service and the country of a recovered order whose invoice does not tell them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One request of a client, from recorded to closed."""

    id: str
    kind: str
    params: Mapping[str, str]
    """What is bought, by kind. code: country (numeric), country_name, service (short code), service_name."""
    key: str
    """The client's idempotency key."""
    fingerprint: str
    """Of the request's parameters: the same key with another fingerprint is refused."""
    created_at_ms: int
    pay_by_ms: int
    """No dispatch starts from here on."""
    max_price_sat: int
    """The invoice may ask this much at most: the least of quote with tolerance, the client's and the daemon's cap."""
    max_fee_sat: int
    quote_sat: int | None = None
    state: OrderState = OrderState.REQUESTED
    state_since_ms: int
    place_count: int = 0
    place_at_ms: int
    provider_order_id: str | None = None
    payreq: str | None = None
    number: str | None = None
    """The latest that the provider named before a code came."""
    earlier_numbers: tuple[str, ...] = ()
    """Those that it replaced, oldest first. At most MAX_OTHERS."""
    code: str | None = None
    """The first."""
    code_may_lack_zeros: bool = False
    later_codes: tuple[str, ...] = ()
    """Others that came after it, oldest first. At most MAX_OTHERS."""
    unread: str | None = None
    """A reply, as it came and cut, in which a code or a number may be that cannot be read: the latest such."""
    unread_has_value: bool = False
    """It has one for sure; a reply of which that cannot be said does not take its place."""
    provider_text: str | None = None
    """The provider's own words about an error."""
    cancel_wanted_at_ms: int | None = None
    cancel_at_ms: int | None = None
    """When the provider may be asked (again) to cancel. None: not now, or already answered."""
    giving_up: str | None = None
    """Why no further dispatch will be tried."""
    anomaly_count: int = 0
    closed_at_ms: int | None = None
    end: End | None = None
    reason: str = ""
    """One sentence why it ended so."""
    erased_at_ms: int | None = None
    """When codes, numbers and ``unread`` were erased, long after the end (daemon.retain_codes_days). None: not yet."""
    quarantined_at_ms: int | None = None
    """Since when it is put aside because it broke one of our laws: watched, never dispatched. None: it is not."""
    quarantine_reason: str = ""
    """Which one: one sentence."""
    payment: Payment | None = field(default=None)

    @property
    def htlc(self) -> HtlcState:
        return self.payment.htlc if self.payment else HtlcState.NONE

    @property
    def is_closed(self) -> bool:
        return self.closed_at_ms is not None

    @property
    def is_quarantined(self) -> bool:
        return self.quarantined_at_ms is not None

    @property
    def is_recovered(self) -> bool:
        """Rebuilt after its record was lost: its limits and its first rows are not what happened."""
        return self.fingerprint == RECOVERED

    @property
    def is_money_out(self) -> bool:
        return self.htlc in MONEY_MAY_BE_OUT

    @property
    def locked_msat(self) -> int:
        """What is, or may be, out now: amount and the largest fee that can be."""
        if self.payment is None or not self.is_money_out:
            return 0
        return self.payment.amount_msat + (self.payment.fee_msat or self.payment.fee_limit_msat)

    @property
    def spent_msat(self) -> int:
        """What was spent; of a payment that is gone, what may have been."""
        if self.payment is None or self.payment.htlc not in SPENT or self.payment.is_paid_before:
            return 0
        return self.payment.amount_msat + self.payment.fee_msat

    @property
    def reserved_msat(self) -> int:
        """What a budget must count for this order now: 0 once the money is back, the true sum once it is spent."""
        if self.htlc in SPENT:
            return self.spent_msat
        if self.is_closed:
            return 0
        amount_msat = self.payment.amount_msat if self.payment else self.max_price_sat * 1000
        return amount_msat + self.max_fee_sat * 1000
