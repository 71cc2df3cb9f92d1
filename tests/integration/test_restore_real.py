"""An old copy of the database, from before a payment, on real nodes: nothing is paid twice. The laws are those of
docs/backup.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.copies import as_of, put_by_hand
from tests.harness import Seen, enum_name, is_held, is_over, pair
from tests.integration.market import FAST, Market, open_market
from tests.integration.test_audit_real import UNTIL_TOLD_S, holdpayd
from tests.regtest.net import Net
from tests.regtest.rest import b64

pytestmark = pytest.mark.real

CONFIG = FAST.replace("pay_within_s = 10", "pay_within_s = 300") + "retrack_s = 2\n"
"""So long that the time to pay is no reason not to pay from an old copy."""


@pytest_asyncio.fixture
async def market(own_net: Net, tmp_path: Path) -> AsyncIterator[Market]:
    async with open_market(own_net, tmp_path, CONFIG) as opened:
        yield opened


def database(market: Market) -> Path:
    return market.daemon.config.with_name("state") / "holdpay.db"


def before_the_payment(market: Market) -> Path:
    config = market.daemon.config
    return as_of(config, database(market), "invoice_decoded", config.with_name("old"))


async def bought(market: Market, *, is_settled: bool) -> Seen:
    """Held until ``deliver``, or over."""
    if is_settled:
        return await market.daemon.until((await market.daemon.order()).id, is_over)
    knobs = market.provider.knobs
    knobs.queue.append(replace(knobs.scenario, code_after_s=UNTIL_TOLD_S))
    return await market.daemon.until((await market.daemon.order()).id, is_held)


async def deliver(market: Market, order: Seen) -> None:
    theirs = market.provider.orders[order.payment_hash]
    theirs.code = "246810"
    await market.net["carol"].rest.post("/v2/invoices/settle", {"preimage": b64(theirs.preimage)})


async def paid_msat(market: Market) -> int:
    """What alice has on her side, in sat that left it."""
    return int((await market.alice.rest.get("/v1/balance/channels"))["local_balance"]["msat"])


@pytest.mark.parametrize("is_settled", [False, True], ids=["held", "settled"])
async def test_a_real_lnd_refuses_to_pay_again_what_an_old_copy_believes_unpaid(
    market: Market, is_settled: bool
) -> None:
    """Law 3 alone: the daemon believes that it has the present, and dispatches."""
    order = await bought(market, is_settled=is_settled)
    await market.daemon.kill()
    put_by_hand(before_the_payment(market), database(market), is_known=True)
    await market.daemon.start_ready()
    if not is_settled:
        await market.daemon.until(order.id, lambda now: pair(now)[1] == "IN_FLIGHT")
        await deliver(market, order)
    done = await market.daemon.until(order.id, is_over)
    assert (enum_name(done, "end"), done.dispatches) == ("FULFILLED", 1)
    (payment,) = await market.payments(order.payment_hash)
    assert payment["status"] == "SUCCEEDED"
    assert len([htlc for htlc in payment["htlcs"] if htlc["status"] == "SUCCEEDED"]) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("fate", ["held", "settled", "deleted"])
async def test_what_was_paid_after_the_copy_is_never_sent_again_from_a_real_lnd(market: Market, fate: str) -> None:
    """Laws 1 and 2; with lnd's record deleted nothing of lnd's would stop a second payment."""
    order = await bought(market, is_settled=fate != "held")
    await market.daemon.kill()
    old = before_the_payment(market)
    if fate == "deleted":
        await market.alice.delete_payment(bytes.fromhex(order.payment_hash))
    left_msat = await paid_msat(market)
    put_by_hand(old, database(market))
    process = await market.daemon.launch()
    assert await process.wait() == 74
    code, output = await holdpayd(market, "restore", str(database(market)))
    if fate == "deleted":
        assert code == 3, output
    else:
        assert (code, "went on at lnd" in output) == (4, True), output
        code, output = await holdpayd(market, "restore", str(database(market)), "--without-lnd")
        assert code == 3, output
    await market.daemon.start_ready()
    if fate == "held":
        await market.daemon.until(order.id, lambda now: pair(now)[1] == "IN_FLIGHT")
        await deliver(market, order)
    if fate == "deleted":
        now = await market.daemon.until(order.id, lambda now: pair(now) == ("DELIVERED", "UNKNOWN"))
        await asyncio.sleep(6)  # nothing tells it: three looks at lnd go by
        assert (await market.daemon.get(order.id)).code == now.code == order.code
        assert await market.payments(order.payment_hash) == []
        assert await paid_msat(market) == left_msat
        return
    done = await market.daemon.until(order.id, is_over)
    assert enum_name(done, "end") == "FULFILLED"
    assert len(await market.payments(order.payment_hash)) == 1
