"""What an order's message says of odd replies."""

from __future__ import annotations

from dataclasses import replace

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.core.states import HtlcState, OrderState
from holdpay.ports import Funding, FundingEntry
from holdpay.rpc.convert import funding_to_pb, order_to_pb
from tests.unit.build import NOW_MS, POLICY, pair


def test_all_numbers_codes_and_the_reply_that_could_not_be_read_are_in_the_message() -> None:
    plain = pair(OrderState.DELIVERED, HtlcState.IN_FLIGHT, number="3", code="1")
    odd = replace(plain, earlier_numbers=("1", "2"), later_codes=("2",), unread="{")
    message = order_to_pb(odd, POLICY, NOW_MS)
    assert (message.number, list(message.earlier_numbers)) == ("3", ["1", "2"])
    assert (message.code, list(message.later_codes)) == ("1", ["2"])
    assert message.unread == "{"
    assert not order_to_pb(plain, POLICY, NOW_MS).HasField("unread")


def test_a_preimage_is_told_only_if_it_is_asked_for_and_what_is_not_known_is_absent() -> None:
    known = FundingEntry(
        amount_sat=0, price_sat=2, created_at_ms=NOW_MS, description="a", payment_hash="cd" * 32, preimage="ab" * 32
    )
    unknown = FundingEntry(
        amount_sat=None, price_sat=None, created_at_ms=None, description="", payment_hash="", preimage=""
    )
    funding = Funding(None, (known, unknown))
    plain, whole = (funding_to_pb(funding, with_preimages=asked) for asked in (False, True))
    assert [entry.preimage for entry in plain.entries] == ["", ""]
    assert [entry.preimage for entry in whole.entries] == ["ab" * 32, ""]
    assert (plain.entries[0].amount_sat, plain.entries[0].HasField("amount_sat")) == (0, True)
    assert not plain.HasField("total_sat")
    assert plain.entries[1] == pb.FundingEntry()
