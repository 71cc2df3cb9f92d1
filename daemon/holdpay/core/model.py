"""The order and its payment: one pair, two truths.

The provider owns what became of the order, LND owns what became of the HTLC; both are recorded as each said it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from holdpay.core.charge import COUNTED, Charge, ChargeState
from holdpay.core.diagnosis import Diagnosis, FailedHop
from holdpay.core.items import Item, ItemKind, texts
from holdpay.core.kinds import AnySpec, CodeSpec
from holdpay.core.lightning import FailureReason
from holdpay.core.states import (
    MONEY_MAY_BE_OUT,
    SPENT,
    End,
    FailureClass,
    HoldLevel,
    HtlcState,
    OrderState,
    Succession,
)
from holdpay.core.strategy import Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentFailure:
    """The first terminal failure of the latest dispatch, kept because LND overwrites and deletes it."""

    reason: FailureReason
    failure_class: FailureClass
    attempt_count: int
    payment_index: int
    """LND's number of the try that failed: a later read with the same number, of a try that began when this one did, is
    not about the latest dispatch."""
    at_ms: int
    created_at_ms: int | None = None
    """When that try began, by LND's clock. None: not said. An lnd 0.21 with SQLite and native SQL may give the number
    of a try that it replaces to the next one (lnd: payments/db/sql_store.go, InitPayment: the table has no
    AUTOINCREMENT)."""
    hop_place: int | None = None
    """Of the latest attempt that failed, of this dispatch or of one before it, as the three below:
    ``Attempt.failure_source_index``. None: no attempt was told, or the release of that time did not keep it."""
    hop_pubkey: str | None = None
    hop_channel: str | None = None
    hop_code: int | None = None

    @property
    def hop(self) -> FailedHop | None:
        """Where the latest attempt failed. None: not known."""
        if self.hop_place is None:
            return None
        return FailedHop(
            place=self.hop_place, pubkey=self.hop_pubkey, channel=self.hop_channel, code=self.hop_code or 0
        )


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
    diagnosis: Diagnosis | None = None
    """Why the latest dispatch failed. None: it did not, or LND is still asked what was in the way."""
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
    hold_level: HoldLevel = HoldLevel.OK
    """As of the latest look while money was out (``core.guard``); it says nothing once none is."""
    hold_why: str = ""
    """What was the matter then: one sentence. Empty: nothing."""


OPERATOR: Final = ""
"""Who asks on the daemon's own socket, in the place of a client's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a client wants, for ever as it was recorded. Its orders are what becomes of it."""

    id: str
    client: str = OPERATOR
    """Whose it is, by its name in the configuration of then."""
    key: str
    """The client's idempotency key: no other request of this client has it."""
    fingerprint: str
    """Of what was asked for: the same key with another fingerprint is refused. Empty: it was erased with what the buyer
    wrote."""
    spec: AnySpec
    is_prepaid: bool = False
    """Paid from the account's balance: its orders have a charge in place of a payment."""
    created_at_ms: int
    strategy: Strategy | None = None
    """None: it has one order."""


