"""What is counted of webhooks that come and do not come."""

from __future__ import annotations

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from holdpay.core.model import Order
from holdpay.core.states import OrderState
from holdpay.engine.hooks import Webhooks
from tests.unit import build

PUBLIC_URL = "https://pay.example.org/hooks"
SILENT = 5
"""So many orders in a row are an alarm."""


@pytest.fixture
def hooks() -> Webhooks:
    return Webhooks(PUBLIC_URL)


def _order(hooks: Webhooks, number: int, state: OrderState = OrderState.DELIVERED) -> Order:
    """An open one with a webhook of ours."""
    order = build.order(id=f"order {number}", state=state, spec=replace(build.SMS, webhook_url=hooks.new_url()))
    hooks.opened(order)
    return order


def _secret(order: Order) -> str:
    return (order.spec.webhook_url or "").removeprefix(f"{PUBLIC_URL}/")


def _silent(hooks: Webhooks, count: int) -> None:
    for number in range(count):
        hooks.closed(_order(hooks, number))


def test_before_a_listener_serves_nothing_is_told(hooks: Webhooks) -> None:
    order = _order(hooks, 1)
    assert not hooks.is_told(order)
    hooks.is_up = lambda: True
    assert hooks.is_told(order)
    theirs = build.order(spec=replace(build.SMS, webhook_url="https://client.example.org/x"))
    assert not hooks.is_told(theirs)
    assert not hooks.is_told(build.order())


def test_a_webhook_is_of_the_order_that_has_its_secret_as_long_as_that_is_open(hooks: Webhooks) -> None:
    first, second = _order(hooks, 1), _order(hooks, 2)
    assert [hooks.arrived(_secret(order)) for order in (second, first)] == ["order 2", "order 1"]
    assert hooks.arrived("x") is None
    hooks.closed(first)
    assert hooks.arrived(_secret(first)) is None
    assert hooks.arrived(_secret(second)) == "order 2"


def test_an_alarm_begins_with_the_fifth_silent_order_and_is_logged_once(hooks: Webhooks) -> None:
    with capture_logs() as logs:
        _silent(hooks, SILENT - 1)
        assert (hooks.alarms(), logs) == ((), [])
        _silent(hooks, 1)
        (alarm,) = hooks.alarms()
        _silent(hooks, 3)
    assert [entry["text"] for entry in logs] == [alarm]
    assert hooks.alarms() == (alarm,)


def test_an_order_that_was_never_delivered_is_not_silent(hooks: Webhooks) -> None:
    for number in range(2 * SILENT):
        hooks.closed(_order(hooks, number, OrderState.CANCELED))
    assert hooks.alarms() == ()


def test_an_order_without_a_webhook_of_ours_is_not_silent(hooks: Webhooks) -> None:
    for _ in range(2 * SILENT):
        hooks.closed(build.order(state=OrderState.DELIVERED))
    assert hooks.alarms() == ()


def test_after_one_came_as_many_have_to_be_silent_as_before(hooks: Webhooks) -> None:
    _silent(hooks, SILENT)
    told = _order(hooks, 100)
    hooks.arrived(_secret(told))
    assert hooks.alarms() == ()
    _silent(hooks, SILENT - 1)
    assert hooks.alarms() == ()
    hooks.closed(told)
    assert hooks.alarms() == (), "of this one a webhook came"
    _silent(hooks, 1)
    assert len(hooks.alarms()) == 1


def test_a_webhook_counts_for_its_order_once(hooks: Webhooks) -> None:
    told = _order(hooks, 100)
    hooks.arrived(_secret(told))
    hooks.closed(told)
    _silent(hooks, SILENT - 1)
    hooks.opened(told)
    hooks.closed(told)
    assert len(hooks.alarms()) == 1
