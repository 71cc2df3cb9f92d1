"""Orders that the prepaid account pays: intent first, placed once, and what may be spent counts as spent."""

from __future__ import annotations

import pytest

from holdpay.core import events as ev
from holdpay.core.asking import Learned, next_question
from holdpay.core.charge import ChargeState
from holdpay.core.duties import Duty, duties
from holdpay.core.events import Resolution, Resolved
from holdpay.core.explain import explain
from holdpay.core.guard import alarms
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.core.tables import CHARGE_TABLE, phase
from holdpay.errors import InvariantViolation
from tests.unit.build import EVENTS, HASH, HOUR, NOW_MS, POLICY, RENTAL, SMS, S, pair, prepaid, quarantined, replied

REQUESTED, PAID, NUMBER, DELIVERED, CANCELED = (
    OrderState.REQUESTED,
    OrderState.PAID,
    OrderState.NUMBER_ASSIGNED,
    OrderState.DELIVERED,
    OrderState.CANCELED,
)
INTENDED, UNKNOWN, CHARGED, REFUSED, RETURNED = ChargeState
INTENT = ev.ChargeIntended(10_000)
TAKEN = ev.OrderPlaced(HASH, None)
LOST = ev.PlacingFailed("no answer", may_retry=True, is_sure=False)
NO = ev.PlacingFailed("no such service", may_retry=False)
UNMOVED = ev.BalanceSeen(10_000, is_alone=True)
_NEVER_SAID = ev.OrderPlaced | ev.PaymentReported | ev.InvoiceDecoded | ev.PaymentNotFound | ev.CancelAnswered
OPEN = [(state, charged) for (state, charged) in CHARGE_TABLE if state is not OrderState.ABANDONED]


def run(found: Order, *events: ev.Event | tuple[float, ev.Event]) -> Order:
    for given in events:
        at_s, event = given if isinstance(given, tuple) else (0, given)
        found = decide(found, event, POLICY, NOW_MS + int(at_s * S)).order
    return found


def test_the_intent_is_recorded_with_the_balance_before_the_order_is_placed() -> None:
    found = run(prepaid(REQUESTED), INTENT)
    assert found.charge is not None
    assert (found.charge.state, found.charge.balance_before_sat) == (INTENDED, 10_000)
    assert found.charge.amount_sat == found.quote_sat
    assert found.spent_msat == found.reserved_msat == 2_000_000
    assert duties(found) == {Duty.PLACE}


def test_a_code_from_the_account_goes_from_the_intent_to_its_end_without_lnd() -> None:
    found = run(prepaid(REQUESTED), INTENT, TAKEN)
    assert (found.state, phase(found)) == (PAID, "paid from the account, a number is being found")
    assert duties(found) == {Duty.POLL}
    found = run(found, replied(paid=True, number="1555"), replied(paid=True, number="1555", code="012345"))
    assert (found.end, found.spent_msat, found.payment) == (End.FULFILLED, 2_000_000, None)


def test_a_message_from_the_account_is_followed_until_it_is_delivered() -> None:
    found = run(prepaid(REQUESTED, spec=SMS), INTENT, TAKEN, replied(paid=True, send_status=ev.SendStatus.SENT))
    assert (found.state, found.is_closed) == (DELIVERED, False)
    assert run(found, replied(paid=True, send_status=ev.SendStatus.DELIVERED)).end is End.FULFILLED


@pytest.mark.parametrize("lost", [LOST, ev.DaemonRestarted()], ids=["the reply was lost", "the process died"])
def test_what_may_have_been_placed_is_never_placed_again_and_counts_as_spent(lost: ev.Event) -> None:
    found = run(prepaid(REQUESTED), INTENT, lost)
    assert found.charge is not None
    assert found.charge.state is UNKNOWN
    assert duties(found) == {Duty.BALANCE}
    assert found.spent_msat == found.reserved_msat == 2_000_000
    for hours in (1, 24, 24 * 30):
        late = run(found, (hours * 3600, ev.TimePassed()), (hours * 3600, ev.CancelRequested()))
        assert not late.is_closed
        assert late.spent_msat == 2_000_000
        assert Duty.PLACE not in duties(late)
    with pytest.raises(InvariantViolation):
        run(found, INTENT)


