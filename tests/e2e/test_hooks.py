"""Hooks: the real daemon tells a real HTTP receiver and a real program what happens, also over a crash."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from holdpay.sandbox.files import write_private
from tests.e2e.receivers import Receiver, receiving
from tests.e2e.shop import QUICK, Shop, open_shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = b"0123456789abcdef0123456789abcdef"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> AsyncIterator[Shop]:
    folder = tmp_path_factory.mktemp("hooks")
    write_private(folder / "secret", b"whsec_" + base64.b64encode(SECRET) + b"\n")
    config = f"""{QUICK}
[[hook]]
name = "shop"
url = "{receiver.url}"
secret_file = "secret"
events = ["number", "code", "closed"]
include_secrets = true
"""
    async with open_shop(folder, extra_config=config) as opened:
        yield opened


async def test_an_order_is_told_in_order_and_again_after_a_kill_before_the_acknowledgement(
    shop: Shop, receiver: Receiver
) -> None:
    receiver.got.clear()
    order = await shop.buy()
    number, code, closed = await receiver.until(3)
    assert [got.type for got in (number, code, closed)] == ["number", "code", "closed"]
    assert number.told["data"]["number"] == f"+{order.number}"
    assert code.told["data"]["code"] == order.code
    assert closed.told["data"]["end"] == "fulfilled"

    receiver.may_answer.clear()
    second = await shop.buy()
    await receiver.until(4)
    await shop.daemon.kill()
    receiver.may_answer.set()
    await shop.daemon.start_ready()
    again = await receiver.until(7)
    assert [got.type for got in again[3:]] == ["number", "number", "code", "closed"]
    assert again[3].id == again[4].id
    assert again[3].body == again[4].body
    assert len({got.id for got in again}) == 6
    assert again[-1].told["data"]["request_id"] == second.id
