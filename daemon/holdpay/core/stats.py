"""What orders brought, what they cost and how long they took: by country, service, kind or day. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from holdpay.core.states import End

_HOUR_MS = 3_600_000
_CAME = frozenset({End.FULFILLED, End.FULFILLED_FREE})


class StatsBy(StrEnum):
    """What a line is of."""

    COUNTRY = "country"
    SERVICE = "service"
    KIND = "kind"
    DAY = "day"
    """On which they were ordered, in UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One order that ended."""

    kind: str
    country_code: int | None
    """None: it is of no country."""
    country: str
    """Empty: it is of none."""
    service_code: str
    service: str
    """Empty: it is of none."""
    created_at_ms: int
    end: End
    number_after_ms: int | None
    """From the order to its first number. None: none came."""
    code_after_ms: int | None
    """The same for the first code, or message."""
    spent_msat: int
    fee_msat: int
    """Of what was spent, for the routing."""
    amount_msat: int
    """Of its hold invoice. 0: it had none."""
    locked_ms: int
    """All its dispatches together, from the intent to the end."""

    @property
    def came(self) -> bool:
        """What was ordered came."""
        return self.end in _CAME


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Of all orders that share a name. None: no order had it."""

    name: str
    orders: int
    came: int
    median_number_s: float | None
    median_code_s: float | None
    spent_msat: int
    fee_msat: int
    locked_sat_hours: float
    """Sat times the hours that they were locked, whatever became of them."""


def lines(outcomes: Iterable[Outcome], by: StatsBy) -> tuple[Line, ...]:
    """Those with most orders first; days in their order."""
    groups: defaultdict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[_name(outcome, by)].append(outcome)
    found = [_line(name, group) for name, group in groups.items()]
    if by is StatsBy.DAY:
        return tuple(sorted(found, key=lambda line: line.name))
    return tuple(sorted(found, key=lambda line: (-line.orders, line.name)))


def best_first(outcomes: Iterable[Outcome], countries: Iterable[int]) -> tuple[int, ...]:
    """Countries by how codes came there: the surest first, of those the quickest. Where nothing is known they stay in
    their order, behind what brought codes and before what never did."""
    of_country: defaultdict[int | None, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        of_country[outcome.country_code].append(outcome)
    return tuple(sorted(countries, key=lambda country: _rank(of_country[country])))


def _rank(known: list[Outcome]) -> tuple[float, float]:
    """One order that went well, or not, says little: two more that went half well are added to each."""
    came = sum(outcome.came for outcome in known)
    slow_s = _median_s([outcome.code_after_ms for outcome in known])
    return (-(came + 1) / (len(known) + 2), float("inf") if slow_s is None else slow_s)


def _name(outcome: Outcome, by: StatsBy) -> str:
    match by:
        case StatsBy.COUNTRY:
            return outcome.country
        case StatsBy.SERVICE:
            return outcome.service
        case StatsBy.KIND:
            return outcome.kind
        case StatsBy.DAY:
            return datetime.fromtimestamp(outcome.created_at_ms / 1000, UTC).date().isoformat()


def _line(name: str, group: list[Outcome]) -> Line:
    return Line(
        name=name,
        orders=len(group),
        came=sum(outcome.came for outcome in group),
        median_number_s=_median_s([outcome.number_after_ms for outcome in group]),
        median_code_s=_median_s([outcome.code_after_ms for outcome in group]),
        spent_msat=sum(outcome.spent_msat for outcome in group),
        fee_msat=sum(outcome.fee_msat for outcome in group),
        locked_sat_hours=sum(outcome.amount_msat / 1000 * outcome.locked_ms / _HOUR_MS for outcome in group),
    )


def _median_s(after_ms: list[int | None]) -> float | None:
    # Not statistics.median: what that module brings takes a megabyte of the daemon's memory.
    known = sorted(each for each in after_ms if each is not None)
    middle = len(known) // 2
    if not known:
        return None
    return (known[middle] if len(known) % 2 else (known[middle - 1] + known[middle]) / 2) / 1000
