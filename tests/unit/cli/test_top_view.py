"""`holdpay top` as a whole on a terminal of its own, with a scripted daemon behind it."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
import pytest
from click.testing import CliRunner

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli.app import App, Clock
from holdpay.cli.exit_codes import ExitCode
from holdpay.cli.failure import Unreachable
from holdpay.cli.feed import FIRST_WAIT_S
from holdpay.cli.root import cli
from holdpay.cli.top import source as sources
from holdpay.cli.top.view import watch
from tests.unit.cli.conftest import Pty
from tests.unit.cli.fake_daemon import HELD, NOW_MS, NUMBERED, FakeDaemon, Hang, Refuse, Wait, a_request, updates

PATIENCE_S = 60


class HastyClock(Clock):
    """The fake daemon's time, and no pause longer than need be. Until ``may_reconnect`` a lost daemon is not asked."""

    def __init__(self) -> None:
        self.may_reconnect = threading.Event()
        self.may_reconnect.set()

    def now_ms(self) -> int:
        return NOW_MS

    def sleep(self, duration_s: float) -> None:
        if duration_s == FIRST_WAIT_S:
            self.may_reconnect.wait()
        time.sleep(min(duration_s, 0.02))


@dataclass
class Session:
    """The view in a thread, as its user sees it."""

    device: Pty
    daemon: FakeDaemon
    seen: str = ""
    error: BaseException | None = None
    clock: HastyClock = field(default_factory=HastyClock)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self) -> None:
        terminal = self.device.terminal()

        def run() -> None:
            try:
                watch(App(self.daemon.path, self.clock), terminal)
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                self.error = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def press(self, keys: bytes) -> None:
        self.device.press(keys)

    def see(self, words: str) -> None:
        """Until it has been written on the screen, after what was seen before."""
        self._until(lambda: words in self.seen, f"{words!r} was not seen")
        self.seen = self.seen.partition(words)[2]

    def end(self) -> None:
        assert self._thread is not None
        thread = self._thread
        self._until(lambda: not thread.is_alive(), "it did not end")

    def _until(self, is_so: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not is_so():
            self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.device.output())
            assert time.monotonic() < deadline_s, f"{what}: {self.seen!r} {self.error!r}"
            time.sleep(0.005)


@pytest.fixture(autouse=True)
def _no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers are the main thread's, and here the view is in another one."""
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    monkeypatch.setattr("signal.set_wakeup_fd", lambda fd, **options: None)


@pytest.fixture
def session(daemon: FakeDaemon, device: Pty) -> Session:
    daemon.answers["GetStatus"] = pb.GetStatusResponse(ready=True, version="0.1.0")
    daemon.requests = [a_request(**HELD, cursor=1)]
    daemon.watch_scripts = [[*updates(HELD), Hang()]]
    return Session(device, daemon)


def test_it_shows_what_is_open_and_what_happens_then(session: Session) -> None:
    session.daemon.watch_scripts = [[*updates(HELD, NUMBERED), Hang()]]
    session.start()
    session.see("orders are taken")
    session.see("the number is +15550001111")
    session.press(b"q")
    session.end()
    assert session.error is None


def test_the_stream_begins_a_few_events_back(session: Session) -> None:
    session.daemon.requests = [a_request(**HELD, cursor=1000)]
    session.start()
    session.see("event 1")
    session.press(b"q")
    session.end()
    (asked,) = session.daemon.received_of(pb.WatchRequestsRequest)
    assert asked.after_cursor == 1000 - sources.EVENTS_BACK


def test_enter_explains(session: Session) -> None:
    session.daemon.answers["ExplainRequest"] = pb.ExplainRequestResponse(
        request=a_request(**HELD), summary="It is held.", money="It is locked."
    )
    session.start()
    session.see("q quit")
    session.press(b"\r")
    session.see("It is locked.")
    session.press(b"\x1b")
    session.see("LAST EVENTS")
    session.press(b"q")
    session.end()


def test_an_explanation_is_asked_for_anew_when_something_happens(session: Session) -> None:
    answer = pb.ExplainRequestResponse(request=a_request(**HELD), summary="It is held.")
    session.daemon.answers["ExplainRequest"] = answer
    session.daemon.watch_scripts = [[*updates(HELD), Wait(), *updates(NUMBERED, first_cursor=2), Hang()]]
    session.start()
    session.see("q quit")
    session.press(b"\r")
    session.see("It is held.")
    answer.summary = "It has a number."
    session.daemon.go_on.set()
    session.see("It has a number.")
    session.press(b"q")
    session.end()


