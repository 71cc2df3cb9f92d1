"""Before anything is ordered or paid, on the sandbox: `holdpay vet`, `--dry-run`, and orders that lnd cannot pay."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from secrets import token_bytes

import grpc
import pytest
import pytest_asyncio

from tests.e2e.shop import PRICE_MSAT, Shop, open_shop
from tests.harness import code_request, enum_name, fresh_key, is_over, run_cli

NODE = "035b04e00521a8d50894e813c72576d2a03a09cd940be074b7f2e35e0a01d7d12d"


@pytest_asyncio.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as opened:
        yield opened


async def invoice(shop: Shop, value_sat: int = 2_000, cltv_delta: int = 40) -> str:
    """A hold invoice of the provider's node."""
    return await shop.world.payee.add(
        payment_hash=token_bytes(32), value_sat=value_sat, memo="", expiry_s=3600, cltv_delta=cltv_delta
    )


async def holdpay(shop: Shop, *words: str, stdin: str = "") -> tuple[int, str, str]:
    return await run_cli(shop.world.socket, *words, stdin=stdin)


async def vet(shop: Shop, payreq: str, *words: str) -> tuple[int, dict[str, object]]:
    code, out, err = await holdpay(shop, "vet", payreq, "--json", *words)
    assert out, err
    return code, json.loads(out)


def failing(report: dict[str, object]) -> list[str]:
    checks = report["checks"]
    assert isinstance(checks, list)
    return [check["rule"] for check in checks if check["verdict"] == "fail"]


async def ordered(shop: Shop) -> int:
    """How many orders anybody knows of."""
    return len(await shop.daemon.every()) + shop.world.provider.requests["/createorder"]


async def refusal(shop: Shop, **fields: object) -> grpc.aio.AioRpcError:
    try:
        await shop.daemon.submit(code_request(idempotency_key=fresh_key(), **fields))
    except grpc.aio.AioRpcError as refused:
        return refused
    raise AssertionError(f"it was ordered:\n{shop.daemon.log()}")


def outbound(shop: Shop, local_msat: int) -> None:
    """All that the node's channels have on our side."""
    for channel in shop.world.lnd.network.channels.values():
        channel.local_msat = local_msat


# --- an invoice -------------------------------------------------------------------------------------------------------


async def test_an_invoice_of_the_providers_node_would_be_paid_and_nothing_is_paid_or_recorded(shop: Shop) -> None:
    payreq = await invoice(shop)
    code, out, err = await holdpay(shop, "vet", "-", stdin=f"lightning:{payreq}\n")
    assert (code, err) == (0, "")
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert "2,000 sat  " in lines["amount"]
    assert "2 hops, by channel" in lines["route"]
    assert "1.002 sat" in lines["routing fee"]
    assert out.splitlines()[-1] == "an invoice: it would be paid for 2,000 sat."
    assert (await ordered(shop), shop.sends, shop.books.gone_msat) == (0, 0, 0)


async def test_what_is_wrong_with_an_invoice_is_all_said_at_once(shop: Shop) -> None:
    code, report = await vet(shop, await invoice(shop, value_sat=10_001, cltv_delta=145), "--max-fee", "0")
    assert code == 4
    assert failing(report) == ["amount", "final_cltv_delta", "routing_fee"]


async def test_the_invoice_of_an_order_is_not_paid_a_second_time(shop: Shop) -> None:
    done = await shop.buy()
    payreq = shop.world.provider.orders[done.payment_hash].payreq
    code, report = await vet(shop, payreq)
    assert (code, failing(report)) == (4, ["payment_hash"])


@pytest.mark.parametrize("text", ["no invoice", "lnsb1broken", "x" * 9_000])
async def test_what_is_no_invoice_is_refused_input(shop: Shop, text: str) -> None:
    code, out, err = await holdpay(shop, "vet", text)
    assert (code, out) == (2, "")
    assert "Give" in err


# --- a dry run --------------------------------------------------------------------------------------------------------

WORDS = [
    ("code", "usa", "openai"),
    ("rent", "england"),
    ("sms", "send", "+19871234567", "hi"),
    ("email", "send", "a@example.com", "hi"),
]


@pytest.mark.parametrize("words", WORDS, ids=lambda words: words[0])
async def test_a_dry_run_of_each_kind_tells_the_way_and_orders_nothing(shop: Shop, words: tuple[str, ...]) -> None:
    code, out, err = await holdpay(shop, *words, "--dry-run", "--max-price", "9999")
    assert (code, err) == (0, ""), out
    assert " by channel " in out
    assert "it would be ordered for" in out.splitlines()[-1]
    assert await ordered(shop) == 0


