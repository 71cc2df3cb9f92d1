"""Macaroons of the sandbox: random bytes that the server knows, with LND's refusals for all others.

They have no caveats inside; what one may do is kept beside it (lnd: macaroons/service.go for the texts).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

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
        macaroon = _VERSION_2 + secrets.token_bytes(63)
        self._allowed[macaroon] = None if methods is None else frozenset(methods)
        self._root_keys[macaroon] = len(self._root_keys)
        write_private(path, macaroon)
        return macaroon.hex()

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
