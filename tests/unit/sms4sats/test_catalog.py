from __future__ import annotations

import json
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdpay.errors import InvalidRequest, UnknownCountry
from holdpay.ports import CountryInfo, ListedCountry, ServiceInfo
from holdpay.sms4sats.catalog import Countries, bundled, listed, resolve_service
from holdpay.sms4sats.words import word

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
    assert {bundled().resolve(row["country"]).code == row["cc"] for row in rows} == {True}
    assert len(bundled().all) == len({row["cc"] for row in rows}) == 185


def test_no_name_stands_for_two_countries() -> None:
    seen: dict[str, int] = {}
    for country in bundled().all:
        for name in (str(country.code), country.name, *country.aliases):
            assert seen.setdefault(word(name), country.code) == country.code, name


def test_countries_are_sorted_by_code_and_russia_is_zero() -> None:
    codes = [country.code for country in bundled().all]
    assert codes == sorted(codes)
    assert (bundled().all[0].name, bundled().all[-1].name) == ("Russia", "Auto-Select")


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
        ("DE", 43),
        ("deu", 43),
        ("GBR", 16),
        ("gb", 16),
        ("ru", 0),
        ("RUS", 0),
        ("COD", 18),
        ("bn", 121),
        ("Viet Nam", 10),
    ],
)
def test_a_country_is_known_by_number_name_and_alias(text: str, code: int) -> None:
    assert bundled().resolve(text).code == code


@pytest.mark.parametrize(
    ("text", "suggested"),
    [("germny", "Germany"), ("unted states", "United States"), ("Swit", "Switzerland"), ("Itlay", "Italy")],
)
def test_a_typo_gets_the_nearest_countries(text: str, suggested: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"Did you mean .*\b{suggested}\b") as caught:
        bundled().resolve(text)
    assert f'"{text}"' in caught.value.message


@pytest.mark.parametrize("text", ["", "007", "-1", "17", "1870", "٣", "zzzzzzzz", "!!!"])
def test_what_is_like_no_country_gets_no_suggestion(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        bundled().resolve(text)
    assert "Did you mean" not in caught.value.message
    assert isinstance(caught.value, UnknownCountry)


def test_long_or_dangerous_text_is_not_echoed() -> None:
    with pytest.raises(InvalidRequest) as caught:
        bundled().resolve("\x1b[31m" + "x" * 100_000)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 200


def test_one_country_is_suggested_under_one_name() -> None:
    with pytest.raises(InvalidRequest, match="Did you mean United Kingdom or United Arab Emirates or United States\\?"):
        bundled().resolve("united")


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
        with pytest.raises(InvalidRequest, match="lists no service"):
            resolve_service(text, services)


# --- the provider's list --------------------------------------------------------------------------------------------


def row(code: int, name: str, is_shown: bool | None = True, has_rentals: bool | None = None) -> ListedCountry:
    return ListedCountry(code=code, name=name, is_shown=is_shown, has_rentals=has_rentals)


def by_code(countries: Countries) -> dict[int, CountryInfo]:
    return {country.code: country for country in countries.all}


def test_the_providers_name_wins_and_the_bundled_ones_stay_as_aliases() -> None:
    countries = listed([row(187, "America"), row(0, "Russian Federation")])
    usa = countries.resolve("america")
    assert (usa.code, usa.name) == (187, "America")
    assert {"USA", "United States", "US"} <= set(usa.aliases)
    for text, code in (("usa", 187), ("us", 187), ("russia", 0), ("RU", 0), ("rus", 0)):
        assert countries.resolve(text).code == code


def test_a_country_that_the_provider_has_under_another_number_is_no_longer_under_ours() -> None:
    countries = listed([row(500, "Germany"), row(43, "Austria")])
    for text in ("germany", "de", "DEU"):
        assert countries.resolve(text).code == 500
    for text in ("austria", "AT", "43"):
        assert countries.resolve(text).code == 43
    assert "Germany" not in by_code(countries)[43].aliases
    assert 50 not in by_code(countries)  # ours for Austria


def test_the_further_names_of_a_country_go_with_it_to_another_number() -> None:
    countries = listed([row(300, "Russia")])
    assert countries.resolve("russian").code == countries.resolve("RU").code == 300
    assert 0 not in by_code(countries)


def test_a_name_that_only_iso_knows_leads_to_the_country_that_is_meant() -> None:
    countries = listed([row(43, "Republic of Austria")])
    assert countries.resolve("austria").code == countries.resolve("AT").code == 43
    assert 50 not in by_code(countries)
    with pytest.raises(UnknownCountry):
        countries.resolve("germany")


def test_a_countrys_own_name_is_no_alias_of_another() -> None:
    countries = listed([row(187, "America"), row(700, "United States")])
    assert countries.resolve("united states").code == 700
    assert countries.resolve("usa").code == 187


def test_a_new_country_has_the_names_of_iso() -> None:
    countries = listed([row(700, "Iran, Islamic Republic of"), row(701, "Pitcairn")])
    assert countries.resolve("pn").code == countries.resolve("PCN").code == 701
    assert countries.resolve("iran").code == countries.resolve("IR").code == 700


def test_an_iso_code_is_of_the_country_with_the_name_and_not_of_a_part_of_it() -> None:
    countries = listed([row(16, "England"), row(800, "United Kingdom")])
    assert countries.resolve("gb").code == countries.resolve("GBR").code == 800
    assert countries.resolve("england").code == 16


def test_what_the_provider_leaves_out_or_hides_is_known_as_not_shown() -> None:
    countries = by_code(listed([row(0, "Russia"), row(1, "Ukraine", is_shown=False), row(2, "Kazakhstan", None)]))
    assert {code: countries[code].is_shown for code in (0, 1, 2, 187, 999)} == {
        0: True,
        1: False,
        2: True,
        187: False,
        999: False,
    }
    assert bundled().resolve("0").is_shown is None


def test_rentals_are_told_where_the_provider_says_so() -> None:
    countries = by_code(
        listed([row(0, "Russia", has_rentals=False), row(6, "Indonesia", has_rentals=True), row(1, "x")])
    )
    assert [countries[code].has_rentals for code in (0, 6, 1, 187)] == [False, True, None, None]


def test_two_countries_of_one_name_are_asked_for_by_number() -> None:
    countries = listed([row(187, "USA"), row(12, "USA")])
    with pytest.raises(UnknownCountry, match='country is named "usa": 12 and 187'):
        countries.resolve("usa")
    assert countries.resolve("12").code == 12


def test_a_country_that_comes_twice_is_one() -> None:
    assert by_code(listed([row(43, "Germany"), row(43, "Austria")]))[43].name == "Germany"


def test_a_name_with_a_digit_is_a_name_and_a_name_of_digits_is_no_number() -> None:
    countries = listed([row(187, "USA 2"), row(5, "187")])
    assert countries.resolve("usa 2").code == 187
    assert countries.resolve("187").code == 187
    with pytest.raises(UnknownCountry):
        countries.resolve("-187")


@given(st.lists(st.builds(row, st.integers(0, 999), st.sampled_from(["USA", "Germany", "DE", "0", "", "x y", "Côte"]))))
def test_whatever_the_provider_lists_each_number_is_one_country(rows: list[ListedCountry]) -> None:
    countries = listed(rows)
    assert len({country.code for country in countries.all}) == len(countries.all)
    for told in rows:
        assert countries.resolve(str(told.code)).code == told.code