def test_a_clear_no_spends_nothing_and_may_be_tried_again_with_a_new_intent() -> None:
    closed = run(prepaid(REQUESTED), INTENT, NO)
    assert (closed.end, closed.spent_msat) == (End.PROVIDER_REFUSED, 0)
    again = run(prepaid(REQUESTED), INTENT, ev.PlacingFailed("429", may_retry=True, wait_s=30))
    assert (again.is_closed, again.spent_msat) == (False, 0)
    assert duties(again) == {Duty.PLACE}
    assert run(again, (31, INTENT), (31, TAKEN)).state is PAID


def test_an_unmoved_balance_seen_twice_proves_that_nothing_was_spent() -> None:
    lost = run(prepaid(REQUESTED), INTENT, LOST)
    once = run(lost, (1, UNMOVED))
    assert not once.is_closed
    assert not run(once, (POLICY.prove_absent_s, UNMOVED)).is_closed
    found = run(once, (1 + POLICY.prove_absent_s, UNMOVED))
    assert (found.end, found.spent_msat) == (End.PROVIDER_REFUSED, 0)
    assert "balance is what it was" in found.reason


@pytest.mark.parametrize(
    "seen",
    [
        ev.BalanceSeen(10_000, is_alone=False),
        ev.BalanceSeen(8_000, is_alone=True),
        ev.BalanceSeen(12_000, is_alone=True),
    ],
    ids=["others moved it too", "it fell", "it rose"],
)
def test_a_balance_that_may_have_been_moved_proves_nothing(seen: ev.BalanceSeen) -> None:
    found = run(prepaid(REQUESTED), INTENT, LOST, (1, UNMOVED), (40, seen), (80, UNMOVED))
    assert not found.is_closed
    assert run(found, *((80 + 60 * n, seen) for n in range(1, 30))).spent_msat == 2_000_000


def test_without_a_balance_before_nothing_is_proven() -> None:
    found = run(prepaid(REQUESTED), ev.ChargeIntended(None), LOST, (1, UNMOVED), (100, UNMOVED))
    assert not found.is_closed


def test_two_words_of_one_process_are_needed() -> None:
    found = run(prepaid(REQUESTED), INTENT, LOST, (1, UNMOVED), (2, ev.DaemonRestarted()), (100, UNMOVED))
    assert not found.is_closed


def test_an_order_that_is_over_gives_its_price_back_to_the_account() -> None:
    over = run(prepaid(PAID, CHARGED), replied(paid=True, error="No available number"))
    assert (over.is_closed, over.spent_msat) == (False, 2_000_000)
    assert duties(over) == {Duty.POLL}
    late_s = POLICY.close_unpaid_after_s
    assert not run(over, (late_s - 1, ev.TimePassed())).is_closed
    found = run(over, (late_s, replied(NOW_MS + late_s * S, paid=True, error="No available number")))
    assert (found.end, found.spent_msat) == (End.REFUNDED, 0)


def test_a_code_that_comes_after_all_is_charged_whatever_was_said_before() -> None:
    over = run(prepaid(PAID, CHARGED), replied(paid=True, error="No available number"))
    found = run(over, (5, replied(paid=True, number="1555", code="012345")))
    assert (found.end, found.code, found.spent_msat) == (End.FULFILLED, "012345", 2_000_000)


def test_what_will_be_placed_again_keeps_its_reserve() -> None:
    again = run(prepaid(REQUESTED), INTENT, ev.PlacingFailed("429", may_retry=True, wait_s=30))
    assert (again.spent_msat, again.reserved_msat) == (0, again.max_price_sat * 1000)


