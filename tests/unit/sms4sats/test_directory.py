"""What is known of countries and services without asking, over restarts and while the provider is down."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from holdpay.errors import ProviderUnavailable
from holdpay.ports import CountriesOrigin, ListedCountry, ProviderHealth, ServiceInfo
from holdpay.sms4sats.catalog import bundled
from holdpay.sms4sats.directory import FILE, MAX_SERVICES, REFRESH_S, KeptDirectory
from tests.unit.sms4sats.clock import ManualClock

LIST = [ListedCountry(code=0, name="Ruritania", is_shown=True, has_rentals=True)]


class Provider:
    """Only what the directory asks."""

    def __init__(self, url: str = "https://provider.example") -> None:
        self.rows: Sequence[ListedCountry] | None = LIST
        self.count = 0
        self.health = ProviderHealth(url=url, answered_at_ms=None, last_error="", request_count=0, requests_per_s=20)

    async def countries(self) -> Sequence[ListedCountry]:
        self.count += 1
        if self.rows is None:
            raise ProviderUnavailable("It is down.")
        return self.rows


class Home:
    """A state folder; ``start`` is a start of the daemon."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.provider = Provider()

    def start(self) -> KeptDirectory:
        return KeptDirectory(self.provider, self.clock, self.folder)  # type: ignore[arg-type]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


async def test_before_the_provider_ever_answered_the_bundled_list_is_told_as_stale(home: Home) -> None:
    home.provider.rows = None
    directory = home.start()
    await directory.refresh()
    assert directory.countries() == bundled().all
    assert directory.origin() == CountriesOrigin(asked_at_ms=None, is_stale=True)
    assert directory.resolve_country("0").name == "Russia"


async def test_the_providers_list_is_kept_over_restarts_with_its_age(home: Home) -> None:
    asked_at_ms = home.clock.now_ms()
    await home.start().refresh()
    home.provider.rows = None
    await home.clock.advance(60)
    again = home.start()
    await again.refresh()
    assert home.provider.count == 1  # young enough
    assert again.resolve_country("ruritania").code == 0
    assert again.countries()[0].has_rentals is True
    assert again.origin() == CountriesOrigin(asked_at_ms=asked_at_ms, is_stale=False)


async def test_a_list_is_stale_while_the_provider_is_down_and_asked_for_again_at_each_turn(home: Home) -> None:
    directory = home.start()
    await directory.refresh()
    asked_at_ms = home.clock.now_ms()
    home.provider.rows = None
    await home.clock.advance(REFRESH_S)
    assert directory.origin() == CountriesOrigin(asked_at_ms=asked_at_ms, is_stale=True)
    await directory.refresh()
    await directory.refresh()
    assert home.provider.count == 3
    assert directory.resolve_country("ruritania").code == 0
    home.provider.rows = LIST
    await directory.refresh()
    assert directory.origin() == CountriesOrigin(asked_at_ms=home.clock.now_ms(), is_stale=False)
    await directory.refresh()
    assert home.provider.count == 4


async def test_a_young_list_is_stale_as_soon_as_the_provider_does_not_answer(home: Home) -> None:
    directory = home.start()
    await directory.refresh()
    assert not directory.origin().is_stale
    home.provider.health = replace(home.provider.health, last_error="It is down.")
    assert directory.origin().is_stale
    await directory.refresh()
    assert home.provider.count == 1


async def test_a_provider_that_stays_down_is_told_to_the_log_once(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = home.start()
    for rows in (None, None, LIST, None):
        home.provider.rows = rows
        await directory.refresh()
        await home.clock.advance(REFRESH_S)
    assert capsys.readouterr().out.count("could not be had") == 2


async def test_a_list_from_the_future_is_old(home: Home) -> None:
    await home.start().refresh()
    home.clock._now_s -= 3600
    directory = home.start()
    assert directory.origin().is_stale
    await directory.refresh()
    assert home.provider.count == 2


async def test_what_another_provider_said_is_not_taken_for_this_ones(home: Home) -> None:
    await home.start().refresh()
    home.start().saw_services([ServiceInfo("dr", "OpenAI", 1)])
    home.provider = Provider("http://127.0.0.1:1")
    directory = home.start()
    assert directory.countries() == bundled().all
    assert directory.seen_services() == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[]", b'{"url": 5}', b'{"url": "x", "countries": [{"code": "a"}]}']
)
async def test_a_file_that_cannot_be_read_is_asked_for_anew(home: Home, content: bytes) -> None:
    (home.folder / FILE).write_bytes(content)
    directory = home.start()
    assert directory.countries() == bundled().all
    await directory.refresh()
    assert home.start().resolve_country("ruritania").code == 0


async def test_a_folder_that_takes_nothing_costs_only_what_the_next_start_would_know(home: Home) -> None:
    (home.folder / FILE).mkdir()
    directory = home.start()
    await directory.refresh()
    directory.saw_services([ServiceInfo("dr", "OpenAI", 1)])
    assert directory.resolve_country("ruritania").code == 0
    assert directory.seen_services() == [ServiceInfo("dr", "OpenAI", None)]


async def test_the_file_is_for_the_daemon_alone(home: Home) -> None:
    await home.start().refresh()
    assert stat.S_IMODE((home.folder / FILE).stat().st_mode) == 0o600
    assert [path.name for path in home.folder.iterdir()] == [FILE]


async def test_services_that_were_listed_anywhere_are_known_later_without_their_stock(home: Home) -> None:
    directory = home.start()
    directory.saw_services([ServiceInfo("dr", "OpenAI", 1), ServiceInfo("tg", "Telegram", 0)])
    directory.saw_services([ServiceInfo("dr", "ChatGPT", 5)])
    directory.saw_services([])
    seen = [ServiceInfo("tg", "Telegram", None), ServiceInfo("dr", "ChatGPT", None)]
    assert directory.seen_services() == seen
    await directory.refresh()
    assert home.start().seen_services() == seen


async def test_the_file_is_not_written_again_for_what_it_has(home: Home) -> None:
    directory = home.start()
    directory.saw_services([ServiceInfo("dr", "OpenAI", 1), ServiceInfo("tg", "Telegram", 0)])
    (home.folder / FILE).unlink()
    directory.saw_services([ServiceInfo("tg", "Telegram", 77)])
    assert not (home.folder / FILE).exists()


async def test_of_too_many_services_the_oldest_are_forgotten(home: Home) -> None:
    directory = home.start()
    directory.saw_services([ServiceInfo("old", "Old", 1)])
    directory.saw_services([ServiceInfo(f"s{n}", "x", 1) for n in range(MAX_SERVICES)])
    seen = directory.seen_services()
    assert len(seen) == MAX_SERVICES
    assert seen[0].code == "s0"
