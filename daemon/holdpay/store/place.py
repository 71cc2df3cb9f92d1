"""Whether the database that is open still lies at its path.

SQLite goes on with a file that was moved, removed or replaced: all that is written then is durable, and at a place
where the next start does not look. So the files at the path are held against those that were opened before each commit:
nothing is ordered, paid or told that was not committed first.
"""

from __future__ import annotations

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
        target = path.resolve()  # beside which SQLite puts the others where the file is a link
        files = [path, *(target.with_name(f"{target.name}{ending}") for ending in ENDINGS)]
        self._opened = {file: self._identity(file) for file in files}

    def check(self) -> None:
        """Raises StoreError if one of the files is not there any more, or is another one."""
        for file, opened in self._opened.items():
            if self._identity(file) != opened:
                raise self._gone(f"{file} is another file than the one that is open")

    def _identity(self, file: Path) -> _Identity:
        try:
            seen = file.stat()
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
        return seen.st_dev, seen.st_ino

    def _gone(self, what: str) -> StoreError:
        return StoreError(
            f"The database was moved, removed or replaced while holdpayd ran: {what}. Nothing was done that is not in"
            f" the open one. Put {self._path} and the files beside it that begin with its name back, all of them, or"
            " bring a copy into use with `holdpayd restore FILE`."
        )