def test_an_order_whose_charge_is_unknown_is_not_called_unpaid() -> None:
    late = run(prepaid(REQUESTED, UNKNOWN), (POLICY.pay_within_s, ev.TimePassed()))
    assert late.giving_up is None


def test_a_quarantined_order_that_is_charged_is_not_closed_by_a_cancel_and_explain_does_not_say_so() -> None:
    aside = quarantined(prepaid(PAID, CHARGED))
    assert not run(aside, ev.CancelRequested()).is_closed
    assert "nothing was sent" not in explain(aside, POLICY, NOW_MS).next


def test_a_rental_whose_cancel_is_never_answered_is_the_buyers_after_the_usual_time() -> None:
    rented = run(prepaid(PAID, CHARGED, spec=RENTAL), ev.CancelRequested(), replied(paid=True, number="1555"))
    assert rented.state is NUMBER
    assert run(rented, (POLICY.promise_s, ev.TimePassed())).state is DELIVERED


def test_a_charge_for_nothing_is_closed_after_the_long_grace_only() -> None:
    found = prepaid(PAID, CHARGED)
    assert not run(found, (POLICY.settled_grace_s - 1, ev.TimePassed())).is_closed
    late = run(found, (POLICY.settled_grace_s, ev.TimePassed()))
    assert (late.end, late.spent_msat) == (End.CHARGED_UNFULFILLED, 2_000_000)


def test_an_order_that_cannot_be_placed_in_time_is_given_up_for_free() -> None:
    found = run(prepaid(REQUESTED), (POLICY.pay_within_s, ev.TimePassed()))
    assert (found.end, found.spent_msat) == (End.PROVIDER_REFUSED, 0)


def test_a_cancel_before_the_intent_closes_and_one_after_the_charge_asks_the_provider() -> None:
    assert run(prepaid(REQUESTED), ev.CancelRequested()).end is End.CANCELED_UNPAID
    found = run(prepaid(PAID, CHARGED), ev.CancelRequested())
    assert found.cancel_at_ms == NOW_MS + POLICY.cancel_after_s * S
    assert Duty.CANCEL in duties(found)
    assert run(found, (130, ev.CancelAnswered(accepted=True, text="")), (250, ev.TimePassed())).end is End.REFUNDED


def test_a_wish_to_cancel_from_while_it_was_placed_is_passed_on_when_it_is() -> None:
    found = run(prepaid(REQUESTED), INTENT, ev.CancelRequested(), (5, TAKEN))
    assert found.cancel_at_ms == NOW_MS + (5 + POLICY.cancel_after_s) * S
    assert Duty.CANCEL in duties(found)


def test_a_rental_whose_cancel_is_being_asked_for_is_not_fulfilled_by_its_number() -> None:
    wished = run(prepaid(PAID, CHARGED, spec=RENTAL), ev.CancelRequested(), replied(paid=True, number="1555"))
    assert (wished.state, Duty.CANCEL in duties(wished)) == (NUMBER, True)

    canceled = run(wished, (130, ev.CancelAnswered(accepted=True, text="")), (250, ev.TimePassed()))
    assert (canceled.end, canceled.spent_msat) == (End.REFUNDED, 0)
    refused = run(wished, (130, ev.CancelAnswered(accepted=False, text="no")))
    assert (refused.state, refused.cancel_at_ms) == (DELIVERED, None)
    lost = run(wished, (130, ev.CancelAnswered(accepted=None, text="no answer")))
    assert (lost.state, Duty.CANCEL in duties(lost)) == (NUMBER, True)
    over = run(lost, (140, replied(paid=True, number="1555", error="canceled")), (260, ev.TimePassed()))
    assert over.end is End.REFUNDED


