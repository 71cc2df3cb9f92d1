"""What a client of the socket may rely on: refusals, idempotency, limits, streams, pages, cancels, health, bounds."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from holdpay import __version__
from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.sandbox.http_server import Request, Response, json_response
from tests.e2e.shop import FEE_MSAT, PRICE_MSAT, Shop, open_shop
from tests.harness import Seen, code_request, enum_name, is_over, pair, told

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVALID, TAKEN = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS
TOO_HIGH = grpc.StatusCode.OUT_OF_RANGE
UNAVAILABLE, EXHAUSTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path_factory.mktemp("rpc")) as opened:
        yield opened


class Refusal:
    """A refused request: its code, its sentence, and that it left nothing behind."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code()
        self.text = error.details() or ""
        self.reason, self.metadata = "", dict[str, str]()
        for key, value in error.trailing_metadata():
            if key == "grpc-status-details-bin":
                status, info = status_pb2.Status.FromString(value), error_details_pb2.ErrorInfo()
                assert (status.code, status.message) == (self.code.value[0], self.text)
                assert [detail.Unpack(info) for detail in status.details] == [True]
                assert info.domain == "holdpay"
                self.reason, self.metadata = info.reason, dict(info.metadata)
        self.is_marked = self.reason != ""
        assert " --" not in self.text, "a client may be any program"


async def refusal(shop: Shop, **fields: object) -> Refusal:
    """Fails if the request is taken, or leaves a trace here or at the provider."""
    before = await traces(shop)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await shop.daemon.order(**fields)
    assert await traces(shop) == before
    return Refusal(error.value)


async def traces(shop: Shop) -> tuple[int, int, int]:
    listed = await shop.daemon.every()
    money = (await shop.daemon.status()).money
    return len(listed), money.pending_msat, shop.world.provider.requests["/createorder"]


async def replay(shop: Shop, **fields: object) -> list[pb.RequestUpdate]:
    """All updates of a request, from accepted to terminal."""
    call = shop.daemon.stub.Submit(code_request(**fields), timeout=60)
    return [update async for update in told(call)]


# --- idempotency ----------------------------------------------------------------------------------------------------


async def test_a_request_is_streamed_from_accepted_to_terminal_and_replayed_alike(shop: Shop) -> None:
    live = await replay(shop, idempotency_key="same")

    assert live[0].event == "order_requested"
    assert [update.request.terminal for update in live] == [False] * (len(live) - 1) + [True]
    cursors = [update.cursor for update in live]
    assert cursors == sorted(set(cursors))
    assert await replay(shop, idempotency_key="same") == live
    assert await replay(shop, idempotency_key="same", country="187", service=" OpenAI".strip()) == live


async def test_what_has_happened_already_is_told_in_one_message(shop: Shop) -> None:
    order = await shop.buy()
    call = shop.daemon.stub.WatchRequests(pb.WatchRequestsRequest(request_id=order.id, after_cursor=0), timeout=60)
    (message,) = [message async for message in call]
    assert len(message.updates) > 1
    assert message.updates[-1].request.terminal


async def test_the_same_key_at_the_same_moment_is_one_order(shop: Shop) -> None:
    placed = shop.world.provider.requests["/createorder"]

    streams = await asyncio.gather(*(replay(shop, idempotency_key="at once") for _ in range(5)))

    assert {update.request.id for stream in streams for update in stream} == {streams[0][0].request.id}
    assert all(stream == streams[0] for stream in streams)
    assert shop.world.provider.requests["/createorder"] == placed + 1


@pytest.mark.parametrize(
    "other",
    [{"country": "germany"}, {"service": "tg"}, {"max_price_sat": 5000}, {"max_fee_sat": 0}, {"max_fee_sat": 30}],
)
async def test_the_same_key_with_other_parameters_is_refused(shop: Shop, other: dict[str, object]) -> None:
    key = f"other {other}"
    await shop.buy(idempotency_key=key)

    refused = await refusal(shop, idempotency_key=key, **other)

    assert (refused.code, refused.is_marked) == (TAKEN, True)
    assert "another key" in refused.text
    assert refused.reason == "KEY_TAKEN"


