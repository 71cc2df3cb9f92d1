"""The words for where an order and its HTLC stand, what is said of them, and how they end."""

from __future__ import annotations

from enum import StrEnum, auto


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


class HoldLevel(StrEnum):
    """How urgent it is that a person looks at an order, the least first (``core.guard``)."""

    OK = "ok"
    LATE = "late"
    """Somebody is slower than he should be."""
    WARNING = "warning"
    """The HTLC nears its expiry, or cannot come back as things are; or nobody but a person can go on."""
    CRITICAL = "critical"
    """lnd closes a channel by force sooner than a person can be relied on to react."""


class End(StrEnum):
    """How a closed order ended. Money is out in none of them."""

    FULFILLED = "fulfilled"
    """Spent, and worth it."""
    FULFILLED_FREE = "fulfilled_free"
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
    NO_PLACE = "no_place"
    """It waited in vain for a place among the holds. Nothing was ordered."""
    CHARGED_UNFULFILLED = "charged_unfulfilled"
    """Spent for nothing; the preimage is the proof."""
    OUTCOME_UNKNOWN = "outcome_unknown"
    """No code, and nobody can say whether the money was spent. It counts as spent."""


class Succession(StrEnum):
    """What follows a closed order of the same request. None in its place: nothing, it is the last."""

    GOING_ON = "going_on"
    """Another one is to be made; there is none yet."""
    FOLLOWED = "followed"
    """Another one was made."""


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


class OrderSignal(StrEnum):
    """What a message says about the order."""

    PLACED = auto()
    UNPAID = auto()
    PAID = auto()
    NUMBER = auto()
    FULFILLED = auto()
    OVER = auto()
    ABANDON = auto()


class HtlcSignal(StrEnum):
    """What a message says about the HTLC."""

    SEND = auto()
    LOST = auto()
    ABSENT = auto()
    IN_FLIGHT = auto()
    SETTLED = auto()
    FAILED = auto()
    GONE = auto()
