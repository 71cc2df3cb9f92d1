"""When exactly a task that died begins again, and what is told of it."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from holdpay.core.duties import Duty
from holdpay.engine.supervisor import RESTART_AFTER_S, Supervisor
from holdpay.errors import InvariantViolation, StoreError
from tests.fakes import FakeClock
from tests.unit.engine.test_supervisor import NONE, Jobs

PAY = frozenset({Duty.PAY})


class StillClock(FakeClock):
    """A wall clock that stands still until a test sets it."""

    def __init__(self) -> None:
        super().__init__()
        self.at_ms = self.offset_ms

    def now_ms(self) -> int:
        return self.at_ms


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def supervisor(jobs: Jobs, clock: StillClock) -> Supervisor:
    return Supervisor(jobs, clock, jobs.put_aside, jobs.look_again)


async def _settle() -> None:
    await asyncio.sleep(0.001)


async def _dead(jobs: Jobs, supervisor: Supervisor, error: Exception) -> None:
    """The task of ``PAY`` for order a has died of it just now."""

    async def die() -> None:
        raise error

    jobs.do = die
    supervisor.reconcile("a", PAY)
    await _settle()
    jobs.do = jobs.wait_for_ever


@pytest.mark.parametrize(
    ("after_ms", "starts"),
    [(0, 1), (1, 1), (RESTART_AFTER_S * 1000 - 1, 1), (RESTART_AFTER_S * 1000, 2), (-1, 2)],
)
async def test_what_died_begins_again_after_its_wait_to_the_millisecond_or_when_the_clock_was_set_back(
    jobs: Jobs, supervisor: Supervisor, clock: StillClock, after_ms: int, starts: int
) -> None:
    await _dead(jobs, supervisor, ZeroDivisionError())
    clock.at_ms += after_ms
    supervisor.reconcile("a", PAY)
    await _settle()
    assert len(jobs.started) == starts
    await supervisor.stop()


async def test_what_died_keeps_nothing_else_waiting(jobs: Jobs, supervisor: Supervisor) -> None:
    await _dead(jobs, supervisor, ZeroDivisionError())
    supervisor.reconcile("b", PAY)
    supervisor.reconcile("a", PAY | {Duty.CANCEL})
    await _settle()
    assert sorted(jobs.running) == [("a", Duty.CANCEL), ("b", Duty.PAY)]
    await supervisor.stop()


async def test_what_died_and_was_not_wanted_meanwhile_begins_at_once(jobs: Jobs, supervisor: Supervisor) -> None:
    await _dead(jobs, supervisor, ZeroDivisionError())
    supervisor.reconcile("a", NONE)
    supervisor.reconcile("a", PAY)
    await _settle()
    assert jobs.running == [("a", Duty.PAY)]
    await supervisor.stop()


async def test_a_question_that_died_is_not_asked_again_before_its_wait_is_over(
    jobs: Jobs, supervisor: Supervisor, clock: StillClock
) -> None:
    async def die() -> None:
        raise ZeroDivisionError

    jobs.do = die
    assert supervisor.ask("a") is not None
    await _settle()
    assert supervisor.ask("a") is None
    clock.at_ms += RESTART_AFTER_S * 1000
    assert supervisor.ask("a") is not None
    await supervisor.stop()


async def test_of_a_question_that_has_ended_only_the_scheduler_hears(jobs: Jobs, supervisor: Supervisor) -> None:
    jobs.do = lambda: asyncio.sleep(0)
    supervisor.ask("a")
    await _settle()
    assert jobs.again == []
    assert supervisor.ask("a") is not None, "and it can be asked again"
    await supervisor.stop()


async def test_a_defect_of_ours_puts_no_order_aside_and_ends_nothing(
    jobs: Jobs, supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    await _dead(jobs, supervisor, ZeroDivisionError())
    await supervisor.failure(1)
    assert jobs.aside == []
    assert "a task failed" in capsys.readouterr().out


async def test_a_task_that_is_over_or_was_stopped_is_no_failure(
    jobs: Jobs, supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor.reconcile("a", PAY)
    await _settle()
    supervisor.reconcile("a", NONE)
    jobs.do = lambda: asyncio.sleep(0)
    supervisor.reconcile("b", PAY)
    await _settle()
    assert jobs.aside == []
    assert "a task failed" not in capsys.readouterr().out


async def test_once_the_process_must_end_no_order_is_put_aside(jobs: Jobs, supervisor: Supervisor) -> None:
    ready = asyncio.Event()

    async def die_later() -> None:
        await ready.wait()
        raise InvariantViolation("two truths")

    jobs.do = die_later
    supervisor.reconcile("a", PAY)
    await _settle()
    supervisor.fail(StoreError("disk full"))
    ready.set()
    await _settle()
    assert jobs.aside == []


async def test_a_task_that_fails_while_it_is_stopped_is_logged_and_nothing_is_looked_at_again(
    jobs: Jobs, supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    async def clean_up_badly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ZeroDivisionError

    jobs.do = clean_up_badly
    supervisor.reconcile("a", PAY)
    await _settle()
    supervisor.reconcile("a", NONE)
    await _settle()
    assert jobs.again == []
    assert "a task failed" in capsys.readouterr().out


async def test_a_newer_task_of_the_same_duty_outlives_the_end_of_the_one_that_was_stopped(
    jobs: Jobs, supervisor: Supervisor
) -> None:

    async def clean_up_slowly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            jobs.running.remove(("a", Duty.PAY))
            await asyncio.sleep(1)
            jobs.running.append(("a", Duty.PAY))

    jobs.do = clean_up_slowly
    supervisor.reconcile("a", PAY)
    await _settle()
    supervisor.reconcile("a", NONE)
    await _settle()
    jobs.do = jobs.wait_for_ever
    supervisor.reconcile("a", PAY)
    await asyncio.sleep(0.5)
    await asyncio.sleep(1)
    supervisor.reconcile("a", PAY)
    await _settle()
    assert (len(jobs.started), jobs.again) == (2, [])
    await supervisor.stop()
    assert jobs.running == []


async def test_a_failure_that_came_before_anybody_waited_is_raised_at_once(supervisor: Supervisor) -> None:
    supervisor.check()
    supervisor.fail(StoreError("disk full"))
    began_s = asyncio.get_running_loop().time()
    with pytest.raises(StoreError):
        await supervisor.failure(5)
    with pytest.raises(StoreError):
        supervisor.check()
    assert asyncio.get_running_loop().time() == began_s


async def test_a_task_that_is_among_those_that_made_the_change_ends_by_itself_and_the_others_are_stopped(
    jobs: Jobs, supervisor: Supervisor
) -> None:
    supervisor.reconcile("a", PAY | {Duty.CANCEL})
    await _settle()
    (own,) = (task for task in asyncio.all_tasks() if task.get_name().startswith(Duty.PAY.value))
    supervisor.reconcile("a", NONE, own={own, None})
    await _settle()
    assert jobs.running == [("a", Duty.PAY)]
    await supervisor.stop()
    assert jobs.running == []


async def test_stopping_waits_for_what_was_stopped_before_and_still_cleans_up(
    jobs: Jobs, supervisor: Supervisor
) -> None:
    async def clean_up_slowly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.shield(asyncio.sleep(3))

    jobs.do = clean_up_slowly
    supervisor.reconcile("a", PAY)
    await _settle()
    supervisor.reconcile("a", NONE)
    await _settle()
    assert jobs.running == [("a", Duty.PAY)]
    await supervisor.stop()
    assert jobs.running == []


async def test_a_task_is_called_by_its_duty_and_its_order(jobs: Jobs, supervisor: Supervisor) -> None:
    task = supervisor.ask("a")
    assert task is not None
    assert task.get_name() == "poll a"
    await supervisor.stop()


async def test_of_a_task_that_was_stopped_and_has_ended_nothing_is_kept(jobs: Jobs, supervisor: Supervisor) -> None:
    task = supervisor.ask("a")
    assert task is not None
    kept = weakref.ref(task)
    del task
    await _settle()
    supervisor.reconcile("a", NONE)
    await _settle()
    gc.collect()
    assert kept() is None