# --- refusals -------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, object], grpc.StatusCode, str]] = {
    "an unknown country": ({"country": "usaa"}, INVALID, "USA"),
    "no country": ({"country": " "}, INVALID, "country must have 1 to 64 printable"),
    "an unknown service": ({"service": "openaj"}, INVALID, "OpenAI"),
    "a service that is no text": ({"service": "dr\n"}, INVALID, "service must have 1 to 64 printable"),
    "no key": ({"idempotency_key": ""}, INVALID, "1 to 128 printable"),
    "a long key": ({"idempotency_key": "k" * 129}, INVALID, "1 to 128 printable"),
    "a key with a control character": ({"idempotency_key": "a\x1bb"}, INVALID, "1 to 128 printable"),
    "a price limit of nothing": ({"max_price_sat": 0}, INVALID, "0 sat allows nothing"),
    "a fee limit over the daemon's": ({"max_fee_sat": 154}, INVALID, "payment.max_fee_sat allows 153 sat"),
    "the largest number there is": ({"max_fee_sat": 2**64 - 1}, INVALID, "payment.max_fee_sat allows 153 sat"),
    "a price over the limit": ({"max_price_sat": 2999}, grpc.StatusCode.OUT_OF_RANGE, "The price is 3,000 sat"),
    "a country as long as a book": ({"country": "u" * 60_000}, INVALID, "country must have 1 to 64 printable"),
    "a service as long as a book": ({"service": "u" * 60_000}, INVALID, "service must have 1 to 64 printable"),
    "a key as long as a book": ({"idempotency_key": "u" * 60_000}, INVALID, "1 to 128 printable"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_ordered_is_refused_with_its_reason_and_leaves_no_trace(shop: Shop, name: str) -> None:
    fields, code, words = REFUSED[name]

    refused = await refusal(shop, **fields)

    assert (refused.code, refused.is_marked) == (code, True)
    assert words in refused.text
    assert len(refused.text) < 400
    assert refused.text.endswith((".", "?"))


async def test_a_price_over_the_daemons_own_limit_is_refused(shop: Shop) -> None:
    shop.world.provider.knobs.price_sat = 10_001
    try:
        refused = await refusal(shop, country="italy", max_price_sat=50_000)
    finally:
        shop.world.provider.knobs.price_sat = 3000
    assert (refused.code, refused.is_marked) == (grpc.StatusCode.OUT_OF_RANGE, True)
    assert "payment.max_price_sat" in refused.text
    assert (refused.reason, refused.metadata) == (
        "PRICE_TOO_HIGH",
        {"price_sat": "10001", "limit": "payment.max_price_sat", "limit_sat": "10000"},
    )


async def test_a_message_over_256_kib_is_refused_by_the_transport(shop: Shop) -> None:
    refused = await refusal(shop, country="u" * 270_000)
    assert (refused.code, refused.is_marked) == (EXHAUSTED, False)


async def test_a_provider_that_is_away_is_named_and_the_socket_goes_on_answering(shop: Shop) -> None:
    await shop.world.provider.http.stop()
    try:
        refused = await refusal(shop, country="spain")
        status = await shop.daemon.status()
    finally:
        await shop.world.provider.http.start()
    assert (refused.code, refused.is_marked) == (UNAVAILABLE, True)
    assert "sms4sats cannot be reached" in refused.text
    assert "sms4sats cannot be reached" in status.provider.last_error
    assert (await shop.buy(country="spain")).end == pb.END_FULFILLED
    assert (await shop.daemon.status()).provider.last_error == ""


async def test_each_limit_is_named_when_it_is_reached_and_then_nothing_is_ordered(tmp_path: Path) -> None:
    limits = "[limits]\nmax_open_orders = 3\nmax_pending_sat = 7000\nmax_spend_per_day_sat = 9000\n"
    async with open_shop(tmp_path, extra_config=limits) as shop:
        orders = [await shop.held(), await shop.held()]
        refused = await refusal(shop)
        assert (refused.code, refused.is_marked) == (EXHAUSTED, True)
        assert "limits.max_pending_sat is 7,000" in refused.text
        shop.world.provider.knobs.price_sat = 100
        orders.append(await shop.held(country="germany"))

        refused = await refusal(shop, country="germany")
        assert (refused.code, refused.is_marked) == (EXHAUSTED, True)
        assert "limits.max_open_orders is 3" in refused.text
        assert (refused.reason, refused.metadata) == (
            "LIMIT_REACHED",
            {"limit": "limits.max_open_orders", "limit_orders": "3", "open_orders": "3"},
        )

        for order in orders:
            await shop.deliver(order)
            assert (await shop.daemon.until(order.id, is_over)).end == pb.END_FULFILLED
        shop.world.provider.knobs.price_sat = 3000
        refused = await refusal(shop)
        assert (refused.code, refused.is_marked) == (EXHAUSTED, True)
        assert "limits.max_spend_per_day_sat is 9,000" in refused.text
        money = (await shop.daemon.status()).money
        spent_msat = 2 * (PRICE_MSAT + FEE_MSAT) + 100_000 + 1_000
        assert (money.pending_msat, money.spent_day_msat, money.locked_msat) == (0, spent_msat, 0)
        assert (money.max_open_orders, money.max_pending_sat, money.max_spend_per_day_sat) == (3, 7000, 9000)


# --- streams --------------------------------------------------------------------------------------------------------


async def watched(shop: Shop, request: pb.WatchRequestsRequest, until: int = 0) -> list[pb.RequestUpdate]:
    """Updates up to the stream's end, or up to a cursor."""
    seen = []
    async with asyncio.timeout(60):
        async for update in told(shop.daemon.stub.WatchRequests(request)):
            seen.append(update)
            if update.cursor == until:
                break
    return seen


async def test_a_watch_that_resumes_after_its_cursor_loses_nothing_over_a_crash_of_the_daemon(shop: Shop) -> None:
    orders = [await shop.daemon.order() for _ in range(3)]
    seen: list[pb.RequestUpdate] = []

    async def watch() -> None:
        after = seen[-1].cursor if seen else 0
        async for update in told(shop.daemon.stub.WatchRequests(pb.WatchRequestsRequest(after_cursor=after))):
            seen.append(update)  # noqa: PERF401 - others read it meanwhile

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.2)  # somewhere in the middle
    await shop.daemon.kill()
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await watching
    await shop.daemon.start()
    watching = asyncio.create_task(watch())
    for order in orders:
        assert (await shop.daemon.until(order.id, is_over)).end == pb.END_FULFILLED

    whole = await watched(shop, pb.WatchRequestsRequest(after_cursor=0), until=await last_cursor(shop, orders))
    async with asyncio.timeout(60):
        while len(seen) < len(whole):
            await asyncio.sleep(0.02)
    watching.cancel()
    assert seen == whole
    assert [update.cursor for update in whole] == sorted({update.cursor for update in whole})
    await shop.daemon.until_ready()


