"""Every state × event, and what no sequence of events may ever do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdpay.core import events as ev
from holdpay.core import tables
from holdpay.core.duties import duties
from holdpay.core.hold import CLOCKS_DIFFER_MS, is_dispatch_planned, may_dispatch
from holdpay.core.lightning import FailureReason, preimage_fits
from holdpay.core.machine import MAX_ANOMALIES, decide
from holdpay.core.model import Order, Payment
from holdpay.core.policy import Policy
from holdpay.core.routes import RouteLook
from holdpay.core.states import MONEY_MAY_BE_OUT, End, FailureClass, HtlcState, OrderState
from holdpay.core.tables import PAIR_TABLE, phase
from holdpay.errors import InvariantViolation
from tests.unit.build import (
    ALICE,
    EVENTS,
    FAILED_ON_THE_WAY,
    HASH,
    HOUR,
    MALLORY,
    NOW_MS,
    POLICY,
    PREIMAGE,
    S,
    failed,
    failure,
    in_flight,
    invoice,
    order,
    pair,
    payment,
    proven_absent,
    refunded,
    replied,
    settled,
)

NONE, DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, FAILED, GONE = HtlcState
REQUESTED, AWAITING, PAID, NUMBER, DELIVERED, CANCELED, ABANDONED = OrderState

OPEN_CELLS = [
    (state, htlc) for (state, htlc), text in PAIR_TABLE.items() if text != tables.IMPOSSIBLE and state is not ABANDONED
]


def step(found: Order, event: ev.Event, at_ms: int = NOW_MS, policy: Policy = POLICY) -> Order:
    return decide(found, event, policy, at_ms).order


def run(found: Order, *events: ev.Event | tuple[int, ev.Event]) -> Order:
    """Events in a row; a tuple names the seconds after NOW_MS."""
    at_ms = NOW_MS
    for item in events:
        if isinstance(item, tuple):
            at_ms, event = NOW_MS + item[0] * S, item[1]
        else:
            event = item
        found = step(found, event, at_ms)
    return found


# --- every state × every event -------------------------------------------------------------------------------------

EVENT_ROWS = pytest.mark.parametrize("name", EVENTS)

_LND = {name for name, event in EVENTS.items() if isinstance(event, ev.PaymentReported)}
OURS = {(REQUESTED, name) for name in {*_LND, "cancel accepted"}}
"""What only a defect of our own could post: lnd's word of a payment that never was, a cancel of what never was."""


def check(before: Order, after: Order) -> None:
    """The laws of one step."""
    assert not (after.is_closed and after.is_money_out), "closed while money may be out"
    assert PAIR_TABLE[after.state, after.htlc] != tables.IMPOSSIBLE
    assert after.is_closed == (after.end is not None)
    if before.is_closed:
        assert after == before, "a closed order changed"
    assert before.code is None or after.code == before.code, "a code was forgotten"
    _check_numbers(before, after)
    assert after.later_codes[: len(before.later_codes)] == before.later_codes
    assert before.unread is None or after.unread is not None, "a reply that only a person can read was forgotten"
    assert before.cancel_wanted_at_ms is None or after.cancel_wanted_at_ms == before.cancel_wanted_at_ms
    if before.payment is not None:
        assert after.payment is not None
        _check_payment(before.payment, after.payment)
    if after.is_closed:
        assert duties(after) == frozenset()
        assert after.reserved_msat == after.spent_msat
    if after.htlc is SETTLED:
        assert after.payment is not None
        assert after.payment.preimage is not None
        assert preimage_fits(after.payment.preimage, after.payment.payment_hash)
    assert duties(after) or after.is_closed or after.is_quarantined, "an open order that nobody works for"


def _check_numbers(before: Order, after: Order) -> None:
    if before.number in {None, after.number}:
        assert after.earlier_numbers == before.earlier_numbers
        return
    assert before.code is None, "the number to which the code came was replaced"
    assert after.number is not None, "a number was forgotten"
    assert after.earlier_numbers == (*before.earlier_numbers, before.number)


def _check_payment(before: Payment, after: Payment) -> None:
    assert after.payment_hash == before.payment_hash
    assert before.preimage is None or after.preimage == before.preimage
    assert before.htlc is not SETTLED or after.htlc is SETTLED, "spent money came back"
    assert not before.reached_payee or after.reached_payee
    assert after.dispatch_count >= before.dispatch_count
    if before.htlc in MONEY_MAY_BE_OUT and after.htlc is NONE:
        assert not before.is_known_to_lnd, "lnd had spoken of it"


@EVENT_ROWS
def test_every_event_in_every_state_keeps_the_laws(name: str) -> None:
    for state, htlc in OPEN_CELLS:
        before = pair(state, htlc)
        if (state, name) in OURS:
            with pytest.raises(InvariantViolation):
                step(before, EVENTS[name])
        else:
            check(before, step(before, EVENTS[name]))


@EVENT_ROWS
def test_an_event_told_twice_changes_nothing_the_second_time(name: str) -> None:
    if isinstance(EVENTS[name], ev.PlacingFailed):
        return  # each of these is another attempt
    for state, htlc in OPEN_CELLS:
        if (state, name) not in OURS:
            once = step(pair(state, htlc), EVENTS[name])
            again = step(once, EVENTS[name])
            assert replace(again, anomaly_count=once.anomaly_count) == once, phase(once)


