"""Addresses for servers that a test starts later."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def kept_address() -> Iterator[str]:
    """An address of this machine. As long as it is kept, nobody else is given its port, and a server may listen there:
    as servers do, both say that the address may be reused."""
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{keeper.getsockname()[1]}"
