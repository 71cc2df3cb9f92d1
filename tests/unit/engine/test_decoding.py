"""A decode that is begun early: asked once, and never left running."""

from __future__ import annotations

import asyncio

import pytest

from holdpay.core.lightning import Invoice, NodeIdentity
from holdpay.engine.decoding import Decoder
from holdpay.errors import LndUnavailable
from tests.fakes import ALICE, FakeClock, FakeLnd
from tests.unit.build import invoice


class SlowLnd(FakeLnd):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.asked: list[str] = []
        self.answer: asyncio.Future[Invoice] = asyncio.get_running_loop().create_future()

    async def decode(self, payreq: str) -> tuple[Invoice, NodeIdentity]:
        self.asked.append(payreq)
        return await asyncio.shield(self.answer), ALICE


def _others() -> set[asyncio.Task[object]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


async def test_what_was_begun_is_asked_once() -> None:
    lnd = SlowLnd()
    decoder = Decoder(lnd)
    await decoder.begin("lnsb1")
    assert lnd.asked == ["lnsb1"]
    lnd.answer.set_result(invoice())
    assert await decoder.decode("lnsb1") == (invoice(), ALICE)
    assert lnd.asked == ["lnsb1"]


async def test_an_answer_counts_once() -> None:
    lnd = SlowLnd()
    decoder = Decoder(lnd)
    lnd.answer.set_exception(LndUnavailable())
    await decoder.begin("lnsb1")
    for _ in range(2):
        with pytest.raises(LndUnavailable):
            await decoder.decode("lnsb1")
    assert lnd.asked == ["lnsb1", "lnsb1"]


async def test_what_nobody_wants_any_more_is_ended() -> None:
    decoder = Decoder(SlowLnd())
    await decoder.begin("lnsb1")
    await decoder.begin("lnsb2")
    decoder.forget("lnsb1")
    await decoder.close()
    assert _others() == set()


async def test_a_duty_that_is_stopped_while_it_asks_leaves_nothing_behind() -> None:
    decoder = Decoder(SlowLnd())
    duty = asyncio.create_task(decoder.begin("lnsb1"))
    await asyncio.sleep(0)
    duty.cancel()
    await asyncio.wait({duty})
    await asyncio.sleep(0)
    assert duty.cancelled()
    assert _others() == set()
