"""`holdpayd check` and `holdpayd recover` as processes, on the sandbox with the real daemon."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdpay.lnd.macaroon import BAKE
from tests.contract.client import client
from tests.e2e.shop import CLOSE_UNPAID_AFTER_S, QUICK, Shop, open_shop
from tests.harness import Seen, enum_name, is_over, pair
from tests.spoiling import spoil

LOOKS_OFTEN = QUICK.replace("prove_absent_s = 2", "prove_absent_s = 1\nretrack_s = 1")


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of a command."""

    code: int
    out: str
    err: str


async def holdpayd(shop: Shop, *arguments: str) -> Ran:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "holdpay.cli.daemon", "--config", str(shop.world.config), *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    ran = Ran(process.returncode, out.decode(), err.decode())
    assert "Traceback" not in ran.err, ran.err
    _assert_no_secrets(shop, ran.out + ran.err)
    return ran


def _assert_no_secrets(shop: Shop, printed: str) -> None:
    """No whole hash, preimage, provider order id or invoice, no code and no number of any order of this sandbox."""
    assert not re.search(r"[0-9a-f]{64}|lnsb\w{20}", printed)
    for order in shop.world.provider.orders.values():
        for secret in (order.number, order.code):
            assert not secret or secret not in printed


async def check(shop: Shop, *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code, and the findings by their codes. Alarms are left out: the clocks of these tests run fast."""
    ran = await holdpayd(shop, "check", "--json", *arguments)
    report = json.loads(ran.out)
    assert report["exit_code"] == ran.code
    return ran.code, {finding["code"]: finding for finding in report["findings"] if finding["code"] != "alarm"}


async def check_at_rest(shop: Shop, wanted: str) -> tuple[int, dict[str, dict[str, str]]]:
    """As ``check``, of an order that goes on meanwhile: what changes during the look is judged by the next one."""
    async with asyncio.timeout(60):
        while wanted not in (found := await check(shop))[1]:
            await asyncio.sleep(0.2)
    return found


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as shop:
        yield shop


def database(shop: Shop) -> Path:
    return shop.world.directory / "state" / "holdpay.db"


def lose_database(shop: Shop) -> None:
    for file in database(shop).parent.glob("holdpay.db*"):
        file.unlink()


def state(shop: Shop) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in database(shop).parent.iterdir()}


async def until_unpaid_for_sure(failed: Seen) -> None:
    """A failure that recover reads later is one of an open order until ``close_unpaid_after_s`` have passed."""
    while time.time() * 1000 <= failed.closed_at_ms + CLOSE_UNPAID_AFTER_S * 1000:
        await asyncio.sleep(0.05)


async def two_orders(shop: Shop) -> tuple[Seen, Seen]:
    """As in the demo: one gets its code, one is refunded."""
    first = await shop.buy()
    shop.next_order(no_code=True, gives_up_after_s=60.0)
    return first, await shop.buy(country="germany")


# --- check ------------------------------------------------------------------------------------------------------------


async def test_a_macaroon_that_may_not_list_is_told_with_what_stays_unseen(shop: Shop) -> None:
    await shop.held()
    narrow = shop.world.lnd.bake("narrow.macaroon", ["/lnrpc.Lightning/GetInfo", "/routerrpc.Router/TrackPaymentV2"])
    config = shop.daemon.config
    config.write_text(re.sub(r"(?m)^macaroon = .*$", f'macaroon = "{narrow}"', config.read_text()))
    ran = await holdpayd(shop, "check")
    assert ran.code == 3
    assert "does not allow ListChannels, so an HTLC that lnd lost stays unseen" in ran.out
    assert (
        "does not allow ListPayments, so payments that the journal misses, and HTLCs that lnd lost, stay unseen"
        in ran.out
    )
    assert "payments compared" in ran.out
    assert "does not allow DecodePayReq, SendPaymentV2 and TrackPayments, so no order can be paid" in ran.out
    assert f"`{BAKE}`" in ran.out


async def test_all_is_well_after_a_code_and_a_refund_beside_the_running_daemon_and_after_it(shop: Shop) -> None:
    await two_orders(shop)
    ran = await holdpayd(shop, "check")
    assert ran.code == 0, ran.out
    assert ": 2 orders, " in ran.out
    assert ": 2 payments compared" in ran.out
    assert ran.out.splitlines()[0].startswith("All is well")
    await shop.daemon.stop()
    assert await check(shop) == (0, {})
    assert await check(shop, "--offline") == (0, {})


async def test_a_held_order_is_unresolved_and_the_operator_is_told_what_to_do(shop: Shop) -> None:
    order = await shop.held()
    ran = await holdpayd(shop, "check")
    assert ran.code == 3
    assert f"UNRESOLVED order {order.id} (payment {order.payment_hash[:8]}…): " in ran.out
    assert "held, waiting for the SMS" in ran.out
    assert "or at block height" in ran.out
    assert "    do: Have the SMS sent to +1" in ran.out
    assert "Nothing is wrong. Orders are under way." in ran.out

    await shop.daemon.kill()
    code, found = await check(shop)
    assert (code, set(found)) == (3, {"open", "unwatched"})
    assert "systemctl start holdpayd" in found["unwatched"]["todo"]


async def test_lnd_that_is_ahead_of_a_dead_daemon_is_told(shop: Shop) -> None:
    order = await shop.held()
    await shop.daemon.kill()
    await shop.deliver(order)
    async with client(shop.world.lnd.target, shop.world.lnd.tls_cert, shop.world.lnd.macaroon_hex) as lnd:
        await lnd.track(bytes.fromhex(order.payment_hash)).end()
    code, found = await check(shop)
    assert (code, set(found)) == (3, {"open", "unwatched", "lnd-ahead"})
    assert "lnd says settled" in found["lnd-ahead"]["text"]


async def test_lnd_that_is_away_leaves_the_rest_of_the_check(shop: Shop) -> None:
    await shop.buy()
    await shop.play("lnd-stopped")
    code, found = await check(shop)
    assert (code, set(found)) == (3, {"lnd-unusable"})
    assert await check(shop, "--offline") == (0, {})


async def test_another_node_is_not_asked_about_a_held_order(shop: Shop) -> None:
    order = await shop.held()
    await shop.play("other-node")
    code, found = await check(shop)
    assert code == 4
    assert found["other-node"]["order_id"] == order.id
    assert "lnd-record-lost" not in found


async def test_a_payment_record_that_was_deleted_in_lnd_is_only_noted(shop: Shop) -> None:
    order = await shop.buy()
    shop.world.lnd.delete_payment(bytes.fromhex(order.payment_hash))
    code, found = await check(shop)
    assert (code, set(found)) == (0, {"lnd-record-deleted"})


async def test_a_payment_to_the_provider_that_is_not_ours_is_told(shop: Shop) -> None:
    await shop.buy()
    await pay_by_hand(shop, b"h" * 32)
    code, found = await check(shop)
    assert (code, set(found)) == (3, {"stranger"})
    assert "3,000 sat" in found["stranger"]["text"]


async def pay_by_hand(shop: Shop, payment_hash: bytes) -> None:
    """As the operator would with lncli: a hold invoice of the provider's node that holdpayd knows nothing of."""
    payreq = await shop.world.payee.add(
        payment_hash=payment_hash, value_sat=3000, memo="sms4sats payment Germany twitter", expiry_s=600, cltv_delta=40
    )
    async with client(shop.world.lnd.target, shop.world.lnd.tls_cert, shop.world.lnd.macaroon_hex) as lnd:
        await lnd.send(payreq).out()


# --- planted ---


async def test_a_spoilt_database_is_found_and_the_operator_is_told_where_to_read_on(shop: Shop) -> None:
    await two_orders(shop)
    await shop.daemon.stop()
    healthy = database(shop).read_bytes()

    spoil(
        database(shop),
        "UPDATE orders SET quote_sat = 1, reason = 'mine' WHERE \"end\" = 'fulfilled'",
        "UPDATE items SET text = '000000' WHERE kind = 'code'",
    )
    code, found = await check(shop)
    assert (code, set(found)) == (4, {"tables-differ", "items-differ"})
    assert "quote_sat, reason" in found["tables-differ"]["text"]
    assert "docs/operations.md" in found["tables-differ"]["todo"]

    database(shop).write_bytes(healthy)
    with contextlib.closing(sqlite3.connect(database(shop), isolation_level=None)) as conn:
        conn.execute("DROP TRIGGER journal_is_kept")
        conn.execute("DELETE FROM journal WHERE cursor = 5")
    code, found = await check(shop)
    assert code == 4
    assert {"database-damaged", "journal-gap", "journal-broken", "tables-differ"} >= set(found) >= {"journal-gap"}
    assert found["journal-gap"]["text"] == "Row 5 of the journal is missing."

    database(shop).write_bytes(healthy.replace(b"refunded", b"rdfunded", 1))
    assert (await check(shop, "--offline"))[0] == 4

    pages = bytearray(healthy)
    pages[4096:4104] = b"\xff" * 8
    database(shop).write_bytes(pages)
    code, found = await check(shop, "--offline")
    assert code == 4
    assert "database-damaged" in found


async def test_money_out_on_a_request_that_the_journal_calls_failed_is_an_error(shop: Shop) -> None:
    """As if the journal had been restored from a copy of another day."""
    order = await shop.held()
    await shop.daemon.stop()
    spoil(database(shop), "UPDATE payments SET htlc = 'failed'")
    code, found = await check(shop)
    assert code == 4
    assert found["money-out"]["order_id"] == order.id
    assert "Stop holdpayd" in found["tables-differ"]["todo"]
    assert not any("tart it" in finding["todo"] for finding in found.values())


async def test_codes_of_orders_that_ended_long_ago_are_erased_and_the_books_stay_sound(shop: Shop) -> None:
    order = await shop.buy()
    young = await shop.buy()
    await shop.daemon.stop()
    a_month_ms = 31 * 24 * 3600 * 1000
    path = "$.closed_at_ms"
    spoil(
        database(shop),
        f"UPDATE orders SET closed_at_ms = closed_at_ms - {a_month_ms} WHERE id = '{order.id}'",
        f"UPDATE requests SET closed_at_ms = closed_at_ms - {a_month_ms}"
        f" WHERE id = (SELECT request_id FROM orders WHERE id = '{order.id}')",
        f"UPDATE journal SET change = json_set(change, '{path}', json_extract(change, '{path}') - {a_month_ms})"
        f" WHERE order_id = '{order.id}' AND json_extract(change, '{path}') IS NOT NULL",
    )
    await shop.daemon.start_ready()
    async with asyncio.timeout(60):
        while not (erased := await shop.daemon.get(order.id)).has("erased_at_ms"):
            await asyncio.sleep(0.05)
    assert not erased.code
    assert not erased.number
    for field in ("id", "end", "preimage", "payment_hash", "spent_msat", "what"):
        assert getattr(erased, field) == getattr(order, field), field
    assert (await shop.daemon.get(young.id)).code == young.code
    told = await shop.daemon.explain(order.id)
    assert not any(secret in str(told) for secret in (order.code, order.number, "None"))
    assert await check(shop) == (0, {})


# --- recover ----------------------------------------------------------------------------------------------------------


async def test_a_database_lost_while_a_request_is_held_is_rebuilt_and_its_code_arrives_with_one_payment(
    shop: Shop,
) -> None:
    order = await shop.held()
    await shop.daemon.kill()
    lose_database(shop)
    code, found = await check(shop)
    assert (code, set(found)) == (4, {"no-database", "stranger"})
    assert "holdpayd recover" in found["stranger"]["todo"]

    before = state(shop)
    shown = await holdpayd(shop, "recover")
    assert shown.code == 0, shown.err
    name = f"rec{order.payment_hash[:8]}"
    assert re.search(rf"{name} .*in_flight .*number .*open: held, waiting for the SMS", shown.out)
    assert "Nothing was written." in shown.out
    assert state(shop) == before

    written = await holdpayd(shop, "recover", "--write")
    assert written.code == 0, written.err
    assert {file for file in state(shop) if "holdpay.db" in file} == {"holdpay.db", "holdpay.db.newest"}
    code, found = await check(shop)
    assert (code, set(found)) == (3, {"open", "unwatched"})

    sends = shop.sends
    await shop.daemon.start_ready()
    await shop.deliver(order)
    done = await shop.daemon.until(name, is_over)
    assert pair(done) == ("DELIVERED", "SETTLED")
    assert done.number == order.number
    assert done.code == "246810"
    assert done.what == "an activation code for OpenAI in USA"
    assert (shop.books.htlcs(order.payment_hash), shop.books.settled(order.payment_hash)) == (1, 1)
    assert shop.sends == sends
    await shop.audit()
    assert await check(shop) == (0, {})
    explained = await shop.daemon.explain(name)
    assert any("recovered from lnd's payments" in line.text for line in explained.history)


async def test_a_refund_after_the_recovery_closes_the_order_and_nothing_is_paid_again(shop: Shop) -> None:
    order = await shop.held()
    await shop.daemon.kill()
    lose_database(shop)
    assert (await holdpayd(shop, "recover", "--write")).code == 0
    sends = shop.sends
    await shop.daemon.start_ready()
    await shop.give_back(order)
    done = await shop.daemon.until(f"rec{order.payment_hash[:8]}", is_over)
    assert enum_name(done, "end") == "REFUNDED"
    assert (shop.sends, shop.books.gone_msat) == (sends, 0)
    assert await check(shop) == (0, {})


async def test_orders_that_have_ended_are_rebuilt_closed_and_their_hashes_stay_known(shop: Shop) -> None:
    got, refunded = await two_orders(shop)
    await shop.play("routing-failures=100")
    failed = await shop.buy()
    assert enum_name(failed, "end") == "PAYMENT_FAILED"
    await shop.daemon.stop()
    lose_database(shop)
    await until_unpaid_for_sure(failed)

    written = await holdpayd(shop, "recover", "--write")
    assert written.code == 0, written.err
    assert await check(shop) == (0, {})

    await shop.daemon.start_ready()
    for before, end in ((got, "FULFILLED"), (refunded, "REFUNDED"), (failed, "PAYMENT_FAILED")):
        after = await shop.daemon.get(f"rec{before.payment_hash[:8]}")
        assert enum_name(after, "end") == end
        for field in ("code", "preimage", "amount_msat", "spent_msat", "what"):
            assert getattr(after, field) == getattr(before, field), field
    await shop.audit()


async def test_a_provider_that_is_away_is_asked_after_the_recovery(shop: Shop) -> None:
    order = await shop.held()
    await shop.daemon.kill()
    lose_database(shop)
    await shop.play("http-500=1000")
    written = await holdpayd(shop, "recover", "--write")
    assert written.code == 3
    assert "sms4sats has a problem of its own" in written.err
    await shop.play("http-500=0")
    await shop.daemon.start_ready()
    await shop.deliver(order)
    done = await shop.daemon.until(f"rec{order.payment_hash[:8]}", is_over)
    assert pair(done) == ("DELIVERED", "SETTLED")


async def test_recover_refuses_beside_a_daemon_and_where_orders_are_recorded(shop: Shop) -> None:
    await shop.buy()
    ran = await holdpayd(shop, "recover", "--write")
    assert ran.code == 75
    assert "uses the state directory" in ran.err
    await shop.daemon.stop()
    before = database(shop).read_bytes()
    ran = await holdpayd(shop, "recover", "--write")
    assert ran.code == 4
    assert "already holds 1 order;" in ran.err
    assert database(shop).read_bytes() == before


async def test_recover_that_finds_nothing_makes_no_database(shop: Shop) -> None:
    await shop.daemon.stop()
    lose_database(shop)
    ran = await holdpayd(shop, "recover", "--write")
    assert ran.code == 0
    assert "no payment to the provider's node" in ran.out
    await shop.play("lnd-stopped")
    ran = await holdpayd(shop, "recover", "--write")
    assert ran.code == 4
    assert "does not answer" in ran.err
    assert not database(shop).exists()


# --- what lnd's own word would never end, and an operator's -----------------------------------------------------------


async def test_a_request_whose_payment_lnd_deleted_ends_after_its_expiry_height(tmp_path: Path) -> None:
    async with open_shop(tmp_path, extra_config=LOOKS_OFTEN) as shop:
        held = await shop.held()
        await shop.daemon.stop()
        await shop.give_back(held)
        await until_ended(shop, held)
        await shop.play("delete-payments")
        await shop.daemon.start_ready()
        lost = await shop.daemon.until(held.id, lambda now: now.has("gone_since_ms"))
        assert not lost.terminal
        code, findings = await check_at_rest(shop, "lnd-record-lost")
        assert (code, findings["lnd-record-lost"]["severity"]) == (3, "warning")
        assert f"until block height {held.expiry_height:,}" in findings["open"]["text"]

        refused = await holdpayd_stopped(shop, "resolve", held.id, "--failed", "--why", "I saw it", "--yes")
        assert refused.code == 4
        assert f"until block {held.expiry_height:,}" in refused.err
        await shop.daemon.start_ready()
        await shop.play("blocks=200")
        done = await shop.daemon.until(held.id, is_over)
        assert (enum_name(done, "end"), pair(done)) == ("OUTCOME_UNKNOWN", ("CANCELED", "GONE"))
        assert done.spent_msat == held.locked_msat
        code, findings = await check(shop)
        assert (code, set(findings)) == (3, {"outcome-unknown"})


async def test_an_htlc_that_lnd_never_signed_ends_after_its_expiry_height(tmp_path: Path) -> None:
    async with open_shop(tmp_path, extra_config=LOOKS_OFTEN) as shop:
        await shop.play("unsigned=1")
        order = await shop.daemon.until((await shop.daemon.order()).id, lambda now: pair(now)[1] == "IN_FLIGHT")
        await shop.play("lnd-killed", "lnd-started")
        await shop.play("blocks=200")
        done = await shop.daemon.until(order.id, is_over)
        assert (enum_name(done, "end"), pair(done), done.spent_msat) == ("PAYMENT_FAILED", ("ABANDONED", "FAILED"), 0)
        code, findings = await check(shop)
        assert (code, set(findings)) == (0, {"never-ends-in-lnd"})


async def test_an_operator_ends_a_request_of_a_node_that_is_retired_and_the_next_one_is_bought(shop: Shop) -> None:
    held = await shop.held()
    await shop.play("other-node")
    refused = await holdpayd_stopped(shop, "resolve", held.id, "--written-off", "--why", "node sold", "--yes")
    assert refused.code == 4
    assert "--node-retired" in refused.err

    ended = await holdpayd(
        shop, "resolve", held.id, "--written-off", "--why", "node sold", "--by", "ann", "--node-retired", "--yes"
    )
    assert (ended.code, ended.err) == (0, "")
    await shop.daemon.start_ready()
    done = await shop.daemon.get(held.id)
    assert (enum_name(done, "end"), done.reason) == (
        "OUTCOME_UNKNOWN",
        "ann resolved the payment as written off: node sold",
    )
    assert enum_name(await shop.buy(), "end") == "FULFILLED"
    _, findings = await check(shop)
    assert set(findings) - {"other-node"} == {"outcome-unknown"}


async def test_nothing_is_resolved_while_lnd_can_say_it_or_holdpayd_runs(shop: Shop) -> None:
    held = await shop.held()
    arguments = ("resolve", held.id, "--failed", "--why", "I think so", "--yes")
    assert (await holdpayd(shop, *arguments)).code == 75
    carried = await holdpayd_stopped(shop, *arguments)
    assert carried.code == 4
    assert "A channel carries the HTLC" in carried.err
    unfit = await holdpayd(shop, "resolve", held.id, "--settled", "00" * 32, "--why", "so it says", "--yes")
    assert (unfit.code, "does not fit" in unfit.err) == (4, True)
    await shop.give_back(held)
    await until_ended(shop, held)
    assert "lnd says how it ended: the payment is failed" in (await holdpayd(shop, *arguments)).err
    await shop.play("lnd-stopped")
    assert "lnd cannot be asked" in (await holdpayd(shop, *arguments)).err
    await shop.play("lnd-started")
    await shop.daemon.start_ready()
    assert enum_name(await shop.daemon.until(held.id, is_over), "end") == "REFUNDED"


async def holdpayd_stopped(shop: Shop, *arguments: str) -> Ran:
    await shop.daemon.stop()
    return await holdpayd(shop, *arguments)


async def until_ended(shop: Shop, order: Seen) -> None:
    """Until lnd itself knows how the payment ended."""
    while not shop.world.lnd.node.db.fetch(bytes.fromhex(order.payment_hash)).is_terminal:
        await asyncio.sleep(0.02)
