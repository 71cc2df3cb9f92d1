from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from holdpay.config import certificates
from holdpay.config.certificates import CertificateUnusable, read_certificates
from holdpay.lnd.channel import macaroon_metadata
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


def test_a_bundle_with_comments_in_any_encoding_is_read_without_them(certificate: Certificate, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    pem = certificate.certificate
    bundle.write_bytes("# Főtanúsítvány, Öl & Gas\n".encode() + pem + b"# \xfcber\r\n" + pem + b"\n#" + b" " * 300_000)
    assert read_certificates(bundle) == pem * 2
    grpc.ssl_channel_credentials(read_certificates(bundle))


def test_half_a_certificate_after_a_whole_one_is_told(certificate: Certificate, tmp_path: Path) -> None:
    pem = certificate.certificate
    for content in (pem + pem[:300], pem[:300] + pem):
        (tmp_path / "tls.cert").write_bytes(content)
        with pytest.raises(CertificateUnusable, match=r"tls\.cert, and that holds .*: copy lnd's tls\.cert again"):
            read_certificates(tmp_path / "tls.cert")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CertificateUnusable, match=r"names .*tls\.cert, and there is no such file"):
        read_certificates(tmp_path / "tls.cert")


def test_without_a_certificate_the_systems_roots_are_read(
    monkeypatch: pytest.MonkeyPatch, certificate: Certificate, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls.cert"))
    assert read_certificates(None) == certificate.certificate


def test_a_system_without_roots_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(certificates, "_ROOT_BUNDLES", ())
    with pytest.raises(CertificateUnusable, match="ca-certificates"):
        read_certificates(None)


def test_the_macaroon_goes_as_hex_and_shows_nowhere_else(tmp_path: Path) -> None:
    settings = settings_for(10009, tmp_path / "tls.cert")
    assert macaroon_metadata(settings) == (("macaroon", "02736563726574"),)
    assert "secret" not in repr(settings)
    assert "736563726574" not in repr(settings)
