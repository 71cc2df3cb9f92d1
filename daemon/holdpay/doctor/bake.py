"""`holdpayd bake-macaroon`: the least macaroon, baked by the right of lnd's admin.macaroon, tried, and put into a file.

The admin macaroon is read, used for one call, and forgotten: it is neither kept nor logged.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from holdpay.clock import SystemClock
from holdpay.config import LndPlace
from holdpay.config.fields import read_bounded
from holdpay.core.routes import node_name
from holdpay.errors import HoldpayError
from holdpay.lnd.bakery import bake
from holdpay.lnd.macaroon import BAKE
from holdpay.lnd.settings import LndSettings

MODE = 0o600


class CannotBake(HoldpayError):
    """No macaroon was baked. See what was given."""


def line(root_key_id: int | None) -> str:
    """What to run where lnd's own lncli is."""
    if root_key_id is None:
        return BAKE
    return BAKE.replace("bakemacaroon", f"bakemacaroon --root_key_id={root_key_id}", 1)


def bake_into(place: LndPlace, admin_macaroon: Path, target: Path, root_key_id: int) -> str:
    """Writes ``target`` (0600), which must not exist yet. Returns what was done, a sentence.

    Raises CannotBake, ConfigError for the certificate, LndError's children; ``target`` is not there then.
    """
    settings = LndSettings(
        address=place.address,
        macaroon=_read(admin_macaroon),
        tls_cert_path=place.tls_cert,
        tls_server_name=place.tls_server_name,
    )
    fd = _reserve(target)
    try:
        with os.fdopen(fd, "wb") as file:
            baked, node = asyncio.run(bake(settings, SystemClock(), root_key_id))
            file.write(baked)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise CannotBake(f"{target} cannot be written ({error.strerror}). See its disk.") from None
        raise
    return f"{target} (mode {MODE:04o}) can pay and look, and nothing else; {node_name(node.pubkey, '')} took it."


def _read(path: Path) -> bytes:
    try:
        content, _ = read_bounded(path)
    except ValueError as error:
        raise CannotBake(f"--admin-macaroon names {path}, {error}.") from None
    if not content.strip():
        raise CannotBake(f"--admin-macaroon names {path}, and that is empty. Name lnd's admin.macaroon.")
    return content


def _reserve(target: Path) -> int:
    """A new file that nobody else may read."""
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, MODE)
        os.fchmod(fd, MODE)
    except FileExistsError:
        raise CannotBake(
            f"{target} is there already, and nothing is ever overwritten. Move it away, or name another file."
        ) from None
    except OSError as error:
        raise CannotBake(f"{target} cannot be made ({error.strerror}). See to its folder, or name another.") from None
    return fd
