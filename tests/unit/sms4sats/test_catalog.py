from __future__ import annotations

import json
from importlib.resources import files

import pytest

from holdpay.errors import InvalidRequest, UnknownCountry
from holdpay.ports import ServiceInfo
from holdpay.sms4sats import catalog
from holdpay.sms4sats.catalog import countries, resolve_country, resolve_service

SERVICES = (
    ServiceInfo("go", "Google,youtube,Gmail", 5),
    ServiceInfo("vk", "vk.com", 28),
    ServiceInfo("dr", "OpenAI", 0),
    ServiceInfo("ot", "Any other", None),
    ServiceInfo("aa", "Mail", 1),
    ServiceInfo("ab", "mail", 1),
)


def test_every_name_of_the_reference_leads_to_its_code() -> None:
    rows = json.loads(files("holdpay").joinpath("data", "countries.json").read_text("utf-8"))
    assert len(rows) == 189
    assert {resolve_country(row["country"]).code == row["cc"] for row in rows} == {True}
    assert len(countries()) == len({row["cc"] for row in rows}) == 185


def test_no_name_stands_for_two_countries() -> None:
    seen: dict[str, int] = {}
    for country in countries():
        for name in (str(country.code), country.name, *country.aliases):
            assert seen.setdefault(catalog._word(name), country.code) == country.code, name


def test_countries_are_sorted_by_code_and_russia_is_zero() -> None:
    codes = [country.code for country in countries()]
    assert codes == sorted(codes)
    assert (countries()[0].name, countries()[-1].name) == ("Russia", "Auto-Select")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("usa", 187),
        ("US", 187),
        ("u.s.a.", 187),
        ("United States of America", 187),
        ("united-states", 187),
        ("usa (VIRTUAL)", 12),
        ("england", 16),
        ("uk", 16),
        ("United kingdom", 16),
        ("0", 0),
        ("russia", 0),
        (" 187 ", 187),
        ("999", 999),
        ("auto select", 999),
        ("Côte d’Ivoire", 27),
        ("south africa", 31),
        ("burkina faso", 152),
    ],
)
def test_a_country_is_known_by_number_name_and_alias(text: str, code: int) -> None:
    assert resolve_country(text).code == code


@pytest.mark.parametrize(
    ("text", "suggested"),
    [("germny", "Germany"), ("unted states", "United States"), ("Swit", "Switzerland"), ("Itlay", "Italy")],
)
def test_a_typo_gets_the_nearest_countries(text: str, suggested: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"Did you mean .*\b{suggested}\b") as caught:
        resolve_country(text)
    assert f'"{text}"' in caught.value.message


@pytest.mark.parametrize("text", ["", "007", "-1", "17", "1870", "٣", "zzzzzzzz", "!!!"])
def test_what_is_like_no_country_gets_no_suggestion(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolve_country(text)
    assert "Did you mean" not in caught.value.message
    assert isinstance(caught.value, UnknownCountry)


def test_long_or_dangerous_text_is_not_echoed() -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolve_country("\x1b[31m" + "x" * 100_000)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 200


def test_one_country_is_suggested_under_one_name() -> None:
    with pytest.raises(InvalidRequest, match="Did you mean United Kingdom or United Arab Emirates or United States\\?"):
        resolve_country("united")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("go", "go"),
        ("GO", "go"),
        ("openai", "dr"),
        ("Open AI", "dr"),
        ("vk", "vk"),
        ("vk.com", "vk"),
        ("gmail", "go"),
        ("YouTube", "go"),
        ("google,youtube,gmail", "go"),
        ("any other", "ot"),
    ],
)
def test_a_service_is_known_by_code_name_and_part_of_a_name(text: str, code: str) -> None:
    assert resolve_service(text, SERVICES).code == code


def test_a_short_code_counts_more_than_a_name() -> None:
    services = (ServiceInfo("a1", "go", 1), ServiceInfo("go", "Google", 1), ServiceInfo("GO", "Other", 1))
    assert resolve_service("go", services).name == "Google"
    assert resolve_service("GO", services).name == "Other"


def test_a_name_of_two_services_asks_for_the_code() -> None:
    with pytest.raises(InvalidRequest, match=r"aa \(Mail\), ab \(mail\)\. Order by the short code"):
        resolve_service("mail", SERVICES)


def test_a_typo_gets_the_nearest_services_and_the_next_command() -> None:
    with pytest.raises(InvalidRequest, match=r"Did you mean OpenAI \(dr\)\?"):
        resolve_service("opnai", SERVICES)


def test_nothing_is_found_in_nothing() -> None:
    for text, services in (("go", ()), ("", SERVICES), ("!", SERVICES)):
        with pytest.raises(InvalidRequest, match="There is no service"):
            resolve_service(text, services)
