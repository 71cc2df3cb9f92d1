"""Macaroons of the sandbox: in lnd's format, and with LND's refusals for all others.

What one may do stands in it, and is kept beside it (lnd: macaroons/service.go for the texts).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay.sandbox.files import write_private

# First byte of the binary format of a real macaroon; LND calls anything else garbage.
_VERSION_2 = b"\x02"


class MacaroonRefused(Exception):
    """The text is LND's; the gRPC code is UNKNOWN."""


class MacaroonOven:
    """Bakes macaroons and checks them."""

    def __init__(self) -> None:
        self._allowed: dict[bytes, frozenset[str] | None] = {}
        self._root_keys: dict[bytes, int] = {}
        self._revoked: dict[bytes, int] = {}

    def bake(self, path: Path, methods: Sequence[str] | None = None) -> str:
        """Write a macaroon (0600) and return its hex.

        `methods` are full gRPC names as "/lnrpc.Lightning/GetInfo"; None allows everything, as admin.macaroon does.
        """
        macaroon = self.make(methods)
        write_private(path, macaroon)
        return macaroon.hex()

    def make(self, methods: Sequence[str] | None = None) -> bytes:
        """The same, without a file."""
        macaroon = _macaroon(methods)
        self._allowed[macaroon] = None if methods is None else frozenset(methods)
        self._root_keys[macaroon] = len(self._root_keys)
        return macaroon

    def revoke(self, macaroon_hex: str) -> None:
        """Delete its root key, as `lncli deletemacaroonid` does."""
        macaroon = bytes.fromhex(macaroon_hex)
        self._revoked[macaroon] = self._root_keys[macaroon]

    def check(self, presented: Sequence[str], method: str) -> None:
        """Raises MacaroonRefused. `presented` are the values of the metadata key `macaroon`."""
        if len(presented) != 1:
            raise MacaroonRefused(f"expected 1 macaroon, got {len(presented)}")
        try:
            macaroon = bytes.fromhex(presented[0])
        except ValueError:
            raise MacaroonRefused("encoding/hex: invalid byte") from None
        if not macaroon.startswith(_VERSION_2):
            raise MacaroonRefused("cannot determine data format of binary-encoded macaroon")
        if macaroon in self._revoked:
            root_key_id = self._revoked[macaroon]
            raise MacaroonRefused(
                f"cannot retrieve macaroon: cannot get macaroon: root key with id {root_key_id} doesn't exist"
            )
        if macaroon not in self._allowed:
            raise MacaroonRefused("verification failed: signature mismatch after caveat verification")
        allowed = self._allowed[macaroon]
        if allowed is not None and method not in allowed:
            raise MacaroonRefused("permission denied")


def _macaroon(methods: Sequence[str] | None) -> bytes:
    """Location, identifier and signature of the binary format 2; nobody checks the signature here."""
    ops = [lnrpc.Op(entity=entity, actions=["read", "write"]) for entity in ("info", "offchain")]
    if methods is not None:
        ops = [lnrpc.Op(entity="uri", actions=methods)]
    identifier = b"\x03" + lnrpc.MacaroonId(nonce=secrets.token_bytes(16), storageId=b"0", ops=ops).SerializeToString()
    head = _field(1, b"lnd") + _field(2, identifier) + b"\0"
    return _VERSION_2 + head + b"\0" + _field(6, secrets.token_bytes(32))


def _field(kind: int, content: bytes) -> bytes:
    length, size = len(content), b""
    while length >= 0x80:
        size += bytes([length & 0x7F | 0x80])
        length >>= 7
    return bytes([kind]) + size + bytes([length]) + content
