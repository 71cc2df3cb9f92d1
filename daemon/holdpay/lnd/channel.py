"""The TLS channel to lnd: its options."""

from __future__ import annotations

from typing import Final

import grpc
from grpc import aio

from holdpay.lnd.settings import LndSettings

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


def open_channel(settings: LndSettings, certificates: bytes) -> aio.Channel:
    """A channel that trusts ``certificates`` alone. It connects with the first call."""
    options: list[tuple[str, int | str]] = [*_OPTIONS]
    if settings.tls_server_name:
        options.append(("grpc.ssl_target_name_override", settings.tls_server_name))
    return aio.secure_channel(settings.address, grpc.ssl_channel_credentials(certificates), options=options)


def macaroon_metadata(settings: LndSettings) -> tuple[tuple[str, str], ...]:
    """What lets a call in (lnd: docs/grpc/python.md)."""
    return (("macaroon", settings.macaroon.hex()),)
