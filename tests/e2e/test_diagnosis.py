"""Why a payment failed, on the sandbox: the words that a client gets, the exit code, and what each try was."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from holdpay.sandbox.lnd_model import FailureCode
from tests.e2e.shop import Shop, open_shop
from tests.harness import enum_name, is_over, run_cli


@pytest_asyncio.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as opened:
        yield opened


async def _holdpay(shop: Shop, *words: str) -> tuple[int, str, str]:
    return await run_cli(shop.world.socket, *words)


async def test_a_fee_limit_that_is_too_low_ends_with_its_own_exit_code_and_what_it_would_take(shop: Shop) -> None:
    code, out, err = await _holdpay(shop, "code", "usa", "openai", "--max-fee", "1", "--force")
    assert (code, out) == (10, "")
    assert "a route exists at 2 sat, your limit is 1 sat: allow a higher fee" in err
    (order,) = await shop.daemon.every()
    assert enum_name(order, "cause") == "FEE_LIMIT"
    _, out, _ = await _holdpay(shop, "orders", "explain", order.id)
    assert "fee up to 1 sat: nothing to try (no route)" in out
    assert "lnd was asked what was in the way: a route exists at 2 sat, your limit is 1 sat" in out


async def test_a_hop_that_failed_is_told_in_words_and_as_json(shop: Shop) -> None:
    """The simulated lnd avoids it for longer than an order lives."""
    shop.world.lnd.fail_routing(50, FailureCode.TEMPORARY_CHANNEL_FAILURE)
    done = await shop.buy()
    peer = shop.world.lnd.network.peer_pubkey
    words = f"hop 1, {peer[:10]}…, had too little on channel 1x1x0 (TEMPORARY_CHANNEL_FAILURE)"
    assert (enum_name(done, "end"), enum_name(done, "cause")) == ("PAYMENT_FAILED", "HOP_FAILED")
    assert f"{words}; lnd avoids it for some minutes: try again later" in done.reason
    _, out, _ = await _holdpay(shop, "orders", "show", done.id, "--json")
    tries = json.loads(out)["orders"][0]["tries"]
    assert [each["n"] for each in tries] == list(range(1, len(tries) + 1))
    attempts = [attempt for each in tries for attempt in each["attempts"]]
    assert {attempt["failure"] for attempt in attempts} == {words}
    assert attempts[0]["failed_hop"] == attempts[0]["first_hop"] == peer
    assert (attempts[0]["first_channel"], attempts[0]["failed_channel"]) == ("100x1x0", "1x1x0")
    assert (tries[-1]["cause"], tries[-1]["failure_reason"]) == ("hop_failed", "no_route")


async def test_a_payment_that_gets_through_at_its_second_rung_tells_both(tmp_path: Path) -> None:
    async with open_shop(tmp_path, edit_config=_with_a_low_rung) as shop:
        done = await shop.buy()
        first, second = (await shop.daemon.get(done.id)).tries
        assert (enum_name(done, "end"), first.fee_limit_msat, first.failure_class) == ("FULFILLED", 900, "no_attempt")
        assert (second.fee_limit_msat, second.failure_reason, second.attempts[0].status) == (30_000, "", "succeeded")


async def test_a_macaroon_that_may_not_look_for_routes_changes_nothing_but_the_words(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        uris = [line[4:] for line in Path("systemd/macaroon-uris").read_text().splitlines() if line.startswith("uri:")]
        few = shop.world.lnd.bake("few", [uri for uri in uris if not uri.endswith(("QueryRoutes", "GetNodeInfo"))])
        config = shop.world.config.read_text().splitlines()
        config = [f'macaroon = "{few}"' if line.startswith("macaroon = ") else line for line in config]
        shop.world.config.write_text("\n".join(config) + "\n")
        await shop.daemon.restart()
        order = await shop.daemon.order(max_fee_sat=1, force=True)
        done = await shop.daemon.until(order.id, is_over)
    assert (enum_name(done, "end"), enum_name(done, "cause")) == ("PAYMENT_FAILED", "NO_ROUTE")
    assert "why, is not known: the macaroon does not allow GetNodeInfo" in done.reason


def _with_a_low_rung(text: str) -> str:
    return text.replace("[payment]\n", "[payment]\nfee_rungs_percent = [3.0]\n", 1)


@pytest.mark.parametrize("who", ["peer", "payee"])
async def test_whoever_is_away_is_named(shop: Shop, who: str) -> None:
    shop.world.lnd.set_online(who, online=False)
    done = await shop.buy(force=True)
    expected = {"peer": ("PEER_OFFLINE", "your peer bob ("), "payee": ("HOP_FAILED", "did not reach the next node on")}
    cause, words = expected[who]
    assert (enum_name(done, "end"), enum_name(done, "cause")) == ("PAYMENT_FAILED", cause)
    assert words in done.reason
