"""`holdpay orders`: list, show, wait, watch, cancel, explain."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli.exit_codes import ExitCode
from holdpay.cli.progress import changes
from tests.unit.cli.conftest import Terminal
from tests.unit.cli.fake_daemon import (
    ACCEPTED,
    DELIVERED,
    HELD,
    NOT_FOUND,
    NOW_MS,
    NUMBERED,
    ORDER_ID,
    SETTLED,
    Break,
    FakeDaemon,
    Hang,
    Refuse,
    Step,
    a_request,
    ended,
    interrupt,
    updates,
)

OLD = {"created_at_ms": NOW_MS - 3_600_000}


def past(*stages: dict[str, Any]) -> list[Step]:
    """One update per stage, from an hour ago on and a second apart."""
    told = updates(*(stage | OLD for stage in stages))
    for update in told:
        assert isinstance(update, pb.RequestUpdate)
        update.at_ms -= 3_600_000
    return told


def test_orders_alone_lists_them(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.requests = [a_request(**NUMBERED), a_request(**SETTLED | {"id": "ord-2"})]
    result = terminal.run("orders")
    heading, first, second = result.stdout.splitlines()
    assert heading.split() == ["ORDER", "CREATED", "KIND", "WHAT", "NUMBER", "MONEY", "STATE"]
    assert first.startswith(ORDER_ID)
    assert "code  OpenAI, USA" in first
    assert "+15550001111" in first
    assert first.endswith("3,003.512 sat locked  held, waiting for the SMS")
    assert second.endswith("3,003.512 sat spent   fulfilled")


def test_list_passes_its_filters_on(daemon: FakeDaemon, terminal: Terminal) -> None:
    terminal.run("orders", "list", "--open", "--limit", "7", "--page", "3")
    (request,) = daemon.received
    assert (request.open_only, request.closed_only, request.page_size, request.page_token) == (True, False, 7, "3")
    assert not request.HasField("created_from_ms")


def test_a_list_can_be_of_one_kind(daemon: FakeDaemon, terminal: Terminal) -> None:
    terminal.run("orders", "list", "--kind", "sms")
    terminal.run("orders", "list")
    assert [request.kind for request in daemon.received] == [pb.KIND_SMS, pb.KIND_UNSPECIFIED]
    assert terminal.run("orders", "list", "--kind", "fax").exit_code == ExitCode.REFUSED_INPUT


def test_the_providers_id_is_shown_where_the_payment_hash_is_another(daemon: FakeDaemon, terminal: Terminal) -> None:
    payment_hash, other = "cd" * 32, "ef" * 32
    for provider_order_id, shown in ((payment_hash, 1), (other, 2)):
        daemon.requests = [a_request(**HELD, payment_hash=payment_hash, provider_order_id=provider_order_id)]
        stdout = terminal.run("orders", "show", ORDER_ID).stdout
        assert stdout.count("a secret: it fetches what was delivered") == shown


def test_list_since_a_date_is_passed_on(
    daemon: FakeDaemon, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.run("orders", "list", "--closed", "--since", "2026-01-31")
    (request,) = daemon.received
    assert request.closed_only
    assert abs(request.created_from_ms - 1_769_817_600_000) <= 14 * 3_600_000  # local midnight


def test_list_fetches_as_many_pages_as_the_limit_asks_for(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.requests = [a_request(id=f"ord-{index}") for index in range(1200)]
    result = terminal.run("orders", "list", "--limit", "1100", "--json")
    found = json.loads(result.stdout)
    assert len(found["requests"]) == 1100
    assert found["next_page_token"] == "1100"
    assert [request.page_size for request in daemon.received] == [64] * 17 + [12]


def test_a_list_that_was_cut_off_says_how_to_go_on(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.requests = [a_request(id=f"ord-{index}") for index in range(3)]
    assert "--page 2" in terminal.run("orders", "list", "--limit", "2").stderr
    assert terminal.run("orders", "list", "--page", "2").stdout.count("ord-") == 1


def test_an_empty_list_has_an_empty_stdout(terminal: Terminal) -> None:
    result = terminal.run("orders", "list")
    assert (result.exit_code, result.stdout, result.stderr) == (ExitCode.DONE, "", "No orders.\n")


def test_open_and_closed_exclude_each_other(terminal: Terminal) -> None:
    assert terminal.run("orders", "list", "--open", "--closed").exit_code == ExitCode.REFUSED_INPUT


def test_show_tells_all(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.requests = [a_request(**SETTLED)]
    stdout = terminal.run("orders", "show", "ord-7").stdout
    for expected in (
        ORDER_ID,
        "+15550001111",
        "004211",
        "3,003.512 sat",
        "871,234",
        "delivered, HTLC settled",
        "ab" * 32,
    ):
        assert expected in stdout


ODD = {
    "earlier_numbers": ["15550002222"],
    "later_codes": ["998877"],
    "unread": '\x1b[2J{"code":\n\t["480",\x07 "10"]}\x1b]0;x\x07\u202e',
}


def test_show_prints_what_was_replaced_and_a_reply_that_could_not_be_read_without_its_control_characters(
    daemon: FakeDaemon, terminal: Terminal
) -> None:
    daemon.requests = [a_request(**SETTLED | ODD)]
    lines = terminal.run("orders", "show", ORDER_ID).stdout.splitlines()
    shown = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in lines}
    assert shown["Earlier number"] == "+15550002222 (replaced)"
    assert shown["Later code"] == "998877"
    assert shown["Unread reply"].startswith('{"code": ["480", "10"]}')
    assert all(line.isprintable() for line in lines)


def test_show_marks_each_item_that_came_as_a_number_and_no_other(daemon: FakeDaemon, terminal: Terminal) -> None:
    request = a_request(**SETTLED | {"code": ["4211", "004212"], "messages": "4213"})
    for item in request.items:
        item.may_lack_zeros = item.text in {"4211", "4213"}
    daemon.requests = [request]
    lines = terminal.run("orders", "show", ORDER_ID).stdout.splitlines()
    marked = [
        line.split("  ")[0] for line in lines if "(came as a number: zeros at its beginning may be missing)" in line
    ]
    assert marked == ["Code", "Message"]
    assert any(line.split() == ["Later", "code", "004212"] for line in lines)


def test_the_whole_sms_of_a_code_is_told_of_and_shown(daemon: FakeDaemon, terminal: Terminal) -> None:
    whole = SETTLED | {"messages": "004211 is your code"}
    daemon.requests = [a_request(**whole)]
    assert "004211 is your code" in terminal.run("orders", "show", ORDER_ID).stdout
    lines = list(changes(a_request(**SETTLED), a_request(**whole)))
    assert lines == [f"a message came; read with `holdpay orders show {ORDER_ID}`"]


def test_show_json_has_what_was_replaced_and_the_reply_as_it_came(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.requests = [a_request(**SETTLED | ODD)]
    found = json.loads(terminal.run("orders", "show", ORDER_ID, "--json").stdout)
    texts = [(item["seq"], item["kind"], item["text"]) for item in found["items"]]
    assert texts == [
        (1, "number", "15550002222"),
        (2, "number", "15550001111"),
        (3, "code", "004211"),
        (4, "code", "998877"),
        (5, "unread", ODD["unread"]),
    ]


def test_show_json_is_the_order(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.requests = [a_request(**SETTLED)]
    found = json.loads(terminal.run("orders", "show", ORDER_ID, "--json").stdout)
    (order,) = found["orders"]
    assert (found["id"], found["end"], order["htlc"], order["payment_hash"]) == (ORDER_ID, "fulfilled", "settled", None)


@pytest.mark.parametrize("command", ["show", "wait", "watch"])
def test_an_unknown_order_is_refused_input(terminal: Terminal, command: str) -> None:
    result = terminal.run("orders", command, "nope")
    assert result.exit_code == ExitCode.REFUSED_INPUT
    assert result.stderr == f"Error: {NOT_FOUND} `holdpay orders list` shows them all.\n"


def test_wait_goes_on_to_the_code(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.requests = [a_request(**NUMBERED | OLD)]
    daemon.watch_scripts = [[*updates(ACCEPTED | OLD, NUMBERED | OLD, DELIVERED | OLD), Hang()]]
    result = terminal.run("orders", "wait", "ord-")
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, "004211\n")
    assert daemon.received_of(pb.WatchRequestsRequest) == [pb.WatchRequestsRequest(request_id=ORDER_ID, after_cursor=0)]


def test_wait_for_what_is_there_ends_where_the_story_has_come_to_it(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.requests = [a_request(**NUMBERED | OLD)]
    daemon.watch_scripts = [[*past(HELD, NUMBERED), Hang()]]
    result = terminal.run("orders", "wait", ORDER_ID, "--until", "number")
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, "+15550001111\n")


def test_wait_on_a_refunded_order_ends_with_its_story(daemon: FakeDaemon, terminal: Terminal) -> None:
    refunded = ended(pb.END_REFUNDED, number="15550001111")
    daemon.requests = [a_request(**refunded | OLD)]
    daemon.watch_scripts = [past(NUMBERED, refunded)]
    result = terminal.run("orders", "wait", ORDER_ID, "--until", "number")
    assert (result.exit_code, result.stdout) == (ExitCode.NOT_DELIVERED, "")


def test_wait_for_the_number_of_a_request_whose_money_is_back_waits_for_its_end(
    daemon: FakeDaemon, terminal: Terminal
) -> None:
    back = NUMBERED | OLD | {"htlc": pb.HTLC_STATE_FAILED, "locked_msat": 0}
    daemon.requests = [a_request(**back)]
    daemon.watch_scripts = [[*past(NUMBERED, back), *updates(ended(pb.END_REFUNDED) | OLD, first_cursor=3)]]
    result = terminal.run("orders", "wait", ORDER_ID, "--until", "number")
    assert (result.exit_code, result.stdout) == (ExitCode.NOT_DELIVERED, "")


@pytest.mark.parametrize("until", ["code", "settled"])
def test_wait_on_a_closed_order_tells_its_story_with_its_own_times(
    daemon: FakeDaemon, terminal: Terminal, until: str
) -> None:
    daemon.requests = [a_request(**SETTLED | OLD)]
    daemon.watch_scripts = [past(HELD, NUMBERED, DELIVERED, SETTLED)]
    result = terminal.run("orders", "wait", ORDER_ID, "--until", until)
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, "004211\n")
    told = [line.strip() for line in result.stderr.splitlines()]
    for line in (
        "1.0s  held, a number is being found",
        "2.0s  the number is +15550001111",
        "4.0s  done: the code arrived and is paid",
    ):
        assert line in told


def test_wait_on_a_request_that_went_on_says_where_its_story_begins(daemon: FakeDaemon, terminal: Terminal) -> None:
    request = a_request(**SETTLED | OLD)
    request.orders.insert(0, pb.Order(country="Canada"))
    daemon.requests = [request]
    daemon.watch_scripts = [past(HELD, NUMBERED, DELIVERED, SETTLED)]
    first, *_ = terminal.run("orders", "wait", ORDER_ID).stderr.splitlines()
    assert "an activation code for OpenAI in USA (order 2 of the request; the first was in Canada), for up to" in first


def test_wait_until_settled_shows_a_code_of_the_past_at_once_and_waits_on(
    daemon: FakeDaemon, terminal: Terminal
) -> None:
    daemon.requests = [a_request(**DELIVERED | OLD)]
    daemon.watch_scripts = [[*past(HELD, DELIVERED), *updates(SETTLED | OLD, first_cursor=3)]]
    result = terminal.run("orders", "wait", ORDER_ID, "--until", "settled")
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, "004211\n")


def test_a_code_is_handed_over_also_if_the_clock_was_set_back_after_the_command_began(
    daemon: FakeDaemon, terminal: Terminal
) -> None:
    daemon.requests = [a_request(**HELD | OLD)]
    daemon.submit_scripts = [[*past(ACCEPTED, HELD, DELIVERED), Hang()]]
    result = terminal.run("code", "usa", "openai", "--timeout", "5s")
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, "004211\n")


def test_wait_json_on_a_closed_order_prints_its_updates(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.requests = [a_request(**SETTLED | OLD)]
    daemon.watch_scripts = [past(HELD, SETTLED)]
    result = terminal.run("orders", "wait", ORDER_ID, "--json")
    first, last = (json.loads(line) for line in result.stdout.splitlines())
    assert [len(update["request"]["items"]) for update in (first, last)] == [0, 2]
    assert (result.exit_code, result.stderr) == (ExitCode.DONE, f"Order {ORDER_ID}. Key cli-test.\n")


def test_an_interrupted_wait_is_still_open(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.requests = [a_request(**HELD | OLD)]
    daemon.watch_scripts = [[*updates(HELD | OLD), Break()]]
    terminal.clock.on_sleep = [interrupt]
    result = terminal.run("orders", "wait", ORDER_ID)
    assert result.exit_code == ExitCode.STILL_OPEN
    assert f"holdpay orders wait {ORDER_ID}" in result.stderr


@pytest.mark.parametrize(
    ("stage", "is_offered"),
    [
        (HELD, True),
        (HELD | {"may_be_canceled": False}, False),
    ],
)
def test_a_cancel_is_offered_only_as_long_as_it_can_be_had(
    daemon: FakeDaemon, terminal: Terminal, stage: dict[str, Any], is_offered: bool
) -> None:
    daemon.requests = [a_request(**stage | OLD)]
    daemon.watch_scripts = [[*updates(stage | OLD), Break()]]
    terminal.clock.on_sleep = [interrupt]
    stderr = terminal.run("orders", "wait", ORDER_ID, "--until", "settled").stderr
    assert f"holdpay orders wait {ORDER_ID}" in stderr
    assert ("holdpay orders cancel" in stderr) is is_offered


def test_watch_one_order_ends_with_it(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.requests = [a_request(**HELD)]
    daemon.watch_scripts = [[*updates(HELD, DELIVERED, SETTLED), Hang()]]
    result = terminal.run("orders", "watch", ORDER_ID, "--after", "0")
    assert result.exit_code == ExitCode.DONE
    assert result.stdout.splitlines()[-1].endswith("event_3  closed: fulfilled")


def test_watch_a_closed_order_does_not_wait_for_ever(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.requests = [a_request(**SETTLED)]
    result = terminal.run("orders", "watch", ORDER_ID)
    assert result.exit_code == ExitCode.DONE
    assert "--after 0" in result.stderr


def test_watch_a_closed_order_from_a_cursor_behind_its_end_ends(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.requests = [a_request(**SETTLED)]
    daemon.watch_scripts = [[]]
    result = terminal.run("orders", "watch", ORDER_ID, "--after", "99")
    assert (result.exit_code, result.stdout, result.stderr) == (ExitCode.DONE, "", "")


def test_watch_json_lines_parse(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.watch_scripts = [[*updates(HELD, DELIVERED), Break()]]
    terminal.clock.on_sleep = [interrupt]
    result = terminal.run("orders", "watch", "--json", "--after", "0")
    assert [json.loads(line)["event"] for line in result.stdout.splitlines()] == ["event_1", "event_2"]


def test_cancel_prints_the_daemons_message(daemon: FakeDaemon, terminal: Terminal) -> None:
    message = "The provider is asked at 14:32."
    daemon.answers["CancelRequest"] = pb.CancelRequestResponse(request=a_request(), message=message)
    result = terminal.run("orders", "cancel", ORDER_ID)
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, f"{message}\n")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_cancel_that_comes_too_late_has_an_exit_code_of_its_own(
    daemon: FakeDaemon, terminal: Terminal, options: tuple[str, ...]
) -> None:
    answer = pb.CancelRequestResponse(request=a_request(), message="It is too late to cancel.", too_late=True)
    daemon.answers["CancelRequest"] = answer
    result = terminal.run("orders", "cancel", ORDER_ID, *options)
    assert (result.exit_code, "too late" in result.stdout) == (ExitCode.TOO_LATE, True)


def test_explain_prints_story_money_and_next_step(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["ExplainRequest"] = pb.ExplainRequestResponse(
        request=a_request(),
        summary="It waits for the SMS.",
        money="3,000 sat are held until block 871,234.",
        next="Nothing to do.",
        history=[pb.HistoryEntry(at_ms=NOW_MS, text="The order was placed.")],
    )
    stdout = terminal.run("orders", "explain", ORDER_ID).stdout
    for expected in ("It waits for the SMS.", "held until block 871,234.", "Nothing to do.", "The order was placed."):
        assert expected in stdout


TRIES = [
    pb.Dispatch(
        n=1,
        at_ms=NOW_MS,
        fee_limit_msat=10_000,
        failed_at_ms=NOW_MS,
        failure_reason="no_route",
        failure_class="no_attempt",
    ),
    pb.Dispatch(
        n=2,
        at_ms=NOW_MS,
        fee_limit_msat=20_000,
        failed_at_ms=NOW_MS,
        failure_reason="insufficient_balance",
        failure_class="routing",
        cause=pb.CAUSE_FEE_LIMIT,
        diagnosis="a route exists at 37 sat, your limit is 20 sat",
        attempts=[
            pb.HtlcAttempt(
                status="failed", attempted_at_ms=NOW_MS, first_channel="811x1x0", failure="hop 1, 02bb…, had too little"
            )
        ],
    ),
    pb.Dispatch(
        n=3,
        at_ms=NOW_MS,
        fee_limit_msat=20_000,
        attempts=[pb.HtlcAttempt(status="in_flight", attempted_at_ms=NOW_MS)],
    ),
    pb.Dispatch(n=4, at_ms=NOW_MS, fee_limit_msat=20_000),
    pb.Dispatch(n=5, at_ms=NOW_MS, fee_limit_msat=20_000, failure_reason="by_operator", failure_class="read_later"),
]


@pytest.mark.parametrize("command", ["explain", "show"])
def test_the_payments_are_told_one_by_one_with_hop_and_cause(
    daemon: FakeDaemon, terminal: Terminal, command: str
) -> None:
    tried = a_request(tries=TRIES)
    daemon.answers["ExplainRequest"] = pb.ExplainRequestResponse(request=tried)
    daemon.requests = [tried]
    stdout = terminal.run("orders", command, ORDER_ID).stdout
    for expected in (
        "fee up to 10 sat: nothing to try (no route)\n",
        "fee up to 20 sat: failed (insufficient balance)\n",
        "HTLC by channel 811x1x0: hop 1, 02bb…, had too little\n",
        "   a route exists at 37 sat, your limit is 20 sat\n",
        "fee up to 20 sat: in flight\n",
        "HTLC by a channel that lnd did not name: in flight\n",
        "fee up to 20 sat: lnd has not said how it ended\n",
        "fee up to 20 sat: an operator said how it ended\n",
    ):
        assert expected in stdout
    assert stdout.count("\nPayments\n") == 1


def test_an_order_without_payments_tells_of_none(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.requests = [a_request()]
    shown = terminal.run("orders", "show", ORDER_ID).stdout
    assert ORDER_ID in shown
    assert "Payments" not in shown


def test_a_daemon_that_does_not_know_a_call_is_older(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["ExplainRequest"] = Refuse(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    result = terminal.run("orders", "explain", ORDER_ID)
    assert result.exit_code == ExitCode.UNEXPECTED
    assert "older than this command" in result.stderr
