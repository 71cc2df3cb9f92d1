"""`holdpayd backup`: a copy of the database, beside a running daemon."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from holdpay.audit.database import is_there
from holdpay.audit.recover import database_path
from holdpay.clock import SystemClock
from holdpay.config import Settings
from holdpay.errors import StoreError
from holdpay.store.copying import make_copy
from holdpay.store.note import Note

NAMES: Final = "holdpay-????????T??????Z.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One backup. ``deleted``: older ones."""

    path: Path
    note: Note
    size_bytes: int
    took_s: float
    deleted: int = 0


def backup(settings: Settings, clock: SystemClock, target: Path, *, keep: int | None, is_without_secrets: bool) -> Made:
    """``target``: a file that is not there, or a folder, in which it gets a name of the time; ``keep``: of those in the
    folder, the newest. Raises StoreError."""
    began_s, now_ms = time.monotonic(), clock.now_ms()
    is_folder = os.path.isdir(target)  # noqa: PTH112 - Path.is_dir raises where this user may not look
    path = target / _name(now_ms) if is_folder else target
    database = database_path(settings)
    if not is_there(database):
        raise StoreError(f"There is no database {database}. Start holdpayd once, or see daemon.state_dir.")
    note = make_copy(database, path, now_ms, is_without_secrets=is_without_secrets)
    deleted = 0 if keep is None else _delete_older(path, keep)
    return Made(
        path=path, note=note, size_bytes=path.stat().st_size, took_s=time.monotonic() - began_s, deleted=deleted
    )


def _name(now_ms: int) -> str:
    """By which they are sorted."""
    return datetime.fromtimestamp(now_ms / 1000, UTC).strftime("holdpay-%Y%m%dT%H%M%SZ.db")


def _delete_older(newest: Path, keep: int) -> int:
    """The one that was just made stays, whatever the clock says."""
    others = [path for path in sorted(newest.parent.glob(NAMES), reverse=True) if path != newest]
    try:
        for path in others[keep - 1 :]:
            path.unlink()
    except OSError as error:
        raise StoreError(
            f"{newest} is written, and an older backup could not be deleted ({error.strerror}). Check its folder."
        ) from error
    return len(others[keep - 1 :])


def lines(made: Made) -> Iterator[str]:
    """For people."""
    note = made.note
    yield (
        f"{made.path} is written and checked: {_size(made.size_bytes)} in {made.took_s:.1f} s, the journal up to row"
        f" {note.cursor:,}, tables as of {note.schema}."
    )
    if note.is_without_secrets:
        yield "Codes, numbers, messages and replies of closed orders are not in it; preimages and invoices are."
    else:
        yield "It holds codes, numbers and preimages: keep it as safe as the database."
    if made.deleted:
        yield f"{made.deleted:,} older {'backup was' if made.deleted == 1 else 'backups were'} deleted."


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"
