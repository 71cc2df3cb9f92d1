"""The prepaid account with the real daemon: balance, funding, the alarm, and the key that is shown nowhere."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import grpc
import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli.exit_codes import ExitCode
from tests.e2e.shop import Shop, open_shop
from tests.harness import run_cli

KEY = "k3y-of-the-account"
PATIENCE_S = 120


def with_account(folder: Path) -> str:
    path = folder / "the-key"
    path.write_text(f"{KEY}\n")
    path.chmod(0o600)
    return f'[provider]\napi_key_file = "{path}"\nwarn_balance_below_sat = 5000\n'


async def until_alarmed(shop: Shop) -> pb.GetStatusResponse:
    async with asyncio.timeout(PATIENCE_S):
        while not (status := await shop.daemon.status()).alarms:
            await asyncio.sleep(0.05)
    return status


async def test_a_low_balance_is_told_without_a_question_and_the_key_is_in_no_log(tmp_path: Path) -> None:
    def edit(text: str) -> str:
        text = text.replace("[daemon]\n", '[daemon]\nlog_level = "debug"\n')
        return text.replace("[provider]\n", with_account(tmp_path))

    async with open_shop(tmp_path, edit_config=edit) as shop:
        knobs = shop.world.provider.knobs
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await shop.daemon.stub.GetAccount(pb.GetAccountRequest())
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE  # another key
        assert "See that provider.api_key_file holds the account's key" in str(refused.value.details())

        knobs.api_key, knobs.balance_sat = KEY, 4999
        await shop.daemon.restart()
        await shop.daemon.until_ready()
        status = await until_alarmed(shop)
        assert "The prepaid account has 4,999 sat" in status.alarms[0]
        assert status.ready, "a warning stops no order"

        knobs.balance_sat = 5000
        code, words, _ = await run_cli(shop.world.socket, "account", "balance", "--json")
        assert (code, json.loads(words)["balance_sat"]) == (ExitCode.DONE, 5000)
        assert list((await shop.daemon.status()).alarms) == []

        code, words, notes = await run_cli(shop.world.socket, "account", "history")
        assert (code, words) == (ExitCode.DONE, "")
        assert "Nothing was paid into the account yet." in notes
        log = shop.daemon.log()
    assert "The prepaid account has" in log
    assert KEY not in log


async def test_without_a_key_the_account_says_how_to_give_one_and_the_provider_is_not_asked(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        for command in ("balance", "history"):
            code, words, notes = await run_cli(shop.world.socket, "account", command)
            assert (code, words) == (ExitCode.REFUSED_NOW, "")
            assert "provider.api_key_file" in notes
        assert shop.world.provider.requests["/balance"] + shop.world.provider.requests["/history"] == 0