@EVENT_ROWS
def test_nothing_changes_a_closed_order(name: str) -> None:
    for htlc in (NONE, SETTLED, FAILED):
        closed = replace(pair(ABANDONED, htlc), closed_at_ms=NOW_MS, end=End.PAYMENT_FAILED)
        assert not decide(closed, EVENTS[name], POLICY, NOW_MS + HOUR).is_change


def test_every_kind_of_event_is_looked_at_here() -> None:
    looked_at = {type(event) for event in EVENTS.values()} | {ev.DispatchIntended, ev.ChargeIntended}
    assert looked_at == set(ev.Event.__args__)


# --- what the provider's words make of the order --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "reply", "becomes", "is_anomaly"),
    [
        (AWAITING, "reply: unpaid", AWAITING, False),
        (AWAITING, "reply: paid", PAID, False),
        (AWAITING, "reply: number", NUMBER, False),
        (AWAITING, "reply: code", DELIVERED, False),
        (AWAITING, "reply: error", CANCELED, False),
        (PAID, "reply: unpaid", PAID, True),
        (PAID, "reply: paid", PAID, False),
        (PAID, "reply: number", NUMBER, False),
        (PAID, "reply: code", DELIVERED, False),
        (PAID, "reply: error", CANCELED, False),
        (NUMBER, "reply: unpaid", NUMBER, True),
        (NUMBER, "reply: paid", NUMBER, False),
        (NUMBER, "reply: number", NUMBER, False),
        (NUMBER, "reply: another number", NUMBER, True),
        (NUMBER, "reply: code", DELIVERED, False),
        (NUMBER, "reply: error", CANCELED, False),
        (DELIVERED, "reply: unpaid", DELIVERED, True),
        (DELIVERED, "reply: paid", DELIVERED, False),
        (DELIVERED, "reply: number", DELIVERED, False),
        (DELIVERED, "reply: code", DELIVERED, False),
        (DELIVERED, "reply: error", DELIVERED, True),
        (CANCELED, "reply: unpaid", CANCELED, False),
        (CANCELED, "reply: paid", CANCELED, False),
        (CANCELED, "reply: number", CANCELED, True),
        (CANCELED, "reply: code", DELIVERED, True),
        (CANCELED, "reply: error", CANCELED, False),
    ],
)
def test_a_reply_moves_the_order(state: OrderState, reply: str, becomes: OrderState, is_anomaly: bool) -> None:
    done = decide(pair(state, IN_FLIGHT), EVENTS[reply], POLICY, NOW_MS + 1)
    assert done.order.state is becomes
    assert bool(done.notes) is is_anomaly
    assert done.order.htlc is IN_FLIGHT


@pytest.mark.parametrize(
    ("htlc", "word", "becomes"),
    [
        (htlc, word, becomes)
        for word, row in {
            # NONE (dispatched once), DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, FAILED
            "in flight": (IN_FLIGHT, IN_FLIGHT, IN_FLIGHT, IN_FLIGHT, SETTLED, IN_FLIGHT),
            "settled": (SETTLED, SETTLED, SETTLED, SETTLED, SETTLED, SETTLED),
            "settled with a foreign preimage": (NONE, DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, FAILED),
            "settled without a preimage": (NONE, DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, FAILED),
            "failed on the way": (FAILED, FAILED, FAILED, FAILED, SETTLED, FAILED),
            "failed, read later": (FAILED, FAILED, FAILED, FAILED, SETTLED, FAILED),
            "failed at the payee": (FAILED, FAILED, FAILED, FAILED, SETTLED, FAILED),
            "send refused": (NONE, DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, FAILED),
            "tracking lost": (NONE, UNKNOWN, UNKNOWN, IN_FLIGHT, SETTLED, FAILED),
            "payment not found": (NONE, DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, FAILED),
            "daemon restarted": (NONE, UNKNOWN, UNKNOWN, IN_FLIGHT, SETTLED, FAILED),
            "time passed": (NONE, DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, FAILED),
            "confused": (NONE, DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, FAILED),
            "reply: error": (NONE, DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, FAILED),
            "cancel accepted": (NONE, DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, FAILED),
        }.items()
        for htlc, becomes in zip((NONE, DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, FAILED), row, strict=True)
    ],
)
@pytest.mark.parametrize("state", [AWAITING, PAID, NUMBER])
def test_only_lnd_moves_the_htlc(state: OrderState, htlc: HtlcState, word: str, becomes: HtlcState) -> None:
    before = pair(state, htlc) if htlc is not NONE else replace(pair(state, htlc), payment=proven_absent())
    assert step(before, EVENTS[word]).htlc is becomes


# --- placing and vetting --------------------------------------------------------------------------------------------


def test_a_refusal_to_place_closes_the_order_and_says_the_providers_words() -> None:
    after = step(order(), ev.PlacingFailed("no such service", may_retry=False))
    assert (after.end, after.state) == (End.PROVIDER_REFUSED, ABANDONED)
    assert "no such service" in after.reason


def test_placing_is_tried_again_with_growing_waits_and_then_given_up() -> None:
    busy = ev.PlacingFailed("busy", may_retry=True)
    once = step(order(), busy)
    assert once.place_at_ms == NOW_MS + 5 * S
    twice = step(once, busy, NOW_MS + 5 * S)
    assert twice.place_at_ms == NOW_MS + 15 * S
    assert step(twice, busy, NOW_MS + 15 * S).end is End.PROVIDER_REFUSED


