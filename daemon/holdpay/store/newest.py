"""Whether the database is still the one that was served here last, and not an older copy in its place.

An old copy knows nothing of what was done since: it would place again what was placed, and take a client's key for a
new one. So the journal's last cursor stands in a small file beside the database, too, written after each commit: a
database that ends before it is an older one. The file is never ahead of the disk, so nobody is refused wrongly. A
database with orders and without that file was brought here from somewhere else. Either is refused until `holdpayd
restore` has held it against lnd.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from holdpay import manual
from holdpay.errors import StoreError

DIGITS: Final = 20


def newest_of(path: Path) -> Path:
    """Beside the database: the cursor of the last row that was ever written here."""
    return path.with_name(f"{path.name}.newest")


class Newest:
    """Keeps the file of one database. ``close`` it."""

    def __init__(self, path: Path) -> None:
        self._database = path
        self._path = newest_of(path)
        self._fd: int | None = None
        self.cursor = 0
        """Of the last row that was written here, as far as this run knows."""

    def admit(self, cursor: int, *, is_ours: bool) -> None:
        """``cursor``: the last of the database; ``is_ours``: it is from before there was such a file. Raises StoreError
        if it is an older copy, or comes from somewhere else; OSError."""
        known = read_newest(self._path)
        if known is not None and cursor < known:
            raise StoreError(_empty(self._path, known) if not cursor else _older(cursor, known))
        if known is None and cursor and not is_ours:
            raise StoreError(f"The database was brought here from somewhere else, and may be an old copy. {RESTORE}")
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        self.keep(cursor)
        if known is None:
            os.fsync(self._fd)
            sync_folder(self._path.parent)

    def keep(self, cursor: int) -> None:
        """After a commit. What cannot be written is only known less exactly."""
        self.cursor = cursor
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.pwrite(self._fd, f"{cursor:0{DIGITS}}\n".encode(), 0)

    def remember(self) -> bool:
        """Where the database was taken away, and this file with it: the next start shall not begin anew in silence.
        False: it would, since the folder is gone, too, and cannot be made anew."""
        if not self.cursor or os.path.exists(self._database) or os.path.exists(self._path):  # noqa: PTH110 - raises nothing
            return True
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            allow(self._database, self.cursor)
            sync_folder(self._path.parent)
        except OSError:
            return False
        return True

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


RESTORE: Final = (
    f"Bring it into use with `holdpayd restore FILE`, which compares it with lnd first ({manual.page('backup.md')})."
)


def _older(cursor: int, known: int) -> str:
    return (
        f"The database is older than the one that was served here last: its journal ends at row {cursor:,}, and row"
        f" {known:,} was written. What was paid since is not in it. {RESTORE}"
    )


def _empty(file: Path, known: int) -> str:
    return (
        f"There is no order in the database, and row {known:,} of its journal was written here: it was lost. Rebuild it"
        f" with `holdpayd recover`, or restore a copy with `holdpayd restore FILE`. To begin anew, move {file} away."
    )


def allow(path: Path, cursor: int) -> None:
    """Lets a database that ends there be served at ``path``. Raises OSError."""
    fd = os.open(newest_of(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(f"{cursor:0{DIGITS}}\n")
        file.flush()
        os.fsync(file.fileno())


def read_newest(path: Path) -> int | None:
    """None: there is none, or nothing in it that makes sense. Raises OSError."""
    try:
        text = path.read_text(errors="replace").strip()
    except FileNotFoundError:
        return None
    return int(text) if text.isascii() and text.isdecimal() else None


def sync_folder(folder: Path) -> None:
    """Makes what was created or renamed in it durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
