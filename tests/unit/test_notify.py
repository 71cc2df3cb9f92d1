"""sd_notify: the test plays systemd and holds NOTIFY_SOCKET."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from holdpay import notify
from holdpay.notify import Notifier


class Systemd:
    """The receiving end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(20)

    def next(self) -> list[str]:
        return self._socket.recv(4096).decode().split("\n")

    def drain(self) -> list[list[str]]:
        """All that is there: a full socket would take nothing more."""
        found = []
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.next())
        self._socket.settimeout(20)
        return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    is_path = request.param == "path"
    plays = Systemd(str(tmp_path / "notify") if is_path else f"@holdpay-test-{os.getpid()}")
    yield plays
    plays.close()


def test_systemd_hears_of_every_stage(systemd: Systemd) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": systemd.address})
    notifier.ready("lnd is ready")
    assert systemd.next() == ["READY=1", "STATUS=lnd is ready"]
    notifier.status("lnd is locked")
    assert systemd.next() == ["STATUS=lnd is locked"]
    notifier.watchdog()
    assert systemd.next() == ["WATCHDOG=1"]
    notifier.stopping("2 orders go on")
    assert systemd.next() == ["STOPPING=1", "STATUS=2 orders go on"]


def test_a_start_that_takes_long_is_given_more_time_and_says_why(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "EXTEND_EVERY_S", 0.001)
    with Notifier(systemd.address).starting("the database is read"):
        for _ in range(2):
            assert systemd.next() == ["EXTEND_TIMEOUT_USEC=60000000", "STATUS=the database is read"]
    assert "start takes long" not in {thread.name for thread in threading.enumerate()}, "none comes any more"
    assert all(words[0].startswith("EXTEND") for words in systemd.drain())
    Notifier(systemd.address).watchdog()
    assert systemd.next() == ["WATCHDOG=1"]


def test_a_start_that_is_over_soon_says_nothing(systemd: Systemd) -> None:
    with Notifier(systemd.address).starting("the database is read"):
        pass
    Notifier(systemd.address).watchdog()
    assert systemd.next() == ["WATCHDOG=1"]


def test_the_environment_of_the_process_is_the_default(systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)
    Notifier.from_environment().watchdog()
    assert systemd.next() == ["WATCHDOG=1"]


def test_a_status_cannot_bring_an_assignment_of_its_own(systemd: Systemd) -> None:
    Notifier(systemd.address).status("paying from node\nMAINPID=1")
    assert systemd.next() == ["STATUS=paying from node MAINPID=1"]


def test_without_systemd_nothing_is_sent_and_nothing_is_watched() -> None:
    notifier = Notifier.from_environment({})
    assert notifier.watchdog_timeout_s is None
    with structlog.testing.capture_logs() as records:
        notifier.ready("fine")
    assert records == []


def test_a_socket_that_is_gone_is_logged_and_stops_nothing(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as records:
        Notifier(str(tmp_path / "gone")).ready("fine")
    assert [record["log_level"] for record in records] == ["warning"]


def test_a_full_socket_does_not_block_the_daemon(tmp_path: Path) -> None:
    plays = Systemd(str(tmp_path / "notify"))
    try:
        notifier = Notifier(plays.address)
        with structlog.testing.capture_logs() as records:
            for _ in range(5000):
                notifier.watchdog()
                if records:
                    break
        assert records  # nobody reads, so a blocking send would hang here
    finally:
        plays.close()


@pytest.mark.parametrize(
    ("env", "timeout_s"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_PID": str(os.getpid())}, None),
    ],
)
def test_the_watchdog_is_fed_only_where_it_is_meant_for_this_process(
    env: dict[str, str], timeout_s: float | None
) -> None:
    assert Notifier.from_environment(env).watchdog_timeout_s == timeout_s
