"""Which nodes may be paid: what is recorded of each that was, and what the record says of the next one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PayeeCheck(StrEnum):
    """What happens with an invoice by its payee (``provider.payee_check``)."""

    PIN = "pin"
    """Refused, unless a node of ``provider.payee_pubkeys`` made it."""
    FIRST_USE = "first-use"
    """Refused, unless a trusted node made it; while none is trusted, the first one becomes it."""
    WARN = "warn"
    """Paid; one that no node of ``provider.payee_pubkeys`` made is logged."""
    OFF = "off"
    """Nobody looks."""


class Trust(StrEnum):
    """Why a recorded payee is trusted."""

    LIST = "list"
    """It stood in ``provider.payee_pubkeys`` when it was paid."""
    FIRST_USE = "first-use"
    BY_HAND = "by-hand"
    """`holdpayd payees add`."""


class Standing(StrEnum):
    """What the record says of a payee."""

    TRUSTED = "trusted"
    """Or nobody looked: only ``PayeeCheck.FIRST_USE`` does."""
    FIRST = "first"
    """No node is trusted yet."""
    STRANGER = "stranger"
    """Another node is, and this one is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payee:
    """A row of the record. What is None was never so: one that a person added made no vetted invoice yet."""

    pubkey: str
    trust: Trust | None
    """None: it is not trusted, and was paid all the same, since the configuration wanted it so."""
    added_at_ms: int
    first_order: str | None
    last_seen_at_ms: int | None
    times: int
    """Vetted invoices."""
