"""ISO 3166: which country a name means, and its other names. The provider's numbers are its own, not ISO's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import pycountry

from holdpay.sms4sats.words import word


@dataclass(frozen=True, slots=True)
class IsoCountry:
    """``names``: those that people would type, without what ISO puts behind a comma."""

    alpha_2: str
    alpha_3: str
    names: tuple[str, ...]

    @property
    def aliases(self) -> tuple[str, ...]:
        return (self.alpha_2, self.alpha_3, *self.names)


def find(names: Iterable[str]) -> IsoCountry | None:
    """By the first of the names, or alpha-2 codes in capitals, that ISO knows. None: it knows none of them."""
    return next((found for name in names if (found := _by_code().get(name) or _by_word().get(word(name)))), None)


@cache
def _by_code() -> Mapping[str, IsoCountry]:
    found = {}
    for entry in pycountry.countries:
        names = (entry.name, getattr(entry, "common_name", ""))
        plain = tuple(name for name in names if name and "," not in name)
        found[entry.alpha_2] = IsoCountry(entry.alpha_2, entry.alpha_3, plain)
    return found


@cache
def _by_word() -> Mapping[str, IsoCountry]:
    return {
        word(name): _by_code()[entry.alpha_2]
        for entry in pycountry.countries
        for name in (entry.name, getattr(entry, "common_name", ""), getattr(entry, "official_name", ""))
        if name
    }