def test_a_second_answer_to_the_same_order_does_not_replace_the_first() -> None:
    done = decide(pair(AWAITING, IN_FLIGHT), ev.OrderPlaced("another", "lnsb1other"), POLICY, NOW_MS)
    assert done.order.provider_order_id == HASH
    assert done.notes


def test_a_vetted_invoice_is_to_be_paid_at_once_up_to_the_first_rung() -> None:
    placed = run(order(), ev.OrderPlaced(HASH, "lnsb20u1..."))
    vetted = step(placed, ev.InvoiceDecoded(invoice(), ALICE, seen_before=False))
    assert vetted.payment is not None
    assert may_dispatch(vetted, POLICY, NOW_MS)
    assert vetted.payment.fee_limit_msat == 10_000
    assert (vetted.payment.node_pubkey, vetted.payment.node_network) == (ALICE.pubkey, ALICE.network)


def test_an_invoice_cheaper_than_expected_lowers_a_fee_limit_to_the_bound_of_what_is_really_paid() -> None:
    placed = run(order(max_price_sat=10_000, max_fee_sat=500), ev.OrderPlaced(HASH, "lnsb20u1..."))
    vetted = step(placed, ev.InvoiceDecoded(invoice(), ALICE, seen_before=False))
    assert vetted.payment is not None
    assert (vetted.max_fee_sat, vetted.payment.fee_limit_msat) == (100, 50_000)


def test_an_invoice_that_expires_early_is_paid_early_or_not_at_all() -> None:
    placed = run(order(), ev.OrderPlaced(HASH, "lnsb20u1..."))
    vetted = step(placed, ev.InvoiceDecoded(invoice(expiry_s=120), ALICE, seen_before=False))
    assert vetted.pay_by_ms == NOW_MS + 60 * S
    assert may_dispatch(vetted, POLICY, NOW_MS + 60 * S - 1)
    assert not may_dispatch(vetted, POLICY, NOW_MS + 60 * S)


def test_a_refused_invoice_is_never_a_payment_and_says_every_reason() -> None:
    placed = run(order(), ev.OrderPlaced(HASH, "lnsb20u1..."))
    bad = invoice(amount_msat=9_000_000, has_payment_address=False)
    after = step(placed, ev.InvoiceDecoded(bad, ALICE, seen_before=True))
    assert after.end is End.INVOICE_REJECTED
    assert after.payment is None
    assert all(words in after.reason for words in ("9,000 sat", "payment address", "another order"))


# --- dispatching ----------------------------------------------------------------------------------------------------


def test_the_intent_reserves_everything_before_it_is_acted_upon() -> None:
    after = step(pair(AWAITING, NONE), ev.DispatchIntended(ALICE), NOW_MS + 5)
    assert after.payment is not None
    assert (after.htlc, after.payment.dispatch_count, after.payment.money_out_since_ms) == (DISPATCHING, 1, NOW_MS + 5)
    assert not is_dispatch_planned(after)
    assert after.reserved_msat == 2_000_000 + 20_000


@pytest.mark.parametrize(
    "found",
    [
        order(),
        pair(AWAITING, DISPATCHING),
        pair(AWAITING, UNKNOWN),
        pair(AWAITING, IN_FLIGHT),
        pair(AWAITING, SETTLED),
        pair(AWAITING, FAILED),
        pair(AWAITING, FAILED, unpaid_since_ms=NOW_MS, reached_payee=True),
        pair(AWAITING, FAILED, unpaid_since_ms=NOW_MS, failure=failure(FailureClass.READ_LATER)),
        replace(pair(AWAITING, NONE), payment=proven_absent()),
        pair(AWAITING, NONE, cancel_wanted_at_ms=NOW_MS),
        pair(AWAITING, NONE, giving_up="no time"),
        pair(AWAITING, NONE, reached_payee=True),
        pair(AWAITING, FAILED, dispatch_count=0),
        pair(PAID, NONE, unpaid_since_ms=NOW_MS, reached_payee=False),
        pair(CANCELED, FAILED, unpaid_since_ms=NOW_MS),
    ],
    ids=str,
)
def test_sending_without_a_license_ends_the_process(found: Order) -> None:
    assert not may_dispatch(found, POLICY, NOW_MS)
    with pytest.raises(InvariantViolation):
        step(found, ev.DispatchIntended(ALICE))


def test_sending_from_another_node_ends_the_process() -> None:
    for node in (MALLORY, replace(ALICE, network="mainnet")):
        with pytest.raises(InvariantViolation):
            step(pair(AWAITING, NONE), ev.DispatchIntended(node))


@pytest.mark.parametrize("at_ms", [NOW_MS - 1, NOW_MS + 600 * S])
def test_an_intent_whose_time_is_over_commits_nothing_and_is_no_contradiction(at_ms: int) -> None:
    """The look and the commit read the clock twice: ``pay_by`` may lie between them."""
    after = step(pair(AWAITING, NONE), ev.DispatchIntended(ALICE), at_ms)
    assert after.payment is not None
    assert (after.htlc, after.payment.dispatch_count) == (NONE, 0)


# --- the license for another dispatch -------------------------------------------------------------------------------


