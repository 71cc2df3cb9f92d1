"""Pure: the journal's word for a payment against LND's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from enum import StrEnum

from holdpay import manual
from holdpay.audit.findings import Finding, Severity, about
from holdpay.core.amounts import sat
from holdpay.core.lightning import (
    AttemptStatus,
    FailureReason,
    LndMessage,
    NodeIdentity,
    NotKnown,
    OpenChannel,
    PaymentStatus,
    Reported,
    StoredPayment,
)
from holdpay.core.model import Order, Payment
from holdpay.core.states import HtlcState
from holdpay.redact import hash8


class LndWord(StrEnum):
    """What LND says of a payment hash now."""

    IN_FLIGHT = "in flight"
    SETTLED = "settled"
    FAILED = "failed"
    ABSENT = "unknown"


_WORDS = {
    PaymentStatus.IN_FLIGHT: LndWord.IN_FLIGHT,
    PaymentStatus.SUCCEEDED: LndWord.SETTLED,
    PaymentStatus.FAILED: LndWord.FAILED,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a combination means, to be told after "the journal says X, lnd says Y"."""

    severity: Severity
    code: str
    text: str
    todo: str


_AHEAD = Verdict(
    Severity.WARNING,
    "lnd-ahead",
    "holdpayd has not recorded it yet",
    "While holdpayd runs it asks lnd by payment hash: look again in a minute.",
)
_MONEY_OUT = Verdict(
    Severity.ERROR,
    "money-out",
    "money is out that the journal does not count",
    "Do not pay or delete anything in lnd. Ask the provider with the order id (`holdpay orders show`), and report this"
    " with the output of `holdpay orders explain`.",
)
_CHARGED = Verdict(
    Severity.ERROR,
    "charged-unrecorded",
    "money was spent that the journal does not count, unless you paid this invoice by hand",
    "Take the preimage from `lncli trackpayment`: it is the proof for the provider's support. Report this.",
)
_NOT_SETTLED = Verdict(
    Severity.ERROR,
    "not-settled",
    "yet a preimage that fits is stored, so it was paid",
    "See that lnd.address is the node that paid, and that lnd's own database was not restored from an old copy.",
)
_ONCE_ABSENT = Verdict(
    Severity.WARNING,
    "not-arrived",
    "it may still arrive, so this proves nothing",
    "Leave it to holdpayd: it asks twice, some time apart, before it believes that nothing was sent.",
)
_RECORD_LOST = Verdict(
    Severity.WARNING,
    "lnd-record-lost",
    "lnd has spoken of it before, so its record was deleted, or lnd's database was restored from an old copy",
    "Leave it to holdpayd: it closes the order after the expiry height, when no channel carries the HTLC.",
)
_BEHIND = Verdict(
    Severity.WARNING,
    "lnd-behind",
    "yet a preimage that fits is stored, so it was paid",
    "Look again in a minute; if it stays so, see the HTLC in lnd's channels (`lncli listchannels`, pending_htlcs).",
)
_RESOLVED_IN_FLIGHT = Verdict(
    Severity.WARNING,
    "resolved-in-flight",
    "an operator said how it ended, and lnd still has it in flight",
    "Watch lnd's channels (`lncli listchannels`, pending_htlcs).",
)
_NEVER_ENDS = Verdict(
    Severity.NOTE, "never-ends-in-lnd", "no channel carries its HTLC, and lnd calls it in flight for ever", ""
)
_KNOWN_AGAIN = Verdict(Severity.NOTE, "known-again", "it was given up and counts as spent; lnd can say more now", "")
_DELETED = Verdict(Severity.NOTE, "lnd-record-deleted", "its record was deleted there; the journal keeps the proof", "")
_TRIED_ELSEWHERE = Verdict(
    Severity.NOTE, "tried-elsewhere", "somebody else tried to pay it on this node; nothing was spent", ""
)


def _row(htlc: HtlcState, *verdicts: Verdict | None) -> dict[tuple[HtlcState, LndWord], Verdict | None]:
    return {(htlc, word): verdict for word, verdict in zip(LndWord, verdicts, strict=True)}


_VERDICTS = {
    # the journal's word         IN_FLIGHT     SETTLED   FAILED            ABSENT
    **_row(HtlcState.NONE, _MONEY_OUT, _CHARGED, _TRIED_ELSEWHERE, None),
    **_row(HtlcState.DISPATCHING, _AHEAD, _AHEAD, _AHEAD, _ONCE_ABSENT),
    **_row(HtlcState.UNKNOWN, _AHEAD, _AHEAD, _AHEAD, _ONCE_ABSENT),
    **_row(HtlcState.IN_FLIGHT, None, _AHEAD, _AHEAD, _RECORD_LOST),
    **_row(HtlcState.SETTLED, _BEHIND, None, _NOT_SETTLED, _DELETED),
    **_row(HtlcState.FAILED, _MONEY_OUT, _CHARGED, None, None),
    **_row(HtlcState.GONE, _NEVER_ENDS, _KNOWN_AGAIN, _KNOWN_AGAIN, None),
}
"""(the journal's word, LND's word) → what it means; None: they agree."""


_OF_OURS = {FailureReason.NEVER_SENT: _NEVER_ENDS, FailureReason.BY_OPERATOR: _RESOLVED_IN_FLIGHT}
"""What it means that lnd calls a payment in flight whose failure is of our own making."""


