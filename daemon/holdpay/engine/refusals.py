"""Where no country of a request can be ordered from: one refusal for all of them, which tells why of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from holdpay.core.amounts import counted
from holdpay.core.strategy import Country
from holdpay.errors import HoldpayError, OutOfStock, PriceTooHigh, UnknownService

MOST_TOLD: Final = 8
"""So many countries are named at most; there are some 200."""
_MILDEST_FIRST: Final = (OutOfStock, PriceTooHigh, UnknownService)
"""What passes by itself, what the buyer can allow, what stays so."""


def refusal_of_all(service: str, refusals: Sequence[tuple[Country, HoldpayError]]) -> HoldpayError:
    """Of the mildest kind: a program that asks again later, or allows more, may get what it wants."""
    *_, (_, last) = refusals
    kinds = {type(error) for _, error in refusals}
    if kinds == {UnknownService} or len({error.message for _, error in refusals}) == 1:
        return last
    mildest_first = sorted(refusals, key=lambda each: _harshness(each[1]))
    told = [each for each in refusals if each in mildest_first[:MOST_TOLD]]
    _, first = mildest_first[0]
    mildest = first if isinstance(first, _MILDEST_FIRST) else last
    metadata = dict(mildest.metadata)
    if isinstance(mildest, OutOfStock):
        metadata["country"] = ", ".join(country.name for country, error in told if isinstance(error, OutOfStock))
    more = len(refusals) - len(told)
    if kinds == {OutOfStock}:
        return OutOfStock(_no_stock(service, told, more), **metadata)
    is_dear = any(isinstance(error, PriceTooHigh) for _, error in refusals)
    what_next = "Allow more, or try other countries" if is_dear else "Try other countries"
    return type(mildest)(f"{_each(service, told, more)} {what_next}.", **metadata)


def _harshness(error: HoldpayError) -> int:
    return next((n for n, kind in enumerate(_MILDEST_FIRST) if isinstance(error, kind)), len(_MILDEST_FIRST))


def _no_stock(service: str, told: Sequence[tuple[Country, HoldpayError]], more: int) -> str:
    *names, last = [country.name for country, _ in told] + ([counted(more, "other")] if more else [])
    return f"The provider has no numbers for {service} in {', '.join(names)} or {last} now. Try another country."


def _each(service: str, told: Sequence[tuple[Country, HoldpayError]], more: int) -> str:
    by_reason: dict[str, list[str]] = {}
    for country, error in told:
        by_reason.setdefault(_reason(error), []).append(country.name)
    each = [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]
    if more:
        each.append(f"nor in {counted(more, 'other')}")
    return f"{service} can be ordered in no country of the request ({'; '.join(each)})."


def _reason(error: HoldpayError) -> str:
    if isinstance(error, OutOfStock):
        return "no numbers now"
    if isinstance(error, UnknownService):
        return "not listed"
    return error.message.partition(". ")[0].rstrip(".").removeprefix("The price is ")