def _failed_live() -> Order:
    return run(pair(AWAITING, IN_FLIGHT), (10, failed(FAILED_ON_THE_WAY)))


def test_a_routing_failure_seen_live_needs_one_unpaid_reply_asked_after_it() -> None:
    found = _failed_live()
    assert not may_dispatch(found, POLICY, NOW_MS + 60 * S)
    stale = run(found, (11, replied(NOW_MS + 10 * S)))
    assert not may_dispatch(stale, POLICY, NOW_MS + 60 * S)
    fresh = run(found, (11, replied(NOW_MS + 10 * S + 1)))
    assert may_dispatch(fresh, POLICY, NOW_MS + 11 * S)


def test_a_failure_read_later_needs_two_unpaid_replies_ten_seconds_apart() -> None:
    found = run(pair(AWAITING, UNKNOWN), (10, failed(live=False)))
    once = run(found, (11, replied(NOW_MS + 11 * S)))
    assert not may_dispatch(once, POLICY, NOW_MS + 200 * S)
    soon = run(once, (20, replied(NOW_MS + 20 * S)))
    assert not may_dispatch(soon, POLICY, NOW_MS + 200 * S)
    twice = run(soon, (21, replied(NOW_MS + 21 * S)))
    assert may_dispatch(twice, POLICY, NOW_MS + 200 * S)


@pytest.mark.parametrize(
    "reply", ["reply: paid", "reply: number", "reply: code", "reply: error", "reply: error, unpaid"]
)
def test_any_other_reply_after_a_failure_ends_all_dispatching(reply: str) -> None:
    found = run(_failed_live(), (11, replied(NOW_MS + 11 * S)), (12, EVENTS[reply]), (13, replied(NOW_MS + 13 * S)))
    assert not is_dispatch_planned(found)


def test_a_failure_at_the_payee_is_never_dispatched_again() -> None:
    found = run(pair(AWAITING, IN_FLIGHT), (10, refunded()), (11, replied(NOW_MS + 11 * S)))
    assert not is_dispatch_planned(found)
    assert found.giving_up


def test_a_channel_closed_under_the_htlc_is_never_dispatched_again_though_the_reason_looks_retryable() -> None:
    found = run(pair(AWAITING, IN_FLIGHT), (10, EVENTS["failed on chain"]), (11, replied(NOW_MS + 11 * S)))
    assert not is_dispatch_planned(found)


def test_what_the_provider_called_paid_is_never_dispatched_again_whatever_the_reason() -> None:
    """On a real node a held HTLC that ran out of time ends with NO_ROUTE or INSUFFICIENT_BALANCE."""
    for reason in FailureReason:
        found = run(pair(AWAITING, IN_FLIGHT), (5, replied(paid=True)), (10, failed(failure_reason=reason)))
        found = run(found, (11, replied(NOW_MS + 11 * S)), (30, replied(NOW_MS + 30 * S)))
        assert not is_dispatch_planned(found), reason


def test_lnds_early_word_that_the_payee_refused_counts_though_it_is_forgotten_when_read_later() -> None:
    """A cancel is told first by an update that is still IN_FLIGHT; a Track after a crash may say TIMEOUT instead."""
    early_word = in_flight(failure_reason=FailureReason.INCORRECT_PAYMENT_DETAILS)
    warned = run(pair(AWAITING, IN_FLIGHT), early_word, ev.DaemonRestarted())
    found = run(warned, (10, failed(live=False, failure_reason=FailureReason.TIMEOUT)))
    found = run(found, (11, replied(NOW_MS + 11 * S)), (30, replied(NOW_MS + 30 * S)))
    assert not is_dispatch_planned(found)
    assert found.end is End.REFUNDED


def test_each_dispatch_needs_a_license_of_its_own() -> None:
    found = run(_failed_live(), (11, replied(NOW_MS + 11 * S)), (12, ev.DispatchIntended(ALICE)))
    assert found.htlc is DISPATCHING
    again = run(found, (13, in_flight(payment_index=8)), (14, failed(FAILED_ON_THE_WAY, payment_index=8)))
    assert not may_dispatch(again, POLICY, NOW_MS + 300 * S)
    with pytest.raises(InvariantViolation):
        step(again, ev.DispatchIntended(ALICE), NOW_MS + 300 * S)


def test_a_failure_that_turned_out_premature_needs_a_license_of_its_own_too() -> None:
    licensed = run(_failed_live(), (11, replied(NOW_MS + 11 * S)))
    assert may_dispatch(licensed, POLICY, NOW_MS + 12 * S)
    again = run(licensed, (12, in_flight()), (13, failed(FAILED_ON_THE_WAY)))
    assert not may_dispatch(again, POLICY, NOW_MS + 300 * S)


def test_an_unpaid_order_is_closed_once_no_dispatch_is_left_and_the_provider_confirmed() -> None:
    found = run(pair(AWAITING, IN_FLIGHT, dispatch_count=6), (10, failed(FAILED_ON_THE_WAY)))
    assert not found.is_closed
    looked = ev.RouteLookedFor(6, RouteLook(is_route_known=True))
    assert run(found, (11, replied(NOW_MS + 11 * S)), (12, looked)).end is End.PAYMENT_FAILED
    assert run(found, (11, looked), (12, replied(NOW_MS + 12 * S))).end is End.PAYMENT_FAILED


# --- one NOT_FOUND proves nothing -----------------------------------------------------------------------------------

