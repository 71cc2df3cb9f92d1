"""One daemon for one state directory and one socket.

Locks are flock(2): the kernel drops them when the process ends, however it ends, so a lock file that was left behind
means nothing. The files stay: removing one would let two processes lock two files of the same name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import socket
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from holdpay import manual
from holdpay.errors import ConfigError, HoldpayError, StoreError

SOCKET_MODE = 0o660
_CONNECT_TIMEOUT_S = 1.0
_PID_BYTES = 20
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
_GROUPS = manual.page("operations.md", "Clients: a socket and a budget each")


class AlreadyRunning(HoldpayError):
    """Another holdpayd is running here (exit 75). Stop it, or give this one a state_dir and a socket of its own."""


class FileLock:
    """An exclusive lock on one file, 0600, that holds the pid of its owner."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Raises BlockingIOError with the owner's pid ("" if unknown) as its message; OSError otherwise."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        fd = os.open(self._path, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(fd, str(os.getpid()))
        except BlockingIOError:
            pid = os.pread(fd, _PID_BYTES, 0).decode(errors="replace").strip()
            os.close(fd)
            raise BlockingIOError(errno.EAGAIN, pid if pid.isdecimal() else "") from None
        except OSError:
            os.close(fd)
            raise
        self._fd = fd

    def release(self) -> None:
        if self._fd is not None:
            _write(self._fd, "")
            os.close(self._fd)
            self._fd = None


def _write(fd: int, pid: str) -> None:
    """The pid is a courtesy to whoever comes second: a full disk must not keep the daemon from starting."""
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, pid.encode(), 0)


class StateLock:
    """Makes this process the owner of a state directory, which is made (0700) if it is missing.

    A context manager. Raises AlreadyRunning if another process owns it, ConfigError if the directory cannot be used,
    StoreError if its disk cannot: the unit starts the daemon again until somebody has mended that.
    """

    def __init__(self, state_dir: Path) -> None:
        self._dir = state_dir
        self._lock = FileLock(state_dir / "lock")

    def __enter__(self) -> StateLock:
        try:
            self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_owner_and_mode(self._dir)
            self._lock.acquire()
        except BlockingIOError as error:
            raise AlreadyRunning(
                f"Another holdpayd{_by(error)} uses the state directory {self._dir}."
                " Stop it first, or give this one its own daemon.state_dir."
            ) from None
        except OSError as error:
            if error.errno in _DISK_ERRORS:
                remedy = "Look after its disk (`df`, `mount`, `dmesg`)"
                if error.errno == errno.EROFS:
                    remedy = _read_only_remedy(self._dir)
                raise StoreError(
                    f"The state directory {self._dir} cannot be written ({error.strerror}). {remedy}."
                ) from None
            raise ConfigError(
                [f"daemon.state_dir: {self._dir} cannot be used ({error.strerror}); {_remedy(error, self._dir)}."]
            ) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._lock.release()


