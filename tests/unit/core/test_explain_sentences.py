"""What a person reads of an order, word for word: here a wrong sum, time or condition shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdpay.core.amounts import minutes
from holdpay.core.charge import ChargeState
from holdpay.core.explain import explain, trouble
from holdpay.core.guard import alarms
from holdpay.core.history import Moment, history, history_line
from holdpay.core.lightning import FailureReason
from holdpay.core.machine import decide
from holdpay.core.model import RECOVERED, Order
from holdpay.core.states import End, FailureClass, HtlcState, OrderState
from tests.unit.build import (
    FUND,
    HASH,
    HOUR,
    NOW_MS,
    POLICY,
    RENTAL,
    SMS,
    S,
    failure,
    order,
    pair,
    prepaid,
    proven_absent,
    quarantined,
    replied,
)

NONE, DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, FAILED, GONE = HtlcState
REQUESTED, AWAITING, PAID, NUMBER, DELIVERED, CANCELED, ABANDONED = OrderState
LOST_MS = NOW_MS - HOUR

CODE = "Order abcdefghjk is for an activation code for OpenAI in United States."
LATER = "`holdpay orders show abcdefghjk`"
IN_THE_WAY = "A channel is closing."


def closed(found: Order, end: End, **changes: Any) -> Order:
    return replace(found, closed_at_ms=NOW_MS, end=end, **changes)


UNPLACED = order(place_count=1, place_at_ms=NOW_MS + 5 * S, provider_text="HTTP 502.")
ABSENT = replace(pair(AWAITING, NONE), payment=proven_absent())
UNWATCHED = pair(AWAITING, IN_FLIGHT, gone_since_ms=NOW_MS)
ODD = pair(DELIVERED, SETTLED, unread="x", code=("012345", "99"), number=("1555", "15551234567"))


def _failed(failure_class: FailureClass, reason: FailureReason, **changes: Any) -> Order:
    return pair(AWAITING, FAILED, failure=failure(failure_class, reason=reason), **changes)


# --- what happened --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (order(), "It is open: ordering at the provider."),
        (closed(pair(DELIVERED, SETTLED), End.FULFILLED), "It is closed. Code received, and paid for."),
        (
            closed(pair(DELIVERED, FAILED), End.FULFILLED_FREE, reason="it is odd."),
            "It is closed. Code received, and nothing was charged. Why: it is odd.",
        ),
        (
            closed(pair(DELIVERED, SETTLED), End.FULFILLED, erased_at_ms=NOW_MS),
            "It is closed. Code received, and paid for. What was delivered was erased since.",
        ),
        (
            closed(pair(DELIVERED, SETTLED, fingerprint=RECOVERED), End.FULFILLED),
            (
                "Its record was lost and rebuilt from lnd's payment by `holdpayd recover`: who asked for it, its"
                " key and its"
                " limits, and when what was ordered came, are not known. It is closed. Code received, and paid for."
            ),
        ),
        (
            quarantined(order()),
            (
                "It is quarantined: It broke a law. holdpayd contradicted itself about it, so it is watched"
                " and nothing is"
                " paid for it any more; the other orders go on."
            ),
        ),
        (
            pair(NUMBER, IN_FLIGHT, unread="x"),
            f"It is open: held, waiting for the SMS. The provider's reply could not be read; it is shown by {LATER}.",
        ),
        (
            ODD,
            (
                f"It is open: code received, settled. Besides, a reply of the provider could not be read whole; it"
                f" is shown by"
                f" {LATER}. The provider sent more than one code: the first counts, and {LATER} shows all. The provider"
                f" replaced the number: the latest counts, and {LATER} shows all."
            ),
        ),
    ],
)
def test_the_summary_says_what_was_ordered_and_how_it_stands(found: Order, told: str) -> None:
    assert explain(found, POLICY, NOW_MS).summary == f"{CODE} {told}"


# --- where the money is ---------------------------------------------------------------------------------------------

LOST = (
    "lnd has lost its record of the payment of 2,000 sat: it was deleted after it had ended, as a rule, or"
    " lnd's database"
    " was set back."
)


@pytest.mark.parametrize(
    ("found", "height", "told"),
    [
        (
            pair(AWAITING, IN_FLIGHT),
            800_163,
            (
                "2,000 sat and a fee of 1.002 sat are locked in an HTLC of your node. It ends when the"
                " provider settles or"
                " cancels the hold invoice, or at block height 800,163; nothing on your side can call it back earlier."
            ),
        ),
        (
            pair(AWAITING, IN_FLIGHT),
            800_164,
            (
                "lnd calls the payment of 2,000 sat in flight, and the expiry height 800,163 of its HTLC has"
                " passed (the chain"
                " is at block 800,164), so no HTLC of it should be left."
            ),
        ),
        (
            pair(AWAITING, IN_FLIGHT, fee_msat=0, expiry_height=None),
            0,
            (
                "2,000 sat and up to 10 sat fee are locked in an HTLC of your node. It ends when the provider"
                " settles or"
                " cancels the hold invoice, or at the HTLC's expiry height; nothing on your side can call it back"
                " earlier."
            ),
        ),
        (UNWATCHED, 0, f"{LOST} An HTLC of it may be out still."),
        (
            UNWATCHED,
            800_163,
            f"{LOST} An HTLC of it can be out until block height 800,163; the chain is at 800,163.",
        ),
        (
            UNWATCHED,
            800_164,
            (
                f"{LOST} An HTLC of it could be out until block height 800,163, which has passed (the chain is at block"
                " 800,164)."
            ),
        ),
        (pair(AWAITING, UNKNOWN, gone_since_ms=NOW_MS), 800_164, f"{LOST} An HTLC of it may be out still."),
        (
            _failed(FailureClass.NO_ATTEMPT, FailureReason.NEVER_SENT),
            0,
            (
                "Nothing was spent: after its expiry height no channel carried the HTLC over 2,000 sat, and the"
                " provider never"
                " saw it, so it never left your node."
            ),
        ),
        (
            _failed(FailureClass.READ_LATER, FailureReason.BY_OPERATOR),
            0,
            "Nothing was spent, by the word of an operator: the payment of 2,000 sat failed.",
        ),
        (
            pair(AWAITING, FAILED, failure=None),
            0,
            "Nothing was spent: lnd reported the payment of 2,000 sat as failed, so the whole sum is back.",
        ),
        (prepaid(REQUESTED), 0, "Nothing was taken from the prepaid account."),
        (prepaid(REQUESTED, ChargeState.INTENDED), 0, "2,000 sat are being taken from the prepaid account."),
        (
            prepaid(REQUESTED, ChargeState.UNKNOWN),
            0,
            (
                "Perhaps 2,000 sat were taken from the prepaid account: the provider's reply was lost. They count"
                " as spent."
            ),
        ),
        (prepaid(REQUESTED, ChargeState.REFUSED), 0, "Nothing was taken from the prepaid account."),
        (
            prepaid(PAID, ChargeState.CHARGED),
            0,
            "2,000 sat were taken from the prepaid account, as the price was quoted.",
        ),
        (
            prepaid(CANCELED, ChargeState.RETURNED),
            0,
            "2,000 sat were taken from the prepaid account and go back to it, says the provider.",
        ),
        (
            closed(order(state=ABANDONED), End.PROVIDER_REFUSED),
            0,
            "No money was sent: there is no hold invoice that could be paid.",
        ),
    ],
)
def test_it_is_said_where_the_money_is(found: Order, height: int, told: str) -> None:
    assert explain(found, POLICY, NOW_MS, block_height=height).money == told


# --- what comes next ------------------------------------------------------------------------------------------------

LOOK = (
    "The node's channels are looked at, also those being closed; the order closes when none has carried the HTLC for a"
    " while."
)
AGAIN = "once the provider confirms that it is unpaid; the last try begins within 10 min."


@pytest.mark.parametrize(
    ("found", "height", "told"),
    [
        (order(), 0, "The order is being placed; the hold invoice is checked before anything is paid."),
        (prepaid(REQUESTED), 0, "The order is being placed; the price is taken from the prepaid account."),
        (UNPLACED, 0, "The order is placed again in 5 s; the last try failed (HTTP 502)."),
        (
            replace(UNPLACED, place_at_ms=NOW_MS + 1000),
            0,
            "The order is placed again in 1 s; the last try failed (HTTP 502).",
        ),
        (
            replace(UNPLACED, place_at_ms=NOW_MS + 999),
            0,
            "The order is placed again now; the last try failed (HTTP 502).",
        ),
        (
            replace(UNPLACED, state=AWAITING, payreq="lnsb1..."),
            0,
            "lnd reads the hold invoice next; it is checked before anything is paid.",
        ),
        (
            prepaid(REQUESTED, ChargeState.UNKNOWN),
            0,
            (
                "It is not ordered again. The account's balance is asked for: if it is what it was before, nothing"
                " was spent."
                " Otherwise look at it, and say how it ended with `holdpayd resolve abcdefghjk`."
            ),
        ),
        (
            prepaid(CANCELED, ChargeState.RETURNED),
            0,
            "What comes all the same is handed over; otherwise the order closes in 2 min.",
        ),
        (
            replace(
                UNPLACED, request=prepaid(REQUESTED).request, charge=prepaid(REQUESTED, ChargeState.REFUSED).charge
            ),
            0,
            "The order is placed again in 5 s; the last try failed (HTTP 502).",
        ),
        (prepaid(PAID, ChargeState.CHARGED), 0, "A number comes next, then the code."),
        (prepaid(DELIVERED, ChargeState.CHARGED), 0, "The order closes now."),
        (
            pair(PAID, IN_FLIGHT, spec=RENTAL),
            0,
            (
                "A number comes next; messages to it are handed over as they come. The provider promises no"
                " time for it."
                " `holdpay orders cancel abcdefghjk` asks for the money back. At its expiry height the HTLC ends."
            ),
        ),
        (
            pair(PAID, IN_FLIGHT, spec=SMS),
            0,
            (
                "It is sent next, and charged only then. The provider promises no time for it. At its expiry"
                " height the HTLC"
                " ends."
            ),
        ),
        (
            pair(PAID, IN_FLIGHT),
            0,
            (
                "A number comes next, then the code. If it does not come, the provider promises to return the"
                " money within 21"
                " min; `holdpay orders cancel abcdefghjk` asks for it earlier."
            ),
        ),
        (pair(AWAITING, IN_FLIGHT), 800_164, LOOK),
        (UNWATCHED, 800_163, f"Nothing is sent again. Once no HTLC of it can be out any more: {LOOK}"),
        (UNWATCHED, 800_164, LOOK),
        (
            pair(PAID, SETTLED, gone_since_ms=NOW_MS),
            800_164,
            (
                "The provider is asked for the code for up to 48 h. If it does not come, write to its support with"
                " the preimage"
                f" ({LATER})."
            ),
        ),
        (
            _failed(FailureClass.READ_LATER, FailureReason.TIMEOUT, dispatch_at_ms=NOW_MS + 60 * S),
            0,
            (
                "Try 1 of at most 6 failed: lnd's time for it ran out. The payment is tried again in 60 s, with a"
                " fee limit of"
                f" 10 sat, {AGAIN}"
            ),
        ),
        (
            _failed(FailureClass.NO_ATTEMPT, FailureReason.INSUFFICIENT_BALANCE),
            0,
            (
                "Try 1 of at most 6 failed: no active channel has the balance (one whose peer is offline does not"
                " count). The payment is tried again now,"
                f" with a fee limit of 10 sat, {AGAIN}"
            ),
        ),
        (
            ABSENT,
            0,
            (
                f"Try 1 of at most 6 failed: it did not reach lnd. The payment is tried again now, with a fee"
                f" limit of 10 sat,"
                f" {AGAIN}"
            ),
        ),
        (
            replace(ABSENT, payment=proven_absent(failure=failure())),
            0,
            (
                "Try 1 of at most 6 failed: it did not reach lnd. The payment is tried again now, with a fee limit"
                " of 10 sat,"
                f" {AGAIN} lnd itself avoids a hop that failed for about three minutes."
            ),
        ),
        (pair(AWAITING, NONE, dispatch_at_ms=NOW_MS), 0, "The payment is sent next."),
        (
            pair(AWAITING, FAILED, giving_up="no time is left"),
            0,
            "No further payment is tried (no time is left); the order closes once the provider confirms.",
        ),
        (pair(PAID, NONE), 0, "Nothing is paid again. The provider is asked until it says what became of the order."),
        (
            quarantined(order()),
            0,
            (
                "Nothing more is done. Please report it, with what `holdpayd check` says of it (`holdpay orders explain"
                " abcdefghjk`). `holdpay orders cancel abcdefghjk` closes it: nothing was sent."
            ),
        ),
        (closed(pair(DELIVERED, SETTLED), End.FULFILLED), 0, "Nothing: the order is done."),
        (closed(pair(DELIVERED, FAILED), End.FULFILLED_FREE), 0, "Nothing: the order is done."),
        (
            closed(pair(ABANDONED, SETTLED), End.CHARGED_UNFULFILLED),
            0,
            f"Write to the provider's support with the preimage from {LATER}.",
        ),
        (
            closed(prepaid(ABANDONED, ChargeState.CHARGED), End.CHARGED_UNFULFILLED),
            0,
            f"Write to the provider's support with what the account's history shows, or the order id from {LATER}.",
        ),
        (closed(order(state=ABANDONED), End.PROVIDER_REFUSED), 0, "Order again later, or something else."),
        (
            closed(order(state=ABANDONED), End.NO_PLACE),
            0,
            "Look at the reason; order again when there is room (`holdpay status`), or change the configuration.",
        ),
        (
            closed(pair(CANCELED, FAILED), End.REFUNDED),
            0,
            "Nothing is owed either way. Order again if you still need it.",
        ),
    ],
)
def test_it_is_said_what_comes_next(found: Order, height: int, told: str) -> None:
    assert explain(found, POLICY, NOW_MS, block_height=height).next == told


def test_what_is_in_the_way_of_an_end_is_said_as_long_as_the_order_is_open() -> None:
    gone = pair(CANCELED, GONE)
    told = explain(UNWATCHED, POLICY, NOW_MS, block_height=800_164, held_up_by=IN_THE_WAY).next
    assert told == f"{LOOK} Now this is in the way: A channel is closing."
    assert "in the way" not in explain(closed(gone, End.REFUNDED), POLICY, NOW_MS, held_up_by=IN_THE_WAY).next


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (-1, "0 s"),
        (999, "0 s"),
        (1000, "1 s"),
        (7_200_000, "2 h"),
        (7_199_999, "119 min"),
        (7 * 86_400_000 - 1, "167 h"),
        (4_275_253_000, "49 days"),
    ],
)
def test_a_duration_is_rounded_down(ms: int, text: str) -> None:
    assert minutes(ms) == text


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (order(), ""),
        (pair(AWAITING, IN_FLIGHT), ""),
        (pair(AWAITING, FAILED, giving_up="no time is left"), "no time is left"),
        (pair(AWAITING, FAILED, giving_up="no time is left", reason="It is over."), "It is over."),
        (_failed(FailureClass.READ_LATER, FailureReason.TIMEOUT), "lnd's time for it ran out"),
        (pair(AWAITING, DISPATCHING, failure=failure()), ""),
    ],
)
def test_the_trouble_with_an_order_is_said_in_one_sentence_or_not_at_all(found: Order, told: str) -> None:
    assert trouble(found) == told


# --- alarms ---------------------------------------------------------------------------------------------------------

UNCLEAR = "order abcdefghjk: nobody can say whether the account was charged; see `holdpayd resolve abcdefghjk`"
SLOW_CODE = "order abcdefghjk: the provider's promise has passed and the code did not come"
SLOW_RENTAL = (
    "order abcdefghjk: 21 min have passed since it was paid (our own measure) and the number did not come"  # of 1,260 s
)


@pytest.mark.parametrize(
    ("found", "after_s", "told"),
    [
        (prepaid(REQUESTED, ChargeState.UNKNOWN), 120, UNCLEAR),
        (prepaid(PAID, ChargeState.CHARGED), 1260 + 120, SLOW_CODE),
        (prepaid(PAID, ChargeState.CHARGED, spec=RENTAL), 1260 + 120, SLOW_RENTAL),
    ],
)
def test_an_order_of_the_account_has_its_alarms_right_after_their_time(found: Order, after_s: int, told: str) -> None:
    assert alarms(found, POLICY, NOW_MS + after_s * S) == ()
    assert alarms(found, POLICY, NOW_MS + after_s * S + 1) == (told,)


@pytest.mark.parametrize(
    "found",
    [
        prepaid(REQUESTED),
        prepaid(REQUESTED, ChargeState.INTENDED),
        prepaid(DELIVERED, ChargeState.CHARGED),
        prepaid(DELIVERED, ChargeState.CHARGED, spec=RENTAL),
        pair(DELIVERED, SETTLED, spec=FUND),
    ],
)
def test_there_is_no_alarm_where_nothing_is_late(found: Order) -> None:
    assert alarms(found, POLICY, NOW_MS + 100 * HOUR) == ()


def test_an_order_that_is_put_aside_is_an_alarm_before_the_others() -> None:
    lost = quarantined(pair(AWAITING, IN_FLIGHT, gone_since_ms=NOW_MS))
    assert alarms(lost, POLICY, NOW_MS) == (
        "order abcdefghjk: quarantined, since holdpayd contradicted itself: It broke a law",
        "order abcdefghjk: lnd has no record of its payment any more",
    )


# --- the history ----------------------------------------------------------------------------------------------------


def test_what_is_told_twice_is_counted_wherever_it_stands() -> None:
    found = pair(PAID, IN_FLIGHT)
    moments = [Moment(NOW_MS + at, "cancel_requested", found, ()) for at in range(4)]
    twice = [Moment(NOW_MS, "order_placed", found, ()), *[Moment(NOW_MS + 5, "provider_replied", found, ("odd",))] * 2]
    assert [line.text for line in history([*twice, *moments])] == [
        "the provider took the order and sent a hold invoice",
        "noticed: odd (2 times)",
        "you asked to cancel (4 times)",
    ]


def test_a_step_that_has_no_words_of_its_own_is_told_by_where_the_order_stands() -> None:
    before = pair(PAID, IN_FLIGHT)
    assert (
        history_line(Moment(NOW_MS, "time_passed", pair(CANCELED, FAILED), ()), before) == "canceled, the money is back"
    )
    assert history_line(Moment(NOW_MS, "time_passed", before, ()), before) is None
    assert history_line(Moment(NOW_MS, "time_passed", before, ()), None) is None


def test_a_number_that_is_replaced_twice_is_told_with_the_one_before_it() -> None:
    found = pair(NUMBER, IN_FLIGHT)
    for number in ("15550000002", "15550000003"):
        before = found
        found = decide(found, replied(paid=True, number=number), POLICY, NOW_MS).order
        told = history_line(Moment(NOW_MS, "provider_replied", found, ()), before)
        assert told is not None
        assert f"the number is +{number} now, no longer +{before.number}" in told


def test_a_recovered_order_is_told_as_one() -> None:
    found = pair(DELIVERED, SETTLED, fingerprint=RECOVERED)
    plain = pair(DELIVERED, SETTLED)
    assert history_line(Moment(NOW_MS, "order_requested", found, ()), None) == (
        "somebody asked for an activation code for OpenAI in United States; the request and its limits are lost"
    )
    assert history_line(Moment(NOW_MS, "order_requested", plain, ()), None) == (
        "you asked for an activation code for OpenAI in United States, at most 2,040 sat"
    )
    unpaid = order(fingerprint=RECOVERED)
    assert history_line(Moment(NOW_MS, "invoice_decoded", unpaid, ()), None) == (
        "the hold invoice was over ?; how it was checked is lost"
    )
    same = {history_line(Moment(NOW_MS, "cancel_requested", each, ()), None) for each in (found, plain)}
    assert same == {"you asked to cancel"}


def test_what_a_line_would_say_of_a_payment_that_is_not_there_is_left_out() -> None:
    """Only a journal of another time could bring such a row; it must not break the story."""
    bare = order(state=AWAITING, provider_order_id=HASH, payreq="lnsb1...")
    sent = history_line(Moment(NOW_MS, "dispatch_intended", bare, ()), None)
    assert sent == "payment 0 is handed to lnd, fee limit ?"
    assert history_line(Moment(NOW_MS, "payment_reported", bare, ()), None) == "lnd: no payment"
    refused = history_line(Moment(NOW_MS, "send_refused", bare, ()), None)
    assert refused == "lnd answered with an error, which proves nothing: "


def test_the_provider_s_words_are_in_the_lines_about_them() -> None:
    said = order(provider_text="no stock")
    assert history_line(Moment(NOW_MS, "placing_failed", said, ()), None) == (
        "the provider did not take the order: no stock"
    )
    assert history_line(Moment(NOW_MS, "cancel_answered", said, ()), None) == (
        "the provider answered the request to cancel: no stock"
    )
    unnamed = pair(NUMBER, IN_FLIGHT, number=None)
    assert history_line(Moment(NOW_MS, "provider_replied", unnamed, ()), None) == "provider: held, waiting for the SMS"


def test_an_invoice_that_could_not_be_read_is_told_with_the_reason() -> None:
    refused = order(reason="the hold invoice was refused")
    for event in ("invoice_decoded", "invoice_undecodable"):
        assert history_line(Moment(NOW_MS, event, refused, ()), None) == "the hold invoice was refused"


def test_times_of_the_configuration_are_said_as_they_are() -> None:
    slow = replace(POLICY, promise_s=7_199, settled_grace_s=7_199)
    assert "asked for the code for up to 119 min." in explain(pair(PAID, SETTLED), slow, NOW_MS).next
    late = alarms(prepaid(PAID, ChargeState.CHARGED, spec=RENTAL), slow, NOW_MS + 9 * HOUR)
    assert "119 min have passed since it was paid" in late[0]


def test_what_is_held_since_nobody_knows_when_is_promised_nothing() -> None:
    held = pair(PAID, IN_FLIGHT, money_out_since_ms=None)
    assert explain(held, POLICY, NOW_MS).next == "A number comes next, then the code."
