"""`holdpay hooks`."""

from __future__ import annotations

import json

import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli.exit_codes import ExitCode
from tests.unit.cli.conftest import Terminal
from tests.unit.cli.fake_daemon import NOW_MS, FakeDaemon

S = 1000
WELL = pb.Hook(
    name="shop",
    target="https://shop.example.org",
    events=["number", "code"],
    include_secrets=True,
    cursor=5_123,
    delivered_at_ms=NOW_MS - 60 * S,
)
FAILING = pb.Hook(
    name="pager",
    target="/usr/local/bin/page-me",
    events=["alarm"],
    waiting_since_ms=NOW_MS - 300 * S,
    failing_since_ms=NOW_MS - 120 * S,
    attempts=5,
    next_try_at_ms=NOW_MS + 80 * S,
    trouble="ended with exit code 1",
)
DEAD = pb.Hook(
    name="old", target="https://old.example.org", events=["closed"], dead_at_ms=NOW_MS - 7200 * S, trouble="is gone"
)

UNUSABLE = pb.Hook(name="new", target="/opt/x", events=["closed"], unusable="command names /opt/x: put it there")


def test_each_hook_is_shown_with_what_it_is_told_and_what_is_wrong(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["ListHooks"] = pb.ListHooksResponse(hooks=[WELL, FAILING, DEAD, UNUSABLE])
    result = terminal.run("hooks", "list")
    well, failing, dead, unusable = result.stdout.split("\n\n")
    assert result.exit_code == ExitCode.DONE
    assert "https://shop.example.org" in well
    assert "number, code, with numbers and codes" in well
    assert "State      well" in well
    assert "1m00s ago" in well
    assert "Cursor     5,123" in well
    assert "failing for 2m00s (5 tries): it ended with exit code 1. Tried again in 1m20s" in failing
    assert "Waiting    for 5m00s" in failing
    once = pb.Hook(name="shop", failing_since_ms=WELL.delivered_at_ms, attempts=1, trouble="is gone")
    daemon.answers["ListHooks"] = pb.ListHooksResponse(hooks=[once])
    assert "(1 try): it is gone." in terminal.run("hooks", "list").stdout
    assert "DEAD for 2h00m: it is gone. Mend it, then `holdpay hooks replay old`" in dead
    assert "nothing yet" in dead
    assert "NOT USABLE: command names /opt/x: put it there. Then `systemctl reload holdpayd`" in unusable
    assert json.loads(terminal.run("hooks", "list", "--json").stdout)["hooks"][0]["name"] == "shop"


def test_without_hooks_it_says_so(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["ListHooks"] = pb.ListHooksResponse()
    result = terminal.run("hooks", "list")
    assert (result.stdout, result.exit_code) == ("", ExitCode.DONE)
    assert "the configuration has no [[hook]]" in result.stderr


def test_a_test_says_what_became_of_it_and_the_exit_code_does(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["TestHook"] = pb.TestHookResponse(took_ms=1_234)
    fine = terminal.run("hooks", "test", "shop")
    assert (fine.stdout, fine.exit_code) == ("The hook shop acknowledged the test after 1,234 ms.\n", ExitCode.DONE)
    daemon.answers["TestHook"] = pb.TestHookResponse(trouble="answered with HTTP 500", took_ms=1)
    bad = terminal.run("hooks", "test", "shop")
    assert bad.exit_code == ExitCode.REFUSED_NOW
    assert "Error: The hook shop answered with HTTP 500. See to the receiver, or" in bad.stderr


@pytest.mark.parametrize(
    ("options", "place"),
    [([], None), (["--after", "0"], "after_cursor"), (["--since", "2h"], "since_ms"), (["--skip"], "skip")],
)
def test_a_replay_goes_on_from_where_it_is_or_from_the_place_that_is_named(
    daemon: FakeDaemon, terminal: Terminal, options: list[str], place: str | None
) -> None:
    daemon.answers["ReplayHook"] = WELL
    result = terminal.run("hooks", "replay", "shop", *options)
    assert result.stdout == "The hook shop goes on behind row 5,123 of the journal.\n"
    (asked,) = daemon.received_of(pb.ReplayHookRequest)
    assert (asked.name, asked.WhichOneof("from")) == ("shop", place)


@pytest.mark.parametrize("places", [["--after", "0", "--since", "2h"], ["--after", "0", "--skip"]])
def test_two_places_at_once_are_refused(terminal: Terminal, places: list[str]) -> None:
    result = terminal.run("hooks", "replay", "shop", *places)
    assert result.exit_code == ExitCode.REFUSED_INPUT