class SocketClaim:
    """The right to bind a Unix socket. Take it while holding the state lock, and keep it as long as you serve.

    ``key``: what names the path in the configuration. ``group``: the Unix group whose members may connect; None: the
    process's own.

    A context manager. Entering removes a stale socket, and raises AlreadyRunning if the path answers or another process
    claims it, ConfigError if something else is there. gRPC's own bind asks nobody: it unlinks a live socket and takes
    its calls. The lock beside the socket closes the gap between looking and binding.
    """

    def __init__(self, path: Path, key: str = "daemon.socket", group: str | None = None) -> None:
        self._path = path
        self._key = key
        self._group = group
        self._lock = FileLock(path.with_name(path.name + ".lock"))

    def __enter__(self) -> SocketClaim:
        try:
            self._path.parent.mkdir(mode=0o750, exist_ok=True)
            self._lock.acquire()
        except BlockingIOError as error:
            raise self._taken(_by(error)) from None
        except OSError as error:
            raise self._unusable(error) from None
        try:
            self._clear_path()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._lock.release()

    @contextlib.contextmanager
    def binding(self) -> Iterator[str]:
        """Bind inside: ``with claim.binding() as address: server.add_insecure_port(address)``. Raises ConfigError if
        the socket cannot be given to its group.

        The socket has mode 0660 from its first moment, or 0600 until it is its group's: who is let in before stays in.
        The umask is the process's, so bind before threads are started.
        """
        before = os.umask(0o777 & ~(SOCKET_MODE if self._group is None else 0o600))
        try:
            yield f"unix:{self._path}"
            self._give_to_group()
            self._path.chmod(SOCKET_MODE)  # where a default ACL of the folder overrides the umask
        finally:
            os.umask(before)

    def group_id(self) -> int:
        """Whose members may connect. To be called once it is bound."""
        return self._path.stat().st_gid

    @property
    def key(self) -> str:
        """What names the path in the configuration."""
        return self._key

    def _give_to_group(self) -> None:
        """A folder with the set-group-ID bit has given it away already."""
        if self._group is None:
            return
        try:
            wanted = grp.getgrnam(self._group).gr_gid
            if self._path.stat().st_gid != wanted:
                os.chown(self._path, -1, wanted)
        except (OSError, KeyError) as error:
            why = error.strerror if isinstance(error, OSError) else "there is no such group"
            problem = (
                f"{self._key}: {self._path} cannot be given to the group {self._group} ({why}); make the daemon's user"
                f" a member of it (`usermod -aG`); where the unit starts holdpayd see {_GROUPS}."
            )
            raise ConfigError([problem]) from None

    def _clear_path(self) -> None:
        try:
            mode = self._path.lstat().st_mode
            if not stat.S_ISSOCK(mode):
                raise ConfigError(
                    [f"{self._key}: {self._path} exists and is not a socket; move it away, or name another path."]
                )
            if _answers(self._path):
                raise self._taken("")
            self._path.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unusable(error) from None

    def _taken(self, by: str) -> AlreadyRunning:
        return AlreadyRunning(
            f"Another holdpayd{by} serves {self._path}. Stop it first, or give this one its own {self._key}."
        )

    def _unusable(self, error: OSError) -> ConfigError:
        remedy = _remedy(error, self._path.parent)
        return ConfigError([f"{self._key}: {self._path} cannot be used ({error.strerror}); {remedy}."])


def check_apart(claims: Iterable[SocketClaim]) -> None:
    """Which socket somebody may open says who that is. Raises ConfigError if two that are bound are of one group, by
    whatever names."""
    keys: dict[int, str] = {}
    for claim in claims:
        other = keys.setdefault(claim.group_id(), claim.key)
        if other != claim.key:
            problem = (
                f"{claim.key}: its group is that of {other} too, so whoever may open the one may open the other; give"
                f" the client a group of its own, or see {_GROUPS}."
            )
            raise ConfigError([problem])


def _answers(path: Path) -> bool:
    """Does somebody listen there? A full backlog or a slow answer is somebody."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_CONNECT_TIMEOUT_S)
        try:
            sock.connect(str(path))
        except ConnectionRefusedError:
            return False
        except (TimeoutError, BlockingIOError):
            return True
    return True


def _check_owner_and_mode(directory: Path) -> None:
    """The directory holds preimages and codes: nobody else may look inside, or put anything there."""
    info = directory.stat()
    if info.st_uid != os.geteuid():
        who = f"user id {info.st_uid}, and holdpayd runs as {os.geteuid()}"
        raise ConfigError(
            [f"daemon.state_dir: {directory} belongs to {who}; start it as that user, or name another directory."]
        )
    if info.st_mode & 0o077:
        mode = stat.S_IMODE(info.st_mode)
        raise ConfigError(
            [f"daemon.state_dir: others may enter {directory} (mode {mode:04o}); run `chmod 700 {directory}`."]
        )


def _by(error: BlockingIOError) -> str:
    return f" (pid {error.strerror})" if error.strerror else ""


def _remedy(error: OSError, directory: Path) -> str:
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.EEXIST}:
        return f"make the directory {directory}, or name another one"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"let the daemon's user write in {directory}, or name another one"
    if error.errno == errno.EROFS:
        return _read_only_remedy(directory)
    return f"see to {directory}, or name another one"


def _read_only_remedy(directory: Path) -> str:
    """The unit has ProtectSystem=strict: everything but its own directories is read-only (systemd.exec(5))."""
    return (
        f"Where the unit starts holdpayd, make {directory} and add `ReadWritePaths={directory}` to its [Service]"
        " (`systemctl edit holdpayd`); else see how its disk is mounted (`mount`, `dmesg`)"
    )
