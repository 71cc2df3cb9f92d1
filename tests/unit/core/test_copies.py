"""An order that is restored from an old copy: whatever was to be done then may be done, so it is only looked up."""

from __future__ import annotations

import pytest

from holdpay.core import events as ev
from holdpay.core.charge import ChargeState
from holdpay.core.duties import Dispatch, Duty, Track, duties, next_payment_action, wants_look
from holdpay.core.explain import explain
from holdpay.core.guard import alarms
from holdpay.core.hold import is_dispatch_planned, may_dispatch
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.core.states import End, FailureClass, HtlcState, OrderState
from holdpay.errors import InvariantViolation
from tests.unit.build import (
    ALICE,
    EVENTS,
    FAILED_ON_THE_WAY,
    NOW_MS,
    POLICY,
    S,
    failed,
    failure,
    in_flight,
    invoice,
    order,
    pair,
    prepaid,
    proven_absent,
    replied,
    settled,
)

AWAITING = OrderState.AWAITING_PAYMENT
NONE, UNKNOWN, FAILED = HtlcState.NONE, HtlcState.UNKNOWN, HtlcState.FAILED
NOT_FOUND = ev.PaymentNotFound()
RESTORED = ev.CopyRestored()
PLACED = ev.OrderPlaced("their-id", "lnsb20u1...")

VETTED = pair(AWAITING, NONE)
TO_BE_RETRIED = pair(AWAITING, FAILED, failure=failure(), unpaid_since_ms=NOW_MS, dispatch_at_ms=NOW_MS)
SENDING = pair(AWAITING, HtlcState.DISPATCHING)
STUCK = pair(AWAITING, HtlcState.IN_FLIGHT)
WITH_A_DISPATCH_DUE = {
    "vetted": VETTED,
    "to be retried": TO_BE_RETRIED,
    "proven absent": pair(AWAITING, NONE, **{name: getattr(proven_absent(), name) for name in ("dispatch_count",)}),
    "being sent": SENDING,
    "in flight": STUCK,
}


def after(found: Order, event: ev.Event, at_s: int = 0) -> Order:
    return decide(found, event, POLICY, NOW_MS + at_s * S).order


def restored(found: Order, *events: tuple[int, ev.Event]) -> Order:
    """Restored now; the daemon starts a second later."""
    found = after(after(found, RESTORED), ev.DaemonRestarted(), 1)
    for at_s, event in events:
        found = after(found, event, at_s)
    return found


def unpaid(at_s: int) -> tuple[int, ev.Event]:
    return at_s, replied(NOW_MS + at_s * S)


# --- the law: nothing is paid for it any more ---


@pytest.mark.parametrize("found", WITH_A_DISPATCH_DUE.values(), ids=WITH_A_DISPATCH_DUE)
def test_what_may_have_been_sent_after_the_copy_is_asked_for_and_not_sent(found: Order) -> None:
    found = restored(found)
    assert found.is_money_out
    assert found.payment is not None
    assert found.payment.dispatch_count >= 1
    assert isinstance(next_payment_action(found, POLICY, NOW_MS + 2 * S), Track)
    assert Duty.POLL in duties(found)


@pytest.mark.parametrize("found", WITH_A_DISPATCH_DUE.values(), ids=WITH_A_DISPATCH_DUE)
@pytest.mark.parametrize(
    "said",
    [
        [(2, NOT_FOUND), unpaid(3), (40, NOT_FOUND), unpaid(60), unpaid(80)],
        [unpaid(2), unpaid(20), (30, NOT_FOUND), (70, NOT_FOUND)],
        [(2, failed(FAILED_ON_THE_WAY, live=True)), unpaid(3), unpaid(20)],
        [(2, failed(live=False)), unpaid(3), unpaid(20), unpaid(40)],
        [(2, in_flight()), (3, failed(FAILED_ON_THE_WAY, live=True)), unpaid(4), unpaid(30)],
        [(2, ev.SendRefused("it was there", has_hash=True)), (3, NOT_FOUND), (60, NOT_FOUND)],
    ],
)
def test_no_word_of_lnd_and_the_provider_has_a_restored_order_paid(
    found: Order, said: list[tuple[int, ev.Event]]
) -> None:
    found = after(found, RESTORED)
    for at_s, event in [(1, ev.DaemonRestarted()), *said]:
        found = after(found, event, at_s)
        assert not is_dispatch_planned(found)
        assert not may_dispatch(found, POLICY, NOW_MS + at_s * S)
        assert not isinstance(next_payment_action(found, POLICY, NOW_MS + at_s * S), Dispatch)
        if not found.is_closed:
            with pytest.raises(InvariantViolation):
                decide(found, ev.DispatchIntended(ALICE), POLICY, NOW_MS + at_s * S)


def test_a_restored_order_that_was_still_to_be_placed_is_put_aside_until_a_person_has_looked() -> None:
    found = restored(order())
    assert found.is_quarantined
    assert duties(found) == frozenset()
    told = explain(found, POLICY, NOW_MS)
    assert "whether it was ordered and paid then is not recorded" in told.summary
    assert "contradicted itself" not in " ".join((told.summary, *alarms(found, POLICY, NOW_MS)))
    assert told.money == "No payment is recorded; one may have been sent after the copy was made."
    assert "`holdpayd check`" in told.next
    assert "`holdpay orders cancel" in told.next
    closed = after(found, ev.CancelRequested(), 10)
    assert closed.end is End.CANCELED_UNPAID


@pytest.mark.parametrize("charged", [None, ChargeState.INTENDED, ChargeState.UNKNOWN, ChargeState.REFUSED])
def test_what_the_account_may_have_paid_after_the_copy_is_not_placed_again(charged: ChargeState | None) -> None:
    found = restored(prepaid(OrderState.REQUESTED, charged))
    assert found.is_quarantined
    assert Duty.PLACE not in duties(found)


