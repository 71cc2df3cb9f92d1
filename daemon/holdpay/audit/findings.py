"""What an audit found, how bad it is, and the exit codes that tell it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from holdpay.core.model import Order
from holdpay.redact import hash8


class Severity(IntEnum):
    """Of one finding, rising."""

    NOTE = 0
    """Told for completeness. Nothing to do."""
    UNRESOLVED = 1
    """An order that is under way, or waits for somebody."""
    WARNING = 2
    """It should be looked at, or could not be looked at."""
    ERROR = 3
    """Books contradict each other or themselves."""


class AuditExit(IntEnum):
    """The exit codes of `holdpayd check` and the commands beside it; their --help prints this table."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> AuditExit:
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    FINE = 0, "Nothing is wrong and nothing is open; or what was asked for was shown or written."
    UNEXPECTED = 1, "Something unexpected."
    USAGE = 2, "The command line cannot be understood."
    UNRESOLVED = 3, "Orders are open, or something should be looked at, or could not be looked at."
    WRONG = 4, "The books contradict each other, or the database is damaged; or the command could not go on."
    ALREADY_RUNNING = 75, "recover --write, resolve, restore: a holdpayd uses the state directory. Stop it first."
    CONFIG = 78, "The configuration cannot be used; everything wrong with it is listed."


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """``text`` says what was found, ``todo`` what to do; whole sentences. ``code`` names the kind, for programs."""

    severity: Severity
    code: str
    text: str
    todo: str = ""
    order_id: str | None = None
    hash8: str | None = None
    """Never the whole payment hash: at the provider it works without a password."""


def about(order: Order, severity: Severity, code: str, text: str, todo: str = "") -> Finding:
    """A finding about one order."""
    return Finding(
        severity=severity,
        code=code,
        text=text,
        todo=todo,
        order_id=order.id,
        hash8=hash8(order.payment.payment_hash) if order.payment else None,
    )


def worst(findings: Iterable[Finding]) -> Severity:
    """The worst of them; NOTE if there is none."""
    return max((finding.severity for finding in findings), default=Severity.NOTE)


_EXITS = {
    Severity.NOTE: AuditExit.FINE,
    Severity.UNRESOLVED: AuditExit.UNRESOLVED,
    Severity.WARNING: AuditExit.UNRESOLVED,
    Severity.ERROR: AuditExit.WRONG,
}


def exit_code(findings: Iterable[Finding]) -> AuditExit:
    """By the worst of them."""
    return _EXITS[worst(findings)]
