"""`holdpay code`: what goes to stdout, what to stderr, and every exit code."""

from __future__ import annotations

import json
from typing import Any

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
    SETTLED,
    Break,
    FakeDaemon,
    Hang,
    Refuse,
    a_request,
    ended,
    interrupt,
    updates,
)


def test_only_the_code_is_on_stdout(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [[*updates(ACCEPTED, HELD, NUMBERED, DELIVERED), Hang()]]
    result = terminal.run("code", "usa", "openai")
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, "004211\n")


def test_the_progress_tells_number_money_and_heights(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [[*updates(ACCEPTED, HELD, NUMBERED, DELIVERED)]]
    lines = terminal.run("code", "usa", "openai").stderr.splitlines()
    assert (
        lines[0]
        == f"Order {ORDER_ID}: an activation code for OpenAI in USA, for up to 3,060 sat and a fee of up to 31 sat."
    )
    assert lines[1] == "Key cli-test."
    assert lines[2] == "    1.0s  asking the provider"
    assert lines[3] == "    2.0s  held, a number is being found"
    assert lines[4].startswith("    2.0s  3,003.512 sat locked; the provider promises an end by ")
    assert lines[4].endswith("; block 871,234 ends it at the latest")
    assert lines[5:7] == ["    3.0s  held, waiting for the SMS", "    3.0s  the number is +15550001111"]
    assert "    4.0s  the code is here, settling" in lines
    assert lines[-1] == "Cost: 3,003.512 sat, locked until the HTLC settles."
    assert "004211" not in "\n".join(lines)


@pytest.mark.parametrize(
    "given",
    [
        ("--max-price", str(2**63)),
        ("--max-fee", str(10**30)),
        ("--timeout", "31d"),
        ("--timeout", "99999999999h"),
    ],
)
def test_a_number_beyond_all_bounds_is_refused_before_anything_is_sent(
    daemon: FakeDaemon, terminal: Terminal, given: tuple[str, str]
) -> None:
    result = terminal.run("code", "usa", "openai", *given)
    assert result.exit_code == ExitCode.REFUSED_INPUT
    assert given[0] in result.stderr
    assert daemon.received == []


@pytest.mark.parametrize(("until", "printed"), [("number", "+15550001111"), ("code", "004211")])
def test_the_last_number_and_the_first_code_count(
    daemon: FakeDaemon, terminal: Terminal, until: str, printed: str
) -> None:
    several = DELIVERED | {"earlier_numbers": ["15550009999"], "later_codes": ["998877"]}
    daemon.submit_scripts = [updates(several)]
    assert terminal.run("code", "usa", "openai", "--until", until).stdout == f"{printed}\n"


def test_an_empty_key_is_passed_on_and_never_made_up(daemon: FakeDaemon, terminal: Terminal) -> None:
    """As from a script whose variable is not set: a made-up key would order anew each time."""
    daemon.submit_scripts = [[Refuse(grpc.StatusCode.INVALID_ARGUMENT, "The idempotency key must have …")]]
    assert terminal.run("code", "usa", "openai", "--key", "").exit_code == ExitCode.REFUSED_INPUT
    (request,) = daemon.received
    assert isinstance(request, pb.SubmitRequest)
    assert request.idempotency_key == ""


def test_the_number_of_a_request_that_has_its_code_already_says_so(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [updates(SETTLED)]
    result = terminal.run("code", "usa", "openai", "--until", "number")
    assert result.stdout.strip() == "+15550001111"
    assert f"Its code is here already: holdpay orders wait {ORDER_ID}" in result.stderr


def test_the_request_carries_what_was_typed(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [updates(DELIVERED)]
    options = ["--max-price", "3000", "--max-fee", "0", "--key", "k1", "--force", "--real-phone", "--ref", "a@b.c"]
    terminal.run("code", "0", "openai", *options, "--prepaid")
    assert daemon.received == [
        pb.SubmitRequest(
            code=pb.CodeSpec(countries=["0"], service="openai", real_phone=True, ref="a@b.c"),
            max_price_sat=3000,
            max_fee_sat=0,
            idempotency_key="k1",
            force=True,
            prepaid=True,
        )
    ]


def test_limits_that_were_not_typed_are_absent(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [updates(DELIVERED)]
    terminal.run("code", "usa", "openai")
    (request,) = daemon.received
    assert not request.HasField("max_price_sat")
    assert not request.HasField("max_fee_sat")
    assert not request.code.HasField("ref")
    assert (request.force, request.prepaid, request.code.real_phone) == (False, False, False)


def test_a_made_up_key_differs_each_time(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [updates(DELIVERED), updates(DELIVERED)]
    terminal.run("code", "usa", "openai")
    terminal.run("code", "usa", "openai")
    first, second = (request.idempotency_key for request in daemon.received)
    assert first.startswith("cli-")
    assert first != second


def test_until_number_prints_the_number_and_how_to_go_on(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [[*updates(ACCEPTED, HELD, NUMBERED), Hang()]]
    result = terminal.run("code", "usa", "openai", "--until", "number")
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, "+15550001111\n")
    assert f"holdpay orders wait {ORDER_ID}" in result.stderr


def test_until_settled_prints_the_code_once_and_waits_for_the_end(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [updates(ACCEPTED, HELD, NUMBERED, DELIVERED, SETTLED)]
    result = terminal.run("code", "usa", "openai", "--until", "settled")
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, "004211\n")
    assert "spent 3,003.512 sat, 3.512 sat of it routing fee" in result.stderr
    assert "done: the code arrived and is paid" in result.stderr


def test_no_wait_prints_the_order_id(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [[*updates(ACCEPTED), Hang()]]
    result = terminal.run("code", "usa", "openai", "--no-wait")
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, f"{ORDER_ID}\n")


def test_no_wait_and_until_exclude_each_other(terminal: Terminal) -> None:
    result = terminal.run("code", "usa", "openai", "--no-wait", "--until", "code")
    assert result.exit_code == ExitCode.REFUSED_INPUT
    assert "exclude each other" in result.stderr


def test_json_prints_each_update_as_one_object_and_nothing_else(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [updates(ACCEPTED, HELD, NUMBERED, DELIVERED)]
    result = terminal.run("code", "usa", "openai", "--json")
    objects = [json.loads(line) for line in result.stdout.splitlines()]
    assert [found["cursor"] for found in objects] == [1, 2, 3, 4]
    requests = [found["request"] for found in objects]
    states = [request["orders"][0]["state"] for request in requests]
    assert states == ["requested", "paid", "number_assigned", "delivered"]
    assert (requests[0]["kind"], requests[0]["items"], requests[0]["end"]) == ("code", [], None)
    assert [(item["kind"], item["text"]) for item in requests[3]["items"]] == [
        ("number", "15550001111"),
        ("code", "004211"),
    ]
    assert requests[3]["orders"][0]["locked_msat"] == 3_003_512
    assert set(objects[0]) == {"cursor", "at_ms", "event", "request", "shutting_down"}
    assert result.stderr == f"Order {ORDER_ID}. Key cli-test.\n"


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (pb.END_REFUNDED, ExitCode.NOT_DELIVERED),
        (pb.END_CANCELED_UNPAID, ExitCode.NOT_DELIVERED),
        (pb.END_INVOICE_REJECTED, ExitCode.NOTHING_PAID),
        (pb.END_PROVIDER_REFUSED, ExitCode.NOTHING_PAID),
        (pb.END_PAYMENT_FAILED, ExitCode.NOTHING_PAID),
        (pb.END_NO_PLACE, ExitCode.REFUSED_NOW),
        (pb.END_CHARGED_UNFULFILLED, ExitCode.CHARGED_UNFULFILLED),
    ],
)
def test_an_end_without_a_code_has_its_exit_code(
    daemon: FakeDaemon, terminal: Terminal, end: pb.End.ValueType, expected: ExitCode
) -> None:
    daemon.submit_scripts = [updates(ACCEPTED, HELD, ended(end))]
    result = terminal.run("code", "usa", "openai")
    assert (result.exit_code, result.stdout) == (expected, "")
    assert "It ended for a reason." in result.stderr
    assert f"holdpay orders explain {ORDER_ID}" in result.stderr


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (pb.CAUSE_UNSPECIFIED, ExitCode.NOTHING_PAID),
        (pb.CAUSE_FEE_LIMIT, ExitCode.FEE_LIMIT),
        (pb.CAUSE_OUTBOUND, ExitCode.OUTBOUND),
        (pb.CAUSE_PEER_OFFLINE, ExitCode.PEER_OFFLINE),
        (pb.CAUSE_PAYEE_UNKNOWN, ExitCode.NO_WAY),
        (pb.CAUSE_TIME_LOCK, ExitCode.NO_WAY),
        (pb.CAUSE_NO_ROUTE, ExitCode.NO_WAY),
        (pb.CAUSE_HOP_FAILED, ExitCode.HOP_FAILED),
        (pb.CAUSE_LND, ExitCode.NOTHING_PAID),
    ],
)
def test_a_payment_that_failed_has_the_exit_code_of_its_cause(
    daemon: FakeDaemon, terminal: Terminal, cause: pb.Cause.ValueType, expected: ExitCode
) -> None:
    over = ended(pb.END_PAYMENT_FAILED, cause=cause)
    daemon.submit_scripts = [updates(ACCEPTED, HELD, over)]
    assert terminal.run("code", "usa", "openai").exit_code is expected


def test_a_cause_is_no_exit_code_where_the_payment_did_not_fail(daemon: FakeDaemon, terminal: Terminal) -> None:
    over = ended(pb.END_CANCELED_UNPAID, cause=pb.CAUSE_FEE_LIMIT)
    daemon.submit_scripts = [updates(ACCEPTED, HELD, over)]
    assert terminal.run("code", "usa", "openai").exit_code is ExitCode.NOT_DELIVERED


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, ExitCode.REFUSED_INPUT),
        (grpc.StatusCode.ALREADY_EXISTS, ExitCode.REFUSED_INPUT),
        (grpc.StatusCode.OUT_OF_RANGE, ExitCode.PRICE_TOO_HIGH),
        (grpc.StatusCode.FAILED_PRECONDITION, ExitCode.REFUSED_NOW),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ExitCode.REFUSED_NOW),
        (grpc.StatusCode.UNAVAILABLE, ExitCode.REFUSED_NOW),
    ],
)
def test_a_refusal_shows_the_daemons_words_and_its_exit_code(
    daemon: FakeDaemon, terminal: Terminal, status: grpc.StatusCode, expected: ExitCode
) -> None:
    details = 'No country is called "uda". Did you mean usa?'
    daemon.submit_scripts = [[Refuse(status, details)]]
    result = terminal.run("code", "uda", "openai")
    assert (result.exit_code, result.stdout) == (expected, "")
    assert result.stderr == f"Error: {details}\n"  # and no key: there is no order
    assert len(daemon.received) == 1


