"""What can happen to an order, past tense. Nothing else changes one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from holdpay.core.lightning import HtlcLook, Invoice, NodeIdentity, PaymentUpdate
from holdpay.core.payees import Standing
from holdpay.core.routes import RouteLook
from holdpay.core.states import HoldLevel


class SendStatus(StrEnum):
    """How the sending of an SMS or an e-mail goes, in the provider's words."""

    CREATED = "created"
    SENT = "sent"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """One ``/orderstatus`` body, made sense of. Absent means absent: ``0``, ``""`` and ``null`` were dropped."""

    is_paid: bool
    number: str | None = None
    code: str | None = None
    code_may_lack_zeros: bool = False
    messages: tuple[str, ...] = ()
    """All that came to a rented number, in the reply's order."""
    send_status: SendStatus | None = None
    error: str | None = None
    """The order is over and its invoice canceled, in the provider's words."""
    ends_at_ms: int | None = None
    """When the rental ends. None: it does not say."""
    unread_messages: tuple[str, ...] = ()
    """Of a list, those that cannot be read, or not to their end, as they came and cut."""
    unread: str | None = None
    """The reply itself, cut: it has something else delivered that cannot be read, or not to its end. None: it has not.
    """


@dataclass(frozen=True, slots=True)
class OrderPlaced:
    """The provider took the order. ``payreq`` None: it is paid, from the account."""

    provider_order_id: str
    payreq: str | None


@dataclass(frozen=True, slots=True)
class PlacingFailed:
    """The provider did not take the order; ``may_retry`` if asking again could help (nothing was paid, it is free)."""

    text: str
    may_retry: bool
    wait_s: float = 0
    """How long the provider wants to be left alone."""
    is_sure: bool = True
    """Nothing was ordered. False: the reply was lost, or made no sense; of a prepaid order that may be spent."""


@dataclass(frozen=True, slots=True)
class PlaceGiven:
    """It waits no longer: there is a place for it among the holds, and it is its from this commit on."""


@dataclass(frozen=True, slots=True)
class PlaceDenied:
    """It waits for a place that it cannot have any more, since the configuration has changed: ``text`` says why."""

    text: str


@dataclass(frozen=True, slots=True)
class ChargeIntended:
    """Committed right before a prepaid order is placed, by the task that places it. ``balance_sat``: of the account at
    that time; None: not known."""

    balance_sat: int | None


@dataclass(frozen=True, slots=True)
class BalanceSeen:
    """The account's balance, asked for after a reply was lost. ``is_alone``: nothing else of ours could have moved it
    since the intent."""

    balance_sat: int
    is_alone: bool


@dataclass(frozen=True, slots=True)
class InvoiceDecoded:
    """LND decoded the hold invoice. ``seen_before`` if another order of ours has its payment hash, or its id at
    the provider together with a vetted invoice."""

    invoice: Invoice
    node: NodeIdentity
    seen_before: bool
    wall_ahead_ms: int = 0
    """How far the wall clock, by which the invoice expires, was ahead of the clock by which orders go; negative:
    behind. It is set while we run, and ours goes on (``clock.SystemClock``)."""
    payee: Standing = Standing.TRUSTED
    """What the record of payees says of the invoice's."""


@dataclass(frozen=True, slots=True)
class InvoiceUndecodable:
    """LND refused to decode it: broken, or of another network."""

    text: str


@dataclass(frozen=True, slots=True)
class DispatchIntended:
    """Committed right before SendPaymentV2, by the task that sends."""

    node: NodeIdentity


@dataclass(frozen=True, slots=True)
class PaymentReported:
    """LND's snapshot of the payment; ``live`` if the stream had seen it run before."""

    update: PaymentUpdate
    live: bool


@dataclass(frozen=True, slots=True)
class SendRefused:
    """LND answered SendPaymentV2 with an error. It proves nothing.

    ``has_hash``: because it has a payment of this hash already.
    """

    text: str
    has_hash: bool = False


@dataclass(frozen=True, slots=True)
class TrackingLost:
    """A payment stream ended without a terminal message, or LND could not be asked."""

    text: str