RECOVERED: Final = "recovered"
"""The fingerprint of a request that `holdpayd recover` made. No client's request has it, so its key is never a
client's."""
UNKNOWN: Final = "unknown"
"""The service and the country of a recovered order whose invoice does not tell them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order at the provider, from recorded to closed."""

    id: str
    """The request's of its first order; of the next ones with ``-2``, ``-3`` ... behind it."""
    request: Request
    nth: int = 1
    """Of the request's orders, which come one after the other."""
    country: int | None = None
    """The provider's number, where it is not the request's own."""
    country_name: str | None = None
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
    waiting_since_ms: int | None = None
    """Since when it waits, or waited to its end, for a place among the holds ([holds]), before it is placed at the
    provider. None: it has had one, or needs none."""
    provider_order_id: str | None = None
    payreq: str | None = None
    items: tuple[Item, ...] = ()
    """All that was delivered, oldest first. Erased long after the end: see ``erased_at_ms``."""
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
    """When the items were erased, long after the end (daemon.retain_codes_days). None: not yet."""
    quarantined_at_ms: int | None = None
    """Since when it is put aside because it broke one of our laws: watched, never dispatched. None: it is not."""
    quarantine_reason: str = ""
    """Which one: one sentence."""
    restored_at_ms: int | None = None
    """When it was brought back from a copy of the database: what was done between the copy and then is not recorded, so
    that nothing is placed or paid for it any more. None: it was not, or it was closed in the copy."""
    moved_on: str | None = None
    """Why the daemon wants it canceled by itself: see ``strategy.why_to_move_on``. None: it does not, and a wish to
    cancel is the client's."""
    succession: Succession | None = None
    """What follows it once it is closed. None: nothing."""
    payment: Payment | None = None
    charge: Charge | None = None

    @property
    def spec(self) -> AnySpec:
        """What is bought."""
        if self.country is None or self.country_name is None:
            return self.request.spec
        return _in_country(self.request.spec, self.country, self.country_name)

    @property
    def country_code(self) -> int | None:
        """Of an activation code: the provider's number. None: not known, or it is another kind."""
        return self.spec.country if isinstance(self.spec, CodeSpec) else None

    @property
    def is_delivered(self) -> bool:
        """Whether what was bought is here, whatever became of the order."""
        return self.state is OrderState.DELIVERED or self.spec.is_delivered(self.items)

    @property
    def number(self) -> str | None:
        """The latest that the provider named before a code came."""
        return next(iter(texts(self.items, ItemKind.NUMBER)[::-1]), None)

    @property
    def earlier_numbers(self) -> tuple[str, ...]:
        """Those that it replaced, oldest first."""
        return texts(self.items, ItemKind.NUMBER)[:-1]

    @property
    def code(self) -> str | None:
        """The first."""
        return next(iter(texts(self.items, ItemKind.CODE)), None)

    @property
    def code_may_lack_zeros(self) -> bool:
        return any(item.may_lack_zeros for item in self.items if item.kind is ItemKind.CODE and item.text == self.code)

    @property
    def later_codes(self) -> tuple[str, ...]:
        """Others that came after it, oldest first."""
        return texts(self.items, ItemKind.CODE)[1:]

    @property
    def unread(self) -> tuple[str, ...]:
        """Replies in which something for the buyer is, or may be, that cannot be read."""
        return texts(self.items, ItemKind.UNREAD) + texts(self.items, ItemKind.UNREAD_MAYBE)

    @property
    def htlc(self) -> HtlcState:
        return self.payment.htlc if self.payment else HtlcState.NONE

    @property
    def is_closed(self) -> bool:
        return self.closed_at_ms is not None

    @property
    def is_waiting(self) -> bool:
        """For a place among the holds. Nothing was ordered yet."""
        return self.waiting_since_ms is not None and not self.is_closed

    @property
    def is_going_on(self) -> bool:
        """It is closed, and its request waits for the next order."""
        return self.succession is Succession.GOING_ON

    @property
    def ends_request(self) -> bool:
        """It is closed, and its request is over with it."""
        return self.is_closed and self.succession is None

    @property
    def is_cancel_wanted_by_client(self) -> bool:
        return self.cancel_wanted_at_ms is not None and self.moved_on is None

    @property
    def is_quarantined(self) -> bool:
        return self.quarantined_at_ms is not None

    @property
    def is_perhaps_placed(self) -> bool:
        """Of a copy of the database in which it was still to be ordered: it may have been, and paid, since."""
        return self.restored_at_ms is not None and self.state is OrderState.REQUESTED

    @property
    def is_recovered(self) -> bool:
        """Rebuilt after its record was lost: its limits and its first rows are not what happened."""
        return self.request.fingerprint == RECOVERED

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
        """What was spent; of a payment that is gone, and of a charge without an answer, what may have been."""
        if self.charge is not None:
            # What the provider only says that it gives back counts until the order is over.
            is_on_its_way_back = self.charge.state is ChargeState.RETURNED and not self.is_closed
            return self.charge.amount_sat * 1000 if self.charge.state in COUNTED or is_on_its_way_back else 0
        if self.payment is None or self.payment.htlc not in SPENT or self.payment.is_paid_before:
            return 0
        return self.payment.amount_msat + self.payment.fee_msat

    @property
    def spent_fee_msat(self) -> int:
        """How much of ``spent_msat`` is routing fee."""
        return self.payment.fee_msat if self.payment is not None and self.spent_msat else 0

    @property
    def reserved_msat(self) -> int:
        """What a budget must count for this order now: 0 once the money is back, the true sum once it is spent."""
        if self.htlc in SPENT or (self.charge is not None and self.charge.state is not ChargeState.REFUSED):
            return self.spent_msat
        if self.is_closed:
            return 0
        if self.request.is_prepaid:
            # Not placed yet, or to be placed again.
            return self.max_price_sat * 1000
        amount_msat = self.payment.amount_msat if self.payment else self.max_price_sat * 1000
        return with_fee_msat(amount_msat, self.max_fee_sat)


def with_fee_msat(amount_msat: int, max_fee_sat: int) -> int:
    """What a payment of an amount may come to lock and to cost."""
    return amount_msat + max_fee_sat * 1000


@lru_cache(maxsize=1_000)
def _in_country(spec: AnySpec, country: int, country_name: str) -> AnySpec:
    assert isinstance(spec, CodeSpec)
    return replace(spec, country=country, country_name=country_name)