async def test_a_dry_run_of_an_order_that_lnd_cannot_pay_ends_as_the_order_does(shop: Shop) -> None:
    for words in (("--dry-run",), ()):
        code, out, err = await holdpay(shop, "code", "usa", "openai", "--max-fee", "1", *words)
        assert code == 10
        assert "a route exists at 2 sat, your limit is 1 sat" in out + err
    assert await ordered(shop) == 0


# --- an order that lnd cannot pay -------------------------------------------------------------------------------------


async def test_too_little_outbound_refuses_the_order_before_it_is_made(shop: Shop) -> None:
    outbound(shop, 1_200_000)
    refused = await refusal(shop)
    assert refused.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "largest usable channel" in (refused.details() or "")
    assert await ordered(shop) == 0
    code, out, err = await holdpay(shop, "code", "usa", "openai")
    assert (code, out) == (11, "")
    assert "--force orders all the same" in err


async def test_a_peer_that_is_away_refuses_the_order_and_names_it(shop: Shop) -> None:
    shop.world.lnd.set_online("peer", online=False)
    assert "is offline" in ((await refusal(shop)).details() or "")
    shop.world.lnd.set_online("peer", online=True)
    assert (await shop.buy()).spent_msat


async def test_a_payee_that_the_graph_does_not_have_refuses_the_order(tmp_path: Path) -> None:
    def of_another(text: str) -> str:
        lines = [f'payee_pubkeys = ["{NODE}"]' if "payee_pubkeys" in line else line for line in text.splitlines()]
        return "\n".join(lines) + "\n"

    async with open_shop(tmp_path, edit_config=of_another) as shop:
        assert "is not in lnd's graph" in ((await refusal(shop)).details() or "")
        assert await ordered(shop) == 0


async def test_one_who_insists_has_it_ordered_and_it_fails_with_the_same_words(shop: Shop) -> None:
    said = (await refusal(shop, max_fee_sat=1)).details() or ""
    order = await shop.daemon.order(max_fee_sat=1, force=True)
    done = await shop.daemon.until(order.id, is_over)
    assert "a route exists at 2 sat, your limit is 1 sat" in said
    assert "a route exists at 2 sat, your limit is 1 sat" in done.reason
    assert done.spent_msat == 0


async def test_a_macaroon_without_queryroutes_orders_as_ever(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        uris = [line[4:] for line in Path("systemd/macaroon-uris").read_text().splitlines() if line.startswith("uri:")]
        few = shop.world.lnd.bake("few", [uri for uri in uris if not uri.endswith(("QueryRoutes", "GetNodeInfo"))])
        config = shop.world.config.read_text().splitlines()
        config = [f'macaroon = "{few}"' if line.startswith("macaroon = ") else line for line in config]
        shop.world.config.write_text("\n".join(config) + "\n")
        await shop.daemon.restart()
        code, out, err = await holdpay(shop, "code", "usa", "openai", "--dry-run")
        assert (code, err) == (0, "")
        assert "the macaroon does not allow QueryRoutes" in out
        assert (await shop.buy()).spent_msat == PRICE_MSAT + 1_003


# --- trust on first use -----------------------------------------------------------------------------------------------


async def payees(shop: Shop, *words: str) -> str:
    """`holdpayd payees`, while the daemon runs."""
    command = (sys.executable, "-m", "holdpay.cli.daemon", "--config", str(shop.world.config), "payees", *words)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_on_first_use_the_first_node_is_the_one_that_is_paid_until_a_person_says_otherwise(
    tmp_path: Path,
) -> None:
    def first_use(text: str) -> str:
        return text.replace("[provider]\n", '[provider]\npayee_check = "first-use"\n')

    async with open_shop(tmp_path, edit_config=first_use) as shop:
        node = await shop.world.payee.pubkey()
        assert await payees(shop) == "No node was paid yet, and none was added.\n"
        first = await shop.buy()
        told = await payees(shop)
        assert told.startswith(f"{node}\n    trusted     yes, since its first use\n")
        assert f"order {first.id}" in told
        _, report = await vet(shop, await invoice(shop))
        checks = report["checks"]
        assert isinstance(checks, list)
        (payee,) = [check for check in checks if check["rule"] == "payee"]
        assert (payee["value"], payee["verdict"]) == (node, "pass")

        await payees(shop, "add", NODE)
        await payees(shop, "remove", node)
        refused = await shop.buy(force=True)
        assert enum_name(refused, "end") == "INVOICE_REJECTED"
        assert f"`holdpayd payees add {node}`" in refused.reason

        await payees(shop, "add", node)
        assert enum_name(await shop.buy(), "end") == "FULFILLED"
