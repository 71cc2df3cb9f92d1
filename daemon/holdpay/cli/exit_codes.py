"""The exit codes of `holdpay`, in one place; `holdpay --help` prints this table."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a script may conclude. The docstring of each member is the text that users read."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> ExitCode:
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    DONE = 0, "What was ordered is here, or what was asked for was done."
    UNEXPECTED = 1, "Something unexpected. If it was about an order, the message says how to look it up."
    REFUSED_INPUT = 2, "The input was refused, by the command line or by the daemon. Nothing was ordered."
    PRICE_TOO_HIGH = 3, "The price is over the limit, or not known. Nothing was ordered."
    NOTHING_PAID = (
        4,
        "No payment got through (else: 10 to 14), or invoice or order was refused. Nothing was spent.",
    )
    NOT_DELIVERED = 5, "Refunded, or canceled before it was paid. Nothing came, nothing was spent."
    UNREACHABLE = 6, "The daemon cannot be reached. Nothing was ordered."
    STILL_OPEN = 7, "Ordered, or possibly ordered, and not finished: the order goes on. Do not order again."
    REFUSED_NOW = 8, "Not now: a limit, no stock, or lnd or the provider cannot be used. Nothing was ordered."
    CHARGED_UNFULFILLED = (
        9,
        "Paid, or perhaps paid, and nothing came. `holdpay orders explain` says what to do.",
    )
    FEE_LIMIT = 10, "A route to the provider exists, and costs more than the fee limit. Nothing was spent."
    OUTBOUND = 11, "Your channels that can be used hold too little on your side. Nothing was spent."
    PEER_OFFLINE = 12, "A peer of yours is offline, whose channels it would take. Nothing was spent."
    NO_WAY = 13, "lnd knows no way to the provider's node, or none within the time lock. Nothing was spent."
    HOP_FAILED = 14, "A node on the way failed the payment, or lnd avoids one for some minutes. Nothing was spent."
    TOO_LATE = 15, "Too late to cancel: it was over before, or it is paid for and goes on."
    INTERRUPTED = 130, "Interrupted (^C, SIGTERM) where no order was waited for."


_BY_STATUS = {
    "INVALID_ARGUMENT": ExitCode.REFUSED_INPUT,
    "ALREADY_EXISTS": ExitCode.REFUSED_INPUT,
    "NOT_FOUND": ExitCode.REFUSED_INPUT,
    "PERMISSION_DENIED": ExitCode.REFUSED_INPUT,
    "OUT_OF_RANGE": ExitCode.PRICE_TOO_HIGH,
    "FAILED_PRECONDITION": ExitCode.REFUSED_NOW,
    "RESOURCE_EXHAUSTED": ExitCode.REFUSED_NOW,
    "UNAVAILABLE": ExitCode.REFUSED_NOW,
}

_BY_END = {
    "fulfilled": ExitCode.DONE,
    "fulfilled_free": ExitCode.DONE,
    "refunded": ExitCode.NOT_DELIVERED,
    "canceled_unpaid": ExitCode.NOT_DELIVERED,
    "invoice_rejected": ExitCode.NOTHING_PAID,
    "provider_refused": ExitCode.NOTHING_PAID,
    "no_place": ExitCode.REFUSED_NOW,
    "payment_failed": ExitCode.NOTHING_PAID,
    "charged_unfulfilled": ExitCode.CHARGED_UNFULFILLED,
    "outcome_unknown": ExitCode.CHARGED_UNFULFILLED,
}


_BY_CAUSE = {
    "fee_limit": ExitCode.FEE_LIMIT,
    "outbound": ExitCode.OUTBOUND,
    "peer_offline": ExitCode.PEER_OFFLINE,
    "payee_unknown": ExitCode.NO_WAY,
    "time_lock": ExitCode.NO_WAY,
    "no_route": ExitCode.NO_WAY,
    "hop_failed": ExitCode.HOP_FAILED,
}


def of_refusal(status: str, reason: str, cause: str = "") -> ExitCode:
    """The code for a gRPC status (by name), a reason and what it says of the cause, with which the daemon itself
    refused a call."""
    if reason == "NOT_PAYABLE":
        # The same fault ends so after it was ordered.
        return _BY_CAUSE.get(cause, ExitCode.NOTHING_PAID)
    return _BY_STATUS.get(status, ExitCode.UNEXPECTED)


def of_end(end: str | None, cause: str | None = None) -> ExitCode:
    """The code for a closed order's `end` and the `cause` of its failed payment (lower case, without prefix)."""
    if end == "payment_failed" and cause in _BY_CAUSE:
        return _BY_CAUSE[cause]
    return _BY_END.get(end or "", ExitCode.UNEXPECTED)
