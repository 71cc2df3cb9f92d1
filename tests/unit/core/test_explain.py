"""What a person reads, in each cell of the pair and after each end."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from holdpay.core import events as ev
from holdpay.core import history as module
from holdpay.core.amounts import minutes, sat
from holdpay.core.charge import ChargeState
from holdpay.core.events import event_name
from holdpay.core.explain import Beside, beside, explain
from holdpay.core.guard import alarms
from holdpay.core.history import Moment, history, history_line
from holdpay.core.lightning import Attempt, FailureReason
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.core.states import SPENT, End, FailureClass, HtlcState, OrderState
from holdpay.core.tables import IMPOSSIBLE, PAIR_TABLE
from tests.unit.build import (
    ALICE,
    FAILED_ON_THE_WAY,
    HASH,
    HOUR,
    NOW_MS,
    POLICY,
    PREIMAGE,
    RENTAL,
    SPEC,
    S,
    failed,
    failure,
    in_flight,
    invoice,
    order,
    pair,
    prepaid,
    proven_absent,
    refunded,
    replied,
    settled,
)

NONE, DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, FAILED, GONE = HtlcState
REQUESTED, AWAITING, PAID, NUMBER, DELIVERED, CANCELED, ABANDONED = OrderState

OPEN = {
    f"{state}-{htlc}": pair(state, htlc)
    for (state, htlc), text in PAIR_TABLE.items()
    if text != IMPOSSIBLE and state is not ABANDONED
}
ENDED = {
    f"ended {end}": replace(
        pair(ABANDONED, {End.FULFILLED: SETTLED, End.CHARGED_UNFULFILLED: SETTLED}.get(end, FAILED)),
        closed_at_ms=NOW_MS,
        end=end,
        reason="no route was found.",
    )
    for end in End
}
OTHER = {
    "not decoded yet": order(state=AWAITING, provider_order_id=HASH, payreq="lnsb20u1..."),
    "proven absent": replace(pair(AWAITING, NONE), payment=proven_absent()),
    "no attempt": pair(AWAITING, FAILED, failure=failure(FailureClass.NO_ATTEMPT)),
    "given up": pair(AWAITING, FAILED, giving_up="no time is left"),
    "cancel wished": pair(NUMBER, IN_FLIGHT, cancel_wanted_at_ms=NOW_MS, cancel_at_ms=NOW_MS + 90 * S),
    "cancel accepted": pair(CANCELED, IN_FLIGHT, cancel_wanted_at_ms=NOW_MS),
    "no attempt yet": pair(AWAITING, IN_FLIGHT, fee_msat=0, expiry_height=None),
}
ALL = OPEN | ENDED | OTHER


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("at_s", [0, 5_000])
def test_every_order_is_explained_in_whole_sentences(name: str, at_s: int) -> None:
    words = explain(ALL[name], POLICY, NOW_MS + at_s * S)
    for text in (words.summary, words.money, words.next):
        assert re.fullmatch(r"(lnd|[A-Z0-9`]).*[.)]", text), text
        assert not re.search(r"None|[{}?_]|  |\.\.|-\d+ s", text), text
    assert words.summary.startswith("Order abcdefghjk is for an activation code for OpenAI in United States.")


@pytest.mark.parametrize("name", OPEN)
def test_an_explanation_says_truly_where_the_money_is(name: str) -> None:
    found = OPEN[name]
    money = explain(found, POLICY, NOW_MS).money
    assert ("Nothing was" in money or "No money was" in money) is (not found.is_money_out and found.htlc not in SPENT)
    assert ("were spent" in money) is (found.htlc is SETTLED)
    assert ("may have been, and are counted so" in money) is (found.htlc is GONE)
    assert ("locked" in money or "may be on their way" in money) is found.is_money_out


@pytest.mark.parametrize("name", ALL)
def test_no_secret_is_in_an_explanation(name: str) -> None:
    words = explain(ALL[name], POLICY, NOW_MS)
    for text in (words.summary, words.money, words.next):
        assert PREIMAGE not in text
        assert HASH not in text
        assert "012345" not in text


def test_a_held_order_says_how_much_is_locked_and_until_which_height() -> None:
    words = explain(pair(NUMBER, IN_FLIGHT), POLICY, NOW_MS)
    assert "2,000 sat and a fee of 1.002 sat are locked" in words.money
    assert "block height 800,163" in words.money
    assert "+15551234567" in words.next
    assert "within 21 min" in words.next


def test_a_broken_promise_is_called_so() -> None:
    assert "promise has passed" in explain(pair(NUMBER, IN_FLIGHT), POLICY, NOW_MS + 1260 * S).next


def test_what_may_be_out_is_said_with_the_largest_fee() -> None:
    assert "Up to 2,010 sat may be on their way" in explain(pair(AWAITING, UNKNOWN), POLICY, NOW_MS).money


def test_a_charge_without_a_code_says_what_to_do() -> None:
    words = explain(pair(PAID, SETTLED), POLICY, NOW_MS)
    assert "2,001.002 sat were spent: 2,000 sat for the order and 1.002 sat routing fee" in words.money
    assert "for up to 48 h" in words.next
    assert "preimage" in words.next


def test_what_was_paid_before_the_order_is_not_called_spent() -> None:
    money = explain(pair(PAID, SETTLED, is_paid_before=True), POLICY, NOW_MS).money
    assert "Nothing was spent for this order: your node had paid its hold invoice before, 2,000 sat" in money


def test_a_failed_payment_says_when_it_is_tried_again_and_on_which_condition() -> None:
    words = explain(pair(AWAITING, FAILED, dispatch_at_ms=NOW_MS + 60 * S, fee_limit_msat=20_000), POLICY, NOW_MS)
    assert "tried again in 60 s, with a fee limit of 20 sat, once the provider confirms" in words.next
    assert words.next.startswith("Try 1 of at most 6 failed: ")
    assert "the last try begins within 10 min." in words.next
    assert "avoids a hop" in words.next


@pytest.mark.parametrize("found", [pair(PAID, SETTLED), pair(DELIVERED, SETTLED), pair(DELIVERED, IN_FLIGHT)])
@pytest.mark.parametrize("at_s", [0, 5_000])
def test_no_cancel_is_offered_once_the_code_is_here_or_the_money_is_gone(found: Order, at_s: int) -> None:
    words = explain(found, POLICY, NOW_MS + at_s * S)
    assert "orders cancel" not in f"{words.summary} {words.money} {words.next}"


def test_a_wish_to_cancel_ends_with_the_charge() -> None:
    wished = pair(NUMBER, IN_FLIGHT, cancel_wanted_at_ms=NOW_MS, cancel_at_ms=NOW_MS + 90 * S)
    charged = decide(wished, settled(), POLICY, NOW_MS).order
    assert "cancel" not in explain(charged, POLICY, NOW_MS).next


def test_a_payment_that_never_arrived_says_that_the_provider_is_asked_first() -> None:
    words = explain(OTHER["proven absent"], POLICY, NOW_MS)
    assert "never sent" in words.money
    assert "once the provider confirms" in words.next


def test_a_wish_to_cancel_says_when_the_provider_is_asked() -> None:
    assert "asked to cancel in 90 s; what comes first wins" in explain(OTHER["cancel wished"], POLICY, NOW_MS).next


def test_a_refused_invoice_is_not_called_a_missing_one() -> None:
    placed = decide(order(), ev.OrderPlaced(HASH, "lnsb1..."), POLICY, NOW_MS).order
    bad = ev.InvoiceDecoded(invoice(amount_msat=9_000_000), ALICE, seen_before=False)
    words = explain(decide(placed, bad, POLICY, NOW_MS).order, POLICY, NOW_MS)
    assert "it asks 9,000 sat" in words.summary
    assert "no hold invoice that could be paid" in words.money
    assert "order again: the new quote counts" in words.next


def test_every_end_is_told_apart() -> None:
    assert len({explain(found, POLICY, NOW_MS).summary for found in ENDED.values()}) == len(End)


# --- alarms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "after_s", "words"),
    [
        (pair(AWAITING, IN_FLIGHT), 180, "still does not call it paid"),
        (pair(CANCELED, IN_FLIGHT), 120, "the money is still not back"),
        (pair(NUMBER, IN_FLIGHT), 1380, "promise has passed"),
        (pair(DELIVERED, IN_FLIGHT), 1380, "code received and the money is still out"),
        (pair(PAID, UNKNOWN), 120, "lnd still does not say"),
        (pair(PAID, SETTLED), 120, "charged, and the code did not come"),
        (pair(CANCELED, SETTLED), 120, "charged, and the code did not come"),
    ],
)
def test_an_alarm_is_raised_right_after_its_time(found: Order, after_s: int, words: str) -> None:
    assert not any(words in text for text in alarms(found, POLICY, NOW_MS + after_s * S))
    assert any(words in text for text in alarms(found, POLICY, NOW_MS + after_s * S + 1))


@pytest.mark.parametrize("name", ["requested-none", "awaiting_payment-none", "paid-failed", *ENDED])
def test_there_is_no_alarm_where_no_money_can_be_lost(name: str) -> None:
    assert alarms(ALL[name], POLICY, NOW_MS + HOUR) == ()


# --- the history ----------------------------------------------------------------------------------------------------


def _history(*steps: tuple[int, ev.Event]) -> list[str]:
    """The lines of an order that went through these events (seconds after NOW_MS)."""
    before: Order | None = None
    found = order()
    lines = [history_line(Moment(NOW_MS, "order_requested", found, ()), None)]
    for at_s, event in steps:
        before = found
        done = decide(found, event, POLICY, NOW_MS + at_s * S)
        found = done.order
        if done.is_change:
            lines.append(history_line(Moment(NOW_MS + at_s * S, event_name(event), found, done.notes), before))
    return [line for line in lines if line is not None]


PLACED = (0, ev.OrderPlaced(HASH, "lnsb1..."))
VETTED = (0, ev.InvoiceDecoded(invoice(), ALICE, seen_before=False))
SENT = (1, ev.DispatchIntended(ALICE))


def test_the_story_of_a_code_reads_from_top_to_bottom() -> None:
    told = _history(
        PLACED,
        VETTED,
        SENT,
        (2, in_flight()),
        (4, replied(paid=True)),
        (6, replied(paid=True, number="15551234567")),
        (60, replied(paid=True, number="15551234567", code="012345")),
        (61, settled()),
    )
    assert told == [
        "you asked for an activation code for OpenAI in United States, at most 2,040 sat",
        "the provider took the order and sent a hold invoice",
        "the hold invoice over 2,000 sat was checked",
        "payment 1 is handed to lnd, fee limit 10 sat",
        "lnd: the payment is in flight, fee 1.002 sat",
        "provider: held, a number is being found",
        "provider: held, waiting for the SMS on +15551234567",
        "provider: code received, settlement is coming",
        "lnd: the payment is settled, fee 1.002 sat; closed: Code received, and paid for.",
    ]


def test_the_story_of_a_refund_says_that_the_money_came_back() -> None:
    told = _history(
        PLACED,
        VETTED,
        SENT,
        (2, in_flight()),
        (4, replied(paid=True)),
        (1200, replied(paid=True, error="No available number")),
        (1201, refunded()),
    )
    assert told[-2] == 'provider: canceled, the money is on its way back ("No available number")'
    assert told[-1].endswith("closed: The code did not come, and the money came back.")


def test_the_story_of_a_send_that_never_arrived_tells_proof_from_rumour() -> None:
    told = _history(
        PLACED,
        VETTED,
        SENT,
        (2, ev.SendRefused("payment is in transition")),
        (3, ev.PaymentNotFound()),
        (33, ev.PaymentNotFound()),
    )
    assert "which proves nothing: payment is in transition" in told[-3]
    assert "said once, this proves nothing" in told[-2]
    assert "which proves that it was never sent" in told[-1]


def test_the_story_of_a_refused_invoice_says_why() -> None:
    told = _history(PLACED, (0, ev.InvoiceDecoded(invoice(amount_msat=9_000_000), ALICE, seen_before=False)))
    assert told[-1] == (
        "the hold invoice was refused: it asks 9,000 sat, and at most 2,040 sat were allowed"
        " (by the quote of 2,000 sat + 2 %, the request or payment.max_price_sat); closed: Nothing was paid."
    )


def test_a_line_that_repeats_the_one_before_it_is_counted() -> None:
    found = pair(PAID, IN_FLIGHT)
    flip = Moment(NOW_MS, "provider_replied", found, ("the provider says unpaid",))
    change = Moment(NOW_MS + 1, "cancel_requested", found, ())
    lines = history([Moment(NOW_MS - 1, "order_placed", found, ()), flip, flip, flip, change, flip])
    assert [line.text for line in lines][1:] == [
        "noticed: the provider says unpaid (3 times)",
        "you asked to cancel",
        "noticed: the provider says unpaid",
    ]


@pytest.mark.parametrize(
    ("attempts", "why"),
    [
        ([FAILED_ON_THE_WAY], "an HTLC failed at a hop on its way"),
        ([], "nothing was sent: no route worked within the limits for fee and time lock"),
    ],
)
def test_the_story_of_a_failed_payment_says_why(attempts: list[Attempt], why: str) -> None:
    end = failed(*attempts, failure_reason=FailureReason.NO_ROUTE)
    told = _history(PLACED, VETTED, SENT, (2, in_flight()), (3, end))
    assert told[-1].startswith(f"lnd: the payment failed, the money is back ({why}")


def test_an_lnd_that_cannot_be_asked_is_named_where_money_may_be_out_and_nowhere_else() -> None:
    why = "lnd's wallet is locked. Unlock it with `lncli unlock`."
    assert explain(pair(NUMBER, IN_FLIGHT), POLICY, NOW_MS, why).money.endswith(f"lnd cannot be asked now: {why}")
    assert why not in explain(pair(DELIVERED, SETTLED), POLICY, NOW_MS, why).money


def test_an_lnd_that_cannot_be_used_is_named_where_it_has_to_read_or_pay_the_invoice() -> None:
    why = "lnd's wallet is locked. Unlock it with `lncli unlock`."
    placed = decide(order(), ev.OrderPlaced(HASH, "lnsb1..."), POLICY, NOW_MS).order
    words = explain(placed, POLICY, NOW_MS, why)
    assert words.money == "No money was sent."
    assert words.next == (
        f"lnd reads the hold invoice next; it is checked before anything is paid. lnd cannot be used now: {why}"
    )
    assert explain(placed, POLICY, NOW_MS, why, held_up_by=why).next.count(why.rstrip(".")) == 1
    for waiting in (pair(AWAITING, NONE), pair(AWAITING, FAILED)):
        assert explain(waiting, POLICY, NOW_MS, why).next.endswith(why)
    for found in (order(), pair(PAID, FAILED), pair(CANCELED, FAILED)):
        assert why not in explain(found, POLICY, NOW_MS, why).next


def test_a_fee_limit_of_0_is_named_where_no_route_was_found() -> None:
    found = replace(pair(AWAITING, FAILED), max_fee_sat=0)
    assert "order with a higher one" in explain(found, POLICY, NOW_MS).next
    assert "order with a higher one" not in explain(pair(AWAITING, FAILED), POLICY, NOW_MS).next


def test_what_tells_a_person_nothing_has_no_line() -> None:
    found = pair(AWAITING, FAILED, htlc_since_ms=NOW_MS)
    after = decide(found, replied(NOW_MS + 1), POLICY, NOW_MS + 2).order
    assert after != found
    assert history_line(Moment(NOW_MS, "provider_replied", after, ()), found) is None


def test_an_anomaly_is_always_told() -> None:
    found = pair(DELIVERED, IN_FLIGHT)
    done = decide(found, failed(), POLICY, NOW_MS)
    line = history_line(Moment(NOW_MS, "payment_reported", done.order, done.notes), found)
    assert line is not None
    assert "noticed: it was fulfilled although nothing was charged" in line


def test_every_line_belongs_to_an_event_that_exists() -> None:
    names = {re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower() for cls in ev.Event.__args__}
    assert set(module._EVENT_LINES) <= names | {"order_requested"}


# --- small things ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("msat", "text"),
    [(0, "0 sat"), (1, "0.001 sat"), (2_001_002, "2,001.002 sat"), (1000, "1 sat"), (24_500, "24.5 sat")],
)
def test_sums_are_said_in_sat(msat: int, text: str) -> None:
    assert sat(msat) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (172_800, "48 h")]
)
def test_waits_are_said_roughly(seconds: int, text: str) -> None:
    assert minutes(seconds * S) == text


def test_what_is_bought_is_said_even_without_names() -> None:
    assert replace(SPEC, service_name="").what == "an activation code for oi in United States"
    unknown = replace(SPEC, country=None, country_name="unknown", service="unknown")
    assert unknown.what == "something, nobody knows any more what (an activation code, as a rule)"


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (pair(OrderState.PAID, HtlcState.IN_FLIGHT), None),
        (pair(OrderState.DELIVERED, HtlcState.IN_FLIGHT), None),
        (pair(OrderState.PAID, HtlcState.SETTLED), Beside.DUE),
        (pair(OrderState.DELIVERED, HtlcState.SETTLED, spec=RENTAL), Beside.FOLLOWED),
        (prepaid(OrderState.REQUESTED), None),
        (prepaid(OrderState.REQUESTED, ChargeState.INTENDED), None),
        (prepaid(OrderState.REQUESTED, ChargeState.UNKNOWN), Beside.PERHAPS_CHARGED),
        (prepaid(OrderState.PAID, ChargeState.CHARGED), Beside.DUE),
        (prepaid(OrderState.DELIVERED, ChargeState.CHARGED), Beside.FOLLOWED),
        (prepaid(OrderState.CANCELED, ChargeState.RETURNED), Beside.RETURNING),
        (pair(OrderState.DELIVERED, HtlcState.SETTLED, closed_at_ms=NOW_MS, end=End.FULFILLED), None),
    ],
)
def test_an_order_beside_the_open_ones_is_there_for_its_own_reason(found: Order, why: Beside | None) -> None:
    assert beside(found) is why
