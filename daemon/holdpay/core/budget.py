"""What a client may spend: its limits, the windows over which they count, and which of them leaves no room.

Calendar windows are those of UTC: a day has 24 hours on every machine, and weeks begin on Monday (ISO 8601).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from holdpay.core.amounts import counted
from holdpay.errors import LimitExceeded, NotAllowed

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
WEEK_MS: Final = 7 * DAY_MS
CLOCK_AHEAD_MS: Final = 31 * DAY_MS
"""How far a wall clock may have been fast for what was spent under it to count. Farther, it would count for as long."""
WARN_PERCENT: Final = 80
"""A limit of which so much is used is warned of."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_THURSDAY: Final = 3
"""The weekday of 1970-01-01, counted from Monday."""


class Period(StrEnum):
    """How long a limit counts."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Renewal(StrEnum):
    """How a window moves: on with the time, or from one of the calendar to the next."""

    ROLLING = "rolling"
    CALENDAR = "calendar"


_LENGTH_MS: Final = {Period.HOUR: HOUR_MS, Period.DAY: DAY_MS, Period.WEEK: WEEK_MS, Period.MONTH: 30 * DAY_MS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What was spent from ``from_ms`` on and before ``before_ms`` counts.

    That end lies CLOCK_AHEAD_MS ahead of now, however short the window is: what was spent under a wall clock that was
    fast, and was set back since, counts all the same.
    """

    from_ms: int
    before_ms: int
    length_ms: int
    ends_at_ms: int | None
    """When a calendar's is over. None: a rolling one, which each spend leaves by itself."""


def window(period: Period, renewal: Renewal, now_ms: int) -> Window:
    """The one that ``now_ms`` is in."""
    ends_at_ms: int | None
    if renewal is Renewal.ROLLING:
        length_ms = _LENGTH_MS[period]
        from_ms, ends_at_ms = now_ms - length_ms + 1, None
    else:
        from_ms, ends_at_ms = _of_calendar(period, now_ms)
        length_ms = ends_at_ms - from_ms
    return Window(from_ms=from_ms, before_ms=now_ms + CLOCK_AHEAD_MS, length_ms=length_ms, ends_at_ms=ends_at_ms)


