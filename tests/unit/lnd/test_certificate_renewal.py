"""lnd makes a new certificate when the old one has expired: old connections go on, new ones need the new file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay.core.lightning import Lost, Reported
from holdpay.errors import ConfigError, LndUnavailable
from holdpay.lnd.node import LndNode
from holdpay.sandbox.tls import Certificate, write_certificate
from tests.unit.lnd.fakes import ALICE, PATIENCE_S, SPEC, FakeClock, FakeLnd, Reading, settings_for

OUT = lnrpc.Payment(payment_hash=SPEC.payment_hash, status=lnrpc.Payment.IN_FLIGHT)
PAID = lnrpc.Payment(payment_hash=SPEC.payment_hash, status=lnrpc.Payment.SUCCEEDED)


async def test_after_a_restart_with_a_new_certificate_calls_go_on(node: LndNode, lnd: FakeLnd, tmp_path: Path) -> None:
    await lnd.stop()
    await lnd.start(write_certificate(tmp_path))
    assert (await node.decode("lnsb1"))[1] == ALICE


async def test_the_status_is_looked_at_soon_after_a_new_certificate_was_read(
    node: LndNode, lnd: FakeLnd, tmp_path: Path
) -> None:
    node._monitor._broke.clear()
    write_certificate(tmp_path)
    node._link._renew()
    assert node._monitor._broke.is_set()


async def test_an_unchanged_certificate_keeps_the_connection(node: LndNode, lnd: FakeLnd, tmp_path: Path) -> None:
    connection = node._link.current
    other = tmp_path / "other"
    other.mkdir()
    await lnd.stop()
    await lnd.start(write_certificate(other))
    with pytest.raises(LndUnavailable, match=r"certificate .* was not accepted"):
        await node.decode("lnsb1")
    assert node._link.current is connection


async def test_a_half_written_certificate_is_looked_at_again(node: LndNode, lnd: FakeLnd, tmp_path: Path) -> None:
    await lnd.stop()
    new = write_certificate(tmp_path)
    (tmp_path / "tls.cert").write_bytes(new.certificate[:100])
    await lnd.start(new)
    with pytest.raises(LndUnavailable):
        await node.decode("lnsb1")
    (tmp_path / "tls.cert").write_bytes(new.certificate)
    assert (await node.decode("lnsb1"))[1] == ALICE


async def test_a_stream_that_is_open_ends_in_peace_before_its_connection_is_closed(
    node: LndNode, lnd: FakeLnd, tmp_path: Path
) -> None:
    tracking = Reading(node.track(SPEC.payment_hash, ALICE))
    (await lnd.next_stream()).say(OUT)
    await tracking.begun()
    link = node._stream_link
    assert link is not None
    old = link.current
    # lnd reads its certificate anew without a restart (since 0.16); here a second listener stands for it.
    new = FakeLnd()
    await new.start(write_certificate(tmp_path))
    link._renew()
    (retiring,) = link._retiring
    assert link.current is not old
    assert not retiring.done()
    lnd.tell(PAID)
    assert await tracking.ended() == [Reported, Reported]
    assert not retiring.done()
    assert lnd.of_all is not None
    lnd.of_all.end()
    await asyncio.wait_for(retiring, PATIENCE_S)
    await new.stop()


async def test_closing_the_node_ends_streams_on_retired_connections_too(
    node: LndNode, lnd: FakeLnd, tmp_path: Path
) -> None:
    tracking = Reading(node.track(SPEC.payment_hash, ALICE))
    (await lnd.next_stream()).say(OUT)
    await tracking.begun()
    write_certificate(tmp_path)
    assert node._stream_link is not None
    node._stream_link._renew()
    await node.close()
    assert await tracking.ended() == [Reported, Lost]


async def test_a_certificate_with_another_name_needs_the_server_name(
    lnd: FakeLnd, clock: FakeClock, tmp_path: Path
) -> None:
    await lnd.stop()
    await lnd.start(write_certificate(tmp_path, ("node.example",)))
    node = LndNode(settings_for(lnd.port, tmp_path / "tls.cert"), clock)
    await node.start()
    with pytest.raises(LndUnavailable, match=r"lnd\.tls_server_name"):
        await node.decode("lnsb1")
    await node.close()
    named = LndNode(settings_for(lnd.port, tmp_path / "tls.cert", tls_server_name="node.example"), clock)
    await named.start()
    assert (await named.decode("lnsb1"))[1] == ALICE
    await named.close()


async def test_without_a_certificate_file_the_systems_roots_are_trusted(
    lnd: FakeLnd, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls.cert"))
    node = LndNode(settings_for(lnd.port, None), clock)
    await node.start()
    assert (await node.decode("lnsb1"))[1] == ALICE
    await node.close()


async def test_a_proxy_of_the_environment_is_not_used(
    lnd: FakeLnd, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    node = LndNode(settings_for(lnd.port, tmp_path / "tls.cert"), clock)
    await node.start()
    assert (await node.decode("lnsb1"))[1] == ALICE
    await node.close()


async def test_a_certificate_that_cannot_be_used_stops_the_start_with_the_keys_name(
    clock: FakeClock, certificate: Certificate, tmp_path: Path
) -> None:
    node = LndNode(settings_for(10009, tmp_path / "none.cert"), clock)
    with pytest.raises(ConfigError, match=r"lnd\.tls_cert names .*none\.cert, and there is no such file"):
        await node.start()
    await node.close()
