"""Whether the database that is open still lies at its path.

SQLite goes on with a file that was moved, removed or replaced: all that is written then is durable, and at a place
where the next start does not look. So the files at the path are held against those that were opened before each commit:
nothing is ordered, paid or told that was not committed first.

A file that took the database's place must not get its log: SQLite plays whatever log lies beside a file into it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from holdpay.errors import DatabaseGone, StoreError
from holdpay.store.newest import Newest

ENDINGS: Final = ("-wal", "-shm")
"""What was committed and is not in the file yet, and what tells other programs how far that goes: SQLite has them open,
under these names, as long as one connection is."""

_Identity = tuple[int, int]
"""Device and inode: no other file has them while this one is open."""


class Place:
    """Of a database that is open, and was read or written already: only then its log is there."""

    def __init__(self, path: Path, newest: Newest) -> None:
        """Raises StoreError."""
        self._path = path
        self._newest = newest
        self._target = path.resolve()  # beside which SQLite puts the others where the file is a link
        self._log, index = (self._target.with_name(f"{self._target.name}{ending}") for ending in ENDINGS)
        self._opened = {file: self._found(file) for file in (path, self._log, index)}

    def check(self) -> None:
        """Raises StoreError if one of the files is not there any more, or is another one."""
        for file, opened in self._opened.items():
            if self._found(file) != opened:
                kept = self._log_set_aside() if file == self._path else ""
                raise self._gone(f"{file} is another file than the one that is open", kept)

    def _log_set_aside(self) -> str:
        """The next start would play the log of the open database into the one that has taken its place, and what comes
        of both is neither: an order that was paid could be one that is still to be placed. Returns a sentence, empty
        where none of it lies there."""
        kept = self._log.with_name(f"{self._target.name}.replaced-at-row-{self._newest.cursor}-wal")
        with contextlib.suppress(OSError):
            if self._path.resolve() == self._target and _identity(self._log) == self._opened[self._log]:
                self._log.rename(kept)
        with contextlib.suppress(OSError):
            kept.stat()
            return f" The log of the open one is {kept} now, and needs its old name beside that one."
        return ""

    def _found(self, file: Path) -> _Identity:
        try:
            return _identity(file)
        except (FileNotFoundError, NotADirectoryError) as error:
            if not self._newest.remember():
                raise DatabaseGone(
                    f"The folder of the database is gone: {self._path.parent}. Nothing was done that is not in the open"
                    " one. Put the folder back with all that was in it before you start holdpayd: a start without it"
                    " begins with an empty database."
                ) from error
            raise self._gone(f"{file} cannot be found any more ({error.strerror})") from error
        except OSError as error:
            raise self._gone(f"{file} cannot be looked at any more ({error.strerror})") from error

    def _gone(self, what: str, kept: str = "") -> StoreError:
        return StoreError(
            f"The database was moved, removed or replaced while holdpayd ran: {what}. Nothing was done that is not in"
            f" the open one. Put {self._path} and the files beside it that begin with its name back, all of them, or"
            f" bring a copy into use with `holdpayd restore FILE`.{kept}"
        )


def _identity(file: Path) -> _Identity:
    seen = file.stat()
    return seen.st_dev, seen.st_ino
