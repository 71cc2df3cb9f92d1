"""How long after the provider a client has its number and its code, by how many orders are open, on virtual time.

holdpay is the real engine, scheduler, adapter and store (``contenders.Holdpay``), with a client behind each order.
Beside it, in the same world with the same drawn timings: the loops that people write instead (``contenders.HABITS``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from random import Random
from statistics import mean, median
from typing import Any, Final

from tests.bench.contenders import HABITS, Contender, Habit, Holdpay, Seen, holdpay
from tests.bench.market import Market
from tests.bench.rows import Row, at_most
from tests.bench.timings import Timing, draw
from tests.fakes import START_MS
from tests.virtual_loop import VirtualLoop

MINUTE_S: Final = 60.0
FULL_S: Final = 20 * MINUTE_S
OURS: Final = "holdpay"
CANCEL_AMONG: Final = 50
CANCELS: Final = 5
CANCEL_EVERY_S: Final = 3.0
CANCEL_WITHIN_S: Final = 1_500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """``is_full``: 20 minutes in which each finished order is replaced; else all are ordered once, within a minute.
    ``runs``: how often, each with timings of its own; their orders count together."""

    at_once: int
    is_full: bool = False
    runs: int = 1
    allows_per_s: float | None = None

    @property
    def words(self) -> str:
        orders = f"{self.at_once:,} {'order' if self.at_once == 1 else 'orders'}"
        form = f"{orders} open for 20 min" if self.is_full else f"{orders} within a minute"
        return form if self.allows_per_s is None else f"{form}, {self.allows_per_s:g} requests/s allowed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lags:
    """From the provider's having it to the client's, in s, over all that were seen."""

    count: int
    mean_s: float
    median_s: float
    p95_s: float

    @classmethod
    def of(cls, lags_s: Sequence[float]) -> Lags:
        if not lags_s:
            return cls(count=0, mean_s=0.0, median_s=0.0, p95_s=0.0)
        ranked = sorted(lags_s)
        return cls(
            count=len(ranked),
            mean_s=mean(ranked),
            median_s=median(ranked),
            p95_s=ranked[min(len(ranked) - 1, int(len(ranked) * 0.95))],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """What one contender made of one scenario. ``requests_per_s``: of all kinds, over the whole run."""

    scenario: Scenario
    contender: str
    orders: int
    number: Lags
    code: Lags
    polls_per_order: float
    requests_per_s: float
    peak_requests_per_s: int
    refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancels:
    """From when an order may be canceled, with so many others open, to the provider's getting the wish, in s."""

    open_orders: int
    mean_s: float
    worst_s: float


@dataclass(frozen=True, slots=True)
class Goal:
    """What no mean may be over."""

    number_s: float
    code_s: float
    polls: float | None = None


GOALS: Final = {8: Goal(1.2, 1.0, polls=12), 50: Goal(2.5, 1.5), 200: Goal(4.0, 2.0)}
"""By how many orders are open, where the provider takes every request."""
CANCEL_GOAL_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lagging:
    """The figures of this part. ``lags``: of each scenario holdpay first, then each habit."""

    lags: tuple[Lag, ...]
    cancels: Cancels

    def rows(self) -> Iterator[Row]:
        for lag in self.lags:
            yield from _rows_of(lag) if lag.contender == OURS else (_row_of_habit(lag),)
        yield at_most(
            f"a cancel, {self.cancels.open_orders} open without numbers, the worst of {CANCELS}",
            self.cancels.worst_s,
            CANCEL_GOAL_S,
            "s",
        )


def _rows_of(lag: Lag) -> Iterator[Row]:
    goal = GOALS.get(lag.scenario.at_once) if lag.scenario.allows_per_s is None else None
    number, code = lag.number, lag.code
    what, value = f"{lag.scenario.words}: number / code, mean", f"{number.mean_s:.2f} / {code.mean_s:.2f} s"
    if goal is None:
        yield Row(what, value)
    else:
        is_met = number.mean_s <= goal.number_s and code.mean_s <= goal.code_s
        yield Row(what, value, f"<= {goal.number_s:g} / {goal.code_s:g} s", is_met)
    yield Row("  median", f"{number.median_s:.2f} / {code.median_s:.2f} s")
    yield Row("  95 of 100", f"{number.p95_s:.2f} / {code.p95_s:.2f} s")
    polls = f"{lag.polls_per_order:.1f}"
    if goal is None or goal.polls is None:
        yield Row("  polls an order", polls)
    else:
        yield Row("  polls an order", polls, f"<= {goal.polls:g}", lag.polls_per_order <= goal.polls)
    yield Row("  requests a second (most)", f"{lag.requests_per_s:.1f} ({lag.peak_requests_per_s})")
    if lag.refused:
        yield Row("  requests that were refused", f"{lag.refused}")


def _row_of_habit(lag: Lag) -> Row:
    value = f"{lag.number.mean_s:.2f} / {lag.code.mean_s:.2f} s"
    return Row(f"  instead: {lag.contender} ({lag.polls_per_order:.0f} polls)", value)


FULL: Final = (
    Scenario(at_once=1, runs=48),
    Scenario(at_once=8, runs=12),
    Scenario(at_once=50, runs=3),
    Scenario(at_once=200),
    Scenario(at_once=1000),
    Scenario(at_once=8, is_full=True, runs=2),
    Scenario(at_once=50, is_full=True),
    Scenario(at_once=200, is_full=True),
    Scenario(at_once=8, runs=3, allows_per_s=2.0),
    Scenario(at_once=50, allows_per_s=2.0),
)
QUICK: Final = (Scenario(at_once=8, runs=4), Scenario(at_once=50), Scenario(at_once=200))


