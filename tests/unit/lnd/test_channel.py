from __future__ import annotations

from pathlib import Path

import pytest

from holdpay.lnd import channel
from holdpay.lnd.channel import CertificateUnusable, macaroon_metadata, read_certificates
from holdpay.sandbox.tls import Certificate
from tests.unit.lnd.fakes import settings_for


def test_a_certificate_is_read_as_it_is(certificate: Certificate, tmp_path: Path) -> None:
    assert read_certificates(tmp_path / "tls.cert") == certificate.certificate


@pytest.mark.parametrize("length", [0, 40, 300])
def test_half_a_certificate_is_none(certificate: Certificate, tmp_path: Path, length: int) -> None:
    (tmp_path / "tls.cert").write_bytes(certificate.certificate[:length])
    with pytest.raises(CertificateUnusable, match=r"tls\.cert"):
        read_certificates(tmp_path / "tls.cert")


@pytest.mark.parametrize("garbage", [b"garbage", b"\xff\xfe\x00", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_garbage_is_no_certificate(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "tls.cert").write_bytes(garbage)
    with pytest.raises(CertificateUnusable):
        read_certificates(tmp_path / "tls.cert")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CertificateUnusable, match=r"tls\.cert: No such file or directory"):
        read_certificates(tmp_path / "tls.cert")


def test_without_a_certificate_the_systems_roots_are_read(
    monkeypatch: pytest.MonkeyPatch, certificate: Certificate, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls.cert"))
    assert read_certificates(None) == certificate.certificate


def test_a_system_without_roots_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(channel, "_ROOT_BUNDLES", ())
    with pytest.raises(CertificateUnusable, match="ca-certificates"):
        read_certificates(None)


def test_the_macaroon_goes_as_hex_and_shows_nowhere_else(tmp_path: Path) -> None:
    settings = settings_for(10009, tmp_path / "tls.cert")
    assert macaroon_metadata(settings) == (("macaroon", "02736563726574"),)
    assert "secret" not in repr(settings)
    assert "736563726574" not in repr(settings)
