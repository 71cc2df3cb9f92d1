"""Each way an order can go, on the sandbox with the real daemon: the pair, the money, the books of lnd, the words."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from holdpay.sandbox.clock import WallClock
from holdpay.sandbox.payee import Payee
from holdpay.sandbox.sms4sats_knobs import Knobs
from tests.e2e.shop import FEE_MSAT, PRICE_MSAT, QUICK, Shop, open_shop
from tests.harness import Seen, enum_name, is_held, is_over, pair

pytestmark = pytest.mark.asyncio(loop_scope="module")

MOST_POLLS = 25
"""Of an order whose code comes after 40 s of the provider's time."""
MOST_POLLS_OF_ANY = 60
"""Of one that waits for minutes of it."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mall(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path_factory.mktemp("mall")) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def shop(mall: Shop) -> AsyncIterator[Shop]:
    """The shared one, as new but for its past orders; after each test its books and its manners are checked."""
    polls, placed = mall.polls, len(mall.world.provider.orders)
    yield mall
    fresh = Knobs()
    for name in Knobs.__slots__:
        setattr(mall.world.provider.knobs, name, getattr(fresh, name))
    await mall.audit()
    assert mall.polls - polls <= MOST_POLLS_OF_ANY * (len(mall.world.provider.orders) - placed)


def ending(order: Seen) -> tuple[str, tuple[str, str]]:
    assert order.terminal
    assert order.locked_msat == 0
    assert not order.alarms
    return enum_name(order, "end"), pair(order)


async def story(shop: Shop, order: Seen) -> str:
    """All that `explain` says."""
    told = await shop.daemon.explain(order.id)
    lines = [told.summary, told.money, told.next, *(entry.text for entry in told.history)]
    assert all(line.strip() for line in lines)
    assert not any(word in line for line in lines for word in ("None", "{", "?"))
    return "\n".join(lines)


def in_order(text: str, *words: str) -> bool:
    """Whether these come one after the other."""
    position = 0
    for word in words:
        found = text.find(word, position)
        if found < 0:
            return False
        position = found + len(word)
    return True


# --- the provider ---------------------------------------------------------------------------------------------------


async def test_a_code_is_received_and_what_it_costs_is_told(shop: Shop) -> None:
    waiting = await shop.held()
    assert pair(waiting) == ("NUMBER_ASSIGNED", "IN_FLIGHT")
    assert waiting.number.isdecimal()
    assert not waiting.code
    assert waiting.locked_msat == PRICE_MSAT + FEE_MSAT
    told = await shop.daemon.explain(waiting.id)
    assert "waiting for the SMS" in told.summary
    assert f"block height {waiting.expiry_height}" in told.money
    assert f"+{waiting.number}" in told.next

    await shop.deliver(waiting)
    done = await shop.daemon.until(waiting.id, is_over)

    assert ending(done) == ("FULFILLED", ("DELIVERED", "SETTLED"))
    at_provider = shop.world.provider.orders[done.payment_hash]
    assert (done.number, done.code) == (at_provider.number, str(int(at_provider.code)))
    assert (done.spent_msat, done.fee_msat, done.dispatches) == (PRICE_MSAT + FEE_MSAT, FEE_MSAT, 1)
    assert hashlib.sha256(bytes.fromhex(done.preimage)).hexdigest() == done.payment_hash
    text = await story(shop, done)
    assert "3,001.003 sat were spent: 3,000 sat for the order and 1.003 sat routing fee" in text
    assert in_order(
        text, "you asked", "took the order", "was checked", "handed to lnd", "waiting for the SMS on +", "code received"
    )


async def test_a_request_is_asked_about_a_bounded_number_of_times(shop: Shop) -> None:
    polls = shop.polls
    assert ending(await shop.buy()) == ("FULFILLED", ("DELIVERED", "SETTLED"))
    assert shop.polls - polls <= MOST_POLLS


async def test_a_request_that_finds_no_number_is_refunded(shop: Shop) -> None:
    shop.next_order(no_number=True, gives_up_after_s=30)

    done = await shop.buy()

    assert ending(done) == ("REFUNDED", ("CANCELED", "FAILED"))
    assert (done.spent_msat, bool(done.number), done.has("preimage")) == (0, False, False)
    assert done.reason.startswith("No available number")
    text = await story(shop, done)
    assert "the money came back" in text
    assert "No available number" in text
    assert "Nothing was spent" in text


async def test_a_request_whose_sms_never_comes_is_refunded(shop: Shop) -> None:
    shop.next_order(no_code=True, gives_up_after_s=40)

    done = await shop.buy()

    assert ending(done) == ("REFUNDED", ("CANCELED", "FAILED"))
    assert bool(done.number)
    assert not done.code
    assert "The code did not come, and the money came back" in await story(shop, done)


async def test_a_code_that_comes_before_the_settlement_is_handed_over_at_once(shop: Shop) -> None:
    order = await shop.held()
    shop.show_code(order)

    handed_over = await shop.daemon.until(order.id, lambda o: bool(o.code))

    assert pair(handed_over) == ("DELIVERED", "IN_FLIGHT")
    assert not handed_over.terminal
    assert handed_over.locked_msat == PRICE_MSAT + FEE_MSAT
    told = await shop.daemon.explain(order.id)
    assert "settlement is coming" in told.summary
    assert "settles" in told.next
    await shop.settle(order)
    done = await shop.daemon.until(order.id, is_over)
    assert ending(done) == ("FULFILLED", ("DELIVERED", "SETTLED"))
    assert done.spent_msat == PRICE_MSAT + FEE_MSAT


async def test_a_settlement_that_comes_before_the_code_is_no_reason_to_worry_yet(shop: Shop) -> None:
    order = await shop.held()
    await shop.settle(order)

    charged = await shop.daemon.until(order.id, lambda o: pair(o) == ("NUMBER_ASSIGNED", "SETTLED"))

    assert not charged.alarms
    assert charged.has("preimage")
    told = await shop.daemon.explain(order.id)
    assert "the code is due" in told.summary
    assert "asked for the code" in told.next
    assert f"orders show {order.id}" in told.next
    shop.show_code(order)
    done = await shop.daemon.until(order.id, is_over)
    assert ending(done) == ("FULFILLED", ("DELIVERED", "SETTLED"))


async def test_a_charge_without_a_code_is_an_alarm_and_ends_with_the_proof(tmp_path: Path) -> None:
    impatient = QUICK.replace("settled_grace_s = 30", "settled_grace_s = 3")
    async with open_shop(tmp_path, extra_config=impatient) as shop:
        order = await shop.held()
        await shop.settle(order)
        done = await shop.daemon.until(order.id, is_over)

        # Alarmed before its end; by now the alarm is over as well.
        assert f"order {order.id}: charged, and the code did not come; the preimage is the proof" in shop.daemon.log()
        assert ending(done) == ("CHARGED_UNFULFILLED", ("ABANDONED", "SETTLED"))
        assert done.spent_msat == PRICE_MSAT + FEE_MSAT
        text = await story(shop, done)
        assert in_order(text, "It was charged", "support with the preimage", f"orders show {order.id}")
        await shop.audit()


async def test_a_cancel_whose_money_comes_late_stays_open_until_it_is_back(shop: Shop) -> None:
    order = await shop.held(has_number=False)
    shop.call_over(order)

    canceled = await shop.daemon.until(order.id, lambda o: enum_name(o, "state") == "CANCELED")

    assert pair(canceled) == ("CANCELED", "IN_FLIGHT")
    assert not canceled.terminal
    assert canceled.locked_msat == PRICE_MSAT + FEE_MSAT
    told = await shop.daemon.explain(order.id)
    assert "on its way back" in told.summary
    assert "locked" in told.money
    await shop.release(order)
    done = await shop.daemon.until(order.id, is_over)
    assert ending(done) == ("REFUNDED", ("CANCELED", "FAILED"))


async def test_money_that_is_back_before_the_provider_says_so_is_never_sent_again(shop: Shop) -> None:
    order = await shop.held(has_number=False)
    await shop.release(order)

    back = await shop.daemon.until(order.id, lambda o: enum_name(o, "htlc") == "FAILED")

    assert pair(back) == ("PAID", "FAILED")
    assert not back.terminal
    assert back.locked_msat == 0
    assert "Nothing is paid again" in (await shop.daemon.explain(order.id)).next
    shop.call_over(order)
    done = await shop.daemon.until(order.id, is_over)
    assert ending(done) == ("REFUNDED", ("CANCELED", "FAILED"))
    assert (done.dispatches, shop.books.htlcs(done.payment_hash)) == (1, 1)


async def test_an_invoice_that_asks_more_than_the_quote_is_refused_and_nothing_is_paid(shop: Shop) -> None:
    sends = shop.sends
    shop.next_order(overprice_percent=10)

    done = await shop.buy()

    assert ending(done) == ("INVOICE_REJECTED", ("ABANDONED", "NONE"))
    assert (done.spent_msat, done.dispatches, shop.sends) == (0, 0, sends)
    assert "300 sat" in done.reason
    text = await story(shop, done)
    why = "Nothing was paid. Why: the hold invoice was refused"
    assert in_order(text, why, "by the quote of 3,000 sat + 2 %", "No money was", "the new quote counts")


async def test_a_request_id_that_is_not_the_payment_hash_is_noted_and_paid(shop: Shop) -> None:
    shop.next_order(other_order_id=True)

    done = await shop.buy()

    assert ending(done) == ("FULFILLED", ("DELIVERED", "SETTLED"))
    assert done.payment_hash not in shop.world.provider.orders
    assert "differs from the provider's order id" in await story(shop, done)


async def test_a_provider_that_changes_its_mind_at_every_reply_is_seen_through(shop: Shop) -> None:
    shop.next_order(flips=True)

    done = await shop.buy()

    assert ending(done) == ("FULFILLED", ("DELIVERED", "SETTLED"))
    assert (done.dispatches, shop.books.htlcs(done.payment_hash)) == (1, 1)
    text = await story(shop, done)
    assert "noticed: the provider says unpaid of an order that it had called number assigned" in text


async def test_a_provider_that_refuses_the_order_is_quoted(shop: Shop) -> None:
    sends = shop.sends
    await shop.play("refuse-orders=1")

    done = await shop.buy()

    assert ending(done) == ("PROVIDER_REFUSED", ("ABANDONED", "NONE"))
    assert shop.sends == sends
    assert "no numbers for this service" in done.reason
    assert in_order(await story(shop, done), "nothing was paid. Why:", "no numbers for this service", "No money was")


async def test_a_provider_that_cannot_take_orders_for_a_moment_is_asked_again(shop: Shop) -> None:
    shop.world.provider.knobs.only_path = "/createorder"
    await shop.play("http-500=1")
    order = await shop.daemon.order()
    async for update in shop.daemon.updates(order.id):
        if update.event == "placing_failed":
            break
    assert not update.request.terminal

    # The second try comes after 5 s: too long for a test, and a cancel ends it now.
    await shop.daemon.cancel(order.id)
    done = await shop.daemon.until(order.id, is_over)

    assert ending(done) == ("CANCELED_UNPAID", ("ABANDONED", "NONE"))
    assert "did not take the order" in await story(shop, done)


async def test_orders_end_well_while_the_provider_answers_429_and_500_and_garbage(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        knobs = shop.world.provider.knobs
        knobs.only_path = "/orderstatus"
        await shop.play("http-429=1", "http-500=1", "garbage=1")
        orders = [await shop.daemon.order() for _ in range(3)]

        for order in orders:
            done = await shop.daemon.until(order.id, is_over)
            assert ending(done) == ("FULFILLED", ("DELIVERED", "SETTLED"))
            assert done.dispatches == 1
        assert (knobs.http_429, knobs.http_500, knobs.garbage) == (0, 0, 0)
        assert shop.polls <= len(orders) * MOST_POLLS
        await shop.audit()


@pytest.mark.parametrize(("as_numbers", "code"), [(False, "001234"), (True, "1234")])
async def test_leading_zeros_are_kept_in_a_string_and_a_number_is_marked(
    shop: Shop, as_numbers: bool, code: str
) -> None:
    shop.next_order(code="001234", as_numbers=as_numbers, code_after_s=15)

    done = await shop.buy()

    assert (done.code, done.code_may_lack_zeros) == (code, as_numbers)


async def test_no_stock_is_refused_before_anything_is_ordered_unless_forced(shop: Shop) -> None:
    created = shop.world.provider.requests["/createorder"]
    await shop.play("stock=0")
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await shop.daemon.order(country="germany")
    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "no numbers" in (refusal.value.details() or "")
    assert shop.world.provider.requests["/createorder"] == created

    done = await shop.buy(country="germany", force=True)

    assert ending(done) == ("FULFILLED", ("DELIVERED", "SETTLED"))


async def test_a_slow_provider_is_waited_for(shop: Shop) -> None:
    await shop.play("slow=0.25")

    done = await shop.buy(country="france")

    assert ending(done) == ("FULFILLED", ("DELIVERED", "SETTLED"))


# --- the payment ----------------------------------------------------------------------------------------------------


async def test_an_invoice_of_another_payee_is_refused_and_nothing_is_paid(shop: Shop) -> None:
    sends, stranger = shop.sends, Payee(WallClock())
    shop.world.provider._shop._invoices = stranger
    try:
        done = await shop.buy()
    finally:
        shop.world.provider._shop._invoices = shop.world.payee

    assert ending(done) == ("INVOICE_REJECTED", ("ABANDONED", "NONE"))
    assert shop.sends == sends
    text = await story(shop, done)
    assert f"its payee is {await stranger.pubkey()}, not the provider's known node" in text
    assert in_order(text, "Nothing was paid", "No money was", "payee is another one, order nothing")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hurried(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    """Where lnd avoids a failed hop for 3 s: for 180 s of the simulated world."""
    four = QUICK.replace("max_dispatches = 5", "max_dispatches = 4").replace("[0, 1]", "[0, 4]")
    async with open_shop(tmp_path_factory.mktemp("hurried"), pace=60, extra_config=four) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def hurried_shop(hurried: Shop) -> AsyncIterator[Shop]:
    yield hurried
    await hurried.play("payee-online")
    await asyncio.sleep(3)  # until the hop is not avoided any more
    await hurried.audit()


async def test_a_payment_that_fails_on_its_way_is_tried_again_on_the_same_invoice(hurried_shop: Shop) -> None:
    shop = hurried_shop
    await shop.play("routing-failures=2")
    order = await shop.daemon.order()
    failed = await shop.daemon.until(order.id, lambda o: pair(o) == ("AWAITING_PAYMENT", "FAILED"))
    assert failed.locked_msat == 0
    assert (
        failed.reason
        == "an HTLC failed at a hop on its way, and no route worked within the limits for fee and time lock"
    )

    done = await shop.daemon.until(order.id, is_over)

    assert ending(done) == ("FULFILLED", ("DELIVERED", "SETTLED"))
    assert done.dispatches == 4
    assert (shop.books.htlcs(done.payment_hash), shop.books.settled(done.payment_hash)) == (3, 1)
    text = await story(shop, done)
    assert in_order(text, "HTLC failed at a hop", "payment 2 is handed to lnd", "nothing was sent", "code received")


async def test_a_payee_that_is_away_costs_nothing(hurried_shop: Shop) -> None:
    shop = hurried_shop
    placed = shop.world.provider.requests["/createorder"]
    await shop.play("payee-offline")
    order = await shop.daemon.order()
    done = await shop.daemon.until(order.id, is_over)

    assert ending(done) == ("PAYMENT_FAILED", ("ABANDONED", "FAILED"))
    assert (done.spent_msat, done.dispatches) == (0, 4)
    assert shop.world.provider.requests["/createorder"] == placed + 1
    assert in_order(await story(shop, done), "No payment got through", "Nothing was spent", "holdpay status")


async def test_a_cancel_while_the_money_is_back_ends_the_order_without_another_payment(tmp_path: Path) -> None:
    patient = QUICK.replace("pay_within_s = 60", "pay_within_s = 3600").replace("[0, 1]", "[0, 600]")
    async with open_shop(tmp_path, extra_config=patient) as shop:
        await shop.play("payee-offline")
        order = await shop.daemon.order()
        await shop.daemon.until(order.id, lambda o: pair(o)[1] == "FAILED" and o.dispatches == 2)
        told = await shop.daemon.explain(order.id)
        assert "Nothing was spent" in told.money
        assert "tried again" in told.next

        await shop.daemon.cancel(order.id)
        done = await shop.daemon.until(order.id, is_over)

        assert ending(done) == ("CANCELED_UNPAID", ("ABANDONED", "FAILED"))
        assert done.dispatches == 2
        await shop.audit()


async def test_a_payment_that_is_stuck_on_its_way_is_an_alarm_and_nothing_is_sent_again(shop: Shop) -> None:
    network, clock = shop.world.lnd.network, _Late()
    usual, network._clock = network._clock, clock
    shop.world.lnd.set_knobs(forward_delay_s=clock.DELAY_S)
    order = await shop.daemon.order()
    await shop.daemon.until(order.id, lambda o: pair(o) == ("AWAITING_PAYMENT", "IN_FLIGHT"))
    async with asyncio.timeout(60):
        while not (alarms := (await shop.daemon.status()).alarms):
            await asyncio.sleep(0.05)
    assert "does not call it paid" in alarms[0]
    assert "comes back by itself" in (await shop.daemon.explain(order.id)).next

    clock.arrive.set()
    done = await shop.daemon.until(order.id, is_over)
    network._clock = usual
    shop.world.lnd.set_knobs(forward_delay_s=0.003)

    assert ending(done) == ("FULFILLED", ("DELIVERED", "SETTLED"))
    assert (done.dispatches, shop.books.htlcs(done.payment_hash)) == (1, 1)


# --- crashes and outages --------------------------------------------------------------------------------------------


async def test_a_daemon_that_is_killed_while_held_goes_on_and_pays_once(shop: Shop) -> None:
    shop.next_order(code_after_s=250)
    order = await shop.daemon.order()
    await shop.daemon.until(order.id, is_held)

    await shop.daemon.restart()
    done = await shop.daemon.until(order.id, is_over)

    assert ending(done) == ("FULFILLED", ("DELIVERED", "SETTLED"))
    assert (done.dispatches, shop.books.htlcs(done.payment_hash)) == (1, 1)


class _Late(WallClock):
    """Payments reach lnd when ``arrive`` is set, and not before."""

    DELAY_S = 3600.0

    def __init__(self) -> None:
        super().__init__()
        self.arrive = asyncio.Event()

    async def sleep_s(self, seconds: float) -> None:
        await (self.arrive.wait() if seconds == self.DELAY_S else super().sleep_s(seconds))


@pytest_asyncio.fixture(loop_scope="module", params=[False, True], ids=["before its absence is proven", "after that"])
async def credulous(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Shop, bool]]:
    """Whose daemon believes after a second that a payment did not arrive, or only after ten."""
    config = f"[payment]\nprove_absent_s = {1 if request.param else 10}\nconfirm_unpaid_s = 0\n"
    async with open_shop(tmp_path, extra_config=config) as opened:
        yield opened, request.param


async def test_a_send_that_arrives_after_the_daemon_was_killed_is_never_paid_twice(
    credulous: tuple[Shop, bool],
) -> None:
    """The daemon dies, comes back, and lnd knows nothing of the payment yet: it is still on its way."""
    shop, is_sent_again = credulous
    clock = shop.world.lnd._served.clock = _Late()
    shop.world.lnd.set_knobs(send_delay_s=clock.DELAY_S)
    order = await shop.daemon.order()
    await shop.daemon.until(order.id, lambda o: enum_name(o, "htlc") == "DISPATCHING")
    await shop.daemon.restart()

    async for update in shop.daemon.updates(order.id):
        if update.event == "payment_not_found":
            break
    assert enum_name(Seen(update.request), "htlc") == "UNKNOWN"
    assert Seen(update.request).locked_msat > PRICE_MSAT
    if is_sent_again:  # the proof was too quick for this world: the payment arrives all the same
        await shop.daemon.until(order.id, lambda o: o.dispatches == 2)
    else:
        assert "only lnd can say" in (await shop.daemon.explain(order.id)).money
    clock.arrive.set()
    done = await shop.daemon.until(order.id, is_over)

    assert ending(done) == ("FULFILLED", ("DELIVERED", "SETTLED"))
    assert done.dispatches == (2 if is_sent_again else 1)
    assert (shop.books.htlcs(done.payment_hash), shop.books.settled(done.payment_hash)) == (1, 1)
    assert "lnd does not know the payment" in await story(shop, done)
    await shop.audit()


OUTAGES = {
    "locked": (["lnd-locked"], ["lnd-unlocked"], "locked", "lncli unlock"),
    "stopped": (["lnd-stopped"], ["lnd-started"], "unreachable", "See that it runs"),
    "killed": (["lnd-killed"], ["lnd-started"], "unreachable", "See that it runs"),
}


@pytest.mark.parametrize("name", OUTAGES)
async def test_lnd_is_away_while_one_order_is_settled_and_one_refunded(tmp_path: Path, name: str) -> None:
    leave, come_back, state, remedy = OUTAGES[name]
    async with open_shop(tmp_path) as shop:
        settled, refunded = await shop.held(), await shop.held(has_number=False)

        await shop.play(*leave)
        async with asyncio.timeout(60):
            while (status := await shop.daemon.status()).lnd.state != state:
                await asyncio.sleep(0.05)
        assert not status.ready
        await shop.deliver(settled)
        await shop.give_back(refunded)
        handed_over = await shop.daemon.until(settled.id, lambda o: bool(o.code))
        canceled = await shop.daemon.until(refunded.id, lambda o: enum_name(o, "state") == "CANCELED")
        for seen in (handed_over, canceled):
            assert not seen.terminal, "money is out as long as lnd has not spoken"
            money = (await shop.daemon.explain(seen.id)).money
            assert in_order(money, "locked in an HTLC", "lnd cannot be asked now", remedy)
        await shop.play(*come_back)
        paid = await shop.daemon.until(settled.id, is_over)
        back = await shop.daemon.until(refunded.id, is_over)

        assert ending(paid) == ("FULFILLED", ("DELIVERED", "SETTLED"))
        assert ending(back) == ("REFUNDED", ("CANCELED", "FAILED"))
        assert [(order.dispatches, shop.books.htlcs(order.payment_hash)) for order in (paid, back)] == [(1, 1)] * 2
        await shop.audit()


async def test_lnd_comes_back_with_a_new_certificate_while_held(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        order = await shop.held()
        before = shop.world.lnd.tls_cert.read_bytes()

        await shop.play("new-certificate")
        assert shop.world.lnd.tls_cert.read_bytes() != before
        await shop.deliver(order)
        done = await shop.daemon.until(order.id, is_over)

        assert ending(done) == ("FULFILLED", ("DELIVERED", "SETTLED"))
        assert done.dispatches == 1
        await shop.audit()


async def test_another_node_at_lnds_address_is_neither_asked_nor_paid_from(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        lnd = shop.world.lnd
        order = await shop.held()

        await lnd.kill()
        alice = lnd.replace_node()
        await lnd.start()
        async with asyncio.timeout(60):
            while (status := await shop.daemon.status()).lnd.state != "wrong-node":
                await asyncio.sleep(0.05)
        assert not status.ready
        assert alice.pubkey[:16] in status.lnd.detail
        await shop.deliver(order)
        handed_over = await shop.daemon.until(order.id, lambda o: bool(o.code))
        assert not handed_over.terminal
        assert "Point lnd.address at that node again" in (await shop.daemon.explain(order.id)).money
        assert lnd.node.db.all() == []

        await lnd.kill()
        lnd._served.node = alice
        await lnd.start()
        done = await shop.daemon.until(order.id, is_over)

        assert ending(done) == ("FULFILLED", ("DELIVERED", "SETTLED"))
        assert done.dispatches == 1
        await shop.audit()
