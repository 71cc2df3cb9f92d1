"""`holdpay rent` and `holdpay rent messages`: the number at once, each message once, and the way back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli.exit_codes import ExitCode
from holdpay.cli.root import cli
from tests.unit.cli.conftest import Terminal
from tests.unit.cli.fake_daemon import (
    HELD,
    NOW_MS,
    ORDER_ID,
    Break,
    FakeDaemon,
    Hang,
    a_request,
    ended,
    interrupt,
    updates,
)
from tests.unit.cli.test_main import complete

RENTAL: dict[str, Any] = {
    "kind": pb.KIND_RENTAL,
    "what": "a number rented in USA for 2 weeks",
    "rental": pb.RentalBought(country_code=187, country="USA", service="full", weeks=2),
}
WAITING = RENTAL | HELD
RENTED = WAITING | {
    "state": pb.ORDER_STATE_NUMBER_ASSIGNED,
    "number": "15550001111",
    "phase": "held, the number is there",
}
FIRST = RENTED | {
    "state": pb.ORDER_STATE_DELIVERED,
    "htlc": pb.HTLC_STATE_SETTLED,
    "locked_msat": 0,
    "spent_msat": 15_000_000,
    "messages": ["one"],
    "may_be_canceled": False,
    "cursor": 41,
}
OVER = FIRST | {"terminal": True, "end": pb.END_FULFILLED, "closed_at_ms": NOW_MS + 1, "phase": "over"}


def rented(*messages: str) -> dict[str, Any]:
    return FIRST | {"messages": messages}


def shown(stdout: str) -> list[str]:
    """Without the times."""
    return [line.split("  ", 1)[1] for line in stdout.splitlines()]


def test_only_the_number_is_on_stdout_at_once(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [[*updates(RENTAL, WAITING, RENTED), Hang()]]
    result = terminal.run("rent", "usa")
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, "+15550001111\n")
    assert "Cost: 3,003.512 sat, locked until the HTLC settles." in result.stderr
    assert result.stderr.splitlines()[-1] == (
        f"It stays open until the rental ends. Read what comes to it with: holdpay rent messages {ORDER_ID} --follow"
    )


def test_the_request_carries_what_was_typed(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [updates(RENTED), updates(RENTED)]
    options = ["--service", "oi", "--weeks", "2", "--ref", "a@b.c", "--prepaid"]
    terminal.run("rent", "usa", *options, "--key", "k1")
    terminal.run("rent", "--key", "k1", "usa")
    assert daemon.received == [
        pb.SubmitRequest(
            rental=pb.RentalSpec(country="usa", service="oi", weeks=2, ref="a@b.c"), idempotency_key="k1", prepaid=True
        ),
        pb.SubmitRequest(rental=pb.RentalSpec(country="usa"), idempotency_key="k1"),
    ]


def test_a_number_whose_money_is_back_is_not_handed_over(daemon: FakeDaemon, terminal: Terminal) -> None:
    back = RENTED | {"htlc": pb.HTLC_STATE_FAILED, "locked_msat": 0}
    daemon.submit_scripts = [updates(WAITING, back, RENTAL | ended(pb.END_REFUNDED))]
    result = terminal.run("rent", "usa")
    assert (result.exit_code, result.stdout) == (ExitCode.NOT_DELIVERED, "")
    assert "over: the number did not come; the money is back" in result.stderr


def test_the_messages_that_came_are_printed_a_line_each_and_the_number_beside_them(
    daemon: FakeDaemon, terminal: Terminal
) -> None:
    daemon.requests = [a_request(**rented("one", "two\nlines \x1b[2J", "one"))]
    result = terminal.run("rent", "messages", ORDER_ID)
    assert (result.exit_code, shown(result.stdout)) == (ExitCode.DONE, ["one", "two lines", "one"])
    assert "The number is +15550001111." in result.stderr
    assert f"holdpay rent messages {ORDER_ID} --follow" in result.stderr
    assert daemon.received_of(pb.WatchRequestsRequest) == []


def test_a_message_that_came_as_a_number_is_told_of_beside_it(daemon: FakeDaemon, terminal: Terminal) -> None:
    request = a_request(**rented("4211", "004211"))
    for item in request.items:
        item.may_lack_zeros = item.text == "4211"
    daemon.requests = [request]
    result = terminal.run("rent", "messages", ORDER_ID)
    assert shown(result.stdout) == ["4211", "004211"]
    assert result.stderr.count("came as a number: zeros at its beginning may be missing") == 1


def test_messages_that_cannot_be_read_are_printed_as_they_came_and_those_that_are_not_kept_are_counted(
    daemon: FakeDaemon, terminal: Terminal
) -> None:
    daemon.requests = [a_request(**rented("one") | {"unread": ['{"odd":\n1}', '{"odd":2}'], "unread_more": "7"})]
    result = terminal.run("rent", "messages", ORDER_ID)
    assert shown(result.stdout) == ["one", '(cannot be read) {"odd": 1}', '(cannot be read) {"odd":2}']
    assert "7 more that cannot be read" in result.stderr
    shows = terminal.run("orders", "show", ORDER_ID).stdout
    assert shows.count("Unread reply") == 2
    assert "and 7 more, at least, which are not kept" in shows


def test_messages_that_a_large_request_leaves_out_are_fetched_and_printed_in_their_place(
    daemon: FakeDaemon, terminal: Terminal
) -> None:
    whole = a_request(**rented("one", "two", "three", "four", "five"))
    part, more = pb.Request(), pb.Request()
    for request, last in ((part, 5), (more, 7)):
        request.CopyFrom(whole)
        request.items.append(pb.Item(seq=7, kind=pb.ITEM_KIND_MESSAGE, text="six", seen_at_ms=NOW_MS))
        kept = [item for item in request.items if item.seq in {1, last}]
        del request.items[:]
        request.items.extend(kept)
        request.items_left_out = last - 2
    daemon.requests = [part]
    daemon.all_items = [*whole.items[:5]]
    assert shown(terminal.run("rent", "messages", ORDER_ID).stdout) == ["one", "two", "three", "four"]
    assert f"3 before them: holdpay rent messages {ORDER_ID}" in terminal.run("orders", "show", ORDER_ID).stdout

    daemon.all_items += [whole.items[5], more.items[-1]]
    more.terminal, more.end = True, pb.END_FULFILLED
    daemon.watch_scripts = [[pb.RequestUpdate(cursor=42, request=part), pb.RequestUpdate(cursor=43, request=more)]]
    result = terminal.run("rent", "messages", ORDER_ID, "--follow")
    assert shown(result.stdout) == ["one", "two", "three", "four", "five", "six"]


def test_following_prints_each_message_once_as_it_comes_until_the_rental_ends(
    daemon: FakeDaemon, terminal: Terminal
) -> None:
    daemon.requests = [a_request(**rented("one"))]
    over = OVER | {"messages": ["one", "two", "three"]}
    daemon.watch_scripts = [updates(rented("one"), rented("one", "two"), rented("one", "two"), over, first_cursor=42)]
    result = terminal.run("rent", "messages", ORDER_ID, "--follow")
    assert (result.exit_code, shown(result.stdout)) == (ExitCode.DONE, ["one", "two", "three"])
    assert "The rental is over." in result.stderr
    # From where the request was read, so that nothing is missed in between.
    assert daemon.received_of(pb.WatchRequestsRequest) == [
        pb.WatchRequestsRequest(request_id=ORDER_ID, after_cursor=41)
    ]


def test_a_daemon_that_goes_away_loses_no_message_and_doubles_none(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.requests = [a_request(**rented("one"))]
    daemon.watch_scripts = [
        [*updates(rented("one", "two"), first_cursor=42), Break()],
        updates(OVER | {"messages": ["one", "two", "three"]}, first_cursor=43),
    ]
    result = terminal.run("rent", "messages", ORDER_ID, "--follow")
    assert shown(result.stdout) == ["one", "two", "three"]
    assert [request.after_cursor for request in daemon.received_of(pb.WatchRequestsRequest)] == [41, 42]


def test_messages_as_json_are_objects_with_their_place_and_time(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.requests = [a_request(**rented("one", "two"))]
    found = [json.loads(line) for line in terminal.run("rent", "messages", ORDER_ID, "--json").stdout.splitlines()]
    assert [(item["seq"], item["kind"], item["text"], item["seen_at_ms"]) for item in found] == [
        (2, "message", "one", NOW_MS),
        (3, "message", "two", NOW_MS),
    ]


def test_an_interrupt_says_how_to_go_on(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.requests = [a_request(**rented("one"))]
    daemon.watch_scripts = [[Break()]]
    terminal.clock.on_sleep = [interrupt]
    result = terminal.run("rent", "messages", ORDER_ID, "--follow")
    assert (result.exit_code, shown(result.stdout)) == (ExitCode.STILL_OPEN, ["one"])
    assert result.stderr.splitlines()[-1] == (
        f"The rental goes on. See what comes with: holdpay rent messages {ORDER_ID} --follow"
    )


def test_an_order_of_another_kind_has_no_messages(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.requests = [a_request()]
    result = terminal.run("rent", "messages", ORDER_ID)
    assert result.exit_code == ExitCode.REFUSED_INPUT
    assert "is for an activation code for OpenAI in USA: no messages come to it" in result.stderr


@pytest.mark.parametrize(
    ("end", "exit_code", "words"),
    [
        (pb.END_FULFILLED, ExitCode.DONE, "The rental is over."),
        (pb.END_REFUNDED, ExitCode.NOT_DELIVERED, f"holdpay orders explain {ORDER_ID}"),
    ],
)
def test_a_rental_that_is_over_is_not_followed(
    daemon: FakeDaemon, terminal: Terminal, end: pb.End.ValueType, exit_code: ExitCode, words: str
) -> None:
    daemon.requests = [a_request(**OVER | {"end": end})]
    result = terminal.run("rent", "messages", ORDER_ID, "--follow")
    assert (result.exit_code, shown(result.stdout)) == (exit_code, ["one"])
    assert words in result.stderr
    assert daemon.received_of(pb.WatchRequestsRequest) == []


def test_a_message_is_told_while_an_order_is_waited_for_without_what_is_in_it(
    daemon: FakeDaemon, terminal: Terminal
) -> None:
    daemon.requests = [a_request(**OVER)]
    daemon.watch_scripts = [updates(RENTED, rented("secret"), OVER | {"messages": ["secret"]})]
    result = terminal.run("orders", "wait", ORDER_ID)
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, "+15550001111\n")
    assert f"a message came; read with `holdpay rent messages {ORDER_ID}`" in result.stderr
    assert "secret" not in result.stderr


def test_show_tells_how_long_it_is_rented_and_each_message(daemon: FakeDaemon, terminal: Terminal) -> None:
    until = pb.RentalBought(country_code=187, country="USA", service="full", weeks=2, ends_at_ms=NOW_MS)
    daemon.requests = [a_request(**rented("one", "two") | {"rental": until})]
    lines = terminal.run("orders", "show", ORDER_ID).stdout.splitlines()
    assert [line.split("  ")[-1] for line in lines if line.startswith("Message")] == ["one", "two"]
    assert any(line.startswith("Rented until") for line in lines)


def test_the_help_of_rent_and_of_its_messages_are_both_to_be_had() -> None:
    helped = CliRunner().invoke(cli, ["rent", "--help"])
    assert "rent [OPTIONS] COUNTRY" in helped.stdout
    assert "`holdpay rent messages ORDER`" in helped.stdout
    assert "rent messages [OPTIONS] ORDER" in CliRunner().invoke(cli, ["rent", "messages", "--help"]).stdout


def test_countries_messages_and_rentals_complete(daemon: FakeDaemon) -> None:
    daemon.answers["ListCountries"] = pb.ListCountriesResponse(countries=[pb.Country(code=1, name="Mexico")])
    daemon.requests = [a_request(**RENTED)]
    assert complete(daemon, "rent", incomplete="me") == ["messages", "mexico"]
    assert complete(daemon, "rent", "messages", incomplete="ord") == [ORDER_ID]
    assert daemon.received_of(pb.ListRequestsRequest)[-1].kind == pb.KIND_RENTAL
