"""What an order's message says of odd replies."""

from __future__ import annotations

from dataclasses import replace

from holdpay.core.states import HtlcState, OrderState
from holdpay.rpc.convert import order_to_pb
from tests.unit.build import NOW_MS, POLICY, pair


def test_all_numbers_codes_and_the_reply_that_could_not_be_read_are_in_the_message() -> None:
    plain = pair(OrderState.DELIVERED, HtlcState.IN_FLIGHT, number="3", code="1")
    odd = replace(plain, earlier_numbers=("1", "2"), later_codes=("2",), unread="{")
    message = order_to_pb(odd, POLICY, NOW_MS)
    assert (message.number, list(message.earlier_numbers)) == ("3", ["1", "2"])
    assert (message.code, list(message.later_codes)) == ("1", ["2"])
    assert message.unread == "{"
    assert not order_to_pb(plain, POLICY, NOW_MS).HasField("unread")
