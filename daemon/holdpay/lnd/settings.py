"""What the adapter has to be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LndSettings:
    """Where lnd is, and how to get in."""

    address: str
    """host:port of lnd's gRPC listener; an IPv6 host in brackets."""
    macaroon: bytes = field(repr=False)
    """The macaroon file as it is: binary, not hex. Read once; another one needs a restart."""
    tls_cert_path: Path | None
    """lnd's tls.cert (PEM). None: the system's roots, for a node behind a public certificate."""
    tls_server_name: str | None = None
    """A name that the certificate has, when ``address`` is none of its names."""
    call_timeout_s: float = 10
    """For the calls that are answered at once. Payment streams have no deadline."""
    look_every_ready_s: float = 15
    look_every_unready_s: float = 5
