"""Orders rebuilt from LND's payments and the provider's word: the right pair, never paid again, fit for a check."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from holdpay.audit.books import JournalRow, OrderBook, StoredAttempt
from holdpay.audit.journal import journal_findings
from holdpay.audit.laws import law_findings
from holdpay.audit.rebuild import NOTE, NOTE_KIND, Found, Rebuilt, Unusable, names, rebuild, spec_of_memo
from holdpay.audit.table import table_lines
from holdpay.core.dispatches import DispatchRecord
from holdpay.core.duties import Dispatch, Duty, duties, next_payment_action
from holdpay.core.events import ProviderReplied, SendStatus, TimePassed, event_name
from holdpay.core.explain import explain
from holdpay.core.history import Moment, history
from holdpay.core.hold import is_dispatch_planned
from holdpay.core.items import ItemKind, texts
from holdpay.core.kinds import AnySpec, CodeSpec, RentalSpec, UnknownSpec
from holdpay.core.lightning import AttemptStatus, FailureReason, PaymentStatus, PaymentUpdate, StoredPayment
from holdpay.core.machine import decide
from holdpay.core.model import RECOVERED
from holdpay.core.states import End, HtlcState, OrderState
from tests.unit.audit.books import booked, note, without_items
from tests.unit.build import (
    ALICE,
    HASH,
    NOW_MS,
    PAYEE,
    POLICY,
    PREIMAGE,
    S,
    attempt,
    failed,
    invoice,
    refunded,
    replied,
    settled,
    update,
)

SENT_MS = NOW_MS + 5 * S
MINUTE_MS = 60 * S
DAY_MS = 24 * 3600 * S

IN_FLIGHT = update(PaymentStatus.IN_FLIGHT, attempt())
SETTLED = update(PaymentStatus.SUCCEEDED, attempt(AttemptStatus.SUCCEEDED, resolved_at_ms=SENT_MS + 40 * S))
# As LND shows it afterwards: without the attempts.
REFUSED = update(PaymentStatus.FAILED, failure_reason=FailureReason.INCORRECT_PAYMENT_DETAILS)
NO_ROUTE = update(PaymentStatus.FAILED)
TIMED_OUT = update(PaymentStatus.FAILED, failure_reason=FailureReason.TIMEOUT)


def country(name: str) -> tuple[int, str] | None:
    return {"Germany": (43, "Germany"), "United States": (187, "United States")}.get(name)


def found(
    said: PaymentUpdate, word: ProviderReplied | None = None, memo: str = "sms4sats payment Germany twitter", **of: Any
) -> Found:
    payment = StoredPayment(HASH, "lnsb20u1...", 2_000_000, SENT_MS, PAYEE, (), said)
    return Found(payment=payment, invoice=invoice(memo=memo, **of), word=word, raw="{}" if word else None)


def rebuilt(each: Found, now_ms: int = NOW_MS + MINUTE_MS) -> Rebuilt:
    result = rebuild(each, HASH[:8], ALICE, country, POLICY, now_ms)
    assert isinstance(result, Rebuilt), result
    return result


def said(**words: Any) -> ProviderReplied:
    return replied(NOW_MS + MINUTE_MS, **words)


CASES: list[tuple[str, Found, OrderState, HtlcState, End | None]] = [
    ("in flight, silence", found(IN_FLIGHT), OrderState.AWAITING_PAYMENT, HtlcState.IN_FLIGHT, None),
    ("in flight, unpaid", found(IN_FLIGHT, said()), OrderState.AWAITING_PAYMENT, HtlcState.IN_FLIGHT, None),
    ("in flight, paid", found(IN_FLIGHT, said(paid=True)), OrderState.PAID, HtlcState.IN_FLIGHT, None),
    (
        "in flight, number",
        found(IN_FLIGHT, said(paid=True, number="49151")),
        OrderState.NUMBER_ASSIGNED,
        HtlcState.IN_FLIGHT,
        None,
    ),
    (
        "in flight, code",
        found(IN_FLIGHT, said(paid=True, code="012345")),
        OrderState.DELIVERED,
        HtlcState.IN_FLIGHT,
        None,
    ),
    ("in flight, over", found(IN_FLIGHT, said(error="no")), OrderState.CANCELED, HtlcState.IN_FLIGHT, None),
    (
        "settled, code",
        found(SETTLED, said(paid=True, code="012345")),
        OrderState.DELIVERED,
        HtlcState.SETTLED,
        End.FULFILLED,
    ),
    (
        "settled, number",
        found(SETTLED, said(paid=True, number="1")),
        OrderState.NUMBER_ASSIGNED,
        HtlcState.SETTLED,
        None,
    ),
    ("settled, silence", found(SETTLED), OrderState.AWAITING_PAYMENT, HtlcState.SETTLED, None),
    ("refused, over", found(REFUSED, said(paid=True, error="no")), OrderState.CANCELED, HtlcState.FAILED, End.REFUNDED),
    (
        "timed out, over",
        found(TIMED_OUT, said(paid=True, error="no")),
        OrderState.CANCELED,
        HtlcState.FAILED,
        End.REFUNDED,
    ),
    ("no route, unpaid", found(NO_ROUTE, said()), OrderState.ABANDONED, HtlcState.FAILED, End.PAYMENT_FAILED),
    ("refused, silence", found(REFUSED), OrderState.ABANDONED, HtlcState.FAILED, End.REFUNDED),
]
BY_NAME = {name: each for name, each, *_ in CASES}


@pytest.mark.parametrize(("name", "each", "state", "htlc", "end"), CASES, ids=list(BY_NAME))
def test_a_payment_becomes_an_order_in_its_pair_state(
    name: str, each: Found, state: OrderState, htlc: HtlcState, end: End | None
) -> None:
    order = rebuilt(each, NOW_MS + 10 * MINUTE_MS).order
    assert (order.state, order.htlc, order.end) == (state, htlc, end)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_rebuilt_order_is_never_paid_again_whatever_follows(name: str) -> None:
    order = rebuilt(BY_NAME[name]).order
    later_ms = NOW_MS + 2 * MINUTE_MS
    for event in (failed(), replied(later_ms), replied(later_ms + 20 * S), TimePassed()):
        for at_ms in (later_ms, later_ms + 21 * S, later_ms + DAY_MS):
            if order.payment is not None and order.state is not OrderState.REQUESTED:
                order = decide(order, event, POLICY, at_ms).order
            assert not is_dispatch_planned(order) or order.pay_by_ms < at_ms
            assert not isinstance(next_payment_action(order, POLICY, at_ms), Dispatch)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_rebuilt_order_keeps_every_law(name: str) -> None:
    assert law_findings(rebuilt(BY_NAME[name]).order) == []


@pytest.mark.parametrize("name", BY_NAME)
def test_a_rebuilt_journal_follows_from_its_events(name: str) -> None:
    assert journal_findings(as_book(rebuilt(BY_NAME[name])), POLICY) == []


def as_book(result: Rebuilt) -> OrderBook:
    """As the store would have it."""
    request = JournalRow(cursor=1, at_ms=result.request.created_at_ms, event=None, after=result.request)
    rows = [
        JournalRow(cursor=n + 1, at_ms=entry.at_ms, event=entry.event, after=without_items(entry.step.order))
        for n, entry in enumerate(result.entries, 1)
    ]
    dispatches: dict[int, DispatchRecord] = {}
    for before, after in pairwise([result.request, *(entry.step.order for entry in result.entries)]):
        note(dispatches, before, after)
    attempts = {a.attempt_id: StoredAttempt(1, a) for entry in result.entries for a in entry.step.attempts}
    reserved_msat = result.order.reserved_msat
    return OrderBook(
        order=result.order,
        reserved_msat=reserved_msat,
        booked=booked(result.order),
        attempts=attempts,
        dispatches=dispatches,
        journal=(request, *rows),
    )


def test_an_order_in_flight_is_tracked_and_polled_by_the_daemon() -> None:
    assert duties(rebuilt(BY_NAME["in flight, paid"]).order) == {Duty.PAY, Duty.POLL}


@pytest.mark.parametrize("name", ["settled, silence", "settled, number"])
def test_a_settled_order_is_polled_for_its_code_until_the_grace_since_its_settlement_is_over(name: str) -> None:
    grace_ms = POLICY.settled_grace_s * S
    settled_ms = SENT_MS + 40 * S
    assert duties(rebuilt(BY_NAME[name], settled_ms + grace_ms - 1).order) == {Duty.POLL}
    late = rebuilt(BY_NAME[name], settled_ms + grace_ms).order
    assert late.payment is not None
    assert late.payment.htlc_since_ms == settled_ms
    # Nobody may have asked the provider yet: then the daemon does so before it gives the code up.
    assert late.end is (None if name == "settled, silence" else End.CHARGED_UNFULFILLED)


def test_a_code_of_long_ago_is_kept_however_late() -> None:
    assert rebuilt(BY_NAME["settled, code"], NOW_MS + 90 * DAY_MS).order.end is End.FULFILLED


def test_what_is_recorded_is_what_lnd_and_the_provider_said() -> None:
    order = rebuilt(BY_NAME["settled, code"]).order
    payment = order.payment
    assert payment is not None
    request = order.request
    assert (order.id, request.id) == (f"rec{HASH[:8]}",) * 2
    assert (request.key, request.fingerprint) == (f"recovered-{HASH[:8]}", RECOVERED)
    assert order.spec == CodeSpec(country=43, country_name="Germany", service="twitter", service_name="twitter")
    assert (order.provider_order_id, order.code) == (HASH, "012345")
    assert (order.created_at_ms, payment.money_out_since_ms) == (NOW_MS, SENT_MS)
    assert (payment.preimage, payment.fee_msat, payment.htlc_since_ms) == (PREIMAGE, 1_002, SENT_MS + 40 * S)
    assert (payment.node_pubkey, payment.node_network) == (ALICE.pubkey, ALICE.network)


def test_the_first_row_says_that_it_was_recovered_and_the_reply_is_kept_raw() -> None:
    result = rebuilt(BY_NAME["settled, code"])
    assert result.entries[0].step.notes[0] == NOTE
    assert [entry.raw for entry in result.entries if isinstance(entry.event, ProviderReplied)] == ["{}"]


def story_of(result: Rebuilt) -> str:
    rows = [Moment(NOW_MS, "order_requested", result.request, ())]
    rows += [Moment(e.at_ms, event_name(e.event), e.step.order, e.step.notes) for e in result.entries]
    return "\n".join(line.text for line in history(rows))


def test_a_recovered_order_says_what_is_not_known_and_tells_no_number_that_was_made_up() -> None:
    result = rebuilt(BY_NAME["settled, code"])
    told = story_of(result)
    assert told.startswith("somebody asked for an activation code for twitter in Germany; the request and its limits")
    for made_up in ("you asked", "at most", "10 sat", "fee limit 1", "payment 1 "):
        assert made_up not in told
    assert "its key and its limits, and when what was ordered came, are not known" in (
        explain(result.order, POLICY, NOW_MS).summary
    )


def test_what_a_recovered_order_was_for_is_called_unknown_where_its_memo_does_not_tell() -> None:
    for word in (None, said(paid=True), said(paid=True, number="49151"), said(paid=True, code="012345")):
        result = rebuilt(found(IN_FLIGHT, word, memo="coffee"))
        assert result.order.spec == UnknownSpec()
        assert "for something, nobody knows any more what" in explain(result.order, POLICY, NOW_MS).summary
        assert result.entries[0].step.notes[:2] == (NOTE, NOTE_KIND)
    assert NOTE_KIND not in rebuilt(found(IN_FLIGHT)).entries[0].step.notes


def test_of_an_order_of_unknown_kind_the_payment_is_certain_and_all_that_comes_is_kept() -> None:
    held = rebuilt(found(IN_FLIGHT, said(paid=True, number="49151"), memo="coffee")).order
    assert (held.provider_order_id, held.htlc, held.number) == (HASH, HtlcState.IN_FLIGHT, "49151")
    assert duties(held) == {Duty.PAY, Duty.POLL}
    came = decide(held, said(paid=True, code="012345"), POLICY, NOW_MS + 2 * MINUTE_MS).order
    came = decide(came, settled(), POLICY, NOW_MS + 2 * MINUTE_MS).order
    assert (came.code, came.is_closed) == ("012345", False), "it may be a rented number"
    more = decide(came, said(paid=True, messages=("one",)), POLICY, NOW_MS + 3 * MINUTE_MS).order
    assert texts(more.items, ItemKind.MESSAGE) == ("one",)
    assert decide(more, TimePassed(), POLICY, NOW_MS + 8 * DAY_MS).order.end is End.FULFILLED


@pytest.mark.parametrize("word", [None, said(paid=True), said(paid=True, error="not found")])
def test_an_old_settled_order_of_unknown_kind_is_not_called_charged_in_vain(word: ProviderReplied | None) -> None:
    """It may be money for the account."""
    order = rebuilt(found(SETTLED, word, memo="coffee"), NOW_MS + 30 * DAY_MS).order
    order = decide(order, TimePassed(), POLICY, NOW_MS + 30 * DAY_MS).order
    assert (order.end, order.spent_msat > 0) == (End.FULFILLED, True)


def test_an_order_of_unknown_kind_whose_money_came_back_is_refunded() -> None:
    back = rebuilt(found(REFUSED, said(paid=True, error="no"), memo="coffee"), NOW_MS + DAY_MS).order
    assert back.spent_msat == 0
    over = decide(back, TimePassed(), POLICY, NOW_MS + DAY_MS + 10 * MINUTE_MS).order
    assert (over.end, over.spent_msat) == (End.REFUNDED, 0)


IN_GERMANY = RentalSpec(country=43, country_name="Germany", service="twitter", service_name="twitter", weeks=None)
SOMEWHERE = RentalSpec(country=None, country_name="unknown", service="unknown", service_name="unknown", weeks=None)


@pytest.mark.parametrize(
    ("each", "spec"),
    [
        (found(SETTLED, said(paid=True, number="49151", messages=("hello",))), IN_GERMANY),
        (found(SETTLED, said(paid=True, messages=("hello",)), memo="rent a number"), SOMEWHERE),
    ],
    ids=["rented in a country", "rented somewhere"],
)
def test_a_reply_that_shows_another_kind_makes_an_order_of_that_kind_which_keeps_every_law(
    each: Found, spec: AnySpec
) -> None:
    result = rebuilt(each)
    assert result.order.spec == spec
    assert law_findings(result.order) == []
    assert journal_findings(as_book(result), POLICY) == []
    assert NOTE_KIND not in result.entries[0].step.notes


def test_what_such_a_reply_delivers_is_kept_and_the_order_is_followed_on() -> None:
    rented = rebuilt(found(SETTLED, said(paid=True, number="49151", messages=("hello", "again")))).order
    assert texts(rented.items, ItemKind.MESSAGE) == ("hello", "again")
    assert (rented.state, rented.number) == (OrderState.DELIVERED, "49151")
    assert duties(rented) == {Duty.POLL}


@pytest.mark.parametrize(
    ("each", "words", "end"),
    [
        (found(SETTLED, said(paid=True, send_status=SendStatus.DELIVERED)), ("delivered",), End.FULFILLED),
        (found(SETTLED, said(paid=True, send_status=SendStatus.SENT)), ("sent",), None),
        (found(REFUSED, said(send_status=SendStatus.FAILED)), ("failed",), End.REFUNDED),
    ],
)
def test_what_was_sent_is_no_sms_for_sure(each: Found, words: tuple[str, ...], end: End | None) -> None:
    result = rebuilt(each)
    sent = result.order
    assert (sent.spec, texts(sent.items, ItemKind.SENDING), sent.end) == (UnknownSpec(), words, end)
    assert law_findings(sent) == []
    assert journal_findings(as_book(result), POLICY) == []


def test_the_table_tells_what_an_order_was_for_and_what_the_provider_says() -> None:
    rows = [
        rebuilt(each)
        for each in (
            found(IN_FLIGHT, said(paid=True, number="49151", messages=("hello",))),
            found(IN_FLIGHT, said(paid=True, send_status=SendStatus.CREATED)),
            found(IN_FLIGHT, memo="coffee"),
        )
    ]
    _, rented, sms, unknown = table_lines(rows)
    assert "  a number rented in Germany, for twitter  in_flight  1 message" in _with_single_gaps(rented)
    assert "  not known  in_flight  created" in _with_single_gaps(sms)
    assert "  not known  in_flight  nothing new" in _with_single_gaps(unknown)


def _with_single_gaps(line: str) -> str:
    return re.sub(" {2,}", "  ", line)


def test_todays_vetting_does_not_judge_what_was_paid_long_ago() -> None:
    dear = found(IN_FLIGHT, final_cltv_delta=2016, payee="02" + "ee" * 32)
    assert rebuilt(dear).order.htlc is HtlcState.IN_FLIGHT


def test_a_fee_above_todays_limit_is_within_the_rebuilt_order() -> None:
    dear = update(PaymentStatus.IN_FLIGHT, attempt(fee_msat=55_500))
    assert law_findings(rebuilt(found(dear)).order) == []
    assert rebuilt(found(dear)).order.max_fee_sat == 56


def test_an_invoice_without_an_amount_is_left_out_with_the_reason() -> None:
    result = rebuild(found(IN_FLIGHT, amount_msat=0), HASH[:8], ALICE, country, POLICY, NOW_MS + MINUTE_MS)
    assert isinstance(result, Unusable)
    assert "names no amount" in result.reason


def test_a_payment_after_its_invoice_had_expired_is_left_out() -> None:
    result = rebuild(found(IN_FLIGHT, expiry_s=2), HASH[:8], ALICE, country, POLICY, NOW_MS + MINUTE_MS)
    assert isinstance(result, Unusable)


def test_a_clock_behind_lnds_does_not_turn_time_around() -> None:
    times = [entry.at_ms for entry in rebuilt(BY_NAME["in flight, paid"], SENT_MS - MINUTE_MS).entries]
    assert times == sorted(times)


def test_a_live_refund_after_the_recovery_closes_the_order() -> None:
    order = rebuilt(BY_NAME["in flight, paid"]).order
    for event in (refunded(), replied(NOW_MS + 3 * MINUTE_MS, paid=True, error="no number")):
        order = decide(order, event, POLICY, NOW_MS + 3 * MINUTE_MS).order
    assert order.end is End.REFUNDED


@pytest.mark.parametrize(
    ("memo", "params"),
    [
        ("sms4sats payment Germany twitter", (43, "Germany", "twitter")),
        ("sms4sats payment United States tw", (187, "United States", "tw")),
        ("sms4sats payment Atlantis twitter", None),
        ("sms4sats fund 5000", None),
        ("a gift", None),
        ("", None),
        ("sms4sats payment Germany " + "x" * 200, None),
        ("sms4sats payment Germany twitter\n", None),
    ],
)
def test_a_memo_is_read_if_it_can_be(memo: str, params: tuple[int, str, str] | None) -> None:
    read = spec_of_memo(memo, country)
    assert (None if read is None else (read.country, read.country_name, read.service)) == params


def test_hashes_that_begin_alike_get_different_names() -> None:
    payment = found(IN_FLIGHT).payment
    alike = [payment, replace(payment, payment_hash=HASH[:8] + "0" * 56), replace(payment, payment_hash="ab" * 32)]
    assert names(alike) == [HASH[:8], f"{HASH[:8]}-1", "abababab"]
