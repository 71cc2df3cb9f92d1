"""The files of a database, when another one takes its place."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from holdpay.store.database import copies
from holdpay.store.newest import newest_of


def log_of(path: Path) -> Path:
    """The write-ahead log of a SQLite database. One that is left behind would be played into a new database of its
    name."""
    return path.with_name(f"{path.name}-wal")


def remove(path: Path) -> None:
    """A database that was not finished, with all that lies beside it. Raises OSError."""
    for file in (path, *_companions(path), *copies(path)):
        file.unlink(missing_ok=True)


def remove_log(path: Path) -> None:
    """Of a database that nobody has open, and that was closed: it is empty. Raises OSError."""
    for file in _log_and_index(path):
        file.unlink(missing_ok=True)


def move_aside(path: Path, why: str, now_ms: int) -> Path:
    """Keeps what is there under another name, with all that lies beside it. Returns that name. Raises OSError."""
    stamp = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    kept = path.with_name(f"{path.name}.before-{why}-{stamp}")
    for old in (path, *_companions(path)):
        if old.exists():
            old.rename(kept.with_name(f"{kept.name}{old.name.removeprefix(path.name)}"))
    return kept


def _companions(path: Path) -> tuple[Path, ...]:
    return *_log_and_index(path), newest_of(path)


def _log_and_index(path: Path) -> tuple[Path, Path]:
    return log_of(path), path.with_name(f"{path.name}-shm")
