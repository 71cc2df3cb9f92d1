"""Where the daemon's socket is, and why it cannot be used: a plain connect tells, gRPC says the same of every cause.

Loads at every start of the command: no pathlib, no socket at the top.
"""

from __future__ import annotations

import contextlib
import os
import stat

from holdpay.cli.failure import Unreachable

SYSTEM_SOCKET = "/run/holdpay/holdpay.sock"
MAX_PATH_BYTES = 107
"""sockaddr_un holds 108 bytes with the final zero (unix(7)); gRPC's own message about longer ones is opaque."""


def find_socket(chosen: str | None) -> str:
    """The path given with --socket or HOLDPAY_SOCKET, else the first default that exists.

    Raises Unreachable if no default exists.
    """
    if chosen:
        return os.path.abspath(chosen)  # noqa: PTH100
    candidates = default_sockets()
    for path in candidates:
        if _may_exist(path):
            return path
    raise Unreachable(
        f"No daemon socket at {' or '.join(candidates)}. Start the daemon (systemctl start holdpayd), "
        "or name its socket with --socket or HOLDPAY_SOCKET."
    )


def default_sockets() -> list[str]:
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR")
    own = [f"{runtime_dir}/holdpay/holdpay.sock"] if runtime_dir else []
    return [SYSTEM_SOCKET, *own]


def _may_exist(path: str) -> bool:
    """True also where the folder may not be entered: the user must hear of the permission, not of a missing file."""
    try:
        os.stat(path)  # noqa: PTH116
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def check_socket(path: str, timeout_s: float) -> None:
    """Connects once and hangs up. Raises Unreachable with the cause and what to do."""
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise Unreachable(f"The socket path is longer than {MAX_PATH_BYTES} bytes: {path}. Use a shorter one.")
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(timeout_s)
        try:
            probe.connect(path)
        except OSError as error:
            raise Unreachable(_explain(path, error)) from error


def _explain(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"There is no socket at {path}. Start the daemon (systemctl start holdpayd), or give its --socket."
    if isinstance(error, ConnectionRefusedError) and not stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116
        return f"{path} is no socket. Give the daemon's with --socket."
    if isinstance(error, ConnectionRefusedError):
        return f"Nobody answers at {path}: the daemon is not running. Start it (systemctl start holdpayd)."
    if isinstance(error, PermissionError):
        group = _group_of(path)
        if group == "root":
            return (
                f"You may not use the socket {path}, which is for root alone. Run this as root (sudo), or start the"
                " daemon by its unit, whose socket is for a group of its own."
            )
        return (
            f"You may not use the socket {path}. Join the group {group} (sudo usermod -aG {group} {_user()}), "
            "then log in again; a client of its own has a socket of its own: name that with --socket or HOLDPAY_SOCKET."
        )
    if isinstance(error, TimeoutError):
        return f"The daemon at {path} does not answer. See its log (journalctl -u holdpayd)."
    return f"The socket {path} cannot be used: {error.strerror or error}. Give the daemon's socket with --socket."


def _group_of(path: str) -> str:
    """The group that owns the socket, or its folder where that may not even be entered."""
    import grp

    for place in (path, os.path.dirname(path)):  # noqa: PTH120
        with contextlib.suppress(OSError, KeyError):
            return grp.getgrgid(os.stat(place).st_gid).gr_name  # noqa: PTH116
    return "holdpay"


def _user() -> str:
    import pwd

    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.getuid()).pw_name
    return "$USER"