def against_lnd(order: Order, payment: Payment, said: LndMessage) -> list[Finding]:
    """Holds one order against what LND said of its payment hash."""
    word = _word(said)
    if word is None:
        return [_unanswered(order)]
    verdict = _VERDICTS[payment.htlc, word]
    if word is LndWord.IN_FLIGHT and payment.failure is not None:
        verdict = _OF_OURS.get(payment.failure.reason, verdict)
    if verdict is not None:
        text = f"The journal says {payment.htlc.value}, lnd says {word.value}: {verdict.text}."
        return [about(order, verdict.severity, verdict.code, text, verdict.todo)]
    return _sums(order, payment, said) if word is LndWord.SETTLED else []


def _word(said: LndMessage) -> LndWord | None:
    if isinstance(said, Reported):
        return _WORDS[said.update.status]
    return LndWord.ABSENT if isinstance(said, NotKnown) else None


def _unanswered(order: Order) -> Finding:
    text = "lnd did not say what became of its payment."
    return about(order, Severity.WARNING, "lnd-silent", text, "See `holdpay status` and lnd's log, and run this again.")


def _sums(order: Order, payment: Payment, said: LndMessage) -> list[Finding]:
    assert isinstance(said, Reported)
    fee_msat = said.update.fee_msat
    if fee_msat == payment.fee_msat:
        return []
    text = f"The journal counts a fee of {sat(payment.fee_msat)}, lnd one of {sat(fee_msat)}."
    return [about(order, Severity.ERROR, "fee-differs", text, "Trust lnd for your accounts, and report this.")]


def missing_htlc_findings(
    orders: Iterable[Order], payments: Iterable[StoredPayment], channels: Iterable[OpenChannel], since_ms: int
) -> list[Finding]:
    """Orders whose payment both books call in flight, since ``since_ms`` (Unix) or earlier, and that no HTLC carries.

    An lnd that ends before it signs the HTLC into the channel takes its attempt for one that is out ever after (lnd
    issue 9340; htlcswitch/switch.go GetAttemptResult waits for the half-open circuit). ``payments`` and ``channels``:
    what lnd has, the channels asked for first.
    """
    stored = {payment.payment_hash: payment for payment in payments}
    present = {channel.chan_id: channel for channel in channels}
    return [
        about(order, Severity.WARNING, "htlc-missing", _MISSING, _MISSING_TODO)
        for order in orders
        if order.payment is not None
        and order.payment.htlc is HtlcState.IN_FLIGHT
        and order.payment.payment_hash in stored
        and _is_without_htlc(stored[order.payment.payment_hash], present, since_ms)
    ]


_MISSING = "lnd calls its payment in flight, and the channel that the HTLC should be in does not show it."
_MISSING_TODO = (
    "Look again in a minute, then restart lnd and look once more. If it stays so, holdpayd closes the order after its"
    f" expiry height; see {manual.page('operations.md', 'In flight and nowhere')}."
)


def _is_without_htlc(payment: StoredPayment, present: Mapping[int, OpenChannel], since_ms: int) -> bool:
    """Told only of channels that are open and active, and of attempts that had their time to show up there."""
    sent_at_ms = [a.attempted_at_ms for a in payment.update.attempts if a.status is AttemptStatus.IN_FLIGHT]
    leaves_by = [present.get(chan_id) for chan_id in payment.leaves_by]
    return (
        payment.update.status is PaymentStatus.IN_FLIGHT
        and bool(leaves_by)
        and max(sent_at_ms, default=0) <= since_ms
        and all(one is not None and one.is_active and payment.payment_hash not in one.paying for one in leaves_by)
    )


def is_of_node(payment: Payment, node: NodeIdentity) -> bool:
    """Whether this node may be asked about the payment."""
    return (payment.node_pubkey, payment.node_network) == (node.pubkey, node.network)


def foreign_findings(orders: Iterable[Order], node: NodeIdentity) -> list[Finding]:
    """Orders of another node, which are not held against this one."""
    foreign = [order for order in orders if order.payment is not None and not is_of_node(order.payment, node)]
    found = [
        about(
            order,
            Severity.ERROR,
            "other-node",
            "It was paid from another node than the one at lnd.address, and its money may be out.",
            "Point lnd.address at the node that paid it; until then nothing is asked or concluded.",
        )
        for order in foreign
        if order.is_money_out
    ]
    others = len(foreign) - len(found)
    if others:
        text = f"{others} more {'order was' if others == 1 else 'orders were'} paid from another node and not compared."
        found.append(Finding(severity=Severity.NOTE, code="other-node", text=text))
    return found


def stranger_findings(
    payments: Iterable[StoredPayment], known_hashes: Set[str], payees: Set[str], *, is_book_empty: bool
) -> list[Finding]:
    """What LND paid, or is paying, to the provider's node and the journal does not know."""
    return [
        _stranger(payment, is_book_empty)
        for payment in payments
        if payment.payment_hash not in known_hashes
        and payment.last_node in payees
        and payment.update.status is not PaymentStatus.FAILED
    ]


def _stranger(payment: StoredPayment, is_book_empty: bool) -> Finding:
    word = _WORDS[payment.update.status]
    todo = (
        "If you did not pay it by hand, the database was lost: `holdpayd recover` shows what it would rebuild."
        if is_book_empty
        else f"If you paid it by hand, all is well. Else the database is older than it: see {manual.page('backup.md')}."
    )
    return Finding(
        severity=Severity.ERROR if is_book_empty else Severity.WARNING,
        code="stranger",
        text=f"lnd has a payment of {sat(payment.amount_msat)} to the provider's node that is {word.value}, and the"
        " journal does not know it.",
        todo=todo,
        hash8=hash8(payment.payment_hash),
    )
