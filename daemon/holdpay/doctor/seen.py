"""What the looks at this machine see, as values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSeen:
    """A file or folder that is there."""

    path: Path
    mode: int
    """Permission bits."""
    owner: str
    """Name, or number where the user has none."""
    is_ours: bool
    """Whoever runs the doctor owns it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesSeen:
    """``state_dir`` None: it is not there yet. ``database``: the file and what SQLite keeps beside it."""

    state_dir: FileSeen | None
    database: tuple[FileSeen, ...]
    me: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSeen:
    """lnd's certificate. ``expires_at_ms`` None: nobody says; ``problem`` is OpenSSL's word why it was not accepted."""

    is_served: bool
    """By the node itself; else it is the file's."""
    expires_at_ms: int | None
    problem: Problem | None = None
    words: str = ""


class Problem(Enum):
    """Why a certificate is not accepted."""

    EXPIRED = auto()
    NOT_YET_VALID = auto()
    OTHER_NAME = auto()
    NOT_TRUSTED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSeen:
    folder: Path
    free_bytes: int
    is_read_only: bool = False
    """Mounted so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSeen:
    """``damage``: SQLite's words, or what an earlier look had found. Empty: none was seen.

    ``last_cursor``: of its journal, 0 for none; ``written_cursor``: the last that was ever written here, by the file
    beside the database, which was read before it. None: there is no such file.
    """

    path: Path
    is_there: bool
    last_cursor: int = 0
    written_cursor: int | None = None
    damage: str = ""
    is_newer: bool = False
    """Written by a newer holdpay."""
    is_older: bool = False
    open_count: int = 0
    quarantined_count: int = 0
    trusted_payees: tuple[str, ...] = ()
    """Pubkeys of the record of `holdpayd payees`, the one that was paid last first; no more than can be looked at."""
    payers: tuple[str, ...] = ()
    """Pubkeys of our nodes from which money of open orders is, or may be, out."""


class Listening(Enum):
    """What is at the socket's path."""

    ANSWERS = auto()
    NOBODY = auto()
    """A socket at which nobody listens."""
    MISSING = auto()
    NO_SOCKET = auto()
    DENIED = auto()
    SILENT = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketSeen:
    """``group`` is the one that it has; ``me`` who looked."""

    path: Path
    listening: Listening
    mode: int = 0
    group: str = ""
    me: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSeen:
    """``properties`` as `systemctl show` names them. ``absent``: why there are none."""

    properties: Mapping[str, str]
    absent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSeen:
    """``ahead_ms``: how far its clock is ahead of ours. None: it told no date."""

    url: str
    proxy: str
    """Scheme, host and port. Empty: a direct connection."""
    took_ms: int
    ahead_ms: int | None
