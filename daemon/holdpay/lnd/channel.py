"""The TLS channel to lnd: its trusted certificates and its options."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

import grpc
from grpc import aio

from holdpay.lnd.settings import LndSettings

# Where distributions keep the bundle of trusted roots: the list of Go's crypto/x509 for Linux. gRPC for Python would
# prefer a list of its own, which no operator can add a certificate to.
_ROOT_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

_OPTIONS: Final = (
    # Otherwise the environment's http_proxy gets the connection to the local lnd.
    ("grpc.enable_http_proxy", 0),
    # A payment is never sent twice by the transport, on another connection say.
    ("grpc.enable_retries", 0),
    # lnd takes pings every 5 s since 0.17; without them a dead stream is silent for days (lnd #7727, #7730).
    # gRPC 1.85 waits for the answer as long as for that to any ping: a minute (grpc.http2.ping_timeout_ms).
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 0),
    # The default backoff grows to two minutes: an lnd that is back would go unseen for as long.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.max_receive_message_length", 50 * 1024 * 1024),
    # Channels share connections by default; each of ours has its own, so that its state is told by it alone.
    ("grpc.use_local_subchannel_pool", 1),
)


class CertificateUnusable(Exception):
    """The trusted certificates cannot be read, or are none; the text says which file and why."""


def read_certificates(path: Path | None) -> bytes:
    """The PEM certificates to trust: those of ``path`` (lnd's tls.cert), or the system's roots.

    Raises CertificateUnusable, also for a file that lnd is still writing.
    """
    path = path or _system_bundle()
    try:
        pem = path.read_bytes()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii"))
    except OSError as error:  # ssl.SSLError is one: not a certificate
        raise CertificateUnusable(f"{path}: {error.strerror or error}") from error
    except ValueError as error:  # nothing in it, or not text
        raise CertificateUnusable(f"{path}: {error}") from error
    return pem


def _system_bundle() -> Path:
    named = ssl.get_default_verify_paths().cafile
    for candidate in (named, *_ROOT_BUNDLES):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    raise CertificateUnusable("the system has no bundle of trusted certificates (Debian: package ca-certificates)")


def open_channel(settings: LndSettings, certificates: bytes) -> aio.Channel:
    """A channel that trusts ``certificates`` alone. It connects with the first call."""
    options: list[tuple[str, int | str]] = [*_OPTIONS]
    if settings.tls_server_name:
        options.append(("grpc.ssl_target_name_override", settings.tls_server_name))
    return aio.secure_channel(settings.address, grpc.ssl_channel_credentials(certificates), options=options)


def macaroon_metadata(settings: LndSettings) -> tuple[tuple[str, str], ...]:
    """What lets a call in (lnd: docs/grpc/python.md)."""
    return (("macaroon", settings.macaroon.hex()),)
