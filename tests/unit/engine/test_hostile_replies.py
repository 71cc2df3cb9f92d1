"""Whatever the provider replies while money is out: the order stays open and watched, the reply is in its journal."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdpay.core.duties import Duty
from holdpay.core.events import ProviderStatus
from holdpay.core.machine import MAX_ANOMALIES
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.engine.performers import MAX_CANCEL_REPLIES
from holdpay.errors import ProviderError
from holdpay.ports import Reply
from holdpay.sms4sats import parse
from holdpay.sms4sats.client import MAX_ORDER_BYTES
from holdpay.sms4sats.parse import Answer
from holdpay.store.journal import RAW_LIMIT_BYTES
from tests.contract import hostile
from tests.fakes import FakeProvider, Story
from tests.spoiling import look
from tests.unit.engine.world import World
from tests.virtual_loop import VirtualLoop

T = TypeVar("T")

HELD_FOR_EVER = Story(number_after_s=None, code_after_s=None)
HTTP_STATUSES = [200] * 12 + [204, 302, 400, 404, 429, 500, 503]

_RAWS = "SELECT raw, raw_sha256 FROM journal LEFT JOIN replies USING (cursor) WHERE order_id = ?"


class HostileProvider(FakeProvider):
    """Once it has ``answers`` it gives them one by one, the last one for ever, and they are read as the client does."""

    answers: tuple[Answer, ...] = ()
    answered = 0
    only_cancels = False

    async def order_status(self, provider_order_id: str) -> Reply[ProviderStatus]:
        if self.only_cancels:
            return await super().order_status(provider_order_id)
        return self._read(parse.order_status) or await super().order_status(provider_order_id)

    async def cancel(self, provider_order_id: str) -> Reply[None]:
        return self._read(parse.cancel_accepted) or await super().cancel(provider_order_id)

    def _read(self, read: Callable[[Answer], T]) -> Reply[T] | None:
        if not self.answers:
            return None
        answer = self.answers[min(self.answered, len(self.answers) - 1)]
        self.answered += 1
        return Reply(read(answer), answer.raw)


@dataclass(slots=True)
class Held:
    """An order whose HTLC is held, and a provider that has said so."""

    world: World
    provider: HostileProvider
    order_id: str

    @property
    def watched_by(self) -> set[Duty]:
        running = {task.get_name() for task in asyncio.all_tasks() if not task.done()}
        asked = {Duty.POLL} if self.world.engine.asker.is_asked_about(self.order_id) else set()
        return asked | {duty for duty in Duty if f"{duty.value} {self.order_id}" in running}

    def journal(self) -> set[tuple[str | None, str | None]]:
        """The raw replies, cut, with the hash of the whole."""
        rows = look(self.world.store._conn, _RAWS, self.order_id)
        return {(row["raw"], row["raw_sha256"]) for row in rows}


async def hold(path: Path) -> Held:
    world = World(path, HELD_FOR_EVER)
    world.provider = provider = HostileProvider(world.clock, world.lnd, HELD_FOR_EVER)
    world.start()
    world.store._conn.execute("PRAGMA synchronous = OFF")  # nothing crashes here
    order_id = world.request()
    await world.until(lambda: world.order(order_id).state is OrderState.PAID)
    return Held(world, provider, order_id)


def as_journaled(answer: Answer) -> tuple[str, str]:
    whole = answer.raw.encode()
    return whole[:RAW_LIMIT_BYTES].decode(errors="ignore"), hashlib.sha256(whole).hexdigest()


def tells_something(answer: Answer) -> bool:
    """Whether it is more of an order for a code than what a paid one without a number has said before."""
    try:
        said = parse.order_status(answer)
    except ProviderError:
        return True
    return replace(said, send_status=None, messages=()) != ProviderStatus(is_paid=True)


async def run_the_gauntlet(path: Path, answers: list[Answer], *, wants_cancel: bool) -> None:
    held = await hold(path)
    world, order_id = held.world, held.order_id
    held.provider.answers = tuple(answers)
    if wants_cancel:
        await world.engine.cancel(order_id)

    await world.until(
        lambda: held.provider.answered > len(answers) or world.order(order_id).state is OrderState.DELIVERED
    )
    await asyncio.sleep(200)

    order = world.order(order_id)
    assert not order.is_closed
    assert order.htlc is HtlcState.IN_FLIGHT
    assert order.payment is not None
    assert order.payment.dispatch_count == 1
    expected = {Duty.PAY} if order.state is OrderState.DELIVERED else {Duty.PAY, Duty.POLL}
    assert held.watched_by >= expected
    if tells_something(answers[0]) and not wants_cancel:
        assert as_journaled(answers[0]) in held.journal()

    held.provider.answers = ()
    theirs = world.theirs
    theirs.status = ProviderStatus(is_paid=True, code="424242")
    world.lnd.settle(theirs.payment_hash, theirs.preimage)
    closed = await world.until_closed(order_id)
    assert (closed.end, closed.htlc) == (End.FULFILLED, HtlcState.SETTLED)
    assert closed.code == (order.code or "424242")
    await world.close()


BODIES = st.one_of(
    hostile.mutated_text("orderstatus*").map(lambda text: text.encode("utf-8", "surrogatepass")),
    hostile.bodies("orderstatus*"),
).map(lambda body: body[:MAX_ORDER_BYTES])
ANSWERS = st.builds(Answer, st.sampled_from(HTTP_STATUSES), BODIES)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(answers=st.lists(ANSWERS, min_size=1, max_size=4), wants_cancel=st.booleans())
def test_whatever_is_replied_the_order_stays_open_and_watched_and_the_reply_is_journaled(
    tmp_path_factory: pytest.TempPathFactory, answers: list[Answer], wants_cancel: bool
) -> None:
    path = tmp_path_factory.mktemp("hostile") / "holdpay.db"
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run_the_gauntlet(path, answers, wants_cancel=wants_cancel))


# --- one by one -----------------------------------------------------------------------------------------------------

BUSY = Answer(503, b"<html>busy</html>")
NO = Answer(200, b'{"status":"error","reason":"too late"}')


@pytest_asyncio.fixture
async def held(tmp_path: Path) -> AsyncIterator[Held]:
    made = await hold(tmp_path / "holdpay.db")
    yield made
    await made.world.close()


def rows_with(held: Held, answer: Answer) -> int:
    wanted = as_journaled(answer)
    rows = look(held.world.store._conn, _RAWS, held.order_id)
    return sum((row["raw"], row["raw_sha256"]) == wanted for row in rows)


async def test_an_error_of_the_providers_own_is_journaled_once_until_it_answers_again(held: Held) -> None:
    held.provider.answers = (BUSY,)
    await asyncio.sleep(1800)
    assert rows_with(held, BUSY) == 1
    held.provider.answers = ()
    await asyncio.sleep(120)
    held.provider.answers = (BUSY,)
    await asyncio.sleep(600)
    assert rows_with(held, BUSY) == 2


async def test_an_error_page_that_is_new_each_time_is_journaled_once(held: Held) -> None:
    pages = [Answer(502, f"<html>incident {n}</html>".encode()) for n in range(200)]
    held.provider.answers = tuple(pages)
    await asyncio.sleep(1800)
    assert sum(rows_with(held, page) for page in pages) == 1


ODD_CODE = Answer(200, b'{"status":"OK","paid":true,"number":"12025550101","code":{"sms":"48010"}}')
NO_JSON = Answer(200, b"Your code is 48010")
LOGIN_PAGE = Answer(200, b"<html>log in to the network</html>")


@pytest.mark.parametrize("answer", [ODD_CODE, NO_JSON], ids=["a code of a strange type", "no JSON"])
async def test_a_reply_that_only_a_person_can_read_is_kept_and_journaled_once_and_never_logged(
    held: Held, answer: Answer, capfd: pytest.CaptureFixture[str]
) -> None:
    held.provider.answers = (answer,)
    await asyncio.sleep(120)
    order = held.world.order(held.order_id)
    assert (order.unread, order.is_closed) == ((answer.raw,), False)
    rows = look(
        held.world.store._conn, "SELECT notes FROM journal JOIN replies USING (cursor) WHERE raw = ?", answer.raw
    )
    assert rows
    assert all(row["notes"] != "[]" and "48010" not in row["notes"] for row in rows)
    if answer is ODD_CODE:
        assert rows_with(held, answer) == 1
    assert "48010" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("answer", [LOGIN_PAGE, NO, Answer(200, b" "), Answer(302, b"gone")])
async def test_a_reply_that_holds_nothing_of_the_order_is_not_shown_for_its_own(held: Held, answer: Answer) -> None:
    held.provider.answers = (answer,)
    await asyncio.sleep(120)
    assert held.world.order(held.order_id).unread == ()


async def test_silence_is_not_journaled(held: Held) -> None:
    before = held.world.store.last_cursor()
    held.provider.go_down()
    await asyncio.sleep(600)
    assert held.world.store.last_cursor() == before


async def test_an_answer_to_a_cancel_is_journaled_and_the_same_one_is_kept_raw_once(held: Held) -> None:
    held.provider.only_cancels = True
    held.provider.answers = (NO,)
    await held.world.engine.cancel(held.order_id)
    await asyncio.sleep(600)
    assert held.world.events(held.order_id).count("cancel_answered") > 5
    assert rows_with(held, NO) == 1


async def test_a_flood_of_replies_that_are_all_new_fills_no_disk(held: Held) -> None:
    held.provider.answers = tuple(
        Answer(status, json.dumps({"status": "error", "reason": f"no {n}", "x": "y" * 60_000}).encode())
        for n in range(500)
        for status in (200, 503)
    )
    await held.world.engine.cancel(held.order_id)
    await asyncio.sleep(4 * 3600)
    assert held.provider.answered > 150
    ((kept_bytes,),) = look(held.world.store._conn, "SELECT sum(length(raw)) FROM replies")
    assert kept_bytes < (MAX_ANOMALIES + MAX_CANCEL_REPLIES + 10) * RAW_LIMIT_BYTES
    assert held.watched_by == {Duty.PAY, Duty.POLL, Duty.CANCEL}
