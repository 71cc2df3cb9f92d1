"""The look at lnd's certificate, on servers with certificates of every kind."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from holdpay.config import LndPlace
from holdpay.doctor.certificate import look_at_certificate
from holdpay.doctor.findings import Unseen
from holdpay.doctor.seen import CertificateSeen, Problem
from tests.unit.certificates import dated_certificate

DAY_MS = 86_400_000
Serve = Callable[[int, int], AbstractAsyncContextManager[str]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """An "lnd" whose certificate is good from so many days from now to so many; its address. tls.cert is its own."""

    @asynccontextmanager
    async def serve(first_day: int, last_day: int) -> AsyncIterator[str]:
        for name, pem in zip(("key", "tls.cert"), dated_certificate(first_day, last_day), strict=True):
            (tmp_path / name).write_bytes(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "tls.cert", tmp_path / "key")
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0, ssl=context)
        async with server:
            yield f"localhost:{server.sockets[0].getsockname()[1]}"

    return serve


async def looked(place: LndPlace) -> CertificateSeen:
    seen = await look_at_certificate(place)
    assert isinstance(seen, CertificateSeen)
    return seen


def days_left(seen: CertificateSeen) -> int:
    assert seen.expires_at_ms is not None
    return round((seen.expires_at_ms - time.time() * 1000) / DAY_MS)


async def test_the_served_certificate_is_seen_with_its_end(serve: Serve, tmp_path: Path) -> None:
    async with serve(-1, 12) as address:
        seen = await looked(LndPlace(address=address, tls_cert=tmp_path / "tls.cert"))
    assert (seen.is_served, seen.problem, days_left(seen)) == (True, None, 12)


@pytest.mark.parametrize(
    ("days", "problem"), [((-10, -1), Problem.EXPIRED), ((1, 10), Problem.NOT_YET_VALID)], ids=lambda each: str(each)
)
async def test_one_outside_its_days_is_told(
    serve: Serve, tmp_path: Path, days: tuple[int, int], problem: Problem
) -> None:
    async with serve(*days) as address:
        seen = await looked(LndPlace(address=address, tls_cert=tmp_path / "tls.cert"))
    assert seen.problem is problem
    assert seen.words


async def test_one_for_another_name_and_one_that_nobody_vouches_for_are_told_apart(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve(-1, 10) as address:
        place = LndPlace(address=address, tls_cert=tmp_path / "tls.cert", tls_server_name="elsewhere")
        assert (await looked(place)).problem is Problem.OTHER_NAME
        (tmp_path / "other.cert").write_bytes(dated_certificate(-1, 10)[1])
        assert (
            await looked(LndPlace(address=address, tls_cert=tmp_path / "other.cert"))
        ).problem is Problem.NOT_TRUSTED


async def test_where_nobody_answers_the_file_is_asked(serve: Serve, tmp_path: Path) -> None:
    async with serve(-1, 40) as address:
        pass
    seen = await looked(LndPlace(address=address, tls_cert=tmp_path / "tls.cert"))
    assert (seen.is_served, seen.problem) == (False, None)
    assert days_left(seen) == 40


async def test_a_file_that_cannot_be_read_any_more_is_unseen(serve: Serve, tmp_path: Path) -> None:
    async with serve(-1, 40) as address:
        place = LndPlace(address=address, tls_cert=tmp_path / "tls.cert")
        (tmp_path / "tls.cert").unlink()
        assert isinstance(await look_at_certificate(place), Unseen)