def _of_calendar(period: Period, now_ms: int) -> tuple[int, int]:
    if period is Period.MONTH:
        first = (_EPOCH + timedelta(milliseconds=now_ms)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        after = (first + timedelta(days=31)).replace(day=1)
        return _ms(first), _ms(after)
    length_ms = _LENGTH_MS[period]
    into_ms = (now_ms + (_THURSDAY * DAY_MS if period is Period.WEEK else 0)) % length_ms
    return now_ms - into_ms, now_ms - into_ms + length_ms


def _ms(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One limit over a period. ``limit``: its key, "client.alice.max_spend_per_day_sat"."""

    limit: str
    period: Period
    limit_sat: int
    is_of_fees: bool = False
    """Only routing fees count, not what is bought."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What the configuration allows one client. None: no limit but those of all clients together."""

    client: str
    renewal: Renewal = Renewal.ROLLING
    max_price_sat: int | None = None
    max_spend_per_hour_sat: int | None = None
    max_spend_per_day_sat: int | None = None
    max_spend_per_week_sat: int | None = None
    max_spend_per_month_sat: int | None = None
    max_fee_per_day_sat: int | None = None
    max_open_orders: int | None = None
    max_orders_per_minute: int | None = None
    may_fund: bool = False
    """Whether it may look at the prepaid account, and put money into it."""

    def key(self, name: str) -> str:
        """A limit as refusals name it."""
        return f"client.{self.client}.{name}"

    def check_may_fund(self) -> None:
        """Raises NotAllowed."""
        if not self.may_fund:
            key = self.key("may_fund")
            raise NotAllowed(
                f"The prepaid account is not for {self.client} to look at or to fund. Ask the operator to do it, or to"
                f" set {key}.",
                client=self.client,
            )

    def lines(self) -> tuple[Line, ...]:
        """Its limits in sat over a period, the shortest first."""
        spend_sat = {
            Period.HOUR: self.max_spend_per_hour_sat,
            Period.DAY: self.max_spend_per_day_sat,
            Period.WEEK: self.max_spend_per_week_sat,
            Period.MONTH: self.max_spend_per_month_sat,
        }
        lines = [
            Line(limit=self.key(f"max_spend_per_{period}_sat"), period=period, limit_sat=limit_sat)
            for period, limit_sat in spend_sat.items()
            if limit_sat is not None
        ]
        if self.max_fee_per_day_sat is not None:
            fees = Line(
                limit=self.key("max_fee_per_day_sat"),
                period=Period.DAY,
                limit_sat=self.max_fee_per_day_sat,
                is_of_fees=True,
            )
            lines.append(fees)
        return tuple(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """How much of a line is used."""

    line: Line
    window: Window
    spent_msat: int
    """Within the window."""
    reserved_msat: int
    """Of open orders, whenever they were made: with the largest fee that each may come to."""
    oldest_ms: int | None = None
    """When the oldest spend within the window was. None: there is none."""

    @property
    def used_msat(self) -> int:
        return self.spent_msat + self.reserved_msat

    @property
    def is_nearly(self) -> bool:
        """Whether WARN_PERCENT of it are used."""
        return self.used_msat * 100 >= self.line.limit_sat * 1000 * WARN_PERCENT

    @property
    def renews_at_ms(self) -> int | None:
        """When it is whole again, of a calendar's window; else when the oldest spend leaves it. None: nothing will."""
        if self.window.ends_at_ms is not None:
            return self.window.ends_at_ms
        return None if self.oldest_ms is None else self.oldest_ms + self.window.length_ms

    def warning(self) -> str:
        """What is used of it, in a sentence."""
        return (
            f"{self.line.limit}: {_sat(self.used_msat):,} of {self.line.limit_sat:,} sat are spent or reserved,"
            f" {WARN_PERCENT} % or more."
        )


RoomAt = Callable[[Used, int], int | None]
"""When so many msat of what was spent have left a window; None: never, so much was not spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """How much of its budget a client has used."""

    budget: Budget
    used: tuple[Used, ...]
    """Of each line."""
    open_orders: int
    """Those that may hold an HTLC or come to hold one."""
    recent_orders: int
    """Made in the last minute."""
    recent_since_ms: int | None
    """When the oldest of them was made."""

    def warnings(self) -> tuple[str, ...]:
        """A sentence for each line that is nearly used up."""
        return tuple(used.warning() for used in self.used if used.is_nearly)

    def reached_by(self, order_msat: int, fee_msat: int, room_at_ms: RoomAt) -> LimitExceeded | None:
        """The limit that leaves no room for an order of ``order_msat``, of which ``fee_msat`` may go for routing; None:
        there is room."""
        by_sum = (_reached(self.budget, used, order_msat, fee_msat, room_at_ms) for used in self.used)
        return self._reached_by_count() or next(filter(None, by_sum), None)

    def _reached_by_count(self) -> LimitExceeded | None:
        budget = self.budget
        if budget.max_open_orders is not None and self.open_orders >= budget.max_open_orders:
            limit = budget.key("max_open_orders")
            return LimitExceeded(
                f"{budget.client} has {counted(self.open_orders, 'open order')} and {limit} is"
                f" {budget.max_open_orders:,}."
                " Wait for one to end, or have the limit raised.",
                limit=limit,
                limit_orders=budget.max_open_orders,
                open_orders=self.open_orders,
            )
        if budget.max_orders_per_minute is not None and self.recent_orders >= budget.max_orders_per_minute:
            limit = budget.key("max_orders_per_minute")
            more = {} if self.recent_since_ms is None else {"renews_at_ms": self.recent_since_ms + MINUTE_MS}
            return LimitExceeded(
                f"{budget.client} made {counted(self.recent_orders, 'order')} in the last minute and {limit} is"
                f" {budget.max_orders_per_minute:,}. Wait a minute, or have the limit raised.",
                limit=limit,
                limit_orders=budget.max_orders_per_minute,
                recent_orders=self.recent_orders,
                **more,
            )
        return None


def _reached(budget: Budget, used: Used, order_msat: int, fee_msat: int, room_at_ms: RoomAt) -> LimitExceeded | None:
    line = used.line
    wanted_msat = used.used_msat + (fee_msat if line.is_of_fees else order_msat)
    over_msat = wanted_msat - line.limit_sat * 1000
    if over_msat <= 0:
        return None
    at_ms = room_at_ms(used, over_msat)
    what = "fees" if line.is_of_fees else "total"
    when = "No time makes room for it" if at_ms is None else f"There is room from {_words(at_ms)} on"
    return LimitExceeded(
        f"With this order {budget.client}'s {what} of this {line.period} would be up to {_sat(wanted_msat):,} sat,"
        f" spent and reserved, and {line.limit} is {line.limit_sat:,}. {when}; an open order that ends unpaid"
        " makes room too, or have the limit raised.",
        limit=line.limit,
        limit_sat=line.limit_sat,
        wanted_sat=_sat(wanted_msat),
        **({} if at_ms is None else {"renews_at_ms": at_ms}),
    )


def _words(at_ms: int) -> str:
    return f"{_EPOCH + timedelta(milliseconds=at_ms):%Y-%m-%dT%H:%M:%SZ}"


def _sat(amount_msat: int) -> int:
    """Rounded up."""
    return -(-amount_msat // 1000)