NOT_FOUND = ev.PaymentNotFound()


@pytest.mark.parametrize("htlc", [DISPATCHING, UNKNOWN])
def test_two_not_founds_thirty_seconds_apart_prove_that_nothing_was_sent(htlc: HtlcState) -> None:
    once = run(pair(AWAITING, htlc), (1, NOT_FOUND))
    assert once.htlc is htlc
    assert run(once, (30, NOT_FOUND)).htlc is htlc
    assert run(once, (31, NOT_FOUND)).htlc is NONE


def test_a_send_that_arrives_after_a_not_found_begins_the_proof_anew() -> None:
    found = run(pair(AWAITING, UNKNOWN), (1, NOT_FOUND), (2, in_flight()))
    assert found.htlc is IN_FLIGHT
    found = run(found, (40, NOT_FOUND), (80, NOT_FOUND))
    assert found.htlc is IN_FLIGHT


def test_a_restart_begins_the_proof_anew() -> None:
    found = run(pair(AWAITING, UNKNOWN), (1, NOT_FOUND), (40, ev.DaemonRestarted()), (41, NOT_FOUND))
    assert found.htlc is UNKNOWN
    assert run(found, (71, NOT_FOUND)).htlc is NONE


def test_a_restart_begins_the_two_words_of_the_provider_anew() -> None:
    read_later = pair(AWAITING, FAILED, failure=failure(FailureClass.READ_LATER))
    found = run(read_later, (1, replied(NOW_MS + S)), (5, ev.DaemonRestarted()), (12, replied(NOW_MS + 12 * S)))
    assert not may_dispatch(found, POLICY, NOW_MS + 12 * S)
    found = run(found, (22, replied(NOW_MS + 22 * S)))
    assert may_dispatch(found, POLICY, NOW_MS + 22 * S)
    assert may_dispatch(run(found, (23, ev.DaemonRestarted())), POLICY, NOW_MS + 23 * S)


def test_a_proof_from_a_clock_that_was_set_back_is_begun_anew() -> None:
    found = pair(AWAITING, UNKNOWN, absent_since_ms=NOW_MS + HOUR)
    found = run(found, (1, NOT_FOUND))
    assert found.htlc is UNKNOWN
    assert run(found, (31, NOT_FOUND)).htlc is NONE


@pytest.mark.parametrize("htlc", sorted(MONEY_MAY_BE_OUT))
def test_a_payment_that_lnd_has_spoken_of_is_never_absent(htlc: HtlcState) -> None:
    found = pair(AWAITING, htlc, is_known_to_lnd=True)
    found = run(found, (1, NOT_FOUND), (100, NOT_FOUND), (5000, NOT_FOUND), (360_000, ev.TimePassed()))
    assert found.htlc is htlc
    assert not found.is_closed
    assert found.anomaly_count == 1
    assert found.payment is not None
    assert found.payment.gone_since_ms == NOW_MS + S


def test_after_proven_absence_the_same_hash_is_sent_again_only_with_the_providers_word() -> None:
    found = run(pair(AWAITING, UNKNOWN), (1, NOT_FOUND), (31, NOT_FOUND))
    assert is_dispatch_planned(found)
    assert not may_dispatch(found, POLICY, NOW_MS + 32 * S)
    assert may_dispatch(run(found, (32, replied(NOW_MS + 32 * S))), POLICY, NOW_MS + 32 * S)


def test_a_refusal_is_believed_only_after_lnd_twice_knew_nothing_of_the_payment() -> None:
    refused = run(pair(AWAITING, DISPATCHING), ev.SendRefused("invoice expired. Valid until 2026-11-22"))
    assert refused.htlc is DISPATCHING
    held = run(refused, (1, in_flight()))
    assert held.htlc is IN_FLIGHT
    absent = run(refused, (1, NOT_FOUND), (31, NOT_FOUND))
    assert absent.htlc is NONE
    assert absent.giving_up is not None
    assert "invoice expired" in absent.giving_up
    assert run(absent, (32, replied(NOW_MS + 32 * S))).end is End.PAYMENT_FAILED


def test_the_failure_of_an_earlier_dispatch_says_that_the_latest_did_not_arrive_yet() -> None:
    found = run(_failed_live(), (11, replied(NOW_MS + 11 * S)), (12, ev.DispatchIntended(ALICE)))
    found = run(found, (13, ev.TrackingLost("gone")), (14, failed(live=False)))
    assert found.htlc is UNKNOWN
    found = run(found, (44, failed(live=False)))
    assert found.htlc is FAILED
    assert not may_dispatch(found, POLICY, NOW_MS + 44 * S)
    assert may_dispatch(run(found, (45, replied(NOW_MS + 45 * S))), POLICY, NOW_MS + 45 * S)


def test_the_failure_of_the_latest_dispatch_has_an_index_of_its_own() -> None:
    found = run(_failed_live(), (11, replied(NOW_MS + 11 * S)), (12, ev.DispatchIntended(ALICE)))
    assert run(found, (13, failed(FAILED_ON_THE_WAY, payment_index=8))).htlc is FAILED


