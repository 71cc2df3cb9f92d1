"""Each kind of order that pays, against real nodes: what settles and what is refunded is carol's hold invoice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from holdpay._pb.v1 import holdpay_pb2 as pb
from tests.harness import Seen, enum_name, fresh_key, is_over, pair
from tests.integration.market import FAST, PACE, Market, open_market
from tests.regtest.net import Net

pytestmark = pytest.mark.real

SMS = pb.SubmitRequest(sms=pb.SmsSpec(phone="+12025550123", message="see you at noon"))
EMAIL = pb.SubmitRequest(email=pb.EmailSpec(address="buyer@example.org", message="see you at noon"))
RENTAL = pb.SubmitRequest(rental=pb.RentalSpec(country="united kingdom"))
FUND = pb.SubmitRequest(fund=pb.FundSpec(amount_sat=5000))


@pytest_asyncio.fixture
async def market(healthy_net: Net, tmp_path: Path) -> AsyncIterator[Market]:
    key = tmp_path / "api-key"
    key.write_text("sandbox-key\n")
    key.chmod(0o600)
    async with open_market(healthy_net, tmp_path, FAST, api_key_file=key) as opened:
        yield opened


async def submit(market: Market, request: pb.SubmitRequest) -> Seen:
    asked = pb.SubmitRequest(idempotency_key=fresh_key())
    asked.MergeFrom(request)
    return await market.daemon.submit(asked)


async def is_paid_once(market: Market, order: Seen) -> bool:
    (payment,) = await market.payments(order.payment_hash)
    return bool(payment["payment_preimage"] == order.preimage)


@pytest.mark.parametrize("request_", [SMS, EMAIL], ids=["sms", "email"])
async def test_a_message_is_settled_when_it_was_sent(market: Market, request_: pb.SubmitRequest) -> None:
    # So long that each step is seen: what has become "delivered" meanwhile is not told to be "sent".
    market.provider.knobs.queue.append(replace(market.provider.knobs.scenario, delivered_after_s=5 * PACE))
    order = await submit(market, request_)
    settled = await market.daemon.until(order.id, lambda seen: pair(seen) == ("DELIVERED", "SETTLED"))
    assert settled.sendings[-1] == "sent"
    done = await market.daemon.until(order.id, is_over)
    assert (enum_name(done, "end"), done.sendings[-1]) == ("FULFILLED", "delivered")
    assert await is_paid_once(market, done)


async def test_a_message_that_fails_is_refunded(market: Market) -> None:
    market.provider.knobs.queue.append(replace(market.provider.knobs.scenario, fails_instead_of="sent"))
    order = await submit(market, SMS)
    done = await market.daemon.until(order.id, is_over)
    assert (enum_name(done, "end"), pair(done), done.spent_msat) == ("REFUNDED", ("CANCELED", "FAILED"), 0)
    (payment,) = await market.payments(done.payment_hash)
    assert payment["status"] == "FAILED"


async def test_a_rental_is_settled_and_its_messages_come_over_two_restarts(market: Market) -> None:
    scenario = replace(market.provider.knobs.scenario, messages_after_s=(100.0, 300.0, 500.0), messages_as="messages")
    market.provider.knobs.queue.append(scenario)
    order = await submit(market, RENTAL)
    await market.daemon.until(order.id, lambda seen: pair(seen) == ("DELIVERED", "SETTLED"))
    for count in (1, 2, 3):
        # Followed, it is asked for every few seconds; each message comes a few seconds after the one before.
        seen = await market.daemon.until(order.id, lambda seen, count=count: len(seen.messages) >= count)  # type: ignore[misc]
        assert len(set(seen.messages)) == len(seen.messages)
        assert not seen.terminal
        if count < 3:
            await market.daemon.restart()
    assert await is_paid_once(market, seen)
    assert seen.dispatches == 1


async def test_money_for_the_account_is_settled(market: Market) -> None:
    order = await submit(market, FUND)
    done = await market.daemon.until(order.id, is_over)
    assert (enum_name(done, "end"), pair(done)) == ("FULFILLED", ("DELIVERED", "SETTLED"))
    assert done.amount_msat == 5_000_000
    assert await is_paid_once(market, done)
    balance = await market.daemon.stub.GetAccount(pb.GetAccountRequest())
    assert balance.balance_sat >= 5_000