async def last_cursor(shop: Shop, orders: list[Seen]) -> int:
    ends = [await watched(shop, pb.WatchRequestsRequest(after_cursor=0, request_id=order.id)) for order in orders]
    return max(updates[-1].cursor for updates in ends)


async def test_a_watch_of_one_order_ends_after_its_terminal_update(shop: Shop) -> None:
    order = await shop.buy()

    whole = await watched(shop, pb.WatchRequestsRequest(request_id=order.id[:6], after_cursor=0))

    assert {update.request.id for update in whole} == {order.id}
    assert whole[-1].request.terminal
    middle = whole[len(whole) // 2].cursor
    rest = await watched(shop, pb.WatchRequestsRequest(request_id=order.id, after_cursor=middle))
    assert rest == [update for update in whole if update.cursor > middle]
    assert await watched(shop, pb.WatchRequestsRequest(request_id=order.id, after_cursor=whole[-1].cursor)) == []
    assert await watched(shop, pb.WatchRequestsRequest(request_id=order.id, after_cursor=2**62)) == []
    assert await watched(shop, pb.WatchRequestsRequest(request_id=order.id)) == []


async def test_a_watch_without_a_cursor_tells_only_what_comes(shop: Shop) -> None:
    await shop.buy()
    call = shop.daemon.stub.WatchRequests(pb.WatchRequestsRequest())
    reading = asyncio.ensure_future(anext(told(call)))
    await asyncio.sleep(0.2)
    assert not reading.done()

    order = await shop.daemon.order()

    async with asyncio.timeout(60):
        assert (await reading).request.id == order.id
    call.cancel()
    await shop.daemon.until(order.id, is_over)


async def test_a_client_that_leaves_before_the_order_is_recorded_orders_nothing(shop: Shop) -> None:
    before = await traces(shop)
    endpoints, is_asked, then = shop.world.provider._endpoints, asyncio.Event(), asyncio.Event()

    async def late(request: Request) -> Response:
        is_asked.set()
        await then.wait()
        return await endpoints["GET", "/price"](request)

    shop.world.provider._endpoints = {**endpoints, ("GET", "/price"): late}
    try:
        call = shop.daemon.stub.Submit(code_request(country="poland", idempotency_key="left early"))
        async with asyncio.timeout(60):
            await is_asked.wait()
        call.cancel()
        await shop.daemon.status()  # comes after it on the same connection
        then.set()
        await shop.daemon.stub.GetPrices(pb.GetPricesRequest(country="poland", service="openai"))
        await asyncio.sleep(0.3)
    finally:
        shop.world.provider._endpoints = endpoints

    assert await traces(shop) == before
    assert (await shop.buy(country="poland", idempotency_key="left early")).end == pb.END_FULFILLED


async def test_a_client_that_leaves_later_loses_nothing(shop: Shop) -> None:
    order = await shop.daemon.order(idempotency_key="left")  # this leaves after the first update

    whole = await replay(shop, idempotency_key="left")

    assert whole[0].request.id == order.id
    assert whole[-1].request.end == pb.END_FULFILLED


# --- lists ----------------------------------------------------------------------------------------------------------


async def test_lists_come_newest_first_in_pages_and_by_filter(shop: Shop) -> None:
    codes = [await shop.buy(country=country) for country in ("usa", "germany", "france")]
    shop.next_order(overprice_percent=10)
    rejected = await shop.buy()
    held = await shop.held()
    everything = [order.id for order in (held, rejected, *reversed(codes))]
    began_ms = codes[0].created_at_ms

    async def ids(**fields: object) -> list[str]:
        return [order.id for order in await shop.daemon.listed(**{"created_from_ms": began_ms, **fields})]

    assert await ids() == await ids(page_size=500) == await ids(page_size=2**32 - 1) == everything
    assert await ids(open_only=True) == [held.id]
    assert await ids(closed_only=True) == everything[1:]
    assert await ids(end=pb.END_INVOICE_REJECTED) == [rejected.id]
    assert await ids(end=pb.END_FULFILLED, page_size=2) == everything[2:4]
    assert await ids(kind=pb.KIND_CODE) == everything
    assert await ids(kind=pb.KIND_SMS) == []
    second, third = codes[1].created_at_ms, codes[2].created_at_ms
    assert await ids(created_from_ms=second, created_before_ms=third) == [codes[1].id]
    assert (await ids(created_from_ms=-(2**63)))[:5] == everything
    assert await ids(created_from_ms=2**63 - 1) == []

    paged, token = [], ""
    for _ in range(3):
        request = pb.ListRequestsRequest(created_from_ms=began_ms, page_size=2, page_token=token)
        page = await shop.daemon.stub.ListRequests(request)
        paged += [order.id for order in page.requests]
        token = page.next_page_token
    assert (paged, token) == (everything, "")
    await shop.deliver(held)
    await shop.daemon.until(held.id, is_over)


# --- cancels --------------------------------------------------------------------------------------------------------


async def test_a_cancel_before_the_provider_has_answered_ends_the_order_at_once(shop: Shop) -> None:
    await shop.daemon.stub.ListServices(pb.ListServicesRequest(country="usa"))
    shop.world.provider.knobs.only_path = "/createorder"
    await shop.play("http-500=1")
    order = await shop.daemon.order()
    async for update in shop.daemon.updates(order.id):
        if update.event == "placing_failed":
            break

    answer = await shop.daemon.cancel(order.id)

    seen = Seen(answer.request)
    assert seen.terminal
    assert (enum_name(seen, "end"), pair(seen)) == (
        "CANCELED_UNPAID",
        ("ABANDONED", "NONE"),
    )
    assert "canceled before anything was paid" in answer.message
    assert not answer.too_late


def much_later(config: str) -> str:
    return re.sub(r"cancel_after_s = \d+", "cancel_after_s = 8", config)


async def test_a_cancel_while_held_is_a_durable_wish_that_is_carried_out_when_it_may_be(tmp_path: Path) -> None:
    async with open_shop(tmp_path, edit_config=much_later) as shop:
        order = await shop.held()

        answer = await shop.daemon.cancel(order.id)
        assert not Seen(answer.request).terminal
        assert Seen(answer.request).cancel_from_ms > Seen(answer.request).cancel_wanted_at_ms
        assert re.search(r"asked to cancel .*what comes first wins", answer.message)
        assert not answer.too_late
        again = await shop.daemon.cancel(order.id)
        assert Seen(again.request).cancel_wanted_at_ms == Seen(answer.request).cancel_wanted_at_ms
        assert shop.world.provider.requests["/cancelorder"] == 0
        await shop.daemon.restart()
        done = await shop.daemon.until(order.id, is_over)

        assert (enum_name(done, "end"), pair(done)) == ("REFUNDED", ("CANCELED", "FAILED"))
        assert done.cancel_wanted_at_ms == Seen(answer.request).cancel_wanted_at_ms
        assert "at your request" in done.reason
        assert shop.world.provider.requests["/cancelorder"] >= 1


async def test_a_code_that_comes_before_the_cancel_wins(tmp_path: Path) -> None:
    async with open_shop(tmp_path, edit_config=much_later) as shop:
        order = await shop.held()

        await shop.daemon.cancel(order.id)
        await shop.deliver(order)
        done = await shop.daemon.until(order.id, is_over)

        assert (enum_name(done, "end"), done.has("cancel_wanted_at_ms")) == ("FULFILLED", True)
        assert shop.world.provider.requests["/cancelorder"] == 0


async def test_a_cancel_that_comes_too_late_says_so_and_changes_nothing(shop: Shop) -> None:
    order = await shop.held()
    shop.show_code(order)
    await shop.daemon.until(order.id, lambda o: bool(o.code))

    delivered = await shop.daemon.cancel(order.id)
    await shop.settle(order)
    done = await shop.daemon.until(order.id, is_over)
    closed = await shop.daemon.cancel(order.id)

    assert "too late" in delivered.message
    assert (delivered.too_late, closed.too_late) == (True, True)
    assert enum_name(done, "end") == "FULFILLED"
    assert not Seen(closed.request).has("cancel_wanted_at_ms")
    assert "3,001.003 sat were spent" in closed.message


# --- odd requests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order_id", ["", "abc", "abcd", "%%%%", "____", "a" * 60_000, "abcd\x00", "é" * 4])
async def test_a_request_that_does_not_exist_is_not_found_by_any_call(shop: Shop, order_id: str) -> None:
    expected = (INVALID, "INVALID_REQUEST") if len(order_id) < 4 else (grpc.StatusCode.NOT_FOUND, "ORDER_NOT_FOUND")
    stub = shop.daemon.stub
    calls: list[Awaitable[object]] = [
        stub.GetRequest(pb.GetRequestRequest(request_id=order_id)),
        stub.CancelRequest(pb.CancelRequestRequest(request_id=order_id)),
        stub.ExplainRequest(pb.ExplainRequestRequest(request_id=order_id)),
    ]
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
        refused = Refusal(error.value)
        assert (refused.code, refused.reason) == expected
        assert ("at least 4 characters" in refused.text) == (len(order_id) < 4)
    if order_id:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await watched(shop, pb.WatchRequestsRequest(request_id=order_id, after_cursor=0))
        assert Refusal(error.value).code is expected[0]


@pytest.mark.parametrize("size", [64 * 1024, 200_000])
async def test_a_request_that_is_too_long_is_refused_as_what_it_is_by_calls_and_streams(shop: Shop, size: int) -> None:
    stub = shop.daemon.stub
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.GetRequest(pb.GetRequestRequest(request_id="a" * size))
    refused = Refusal(error.value)
    assert (refused.code, refused.reason) == (INVALID, "INVALID_REQUEST")
    assert "65,536 are the most" in refused.text
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await watched(shop, pb.WatchRequestsRequest(request_id="a" * size))
    assert Refusal(error.value).code is INVALID


@pytest.mark.parametrize(
    "token", ["x", "é", "a" * 60_000, base64.b64encode(b"1:2:3").decode(), base64.b64encode(b"9" * 30 + b":a").decode()]
)
async def test_a_page_token_that_is_not_ours_is_refused(shop: Shop, token: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await shop.daemon.stub.ListRequests(pb.ListRequestsRequest(page_token=token))
    assert (error.value.code(), error.value.details()) == (
        INVALID,
        "This page token is not one of ours. Begin again with the first page.",
    )


async def test_a_negative_cursor_is_refused(shop: Shop) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await watched(shop, pb.WatchRequestsRequest(after_cursor=-1))
    assert Refusal(error.value).code is INVALID


async def test_a_cursor_of_another_database_is_refused(shop: Shop) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await watched(shop, pb.WatchRequestsRequest(after_cursor=10**6))
    assert Refusal(error.value).code is INVALID
    assert "ahead of the journal" in Refusal(error.value).text


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"open_only": True, "closed_only": True}, "closed_only"),
        ({"end": 99}, "end"),
        ({"end": pb.END_REFUNDED, "open_only": True}, "end"),
        ({"kind": 99}, "kind"),
        ({"created_from_ms": 2, "created_before_ms": 2}, "created_before_ms"),
    ],
)
async def test_a_list_that_cannot_be_meant_is_refused(shop: Shop, wanted: dict[str, Any], field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await shop.daemon.stub.ListRequests(pb.ListRequestsRequest(**wanted))
    refused = Refusal(error.value)
    assert (refused.code, refused.reason, refused.metadata) == (INVALID, "INVALID_REQUEST", {"field": field})


async def test_without_a_price_and_a_limit_nothing_is_ordered(shop: Shop) -> None:
    async def no_price(request: Request) -> Response:
        return json_response({})

    endpoints = shop.world.provider._endpoints
    shop.world.provider._endpoints = {**endpoints, ("GET", "/price"): no_price}
    try:
        refused = await refusal(shop, country="chile")
    finally:
        shop.world.provider._endpoints = endpoints
    assert (refused.code, refused.is_marked) == (TOO_HIGH, True)
    assert "names no price" in refused.text
    assert refused.reason == "PRICE_UNKNOWN"


async def test_prices_need_both_a_country_and_a_service_or_neither(shop: Shop) -> None:
    standard = await shop.daemon.stub.GetPrices(pb.GetPricesRequest())
    exact = await shop.daemon.stub.GetPrices(pb.GetPricesRequest(country="usa", service="openai"))
    assert (standard.receive_sat, standard.HasField("exact_sat")) == (3000, False)
    assert (exact.receive_sat, exact.exact_sat) == (3000, 3000)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await shop.daemon.stub.GetPrices(pb.GetPricesRequest(country="usa"))
    assert Refusal(error.value).code is INVALID


async def test_what_can_be_bought_is_listed(shop: Shop) -> None:
    countries = (await shop.daemon.stub.ListCountries(pb.ListCountriesRequest())).countries
    assert len({country.code for country in countries}) == len(countries) == 185
    found = await shop.daemon.stub.ListServices(pb.ListServicesRequest(country="united states"))
    assert (found.country.code, found.country.name) == (187, "USA")
    assert {service.code: service.stock for service in found.services}["dr"] == 28


# --- the daemon itself ----------------------------------------------------------------------------------------------


async def test_the_status_tells_lnd_the_provider_the_money_and_the_versions(shop: Shop) -> None:
    held = await shop.held()

    status = await shop.daemon.status()

    assert (status.version, status.ready, status.not_ready_reason) == (__version__, True, "")
    assert status.started_at_ms <= held.created_at_ms
    assert (status.state_dir, status.config_path) == (str(shop.world.directory / "state"), str(shop.world.config))
    lnd = status.lnd
    assert (lnd.state, lnd.detail, lnd.network, lnd.block_height) == ("ready", "", "simnet", 500)
    assert (lnd.identity_pubkey, lnd.address) == (shop.world.lnd.node.pubkey, shop.world.lnd.target)
    assert lnd.version.startswith("0.21.0-beta")
    assert status.provider.url == shop.world.provider.url
    assert status.provider.requests > 0
    assert (status.open_orders, status.money.locked_msat) == (1, held.locked_msat)
    assert status.money.pending_msat == 3_030_000
    (out,) = status.out
    assert (out.request_id, out.locked_msat, status.more_out) == (held.id, held.locked_msat, 0)
    assert out.blocks_left == out.expiry_height - lnd.block_height > 0
    await shop.deliver(held)
    done = await shop.daemon.until(held.id, is_over)
    after = await shop.daemon.status()
    assert (after.open_orders, after.money.locked_msat, after.money.pending_msat) == (0, 0, 0)
    assert after.money.spent_day_msat - status.money.spent_day_msat == done.spent_msat


async def test_the_reflection_service_describes_the_interface(shop: Shop) -> None:
    channel: Any = shop.daemon.channel
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)

    async def ask(request: reflection_pb2.ServerReflectionRequest) -> reflection_pb2.ServerReflectionResponse:
        return await anext(aiter(reflection.ServerReflectionInfo(iter([request]))))

    listed = await ask(reflection_pb2.ServerReflectionRequest(list_services=""))
    names = {service.name for service in listed.list_services_response.service}
    assert {"holdpay.v1.Holdpay", "grpc.health.v1.Health"} <= names
    found = await ask(reflection_pb2.ServerReflectionRequest(file_containing_symbol="holdpay.v1.Holdpay"))
    assert any(b"Submit" in proto for proto in found.file_descriptor_response.file_descriptor_proto)


