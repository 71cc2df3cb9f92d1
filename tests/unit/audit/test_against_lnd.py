"""The journal's word against LND's: every combination, the sums, strangers and other nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdpay.audit.against_lnd import (
    against_lnd,
    foreign_findings,
    is_of_node,
    missing_htlc_findings,
    stranger_findings,
)
from holdpay.audit.findings import Finding, Severity
from holdpay.core.lightning import (
    AttemptStatus,
    LndMessage,
    Lost,
    NotKnown,
    OfferedHtlc,
    OpenChannel,
    PaymentStatus,
    Reported,
    StoredPayment,
)
from holdpay.core.model import Order
from holdpay.core.states import HtlcState, OrderState
from tests.unit.build import ALICE, HASH, MALLORY, NOW_MS, PAYEE, attempt, order, pair, update

IN_FLIGHT = Reported(update(PaymentStatus.IN_FLIGHT), live=False)
SETTLED = Reported(update(PaymentStatus.SUCCEEDED), live=False)
FAILED = Reported(update(PaymentStatus.FAILED), live=False)
ABSENT = NotKnown()
SAID: tuple[LndMessage, ...] = (IN_FLIGHT, SETTLED, FAILED, ABSENT)

TABLE = {
    HtlcState.NONE: ("money-out", "charged-unrecorded", "tried-elsewhere", None),
    HtlcState.DISPATCHING: ("lnd-ahead", "lnd-ahead", "lnd-ahead", "not-arrived"),
    HtlcState.UNKNOWN: ("lnd-ahead", "lnd-ahead", "lnd-ahead", "not-arrived"),
    HtlcState.IN_FLIGHT: (None, "lnd-ahead", "lnd-ahead", "lnd-record-lost"),
    HtlcState.SETTLED: ("lnd-behind", None, "not-settled", "lnd-record-deleted"),
    HtlcState.FAILED: ("money-out", "charged-unrecorded", None, None),
    HtlcState.GONE: ("never-ends-in-lnd", "known-again", "known-again", None),
}
SEVERITIES = {
    "money-out": Severity.ERROR,
    "charged-unrecorded": Severity.ERROR,
    "not-settled": Severity.ERROR,
    "lnd-record-lost": Severity.WARNING,
    "lnd-behind": Severity.WARNING,
    "never-ends-in-lnd": Severity.NOTE,
    "lnd-ahead": Severity.WARNING,
    "not-arrived": Severity.WARNING,
    "tried-elsewhere": Severity.NOTE,
    "known-again": Severity.NOTE,
    "lnd-record-deleted": Severity.NOTE,
}


def held_against(of: Order, said: LndMessage) -> list[Finding]:
    assert of.payment is not None
    return against_lnd(of, of.payment, said)


@pytest.mark.parametrize("htlc", HtlcState)
@pytest.mark.parametrize("column", range(4), ids=["in flight", "settled", "failed", "absent"])
def test_every_pair_of_words_has_its_meaning(htlc: HtlcState, column: int) -> None:
    code = TABLE[htlc][column]
    findings = held_against(pair(OrderState.AWAITING_PAYMENT, htlc), SAID[column])
    assert [(f.code, f.severity) for f in findings] == ([] if code is None else [(code, SEVERITIES[code])])
    for finding in findings:
        assert finding.order_id == "abcdefghjk"
        assert finding.hash8 == HASH[:8]
        assert HASH not in finding.text + finding.todo
        assert finding.todo or finding.severity is Severity.NOTE


def test_another_fee_than_lnds_is_found() -> None:
    said = Reported(update(PaymentStatus.SUCCEEDED, fee_msat=5), live=False)
    (finding,) = held_against(pair(OrderState.DELIVERED, HtlcState.SETTLED), said)
    assert finding.code == "fee-differs"
    assert "1.002 sat" in finding.text
    assert "0.005 sat" in finding.text


def test_no_answer_is_a_warning_and_nothing_is_concluded() -> None:
    (finding,) = held_against(pair(OrderState.PAID, HtlcState.IN_FLIGHT), Lost("lnd went away"))
    assert (finding.severity, finding.code) == (Severity.WARNING, "lnd-silent")


# --- another node ---


def test_money_out_from_another_node_is_an_error_and_other_orders_of_it_are_counted() -> None:
    out = pair(OrderState.PAID, HtlcState.IN_FLIGHT, id="out")
    over = pair(OrderState.CANCELED, HtlcState.FAILED, id="over")
    findings = foreign_findings([out, over, order(id="unpaid")], MALLORY)
    assert [(f.severity, f.order_id) for f in findings] == [(Severity.ERROR, "out"), (Severity.NOTE, None)]
    assert findings[1].text.startswith("1 more order was paid from another node")


def test_orders_of_the_node_that_answers_are_its_own() -> None:
    own = pair(OrderState.PAID, HtlcState.IN_FLIGHT)
    assert own.payment is not None
    assert is_of_node(own.payment, ALICE)
    assert foreign_findings([own], ALICE) == []


# --- an HTLC that is nowhere ---

CHANNEL, ANOTHER = 403 << 40, 404 << 40
SINCE_MS = NOW_MS


def in_flight_by(
    *leaves_by: int, status: PaymentStatus = PaymentStatus.IN_FLIGHT, sent_at_ms: int = SINCE_MS
) -> StoredPayment:
    failed = attempt(AttemptStatus.FAILED, attempted_at_ms=SINCE_MS + 1)
    out = [attempt(attempted_at_ms=sent_at_ms) for _ in leaves_by]
    return StoredPayment(HASH, "lnsb20u1...", 2_000_000, NOW_MS, PAYEE, leaves_by, update(status, failed, *out))


def channel(chan_id: int = CHANNEL, *paying: str, is_active: bool = True) -> OpenChannel:
    return OpenChannel(chan_id, is_active, tuple(OfferedHtlc(payment_hash, 800_163) for payment_hash in paying))


OURS = pair(OrderState.AWAITING_PAYMENT, HtlcState.IN_FLIGHT)


@pytest.mark.parametrize("channels", [[channel()], [channel(CHANNEL, "ab" * 32), channel(ANOTHER, HASH)]])
def test_a_payment_in_flight_whose_channel_has_no_htlc_of_it_is_found(channels: list[OpenChannel]) -> None:
    (finding,) = missing_htlc_findings([OURS], [in_flight_by(CHANNEL)], channels, SINCE_MS)
    assert (finding.code, finding.severity, finding.hash8) == ("htlc-missing", Severity.WARNING, HASH[:8])
    assert "restart" in finding.todo


@pytest.mark.parametrize(
    ("of", "payment", "channels"),
    [
        (OURS, in_flight_by(CHANNEL), [channel(CHANNEL, HASH)]),
        (OURS, in_flight_by(CHANNEL, ANOTHER), [channel(), channel(ANOTHER, HASH)]),
        (OURS, in_flight_by(CHANNEL, sent_at_ms=SINCE_MS + 1), [channel()]),
        (OURS, in_flight_by(CHANNEL), [channel(is_active=False)]),
        (OURS, in_flight_by(CHANNEL), [channel(ANOTHER)]),
        (OURS, in_flight_by(), [channel()]),
        (OURS, in_flight_by(CHANNEL, status=PaymentStatus.SUCCEEDED), [channel()]),
        (pair(OrderState.DELIVERED, HtlcState.SETTLED), in_flight_by(CHANNEL), [channel()]),
        (OURS, replace(in_flight_by(CHANNEL), payment_hash="ab" * 32), [channel()]),
        (order(), in_flight_by(CHANNEL), [channel()]),
    ],
    ids=[
        "it is there",
        "one of two is there",
        "just sent",
        "its peer is away",
        "the channel is being closed",
        "no attempt is out",
        "lnd says settled",
        "the journal says settled",
        "another payment",
        "nothing was sent",
    ],
)
def test_an_htlc_that_is_there_or_may_be_is_not_missing(
    of: Order, payment: StoredPayment, channels: list[OpenChannel]
) -> None:
    assert missing_htlc_findings([of], [payment], channels, SINCE_MS) == []


# --- what the journal does not know ---


def stored(status: PaymentStatus = PaymentStatus.SUCCEEDED, last_node: str | None = PAYEE) -> StoredPayment:
    return StoredPayment("ab" * 32, "lnsb20u1...", 2_000_000, NOW_MS, last_node, (), update(status))


@pytest.mark.parametrize(
    ("is_book_empty", "severity", "todo"), [(False, Severity.WARNING, "by hand"), (True, Severity.ERROR, "recover")]
)
@pytest.mark.parametrize("status", [PaymentStatus.IN_FLIGHT, PaymentStatus.SUCCEEDED])
def test_a_payment_to_the_provider_that_the_journal_does_not_know_is_found(
    status: PaymentStatus, is_book_empty: bool, severity: Severity, todo: str
) -> None:
    (finding,) = stranger_findings([stored(status)], {HASH}, {PAYEE}, is_book_empty=is_book_empty)
    assert (finding.code, finding.severity, finding.hash8) == ("stranger", severity, "abababab")
    assert todo in finding.todo


@pytest.mark.parametrize(
    "harmless",
    [
        stored(PaymentStatus.FAILED),
        stored(last_node="02" + "ee" * 32),
        stored(last_node=None),
        replace(stored(), payment_hash=HASH),
    ],
    ids=["failed", "to somebody else", "to nobody yet", "known"],
)
def test_other_payments_are_nobodys_business(harmless: StoredPayment) -> None:
    assert stranger_findings([harmless], {HASH}, {PAYEE}, is_book_empty=False) == []