def measure(scenarios: Sequence[Scenario], seed: int = 1) -> Lagging:
    """One after the other. Not to be called inside an event loop: each run has one of its own."""
    lags = [_measured(scenario, seed, habit) for scenario in scenarios for habit in (None, *HABITS)]
    return Lagging(lags=tuple(lags), cancels=measure_cancels(CANCEL_AMONG, seed))


def _measured(scenario: Scenario, seed: int, habit: Habit | None) -> Lag:
    runs = [_run(_play(scenario, seed + number, habit)) for number in range(scenario.runs)]
    orders = sum(len(run.market.sales) for run in runs)
    return Lag(
        scenario=scenario,
        contender=OURS if habit is None else habit.words,
        orders=orders,
        number=Lags.of([lag_s for run in runs for lag_s in run.number_lags_s()]),
        code=Lags.of([lag_s for run in runs for lag_s in run.code_lags_s()]),
        polls_per_order=sum(sale.polls for run in runs for sale in run.market.sales.values()) / orders,
        requests_per_s=sum(run.market.requests.total() for run in runs) / sum(run.took_s for run in runs),
        peak_requests_per_s=max(max(run.market.by_second.values()) for run in runs),
        refused=sum(run.market.refused for run in runs),
    )


@dataclass(frozen=True, slots=True)
class _Played:
    """What happened in one run. ``took_s``: until the last client was done."""

    market: Market
    seen: dict[str, Seen]
    took_s: float

    def number_lags_s(self) -> Iterator[float]:
        for sale in self.market.sales.values():
            seen = self.seen[sale.name]
            if sale.number_at_s is not None and seen.number_at_s is not None:
                yield seen.number_at_s - sale.number_at_s

    def code_lags_s(self) -> Iterator[float]:
        for sale in self.market.sales.values():
            seen = self.seen[sale.name]
            if sale.code_at_s is not None and seen.code_at_s is not None:
                yield seen.code_at_s - sale.code_at_s


def _run(play: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(play)


async def _play(scenario: Scenario, seed: int, habit: Habit | None) -> _Played:
    timing_of = _Timings(seed)
    market = Market(timing_of, Random(seed), allows_per_s=scenario.allows_per_s)
    if habit is not None:
        return await _with(habit.on(market), scenario, seed, market)
    async with holdpay(market, seed) as ours:
        return await _with(ours, scenario, seed, market)


@dataclass(frozen=True, slots=True)
class _Timings:
    seed: int

    def __call__(self, name: str) -> Timing:
        return draw(self.seed, name)


async def _with(contender: Contender, scenario: Scenario, seed: int, market: Market) -> _Played:
    """Each place orders once, or one order after the other."""
    loop = asyncio.get_running_loop()
    seen: dict[str, Seen] = {}

    async def place(number: int) -> None:
        await asyncio.sleep(Random(f"{seed} place {number}").uniform(0, MINUTE_S))
        for turn in count():
            name = f"p{number}t{turn}"
            seen[name] = await contender.order(name, draw(seed, name).service)
            if not scenario.is_full or loop.time() > FULL_S:
                return

    async with asyncio.TaskGroup() as places:
        for number in range(scenario.at_once):
            places.create_task(place(number))
    return _Played(market, seen, loop.time())


# --- cancels ----------------------------------------------------------------------------------------------------------


def measure_cancels(open_orders: int, seed: int = 1) -> Cancels:
    """No order has a number, but for some of the few that are canceled, one soon after the other."""
    lags_s: list[float] = _run(_cancel_some(open_orders, seed))
    return Cancels(open_orders=open_orders, mean_s=mean(lags_s), worst_s=max(lags_s))


async def _cancel_some(open_orders: int, seed: int) -> list[float]:
    numbered = {f"p{number}t0" for number in range(0, CANCELS, 2)}

    def timing_of(name: str) -> Timing:
        number_after_s = 15.0 if name in numbered else None
        return replace(draw(seed, name), number_after_s=number_after_s, gives_up_after_s=1e6, code_after_s=None)

    market = Market(timing_of, Random(seed))
    async with holdpay(market, seed) as ours:
        clients = []
        for number in range(open_orders):
            name = f"p{number}t0"
            clients.append(asyncio.create_task(ours.order(name, timing_of(name).service)))
            await asyncio.sleep(MINUTE_S / open_orders)
        await asyncio.sleep(ours.engine.policy.cancel_after_s - MINUTE_S / 2)
        lags_s = await asyncio.gather(*(_cancel_lag_s(ours, market, number) for number in range(CANCELS)))
        for client in clients:
            client.cancel()
        await asyncio.wait(clients)
        return lags_s


async def _cancel_lag_s(ours: Holdpay, market: Market, number: int) -> float:
    loop, name = asyncio.get_running_loop(), f"p{number}t0"
    await asyncio.sleep(number * CANCEL_EVERY_S)
    found = ours.engine.store.find_key(name)
    assert found is not None
    order = await ours.engine.cancel(found.id)
    assert order.cancel_at_ms is not None
    began_s = max(loop.time(), (order.cancel_at_ms - START_MS) / 1000)
    sale = next(sale for sale in market.sales.values() if sale.name == name)
    while sale.cancel_asked_at_s is None and loop.time() - began_s < CANCEL_WITHIN_S:
        await asyncio.sleep(0.05)
    return (loop.time() if sale.cancel_asked_at_s is None else sale.cancel_asked_at_s) - began_s
