"""The scheduler of questions: whose turn it is, how many there are, and that none is forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from random import Random

import pytest_asyncio

from holdpay.core.items import Item, ItemKind
from holdpay.core.model import Order
from holdpay.core.states import HtlcState, OrderState
from holdpay.engine.asking import HABIT_S, Asker
from holdpay.errors import ProviderUnavailable
from holdpay.sms4sats.rate import RateLimiter
from tests.fakes import FakeClock
from tests.unit.build import NOW_MS, POLICY, pair

PAID, NUMBER, CANCELED = OrderState.PAID, OrderState.NUMBER_ASSIGNED, OrderState.CANCELED
IN_FLIGHT, SETTLED = HtlcState.IN_FLIGHT, HtlcState.SETTLED


@dataclass(slots=True)
class Desk:
    """A scheduler, and a provider that takes ``answer_s`` for each answer."""

    clock: FakeClock
    budget: RateLimiter
    asker: Asker = field(init=False)
    asked: list[tuple[float, str]] = field(default_factory=list)
    answer_s: float = 0.1
    error: ProviderUnavailable | None = None
    defect: bool = False

    def __post_init__(self) -> None:
        self.asker = Asker(
            self, begin=self.begin, slot=self.budget.slot, policy=POLICY, clock=self.clock, rng=Random(1)
        )

    def begin(self, order_id: str) -> asyncio.Task[None] | None:
        return asyncio.create_task(self.ask(order_id))

    async def ask(self, order_id: str) -> None:
        self.asked.append((asyncio.get_running_loop().time(), order_id))
        self.asker.asking(order_id)
        await asyncio.sleep(self.answer_s)
        self.asker.answered(order_id, self.error)

    def is_watched(self, order: Order) -> bool:
        return False

    def is_told(self, order: Order) -> bool:
        return False

    def names(self) -> list[str]:
        return [order_id for _, order_id in self.asked]


@pytest_asyncio.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk(FakeClock(), RateLimiter(FakeClock(), 20))
    made.asker.start()
    yield made
    await made.asker.close()
    await made.budget.aclose()


def an_order(name: str, state: OrderState, htlc: HtlcState, *, since_s: float = 0) -> Order:
    since_ms = NOW_MS + int(since_s * 1000)
    return replace(pair(state, htlc, state_since_ms=since_ms, htlc_since_ms=since_ms), id=name)


async def test_each_order_is_asked_about_again_and_again(desk: Desk) -> None:
    for number in range(8):
        desk.asker.want(an_order(str(number), PAID, IN_FLIGHT))
    await asyncio.sleep(60)
    counts = Counter(desk.names())
    assert set(counts) == {str(number) for number in range(8)}
    assert min(counts.values()) >= 10


async def test_what_settled_is_asked_about_at_once_however_many_others_wait(desk: Desk) -> None:
    for number in range(500):
        desk.asker.want(an_order(str(number), PAID, IN_FLIGHT))
    await asyncio.sleep(60)
    desk.asker.want(an_order("7", PAID, SETTLED, since_s=60))
    settled_s = asyncio.get_running_loop().time()
    await asyncio.sleep(2)
    assert min(at_s for at_s, name in desk.asked if name == "7" and at_s >= settled_s) < settled_s + 0.6


async def test_questions_that_only_look_keep_to_the_habit_of_one_an_order_in_five_seconds(desk: Desk) -> None:
    for number in range(50):
        desk.asker.want(an_order(str(number), PAID, SETTLED, since_s=-1))
        desk.asker.want(an_order(str(number), PAID, IN_FLIGHT))
    await asyncio.sleep(15)
    desk.asked.clear()
    await asyncio.sleep(20)
    assert len(desk.asked) <= 20 * 50 / HABIT_S + 5


async def test_the_budget_is_never_exceeded_and_nobody_starves(desk: Desk) -> None:
    for number in range(400):
        state = (PAID, NUMBER, CANCELED)[number % 3]
        desk.asker.want(an_order(str(number), state, IN_FLIGHT))
    await asyncio.sleep(120)
    assert len(desk.asked) <= 20 * 120 + 20
    assert len(desk.asked) >= 20 * 100
    counts = Counter(desk.names())
    assert len(counts) == 400
    assert min(counts.values()) >= 2


async def test_the_number_goes_before_the_refund(desk: Desk) -> None:
    desk.answer_s = 0
    for number in range(200):
        desk.asker.want(an_order(f"refund {number}", CANCELED, IN_FLIGHT, since_s=-15))
        desk.asker.want(an_order(f"number {number}", PAID, IN_FLIGHT, since_s=-15))
    await asyncio.sleep(8)
    counts = Counter(name.split()[0] for name in desk.names())
    assert counts["number"] > 2 * counts["refund"]


async def test_an_order_that_is_forgotten_is_asked_about_no_more(desk: Desk) -> None:
    desk.asker.want(an_order("a", PAID, IN_FLIGHT))
    await asyncio.sleep(30)
    desk.asker.forget("a")
    count = len(desk.asked)
    assert not desk.asker.is_asked_about("a")
    await asyncio.sleep(60)
    assert len(desk.asked) == count


async def test_a_hint_makes_a_question_at_once(desk: Desk) -> None:
    desk.asker.want(an_order("a", CANCELED, IN_FLIGHT))
    await asyncio.sleep(7)
    desk.asked.clear()
    desk.asker.hint("a")
    await asyncio.sleep(1)
    assert desk.names() == ["a"]
    await asyncio.sleep(3)
    assert desk.names() == ["a"], "and one only"


async def test_a_provider_that_does_not_answer_is_asked_less_and_less(desk: Desk) -> None:
    desk.asker.want(an_order("a", PAID, IN_FLIGHT))
    desk.error = ProviderUnavailable("It is down.")
    await asyncio.sleep(600)
    gaps = [later - sooner for (sooner, _), (later, _) in zip(desk.asked, desk.asked[1:], strict=False)]
    assert gaps[-1] > 55
    desk.error = None
    await asyncio.sleep(70)
    desk.asked.clear()
    await asyncio.sleep(100)
    assert len(desk.asked) > 5


async def test_a_pause_holds_up_what_is_due_and_what_is_owed_goes_first(desk: Desk) -> None:
    desk.asker.want(an_order("held", PAID, IN_FLIGHT))
    desk.asker.want(an_order("owed", PAID, SETTLED))
    desk.budget.pause(30)
    await asyncio.sleep(29)
    assert desk.asked == []
    await asyncio.sleep(2)
    assert desk.names()[:2] == ["owed", "held"]


async def test_the_habit_of_a_market_is_learned_from_the_numbers_that_come(desk: Desk) -> None:
    before = an_order("a", PAID, IN_FLIGHT)
    assert before.payment is not None
    before = replace(before, payment=replace(before.payment, money_out_since_ms=NOW_MS))
    market = before.spec.market
    assert market is not None
    desk.asker.want(before)
    number = Item(kind=ItemKind.NUMBER, text="15551234567", seen_at_ms=NOW_MS + 17_000)
    desk.asker.want(replace(before, state=NUMBER, items=(number,)))
    (arrivals,) = desk.asker.learned.by_market.values()
    assert arrivals.counts[4] > desk.asker.learned.numbers("another").counts[4]


async def test_how_many_wait_is_told(desk: Desk) -> None:
    desk.budget.pause(60)
    for number in range(30):
        desk.asker.want(an_order(str(number), CANCELED, IN_FLIGHT))
    await asyncio.sleep(30)
    assert desk.asker.due_count() == 30
    await asyncio.sleep(60)
    assert desk.asker.due_count() == 0
