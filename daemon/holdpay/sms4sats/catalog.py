"""Names that people type → the provider's codes.

Countries come with the package: the provider's own list (data/countries.json) and our further names for them
(data/country_aliases.json: ISO codes, English names). Services come from the provider, per country.
"""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

from holdpay.errors import UnknownCountry, UnknownService
from holdpay.ports import CountryInfo, ServiceInfo

MAX_SUGGESTIONS: Final = 3
MAX_ECHO_CHARS: Final = 40


@cache
def countries() -> tuple[CountryInfo, ...]:
    """All that can be ordered from, by code. 0 is Russia, 999 leaves the choice to the provider."""
    names: dict[int, list[str]] = {}
    for row in _data("countries.json"):
        names.setdefault(row["cc"], []).append(row["country"])
    for row in _data("country_aliases.json"):
        names[row["cc"]].extend(row["aliases"])
    return tuple(CountryInfo(code, all_names[0], tuple(all_names[1:])) for code, all_names in sorted(names.items()))


def resolve_country(text: str) -> CountryInfo:
    """By number, name or alias; case, spaces, accents and punctuation do not matter.

    Raises UnknownCountry with the nearest names.
    """
    # Only a number has digits, and then nothing else: "-1" is not country 1.
    is_sound = text.strip().isdecimal() or not any(char.isdigit() for char in text)
    country = _countries_by_word().get(_word(text)) if is_sound else None
    if country is None:
        names = ((found.code, name) for found in countries() for name in (found.name, *found.aliases))
        nearest = _nearest(_word(text), {_word(name): (code, name) for code, name in names})
        raise UnknownCountry(f"There is no country {_echo(text)}.{nearest}", field="country")
    return country


def resolve_service(text: str, services: Sequence[ServiceInfo]) -> ServiceInfo:
    """By short code, by name, or by a part of a name ("gmail" for "Google,youtube,Gmail", "vk" for "vk.com").

    Raises UnknownService with the nearest names, or with all that fit.
    """
    word = _word(text)
    for service in services:
        if service.code == text:
            return service
    for words_of in _SERVICE_WORDS:
        found = {service.code: service for service in services if word and word in words_of(service)}
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            fitting = ", ".join(f"{service.code} ({service.name})" for service in list(found.values())[:10])
            raise UnknownService(
                f"More than one service is named {_echo(text)}: {fitting}. Order by the short code.", field="service"
            )
    labels = {w: (s.code, f"{s.name} ({s.code})") for words in _SERVICE_WORDS for s in services for w in words(s)}
    raise UnknownService(f"There is no service {_echo(text)} in this country.{_nearest(word, labels)}", field="service")


def _code_words(service: ServiceInfo) -> set[str]:
    return {_word(service.code)}


def _name_words(service: ServiceInfo) -> set[str]:
    return {_word(service.name)}


def _part_words(service: ServiceInfo) -> set[str]:
    parts = re.split(r"[,;/+|()]", service.name)
    without_domain = [re.sub(r"\.[a-z]{2,4}$", "", part.strip().lower()) for part in parts]
    return {_word(part) for part in [*parts, *without_domain]}


_SERVICE_WORDS: Final[tuple[Callable[[ServiceInfo], set[str]], ...]] = (_code_words, _name_words, _part_words)
"""The first of these ways of naming a service that fits anything decides."""


@cache
def _countries_by_word() -> Mapping[str, CountryInfo]:
    return {
        _word(name): country for country in countries() for name in (str(country.code), country.name, *country.aliases)
    }


def _data(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(files("holdpay").joinpath("data", name).read_text("utf-8"))
    return rows


def _word(text: str) -> str:
    """Letters and digits only, lower case, without accents."""
    return "".join(char for char in unicodedata.normalize("NFKD", text[:200]).casefold() if char.isalnum())


def _nearest(word: str, labels: Mapping[str, tuple[Hashable, str]]) -> str:
    """``labels``: word → (what it names, how to show it); each thing is shown once."""
    begins = [known for known in labels if len(word) > 1 and known.startswith(word)]
    close = [] if word.isdecimal() else difflib.get_close_matches(word, labels, n=2 * MAX_SUGGESTIONS)
    shown: dict[Hashable, str] = {}
    for known in [*begins, *close]:
        shown.setdefault(*labels[known])
    names = list(shown.values())[:MAX_SUGGESTIONS]
    return f" Did you mean {' or '.join(names)}?" if names else ""


def _echo(text: str) -> str:
    printable = "".join(char if char.isprintable() else "?" for char in text)
    return f'"{printable if len(printable) <= MAX_ECHO_CHARS else printable[:MAX_ECHO_CHARS] + "…"}"'
