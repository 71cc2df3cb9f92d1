"""`holdpayd backup` and `holdpayd restore` as processes, with the real daemon, and what an old copy can do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.copies import as_of, journal, put_by_hand
from tests.e2e.shop import QUICK, Shop, open_shop
from tests.e2e.test_audit import Ran, check, database, holdpayd
from tests.harness import Seen, enum_name, is_over, pair

CONFIG = QUICK.replace("pay_within_s = 60", "pay_within_s = 300").replace("prove_absent_s = 2", "prove_absent_s = 1")
CONFIG = CONFIG.replace("prove_absent_s = 1", "prove_absent_s = 1\nretrack_s = 1")
STORE = 74


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path, extra_config=CONFIG) as shop:
        yield shop


def old_copy(shop: Shop, event: str) -> Path:
    return as_of(shop.world.config, database(shop), event, shop.world.directory / f"old-{event}")


async def restore(shop: Shop, copy: Path, *options: str) -> Ran:
    return await holdpayd(shop, "restore", str(copy), *options)


# --- backup -----------------------------------------------------------------------------------------------------------


async def test_copies_that_are_made_while_orders_go_on_are_sound_and_the_beginning_of_the_journal(
    shop: Shop, tmp_path: Path
) -> None:
    copies = []
    buying = [asyncio.create_task(shop.buy()) for _ in range(8)]
    for number in range(3):
        copies.append(tmp_path / f"{number}.db")
        options = ("--without-secrets",) if number == 1 else ()
        ran = await holdpayd(shop, "backup", str(copies[-1]), *options)
        assert ran.code == 0, ran.err
    done = await asyncio.gather(*buying)
    assert {enum_name(order, "end") for order in done} == {"FULFILLED"}
    whole = journal(database(shop))
    for copy in copies:
        rows = journal(copy)
        assert rows == whole[: len(rows)]
        code, found = await check(shop, "--offline", "--database", str(copy))
        assert (code in {0, 3}, set(found) <= {"open"}) == (True, True), found


# --- an old copy that is put in place by hand -------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["order_requested", "invoice_decoded"])
async def test_an_old_copy_is_not_served_so_that_nothing_is_placed_or_paid_from_it(shop: Shop, event: str) -> None:
    order = await shop.held()
    await shop.daemon.kill()
    put_by_hand(old_copy(shop, event), database(shop))
    placed, sends = shop.world.provider.requests["/createorder"], shop.sends
    process = await shop.daemon.launch()
    assert await process.wait() == STORE
    assert "brought here from somewhere else" in shop.daemon.log()
    assert "holdpayd restore" in shop.daemon.log()
    assert (shop.world.provider.requests["/createorder"], shop.sends) == (placed, sends)
    assert shop.books.htlcs(order.payment_hash) == 1


@pytest.mark.parametrize("is_settled", [False, True])
async def test_lnd_alone_keeps_an_old_copy_from_paying_twice_as_long_as_it_has_its_record(
    shop: Shop, is_settled: bool
) -> None:
    """Law 3 of docs/backup.md, with the others taken away: the daemon believes that it has the present."""
    order = await (shop.buy() if is_settled else shop.held())
    await shop.daemon.kill()
    put_by_hand(old_copy(shop, "invoice_decoded"), database(shop), is_known=True)
    sends = shop.sends
    await shop.daemon.start()
    if not is_settled:
        await shop.daemon.until(order.id, lambda now: pair(now)[1] == "IN_FLIGHT")
        await shop.deliver(order)
    done = await shop.daemon.until(order.id, is_over)
    assert (enum_name(done, "end"), shop.books.htlcs(order.payment_hash)) == ("FULFILLED", 1)
    assert shop.sends == sends + 1, "it was sent again, and lnd refused"
    await shop.audit()


async def test_without_lnds_record_an_old_copy_would_be_sent_again_which_is_why_it_is_not_served(shop: Shop) -> None:
    """The hole that laws 1 and 2 close: what keeps the money here is only that the payee refuses a settled invoice."""
    order = await shop.buy()
    await shop.daemon.kill()
    await shop.play("delete-payments")
    put_by_hand(old_copy(shop, "invoice_decoded"), database(shop), is_known=True)
    await shop.daemon.start()
    await shop.daemon.until(order.id, lambda now: pair(now)[1] == "FAILED")
    assert shop.books.htlcs(order.payment_hash) == 2


# --- restore ----------------------------------------------------------------------------------------------------------


async def test_a_copy_from_before_the_payment_is_refused_and_one_from_after_it_goes_on(
    shop: Shop, tmp_path: Path
) -> None:
    order = await shop.held()
    copy = tmp_path / "held.db"
    assert (await holdpayd(shop, "backup", str(copy))).code == 0
    ran = await restore(shop, copy)
    assert (ran.code, "Stop it first" in ran.err) == (75, True)
    await shop.daemon.kill()
    ran = await restore(shop, old_copy(shop, "invoice_decoded"))
    assert ran.code == 4
    assert f"1 order of it went on at lnd ({order.id})" in ran.err
    database(shop).unlink()
    ran = await restore(shop, copy)
    assert ran.code == 3, ran.err
    await shop.daemon.start()
    await shop.deliver(order)
    done = await shop.daemon.until(order.id, is_over)
    assert (enum_name(done, "end"), done.code, shop.books.htlcs(order.payment_hash)) == ("FULFILLED", "246810", 1)
    await shop.audit()
    assert await check(shop) == (0, {})


async def test_a_copy_from_before_an_order_is_refused_and_names_its_payment(shop: Shop, tmp_path: Path) -> None:
    copy = tmp_path / "empty.db"
    assert (await holdpayd(shop, "backup", str(copy))).code == 0
    order = await shop.held()
    await shop.daemon.kill()
    ran = await restore(shop, copy)
    assert ran.code == 4
    assert f"1 payment to the provider's node that it does not know ({order.payment_hash[:8]}…)" in ran.err
    assert "`holdpayd recover`" in ran.err


@pytest.mark.parametrize("fate", ["held", "settled", "settled and deleted in lnd"])
async def test_what_was_paid_after_the_copy_is_not_paid_again_whatever_became_of_it(shop: Shop, fate: str) -> None:
    """--without-lnd: nobody has refused the copy."""
    order = await (shop.held() if fate == "held" else shop.buy())
    await shop.daemon.kill()
    if "deleted" in fate:
        await shop.play("delete-payments")
    ran = await restore(shop, old_copy(shop, "invoice_decoded"), "--without-lnd")
    assert ran.code == 3, ran.err
    sends = shop.sends
    await shop.daemon.start()
    if fate == "held":
        await shop.daemon.until(order.id, lambda now: pair(now)[1] == "IN_FLIGHT")
        await shop.deliver(order)
    if "deleted" in fate:
        await told_of_a_lost_record(shop, order)
    else:
        done = await shop.daemon.until(order.id, is_over)
        assert enum_name(done, "end") == "FULFILLED"
    assert (shop.sends, shop.books.htlcs(order.payment_hash)) == (sends, 1)


async def told_of_a_lost_record(shop: Shop, order: Seen) -> None:
    """The code is here, and nobody can say how the payment ended: it counts as out until no HTLC of it can be left."""
    now = await shop.daemon.until(order.id, lambda now: pair(now) == ("DELIVERED", "UNKNOWN"))
    assert now.code == order.code
    seen = [update async for update in events_of(shop, order, "payment_not_found")]
    assert seen
    assert not (await shop.daemon.get(order.id)).terminal


async def events_of(shop: Shop, order: Seen, name: str) -> AsyncIterator[object]:
    """The first of this name."""
    async with asyncio.timeout(60):
        async for update in shop.daemon.updates(order.id):
            if update.event == name:
                yield update
                return


async def test_what_was_never_paid_closes_unpaid_once_lnd_and_the_provider_have_said_so(shop: Shop) -> None:
    await shop.play("routing-failures=100")
    order = await shop.buy()
    assert enum_name(order, "end") == "PAYMENT_FAILED"
    await shop.daemon.kill()
    await shop.play("delete-payments")
    ran = await restore(shop, old_copy(shop, "invoice_decoded"))
    assert ran.code == 3, ran.err
    sends = shop.sends
    await shop.daemon.start()
    done = await shop.daemon.until(order.id, is_over)
    assert (enum_name(done, "end"), done.spent_msat, shop.sends) == ("PAYMENT_FAILED", 0, sends)
    assert "restored from a copy" in done.reason


async def test_what_was_still_to_be_ordered_is_put_aside_and_not_ordered_again(shop: Shop) -> None:
    order = await shop.buy()
    await shop.daemon.kill()
    old = old_copy(shop, "order_requested")
    assert f"({order.payment_hash[:8]}…)" in (await restore(shop, old)).err
    assert (await restore(shop, old, "--without-lnd")).code == 3
    placed = shop.world.provider.requests["/createorder"]
    await shop.daemon.start()
    now = await shop.daemon.get(order.id)
    assert (pair(now), now.terminal) == (("REQUESTED", "NONE"), False)
    code, found = await check(shop)
    assert (code, {"quarantined", "stranger"} <= set(found)) == (4, True)
    await shop.daemon.cancel(order.id)
    assert (await shop.daemon.until(order.id, is_over)).spent_msat == 0
    assert shop.world.provider.requests["/createorder"] == placed
