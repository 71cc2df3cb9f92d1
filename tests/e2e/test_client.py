"""The Python client on the real daemon: what its page shows, and what it goes on over."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from holdpay.client import AsyncClient, Client, End, EndedWithout, InvalidRequest, Kind, NotFound, TimedOut, Unreachable
from tests.e2e.shop import FOR_EVER_S, QUICK, Shop, open_shop
from tests.harness import fresh_key

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
EXAMPLES = re.findall(r"^## (.*?)$.*?^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
PRINTED = {
    "A code": r"\+?\d{7,}\n\d+\n",
    "What can go wrong": r"UNKNOWN_COUNTRY \{'field': 'country'\}\n",
    "To cancel": r"(refunded|canceled_unpaid|fulfilled)\n",
    "Many at once": r"\['\d+', '\d+', '\d+'\]\n",
    "All that happens": r"1 \w{10} order_requested [^\n]*\n(.*\n)+",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path_factory.mktemp("client"), extra_config=QUICK) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def holdpay(shop: Shop) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(shop.daemon.socket) as client:
        yield client


async def test_each_example_of_the_page_is_known_here() -> None:
    assert [title for title, _ in EXAMPLES] == list(PRINTED)


@pytest.mark.parametrize(("title", "code"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
async def test_the_examples_of_the_page_do_what_they_say(shop: Shop, title: str, code: str) -> None:
    environment = {**os.environ, "HOLDPAY_SOCKET": str(shop.daemon.socket)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err.decode()) == (0, "")
    assert re.fullmatch(PRINTED[title], out.decode())


async def test_a_wait_goes_on_over_a_restart_of_the_daemon(shop: Shop, holdpay: AsyncClient) -> None:
    shop.next_order(code_after_s=2 * 50.0)
    request = await holdpay.code("usa", "openai")
    await holdpay.wait(request, "number", timeout_s=30)
    waiting = asyncio.create_task(holdpay.wait(request, "code", timeout_s=60))
    await shop.daemon.restart()
    done = await waiting
    assert done.code is not None
    assert (await holdpay.wait(done.id)).end is End.FULFILLED


async def test_the_same_key_is_the_same_request_and_is_found_again(shop: Shop, holdpay: AsyncClient) -> None:
    key = fresh_key()
    first = await holdpay.code("usa", "openai", key=key)
    again = await holdpay.code("usa", "openai", key=key)
    assert (await holdpay.get(key=key)).id == again.id == first.id
    assert first.kind is Kind.CODE
    assert (await anext(holdpay.list())).id == first.id
    with pytest.raises(NotFound):
        await holdpay.get("zzzzzzzzzz")
    await holdpay.wait(first)


async def test_an_order_that_ends_without_and_one_that_takes_too_long_are_told_apart(
    shop: Shop, holdpay: AsyncClient
) -> None:
    shop.next_order(no_number=True, gives_up_after_s=50.0)
    with pytest.raises(EndedWithout) as ended:
        await holdpay.wait(await holdpay.code("usa", "openai"), "code", timeout_s=60)
    assert ended.value.request.end is End.REFUNDED
    shop.next_order(code_after_s=FOR_EVER_S)
    request = await holdpay.code("usa", "openai")
    with pytest.raises(TimedOut) as late:
        await holdpay.wait(request, "code", timeout_s=1)
    assert late.value.request_id == request.id
    canceling = await holdpay.cancel(request.id)
    assert (canceling.request.id, canceling.is_too_late) == (request.id, False)
    assert "cancel" in canceling.message
    assert (await holdpay.wait(request, timeout_s=60)).end is End.REFUNDED


async def test_a_cancel_that_is_too_late_says_so(shop: Shop, holdpay: AsyncClient) -> None:
    done = await holdpay.wait(await holdpay.code("usa", "openai"), timeout_s=60)
    late = await holdpay.cancel(done.id)
    assert (late.is_too_late, late.request.end) == (True, End.FULFILLED)
    assert "nothing to cancel" in late.message


async def test_other_kinds_and_the_blocking_client(shop: Shop) -> None:
    def buy() -> tuple[str | None, str | None, tuple[str, ...], str]:
        with Client(shop.daemon.socket) as holdpay:
            sent = holdpay.wait(holdpay.sms("+19871234567", "See you at eight."), "sent", timeout_s=60)
            rented = holdpay.wait(holdpay.rent("england"), "message", timeout_s=60)
            updates = holdpay.watch(after=0, request=rented.id)
            told = next(each.request.messages for each in updates if each.request.messages)
            assert holdpay.cancel(sent.id).is_too_late, "what is paid for and sent cannot be called back"
            summary = holdpay.explain(rented.id).summary
            return sent.sending, rented.number, told, summary

    sending, number, messages, summary = await asyncio.to_thread(buy)
    assert sending in {"sent", "delivered"}
    assert number
    assert messages
    assert "rented in England" in summary


async def test_where_no_daemon_answers_that_is_said(tmp_path: Path) -> None:
    async with AsyncClient(tmp_path / "none.sock") as holdpay:
        with pytest.raises(Unreachable):
            await holdpay.status()
        with pytest.raises(Unreachable):
            await anext(holdpay.watch())


async def test_a_wrong_request_names_its_field(holdpay: AsyncClient) -> None:
    with pytest.raises(InvalidRequest) as wrong:
        await holdpay.sms("12", "text")
    assert wrong.value.metadata["field"] == "phone"
    assert (await holdpay.status()).ready
