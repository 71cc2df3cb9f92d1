"""What is done with the database beside the daemon's own connection, in other threads, so that it holds up nothing."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from pathlib import Path
from typing import Final

from holdpay.store.database import connect_beside, unusable
from holdpay.store.integrity import mark_of, raise_unless_sound

LOG_MAX_BYTES: Final = 1 * 2**20
"""A write-ahead log that is larger is copied into the file."""


def checkpoint(path: Path, *, least_bytes: int = 0) -> None:
    """Copies the write-ahead log into the database, as far as no reader is in the way, if it is larger than that. No
    writer waits for it. What fails is done at the next commit or look."""
    with contextlib.suppress(FileNotFoundError, sqlite3.Error):
        if path.with_name(f"{path.name}-wal").stat().st_size <= least_bytes:
            return
        with contextlib.closing(connect_beside(path)) as conn:
            conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


class FileCheck:
    """Reads all of a database that is in use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._conn: sqlite3.Connection | None = None
        self._is_stopped = False

    @property
    def is_due(self) -> bool:
        """Whether that is still to be done (``integrity``)."""
        return mark_of(self._path).exists()

    async def run(self) -> None:
        """Ends when the file is found to be sound. Raises StoreError if it is damaged: the next start will read all of
        it before it serves. Canceled, it is done after the next start."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def check() -> None:
            try:
                self._check()
            except Exception as error:  # noqa: BLE001 - handed over to who waits
                _tell(loop, done, error)
            else:
                _tell(loop, done, None)

        # Of an executor the interpreter would wait for the end.
        threading.Thread(target=check, name="database check", daemon=True).start()
        try:
            await done
        finally:
            self._stop()
        mark_of(self._path).unlink(missing_ok=True)

    def _check(self) -> None:
        uri = f"{self._path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, check_same_thread=False)) as conn:
            self._conn = conn
            try:
                raise_unless_sound(conn)
            except sqlite3.Error as error:
                if not self._is_stopped:
                    mark_of(self._path).write_text(str(error))
                raise unusable(self._path, error) from error
            finally:
                self._conn = None

    def _stop(self) -> None:
        self._is_stopped = True
        if (conn := self._conn) is not None:
            with contextlib.suppress(sqlite3.Error):
                conn.interrupt()


def _tell(loop: asyncio.AbstractEventLoop, done: asyncio.Future[None], error: Exception | None) -> None:
    def tell() -> None:
        if not done.done():
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(tell)