def test_a_latest_dispatch_that_got_the_index_of_the_one_before_is_known_by_when_it_began() -> None:
    # An lnd with SQLite and native SQL gives it again.
    first = run(pair(AWAITING, IN_FLIGHT), (10, failed(FAILED_ON_THE_WAY, created_at_ms=NOW_MS)))
    found = run(first, (11, replied(NOW_MS + 11 * S)), (12, ev.DispatchIntended(ALICE)), (13, ev.TrackingLost("gone")))
    assert run(found, (14, failed(live=False, created_at_ms=NOW_MS))).htlc is UNKNOWN
    assert run(found, (14, failed(live=False))).htlc is UNKNOWN, "lnd does not say when it began"
    assert run(found, (14, failed(live=False, created_at_ms=NOW_MS + 12 * S))).htlc is FAILED


# --- terminal words are sticky --------------------------------------------------------------------------------------


def test_the_first_terminal_reason_is_kept_though_lnd_overwrites_it_later() -> None:
    found = run(pair(PAID, IN_FLIGHT), (10, refunded()), (20, failed(live=False, failure_reason=FailureReason.TIMEOUT)))
    assert found.payment is not None
    assert found.payment.failure is not None
    assert found.payment.failure.reason is FailureReason.INCORRECT_PAYMENT_DETAILS
    assert found.payment.failure.failure_class is FailureClass.PAYEE_REFUSED


def test_a_refund_after_lnds_time_out_that_nobody_saw_live_is_a_refund_by_the_providers_word() -> None:
    """lnd's time for attempts ends at ``pay_by_ms``, so a longer hold has its reason overwritten for who asks later."""
    later = failed(live=False, failure_reason=FailureReason.TIMEOUT)
    found = run(pair(AWAITING, IN_FLIGHT), (700, later), (701, replied(NOW_MS + 701 * S, paid=True, error="no number")))
    assert (found.end, found.spent_msat) == (End.REFUNDED, 0)
    assert not may_dispatch(run(pair(AWAITING, IN_FLIGHT), (700, later)), POLICY, NOW_MS + 800 * S)


def test_lnd_saying_succeeded_with_a_preimage_that_does_not_fit_is_not_believed() -> None:
    done = decide(pair(NUMBER, IN_FLIGHT), settled(preimage="22" * 32), POLICY, NOW_MS)
    assert done.order.htlc is IN_FLIGHT
    assert done.notes


def test_a_settled_order_books_amount_and_fee() -> None:
    found = run(pair(NUMBER, IN_FLIGHT), replied(paid=True, code="012345"), settled())
    assert found.end is End.FULFILLED
    assert found.spent_msat == found.reserved_msat == 2_001_002
    assert found.payment is not None
    assert found.payment.preimage == PREIMAGE


ALREADY_PAID = ev.SendRefused("invoice is already paid", has_hash=True)
EXPIRED = ev.SendRefused("invoice expired. Valid until 2026-11-22")
EARLIER_MS = NOW_MS - CLOCKS_DIFFER_MS - 1


def test_what_this_node_had_paid_before_the_request_is_adopted_and_books_nothing() -> None:
    done = decide(step(pair(AWAITING, DISPATCHING), ALREADY_PAID), settled(created_at_ms=EARLIER_MS), POLICY, NOW_MS)
    assert "before the order was requested" in done.notes[0]
    found = run(done.order, replied(paid=True, code="012345"))
    assert (found.htlc, found.end) == (SETTLED, End.FULFILLED)
    assert found.spent_msat == found.reserved_msat == 0


@pytest.mark.parametrize(
    ("refusal", "created_at_ms"),
    [
        ((), EARLIER_MS),
        ((EXPIRED,), EARLIER_MS),
        ((ALREADY_PAID,), EARLIER_MS + 1),
        ((ALREADY_PAID,), NOW_MS + 1),
        ((ALREADY_PAID,), None),
    ],
    ids=[
        "lnd took the send",
        "lnd refused it for another reason, and took it; the clock was ahead when the order was requested",
        "the clocks may differ by that",
        "it is the order's own",
        "lnd does not say when",
    ],
)
def test_a_payment_is_called_earlier_only_if_it_surely_is(refusal: tuple[ev.Event, ...], created_at_ms: int) -> None:
    found = run(pair(AWAITING, DISPATCHING), *refusal, settled(created_at_ms=created_at_ms))
    assert found.spent_msat == found.reserved_msat == 2_001_002


def test_a_hash_that_lnd_has_at_the_second_dispatch_is_of_the_first() -> None:
    again = pair(AWAITING, DISPATCHING, dispatch_count=2)
    assert run(again, ALREADY_PAID, settled(created_at_ms=EARLIER_MS)).spent_msat == 2_001_002


def test_a_code_that_comes_before_the_settlement_is_kept_and_the_order_waits_for_it() -> None:
    found = run(pair(NUMBER, IN_FLIGHT), replied(paid=True, code="012345"))
    assert (found.code, found.is_closed) == ("012345", False)
    assert run(found, replied(paid=True, code="999999"), settled()).code == "012345"


def test_a_free_code_is_passed_on_and_noted() -> None:
    done = decide(pair(NUMBER, FAILED), replied(paid=True, code="012345"), POLICY, NOW_MS)
    assert (done.order.code, done.order.end) == ("012345", End.FULFILLED_FREE)
    assert done.notes


def test_a_code_after_the_cancellation_still_counts() -> None:
    found = run(pair(CANCELED, SETTLED), replied(paid=True, code="012345"))
    assert (found.code, found.end) == ("012345", End.FULFILLED)


