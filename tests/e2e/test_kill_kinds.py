"""Every kind and both fundings, killed with SIGKILL in every stage: whatever is journaled anew, the daemon dies there.

Codes that a hold invoice pays have ``test_kill``, with a crowd and troubles of everybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.shop import FOR_EVER_S, Shop, open_account_shop
from tests.e2e.test_kinds import CODE, EMAIL, FUND, RENTAL, SMS, submit
from tests.harness import Seen, enum_name

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE_S = 90
CASES = {
    "sms": (SMS, False),
    "email": (EMAIL, False),
    "rental": (RENTAL, False),
    "fund": (FUND, False),
    "prepaid code": (CODE, True),
    "prepaid sms": (SMS, True),
    "prepaid rental": (RENTAL, True),
}
MESSAGES_AFTER_S = (60.0, 150.0, 240.0)
LIVELY: dict[str, Any] = {
    "messages_as": "messages",
    "messages_after_s": MESSAGES_AFTER_S,
    "rental_ends_after_s": FOR_EVER_S,
    "settle_lag_s": 1.0,
}
"""A rental that gets three messages, all of which the provider shows."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with open_account_shop(tmp_path_factory.mktemp("kill-kinds")) as opened:
        yield opened


def stage_of(event: str, seen: Seen) -> tuple[object, ...]:
    """Where an order stands, as far as it makes a difference to die there."""
    return event, *(enum_name(seen, half) for half in ("state", "htlc", "charge")), len(seen.request.items)


def is_done(seen: Seen) -> bool:
    """Over; or a rental whose messages have all come."""
    return seen.terminal or (len(seen.messages) == len(MESSAGES_AFTER_S) and enum_name(seen, "state") == "DELIVERED")


def may_die(event: str, seen: Seen) -> bool:
    """A life of its own follows a restart. While an order is placed from the account a death leaves nobody to know
    whether it was, and it never is again: the last test dies there."""
    is_being_placed = seen.request.prepaid and enum_name(seen, "charge") != "CHARGED"
    return event != "daemon_restarted" and not is_being_placed


async def live_and_die(shop: Shop, order_id: str) -> tuple[Seen, set[tuple[object, ...]]]:
    """Kills the daemon at each stage that is new, until the order is done. Returns the order and where it died."""
    died: set[tuple[object, ...]] = set()
    cursor = 0
    while True:
        async for update in shop.daemon.updates(order_id, after=cursor):
            cursor, seen = update.cursor, Seen(update.request)
            if is_done(seen):
                return seen, died
            stage = stage_of(update.event, seen)
            if may_die(update.event, seen) and stage not in died:
                died.add(stage)
                break
        await shop.daemon.restart()


@pytest.mark.parametrize("name", CASES)
async def test_killed_in_every_stage_it_is_paid_once_and_delivered_whole(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    request, is_prepaid = CASES[name]
    knobs = shop.world.provider.knobs
    knobs.balance_sat = before_sat = 20_000
    # Of every order: one that dies before the provider's answer is on disk is made a second time.
    monkeypatch.setattr(knobs, "scenario", replace(knobs.scenario, **(LIVELY if "rental" in name else {})))
    await shop.daemon.until_ready()
    sends = shop.sends
    order = await submit(shop, request, prepaid=is_prepaid)
    async with asyncio.timeout(PATIENCE_S):
        done, died = await live_and_die(shop, order.id)

    assert len(died) >= (1 if is_prepaid else 3), died
    if is_prepaid:
        assert done.spent_msat == (before_sat - knobs.balance_sat) * 1000
        assert shop.sends == sends
    else:
        assert shop.books.settled(done.payment_hash) == 1
    assert done.fulfilled or enum_name(done, "end") == "FULFILLED"
    if "rental" in name:
        assert len(set(done.messages)) == len(done.messages) == len(MESSAGES_AFTER_S)


async def test_a_prepaid_order_that_dies_right_after_its_intent_is_placed_once_at_most(shop: Shop) -> None:
    """The process is killed while the provider has the request, and before its answer is on disk."""
    knobs, requests = shop.world.provider.knobs, shop.world.provider.requests
    knobs.balance_sat, knobs.slow_s, knobs.only_path = 20_000, 1.0, "/createsendorder"
    await shop.daemon.until_ready()
    placed = requests["/createsendorder"]
    try:
        order = await submit(shop, SMS, prepaid=True)
        async with asyncio.timeout(PATIENCE_S):
            while requests["/createsendorder"] == placed:
                await asyncio.sleep(0.01)
        await shop.daemon.restart()
        unknown = await shop.daemon.until(order.id, lambda seen: enum_name(seen, "charge") == "UNKNOWN")
        await asyncio.sleep(2)
        assert requests["/createsendorder"] == placed + 1
        assert (await shop.daemon.get(order.id)).spent_msat == unknown.spent_msat > 0
    finally:
        knobs.slow_s, knobs.only_path = 0.0, ""
