"""What the database says of one order, in all the places where it says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from holdpay.core.charge import Charge
from holdpay.core.dispatches import DispatchRecord
from holdpay.core.events import Event
from holdpay.core.lightning import Attempt
from holdpay.core.model import Order, Payment


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRow:
    """One readable row."""

    cursor: int
    at_ms: int
    event: Event | None
    """None: the request itself, or a reply that was erased."""
    after: Order
    """As its change and all before it make the order, without items: the journal has none, they follow from the
    events."""
    is_raw_intact: bool = True
    """Whether the raw reply, where it is stored whole, has the hash that was stored with it."""


@dataclass(frozen=True, slots=True)
class StoredAttempt:
    """A row of htlc_attempts: which of our dispatches, and what LND said."""

    dispatch: int
    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """What the ledger has for an order: its reserves less its releases, and its spends."""

    reserved_msat: int
    spent_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderBook:
    """``order`` is of the tables; the changes of the journal add up to the same, or should, and its events to the
    items."""

    order: Order
    reserved_msat: int
    """Beside the order, for the limits."""
    booked: Booked
    attempts: Mapping[int, StoredAttempt]
    """By LND's attempt id."""
    dispatches: Mapping[int, DispatchRecord]
    """By number, from 1."""
    journal: tuple[JournalRow, ...]
    """Up to the first row that makes no sense: without its change the later ones add up to something else."""
    unreadable: tuple[int, ...] = ()
    """Cursors of the journal rows that make no sense."""


def differing(one: Order, other: Order) -> frozenset[str]:
    """The names of the fields that differ; of a part as ``payment.htlc``, or ``payment`` if only one has any."""
    names = _fields_that_differ(one, other) - _PARTS
    for part in _PARTS:
        its, others = getattr(one, part), getattr(other, part)
        if its is not None and others is not None:
            names |= {f"{part}.{name}" for name in _fields_that_differ(its, others)}
        elif its is not others:
            names |= {part}
    return names


_PARTS = frozenset({"payment", "charge"})


def _fields_that_differ(one: Order | Payment | Charge, other: object) -> frozenset[str]:
    return frozenset(f.name for f in fields(one) if getattr(one, f.name) != getattr(other, f.name))


def named(names: frozenset[str]) -> str:
    """For a sentence. Names only: a value may be a code, a number or a preimage."""
    return ", ".join(sorted(names))
