"""A request as the interface has it: what was understood, what was delivered, and what became of the money."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.core.charge import Charge, ChargeState
from holdpay.core.diagnosis import Cause, Diagnosis
from holdpay.core.dispatches import Dispatched, DispatchRecord
from holdpay.core.items import Item, ItemKind
from holdpay.core.kinds import CodeSpec, EmailSpec, FundSpec, RentalSpec, SmsSpec, UnknownSpec
from holdpay.core.kinds.rental import WEEK_S
from holdpay.core.kinds.spec import KindName, Spec
from holdpay.core.lightning import AttemptStatus, FailureReason
from holdpay.core.model import Order
from holdpay.core.states import FailureClass, HtlcState, OrderState
from holdpay.rpc.convert import add_tries, add_wait, in_few, items_after, request_to_pb
from tests.unit.build import NOW_MS, POLICY, S, attempt, changed, failure, order, pair

CODE = CodeSpec(country=0, country_name="Russia", service="oi", service_name="OpenAI", is_real_phone=True, ref="a@b.c")
RENTAL = RentalSpec(country=187, country_name="USA", service="full", service_name="", weeks=2)
SMS = SmsSpec(phone="+19871234567", message="hello", webhook_url="https://x.y/z", ref="a@b.c")
EMAIL = EmailSpec(address="a@b.c", message="hello")
FUND = FundSpec(amount_sat=5_000)

UNDERSTOOD = [
    (
        CODE,
        pb.Request(
            kind=pb.KIND_CODE,
            code=pb.CodeBought(
                country_code=0, country="Russia", service="oi", service_name="OpenAI", real_phone=True, ref="a@b.c"
            ),
        ),
    ),
    (
        RENTAL,
        pb.Request(
            kind=pb.KIND_RENTAL, rental=pb.RentalBought(country_code=187, country="USA", service="full", weeks=2)
        ),
    ),
    (
        SMS,
        pb.Request(
            kind=pb.KIND_SMS,
            sms=pb.SmsBought(phone="+19871234567", message="hello", webhook_url="https://x.y/z", ref="a@b.c"),
        ),
    ),
    (EMAIL, pb.Request(kind=pb.KIND_EMAIL, email=pb.EmailBought(address="a@b.c", message="hello"))),
    (FUND, pb.Request(kind=pb.KIND_FUND, fund=pb.FundBought(amount_sat=5_000))),
]


def to_pb(order: Order) -> pb.Request:
    return request_to_pb([order], POLICY, NOW_MS, 7)


def test_it_says_up_to_which_cursor_it_tells() -> None:
    assert to_pb(order()).cursor == 7


@pytest.mark.parametrize(
    ("found", "waits"),
    [
        (pair(OrderState.AWAITING_PAYMENT, HtlcState.NONE), True),
        (pair(OrderState.AWAITING_PAYMENT, HtlcState.FAILED), True),
        (pair(OrderState.AWAITING_PAYMENT, HtlcState.IN_FLIGHT), False),
        (pair(OrderState.PAID, HtlcState.IN_FLIGHT), False),
    ],
    ids=["unpaid", "failed", "out", "paid"],
)
def test_why_an_order_is_not_paid_just_now_is_a_part_of_its_phase(found: Order, *, waits: bool) -> None:
    before = to_pb(found).orders[-1].phase
    told = add_wait(to_pb(found), found, "lnd is another node").orders[-1].phase
    assert told == (f"{before}; it waits: lnd is another node" if waits else before)
    assert add_wait(to_pb(found), found, "").orders[-1].phase == before


def test_every_kind_is_here() -> None:
    assert {spec.kind for spec, _ in UNDERSTOOD} == set(KindName) - {KindName.UNKNOWN}


def test_of_an_unknown_kind_nothing_was_understood() -> None:
    told = to_pb(order(spec=UnknownSpec()))
    assert (told.kind, told.WhichOneof("understood")) == (pb.KIND_UNKNOWN, None)


@pytest.mark.parametrize(("spec", "expected"), UNDERSTOOD, ids=lambda value: getattr(value, "kind", ""))
def test_what_was_understood_is_told_by_kind(spec: Any, expected: pb.Request) -> None:
    told = to_pb(order(spec=spec))
    kind = told.WhichOneof("understood")
    assert kind is not None
    assert (told.kind, kind) == (expected.kind, expected.WhichOneof("understood"))
    assert getattr(told, kind) == getattr(expected, kind)
    assert told.what == spec.what


def test_country_zero_is_told_and_a_country_that_nobody_knows_is_absent() -> None:
    assert to_pb(order(spec=CODE)).code.HasField("country_code")
    assert not to_pb(order(spec=replace(CODE, country=None))).code.HasField("country_code")


def test_the_rental_ends_its_weeks_after_the_number_came() -> None:
    rented = order(spec=RENTAL, number="15550001111")
    assert to_pb(rented).rental.ends_at_ms == NOW_MS + 2 * WEEK_S * S
    assert not to_pb(order(spec=RENTAL)).rental.HasField("ends_at_ms")


@pytest.mark.parametrize("kind", ItemKind)
def test_every_item_has_its_kind_text_and_time(kind: ItemKind) -> None:
    given = Item(kind=kind, text="4711", seen_at_ms=NOW_MS, may_lack_zeros=True)
    (item,) = to_pb(changed(order(), items=(given,))).items
    expected = "UNREAD" if kind is ItemKind.UNREAD_MAYBE else kind.name
    assert pb.ItemKind.Name(item.kind) == f"ITEM_KIND_{expected}"
    assert (item.seq, item.text, item.seen_at_ms, item.may_lack_zeros) == (1, "4711", NOW_MS, True)


def test_all_that_was_delivered_is_told_in_its_order() -> None:
    told = to_pb(order(earlier_numbers=("1", "2"), number="3", code="4", later_codes="5", unread="{"))
    assert [(item.seq, item.text) for item in told.items] == [
        (1, "1"),
        (2, "2"),
        (3, "3"),
        (4, "4"),
        (5, "5"),
        (6, "{"),
    ]


@pytest.mark.parametrize("state", ChargeState)
def test_a_prepaid_order_has_a_charge_and_no_htlc(state: ChargeState) -> None:
    charge = Charge(state=state, since_ms=NOW_MS, amount_sat=2_000, balance_before_sat=9_000, intended_at_ms=NOW_MS)
    told = to_pb(order(is_prepaid=True, charge=charge))
    (found,) = told.orders
    assert told.prepaid
    assert (found.htlc, pb.ChargeState.Name(found.charge)) == (
        pb.HTLC_STATE_UNSPECIFIED,
        f"CHARGE_STATE_{state.name}",
    )
    assert (found.amount_msat, found.balance_before_sat) == (2_000_000, 9_000)


def test_an_order_with_an_invoice_has_an_htlc_and_no_charge() -> None:
    for plain in (order(), pair(OrderState.PAID, HtlcState.IN_FLIGHT)):
        (found,) = to_pb(plain).orders
        assert found.htlc != pb.HTLC_STATE_UNSPECIFIED
        assert (found.charge, found.HasField("balance_before_sat")) == (pb.CHARGE_STATE_UNSPECIFIED, False)


HELD = pair(OrderState.PAID, HtlcState.IN_FLIGHT)


@pytest.mark.parametrize(
    ("found", "is_possible"),
    [
        (order(), True),
        (HELD, True),
        (changed(HELD, cancel_wanted_at_ms=NOW_MS), False),
        (changed(HELD, code="1"), False),
        (pair(OrderState.PAID, HtlcState.SETTLED), False),
        (changed(HELD, closed_at_ms=NOW_MS), False),
        (order(spec=SMS), True),
        (changed(HELD, spec=SMS), False),
        (changed(HELD, spec=EMAIL), False),
        (changed(HELD, spec=FUND), False),
        (changed(HELD, spec=RENTAL), True),
    ],
)
def test_a_cancel_is_told_to_be_possible_only_while_it_is(found: Order, is_possible: bool) -> None:
    assert to_pb(found).may_be_canceled is is_possible


@pytest.mark.parametrize(
    ("spec", "delivered"),
    [(CODE, {"code": "1"}), (RENTAL, {"messages": "1"}), (SMS, {"sending": "sent"}), (EMAIL, {"sending": "sent"})],
)
def test_a_request_is_fulfilled_when_what_was_ordered_is_here(spec: Spec, delivered: dict[str, str]) -> None:
    waiting = changed(HELD, spec=spec, number=None)
    assert not to_pb(waiting).fulfilled
    assert to_pb(changed(waiting, **delivered)).fulfilled


# --- a rental with very many messages -------------------------------------------------------------------------------

GRPC_LIMIT_BYTES = 4 * 1024 * 1024
LONG = tuple(f"{n} {chr(0x4E00) * 1_990}" for n in range(2_000))


def test_a_rental_with_very_many_long_messages_fits_into_a_message_of_grpc_and_its_latest_are_told() -> None:
    rented = order(spec=RENTAL, number="15551234567", messages=LONG)
    told = to_pb(rented)
    assert told.ByteSize() < GRPC_LIMIT_BYTES / 4
    assert told.items[0].text == "15551234567", "what is short is always there"
    shown = told.items[1:]
    assert [item.text for item in shown] == list(LONG[-len(shown) :])
    assert [item.seq for item in shown] == list(range(2_002 - len(shown), 2_002))
    assert told.items_left_out == 2_001 - len(told.items) > 0


def test_the_pages_of_its_items_have_all_of_them_and_fit_too() -> None:
    rented = order(spec=RENTAL, number="15551234567", messages=LONG)
    found: list[pb.Item] = []
    while True:
        page = items_after(rented.items, found[-1].seq if found else 0)
        assert page.ByteSize() < GRPC_LIMIT_BYTES / 4
        found += page.items
        if not page.more:
            break
    assert [(item.seq, item.text) for item in found] == list(enumerate(["15551234567", *LONG], start=1))
    assert items_after(rented.items, 2_001) == items_after((), 0) == pb.ListItemsResponse()


def test_what_is_to_be_told_comes_in_one_message_as_long_as_grpc_takes_it() -> None:
    few = [pb.RequestUpdate(cursor=cursor) for cursor in range(1, 101)]
    assert list(in_few(few)) == [pb.RequestUpdates(updates=few)]
    assert list(in_few([])) == []
    large = [pb.RequestUpdate(cursor=n, request=to_pb(order(spec=RENTAL, messages=LONG))) for n in range(20)]
    messages = list(in_few(large))
    assert all(message.ByteSize() < GRPC_LIMIT_BYTES for message in messages)
    assert 1 < len(messages) < len(large)
    assert [update for message in messages for update in message.updates] == large


def test_an_order_whose_items_are_few_leaves_none_out() -> None:
    assert to_pb(order(spec=RENTAL, number="1", messages=("a", "b"), unread=("{",))).items_left_out == 0


def test_a_failed_payment_has_its_cause_and_its_tries_with_hops_in_words() -> None:
    diagnosis = Diagnosis(cause=Cause.FEE_LIMIT, text="a route exists at 37 sat")
    found = pair(OrderState.AWAITING_PAYMENT, HtlcState.FAILED, failure=failure(), diagnosis=diagnosis)
    told = attempt(
        AttemptStatus.FAILED,
        failure_code=15,
        failure_source_index=1,
        first_hop="02bb",
        first_channel="811x1x0",
        failed_hop="02bb",
        failed_channel="812x1x0",
    )
    refused = attempt(AttemptStatus.FAILED, failure_code=1, failure_source_index=2, failed_hop="02cc")
    record = DispatchRecord(
        n=2,
        at_ms=NOW_MS,
        fee_limit_msat=20_000,
        failed_at_ms=NOW_MS + 1,
        failure_reason=FailureReason.NO_ROUTE,
        failure_class=FailureClass.ROUTING,
        cause=Cause.FEE_LIMIT,
        diagnosis="a route exists at 37 sat",
    )
    message = add_tries(to_pb(found), [[Dispatched(record, (attempt(), told, refused))]])
    (order,) = message.orders
    assert (order.cause, message.reason) == (pb.CAUSE_FEE_LIMIT, "a route exists at 37 sat")
    (tried,) = order.tries
    assert (tried.n, tried.fee_limit_msat, tried.failure_reason, tried.failure_class) == (
        2,
        20_000,
        "no_route",
        "routing",
    )
    assert (tried.cause, tried.diagnosis) == (pb.CAUSE_FEE_LIMIT, "a route exists at 37 sat")
    out, hop, payee = tried.attempts
    assert (out.status, out.failure, out.HasField("failed_place")) == ("in_flight", "", False)
    assert hop.failure == "hop 1, 02bb…, had too little on channel 812x1x0 (TEMPORARY_CHANNEL_FAILURE)"
    assert (hop.first_hop, hop.first_channel, hop.failed_hop, hop.failed_channel) == (
        "02bb",
        "811x1x0",
        "02bb",
        "812x1x0",
    )
    assert (hop.failed_place, hop.failure_code) == (1, 15)
    assert payee.failure.startswith("the payee refused it, or canceled the hold invoice (INCORRECT_OR_UNKNOWN")
