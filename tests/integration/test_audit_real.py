"""`holdpayd check` and `holdpayd recover` against a real lnd, with the documented macaroon and no more."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.harness import Daemon, Seen, enum_name, is_held, is_over, pair
from tests.integration.market import FAST, Market, open_market
from tests.regtest.net import Net
from tests.regtest.rest import b64

pytestmark = pytest.mark.real

UNTIL_TOLD_S = 1e9
"""Of the provider's clock: the order is held until the test settles its invoice."""


@pytest_asyncio.fixture
async def market(own_net: Net, tmp_path: Path) -> AsyncIterator[Market]:
    """A net of its own: recover finds every payment that was ever made to carol."""
    async with open_market(own_net, tmp_path, f"{FAST}retrack_s = 2\n[guard]\nin_transit_s = 1\n") as opened:
        yield opened


async def holdpayd(market: Market, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "holdpay.cli.daemon", "--config", str(market.daemon.config), *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def found(market: Market) -> set[str]:
    """The kinds of findings; an order may be late by the fast clock of the provider."""
    _, output = await holdpayd(market, "check", "--json")
    return {finding["code"] for finding in json.loads(output)["findings"]} - {"alarm"}


async def until_found(market: Market, *expected: str) -> None:
    """Of an order that moves while lnd is asked nothing is said: it is looked at again."""
    codes: set[str] = set()
    for _ in range(10):
        codes = await found(market)
        if codes == set(expected):
            return
    assert codes == set(expected)


async def buy(market: Market, **scenario: object) -> Seen:
    knobs = market.provider.knobs
    knobs.queue.append(replace(knobs.scenario, **scenario))  # type: ignore[arg-type]
    return await market.daemon.order()


async def test_a_database_lost_while_a_request_is_held_is_rebuilt_from_a_real_lnd(market: Market) -> None:
    daemon = market.daemon
    got = await daemon.until((await buy(market)).id, is_over)
    refunded = await daemon.until((await buy(market, no_number=True, gives_up_after_s=20.0)).id, is_over)
    await until_found(market)
    held = await daemon.until((await buy(market, code_after_s=UNTIL_TOLD_S)).id, is_held)
    await until_found(market, "open")

    await daemon.kill()
    for file in daemon.config.with_name("state").glob("holdpay.db*"):
        file.unlink()
    assert await found(market) == {"no-database", "stranger"}
    code, output = await holdpayd(market, "recover", "--write")
    assert code == 0, output
    await until_found(market, "open", "unwatched")

    await daemon.start_ready()
    for before in (got, refunded):
        after = await daemon.get(f"rec{before.payment_hash[:8]}")
        assert enum_name(after, "end") == enum_name(before, "end")
        assert (after.code, after.spent_msat) == (before.code, before.spent_msat)
    theirs = market.provider.orders[held.payment_hash]
    theirs.code = "246810"
    await market.net["carol"].rest.post("/v2/invoices/settle", {"preimage": b64(theirs.preimage)})
    done = await daemon.until(f"rec{held.payment_hash[:8]}", is_over)
    assert (enum_name(done, "end"), done.code) == ("FULFILLED", "246810")
    assert len(await market.payments(held.payment_hash)) == 1
    await until_found(market)


async def in_flight(daemon: Daemon) -> str:
    """The id of an order whose payment lnd has not only recorded, but also given to its channel."""
    order = await daemon.until((await daemon.order()).id, lambda o: pair(o)[1] == "IN_FLIGHT")
    await asyncio.sleep(3)  # nothing tells it: lnd signs after 50 ms (channel-commit-interval), a busy one later
    return str(order.id)


async def test_a_payment_that_a_killed_lnd_never_sent_is_seen_to_have_no_htlc_and_ends_after_its_expiry_height(
    market: Market,
) -> None:
    """lnd signs one commitment at a time: as long as the first HTLC waits for bob's answer, the second one is not in
    the channel, and dies with lnd. Yet lnd has its attempt in flight from then on, through every restart."""
    daemon, alice, bob = market.daemon, market.alice, market.net["bob"]
    bob.pause()
    signed, unsigned = await in_flight(daemon), await in_flight(daemon)
    await alice.kill()
    bob.resume()
    await alice.start()
    await alice.wait_active_channels()

    assert enum_name(await daemon.until(signed, is_over), "end") == "FULFILLED"
    await until_found(market, "open", "htlc-missing")
    await alice.restart()
    await alice.wait_active_channels()
    await daemon.until_ready()
    await until_found(market, "open", "htlc-missing")
    left = await daemon.get(unsigned)
    assert (pair(left), left.terminal, left.dispatches) == (("AWAITING_PAYMENT", "IN_FLIGHT"), False, 1)
    assert [payment["status"] for payment in await market.payments(left.payment_hash)] == ["IN_FLIGHT"]
    assert await alice.hashes_without_htlc() == {left.payment_hash}
    await mine_past(market, left.expiry_height)
    done = await daemon.until(unsigned, is_over)
    assert (enum_name(done, "end"), pair(done), done.spent_msat) == ("PAYMENT_FAILED", ("ABANDONED", "FAILED"), 0)
    await until_found(market, "never-ends-in-lnd")


async def mine_past(market: Market, expiry_height: int) -> None:
    """Up to this height nothing ends; one block later it may."""
    info = await market.alice.rest.get("/v1/getinfo")
    await market.net.mine(expiry_height - info["block_height"])
    await market.net.wait_synced()
    await asyncio.sleep(5)  # two looks and more would have fitted in here
    assert not any(order.terminal for order in await open_orders(market))
    await market.net.mine(1)


async def open_orders(market: Market) -> list[Seen]:
    found = await market.daemon.listed(open_only=True)
    assert found
    return found


@pytest.mark.parametrize("is_settled", [True, False])
async def test_a_request_whose_record_was_deleted_from_lnd_ends_after_its_expiry_height_and_counts_as_spent(
    market: Market, is_settled: bool
) -> None:
    daemon, carol = market.daemon, market.net["carol"]
    held = await daemon.until((await buy(market, code_after_s=UNTIL_TOLD_S)).id, is_held)
    payment_hash = bytes.fromhex(held.payment_hash)
    await daemon.stop()
    if is_settled:
        await carol.settle(market.provider.orders[held.payment_hash].preimage)
    else:
        await carol.cancel(payment_hash)
    while (await market.payments(held.payment_hash))[0]["status"] == "IN_FLIGHT":
        await asyncio.sleep(0.1)
    await market.alice.delete_payment(payment_hash)
    await daemon.start_ready()
    lost = await daemon.until(held.id, lambda order: order.has("gone_since_ms"))
    assert (pair(lost)[1], lost.terminal) == ("IN_FLIGHT", False)
    await until_found(market, "open", "lnd-record-lost")
    await mine_past(market, held.expiry_height)
    done = await daemon.until(held.id, is_over)
    assert (enum_name(done, "end"), pair(done)[1]) == ("OUTCOME_UNKNOWN", "GONE")
    assert done.spent_msat == held.locked_msat
    await until_found(market, "outcome-unknown")
