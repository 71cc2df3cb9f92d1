"""What each of three parties wrote down about the same money: the daemon's journal, lnd, the provider.

Plain values without a word of the daemon's own code, for ``tests.reconcile``.
"""

from __future__ import annotations

from dataclasses import dataclass

Goods = tuple[str, str]
"""Country and service. Where every request asks for goods of its own, they tell which provider orders it caused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalPayment:
    """The journal's word on one hold invoice; ``htlc`` is none, dispatching, unknown, in_flight, settled or failed."""

    payment_hash: str
    amount_msat: int
    fee_msat: int
    htlc: str
    dispatch_count: int
    preimage: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRow:
    """One row of the journal: what happened, what the provider's reply behind it said, the order right after it."""

    cursor: int
    event: str
    says_paid: bool
    """The raw reply behind this row calls the order paid."""
    state: str
    htlc: str
    code: str | None
    end: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalOrder:
    """One request as the daemon's database has it. ``end`` None: it is open."""

    id: str
    goods: Goods
    state: str
    end: str | None
    code: str | None
    code_may_lack_zeros: bool
    provider_order_id: str | None
    max_price_sat: int
    max_fee_sat: int
    payment: JournalPayment | None
    rows: tuple[JournalRow, ...]

    @property
    def htlc(self) -> str:
        return self.payment.htlc if self.payment else "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class LndPayment:
    """One payment to the payee in lnd's own database. ``status`` is lnd's: IN_FLIGHT, SUCCEEDED or FAILED."""

    payment_hash: str
    status: str
    value_msat: int
    fee_msat: int
    settled_htlcs_msat: tuple[int, ...] = ()
    """What each settled HTLC took, fees included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderOrder:
    """One order at the provider. ``invoice`` is the state at the payee: open, accepted, settled or canceled."""

    order_id: str
    payment_hash: str
    goods: Goods
    amount_msat: int
    invoice: str
    code: str = ""

    @property
    def is_paid(self) -> bool:
        return self.invoice in {"accepted", "settled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """All three, read while the daemon was dead. ``gone_msat``: what left the payer's channels; None: nobody knows.

    ``never_sent``: hashes of payments that lnd calls in flight for ever: it was killed before it sent their HTLC.
    """

    journal: tuple[JournalOrder, ...]
    lnd: tuple[LndPayment, ...]
    provider: tuple[ProviderOrder, ...]
    gone_msat: int | None = None
    never_sent: frozenset[str] = frozenset()

    @property
    def by_hash(self) -> dict[str, tuple[JournalOrder, JournalPayment]]:
        return {order.payment.payment_hash: (order, order.payment) for order in self.journal if order.payment}

    @property
    def sent(self) -> dict[str, LndPayment]:
        return {payment.payment_hash: payment for payment in self.lnd}
