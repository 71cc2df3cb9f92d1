"""The history tells that something came where the phase does not, and nothing of what is in it."""

from __future__ import annotations

from holdpay.core.history import Moment, history
from holdpay.core.kinds import RentalSpec, SmsSpec
from holdpay.core.model import Order
from holdpay.core.states import HtlcState, OrderState
from tests.unit.build import NOW_MS, changed, pair

RENTAL = RentalSpec(country=16, country_name="England", service="full", service_name="any service", weeks=2)
SMS = SmsSpec(phone="+19871234567", message="hello")
SETTLED = pair(OrderState.DELIVERED, HtlcState.SETTLED)


def told(*orders: Order) -> list[str]:
    return [line.text for line in history(Moment(NOW_MS, "provider_replied", order, ()) for order in orders)][1:]


def test_each_message_to_a_rented_number_is_told_and_not_repeated() -> None:
    rented = changed(SETTLED, spec=RENTAL, code=None, number="15550001111")
    one, three = changed(rented, messages="secret"), changed(rented, messages=("secret", "b", "c"))
    assert told(rented, one, one, three) == ["a message came", "2 messages came"]


def test_how_a_sending_ended_is_told() -> None:
    sent = changed(SETTLED, spec=SMS, code=None, number=None, sending=("created", "sent"))
    assert told(sent, changed(sent, sending=("created", "sent", "delivered"))) == [
        "the provider says that it was delivered"
    ]
    assert told(sent, changed(sent, sending=("created", "sent", "failed"))) == ["the provider says that it failed"]