# --- without lnd ----------------------------------------------------------------------------------------------------


@dataclass
class Bereft:
    """A shop whose lnd has just died: ``first`` is the story of a closed order, "open" the key of an open one."""

    shop: Shop
    first: list[pb.RequestUpdate]
    lnd_health: list[int]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bereft(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bereft]:
    async with open_shop(tmp_path_factory.mktemp("bereft")) as shop:
        health: list[int] = []

        async def watch() -> None:
            stub: Any = health_pb2_grpc.HealthStub(shop.daemon.channel)
            async for answer in stub.Watch(health_pb2.HealthCheckRequest(service="lnd")):
                health.append(answer.status)  # noqa: PERF401 - others read it meanwhile

        watching = asyncio.create_task(watch())
        first = await replay(shop, idempotency_key="first")
        await shop.held(idempotency_key="open")
        await shop.play("lnd-killed")
        async with asyncio.timeout(60):
            while (await shop.daemon.status()).ready or health[-1] == health_pb2.HealthCheckResponse.SERVING:
                await asyncio.sleep(0.05)
        yield Bereft(shop, first, health)
        watching.cancel()


async def test_while_lnd_is_down_old_keys_are_answered_and_new_ones_refused(bereft: Bereft) -> None:
    shop = bereft.shop
    assert await replay(shop, idempotency_key="first") == bereft.first
    assert (await shop.daemon.order(idempotency_key="open")).idempotency_key == "open"

    refused = await refusal(shop, idempotency_key="second")

    assert (refused.code, refused.is_marked) == (UNAVAILABLE, True)
    assert "does not answer" in refused.text
    assert refused.text == (await shop.daemon.status()).not_ready_reason
    assert (await refusal(shop, idempotency_key="first", country="germany")).code is TAKEN


async def test_the_health_service_tells_the_daemon_from_lnd(bereft: Bereft) -> None:
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    health: Any = health_pb2_grpc.HealthStub(bereft.shop.daemon.channel)

    async def state(service: str) -> int:
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        return int(answer.status)

    assert bereft.lnd_health[-2:] == [serving, not_serving]
    assert [await state(name) for name in ("", "holdpay.v1.Holdpay", "lnd")] == [serving, serving, not_serving]
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await state("nobody")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
