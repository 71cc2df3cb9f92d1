"""What is true of all open orders together is the sum over each of them, whatever each of them was before."""

from __future__ import annotations

from itertools import permutations

import pytest

from holdpay.core.charge import ChargeState
from holdpay.core.explain import beside
from holdpay.core.model import Order
from holdpay.core.states import HtlcState, OrderState
from holdpay.engine.tally import Tally
from tests.unit import build
from tests.unit.build import ALICE, MALLORY, pair, prepaid

PLAIN = pair(OrderState.AWAITING_PAYMENT, HtlcState.NONE)
OUT = pair(OrderState.PAID, HtlcState.IN_FLIGHT)
SETTLED = pair(OrderState.PAID, HtlcState.SETTLED)
OWN_LAW = build.quarantined(OUT)
CHARGED = prepaid(OrderState.PAID, ChargeState.CHARGED)
REFUSED = prepaid(OrderState.REQUESTED, ChargeState.REFUSED)
UNCHARGED = prepaid(OrderState.REQUESTED)
UNKNOWN = prepaid(OrderState.REQUESTED, ChargeState.UNKNOWN)
RENTAL = pair(OrderState.DELIVERED, HtlcState.SETTLED, spec=build.RENTAL)
ALL = (PLAIN, OUT, SETTLED, OWN_LAW, CHARGED, REFUSED, UNCHARGED, UNKNOWN, RENTAL)


def _sums(tally: Tally) -> tuple[object, ...]:
    besides = {why: count for why, count in tally.besides.items() if count}
    return tally.out, tally.locked_msat, besides


def _of(*orders: Order) -> Tally:
    tally = Tally()
    for order in orders:
        tally.changed(None, order)
    return tally


NOTHING = _sums(Tally())


def test_without_an_order_all_is_nothing() -> None:
    assert NOTHING == (0, 0, {})
    assert Tally().payer_besides(ALICE) is None


@pytest.mark.parametrize("order", ALL)
def test_an_order_that_is_open_beside_the_others_is_counted_for_its_reason(order: Order) -> None:
    why = beside(order)
    tally = _of(order, order)
    assert dict(tally.besides) == ({} if why is None else {why: 2})


def test_some_orders_here_are_open_beside_the_others_and_some_are_not() -> None:
    assert {beside(order) is None for order in ALL} == {True, False}


def test_only_money_that_is_out_of_the_node_is_locked() -> None:
    tally = _of(*ALL)
    out = [order for order in ALL if order.payment is not None and order.is_money_out]
    assert (tally.out, tally.locked_msat) == (len(out), sum(order.locked_msat for order in out))
    assert len(out) >= 2
    assert tally.locked_msat > 0


def test_an_order_that_changed_counts_as_what_it_is_now_and_one_that_ended_no_more() -> None:
    for before, after in permutations(ALL, 2):
        tally = _of(before)
        tally.changed(before, after)
        assert _sums(tally) == _sums(_of(after))
        assert tally.payer_besides(MALLORY) == _of(after).payer_besides(MALLORY)
        tally.changed(after, None)
        assert _sums(tally) == NOTHING
        assert tally.payer_besides(MALLORY) is None


def test_a_node_is_another_payer_than_itself_never_and_on_another_network_always() -> None:
    tally = _of(OUT)
    assert tally.payer_besides(ALICE) is None
    elsewhere = type(ALICE)(ALICE.pubkey, "mainnet")
    assert tally.payer_besides(elsewhere) == ALICE
