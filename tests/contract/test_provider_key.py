"""The account's key goes with the requests that are about the account, and nowhere else."""

from __future__ import annotations

from contextlib import suppress

import pytest

from holdpay.core.kinds.spec import Placing
from holdpay.errors import (
    ProviderError,
    ProviderKeyMissing,
    ProviderProtocolError,
    ProviderRefused,
    ProviderUnavailable,
)
from holdpay.ports import Balance, Funding
from holdpay.sandbox.payee import Payee
from holdpay.sandbox.sms4sats import SimulatedSms4Sats
from holdpay.sandbox.sms4sats_knobs import Knobs
from tests.contract.provider_servers import hang_up, http, raw_server
from tests.contract.test_code_provider import ORDER_ID, against, connected
from tests.unit.sms4sats.clock import SkippingClock

KEY = "s3cret-key-of-an-account"
CODE = Placing(path="/createorder", body={"country": 187, "service": "dr"})
PREPAID = Placing(path="/createorder", body={**CODE.body, "immediate": True}, needs_key=True, is_prepaid=True)
FUND = Placing(path="/fund", body={"amount": 1000}, needs_key=True)
ORDER = http('{"status":"OK","orderId":"a","payreq":"lnbc1a"}')
PAID = http('{"status":"OK","orderId":"a","payreq":"paid"}')


async def test_only_what_needs_the_key_carries_it() -> None:
    async with against(PAID, api_key=KEY) as (client, server):
        await client.place(PREPAID)
        assert f"X-API-Key: {KEY}\r\n" in server.heads[0]
        with pytest.raises(ProviderProtocolError):
            await client.place(CODE)
        for ask in (lambda: client.order_status(ORDER_ID), client.prices, lambda: client.services(1)):
            with suppress(ProviderError):
                await ask()
        await client.cancel(ORDER_ID)
        assert len(server.heads) == 6
        assert not any(KEY in head for head in server.heads[1:])


@pytest.mark.parametrize("placing", [PREPAID, FUND])
async def test_without_a_key_nothing_is_asked_and_the_message_says_how_to_give_one(placing: Placing) -> None:
    async with against(PAID) as (client, server):
        with pytest.raises(ProviderKeyMissing, match=r"provider\.api_key_file"):
            await client.place(placing)
        assert server.heads == []


async def test_a_redirect_never_carries_the_key_to_another_host() -> None:
    async with raw_server(PAID) as other:
        moved = http("", "307 Temporary Redirect", f"Location: {other.url}/createorder")
        async with against(moved, api_key=KEY) as (client, _):
            with pytest.raises(ProviderProtocolError, match="redirect"):
                await client.place(PREPAID)
        assert other.heads == []


async def test_a_prepaid_order_is_never_placed_again_by_itself() -> None:
    async with against(hang_up, api_key=KEY) as (client, server):
        with pytest.raises(ProviderUnavailable):
            await client.place(PREPAID)
        assert len(server.heads) == 1


@pytest.mark.parametrize(("placing", "reply"), [(PREPAID, ORDER), (FUND, PAID)])
async def test_a_prepaid_order_has_no_invoice_and_any_other_has_one(placing: Placing, reply: bytes) -> None:
    async with against(reply, api_key=KEY) as (client, _):
        with pytest.raises(ProviderProtocolError):
            await client.place(placing)


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "500 Internal Server Error"])
@pytest.mark.parametrize("body", ['{"status":"error","reason":"unknown key KEY"}', "<p>KEY</p>", '{"userId":"KEY"}'])
async def test_a_provider_that_says_the_key_aloud_gets_it_into_no_message_and_no_raw_reply(
    status: str, body: str
) -> None:
    async with against(http(body.replace("KEY", KEY), status), api_key=KEY) as (client, _):
        with pytest.raises(ProviderError) as caught:
            await client.place(PREPAID)
        error = caught.value
        assert isinstance(error, ProviderRefused | ProviderProtocolError | ProviderUnavailable)
        unread = error.unread if isinstance(error, ProviderProtocolError) else None
        assert error.raw is not None
        assert KEY not in f"{error!r} {error.message} {error.raw} {unread} {client.health.last_error}"


async def test_balance_and_funding_are_asked_for_with_the_key() -> None:
    clock = SkippingClock()
    provider = SimulatedSms4Sats(Payee(clock), clock, Knobs(balance_sat=0, api_key=KEY))
    await provider.start()
    async with connected(provider.url, clock, api_key=KEY) as client:
        assert (await client.balance()).balance_sat == 0
        provider.knobs.balance_sat = 1234
        assert await client.balance() == Balance(1234, clock.now_ms())
        assert await client.funding() == Funding(0, ())
    async with connected(provider.url, clock, api_key="another-key") as client:
        provider.knobs.api_key = "the-only-key"
        for ask in (client.balance, client.funding):
            with pytest.raises(ProviderRefused, match=r"says .*\. See that provider\.api_key_file holds"):
                await ask()
    await provider.stop()


async def test_without_a_key_balance_and_funding_are_not_asked_for() -> None:
    async with against(PAID) as (client, server):
        for ask in (client.balance, client.funding):
            with pytest.raises(ProviderKeyMissing):
                await ask()
        assert server.heads == []


async def test_settings_do_not_show_the_key() -> None:
    async with connected("http://127.0.0.1:1", api_key=KEY) as client:
        assert KEY not in repr(client._settings)