def test_a_hold_invoice_that_came_before_the_copy_is_decoded_to_be_looked_up_and_judged_as_of_then() -> None:
    found = restored(after(order(), PLACED))
    assert duties(found) == {Duty.PAY}
    late_s = 48 * 3600  # it has expired long since
    decoded = ev.InvoiceDecoded(invoice(), ALICE, seen_before=False)
    found = after(found, decoded, late_s)
    assert found.htlc is UNKNOWN
    assert not is_dispatch_planned(found)
    fulfilled = after(after(found, replied(NOW_MS + late_s * S, paid=True, code="1234")), settled(), late_s + 1)
    assert fulfilled.end is End.FULFILLED


def test_an_invoice_that_was_refused_is_refused_again() -> None:
    found = restored(after(order(), PLACED))
    dear = ev.InvoiceDecoded(invoice(amount_msat=9_000_000), ALICE, seen_before=False)
    assert after(found, dear, 2).end is End.INVOICE_REJECTED


# --- how it ends ---


def test_what_was_paid_after_the_copy_is_followed_to_its_code() -> None:
    found = restored(VETTED, (2, in_flight()), (3, replied(NOW_MS + 3 * S, paid=True, number="15551234567")))
    assert (found.state, found.htlc) == (OrderState.NUMBER_ASSIGNED, HtlcState.IN_FLIGHT)
    found = after(after(found, replied(NOW_MS + 4 * S, paid=True, code="1234"), 4), settled(), 5)
    assert (found.end, found.code, found.spent_msat > 0) == (End.FULFILLED, "1234", True)


def test_what_was_never_paid_closes_when_lnd_knows_nothing_twice_and_the_provider_says_unpaid() -> None:
    found = restored(VETTED, (2, NOT_FOUND), unpaid(5))
    assert found.is_money_out
    found = after(found, NOT_FOUND, 20)
    assert not found.is_closed, "30 s have not passed"
    found = after(found, NOT_FOUND, 33)
    assert (found.end, found.spent_msat) == (End.PAYMENT_FAILED, 0)
    assert "restored from a copy" in found.reason


def test_lnd_alone_does_not_prove_that_nothing_was_paid_since_its_record_may_be_deleted() -> None:
    found = restored(VETTED, (2, NOT_FOUND), (40, NOT_FOUND), (400, NOT_FOUND))
    assert found.is_money_out
    assert wants_look(found, POLICY, 800_000, NOW_MS + 400 * S)


@pytest.mark.parametrize("state", [OrderState.PAID, OrderState.DELIVERED, OrderState.CANCELED])
def test_what_the_provider_was_paid_and_lnd_has_deleted_counts_as_money_that_is_out(state: OrderState) -> None:
    word = {
        OrderState.PAID: replied(NOW_MS + 3 * S, paid=True),
        OrderState.DELIVERED: replied(NOW_MS + 3 * S, paid=True, code="1234"),
        OrderState.CANCELED: replied(NOW_MS + 3 * S, paid=True, error="No available number"),
    }[state]
    found = restored(VETTED, (2, NOT_FOUND), (3, word), (40, NOT_FOUND), (400, NOT_FOUND))
    assert (found.state, found.is_money_out, found.is_closed) == (state, True, False)
    assert found.reserved_msat > 0


def test_a_provider_that_called_it_unpaid_and_then_paid_is_no_proof_that_nothing_was_spent() -> None:
    found = restored(VETTED, (2, NOT_FOUND), unpaid(3), (5, replied(NOW_MS + 5 * S, paid=True)), (40, NOT_FOUND))
    assert (found.is_money_out, found.is_closed) == (True, False)


def test_a_try_that_failed_before_the_copy_is_still_the_truth_if_lnd_tells_of_no_later_one() -> None:
    before = TO_BE_RETRIED
    assert before.payment is not None
    assert before.payment.failure is not None
    same = failed(FAILED_ON_THE_WAY, live=False, payment_index=before.payment.failure.payment_index)
    found = restored(before, (2, same), (40, same))
    assert found.htlc is FAILED
    found = after(found, replied(NOW_MS + 50 * S), 50)
    assert found.end is End.PAYMENT_FAILED


@pytest.mark.parametrize(
    "found",
    [
        pair(AWAITING, FAILED, failure=failure(FailureClass.PAYEE_REFUSED), reached_payee=True, dispatch_at_ms=None),
        pair(OrderState.PAID, HtlcState.SETTLED),
        pair(OrderState.NUMBER_ASSIGNED, HtlcState.IN_FLIGHT),
        prepaid(OrderState.PAID, ChargeState.CHARGED),
    ],
    ids=["refused", "settled", "held", "charged"],
)
def test_where_nothing_was_to_be_done_a_restored_order_goes_on_as_it_was(found: Order) -> None:
    again = restored(found)
    assert (again.state, again.htlc, again.charge) == (found.state, found.htlc, found.charge)
    assert not again.is_quarantined


def test_an_order_that_broke_a_law_stays_aside() -> None:
    before = after(VETTED, ev.OrderQuarantined("It broke a law."))
    assert restored(before).htlc is NONE


def test_a_copy_can_be_restored_twice() -> None:
    once = restored(VETTED)
    twice = after(once, RESTORED, 5)
    assert twice.payment is not None
    assert once.payment is not None
    assert (twice.htlc, twice.payment.dispatch_count) == (once.htlc, once.payment.dispatch_count)


def test_what_is_closed_is_not_touched() -> None:
    closed = after(after(order(), ev.CancelRequested()), EVENTS["time passed"])
    assert closed.is_closed
    assert not decide(closed, RESTORED, POLICY, NOW_MS).is_change
