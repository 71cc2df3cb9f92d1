"""What one turn of the loop gathers, without an engine around it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from holdpay.core.events import CancelRequested
from holdpay.core.model import Order
from holdpay.engine.turn import MOST_AT_ONCE, Posted, Turn
from tests.unit import build

CANCEL = CancelRequested()


def _posted(order_id: str, *, is_waited_for: bool = True) -> Posted:
    result: asyncio.Future[Order] | None = asyncio.get_running_loop().create_future() if is_waited_for else None
    return Posted(order_id=order_id, event=CANCEL, result=result)


class Steps:
    """What was taken in each step. ``defect``: each raises it."""

    def __init__(self) -> None:
        self.taken: list[list[str]] = []
        self.defect: Exception | None = None

    def take(self, batch: Sequence[Posted]) -> None:
        self.taken.append([posted.order_id for posted in batch])
        if self.defect is not None:
            raise self.defect
        for posted in batch:
            posted.answer(build.order(id=posted.order_id))


async def test_what_is_posted_in_one_turn_is_one_step_and_nothing_is_no_step() -> None:
    steps = Steps()
    turn = Turn(steps.take)
    for name in "abc":
        turn.post(_posted(name))
    assert steps.taken == []
    await asyncio.sleep(0)
    assert steps.taken == [["a", "b", "c"]]
    turn.post(_posted("d"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert steps.taken == [["a", "b", "c"], ["d"]]


async def test_at_the_end_all_that_is_left_is_taken_at_once_and_once() -> None:
    steps = Steps()
    turn = Turn(steps.take)
    for number in range(MOST_AT_ONCE + 1):
        turn.post(_posted(str(number)))
    turn.finish()
    assert [len(batch) for batch in steps.taken] == [MOST_AT_ONCE, 1]
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(steps.taken) == 2
    turn.finish()
    assert len(steps.taken) == 2
    turn.post(_posted("later"))
    await asyncio.sleep(0)
    assert steps.taken[-1] == ["later"]


async def test_who_waited_for_a_step_comes_before_the_next_one() -> None:
    steps = Steps()
    turn = Turn(steps.take)
    seen: list[int] = []

    async def wait(posted: Posted) -> None:
        turn.post(posted)
        assert posted.result is not None
        await posted.result
        seen.append(len(steps.taken))

    await asyncio.gather(*(wait(_posted(str(number))) for number in range(2 * MOST_AT_ONCE)))
    assert seen == [1] * MOST_AT_ONCE + [2] * MOST_AT_ONCE


async def test_a_step_that_fails_is_told_to_each_that_waits_and_the_next_one_is_taken() -> None:
    steps = Steps()
    turn = Turn(steps.take)
    steps.defect = ZeroDivisionError()
    nobodys = _posted("a", is_waited_for=False)
    waiting = [_posted("b"), _posted("c")]
    for posted in (nobodys, *waiting):
        turn.post(posted)
    await asyncio.sleep(0)
    for posted in waiting:
        assert posted.result is not None
        with pytest.raises(ZeroDivisionError):
            await posted.result
    steps.defect = None
    turn.post(again := _posted("d"))
    assert again.result is not None
    assert (await again.result).id == "d"


async def test_who_gave_up_waiting_is_told_nothing_and_spoils_nothing_for_the_others() -> None:
    steps = Steps()
    turn = Turn(steps.take)
    for defect in (None, ZeroDivisionError()):
        steps.defect = defect
        gone, staying = _posted("a"), _posted("b")
        for posted in (gone, staying, _posted("c", is_waited_for=False)):
            turn.post(posted)
        assert gone.result is not None
        assert staying.result is not None
        gone.result.cancel()
        (answer,) = await asyncio.gather(staying.result, return_exceptions=True)
        assert answer is defect if defect is not None else isinstance(answer, Order)
        assert gone.result.cancelled()


async def test_an_answer_that_was_given_stays_whatever_fails_afterwards() -> None:
    posted = _posted("a")
    assert posted.result is not None
    posted.answer(build.order(id="a"))
    posted.fail(ZeroDivisionError())
    posted.answer(build.order(id="b"))
    assert (await posted.result).id == "a"


def test_an_event_that_is_made_when_it_is_decided_is_made_of_the_order_as_it_is_then() -> None:
    order, seen = build.order(id="a"), []
    assert Posted(order_id="a", event=CANCEL).made(order) is CANCEL

    def made(of: Order) -> None:
        seen.append(of)

    assert Posted(order_id="a", event=made).made(order) is None
    assert seen == [order]