def test_a_rental_from_the_account_is_asked_for_sooner_after_a_message() -> None:
    found = run(prepaid(PAID, CHARGED, spec=RENTAL), replied(paid=True, number="1555", messages=("one",)))
    assert next_question(found, NOW_MS, POLICY, NOW_MS, learned=Learned()).at_ms == NOW_MS + 15 * S
    assert (
        next_question(found, NOW_MS + HOUR, POLICY, NOW_MS + HOUR, learned=Learned()).at_ms == NOW_MS + HOUR + 300 * S
    )


def test_a_refused_cancel_is_asked_for_again() -> None:
    found = run(
        prepaid(PAID, CHARGED), ev.CancelRequested(), (130, ev.CancelAnswered(accepted=False, text="too early"))
    )
    assert found.cancel_at_ms is not None


@pytest.mark.parametrize(
    ("resolution", "end", "spent_msat"),
    [
        (Resolution.FAILED, End.PROVIDER_REFUSED, 0),
        (Resolution.SETTLED, End.CHARGED_UNFULFILLED, 2_000_000),
        (Resolution.WRITTEN_OFF, End.OUTCOME_UNKNOWN, 2_000_000),
    ],
)
def test_a_person_may_say_how_a_charge_ended(resolution: Resolution, end: End, spent_msat: int) -> None:
    found = run(prepaid(REQUESTED, UNKNOWN), Resolved(resolution, by="ann", why="asked support"))
    assert (found.end, found.spent_msat) == (end, spent_msat)
    assert "ann" in found.reason


@pytest.mark.parametrize("charged", [CHARGED, REFUSED])
def test_a_person_is_not_asked_where_the_provider_has_spoken(charged: ChargeState) -> None:
    found = prepaid(PAID if charged is CHARGED else REQUESTED, charged)
    assert run(found, Resolved(Resolution.FAILED, by="ann", why="")) == found


def test_what_is_unknown_is_an_alarm_and_says_what_to_do() -> None:
    found = prepaid(REQUESTED, UNKNOWN)
    (alarm,) = alarms(found, POLICY, NOW_MS + HOUR)
    assert "nobody can say" in alarm
    told = explain(found, POLICY, NOW_MS)
    assert "count as spent" in told.money
    assert "holdpayd resolve" in told.next


@pytest.mark.parametrize(("state", "charged"), OPEN, ids=lambda value: str(value and value.value))
def test_every_event_in_every_cell_leads_to_a_cell(state: OrderState, charged: ChargeState | None) -> None:
    found = prepaid(state, charged)
    for event in [*EVENTS.values(), LOST, NO, TAKEN]:
        try:
            after = decide(found, event, POLICY, NOW_MS + S).order
        except InvariantViolation:
            # Only what our own code could ask for.
            assert isinstance(event, _NEVER_SAID)
            continue
        assert (after.state, after.charge and after.charge.state) in CHARGE_TABLE
        assert not (after.is_closed and after.charge and after.charge.state is INTENDED)


@pytest.mark.parametrize(("state", "charged"), OPEN, ids=lambda value: str(value and value.value))
def test_quarantine_ends_by_a_person_only(state: OrderState, charged: ChargeState | None) -> None:
    aside = quarantined(prepaid(state, charged))
    for hours in (1, 100, 1000):
        assert not run(aside, (hours * 3600, ev.TimePassed())).is_closed
    assert run(aside, Resolved(Resolution.WRITTEN_OFF, by="ann", why="")).is_closed


@pytest.mark.parametrize(("state", "charged"), [(PAID, CHARGED), (NUMBER, CHARGED)])
def test_the_provider_is_asked_as_for_a_held_order(state: OrderState, charged: ChargeState) -> None:
    found = prepaid(state, charged)
    held = pair(state, HtlcState.IN_FLIGHT)
    asked = next_question(found, NOW_MS, POLICY, NOW_MS, learned=Learned())
    usual = next_question(held, NOW_MS, POLICY, NOW_MS, learned=Learned())
    assert asked.at_ms <= usual.at_ms, "of its code nobody else tells"
    assert not asked.is_news
