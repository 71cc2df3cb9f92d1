"""What the audit reads of lnd's records: `LndLedger` on the sandbox's lnd, and on a real one."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from holdpay.clock import SystemClock
from holdpay.core.lightning import NotKnown, PaymentStatus, Reported, StoredPayment
from holdpay.errors import LndDenied, LndRefused, LndUnavailable
from holdpay.lnd import ledger as module
from holdpay.lnd.ledger import LndLedger
from tests.contract.adapter import another_node_behind, lnd_ledger
from tests.contract.client import PATIENCE_S, Client, Payment
from tests.contract.steps import HOP_DELTA, PADDING, VALUE_MSAT, cancel, hold, order, settle
from tests.contract.test_lnd_survival import SHORT_DELTA, WORTH_A_CLAIM_SAT
from tests.contract.worlds import World


@pytest_asyncio.fixture
async def ledger(world: World) -> AsyncIterator[LndLedger]:
    async with lnd_ledger(world) as ledger:
        yield ledger


async def listed(ledger: LndLedger, created_from_ms: int = 0) -> dict[str, StoredPayment]:
    """By payment hash; other tests may have paid before."""
    return {payment.payment_hash: payment async for payment in ledger.payments(created_from_ms)}


async def test_every_payment_is_listed_whatever_became_of_it_over_all_pages(
    world: World, lnd: Client, ledger: LndLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE_SIZE", 2)
    bought = [await order(world) for _ in range(5)]
    streams = [await hold(world, lnd, each) for each in bought]
    await settle(world, bought[0])
    await cancel(world, bought[1])
    assert [(await stream.end()).status for stream in streams[:2]] == [Payment.SUCCEEDED, Payment.FAILED]

    # The attempts of a failed payment are deleted a moment later, and with them where it went.
    async with asyncio.timeout(PATIENCE_S):
        while (payments := await listed(ledger))[bought[1].payment_hash.hex()].last_node is not None:
            await asyncio.sleep(0.05)
    ours = [payments[each.payment_hash.hex()] for each in bought]
    held = PaymentStatus.IN_FLIGHT
    assert [p.update.status for p in ours] == [PaymentStatus.SUCCEEDED, PaymentStatus.FAILED, held, held, held]
    assert [p.payreq for p in ours] == [each.payreq for each in bought]
    assert {p.amount_msat for p in ours} == {VALUE_MSAT}
    payee = await world.invoices.pubkey()
    assert [p.last_node for p in ours] == [payee, None, payee, payee, payee]
    assert (await ledger.decode(ours[1].payreq)).payee == payee

    for each in bought[2:]:
        await settle(world, each)
    for stream in streams[2:]:
        await stream.end()


async def test_older_payments_are_left_out(world: World, lnd: Client, ledger: LndLedger) -> None:
    bought = await order(world)
    stream = await hold(world, lnd, bought)
    now_ms = SystemClock().now_ms()
    payment = (await listed(ledger, now_ms - 60_000))[bought.payment_hash.hex()]
    assert now_ms - 60_000 < payment.created_at_ms <= now_ms
    assert await listed(ledger, now_ms + 60_000) == {}
    await settle(world, bought)
    await stream.end()


async def test_one_payment_is_asked_for_by_hash(world: World, lnd: Client, ledger: LndLedger) -> None:
    bought = await order(world)
    stream = await hold(world, lnd, bought)
    said = await ledger.payment(bought.payment_hash.hex())
    assert isinstance(said, Reported)
    assert said.update.status is PaymentStatus.IN_FLIGHT
    await settle(world, bought)
    await stream.end()
    said = await ledger.payment(bought.payment_hash.hex())
    assert isinstance(said, Reported)
    assert said.update.status is PaymentStatus.SUCCEEDED
    assert await ledger.payment(secrets.token_hex(32)) == NotKnown()


async def test_an_htlc_is_in_the_channel_that_its_payment_leaves_by_until_it_is_settled(
    world: World, lnd: Client, ledger: LndLedger
) -> None:
    bought = await order(world)
    payment_hash = bought.payment_hash.hex()
    stream = await hold(world, lnd, bought)
    (leaves_by,) = (await listed(ledger))[payment_hash].leaves_by
    (channel,) = [channel for channel in await ledger.channels() if channel.chan_id == leaves_by]
    assert channel.is_active
    assert payment_hash in channel.paying
    await settle(world, bought)
    await stream.end()

    assert (await listed(ledger))[payment_hash].leaves_by == ()
    async with asyncio.timeout(PATIENCE_S):
        while payment_hash in await paying(ledger):
            await asyncio.sleep(0.05)


async def test_an_htlc_is_looked_for_in_the_channels_at_the_height_of_the_chain(
    world: World, lnd: Client, ledger: LndLedger
) -> None:
    bought = await order(world)
    payment_hash = bought.payment_hash.hex()
    stream = await hold(world, lnd, bought)
    look = await ledger.look_for_htlc(payment_hash)
    assert (look.block_height, look.is_in_channel, look.is_maybe_closing) == (await height_of(lnd), True, False)
    assert not (await ledger.look_for_htlc(secrets.token_hex(32))).is_carried
    await settle(world, bought)
    await stream.end()
    async with asyncio.timeout(PATIENCE_S):
        while (await ledger.look_for_htlc(payment_hash)).is_carried:
            await asyncio.sleep(0.05)


async def height_of(lnd: Client) -> int:
    return (await lnd.info()).block_height


async def test_a_channel_that_is_being_closed_by_force_may_carry_any_htlc(mortal_world: World) -> None:
    """Such channels name no payment hash: what lnd cannot tell is taken for carried."""
    other_hash = secrets.token_hex(32)
    asked = await order(mortal_world, value_sat=WORTH_A_CLAIM_SAT, cltv_delta=SHORT_DELTA)
    async with mortal_world.connect() as lnd, lnd_ledger(mortal_world) as ledger:
        await hold(mortal_world, lnd, asked)
        await mortal_world.set_online("peer", online=False)
        await mortal_world.mine(SHORT_DELTA + PADDING + HOP_DELTA - 1)
        assert not (await ledger.look_for_htlc(other_hash)).is_carried
        await mortal_world.mine(1)
        async with asyncio.timeout(PATIENCE_S):
            while not (await ledger.look_for_htlc(other_hash)).is_maybe_closing:
                await asyncio.sleep(0.05)
        assert (await ledger.look_for_htlc(asked.payment_hash.hex())).is_carried
        await mortal_world.mine(1)
        await asyncio.sleep(mortal_world.block_pause_s)
        assert (await ledger.look_for_htlc(asked.payment_hash.hex())).is_carried


async def paying(ledger: LndLedger) -> set[str]:
    """Payment hashes of all HTLCs that the node offers."""
    return {payment_hash for channel in await ledger.channels() for payment_hash in channel.paying}


async def test_it_says_which_node_it_is_of(lnd: Client, ledger: LndLedger) -> None:
    identity = await ledger.identity()
    assert (identity.pubkey, identity.network) == ((await lnd.info()).identity_pubkey, "simnet")


async def test_another_node_meanwhile_ends_the_look(mortal_world: World) -> None:
    async with lnd_ledger(mortal_world) as ledger:
        await ledger.identity()
        async with another_node_behind(mortal_world):
            with pytest.raises(LndUnavailable):
                await look_twice(ledger)


async def look_twice(ledger: LndLedger) -> None:
    """The break may be seen by the second call only."""
    for _ in range(2):
        await listed(ledger)


async def test_what_is_no_invoice_is_refused(ledger: LndLedger) -> None:
    with pytest.raises(LndRefused):
        await ledger.decode("lnsb1nonsense")


async def test_a_macaroon_without_the_right_to_list_is_told(world: World) -> None:
    narrow = await world.bake(["/lnrpc.Lightning/GetInfo"])
    async with lnd_ledger(world, narrow) as ledger:
        await ledger.identity()
        with pytest.raises(LndDenied):
            await listed(ledger)


async def test_an_lnd_that_is_away_is_told(mortal_world: World) -> None:
    async with lnd_ledger(mortal_world) as ledger:
        await mortal_world.stop_payer()
        with pytest.raises(LndUnavailable, match="does not answer"):
            await ledger.identity()
        await mortal_world.start_payer()
