"""Lost connections and daemon restarts: nothing is ordered twice, nothing is lost, and the user is told quietly."""

from __future__ import annotations

import grpc
import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli.exit_codes import ExitCode
from tests.unit.cli.conftest import Terminal
from tests.unit.cli.fake_daemon import (
    ACCEPTED,
    DELIVERED,
    HELD,
    NOW_MS,
    NUMBERED,
    ORDER_ID,
    Break,
    Die,
    FakeDaemon,
    Refuse,
    interrupt,
    updates,
)


@pytest.mark.parametrize(
    "end",
    [
        Break(grpc.StatusCode.UNAVAILABLE),
        Break(grpc.StatusCode.CANCELLED),
        Break(grpc.StatusCode.UNKNOWN),
        Refuse(grpc.StatusCode.UNAVAILABLE),
        pb.RequestUpdate(cursor=2, shutting_down=True),
    ],
)
def test_a_broken_stream_goes_on_after_the_last_update(
    daemon: FakeDaemon, terminal: Terminal, end: Break | Refuse | pb.RequestUpdate
) -> None:
    daemon.submit_scripts = [[*updates(ACCEPTED, HELD), end]]
    daemon.watch_scripts = [updates(NUMBERED, DELIVERED, first_cursor=3)]
    result = terminal.run("code", "usa", "openai")
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, "004211\n")
    assert daemon.received[1:] == [pb.WatchRequestsRequest(request_id=ORDER_ID, after_cursor=2)]
    assert result.stderr.count("The order goes on; connecting again") == 1
    assert result.stderr.count("The daemon is back.") == 1


def test_a_stream_that_just_ends_is_taken_up_again(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [updates(ACCEPTED)]
    daemon.watch_scripts = [updates(DELIVERED, first_cursor=2)]
    assert terminal.run("code", "usa", "openai").stdout == "004211\n"


def test_a_daemon_that_restarts_is_found_again(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [[*updates(ACCEPTED, HELD), Die()]]
    daemon.watch_scripts = [updates(DELIVERED, first_cursor=3)]
    terminal.clock.on_sleep = [lambda: None, daemon.start]
    result = terminal.run("code", "usa", "openai")
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, "004211\n")
    assert result.stderr.count("lost") == 1


def test_a_lost_answer_is_asked_for_again_with_the_same_key(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [[Break()], updates(ACCEPTED, DELIVERED)]
    result = terminal.run("code", "usa", "openai")
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, "004211\n")
    first, second = daemon.received
    assert first == second
    assert "Asking again with the same key" in result.stderr


def test_a_daemon_that_leaves_before_it_accepted_replays_everything(daemon: FakeDaemon, terminal: Terminal) -> None:
    goodbye = pb.RequestUpdate(cursor=10, shutting_down=True)
    daemon.submit_scripts = [[goodbye], updates(ACCEPTED, DELIVERED, first_cursor=9)]
    assert terminal.run("code", "usa", "openai").stdout == "004211\n"


def test_a_refusal_after_a_lost_answer_is_final(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [[Break()], [Refuse(grpc.StatusCode.UNAVAILABLE, "lnd is locked. Unlock it.")]]
    result = terminal.run("code", "usa", "openai")
    assert result.exit_code == ExitCode.REFUSED_NOW
    assert "lnd is locked. Unlock it." in result.stderr


def test_a_daemon_that_stays_away_leaves_the_order_open(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [[*updates(ACCEPTED, HELD), Die()]]
    terminal.clock.on_sleep = [daemon.start, daemon.stop]
    daemon.watch_scripts = [[Break()]]
    result = terminal.run("code", "usa", "openai", "--timeout", "10m")
    assert result.exit_code == ExitCode.STILL_OPEN
    assert terminal.clock.elapsed_s == pytest.approx(600)
    assert f"holdpay orders wait {ORDER_ID}" in result.stderr
    assert len(result.stderr.splitlines()) < 14
    daemon.start()  # for the fixture to stop


def test_a_daemon_that_dies_before_it_answers_leaves_it_open_whether_it_was_ordered(
    daemon: FakeDaemon, terminal: Terminal
) -> None:
    daemon.submit_scripts = [[Die()]]
    result = terminal.run("code", "usa", "openai", "--timeout", "10m", "--key", "k1")
    assert result.exit_code == ExitCode.STILL_OPEN
    assert "may have been ordered" in result.stderr
    assert "--key k1" in result.stderr
    daemon.start()


def test_another_state_directory_is_noticed_and_nothing_is_ordered_again(
    daemon: FakeDaemon, terminal: Terminal
) -> None:
    daemon.submit_scripts = [[*updates(ACCEPTED), Break()]]
    daemon.watch_scripts = [[Refuse(grpc.StatusCode.NOT_FOUND, "There is no such order.")]]
    result = terminal.run("code", "usa", "openai")
    assert result.exit_code == ExitCode.STILL_OPEN
    assert "another state directory" in result.stderr


def test_watch_goes_on_from_its_cursor(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.watch_scripts = [
        [*updates(ACCEPTED, HELD), Break()],
        [*updates(NUMBERED, first_cursor=3), Break()],
    ]
    terminal.clock.on_sleep = [lambda: None, interrupt]
    result = terminal.run("orders", "watch")
    assert result.exit_code == ExitCode.INTERRUPTED
    assert [line.split("  ")[1] for line in result.stdout.splitlines()] == ["1", "2", "3"]
    assert not daemon.received[0].HasField("after_cursor")
    assert daemon.received[1].after_cursor == 2


def test_watch_that_saw_nothing_yet_misses_nothing_and_shows_nothing_old(
    daemon: FakeDaemon, terminal: Terminal
) -> None:
    old = pb.RequestUpdate(cursor=1, at_ms=NOW_MS - 1, request=pb.Request(id="old"))
    daemon.watch_scripts = [[Break()], [old, *updates(HELD, first_cursor=2), Break()]]
    terminal.clock.on_sleep = [lambda: None, interrupt]
    result = terminal.run("orders", "watch")
    assert daemon.received[1].after_cursor == 0
    assert [line.split("  ")[1] for line in result.stdout.splitlines()] == ["2"]
