"""What lnd is asked to bake, and what becomes of an answer that is not what was asked for."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from holdpay.errors import LndDenied, LndRefused, LndUnavailable
from holdpay.lnd.bakery import bake
from holdpay.lnd.macaroon import RIGHTS
from holdpay.lnd.settings import LndSettings
from tests.unit.lnd.fakes import ALICE, FakeClock, FakeLnd, settings_for
from tests.unit.lnd.test_macaroon import METHODS, baked

ADMIN = b"\x02admin"


@pytest.fixture
def settings(lnd: FakeLnd, tmp_path: Path) -> LndSettings:
    return settings_for(lnd.port, tmp_path / "tls.cert", macaroon=ADMIN)


async def test_exactly_the_documented_rights_are_asked_for_with_the_admin_macaroon_and_tried_with_the_new_one(
    lnd: FakeLnd, settings: LndSettings, clock: FakeClock, tmp_path: Path
) -> None:
    lnd.baked = baked(tmp_path, METHODS)
    assert await bake(settings, clock, 77) == (lnd.baked, ALICE)
    (request,) = lnd.bakings
    assert tuple(f"{each.entity}:{each.action}" for each in request.permissions) == RIGHTS
    assert request.root_key_id == 77
    assert set(lnd.calls[1:]) == {"GetInfo"}
    assert lnd.macaroons == {"BakeMacaroon": [ADMIN.hex()], "GetInfo": [lnd.baked.hex()]}


async def test_a_macaroon_that_lacks_a_right_is_not_taken(
    lnd: FakeLnd, settings: LndSettings, clock: FakeClock, tmp_path: Path
) -> None:
    lnd.baked = baked(tmp_path, METHODS[:-2])
    with pytest.raises(LndRefused, match="lacks QueryRoutes, SubscribeHtlcEvents"):
        await bake(settings, clock, 0)
    lnd.baked = b"no macaroon"
    with pytest.raises(LndRefused, match="cannot be read"):
        await bake(settings, clock, 0)


async def test_one_that_lnd_does_not_take_afterwards_is_not_taken_either(
    lnd: FakeLnd, settings: LndSettings, clock: FakeClock, tmp_path: Path
) -> None:
    lnd.baked = baked(tmp_path, METHODS)
    lnd.errors["GetInfo"] = (grpc.StatusCode.UNKNOWN, "verification failed: signature mismatch")
    with pytest.raises(LndDenied, match="signature mismatch"):
        await bake(settings, clock, 0)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("permission denied", LndDenied, "Name lnd's own admin.macaroon"),
        ("wallet locked, unlock it to enable full RPC access", LndUnavailable, "lncli unlock"),
        ("invalid permission action", LndRefused, "invalid permission action"),
    ],
)
async def test_a_refusal_is_told_with_what_to_do(
    lnd: FakeLnd, settings: LndSettings, clock: FakeClock, text: str, error: type[Exception], words: str
) -> None:
    lnd.errors["BakeMacaroon"] = (grpc.StatusCode.UNKNOWN, text)
    with pytest.raises(error, match=words):
        await bake(settings, clock, 0)
