"""The scheduler of questions to the millisecond: when each is asked, in which lane, and what becomes of its slot.

What is to be asked when is scripted here; ``core.asking`` is another matter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from random import Random

import pytest
import pytest_asyncio

from holdpay.core.asking import Learned, Question
from holdpay.core.items import Item, ItemKind
from holdpay.core.model import Order
from holdpay.core.policy import Policy
from holdpay.core.states import HtlcState, OrderState
from holdpay.engine import asking
from holdpay.engine.asking import Asker
from holdpay.errors import ProviderError, ProviderRefused, ProviderUnavailable
from holdpay.ports import Lane
from tests.fakes import START_MS, FakeClock
from tests.unit.build import NOW_MS, POLICY, pair

Script = Callable[[int | None, int], Question]
"""The question, from when the provider was asked last and what time it is; both in milliseconds from the start."""

DOWN = ProviderUnavailable("It is down.")


class Bounds(Random):
    """Draws one bound of whatever it is asked for."""

    is_lower = False

    def uniform(self, a: float, b: float) -> float:
        return min(a, b) if self.is_lower else max(a, b)


@dataclass(slots=True)
class Slot:
    """One of the budget, and what became of it."""

    lane: Lane
    at_s: float
    became: list[str] = field(default_factory=list)

    def done(self) -> None:
        self.became.append("done")

    def give_back(self) -> None:
        self.became.append("given back")

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def look(at_ms: int, patience_s: float = 0) -> Script:
    """Once, at that time."""
    return lambda asked_ms, now_ms: Question(at_ms=at_ms if asked_ms is None else 10**9, patience_s=patience_s)


def news(at_ms: int) -> Script:
    return lambda asked_ms, now_ms: Question(at_ms=at_ms if asked_ms is None else 10**9, is_news=True)


def always(asked_ms: int | None, now_ms: int) -> Question:
    """At once, again and again."""
    return Question(at_ms=now_ms, is_news=True)


@dataclass(slots=True)
class Office:
    """A scheduler, and all that it speaks with."""

    clock: FakeClock = field(default_factory=FakeClock)
    chance: Bounds = field(default_factory=Bounds)
    asker: Asker = field(init=False)
    scripts: dict[str, Script] = field(default_factory=dict)
    asked: list[tuple[float, str]] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """Slots are there."""
    slot_s: float = 0.0
    """Until the next one is."""
    answer_s: float = 0.0
    error: ProviderError | None = None
    refuses: bool = False
    defect: Exception | None = None
    counted: list[int] = field(default_factory=list)
    """What is due besides each question when it begins."""
    saw: list[tuple[int | None, bool, bool]] = field(default_factory=list)
    """When it was asked last, whether somebody follows it, whether the provider tells: what made each question."""
    watched: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.open.set()
        self.asker = Asker(self, begin=self.begin, slot=self.slot, policy=POLICY, clock=self.clock, rng=self.chance)

    async def slot(self, lane: Lane) -> Slot:
        await self.open.wait()
        if self.slot_s:
            await asyncio.sleep(self.slot_s)
        self.slots.append(Slot(lane, self.now_s))
        return self.slots[-1]

    def begin(self, order_id: str) -> asyncio.Task[None] | None:
        self.counted.append(self.asker.due_count())
        if self.defect is not None:
            raise self.defect
        return None if self.refuses else asyncio.create_task(self.ask(order_id))

    async def ask(self, order_id: str) -> None:
        self.asked.append((self.now_s, order_id))
        self.asker.asking(order_id)
        await asyncio.sleep(self.answer_s)
        self.asker.answered(order_id, self.error)

    def is_watched(self, order: Order) -> bool:
        return order.id in self.watched

    def is_told(self, order: Order) -> bool:
        return order.id in self.told

    def question(
        self,
        order: Order,
        asked_at_ms: int | None,
        policy: Policy,
        now_ms: int,
        *,
        learned: Learned,
        is_watched: bool,
        is_told: bool,
    ) -> Question:
        assert policy is POLICY
        assert learned is self.asker.learned
        asked_ms = None if asked_at_ms is None else asked_at_ms - START_MS
        self.saw.append((asked_ms, is_watched, is_told))
        question = self.scripts[order.id](asked_ms, now_ms - START_MS)
        return replace(question, at_ms=question.at_ms + START_MS)

    def want(self, name: str, script: Script, order: Order | None = None) -> None:
        self.scripts[name] = script
        self.asker.want(replace(order or HELD, id=name))

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def names(self) -> list[str]:
        return [name for _, name in self.asked]

    @property
    def times_s(self) -> list[float]:
        return [round(at_s, 3) for at_s, _ in self.asked]

    @property
    def lanes(self) -> list[Lane]:
        return [slot.lane for slot in self.slots]


HELD = pair(OrderState.PAID, HtlcState.IN_FLIGHT)
OWED = pair(OrderState.PAID, HtlcState.SETTLED)


@pytest_asyncio.fixture
async def office(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Office]:
    made = Office()
    monkeypatch.setattr(asking, "next_question", made.question)
    made.asker.start()
    yield made
    await made.asker.close()


# --- when -----------------------------------------------------------------------------------------------------------


async def test_what_the_provider_knows_for_sure_is_asked_to_the_millisecond(office: Office) -> None:
    office.want("a", news(100_000))
    await asyncio.sleep(200)
    assert (office.times_s, office.lanes) == ([100], [Lane.NEWS])


async def test_what_only_looks_is_late_by_up_to_a_tenth_of_its_wait_and_never_early(office: Office) -> None:
    office.want("a", look(100_000))
    office.want("b", look(500))
    await asyncio.sleep(200)
    assert (office.times_s, office.lanes) == ([0.55, 110], [Lane.LOOK, Lane.LOOK])
    office.chance.is_lower = True
    office.want("c", look(300_000))
    await asyncio.sleep(200)
    assert office.asked[-1] == (300, "c")


async def test_what_is_overdue_is_asked_at_once_what_waited_longest_first(office: Office) -> None:
    await asyncio.sleep(1)
    office.want("a", look(480))
    office.chance.is_lower = True
    office.want("b", look(470))
    await asyncio.sleep(1)
    assert office.asked == [(1, "b"), (1, "a")]


async def test_of_what_is_due_the_one_with_the_least_patience_is_asked_first(office: Office) -> None:
    office.want("a", look(0, patience_s=10))
    office.want("b", look(0, patience_s=2))
    office.want("c", look(0, patience_s=5))
    await asyncio.sleep(1)
    assert office.names == ["b", "c", "a"]


async def test_when_all_fall_due_at_once_the_loop_runs_between_a_hundred_and_the_next_and_the_most_urgent_is_first(
    office: Office,
) -> None:
    for n in range(1_000):
        office.want(f"order{n}", look(0, patience_s=1_000 - n))
    seen, most = len(office.saw), 0
    while len(office.slots) < 1:
        await asyncio.sleep(0)
        most, seen = max(most, len(office.saw) - seen), len(office.saw)
    assert seen == 2 * 1_000
    assert most == asking.WEIGHED_AT_ONCE
    await asyncio.sleep(0.1)
    assert office.names[0] == "order999"


async def test_an_earlier_question_is_not_kept_waiting_by_later_ones(office: Office) -> None:
    for name, at_ms in (("a", 100_000), ("b", 200_000), ("c", 300_000)):
        office.want(name, news(at_ms))
    await asyncio.sleep(10)
    office.want("d", news(50_000))
    await asyncio.sleep(300)
    assert office.asked == [(50, "d"), (100, "a"), (200, "b"), (300, "c")]


async def test_a_later_question_wakes_nobody_and_is_not_forgotten(office: Office) -> None:
    office.want("a", news(10_000))
    await asyncio.sleep(1)
    office.want("b", news(20_000))
    await asyncio.sleep(30)
    assert office.asked == [(10, "a"), (20, "b")]


async def test_a_wall_clock_that_is_set_back_meanwhile_makes_a_question_later_and_not_wrong(office: Office) -> None:
    office.want("a", news(10_000))
    await asyncio.sleep(1)
    office.clock.offset_ms -= 5_000
    await asyncio.sleep(30)
    assert office.times_s == [15]


@pytest.mark.parametrize(("before", "lane"), [(False, Lane.NEWS), (True, Lane.LOOK)])
async def test_a_question_is_asked_in_the_lane_of_what_it_is_by_its_time(
    office: Office, before: bool, lane: Lane
) -> None:
    def changing(asked_ms: int | None, now_ms: int) -> Question:
        return Question(at_ms=5_000 if asked_ms is None else 10**9, is_news=before if now_ms < 5_000 else not before)

    office.want("a", changing)
    await asyncio.sleep(10)
    assert (office.times_s, office.lanes) == ([5 if before else 5.5], [lane])


async def test_a_person_who_begins_to_follow_an_order_makes_its_question_earlier(office: Office) -> None:
    def sooner_for_a_person(asked_ms: int | None, now_ms: int) -> Question:
        at_ms = 5_000 if "a" in office.watched else 100_000
        return Question(at_ms=at_ms if asked_ms is None else 10**9, is_news=True)

    office.want("a", sooner_for_a_person)
    assert office.saw[-1] == (None, False, False)
    await asyncio.sleep(1)
    office.watched.add("a")
    office.asker.look_again("a")
    assert office.saw[-1] == (None, True, False)
    office.asker.look_again("nobody's")
    await asyncio.sleep(10)
    assert office.times_s == [5]
    office.told.add("a")
    office.asker.look_again("a")
    assert office.saw[-1:] == [(5_000, True, True)]


async def test_an_order_that_is_wanted_as_it_was_is_not_planned_anew(office: Office) -> None:
    office.want("a", news(5_000))
    order = office.asker._entries["a"].order
    count = len(office.saw)
    office.asker.want(order)
    assert len(office.saw) == count


# --- one at a time --------------------------------------------------------------------------------------------------


async def test_one_order_has_one_question_at_a_time_whatever_happens_meanwhile(office: Office) -> None:
    office.answer_s = 10
    office.want("a", always)
    await asyncio.sleep(1)
    office.asker.hint("a")
    office.asker.look_again("a")
    office.want("a", always, OWED)
    await asyncio.sleep(8)
    assert office.names == ["a"]
    await asyncio.sleep(2)
    assert office.times_s == [0, 10]


async def test_an_order_that_is_planned_anew_again_and_again_is_asked_about_once(office: Office) -> None:
    office.slot_s = 1
    office.answer_s = 0.1

    def every_ten_s(asked_ms: int | None, now_ms: int) -> Question:
        return Question(at_ms=0 if asked_ms is None else asked_ms + 10_000, is_news=True)

    office.want("a", every_ten_s)
    for _ in range(3):
        office.asker.look_again("a")
    await asyncio.sleep(1.05)
    office.asker.look_again("a")
    await asyncio.sleep(11)
    assert office.times_s == [1, 12]


async def test_an_order_that_was_planned_anew_has_its_turn_once_and_behind_those_before_it(office: Office) -> None:
    office.slot_s = 1
    office.answer_s = 0.1
    office.want("a", news(0))
    office.want("b", news(0))
    office.asker.look_again("a")
    await asyncio.sleep(10)
    assert office.asked == [(1, "b"), (2, "a")]


async def test_an_order_that_is_wanted_again_while_it_is_asked_about_is_an_order_like_any_other(
    office: Office,
) -> None:
    office.answer_s = 3
    office.want("a", news(0))
    await asyncio.sleep(1)
    office.asker.forget("a")
    office.want("a", lambda asked_ms, now_ms: Question(at_ms=60_000 if now_ms <= 60_000 else 10**9, is_news=True))
    await asyncio.sleep(100)
    assert office.times_s == [0, 60]


# --- slots ----------------------------------------------------------------------------------------------------------


async def test_after_a_silence_five_look_at_once_and_then_two_a_second(office: Office) -> None:
    for number in range(8):
        office.want(str(number), look(0))
    await asyncio.sleep(60)
    assert office.times_s == [0, 0, 0, 0, 0, 0.5, 1, 1.5]
    for number in range(8):
        office.asker.forget(str(number))
        office.want(f"again {number}", look(0))
    await asyncio.sleep(10)
    assert office.times_s[8:] == [60, 60, 60, 60, 60, 60.5, 61, 61.5]


async def test_of_many_orders_so_many_look_in_a_second_that_each_has_its_turn_in_five(office: Office) -> None:
    for number in range(20):
        office.want(str(number), look(0))
    await asyncio.sleep(60)
    assert office.times_s == [0] * 5 + [number / 4 for number in range(1, 16)]


async def test_what_is_known_for_sure_does_not_keep_to_the_pace_of_what_looks(office: Office) -> None:
    for number in range(30):
        office.want(f"look {number}", look(0))
        office.want(f"news {number}", news(0))
    await asyncio.sleep(0.1)
    assert sum(name.startswith("news") for name in office.names) == 30


async def test_who_has_a_slot_is_decided_when_it_is_there(office: Office) -> None:
    office.open.clear()
    office.want("patient", look(0, patience_s=100))
    office.want("later", look(5_000))
    await asyncio.sleep(10)
    office.open.set()
    await asyncio.sleep(1)
    assert office.names == ["later", "patient"]
    assert office.counted == [1, 0], "what is asked waits no more"


async def test_a_slot_for_which_there_is_no_question_any_more_is_given_back(office: Office) -> None:
    office.open.clear()
    office.want("a", news(0))
    await asyncio.sleep(1)
    office.asker.forget("a")
    office.open.set()
    await asyncio.sleep(1)
    assert [slot.became for slot in office.slots] == [["given back"]]
    office.want("b", news(0))
    await asyncio.sleep(1)
    assert office.names == ["b"], "and it goes on"


async def test_a_slot_is_free_again_when_the_answer_is_there(office: Office) -> None:
    office.answer_s = 5
    office.want("a", news(0))
    await asyncio.sleep(4)
    (slot,) = office.slots
    assert slot.became == []
    await asyncio.sleep(2)
    assert slot.became == ["done"]


async def test_a_question_that_cannot_be_begun_gives_its_slot_back_and_is_tried_again_after_half_a_minute(
    office: Office,
) -> None:
    office.refuses = True
    office.want("a", news(0))
    await asyncio.sleep(10)
    assert [slot.became for slot in office.slots] == [["given back"]]
    office.refuses = False
    await asyncio.sleep(19.9)
    assert office.asked == []
    await asyncio.sleep(1)
    assert office.times_s == [30]


async def test_a_defect_at_a_question_stops_the_others_for_half_a_minute_and_no_longer(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    office.defect = ZeroDivisionError()
    office.want("a", news(0))
    office.want("b", news(0))
    await asyncio.sleep(1)
    office.defect = None
    await asyncio.sleep(28.9)
    assert office.asked == []
    await asyncio.sleep(1)
    assert (office.times_s, office.names) == ([30], ["b"])
    assert capsys.readouterr().out.count("asking the provider failed; it goes on\n") == 1


async def test_an_order_that_is_forgotten_while_it_is_due_keeps_nobody_waiting(office: Office) -> None:
    office.open.clear()
    for name in ("a", "b", "c"):
        office.want(name, look(0))
    await asyncio.sleep(1)
    office.asker.forget("a")
    office.asker.forget("never there")
    office.open.set()
    await asyncio.sleep(1)
    assert office.names == ["b", "c"]


async def test_nothing_is_asked_once_it_is_closed_and_nothing_runs_on(office: Office) -> None:
    office.want("a", news(1_000))
    await asyncio.sleep(0)
    await office.asker.close()
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("ask ")] == []
    await asyncio.sleep(10)
    assert office.asked == []


async def test_to_close_what_was_never_started_is_nothing() -> None:
    await Office().asker.close()


# --- answers --------------------------------------------------------------------------------------------------------


async def test_after_failures_it_is_asked_after_2_4_8_15_30_and_then_every_60_s(office: Office) -> None:
    office.error = DOWN
    office.want("a", always)
    await asyncio.sleep(200)
    assert office.times_s == [0, 2, 6, 14, 29, 59, 119, 179]


async def test_an_answer_ends_the_waiting_and_what_fails_next_is_a_new_failure(office: Office) -> None:
    office.error = DOWN
    office.want("a", always)
    await asyncio.sleep(20)
    assert office.asker.is_new_failure("a", "It is down.")
    office.error = None
    office.scripts["a"] = lambda asked_ms, now_ms: Question(
        at_ms=now_ms if asked_ms is None or now_ms >= 40_000 else 40_000, is_news=True
    )
    await asyncio.sleep(15)
    assert office.asker.is_new_failure("a", "It is down."), "it was answered since"
    office.error = DOWN
    await asyncio.sleep(30)
    assert office.times_s == [0, 2, 6, 14, 29, 40, 42, 46, 54]


async def test_an_answer_leaves_nothing_of_a_failure(office: Office) -> None:
    office.answer_s = 1
    office.want("a", always)
    office.asker.answered("a", DOWN)
    office.asker.answered("a", None)
    office.asker.look_again("a")
    assert office.asker.is_new_failure("a", "x")
    await asyncio.sleep(0.5)
    assert office.times_s == [0]


async def test_only_what_the_provider_said_counts_as_asked_and_from_when_the_question_began(office: Office) -> None:
    office.answer_s = 2
    office.error = DOWN
    office.want("a", always)
    await asyncio.sleep(3)
    assert office.saw[-1][0] is None
    office.error = ProviderRefused("No.")
    await asyncio.sleep(4)
    assert office.times_s == [0, 4]
    assert office.saw[-1][0] == 4_000
    office.error = None
    await asyncio.sleep(6)
    assert office.saw[-1][0] == office.times_s[2] * 1000


async def test_a_failure_is_new_until_it_is_the_same_again(office: Office) -> None:
    office.want("a", news(10**8))
    assert office.asker.is_new_failure("a", "x")
    assert not office.asker.is_new_failure("a", "x")
    assert office.asker.is_new_failure("a", "two")
    assert office.asker.is_new_failure("a", "x")
    assert not office.asker.is_new_failure("nobody's", "x")


async def test_what_comes_of_an_order_that_is_not_asked_about_is_nothing(office: Office) -> None:
    office.asker.answered("a", DOWN)
    office.asker.asking("a")
    office.asker.hint("a")
    assert not office.asker.is_asked_about("a")
    office.want("a", news(10**8))
    assert office.asker.is_asked_about("a")


@pytest.mark.parametrize(
    ("order", "error", "again_s"),
    [
        (OWED, ProviderUnavailable("Wait.", retry_after_s=2), 1),
        (OWED, ProviderUnavailable("Wait.", retry_after_s=30), 1),
        (OWED, ProviderUnavailable("Wait.", retry_after_s=1.9), 2),
        (OWED, DOWN, 2),
        (OWED, ProviderRefused("No."), 2),
        (HELD, ProviderUnavailable("Wait.", retry_after_s=30), 2),
    ],
)
async def test_what_is_owed_waits_for_the_end_of_a_real_pause_in_the_budget_and_the_rest_by_itself(
    office: Office, order: Order, error: ProviderError, again_s: float
) -> None:
    office.error = error
    office.want("a", always, order)
    await asyncio.sleep(0)
    office.slot_s = 1
    await asyncio.sleep(4)
    assert office.times_s[0] == 0
    assert office.times_s[1] == (again_s if again_s == 1 else again_s + 1)


async def test_an_order_whose_money_has_gone_meanwhile_does_not_wait_for_a_failure_that_was_before(
    office: Office,
) -> None:
    office.error = DOWN
    office.want("a", always)
    await asyncio.sleep(0.5)
    office.error = None
    office.scripts["a"] = news(0)
    office.want("a", office.scripts["a"], OWED)
    await asyncio.sleep(0.1)
    assert office.times_s == [0, 0.5]


async def test_an_order_that_changed_otherwise_waits_as_before(office: Office) -> None:
    office.error = DOWN
    office.want("a", always)
    await asyncio.sleep(0.5)
    office.want("a", always, replace(HELD, anomaly_count=1))
    await asyncio.sleep(2)
    assert office.times_s == [0, 2]


# --- hints ----------------------------------------------------------------------------------------------------------


async def test_a_hint_makes_a_later_question_news_at_once(office: Office) -> None:
    office.want("a", look(100_000))
    await asyncio.sleep(1)
    office.asker.hint("a")
    await asyncio.sleep(1)
    assert (office.times_s, office.lanes) == ([1], [Lane.NEWS])


async def test_a_hint_about_what_is_due_by_then_anyway_makes_it_no_more_urgent(office: Office) -> None:
    office.open.clear()
    office.want("a", lambda asked_ms, now_ms: Question(at_ms=now_ms if asked_ms is None else 10**9))
    office.asker.hint("a")
    office.open.set()
    await asyncio.sleep(1)
    assert office.lanes == [Lane.LOOK]


# --- what is learned, and what is told ------------------------------------------------------------------------------


async def test_a_number_is_learned_from_once(office: Office) -> None:
    assert HELD.payment is not None
    sent = replace(HELD, payment=replace(HELD.payment, money_out_since_ms=NOW_MS))
    office.want("a", news(10**8), sent)
    assert office.asker.learned.by_market == {}
    number = Item(kind=ItemKind.NUMBER, text="15551234567", seen_at_ms=NOW_MS + 17_000)
    with_number = replace(sent, state=OrderState.NUMBER_ASSIGNED, items=(number,))
    office.want("a", office.scripts["a"], with_number)
    (learned,) = office.asker.learned.by_market.values()
    office.want("a", office.scripts["a"], replace(with_number, anomaly_count=1))
    office.want("b", office.scripts["a"], with_number)
    assert list(office.asker.learned.by_market.values()) == [learned]


async def test_how_long_a_question_waits_is_what_is_due_by_the_slower_of_both_paces(office: Office) -> None:
    office.open.clear()
    for number in range(20):
        office.want(str(number), look(0))
    await asyncio.sleep(1)
    assert office.asker.delay_s(0) == 20 / 4
    assert office.asker.delay_s(2) == 20 / 2
    assert office.asker.delay_s(100) == 20 / 4


async def test_all_that_is_due_counts_also_behind_what_is_due_no_more(office: Office) -> None:
    office.open.clear()
    office.want("first", look(0))
    await asyncio.sleep(0)
    office.want("gone", look(1_000))
    for number in range(3):
        office.want(str(number), look(2_000))
    office.asker.forget("gone")
    await asyncio.sleep(10)
    assert office.asker.due_count() == 4