def test_a_failing_daemon_is_unexpected_and_the_key_is_told(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [[Break(grpc.StatusCode.UNKNOWN)]]
    result = terminal.run("code", "usa", "openai", "--key", "k1")
    assert result.exit_code == ExitCode.UNEXPECTED
    assert "--key k1" in result.stderr


def test_the_timeout_leaves_the_order_open(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [[*updates(ACCEPTED, HELD), Hang()]]
    result = terminal.run("code", "usa", "openai", "--timeout", "0.2s")
    assert (result.exit_code, result.stdout) == (ExitCode.STILL_OPEN, "")
    assert f"holdpay orders wait {ORDER_ID}" in result.stderr


def test_the_timeout_after_the_code_but_before_the_end_is_still_open(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [[*updates(ACCEPTED, DELIVERED), Hang()]]
    result = terminal.run("code", "usa", "openai", "--until", "settled", "--timeout", "0.2s")
    assert (result.exit_code, result.stdout) == (ExitCode.STILL_OPEN, "004211\n")


def test_no_answer_in_time_is_possibly_ordered_and_the_key_is_told(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [[Hang()]]
    result = terminal.run("code", "usa", "openai", "--timeout", "0.2s", "--key", "k1")
    assert result.exit_code == ExitCode.STILL_OPEN
    assert "may have been ordered" in result.stderr
    assert "--key k1" in result.stderr


def test_an_interrupt_says_that_the_order_goes_on(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [[*updates(ACCEPTED, HELD), Break()]]
    terminal.clock.on_sleep = [interrupt]
    result = terminal.run("code", "usa", "openai")
    assert (result.exit_code, result.stdout) == (ExitCode.STILL_OPEN, "")
    assert f"The order goes on. Wait on with: holdpay orders wait {ORDER_ID}" in result.stderr


def test_an_interrupt_before_the_answer_tells_the_key(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [[Break()]]
    terminal.clock.on_sleep = [interrupt]
    result = terminal.run("code", "usa", "openai", "--key", "k1")
    assert result.exit_code == ExitCode.STILL_OPEN
    assert "--key k1" in result.stderr


def test_alarms_and_retries_are_shown_once(daemon: FakeDaemon, terminal: Terminal) -> None:
    alarm: dict[str, Any] = {"alarms": ["In flight and unpaid for 3 minutes."]}
    retry: dict[str, Any] = {"dispatches": 2}
    daemon.submit_scripts = [updates(HELD, HELD | alarm, HELD | alarm | retry, DELIVERED)]
    stderr = terminal.run("code", "usa", "openai").stderr
    assert stderr.count("ALARM: In flight and unpaid for 3 minutes.") == 1
    assert stderr.count("payment try 2") == 1


def test_an_urgent_level_is_told_once_when_it_begins_and_when_it_ends(daemon: FakeDaemon, terminal: Terminal) -> None:
    warned = HELD | {"hold_level": pb.HOLD_LEVEL_WARNING, "hold_why": "the peer is offline"}
    critical = HELD | {"hold_level": pb.HOLD_LEVEL_CRITICAL, "hold_why": "closed by force in 9 blocks"}
    calm = HELD | {"hold_level": pb.HOLD_LEVEL_OK}
    daemon.submit_scripts = [updates(HELD, warned, warned, critical, critical, calm, DELIVERED)]
    stderr = terminal.run("code", "usa", "openai").stderr
    assert stderr.count("WARNING: the peer is offline") == 1
    assert stderr.count("CRITICAL: closed by force in 9 blocks") == 1
    assert stderr.count("the critical level is over") == 1


def test_a_level_that_an_alarm_has_told_is_not_told_again(daemon: FakeDaemon, terminal: Terminal) -> None:
    why = "canceled, and the money is still not back"
    late = HELD | {"hold_level": pb.HOLD_LEVEL_WARNING, "hold_why": why, "alarms": [f"order x: {why}"]}
    daemon.submit_scripts = [updates(HELD, late, DELIVERED)]
    stderr = terminal.run("code", "usa", "openai").stderr
    assert (stderr.count(why), "WARNING" in stderr) == (1, False)


def test_a_code_that_came_as_a_number_is_marked(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [updates(DELIVERED | {"code_may_lack_zeros": True})]
    assert "zeros at its beginning may be missing" in terminal.run("code", "usa", "openai").stderr


def test_escape_sequences_of_the_provider_do_not_reach_the_terminal(daemon: FakeDaemon, terminal: Terminal) -> None:
    hostile = "\x1b]0;owned\x07"
    daemon.submit_scripts = [updates({"phase": hostile, "what": hostile}, DELIVERED | {"code": "12\x1b[2J"})]
    result = terminal.run("code", "usa", "openai")
    assert "\x1b" not in result.output


def test_the_dead_number_of_a_refunded_order_is_not_replayed(daemon: FakeDaemon, terminal: Terminal) -> None:
    old = {"created_at_ms": NOW_MS - 3_600_000}
    daemon.submit_scripts = [[*updates(ACCEPTED | old, NUMBERED | old, ended(pb.END_REFUNDED) | old)]]
    daemon.requests = [a_request(**(ended(pb.END_REFUNDED, number="15550001111") | old))]
    result = terminal.run("code", "usa", "openai", "--key", "k1", "--until", "number")
    assert (result.exit_code, result.stdout) == (ExitCode.NOT_DELIVERED, "")


def test_the_same_key_gives_the_code_of_the_first_order(daemon: FakeDaemon, terminal: Terminal) -> None:
    old = {"created_at_ms": NOW_MS - 3_600_000}
    daemon.submit_scripts = [updates(ACCEPTED | old, DELIVERED | old, SETTLED | old)]
    daemon.requests = [a_request(**(SETTLED | old))]
    result = terminal.run("code", "usa", "openai", "--key", "k1")
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, "004211\n")


def test_a_code_erased_by_retention_is_not_success(daemon: FakeDaemon, terminal: Terminal) -> None:
    erased = a_request(**(SETTLED | {"created_at_ms": NOW_MS - 3_600_000}))
    del erased.items[:]
    daemon.submit_scripts = [[pb.RequestUpdate(cursor=1, at_ms=NOW_MS, request=erased)]]
    daemon.requests = [erased]
    result = terminal.run("code", "usa", "openai", "--key", "k1")
    assert (result.exit_code, result.stdout) == (ExitCode.UNEXPECTED, "")
    assert "not stored any more" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--timeout", "25"], ["--timeout", "soon"], ["--timeout", "0s"], ["--max-price", "0"], ["--until", "lunch"]],
)
def test_a_wrong_option_is_refused_input(daemon: FakeDaemon, terminal: Terminal, arguments: list[str]) -> None:
    result = terminal.run("code", "usa", "openai", *arguments)
    assert result.exit_code == ExitCode.REFUSED_INPUT
    assert daemon.received == []


@pytest.mark.parametrize(
    ("code", "reason", "metadata", "advice"),
    [
        (grpc.StatusCode.OUT_OF_RANGE, "PRICE_TOO_HIGH", {"limit": "max_price_sat"}, "--max-price allows more."),
        (grpc.StatusCode.OUT_OF_RANGE, "PRICE_TOO_HIGH", {"limit": "payment.max_price_sat"}, ""),
        (grpc.StatusCode.OUT_OF_RANGE, "PRICE_UNKNOWN", {}, "Say so with --max-price."),
        (grpc.StatusCode.FAILED_PRECONDITION, "OUT_OF_STOCK", {}, "--force orders all the same."),
        (
            grpc.StatusCode.FAILED_PRECONDITION,
            "NOT_PAYABLE",
            {"cause": "no_route"},
            "--force orders all the same; --dry-run shows every rule.",
        ),
        (
            grpc.StatusCode.INVALID_ARGUMENT,
            "UNKNOWN_COUNTRY",
            {"field": "country"},
            "`holdpay countries` lists them all.",
        ),
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", {"field": "max_fee_sat"}, "The option is --max-fee."),
        (grpc.StatusCode.UNAVAILABLE, "A_REASON_OF_A_NEWER_DAEMON", {}, ""),
    ],
)
def test_a_refusal_is_the_daemons_sentence_and_what_to_do_on_this_command_line(
    daemon: FakeDaemon,
    terminal: Terminal,
    code: grpc.StatusCode,
    reason: str,
    metadata: dict[str, str],
    advice: str,
) -> None:
    daemon.submit_scripts = [[Refuse(code, "It cannot be.", reason, metadata)]]
    stderr = terminal.run("code", "usa", "openai", "--key", "k1").stderr
    assert stderr.splitlines()[-1] == f"Error: It cannot be. {advice}".rstrip()
