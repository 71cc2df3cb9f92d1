"""What can be bought, from the provider to the command line: over a restart, and while the provider is down."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from click.shell_completion import ShellComplete

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli.exit_codes import ExitCode
from holdpay.cli.root import COMPLETE_VARIABLE, PROGRAM, cli
from tests.e2e.shop import Shop, open_shop
from tests.harness import run_cli

PATIENCE_S = 120
MANY = 1_000_000


async def told(shop: Shop, *arguments: str) -> dict[str, Any]:
    code, words, notes = await run_cli(shop.world.socket, *arguments, "--json")
    assert code == ExitCode.DONE, notes
    found: dict[str, Any] = json.loads(words)
    return found


async def countries_told(shop: Shop, *, stale: bool = False) -> pb.ListCountriesResponse:
    """Once the background look is over."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            reply = await shop.daemon.stub.ListCountries(pb.ListCountriesRequest())
            if reply.HasField("asked_at_ms") and reply.stale is stale:
                return reply
            await asyncio.sleep(0.05)


async def test_the_providers_countries_outlive_a_restart_and_a_provider_that_is_down(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        reply = await countries_told(shop)
        rentals = {country.code for country in reply.countries if country.rentals}
        assert (len(reply.countries), rentals) == (185, {6, 16})
        asked = shop.world.provider.requests["/getCountries"]

        shop.world.provider.knobs.http_500 = MANY
        await shop.daemon.restart()
        assert (await countries_told(shop)).asked_at_ms == reply.asked_at_ms
        assert shop.world.provider.requests["/getCountries"] == asked
        assert (await told(shop, "countries", "DEU"))["countries"][0]["name"] == "Germany"


async def test_while_the_provider_never_answered_the_bundled_list_is_told_as_such(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        await countries_told(shop)
        shop.world.provider.knobs.http_500 = MANY
        await shop.daemon.stop()
        (kept,) = tmp_path.rglob("catalog.json")
        kept.unlink()
        await shop.daemon.start_ready()
        found = await told(shop, "countries", "germany")
        assert (found["asked_at_ms"], found["stale"], len(found["countries"])) == (None, True, 1)
        assert found["countries"][0]["rentals"] is None


async def test_rentals_are_listed_with_weeks_and_price(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        everywhere = (await told(shop, "rentals"))["rentals"]
        assert [(rental["country"], rental["weeks"], rental["price_sat"]) for rental in everywhere] == [
            ("England", 2, 4815),
            ("Indonesia", 2, 1368),
        ]
        in_gb = await told(shop, "rentals", "GB", "--service", "openai")
        assert (in_gb["service"]["code"], [rental["country_code"] for rental in in_gb["rentals"]]) == ("dr", [16])
        code, words, notes = await run_cli(shop.world.socket, "rentals", "usa")
        assert (code, words, notes) == (ExitCode.DONE, "", "No number is rented in USA for any service now.\n")


async def test_services_complete_from_what_was_seen_before_the_restart_without_a_call(tmp_path: Path) -> None:
    def complete(incomplete: str) -> list[str]:
        completer = ShellComplete(cli, {}, PROGRAM, COMPLETE_VARIABLE)
        arguments = ["--socket", str(shop.world.socket), "code", "usa"]
        return [item.value for item in completer.get_completions(arguments, incomplete)]

    async with open_shop(tmp_path) as shop:
        assert await asyncio.to_thread(complete, "open") == []
        await told(shop, "services", "usa")
        await shop.daemon.restart()
        asked = shop.world.provider.requests["/getnumbersstatus"]
        assert await asyncio.to_thread(complete, "open") == ["openai"]
        assert await asyncio.to_thread(complete, "t") == ["tg", "tw", "telegram", "twitter"]
        assert shop.world.provider.requests["/getnumbersstatus"] == asked
