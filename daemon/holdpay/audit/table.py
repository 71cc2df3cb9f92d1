"""Pure: what `holdpayd recover` found, for people. Hashes cut, no code, no number."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from holdpay.audit.rebuild import Rebuilt, Unusable, is_of_unknown_kind
from holdpay.core.amounts import sat
from holdpay.core.events import PaymentReported, ProviderReplied
from holdpay.core.tables import phase
from holdpay.redact import hash8, redact_text

_HEAD = ("order", "payment", "sent (UTC)", "amount", "for", "lnd", "provider", "would be recorded as")


def table_lines(rebuilt: list[Rebuilt]) -> Iterator[str]:
    """A head and one line for each order."""
    rows = [_HEAD, *(_row(each) for each in rebuilt)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield redact_text("  ".join(cells).rstrip())


def unusable_line(unusable: Unusable) -> str:
    """One sentence."""
    payment = unusable.payment
    return redact_text(
        f"Payment {hash8(payment.payment_hash)}… of {sat(payment.amount_msat)} ({payment.update.status.value}) is left"
        f" out: {unusable.reason}."
    )


def _row(rebuilt: Rebuilt) -> tuple[str, ...]:
    order = rebuilt.order
    payment = order.payment
    assert payment is not None
    said = next((e.event for e in rebuilt.entries if isinstance(e.event, PaymentReported)), None)
    return (
        order.id,
        hash8(payment.payment_hash),
        f"{datetime.fromtimestamp((payment.money_out_since_ms or order.created_at_ms) / 1000, UTC):%Y-%m-%d %H:%M}",
        sat(payment.amount_msat),
        "not known" if is_of_unknown_kind(order) else order.spec.what,
        said.update.status.value if said else "not believed",
        _provider_word(rebuilt),
        f"open: {phase(order)}" if order.end is None else f"closed: {order.end.value}",
    )


def _provider_word(rebuilt: Rebuilt) -> str:
    status = next((e.event.status for e in rebuilt.entries if isinstance(e.event, ProviderReplied)), None)
    if status is None:
        return "nothing new"
    if status.code is not None:
        return "code"
    if status.send_status is not None:
        return status.send_status.value
    if status.messages:
        return f"{len(status.messages):,} {'message' if len(status.messages) == 1 else 'messages'}"
    if status.error is not None:
        return "over"
    return "number" if status.number is not None else "paid"
