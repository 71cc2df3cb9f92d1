"""What stands in the way of a connection, in OpenSSL's own words, and the advice that it gets."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from random import Random

import pytest

from holdpay.clock import SystemClock
from holdpay.errors import ProviderUnavailable
from holdpay.sms4sats.client import Sms4Sats, Sms4SatsSettings, date_ahead_ms
from tests.unit.certificates import dated_certificate


@pytest.mark.parametrize(
    ("days", "is_trusted", "advice"),
    [
        ((-10, -1), True, "See that this machine's clock is right"),
        ((1, 10), True, "See that this machine's clock is right"),
        ((-1, 10), False, "log in to the network if it has a login page"),
    ],
)
async def test_a_certificate_that_is_refused_gets_the_advice_that_mends_it(
    tmp_path: Path, days: tuple[int, int], is_trusted: bool, advice: str
) -> None:
    pair = dated_certificate(*days)
    for name, pem in zip(("key", "certificate"), pair, strict=True):
        (tmp_path / name).write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    server = await asyncio.start_server(lambda reader, writer: None, "localhost", 0, ssl=context)
    settings = Sms4SatsSettings(
        url=f"https://localhost:{server.sockets[0].getsockname()[1]}",
        proxy=None,
        ca_file=tmp_path / "certificate" if is_trusted else None,
        api_key=None,
        timeout_s=10,
        max_requests_per_s=0,
    )
    client = Sms4Sats(settings, SystemClock(), Random(1))
    try:
        with pytest.raises(ProviderUnavailable, match=r"^sms4sats cannot be reached \(.*CERTIFICATE_VERIFY") as caught:
            await client.prices()
    finally:
        await client.aclose()
        server.close()
    assert advice in caught.value.message


def test_a_date_header_says_how_far_the_providers_clock_is_ahead_in_the_middle_of_its_second() -> None:
    now_ms = 784_111_777_000
    assert date_ahead_ms("Sun, 06 Nov 1994 08:49:37 GMT", now_ms) == 500
    assert date_ahead_ms(" Sun, 06 Nov 1994 09:49:37 GMT ", now_ms) == 3_600_500
    for nonsense in ("", "yesterday", "Sun, 99 Nov 1994 08:49:37 GMT"):
        assert date_ahead_ms(nonsense, now_ms) is None