def test_c_and_y_cancel_and_the_answer_is_shown(session: Session) -> None:
    session.daemon.answers["CancelRequest"] = pb.CancelRequestResponse(message="It will be asked.")
    session.start()
    session.see("q quit")
    session.press(b"c")
    session.see("y: yes")
    assert session.daemon.received_of(pb.CancelRequestRequest) == []
    session.press(b"y")
    session.see("It will be asked.")
    assert [asked.request_id for asked in session.daemon.received_of(pb.CancelRequestRequest)] == [a_request().id]
    session.press(b"q")
    session.end()


def test_a_text_that_is_pasted_by_mistake_cancels_nothing(session: Session) -> None:
    session.start()
    session.see("q quit")
    session.press(b"policy")
    session.see("y: yes")
    session.press(b"n")
    session.see("was not canceled")
    assert session.daemon.received_of(pb.CancelRequestRequest) == []
    session.press(b"q")
    session.end()


def test_the_rest_of_a_long_text_that_is_pasted_by_mistake_answers_no_question(session: Session) -> None:
    session.start()
    session.see("q quit")
    session.press(b"c")
    session.see("y: yes")
    session.press(b"you")
    session.see("was not canceled")
    assert session.daemon.received_of(pb.CancelRequestRequest) == []
    session.press(b"q")
    session.end()


def test_a_refusal_is_shown_and_the_view_goes_on(session: Session) -> None:
    session.daemon.answers["ExplainRequest"] = Refuse(grpc.StatusCode.NOT_FOUND, "There is no such order.")
    session.start()
    session.see("q quit")
    session.press(b"\r")
    session.see("There is no such order.")
    session.press(b"q")
    session.end()


def test_a_daemon_that_goes_away_is_told_waited_for_and_found_again(session: Session) -> None:
    session.daemon.watch_scripts = [[*updates(HELD), Hang()], [*updates(NUMBERED, first_cursor=2), Hang()]]
    session.start()
    session.see("event 1")  # of the first stream: the second one must be that of the new daemon
    session.daemon.stop()
    session.see("THE DAEMON IS AWAY")
    session.daemon.start()
    session.see("the number is +15550001111")
    session.press(b"q")
    session.end()


def test_a_daemon_that_stops_says_so(session: Session) -> None:
    session.daemon.watch_scripts = [[pb.RequestUpdate(cursor=1, shutting_down=True)], [Hang()]]
    session.clock.may_reconnect.clear()  # or it might be found again before its last words are on the screen
    session.start()
    session.see("It is stopping.")
    session.clock.may_reconnect.set()
    session.press(b"q")
    session.end()


def test_it_can_be_left_while_the_daemon_is_away(session: Session) -> None:
    before = session.device.attributes()
    session.start()
    session.see("q quit")
    session.daemon.stop()
    session.see("THE DAEMON IS AWAY")
    session.press(b"q")
    session.end()
    assert session.error is None
    assert session.device.attributes() == before
    session.daemon.start()


def test_a_defect_in_another_thread_ends_it_and_leaves_the_terminal_as_it_was(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(client: object, wish: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sources, "_answer", broken)
    before = session.device.attributes()
    session.start()
    session.see("q quit")
    session.press(b"\r")
    session.end()
    assert isinstance(session.error, ZeroDivisionError)
    assert session.device.attributes() == before


def test_without_a_daemon_the_screen_is_never_taken(session: Session) -> None:
    session.daemon.stop()
    session.start()
    session.end()
    assert isinstance(session.error, Unreachable)
    assert session.device.output() == session.seen == ""
    session.daemon.start()


def test_a_request_with_money_out_is_shown_however_many_are_open(session: Session) -> None:
    session.daemon.requests = [a_request(id="newest", **HELD), a_request(id="old-and-out", **HELD)]
    session.daemon.answers["GetStatus"] = pb.GetStatusResponse(out=[pb.MoneyOut(request_id="old-and-out")])
    found = sources.snapshot(_OnePage(session.daemon))  # type: ignore[arg-type]
    assert [request.id for request in found.requests] == ["newest", "old-and-out"]


class _OnePage:
    """A client to which the daemon lists one request alone."""

    def __init__(self, daemon: FakeDaemon) -> None:
        self._daemon = daemon
        self.stub = self

    def ask(self, method: str, request: object, timeout_s: float = 0) -> object:
        if method == "status":
            return self._daemon.answers["GetStatus"]
        return pb.ListRequestsResponse(requests=self._daemon.requests[:1])

    GetStatus, ListRequests = "status", "list"

    def get_request(self, request_id: str) -> pb.Request:
        return next(request for request in self._daemon.requests if request.id == request_id)


def test_where_there_is_no_terminal_it_says_what_to_use(daemon: FakeDaemon) -> None:
    result = CliRunner().invoke(cli, ["--socket", daemon.path, "top"])
    assert result.exit_code == ExitCode.REFUSED_INPUT
    assert "needs a terminal" in result.stderr
    assert "holdpay status --watch" in result.stderr
    assert daemon.received == []
