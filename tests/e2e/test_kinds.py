"""Each kind of order, from the command line through the real daemon to the simulated lnd and provider, and its end."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli.exit_codes import ExitCode
from tests.e2e.shop import FEE_MSAT, FOR_EVER_S, PACE, Shop, open_account_shop, open_shop
from tests.harness import Seen, enum_name, fresh_key, is_held, is_over, pair, run_cli

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHONE, ADDRESS, TEXT = "+12025550123", "buyer@example.org", "see you at noon"
SEND_MSAT, RENT_MSAT = 1_000_000, 4_815_000
"""What the simulated provider asks for a message, and for a number of the United Kingdom."""
PATIENCE_S = 180
LATER_S = 5 * PACE
"""Of the provider's clock: so long a message is sent and not delivered yet, and a busy daemon sees it."""

SMS = pb.SubmitRequest(sms=pb.SmsSpec(phone=PHONE, message=TEXT))
EMAIL = pb.SubmitRequest(email=pb.EmailSpec(address=ADDRESS, message=TEXT))
RENTAL = pb.SubmitRequest(rental=pb.RentalSpec(country="united kingdom"))
FUND = pb.SubmitRequest(fund=pb.FundSpec(amount_sat=5000))
CODE = pb.SubmitRequest(code=pb.CodeSpec(countries=["usa"], service="openai"))
SEND = {"sms": ("sms", "send", PHONE), "email": ("email", "send", ADDRESS)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with open_account_shop(tmp_path_factory.mktemp("kinds")) as opened:
        yield opened


async def submit(shop: Shop, request: pb.SubmitRequest, **fields: Any) -> Seen:
    asked = pb.SubmitRequest(**{"idempotency_key": fresh_key(), **fields})
    asked.MergeFrom(request)
    return await shop.daemon.submit(asked)


async def refusal(shop: Shop, request: pb.SubmitRequest, **fields: Any) -> tuple[grpc.StatusCode, str]:
    """Code and sentence. Fails if the request is taken, or reaches the provider."""
    placed = len(shop.world.provider.orders)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await submit(shop, request, **fields)
    assert len(shop.world.provider.orders) == placed
    return error.value.code(), error.value.details() or ""


async def cli(shop: Shop, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    return await run_cli(shop.world.socket, *arguments, stdin=stdin)


async def newest(shop: Shop) -> Seen:
    return (await shop.daemon.listed(page_size=1))[0]


# --- messages that the provider sends -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SEND)
async def test_a_message_is_done_when_it_was_sent_and_delivered_later(shop: Shop, kind: str) -> None:
    shop.next_order(delivered_after_s=LATER_S)
    code, stdout, stderr = await cli(shop, *SEND[kind], "-", stdin=f"{TEXT}\n")

    assert (code, stdout) == (ExitCode.DONE, "sent\n")
    seen = await newest(shop)
    assert enum_name(seen, "kind") == kind.upper()
    done = await shop.daemon.until(seen.id, is_over)
    assert (enum_name(done, "end"), pair(done)) == ("FULFILLED", ("DELIVERED", "SETTLED"))
    assert done.sendings[-2:] == ["sent", "delivered"]
    assert done.spent_msat == SEND_MSAT + FEE_MSAT - 2
    assert shop.books.settled(done.payment_hash) == 1
    bought = getattr(done.request, kind)
    assert bought.message == TEXT
    assert TEXT not in stderr
    assert not any(secret in shop.daemon.log() for secret in (TEXT, PHONE, ADDRESS))
    told = await shop.daemon.explain(done.id)
    assert "code" not in told.summary + told.money + told.next


@pytest.mark.parametrize("kind", SEND)
async def test_a_message_that_fails_is_refunded(shop: Shop, kind: str) -> None:
    shop.next_order(fails_instead_of="sent")
    code, stdout, stderr = await cli(shop, *SEND[kind], TEXT)

    assert (code, stdout) == (ExitCode.NOT_DELIVERED, "")
    done = await newest(shop)
    assert (enum_name(done, "end"), pair(done)) == ("REFUNDED", ("CANCELED", "FAILED"))
    assert shop.books.settled(done.payment_hash) == 0
    assert "the money is back" in stderr


@pytest.mark.parametrize("kind", SEND)
async def test_a_message_that_is_paid_for_cannot_be_canceled_and_the_command_says_so(shop: Shop, kind: str) -> None:
    shop.next_order(sent_after_s=FOR_EVER_S)
    order = await submit(shop, SMS if kind == "sms" else EMAIL)
    held = await shop.daemon.until(order.id, is_held)
    assert not held.may_be_canceled

    code, stdout, _ = await cli(shop, "orders", "cancel", order.id)

    assert code == ExitCode.TOO_LATE
    assert "It cannot be canceled: the provider has no cancel for orders of this kind" in stdout
    assert not (await shop.daemon.get(order.id)).has("cancel_wanted_at_ms")
    assert shop.world.provider.requests["/cancelorder"] == 0
    at_provider = shop.world.provider.sendings[held.payment_hash]
    at_provider.end("")
    await shop.world.payee.cancel(at_provider.payment_hash)
    assert enum_name(await shop.daemon.until(order.id, is_over), "end") == "REFUNDED"


@pytest.mark.parametrize("country", ["usa", "us", "United States", "187"])
async def test_a_national_number_is_understood_with_its_country(shop: Shop, country: str) -> None:
    shop.next_order(delivered_after_s=LATER_S)
    code, stdout, stderr = await cli(shop, "sms", "send", "(202) 555-0123", TEXT, "--country", country)
    assert (code, stdout) == (ExitCode.DONE, "sent\n"), stderr
    assert (await newest(shop)).sms.phone == PHONE


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (pb.SubmitRequest(sms=pb.SmsSpec(phone=PHONE, message="x" * 141)), "141"),
        (pb.SubmitRequest(sms=pb.SmsSpec(phone=PHONE, message="")), "empty"),
        (pb.SubmitRequest(sms=pb.SmsSpec(phone="12", message=TEXT)), "+"),
        (pb.SubmitRequest(email=pb.EmailSpec(address="nobody", message=TEXT)), "address"),
        (pb.SubmitRequest(fund=pb.FundSpec(amount_sat=0)), "account"),
        (pb.SubmitRequest(rental=pb.RentalSpec(country="usaa")), "USA"),
        (pb.SubmitRequest(rental=pb.RentalSpec(country="united kingdom", weeks=7)), "2"),
        (pb.SubmitRequest(), "does not say what it wants"),
        (pb.SubmitRequest(fund=pb.FundSpec(amount_sat=1), prepaid=True), "itself"),
    ],
)
async def test_what_cannot_be_is_refused_and_nothing_is_ordered(shop: Shop, spec: pb.SubmitRequest, words: str) -> None:
    code, text = await refusal(shop, spec)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert words in text
    assert TEXT not in text