@dataclass(frozen=True, slots=True)
class PaymentNotFound:
    """TrackPaymentV2 said NOT_FOUND, right after GetInfo had answered. Once proves nothing."""


@dataclass(frozen=True, slots=True)
class HtlcLookedFor:
    """The node's channels were looked at for the HTLC, right after LND had spoken (or not) of its payment."""

    look: HtlcLook


@dataclass(frozen=True, slots=True)
class HoldLevelChanged:
    """It is more, or less, urgent that a person looks at the money that is out. ``why``: one sentence; empty: ok."""

    level: HoldLevel
    why: str


@dataclass(frozen=True, slots=True)
class RouteLookedFor:
    """LND was asked for a way to the payee, after the dispatch of this number had failed."""

    dispatch: int
    look: RouteLook
    is_by_full_channel: bool = False
    """The route that it found leaves by a channel that may hold no more ([holds])."""


class Resolution(StrEnum):
    """What an operator says of a payment that LND cannot say any more."""

    FAILED = "failed"
    """The money is back."""
    SETTLED = "settled"
    """It is spent; the preimage proves it."""
    WRITTEN_OFF = "written_off"
    """Nobody can say. It counts as spent."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """An operator's word, in LND's place. ``preimage`` (hex) goes with SETTLED, and only with it."""

    resolution: Resolution
    by: str
    why: str
    preimage: str | None = None


@dataclass(frozen=True, slots=True)
class ProviderReplied:
    """The provider answered a status request that was sent at ``asked_at_ms``."""

    asked_at_ms: int
    status: ProviderStatus


@dataclass(frozen=True, slots=True)
class ProviderConfused:
    """The provider answered a status request with something that makes no sense, or with a refusal."""

    text: str
    unread: str | None = None
    """The reply itself, cut, if a person may still read in it what we cannot. None: it holds nothing of the order."""


@dataclass(frozen=True, slots=True)
class ProviderFailed:
    """The provider answered a status request with an error of its own (HTTP 5xx, 429): nothing about the order."""

    text: str


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """The client's durable wish."""


@dataclass(frozen=True, slots=True)
class CancelAnswered:
    """The answer to our request for a cancel. ``accepted`` None: the reply was lost, it may have been carried out."""

    accepted: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class NextOrdered:
    """The request's next order was recorded, in the same transaction: this one is not its last."""


@dataclass(frozen=True, slots=True)
class NoNextOrder:
    """None can be made: ``text`` says why. The request ends with this order."""

    text: str


@dataclass(frozen=True, slots=True)
class OrderQuarantined:
    """What is known of the order contradicts our own laws: ``text`` says how. From here on it is watched only."""

    text: str


@dataclass(frozen=True, slots=True)
class DaemonRestarted:
    """A new process took the order over: whatever was being sent may or may not have arrived."""


@dataclass(frozen=True, slots=True)
class CopyRestored:
    """The database is a copy, and the order stands as it did when it was made: what was to be done then may be done."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The engine's periodic pass: deadlines are looked at. ``held_up_by``: what keeps a payment from being sent just
    now, without its end; empty: nothing that is known."""

    held_up_by: str = ""


Event = (
    PlaceGiven
    | PlaceDenied
    | OrderPlaced
    | PlacingFailed
    | ChargeIntended
    | BalanceSeen
    | InvoiceDecoded
    | InvoiceUndecodable
    | DispatchIntended
    | PaymentReported
    | SendRefused
    | TrackingLost
    | PaymentNotFound
    | HtlcLookedFor
    | HoldLevelChanged
    | RouteLookedFor
    | Resolved
    | ProviderReplied
    | ProviderConfused
    | ProviderFailed
    | CancelRequested
    | CancelAnswered
    | NextOrdered
    | NoNextOrder
    | OrderQuarantined
    | DaemonRestarted
    | CopyRestored
    | TimePassed
)


def event_name(event: Event) -> str:
    """``OrderPlaced`` → ``order_placed``: as the journal and clients have it."""
    kind: type = type(event)
    return _name_of(kind)


@cache
def _name_of(kind: type) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