def test_money_that_came_back_is_released() -> None:
    found = run(pair(PAID, IN_FLIGHT), (10, replied(paid=True, error="No available number")), (11, refunded()))
    assert found.end is End.REFUNDED
    assert (found.reserved_msat, found.locked_msat, found.spent_msat) == (0, 0, 0)


# --- the wish to cancel ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("htlc", [NONE, FAILED])
def test_a_cancel_ends_an_order_whose_money_is_not_out(htlc: HtlcState) -> None:
    assert run(pair(AWAITING, htlc), ev.CancelRequested()).end is End.CANCELED_UNPAID


def test_a_cancel_ends_a_request_that_was_not_placed_yet() -> None:
    assert run(order(), ev.CancelRequested()).end is End.CANCELED_UNPAID


@pytest.mark.parametrize(("state", "htlc"), list(product([AWAITING, PAID, NUMBER], sorted(MONEY_MAY_BE_OUT))))
def test_a_cancel_while_money_may_be_out_is_a_wish_carried_out_after_two_minutes(
    state: OrderState, htlc: HtlcState
) -> None:
    found = run(pair(state, htlc), (5, ev.CancelRequested()))
    assert not found.is_closed
    assert found.cancel_at_ms == NOW_MS + 120 * S
    assert found.htlc is htlc
    assert run(found, (200, ev.CancelRequested())) == found


def test_money_that_comes_back_when_the_promise_ends_leaves_the_provider_time_to_say_why() -> None:
    late = POLICY.promise_s + 1
    found = run(pair(PAID, IN_FLIGHT), (late, refunded()), (late + 1, ev.TimePassed()))
    assert not found.is_closed
    error = replied(NOW_MS + (late + 2) * S, paid=True, error="No available number")
    assert run(found, (late + 2, error)).reason == "No available number"
    code = replied(NOW_MS + (late + 2) * S, paid=True, code="012345")
    assert run(found, (late + 2, code)).code == "012345"
    never = run(found, (late + POLICY.close_unpaid_after_s, ev.TimePassed()))
    assert never.reason == "the provider never said what became of it"


def test_a_provider_that_wants_to_be_left_alone_gets_the_next_try_after_that() -> None:
    found = run(order(), (1, ev.PlacingFailed("429", may_retry=True, wait_s=90)))
    assert found.place_at_ms == NOW_MS + 91 * S
    assert run(order(), (1, ev.PlacingFailed("429", may_retry=True, wait_s=1))).place_at_ms == NOW_MS + 6 * S


def test_a_refused_cancel_is_asked_for_again_at_growing_intervals() -> None:
    no = ev.CancelAnswered(accepted=False, text="too late")
    found = run(pair(NUMBER, IN_FLIGHT), (300, ev.CancelRequested()), (301, no))
    assert found.cancel_at_ms == NOW_MS + 331 * S
    assert run(found, (300 + 16 * 60, no)).cancel_at_ms == NOW_MS + (300 + 17 * 60) * S
    assert run(found, (300 + 16 * 3600, no)).cancel_at_ms == NOW_MS + (300 + 17 * 3600) * S


def test_a_late_cancel_is_carried_out_at_once() -> None:
    assert run(pair(NUMBER, IN_FLIGHT), (300, ev.CancelRequested())).cancel_at_ms == NOW_MS + 300 * S


def test_a_code_that_came_first_wins_over_the_wish() -> None:
    wished = run(pair(NUMBER, IN_FLIGHT), (5, ev.CancelRequested()))
    won = run(wished, (10, replied(paid=True, code="012345")))
    assert won.cancel_at_ms is None, "the provider would be asked to cancel what it has delivered"
    assert won.code == "012345"
    assert run(pair(DELIVERED, IN_FLIGHT), ev.CancelRequested()).cancel_wanted_at_ms is None


def test_what_the_provider_has_canceled_itself_is_not_canceled_again() -> None:
    found = run(pair(NUMBER, IN_FLIGHT), (5, ev.CancelRequested()), (10, replied(paid=True, error="over")))
    assert found.cancel_at_ms is None


def test_a_refused_cancel_is_tried_again_as_long_as_money_is_out() -> None:
    wished = run(pair(NUMBER, IN_FLIGHT), (5, ev.CancelRequested()))
    for answer in (EVENTS["cancel refused"], EVENTS["cancel answer lost"]):
        assert run(wished, (120, answer)).cancel_at_ms == NOW_MS + 150 * S


@pytest.mark.parametrize("htlc", [SETTLED, FAILED, NONE])
def test_a_refused_cancel_is_not_tried_again_once_no_money_is_out(htlc: HtlcState) -> None:
    """A late code of an order that was charged must not be lost to a cancel."""
    found = pair(NUMBER, htlc, cancel_wanted_at_ms=NOW_MS, cancel_at_ms=NOW_MS)
    assert run(found, EVENTS["cancel refused"]).cancel_at_ms is None


def test_an_accepted_cancel_waits_for_the_money() -> None:
    wished = run(pair(NUMBER, IN_FLIGHT), (5, ev.CancelRequested()), (120, EVENTS["cancel accepted"]))
    assert (wished.state, wished.is_closed) == (CANCELED, False)
    assert run(wished, (121, refunded())).end is End.REFUNDED


