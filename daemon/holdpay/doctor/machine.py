"""The looks at this machine. Each may block, so each runs in a thread (``looking.Abandoning``)."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
import sqlite3
import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Final

from holdpay.audit.database import DatabaseUnreadable, applied_migrations, known_migrations, open_read_only
from holdpay.core.states import MONEY_MAY_BE_OUT
from holdpay.doctor.findings import Unseen
from holdpay.doctor.seen import DatabaseSeen, DiskSeen, FileSeen, FilesSeen, Listening, SocketSeen, UnitSeen
from holdpay.store.integrity import look_at_open_orders, mark_of
from holdpay.store.newest import newest_of, read_newest
from holdpay.store.payees import trusted_payees

CONNECT_TIMEOUT_S: Final = 1.0
SYSTEMCTL_TIMEOUT_S: Final = 5.0
MOST_PAYEES: Final = 16
"""As many as provider.payee_pubkeys may list."""
UNIT: Final = "holdpayd.service"
PROPERTIES: Final = ("LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "NRestarts", "LimitNOFILE")

_OPEN: Final = (
    "SELECT count(*), coalesce(sum(quarantined_at_ms IS NOT NULL), 0) FROM orders INDEXED BY orders_open"
    " WHERE closed_at_ms IS NULL"
)

_PAYERS: Final = f"""
    SELECT DISTINCT p.node_pubkey FROM orders o INDEXED BY orders_open JOIN payments p ON p.order_no = o.no
    WHERE o.closed_at_ms IS NULL AND p.htlc IN ({", ".join(repr(out.value) for out in sorted(MONEY_MAY_BE_OUT))})
"""  # noqa: S608 - our own words only


def look_at_files(state_dir: Path, database: Path) -> FilesSeen:
    """Raises OSError, but for what is missing."""
    beside = [database, *(database.with_name(f"{database.name}{end}") for end in ("-wal", "-shm"))]
    return FilesSeen(
        state_dir=_file(state_dir),
        database=tuple(seen for path in beside if (seen := _file(path)) is not None),
        me=_user(os.geteuid()),
    )


def _file(path: Path) -> FileSeen | None:
    try:
        info = path.stat()
    except FileNotFoundError:
        return None
    return FileSeen(
        path=path,
        mode=stat.S_IMODE(info.st_mode),
        owner=_user(info.st_uid),
        is_ours=info.st_uid == os.geteuid(),
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def look_at_disk(state_dir: Path) -> DiskSeen:
    """Of a folder that is not there yet: the one above it that is. Raises OSError."""
    folder = next(each for each in (state_dir, *state_dir.parents) if each.exists())
    system = os.statvfs(folder)
    return DiskSeen(
        folder=folder,
        free_bytes=system.f_bavail * system.f_frsize,
        is_read_only=bool(system.f_flag & os.ST_RDONLY),
    )


def look_at_database(path: Path) -> DatabaseSeen | Unseen:
    """Tables and open orders, by index: however large it is. A daemon beside it is not disturbed."""
    written = read_newest(newest_of(path))
    try:
        conn = open_read_only(path, is_glance=True)
    except FileNotFoundError:
        return DatabaseSeen(path=path, is_there=False, written_cursor=written)
    except DatabaseUnreadable as error:
        if isinstance(error.__cause__, sqlite3.DatabaseError) and not isinstance(
            error.__cause__, sqlite3.OperationalError
        ):
            return DatabaseSeen(path=path, is_there=True, damage=str(error.__cause__))
        return Unseen(f"{error}.", "`holdpayd check` says more.")
    try:
        return replace(_look_into(conn, path), written_cursor=written)
    except sqlite3.Error as error:
        return DatabaseSeen(path=path, is_there=True, damage=str(error))
    finally:
        conn.close()


def _look_into(conn: sqlite3.Connection, path: Path) -> DatabaseSeen:
    """Raises sqlite3.Error."""
    if not conn.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return DatabaseSeen(path=path, is_there=False)
    applied, known = applied_migrations(conn), known_migrations()
    if applied != known:
        return DatabaseSeen(path=path, is_there=True, is_newer=bool(applied - known), is_older=applied < known)
    look_at_open_orders(conn)
    open_count, quarantined_count = conn.execute(_OPEN).fetchone()
    (last_cursor,) = conn.execute("SELECT coalesce(max(cursor), 0) FROM journal").fetchone()
    return DatabaseSeen(
        path=path,
        is_there=True,
        last_cursor=last_cursor,
        damage=_noted_damage(path),
        open_count=open_count,
        quarantined_count=quarantined_count,
        trusted_payees=tuple(trusted_payees(conn)[:MOST_PAYEES]),
        payers=tuple(pubkey for (pubkey,) in conn.execute(_PAYERS)),
    )


def _noted_damage(path: Path) -> str:
    """What an earlier look at the whole file found."""
    try:
        return mark_of(path).read_text().strip()
    except OSError:
        return ""


def look_at_socket(path: Path) -> SocketSeen:
    """Connects and hangs up."""
    mode, group = 0, _group(path.parent)
    try:
        info = path.stat()
    except PermissionError:
        return SocketSeen(path=path, listening=Listening.DENIED, group=group, me=_user(os.geteuid()))
    except (FileNotFoundError, NotADirectoryError):
        return SocketSeen(path=path, listening=Listening.MISSING, me=_user(os.geteuid()))
    mode, group = stat.S_IMODE(info.st_mode), _group(path)
    listening = _listening(path) if stat.S_ISSOCK(info.st_mode) else Listening.NO_SOCKET
    return SocketSeen(path=path, listening=listening, mode=mode, group=group, me=_user(os.geteuid()))


def _listening(path: Path) -> Listening:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(CONNECT_TIMEOUT_S)
        try:
            sock.connect(str(path))
        except PermissionError:
            return Listening.DENIED
        except ConnectionRefusedError:
            return Listening.NOBODY
        except FileNotFoundError:
            return Listening.MISSING
        except (TimeoutError, BlockingIOError):
            return Listening.SILENT
    return Listening.ANSWERS


def _group(path: Path) -> str:
    try:
        gid = path.stat().st_gid
        return grp.getgrgid(gid).gr_name
    except OSError:
        return ""
    except KeyError:
        return str(gid)


def look_at_unit() -> UnitSeen:
    """What systemd has of holdpayd."""
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        return UnitSeen(properties={}, absent="systemd is not installed here")
    command = [systemctl, "show", UNIT, f"--property={','.join(PROPERTIES)}", "--no-pager"]
    try:
        ran = subprocess.run(  # noqa: S603 - no part of it comes from outside
            command, capture_output=True, text=True, timeout=SYSTEMCTL_TIMEOUT_S, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired:
        return UnitSeen(properties={}, absent="systemd does not answer")
    if ran.returncode:
        return UnitSeen(properties={}, absent="systemd does not run here")
    lines = (line.partition("=") for line in ran.stdout.splitlines())
    return UnitSeen(properties={name: value for name, _, value in lines if name in PROPERTIES})