# --- rented numbers -------------------------------------------------------------------------------------------------


async def test_a_rental_hands_over_the_number_at_once_and_each_message_once_over_a_crash(shop: Shop) -> None:
    shop.next_order(messages_as="messages", messages_after_s=(50.0, 150.0, 250.0), settle_lag_s=400.0)
    code, stdout, stderr = await cli(shop, "rent", "united kingdom")

    assert code == ExitCode.DONE, stderr
    seen = await newest(shop)
    assert stdout == f"+{seen.number}\n"
    assert f"holdpay rent messages {seen.id} --follow" in stderr
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "holdpay.cli.main", "--socket", str(shop.world.socket)),
        *("rent", "messages", seen.id, "--follow", "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        first = json.loads(await process.stdout.readline())
        await shop.daemon.restart()
        rest = [json.loads(await process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        _, told = await process.communicate()
    assert process.returncode == ExitCode.STILL_OPEN
    assert f"The rental goes on. See what comes with: holdpay rent messages {seen.id} --follow" in told.decode()
    now = await shop.daemon.until(seen.id, lambda o: enum_name(o, "htlc") == "SETTLED" and len(o.messages) == 3)
    assert [item["text"] for item in (first, *rest)] == now.messages
    assert len(now.messages) == len(set(now.messages)) == 3
    assert now.fulfilled
    assert not now.terminal
    assert (now.spent_msat - RENT_MSAT) < 10_000
    assert now.rental.ends_at_ms > now.created_at_ms
    assert shop.books.settled(now.payment_hash) == 1

    code, stdout, _ = await cli(shop, "rent", "messages", seen.id)
    assert (code, len(stdout.splitlines())) == (ExitCode.DONE, 3)
    await shop.daemon.until_ready()


async def test_a_rental_without_a_number_is_refunded(shop: Shop) -> None:
    shop.next_order(no_number=True, gives_up_after_s=20.0)
    code, stdout, _ = await cli(shop, "rent", "united kingdom")
    assert (code, stdout) == (ExitCode.NOT_DELIVERED, "")
    assert enum_name(await newest(shop), "end") == "REFUNDED"


async def test_a_rental_that_is_held_can_be_canceled(shop: Shop) -> None:
    shop.next_order(no_number=True, gives_up_after_s=FOR_EVER_S)
    order = await submit(shop, RENTAL)
    held = await shop.daemon.until(order.id, is_held)
    assert held.may_be_canceled
    await shop.daemon.cancel(order.id)
    assert enum_name(await shop.daemon.until(order.id, is_over), "end") == "REFUNDED"


# --- the prepaid account --------------------------------------------------------------------------------------------


async def test_money_put_into_the_account_is_there(shop: Shop) -> None:
    before_sat = shop.world.provider.knobs.balance_sat
    code, stdout, stderr = await cli(shop, "account", "fund", "5000")

    assert (code, stdout) == (ExitCode.DONE, "funded\n"), stderr
    done = await newest(shop)
    assert (enum_name(done, "kind"), enum_name(done, "end")) == ("FUND", "FULFILLED")
    assert shop.world.provider.knobs.balance_sat == before_sat + 5000
    assert shop.books.settled(done.payment_hash) == 1


PREPAID = {
    "code": (CODE, 3000, ("code", "usa", "openai")),
    "rental": (RENTAL, 4815, ("rent", "united kingdom")),
    "sms": (SMS, 1000, ("sms", "send", PHONE, TEXT)),
    "email": (EMAIL, 1000, ("email", "send", ADDRESS, TEXT)),
}


@pytest.mark.parametrize("kind", PREPAID)
async def test_the_account_pays_once_and_no_invoice_is(shop: Shop, kind: str) -> None:
    knobs, sends = shop.world.provider.knobs, shop.sends
    _, price_sat, command = PREPAID[kind]
    knobs.balance_sat = 10_000

    shop.next_order(delivered_after_s=LATER_S)
    code, stdout, stderr = await cli(shop, *command, "--prepaid", "--key", f"prepaid {kind}")
    again = await cli(shop, *command, "--prepaid", "--key", f"prepaid {kind}")

    assert code == ExitCode.DONE, stderr
    assert again[:2] == (code, stdout)
    seen = await newest(shop)
    assert stdout.strip() in {seen.code, f"+{seen.number}", "sent"}
    assert knobs.balance_sat == 10_000 - price_sat
    assert shop.sends == sends
    assert (enum_name(seen, "htlc"), enum_name(seen, "charge")) == ("UNSPECIFIED", "CHARGED")
    assert (seen.spent_msat, seen.locked_msat, seen.balance_before_sat) == (price_sat * 1000, 0, 10_000)
    assert seen.prepaid
    assert "of the prepaid account" in stderr


@pytest.mark.parametrize("kind", PREPAID)
async def test_a_balance_that_is_too_low_orders_nothing(shop: Shop, kind: str) -> None:
    shop.world.provider.knobs.balance_sat = 500
    refused, text = await refusal(shop, PREPAID[kind][0], prepaid=True)
    assert refused is grpc.StatusCode.FAILED_PRECONDITION
    assert "500 sat" in text
    code, _, stderr = await cli(shop, *PREPAID[kind][2], "--prepaid")
    assert code == ExitCode.REFUSED_NOW
    assert "`holdpay account fund AMOUNT`" in stderr


async def test_a_lost_reply_is_perhaps_spent_and_never_ordered_again(shop: Shop) -> None:
    knobs = shop.world.provider.knobs
    knobs.balance_sat, knobs.only_path, knobs.lost_replies = 10_000, "/createsendorder", 1
    placed = shop.world.provider.requests["/createsendorder"]

    order = await submit(shop, SMS, prepaid=True)
    unknown = await shop.daemon.until(order.id, lambda o: enum_name(o, "charge") == "UNKNOWN")

    assert unknown.spent_msat == SEND_MSAT
    assert not unknown.may_be_canceled
    await asyncio.sleep(1)
    assert shop.world.provider.requests["/createsendorder"] == placed + 1
    assert enum_name(await shop.daemon.get(order.id), "charge") == "UNKNOWN"
    told = await shop.daemon.explain(order.id)
    assert "holdpayd resolve" in told.next
    knobs.only_path = ""


async def test_without_a_key_nothing_is_prepaid_and_the_command_says_how_to_give_one(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        for command in (("sms", "send", PHONE, TEXT, "--prepaid"), ("account", "fund", "5000")):
            code, stdout, stderr = await cli(shop, *command)
            assert (code, stdout) == (ExitCode.REFUSED_NOW, "")
            assert "provider.api_key_file" in stderr
        assert await shop.daemon.listed() == []


# --- by key, and by kind ----------------------------------------------------------------------------------------------


async def test_a_request_is_found_by_its_key_whole(shop: Shop) -> None:
    key = "the whole key of one"
    order = await submit(shop, SMS, idempotency_key=key)
    found = await shop.daemon.stub.GetRequest(pb.GetRequestRequest(idempotency_key=key))
    assert found.id == order.id
    for other in (key[:-1], "", f"{key} "):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await shop.daemon.stub.GetRequest(pb.GetRequestRequest(idempotency_key=other))
        assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_same_key_for_another_kind_is_refused(shop: Shop) -> None:
    key = fresh_key()
    await submit(shop, SMS, idempotency_key=key)
    for other in (EMAIL, RENTAL, FUND, CODE):
        code, text = await refusal(shop, other, idempotency_key=key)
        assert code is grpc.StatusCode.ALREADY_EXISTS
        assert "another key" in text
    assert (await refusal(shop, SMS, idempotency_key=key, prepaid=True))[0] is grpc.StatusCode.ALREADY_EXISTS


async def test_a_list_can_be_of_one_kind(shop: Shop) -> None:
    for request in (SMS, EMAIL):
        await submit(shop, request)
    for kind in (pb.KIND_SMS, pb.KIND_EMAIL):
        found = await shop.daemon.listed(kind=kind)
        assert found
        assert {order.kind for order in found} == {kind}
    code, stdout, _ = await cli(shop, "orders", "list", "--kind", "email")
    assert code == ExitCode.DONE
    assert {line.split()[3] for line in stdout.splitlines()[1:]} == {"email"}
