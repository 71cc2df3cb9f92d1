"""`holdpayd doctor` and `holdpayd bake-macaroon` on a real lnd."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from holdpay.lnd.macaroon import RIGHTS, missing_rights
from holdpay.sandbox.files import write_private
from tests.e2e.test_doctor import ALL_CHECKS, Ran, holdpayd
from tests.integration.market import FAST, open_market, open_shop
from tests.regtest.net import Net
from tests.regtest.rest import NodeError

pytestmark = pytest.mark.real

ROOT_KEY_ID = 4711


def verdicts(ran: Ran) -> dict[str, str]:
    return {each["check"]: each["verdict"] for each in json.loads(ran.out)["checks"]}


async def test_all_is_well_with_a_real_lnd_beside_the_daemon(healthy_net: Net, tmp_path: Path) -> None:
    async with open_market(healthy_net, tmp_path) as market:
        payments = await market.alice.payments()
        ran = await holdpayd(tmp_path / "config.toml", "doctor", "--json")
        assert await market.alice.payments() == payments
    assert ran.code == 0, ran.out
    said = verdicts(ran)
    assert list(said) == ALL_CHECKS
    # FAST waits less than one should, and says so; a regtest chain has no time of its own.
    assert {check for check, verdict in said.items() if verdict != "ok"} == {"configuration"}, ran.out
    assert "is a release that holdpay was tried with" in ran.of("version")
    assert "lnd knows a route for 10,000 sat" in ran.of("route")
    assert "lnd's certificate is good for" in ran.of("certificate")


async def test_what_the_macaroon_lacks_is_told_and_a_fresh_one_is_baked_with_a_root_key_of_its_own(
    healthy_net: Net, tmp_path: Path
) -> None:
    alice = healthy_net["alice"]
    async with open_shop(healthy_net, tmp_path, extra_config=FAST) as (_, config):
        macaroon = tmp_path / "holdpay.macaroon"
        macaroon.unlink()
        bake = ("bake-macaroon", "--admin-macaroon", alice.admin_macaroon_path, "--save-to", macaroon)
        baked = await holdpayd(config, *bake, "--root-key-id", str(ROOT_KEY_ID))
        assert (baked.code, baked.err) == (0, "")
        assert stat.S_IMODE(macaroon.stat().st_mode) == 0o600
        assert missing_rights(macaroon.read_bytes()) == ()
        assert verdicts(await holdpayd(config, "doctor", "--json"))["macaroon"] == "ok"
        with pytest.raises(NodeError, match="permission denied"):
            await alice.rest_with(macaroon.read_bytes()).get("/v1/balance/blockchain")

        other = await holdpayd(config, "bake-macaroon", "--admin-macaroon", macaroon, "--save-to", tmp_path / "no")
        assert other.code == 1
        assert "does not let this macaroon bake another" in other.err
        assert not (tmp_path / "no").exists()

        await alice.delete_macaroon_id(ROOT_KEY_ID)
        revoked = await holdpayd(config, "doctor", "--json")
        assert revoked.code == 4
        assert "does not accept the macaroon" in revoked.of("lnd")

        kept = [right.removeprefix("uri:") for right in RIGHTS if not right.endswith("/QueryRoutes")]
        macaroon.unlink()
        write_private(macaroon, await alice.bake_macaroon(kept))
        narrow = await holdpayd(config, "doctor", "--json")
        assert narrow.code == 0
        assert "warning: It does not allow QueryRoutes" in narrow.of("macaroon")
        assert "the macaroon does not allow QueryRoutes" in narrow.of("route")


async def test_no_way_to_the_payee_is_told_with_the_limit_that_is_in_the_way(healthy_net: Net, tmp_path: Path) -> None:
    dear = FAST.replace("[payment]\n", "[payment]\nmax_fee_sat = 0\n")
    async with open_shop(healthy_net, tmp_path, extra_config=dear) as (_, config):
        ran = await holdpayd(config, "doctor", "--json")
    assert ran.code == 4
    assert "and the fee limit is 0" in ran.of("route")
