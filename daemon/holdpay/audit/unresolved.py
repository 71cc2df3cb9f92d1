"""Pure: what is not over yet, or waits for a person, and what to do about it."""

from __future__ import annotations

from holdpay.audit.findings import Finding, Severity, about
from holdpay.core.explain import explain
from holdpay.core.guard import Sight, alarms
from holdpay.core.model import Order
from holdpay.core.policy import Policy
from holdpay.core.states import End

RECENT_MS = 30 * 24 * 3600 * 1000
"""For so long a closed order is held against LND, and a charge for nothing told."""


_TOLD_LATER = {End.CHARGED_UNFULFILLED: "charged-unfulfilled", End.OUTCOME_UNKNOWN: "outcome-unknown"}
"""Ends that a person may want to do something about."""


def is_relevant(order: Order, now_ms: int) -> bool:
    """Open, or closed not long ago."""
    return order.closed_at_ms is None or order.closed_at_ms > now_ms - RECENT_MS


def unresolved_findings(order: Order, policy: Policy, now_ms: int, block_height: int = 0) -> list[Finding]:
    """An open order, its alarms, a charge for nothing, and an order in quarantine; each with what to do.

    ``block_height``: lnd's; 0: not known.
    """
    words = explain(order, policy, now_ms, block_height=block_height)
    if order.is_quarantined and not order.is_closed:
        return [about(order, Severity.ERROR, "quarantined", f"{words.summary} {words.money}", words.next)]
    if order.end in _TOLD_LATER and _spent_at_ms(order) > now_ms - RECENT_MS:
        return [about(order, Severity.WARNING, _TOLD_LATER[order.end], f"{words.summary} {words.money}", words.next)]
    if order.is_closed:
        return []
    found = [about(order, Severity.UNRESOLVED, "open", f"{words.summary} {words.money}", words.next)]
    for alarm in alarms(order, policy, now_ms, Sight(block_height=block_height)):
        text = alarm.removeprefix(f"order {order.id}: ")
        found.append(about(order, Severity.WARNING, "alarm", f"{text[:1].upper()}{text[1:]}.", words.next))
    return found


def _spent_at_ms(order: Order) -> int:
    """Of a closed order on which something was, or may have been, spent."""
    if order.charge is not None:
        return order.charge.since_ms
    return order.payment.htlc_since_ms if order.payment is not None else 0


def unwatched_finding(open_count: int, *, is_to_be_started: bool) -> Finding:
    """No daemon answers on the socket while orders are open. Whether to start one is for the other findings to say."""
    start = "Start it (`systemctl start holdpayd`): it finds every open order again and pays nothing twice."
    return Finding(
        severity=Severity.WARNING,
        code="unwatched",
        text=f"holdpayd does not answer on its socket, so nobody watches {open_count:,} open"
        f" {'order' if open_count == 1 else 'orders'}.",
        todo=start if is_to_be_started else "Leave it so until the errors here are dealt with: lnd goes on by itself.",
    )
