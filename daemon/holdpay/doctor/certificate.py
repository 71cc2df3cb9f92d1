"""The look at lnd's certificate: the one that is served now, or else the file's."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any, Final

from holdpay.config import LndPlace
from holdpay.config.certificates import CertificateUnusable, read_certificates
from holdpay.doctor.findings import Unseen
from holdpay.doctor.seen import CertificateSeen, Problem

# OpenSSL: x509_vfy.h.
_PROBLEMS: Final = {
    9: Problem.NOT_YET_VALID,
    10: Problem.EXPIRED,
    62: Problem.OTHER_NAME,
    64: Problem.OTHER_NAME,
}


async def look_at_certificate(place: LndPlace) -> CertificateSeen | Unseen:
    """A TLS handshake with lnd, on the terms of holdpayd. Where nobody answers: what the file says of itself."""
    try:
        trusted = _trusting(read_certificates(place.tls_cert))
    except CertificateUnusable as error:
        return Unseen(f"lnd.tls_cert {error}.", "Put lnd's tls.cert there, or correct lnd.tls_cert.")
    try:
        served = await _served(place, trusted)
    except ssl.SSLCertVerificationError as error:
        problem = _PROBLEMS.get(error.verify_code, Problem.NOT_TRUSTED)
        return CertificateSeen(is_served=True, expires_at_ms=None, problem=problem, words=error.verify_message)
    except OSError:
        return CertificateSeen(is_served=False, expires_at_ms=_of_file(place, trusted))
    return CertificateSeen(is_served=True, expires_at_ms=_expires_at_ms(served))


def _trusting(pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem.decode("ascii"))
    context.set_alpn_protocols(["h2"])
    return context


async def _served(place: LndPlace, trusted: ssl.SSLContext) -> Any:
    """Raises OSError; ssl.SSLCertVerificationError is one."""
    host, _, port = place.address.rpartition(":")
    host = host.strip("[]")
    name = place.tls_server_name or host
    _, writer = await asyncio.open_connection(host, int(port), ssl=trusted, server_hostname=name)
    try:
        return writer.get_extra_info("peercert")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _of_file(place: LndPlace, trusted: ssl.SSLContext) -> int | None:
    """The system's roots say nothing of the node's own."""
    if place.tls_cert is None:
        return None
    dates = [date for each in trusted.get_ca_certs() if (date := _expires_at_ms(each)) is not None]
    return min(dates, default=None)


def _expires_at_ms(certificate: Any) -> int | None:
    text = certificate.get("notAfter") if certificate else None
    return round(ssl.cert_time_to_seconds(text) * 1000) if isinstance(text, str) else None
