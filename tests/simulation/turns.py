"""Requests of the simulation that go on: their strategies, and the orders that come next."""

from __future__ import annotations

from random import Random

from holdpay.core.model import Order
from holdpay.core.policy import Policy
from holdpay.core.strategy import Country, Strategy
from holdpay.engine.wanted import StrategyWanted

COUNTRIES = (Country(187, "United States"), Country(16, "England"))


def draw_strategy(rng: Random) -> Strategy | None:
    """None: one order."""
    if rng.random() < 0.2:
        return None
    return Strategy(
        countries=COUNTRIES[: rng.choice((1, 2))],
        attempts=rng.choice((2, 3)),
        max_total_sat=rng.choice((None, 5_000)),
        within_s=rng.choice((None, None, 1_200)),
        number_within_s=rng.choice((None, 120, 120)),
        sms_within_s=rng.choice((120, 150, 400)),
    )


def draw_strategy_wanted(rng: Random) -> StrategyWanted:
    """In a client's words. Empty: one order."""
    if rng.random() < 0.2:
        return StrategyWanted()
    return StrategyWanted(
        attempts=rng.choice((2, 3)),
        max_total_sat=rng.choice((None, 5_000)),
        number_within_s=rng.choice((None, 120, 120)),
        sms_within_s=rng.choice((120, 150, 400)),
    )


def next_order(before: Order, policy: Policy, now_ms: int) -> Order:
    """As the desk makes it, at the same price."""
    assert before.request.strategy is not None
    country = before.request.strategy.next_countries(before)[0]
    return Order(
        id=f"{before.request.id}-{before.nth + 1}",
        request=before.request,
        nth=before.nth + 1,
        country=country.code,
        country_name=country.name,
        created_at_ms=now_ms,
        pay_by_ms=now_ms + policy.pay_within_s * 1000,
        max_price_sat=before.max_price_sat,
        max_fee_sat=before.max_fee_sat,
        quote_sat=before.quote_sat,
        state_since_ms=now_ms,
        place_at_ms=now_ms,
    )


def last_of(orders: dict[str, Order], request_id: str) -> Order:
    """Of a request."""
    return max((order for order in orders.values() if order.request.id == request_id), key=lambda order: order.nth)
