"""One daemon for one state directory and one socket, and nothing harmed by the second."""

import asyncio
import contextlib
import errno
import grp
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from holdpay.errors import ConfigError, StoreError
from holdpay.lock import AlreadyRunning, SocketClaim, StateLock, check_apart

HOLD = """
import sys
from pathlib import Path
from holdpay.lock import SocketClaim, StateLock
with {"state": StateLock, "socket": SocketClaim}[sys.argv[1]](Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


class Holder:
    """Another process that holds a lock until it is told otherwise."""

    def __init__(self, kind: str, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, kind, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"held\n"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=10)


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.sock"


@pytest.fixture
def server(path: Path) -> Iterator[socket.socket]:
    """Somebody who listens at the path."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        yield listening


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# --- the state directory ---


def test_the_directory_is_made_for_its_owner_only_and_the_lock_names_him(state_dir: Path) -> None:
    with StateLock(state_dir):
        assert mode_of(state_dir) == 0o700
        assert mode_of(state_dir / "lock") == 0o600
        assert (state_dir / "lock").read_text() == str(os.getpid())
    assert (state_dir / "lock").read_text() == ""


def test_a_second_daemon_is_refused_and_told_who_runs(state_dir: Path) -> None:
    holder = Holder("state", state_dir)
    try:
        with pytest.raises(AlreadyRunning, match=rf"\(pid {holder.process.pid}\) uses the state directory"):
            StateLock(state_dir).__enter__()
        assert (state_dir / "lock").read_text() == str(holder.process.pid)
    finally:
        holder.kill()


def test_the_lock_of_a_killed_daemon_is_free(state_dir: Path) -> None:
    holder = Holder("state", state_dir)
    holder.kill()
    assert (state_dir / "lock").read_text() == str(holder.process.pid)
    with StateLock(state_dir):
        assert (state_dir / "lock").read_text() == str(os.getpid())


def test_the_lock_is_free_after_the_block_even_if_it_failed(state_dir: Path) -> None:
    with pytest.raises(ZeroDivisionError), StateLock(state_dir):
        raise ZeroDivisionError
    with StateLock(state_dir):
        pass


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o770])
def test_a_directory_that_others_may_enter_is_refused_with_the_remedy(state_dir: Path, mode: int) -> None:
    state_dir.mkdir()
    state_dir.chmod(mode)
    with pytest.raises(ConfigError, match=rf"\(mode {mode:04o}\); run `chmod 700 {re.escape(str(state_dir))}`"):
        StateLock(state_dir).__enter__()
    assert list(state_dir.iterdir()) == []


