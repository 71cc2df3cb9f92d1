"""What the database says of one order, in all the places where it says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from holdpay.core.events import Event
from holdpay.core.lightning import Attempt
from holdpay.core.model import Order, Payment


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRow:
    """One readable row. ``position`` counts all rows of the order from 0, so that a gap is seen."""

    position: int
    cursor: int
    at_ms: int
    event: Event | None
    """None: the request itself."""
    snapshot: Order
    is_raw_intact: bool = True
    """Whether the raw reply, where it is stored whole, has the hash that was stored with it."""


@dataclass(frozen=True, slots=True)
class StoredAttempt:
    """A row of htlc_attempts: which of our dispatches, and what LND said."""

    dispatch: int
    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderBook:
    """``order`` is of the tables orders and payments; the journal says the same in its last snapshot, or should."""

    order: Order
    reserved_msat: int
    attempts: Mapping[int, StoredAttempt]
    """By LND's attempt id."""
    journal: tuple[JournalRow, ...]
    unreadable: tuple[int, ...] = ()
    """Cursors of the journal rows that make no sense."""


def differing(one: Order, other: Order) -> frozenset[str]:
    """The names of the fields that differ; a payment's as ``payment.htlc``, or ``payment`` if only one has any."""
    names = {f.name for f in fields(Order) if f.name != "payment" and getattr(one, f.name) != getattr(other, f.name)}
    if one.payment is None or other.payment is None:
        return frozenset(names if one.payment is other.payment else {*names, "payment"})
    of_payment = {
        f"payment.{f.name}" for f in fields(Payment) if getattr(one.payment, f.name) != getattr(other.payment, f.name)
    }
    return frozenset(names | of_payment)


def named(names: frozenset[str]) -> str:
    """For a sentence. Names only: a value may be a code, a number or a preimage."""
    return ", ".join(sorted(names))
