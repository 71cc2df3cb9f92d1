"""At most one task for each order and duty; what dies is started again; what must end the process ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from holdpay.core.duties import Duty
from holdpay.engine.performers import Backoff
from holdpay.engine.supervisor import RESTART_AFTER_S, Supervisor
from holdpay.errors import InvariantViolation, StoreError
from tests.fakes import FakeClock

BOTH = frozenset({Duty.PAY, Duty.CANCEL})
NONE: frozenset[Duty] = frozenset()


class Jobs:
    """What a performer does, and which ones run."""

    def __init__(self) -> None:
        self.running: list[tuple[str, Duty]] = []
        self.started: list[tuple[str, Duty]] = []
        self.aside: list[tuple[str, Exception]] = []
        self.again: list[tuple[str, int]] = []
        self.do: Callable[[], Awaitable[None]] = self.wait_for_ever

    def put_aside(self, order_id: str, error: Exception) -> None:
        self.aside.append((order_id, error))

    def look_again(self, order_id: str, at_ms: int) -> None:
        self.again.append((order_id, at_ms))

    async def wait_for_ever(self) -> None:
        await asyncio.Event().wait()

    def perform(self, order_id: str, duty: Duty) -> Coroutine[Any, Any, None]:
        return self._run((order_id, duty))

    async def _run(self, key: tuple[str, Duty]) -> None:
        self.started.append(key)
        self.running.append(key)
        assert self.running.count(key) == 1, "two tasks for one duty"
        try:
            await self.do()
        finally:
            self.running.remove(key)


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def supervisor(jobs: Jobs, clock: FakeClock) -> Supervisor:
    return Supervisor(jobs, clock, jobs.put_aside, jobs.look_again)


async def _settle() -> None:
    await asyncio.sleep(0.001)


async def test_each_wanted_duty_runs_exactly_once(jobs: Jobs, supervisor: Supervisor) -> None:
    for _ in range(3):
        supervisor.reconcile("a", BOTH)
        supervisor.reconcile("b", BOTH)
        await _settle()
    assert sorted(jobs.running) == sorted((order_id, duty) for order_id in "ab" for duty in BOTH)
    assert len(jobs.started) == 4
    await supervisor.stop()


async def test_what_is_no_longer_wanted_is_stopped(jobs: Jobs, supervisor: Supervisor) -> None:
    supervisor.reconcile("a", BOTH)
    await _settle()
    supervisor.reconcile("a", frozenset({Duty.PAY}))
    await _settle()
    assert jobs.running == [("a", Duty.PAY)]
    await supervisor.stop()
    assert jobs.running == []


async def test_a_task_that_ends_its_own_duty_is_not_cut_off_in_the_middle(jobs: Jobs, supervisor: Supervisor) -> None:
    done: list[str] = []

    async def end_itself() -> None:
        supervisor.reconcile("a", NONE, own={asyncio.current_task()})
        await asyncio.sleep(1)
        done.append("cleaned up")

    jobs.do = end_itself
    supervisor.reconcile("a", frozenset({Duty.PAY}))
    await asyncio.sleep(2)
    assert done == ["cleaned up"]


async def test_a_duty_whose_task_ended_runs_again_at_the_next_look_if_it_is_wanted(
    jobs: Jobs, supervisor: Supervisor
) -> None:
    jobs.do = lambda: asyncio.sleep(0)
    supervisor.reconcile("a", frozenset({Duty.PAY}))
    await _settle()
    jobs.do = jobs.wait_for_ever
    supervisor.reconcile("a", frozenset({Duty.PAY}))
    await _settle()
    assert jobs.running == [("a", Duty.PAY)]
    await supervisor.stop()


async def test_a_task_that_died_is_started_again_after_a_while(
    jobs: Jobs, supervisor: Supervisor, clock: FakeClock
) -> None:
    async def die() -> None:
        raise ZeroDivisionError

    jobs.do = die
    for _ in range(RESTART_AFTER_S * 2 - 1):
        supervisor.reconcile("a", frozenset({Duty.PAY}))
        await asyncio.sleep(1)
    assert len(jobs.started) == 2


async def test_of_a_task_that_ended_by_itself_it_is_told_when_it_may_begin_again(
    jobs: Jobs, supervisor: Supervisor, clock: FakeClock
) -> None:
    async def die() -> None:
        raise ZeroDivisionError

    for do, after_s in ((lambda: asyncio.sleep(0), 0), (die, RESTART_AFTER_S)):
        jobs.do, jobs.again = do, []
        supervisor.reconcile("a", frozenset({Duty.PAY}))
        await _settle()
        ((order_id, at_ms),) = jobs.again
        assert (order_id, (at_ms - clock.now_ms()) // -1000 * -1) == ("a", after_s)


async def test_of_a_task_that_was_stopped_nothing_is_told(jobs: Jobs, supervisor: Supervisor) -> None:
    supervisor.reconcile("a", frozenset({Duty.PAY}))
    await _settle()
    supervisor.reconcile("a", NONE)
    await _settle()
    assert (jobs.running, jobs.again) == ([], [])


async def test_a_wall_clock_that_is_set_back_does_not_keep_a_dead_task_dead(
    jobs: Jobs, supervisor: Supervisor, clock: FakeClock
) -> None:
    async def die() -> None:
        raise ZeroDivisionError

    jobs.do = die
    supervisor.reconcile("a", frozenset({Duty.PAY}))
    await _settle()
    clock.offset_ms -= 3_600_000
    supervisor.reconcile("a", frozenset({Duty.PAY}))
    await _settle()
    assert len(jobs.started) == 2


async def test_a_task_that_was_canceled_by_somebody_else_is_started_again(jobs: Jobs, supervisor: Supervisor) -> None:
    """A closed gRPC channel raises CancelledError in its readers: nobody may end a watch that way."""

    async def be_canceled() -> None:
        raise asyncio.CancelledError

    jobs.do = be_canceled
    supervisor.reconcile("a", frozenset({Duty.PAY}))
    await _settle()
    jobs.do = jobs.wait_for_ever
    supervisor.reconcile("a", frozenset({Duty.PAY}))
    await _settle()
    assert jobs.running == [("a", Duty.PAY)]
    await supervisor.stop()


async def test_a_duty_that_contradicts_a_law_puts_its_order_aside_and_ends_nothing(
    jobs: Jobs, supervisor: Supervisor
) -> None:
    error = InvariantViolation("two truths")

    async def die() -> None:
        raise error

    jobs.do = die
    supervisor.reconcile("a", frozenset({Duty.PAY}))
    await supervisor.failure(5)
    assert jobs.aside == [("a", error)]
    await supervisor.stop()


async def test_an_error_that_must_end_the_process_is_raised_to_whoever_runs_it(
    jobs: Jobs, supervisor: Supervisor
) -> None:
    error = StoreError("disk full")

    async def die() -> None:
        raise error

    jobs.do = die
    supervisor.reconcile("a", frozenset({Duty.PAY}))
    with pytest.raises(type(error)) as raised:
        await supervisor.failure(5)
    assert raised.value is error
    await supervisor.stop()


async def test_without_an_error_waiting_for_one_ends_in_time(supervisor: Supervisor) -> None:
    began_s = asyncio.get_running_loop().time()
    await supervisor.failure(5)
    assert asyncio.get_running_loop().time() - began_s == 5


async def test_the_first_error_is_the_one_that_is_told(supervisor: Supervisor) -> None:
    first = StoreError("first")
    supervisor.fail(first)
    supervisor.fail(InvariantViolation("second"))
    with pytest.raises(StoreError) as raised:
        await supervisor.failure(5)
    assert raised.value is first


async def test_nothing_is_started_after_a_fatal_error_or_after_stopping(jobs: Jobs, supervisor: Supervisor) -> None:
    supervisor.fail(StoreError("disk full"))
    supervisor.reconcile("a", BOTH)
    await _settle()
    assert jobs.started == []
    stopped = Supervisor(jobs, FakeClock(), jobs.put_aside, jobs.look_again)
    await stopped.stop()
    stopped.reconcile("a", BOTH)
    await _settle()
    assert jobs.started == []


async def test_stopping_waits_for_what_still_cleans_up(jobs: Jobs, supervisor: Supervisor) -> None:
    async def clean_up_slowly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(3)

    jobs.do = clean_up_slowly
    supervisor.reconcile("a", BOTH)
    await _settle()
    supervisor.reconcile("a", frozenset({Duty.PAY}))
    await _settle()
    await supervisor.stop()
    assert jobs.running == []


def test_a_backoff_grows_to_its_last_wait_and_begins_anew_after_a_success() -> None:
    backoff = Backoff((1, 2, 4))
    assert [backoff.next_s() for _ in range(5)] == [1, 2, 4, 4, 4]
    backoff.reset()
    assert backoff.next_s() == 1


async def test_a_question_is_asked_when_the_scheduler_says_so_and_once_at_a_time(
    jobs: Jobs, supervisor: Supervisor
) -> None:
    supervisor.reconcile("a", frozenset({Duty.POLL}))
    await _settle()
    assert jobs.running == []
    assert supervisor.ask("a") is not None
    assert supervisor.ask("a") is None
    await _settle()
    assert jobs.running == [("a", Duty.POLL)]
    supervisor.reconcile("a", NONE)
    await _settle()
    assert jobs.running == []


async def test_no_question_is_asked_any_more_once_all_is_stopped(supervisor: Supervisor) -> None:
    await supervisor.stop()
    assert supervisor.ask("a") is None