def test_nothing_is_dispatched_after_the_wish() -> None:
    found = run(pair(AWAITING, IN_FLIGHT), (1, ev.CancelRequested()), (2, failed(FAILED_ON_THE_WAY)))
    assert found.end is End.CANCELED_UNPAID


# --- nothing fills the disk -----------------------------------------------------------------------------------------


def test_a_provider_that_flips_for_ever_writes_a_bounded_number_of_rows() -> None:
    found, rows = pair(AWAITING, IN_FLIGHT), 0
    replies: list[Callable[[int], ev.Event]] = [
        lambda i: replied(),
        lambda i: replied(paid=True, number=f"1555{i:07d}"),
        lambda i: replied(paid=True, error=f"error {i}"),
        lambda i: replied(paid=True),
        lambda i: replied(number=f"1666{i:07d}", error=f"no number {i}"),
        lambda i: ev.ProviderConfused(f"nonsense {i}", unread=f"nonsense {i}"),
        lambda i: replied(paid=True, unread=f"code {i}"),
    ]
    for i in range(600):
        done = decide(found, replies[i % len(replies)](i), POLICY, NOW_MS + i * S)
        rows, found = rows + done.is_change, done.order
    assert rows <= MAX_ANOMALIES + 10
    assert not found.is_closed


def test_a_reply_that_says_nothing_new_changes_nothing() -> None:
    found = run(pair(AWAITING, IN_FLIGHT), replied(paid=True, number="15551234567"))
    assert not decide(found, replied(NOW_MS + 9, paid=True, number="15551234567"), POLICY, NOW_MS + 10).is_change
    assert not decide(found, in_flight(), POLICY, NOW_MS + 10).is_change


# --- random histories -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sent:
    """The engine sends when, and only when, it may."""


_EVENT = st.sampled_from([*EVENTS.values(), _Sent(), _Sent(), _Sent()])
_INDEX = st.integers(min_value=7, max_value=9)
_WAIT_MS = st.sampled_from([0, 1, 500, 2 * S, 11 * S, 31 * S, 130 * S, 700 * S, 50 * HOUR])


def _now(event: ev.Event, at_ms: int, index: int) -> ev.Event:
    """The same event, of now: asked just before, about the dispatch with this index."""
    if isinstance(event, ev.ProviderReplied):
        return replace(event, asked_at_ms=at_ms)
    if isinstance(event, ev.PaymentReported):
        return replace(event, update=replace(event.update, payment_index=index))
    return event


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.lists(st.tuples(_WAIT_MS, _EVENT, _INDEX), max_size=40), st.booleans())
def test_no_history_breaks_a_law(history: list[tuple[int, ev.Event | _Sent, int]], begins_placed: bool) -> None:
    found, at_ms = order(pay_by_ms=NOW_MS + 600 * S), NOW_MS
    if begins_placed:
        found = run(found, EVENTS["order placed"], EVENTS["invoice decoded"])
    was_called_paid = False
    for wait_ms, item, index in history:
        at_ms += wait_ms
        before = found
        if isinstance(item, _Sent):
            if not may_dispatch(found, POLICY, at_ms):
                continue
            assert not was_called_paid, "dispatched after the provider called it paid"
            found = step(found, ev.DispatchIntended(ALICE), at_ms)
            assert found.htlc is DISPATCHING
        else:
            if found.payment is None and isinstance(item, ev.PaymentReported | ev.CancelAnswered):
                continue  # only a defect of our own could post it
            found = step(found, _now(item, at_ms, index), at_ms)
        if isinstance(item, ev.ProviderReplied) and item.status.is_paid and before.payment is not None:
            was_called_paid = True
        check(before, found)
        assert phase(found)


@settings(max_examples=200, derandomize=True)
@given(st.lists(st.tuples(_WAIT_MS, _EVENT, _INDEX), max_size=30))
def test_once_the_money_is_resolved_time_alone_ends_every_order(
    history: list[tuple[int, ev.Event | _Sent, int]],
) -> None:
    found, at_ms = run(order(), EVENTS["order placed"], EVENTS["invoice decoded"]), NOW_MS
    for wait_ms, item, index in history:
        if isinstance(item, ev.OrderQuarantined):
            continue  # no deadline closes such an order
        at_ms += wait_ms
        if isinstance(item, _Sent):
            if may_dispatch(found, POLICY, at_ms):
                found = step(found, ev.DispatchIntended(ALICE), at_ms)
        elif found.payment is not None or not isinstance(item, ev.PaymentReported | ev.CancelAnswered):
            found = step(found, _now(item, at_ms, index), at_ms)
    if found.is_money_out:
        found = step(found, refunded(payment_index=10), at_ms)
    found = step(found, ev.TimePassed(), at_ms + 100 * HOUR)
    found = step(found, ev.TimePassed(), at_ms + 200 * HOUR)
    assert found.is_closed


def test_an_event_is_a_plain_value() -> None:
    """The journal stores each event as JSON, so it may hold plain data only."""
    for event in EVENTS.values():
        assert is_dataclass(event)
        assert not any(callable(getattr(event, f.name)) for f in fields(event))


def test_a_payment_is_of_one_hash_for_ever() -> None:
    found = pair(AWAITING, NONE)
    again = step(found, ev.InvoiceDecoded(invoice(payment_hash="ff" * 32), ALICE, seen_before=False))
    assert again.payment == found.payment == payment()
