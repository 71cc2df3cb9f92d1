"""Names that people type → the provider's codes. Pure.

Countries are the provider's own, as it lists them now, or as the list that comes with the package has them: that of
its reference (data/countries.json) with further names (data/country_aliases.json) and those of ISO 3166 (``iso``).
Services come from the provider, per country.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Final

from holdpay.errors import UnknownCountry, UnknownService
from holdpay.ports import CountryInfo, ListedCountry, ServiceInfo
from holdpay.sms4sats import iso
from holdpay.sms4sats.words import echo, nearest, word


class Countries:
    """All that can be ordered from, by code. 0 is a country; in the reference it is Russia, and 999 is Auto-Select."""

    def __init__(self, countries: Iterable[CountryInfo]) -> None:
        self.all = tuple(sorted(countries, key=lambda country: country.code))
        self._by_number = {str(country.code): country for country in self.all}
        self._by_word: dict[str, list[CountryInfo]] = {}
        for country in self.all:
            for known in {word(name) for name in (country.name, *country.aliases)}:
                self._by_word.setdefault(known, []).append(country)

    def resolve(self, text: str) -> CountryInfo:
        """By number, name or alias; case, spaces, accents and punctuation do not matter.

        Raises UnknownCountry with the nearest names, or with the numbers if two countries have the name.
        """
        # A number has nothing but digits: "-1" is not country 1.
        number = self._by_number.get(text.strip())
        if number is not None:
            return number
        to = word(text)
        found = self._by_word.get(to, [])
        if len(found) > 1:
            numbers = " and ".join(str(country.code) for country in found[:10])
            raise UnknownCountry(
                f"More than one country is named {echo(text)}: {numbers}. Order by the number.", field="country"
            )
        if found and not to.isdecimal():
            return found[0]
        labels = {word(name): (country.code, name) for country in self.all for name in (country.name, *country.aliases)}
        raise UnknownCountry(f"There is no country {echo(text)}.{nearest(to, labels)}", field="country")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """``further``: names beside ``name``."""

    code: int
    name: str
    further: tuple[str, ...] = ()
    is_shown: bool | None = None
    has_rentals: bool | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.further)


@cache
def bundled() -> Countries:
    """The list that comes with the package, for when the provider's was never seen."""
    return _countries(list(_bundled().values()))


def listed(rows: Sequence[ListedCountry]) -> Countries:
    """The provider's present list, with the further names of ours. What it leaves out and ours has is kept as not
    shown, unless the provider has it under another number."""
    told = {row.code: row for row in reversed(rows)}.values()
    entries = [
        _Entry(
            code=row.code,
            name=row.name,
            further=_further(row),
            is_shown=row.is_shown is not False,
            has_rentals=row.has_rentals,
        )
        for row in told
    ]
    codes = {entry.code for entry in entries}
    names = {word(name) for entry in entries for name in entry.names}
    left_out = [
        replace(entry, is_shown=False)
        for entry in _bundled().values()
        if entry.code not in codes and not any(word(name) in names for name in entry.names)
    ]
    return _countries([*sorted(entries, key=lambda entry: entry.code), *left_out])


def _further(row: ListedCountry) -> tuple[str, ...]:
    """The bundled names of the country that the provider means."""
    entry = _bundled().get(row.code)
    owner = _bundled_owners().get(word(row.name))
    if owner is not None:
        entry = _bundled()[owner]
    elif entry is not None and (meant := iso.find([row.name])) not in (None, iso.find(entry.names)):
        entry = next((other for other in _bundled().values() if iso.find(other.names) == meant), None)
    return () if entry is None else entry.names


def _countries(entries: Sequence[_Entry]) -> Countries:
    """Of a further name that fits two countries the first in line has it: a country's own name is no other's alias,
    and ISO's names come last."""
    owners: dict[str, int] = {}
    aliases: dict[int, list[str]] = {entry.code: [] for entry in entries}
    for entry in entries:
        owners.setdefault(word(entry.name), entry.code)
    for code, name in _further_names(entries):
        if owners.setdefault(word(name), code) == code:
            aliases[code].append(name)
    return Countries(
        CountryInfo(
            entry.code,
            entry.name,
            _distinct(entry.name, aliases[entry.code]),
            is_shown=entry.is_shown,
            has_rentals=entry.has_rentals,
        )
        for entry in entries
    )


def _further_names(entries: Sequence[_Entry]) -> Iterator[tuple[int, str]]:
    """Code and name, those first that are surest."""
    by_name = {entry.code: iso.find([entry.name]) for entry in entries}
    for entry in entries:
        yield from ((entry.code, name) for name in entry.further)
    for code, country in by_name.items():
        yield from ((code, name) for name in (country.aliases if country else ()))
    for entry in entries:
        country = iso.find(entry.further)
        yield from ((entry.code, name) for name in (country.aliases if country else ()))


def _distinct(name: str, aliases: Sequence[str]) -> tuple[str, ...]:
    by_word = {word(name): name}
    for alias in aliases:
        by_word.setdefault(word(alias), alias)
    return tuple(by_word.values())[1:]


@cache
def _bundled() -> Mapping[int, _Entry]:
    names: dict[int, list[str]] = {}
    for row in _data("countries.json"):
        names.setdefault(row["cc"], []).append(row["country"])
    for row in _data("country_aliases.json"):
        names[row["cc"]].extend(row["aliases"])
    return {code: _Entry(code=code, name=first, further=tuple(more)) for code, (first, *more) in sorted(names.items())}


@cache
def _bundled_owners() -> Mapping[str, int]:
    return {word(name): entry.code for entry in _bundled().values() for name in entry.names}


def _data(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(files("holdpay").joinpath("data", name).read_text("utf-8"))
    return rows


def resolve_service(text: str, services: Sequence[ServiceInfo]) -> ServiceInfo:
    """By short code, by name, or by a part of a name ("gmail" for "Google,youtube,Gmail", "vk" for "vk.com").

    Raises UnknownService with the nearest names, or with all that fit.
    """
    to = word(text)
    for service in services:
        if service.code == text:
            return service
    for words_of in _SERVICE_WORDS:
        found = {service.code: service for service in services if to and to in words_of(service)}
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            fitting = ", ".join(f"{service.code} ({service.name})" for service in list(found.values())[:10])
            raise UnknownService(
                f"More than one service is named {echo(text)}: {fitting}. Order by the short code.", field="service"
            )
    labels = {w: (s.code, f"{s.name} ({s.code})") for words in _SERVICE_WORDS for s in services for w in words(s)}
    raise UnknownService(f"sms4sats lists no service {echo(text)} here.{nearest(to, labels)}", field="service")


def _code_words(service: ServiceInfo) -> set[str]:
    return {word(service.code)}


def _name_words(service: ServiceInfo) -> set[str]:
    return {word(service.name)}


def _part_words(service: ServiceInfo) -> set[str]:
    parts = re.split(r"[,;/+|()]", service.name)
    without_domain = [re.sub(r"\.[a-z]{2,4}$", "", part.strip().lower()) for part in parts]
    return {word(part) for part in [*parts, *without_domain]}


_SERVICE_WORDS: Final[tuple[Callable[[ServiceInfo], set[str]], ...]] = (_code_words, _name_words, _part_words)
"""The first of these ways of naming a service that fits anything decides."""