def test_a_directory_of_another_user_is_refused(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state_dir.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(ConfigError, match="and holdpayd runs as 4711; start it as that user"):
        StateLock(state_dir).__enter__()


def test_a_state_directory_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(ConfigError, match=r"^daemon\.state_dir: .*cannot be used"):
        StateLock(tmp_path / "state").__enter__()


def test_a_link_in_place_of_the_lock_is_not_followed(state_dir: Path, tmp_path: Path) -> None:
    state_dir.mkdir(mode=0o700)
    (tmp_path / "precious").write_text("x")
    (state_dir / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(ConfigError):
        StateLock(state_dir).__enter__()
    assert (tmp_path / "precious").read_text() == "x"


# --- the socket ---


def test_a_socket_that_answers_is_left_alone(path: Path, server: socket.socket) -> None:
    inode = path.lstat().st_ino
    with pytest.raises(AlreadyRunning, match=r"serves .*s\.sock\. Stop it first"):
        SocketClaim(path).__enter__()
    assert path.lstat().st_ino == inode


def test_the_key_that_names_a_socket_is_told(path: Path, server: socket.socket, tmp_path: Path) -> None:
    with pytest.raises(AlreadyRunning, match=r"or give this one its own webhook\.listen\."):
        SocketClaim(path, key="webhook.listen").__enter__()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^webhook\.listen: .* is not a socket"):
        SocketClaim(tmp_path / "file", key="webhook.listen").__enter__()


def test_a_socket_with_a_full_backlog_is_not_stale(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdpay.lock._CONNECT_TIMEOUT_S", 0.01)
    clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(0)
        for client in clients:
            client.setblocking(False)
            client.connect_ex(str(path))
        with pytest.raises(AlreadyRunning):
            SocketClaim(path).__enter__()
    for client in clients:
        client.close()


def test_a_stale_socket_is_removed(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    with SocketClaim(path):
        assert not path.exists()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_not_a_socket_is_left_alone(path: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "t.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(target))
    if kind == "link":
        path.symlink_to(target)
    else:
        path.touch() if kind == "file" else path.mkdir()
    with pytest.raises(ConfigError, match="exists and is not a socket; move it away"):
        SocketClaim(path).__enter__()
    assert path.exists()
    assert target.exists()


def test_a_second_claim_is_refused_before_the_first_one_has_bound(path: Path) -> None:
    holder = Holder("socket", path)
    try:
        with pytest.raises(AlreadyRunning, match=rf"\(pid {holder.process.pid}\) serves"):
            SocketClaim(path).__enter__()
    finally:
        holder.kill()
    with SocketClaim(path):
        pass


def test_a_refused_claim_can_be_made_again(path: Path) -> None:
    path.touch()
    with pytest.raises(ConfigError):
        SocketClaim(path).__enter__()
    path.unlink()
    with SocketClaim(path):
        pass


def test_a_missing_folder_of_the_socket_is_made_and_no_more_than_one(tmp_path: Path) -> None:
    with SocketClaim(tmp_path / "run" / "s.sock"):
        assert not mode_of(tmp_path / "run") & 0o027
    with pytest.raises(ConfigError, match=f"make the directory {re.escape(str(tmp_path / 'a' / 'b'))}"):
        SocketClaim(tmp_path / "a" / "b" / "s.sock").__enter__()


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_socket_is_for_user_and_group_from_its_first_moment(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with socket.socket(socket.AF_UNIX) as bound, SocketClaim(path) as claim, claim.binding() as address:
            bound.bind(address.removeprefix("unix:"))
            assert mode_of(path) == 0o660
            path.chmod(0o777)  # as a default ACL would have it
        assert mode_of(path) == 0o660
        assert os.umask(umask) == umask
    finally:
        os.umask(before)


def test_a_socket_that_is_to_be_given_to_a_group_lets_nobody_in_before(path: Path) -> None:
    """Who connects while it listens stays in, and a folder may have given it to a group of its own by then."""
    own = grp.getgrgid(os.getegid()).gr_name
    with (
        socket.socket(socket.AF_UNIX) as bound,
        SocketClaim(path, "client.shop.socket", own) as claim,
        claim.binding() as address,
    ):
        bound.bind(address.removeprefix("unix:"))
        assert mode_of(path) == 0o600
    assert mode_of(path) == 0o660


def test_sockets_of_one_group_are_refused_by_whatever_names_it_was_given(tmp_path: Path) -> None:
    own = grp.getgrgid(os.getegid()).gr_name
    with contextlib.ExitStack() as stack:
        claims = [
            stack.enter_context(SocketClaim(tmp_path / "operator.sock")),
            stack.enter_context(SocketClaim(tmp_path / "shop.sock", "client.shop.socket", own)),
        ]
        for claim in claims:
            bound = stack.enter_context(socket.socket(socket.AF_UNIX))
            with claim.binding() as address:
                bound.bind(address.removeprefix("unix:"))
        check_apart(claims[:1])
        with pytest.raises(ConfigError) as error:
            check_apart(claims)
    assert error.value.problems[0].startswith("client.shop.socket: its group is that of daemon.socket too")


GROUP = "games"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a socket to any group")


def _bound(path: Path, group: str) -> os.stat_result:
    with (
        socket.socket(socket.AF_UNIX) as bound,
        SocketClaim(path, "client.shop.socket", group) as claim,
        claim.binding() as address,
    ):
        bound.bind(address.removeprefix("unix:"))
    return path.stat()


@needs_root
def test_a_clients_socket_is_given_to_its_group(path: Path) -> None:
    found = _bound(path, GROUP)
    assert (grp.getgrgid(found.st_gid).gr_name, stat.S_IMODE(found.st_mode)) == (GROUP, 0o660)


def test_a_socket_that_is_the_groups_already_is_not_given_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "chown", lambda *given: pytest.fail("a folder with the set-group-ID bit has done it"))
    own = grp.getgrgid(os.getegid()).gr_name
    assert _bound(path, own).st_gid == os.getegid()


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL])
def test_a_group_that_the_daemon_is_not_in_is_told_with_the_remedy(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*given: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "chown", refuse)
    monkeypatch.setattr(grp, "getgrnam", lambda name: SimpleNamespace(gr_gid=os.getegid() + 1))
    with pytest.raises(ConfigError) as error:
        _bound(path, GROUP)
    assert error.value.problems[0].startswith(f"client.shop.socket: {path} cannot be given to the group {GROUP} (")
    assert "`usermod -aG`" in error.value.problems[0]


def test_a_group_that_is_gone_since_the_configuration_was_read_is_told(path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such group"):
        _bound(path, "no-such-group")


def test_a_failed_bind_gives_the_umask_back(path: Path) -> None:
    before = os.umask(0o022)
    try:
        with pytest.raises(ZeroDivisionError), SocketClaim(path) as claim, claim.binding():
            raise ZeroDivisionError
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_grpc_binds_there_and_a_second_server_cannot_take_it_over(path: Path) -> None:
    """gRPC itself would unlink the live socket. In a process of its own: grpc keeps threads."""
    code = """
import asyncio, os, sys
os.environ["GRPC_VERBOSITY"] = "NONE"
import grpc
from pathlib import Path
from holdpay.lock import AlreadyRunning, SocketClaim
async def serve(path):
    server = grpc.aio.server()
    with SocketClaim(path) as claim:
        with claim.binding() as address:
            server.add_insecure_port(address)
        await server.start()
        print(oct(path.lstat().st_mode & 0o777))
        try:
            SocketClaim(path).__enter__()
        except AlreadyRunning:
            print("refused")
        await server.stop(0)
asyncio.run(serve(Path(sys.argv[1])))
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=30)
    assert (done.stdout.split(), done.stderr) == (["0o660", "refused"], "")


def test_the_lock_lives_as_long_as_its_owner_and_not_as_long_as_a_program_it_started(state_dir: Path) -> None:
    async def run() -> None:
        with StateLock(state_dir):
            child = await asyncio.create_subprocess_exec("sleep", "60")
        try:
            with StateLock(state_dir):
                pass
        finally:
            child.kill()
            await child.wait()

    asyncio.run(run())


# --- a disk that fails ---


def test_a_full_disk_keeps_nobody_from_taking_the_lock(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with StateLock(state_dir), pytest.raises(AlreadyRunning, match=r"Another holdpayd uses"):
        StateLock(state_dir).__enter__()


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_takes_nothing_is_no_error_of_the_configuration(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A ConfigError would end in 78, after which the unit is not started again."""

    def fail(path: Path, flags: int, mode: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(StoreError, match=re.escape(os.strerror(number))):
        StateLock(state_dir).__enter__()


def test_a_read_only_folder_is_told_what_the_unit_needs(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ProtectSystem=strict lets the daemon write in the unit's own directories alone."""

    def fail(path: Path, flags: int, mode: int) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    socket_dir = tmp_path / "run"
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(StoreError) as state:
        StateLock(state_dir).__enter__()
    with pytest.raises(ConfigError) as claim:
        SocketClaim(socket_dir / "holdpay.sock").__enter__()
    for error, folder in ((state.value, state_dir), (claim.value, socket_dir)):
        assert f"add `ReadWritePaths={folder}` to its [Service] (`systemctl edit holdpayd`)" in error.message
