"""`holdpay sms send` and `holdpay email send`: what is sent off, what is printed, and when they end."""

from __future__ import annotations

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
    SETTLED,
    Break,
    FakeDaemon,
    Hang,
    a_request,
    ended,
    interrupt,
    updates,
)

PHONE, ADDRESS, TEXT = "+19871234567", "a@example.org", "see you at noon"
SMS: dict[str, Any] = {
    "kind": pb.KIND_SMS,
    "what": f"an SMS to {PHONE}",
    "sms": pb.SmsBought(phone=PHONE, message=TEXT),
}
EMAIL: dict[str, Any] = {
    "kind": pb.KIND_EMAIL,
    "what": f"an e-mail to {ADDRESS}",
    "email": pb.EmailBought(address=ADDRESS, message=TEXT),
}
PAID = HELD | {"may_be_canceled": False, "phase": "held, the SMS is being sent"}
SENT = PAID | {
    "state": pb.ORDER_STATE_DELIVERED,
    "htlc": pb.HTLC_STATE_SETTLED,
    "phase": "SMS sent, settled",
    "sending": ["created", "sent"],
    "locked_msat": 0,
    "spent_msat": 1_001_000,
}
COMMANDS = {"sms": (SMS, ["sms", "send", PHONE]), "email": (EMAIL, ["email", "send", ADDRESS])}


@pytest.fixture(params=COMMANDS)
def sending(request: pytest.FixtureRequest) -> tuple[dict[str, Any], list[str]]:
    return COMMANDS[request.param]


def test_it_ends_at_sent_and_says_that_more_may_be_told(
    daemon: FakeDaemon, terminal: Terminal, sending: tuple[dict[str, Any], list[str]]
) -> None:
    kind, command = sending
    daemon.submit_scripts = [[*updates(kind, kind | PAID, kind | SENT), Hang()]]
    result = terminal.run(*command, TEXT)
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, "sent\n")
    assert f"Order {ORDER_ID}: {kind['what']}, for up to 3,060 sat" in result.stderr
    assert "Cost: 1,001 sat." in result.stderr
    assert f"It stays open: whether it was delivered is told later. See with: holdpay orders show {ORDER_ID}" in (
        result.stderr.splitlines()
    )


def test_nothing_is_printed_before_it_was_sent(
    daemon: FakeDaemon, terminal: Terminal, sending: tuple[dict[str, Any], list[str]]
) -> None:
    kind, command = sending
    daemon.submit_scripts = [[*updates(kind, kind | PAID | {"sending": ["created"]}), Hang()]]
    result = terminal.run(*command, TEXT, "--timeout", "0.2s")
    assert (result.exit_code, result.stdout) == (ExitCode.STILL_OPEN, "")


def test_one_that_failed_and_is_paid_back_is_not_sent(
    daemon: FakeDaemon, terminal: Terminal, sending: tuple[dict[str, Any], list[str]]
) -> None:
    kind, command = sending
    failed = {"sending": ["created", "failed"]}
    daemon.submit_scripts = [updates(kind | PAID, kind | PAID | failed, kind | ended(pb.END_REFUNDED) | failed)]
    result = terminal.run(*command, TEXT)
    assert (result.exit_code, result.stdout) == (ExitCode.NOT_DELIVERED, "")
    assert "the provider says that sending failed" in result.stderr
    assert "did not come; the money is back" in result.stderr


def test_an_interrupt_offers_no_cancel_once_it_is_paid_for(
    daemon: FakeDaemon, terminal: Terminal, sending: tuple[dict[str, Any], list[str]]
) -> None:
    kind, command = sending
    daemon.submit_scripts = [[*updates(kind, kind | PAID), Break()]]
    terminal.clock.on_sleep = [interrupt]
    result = terminal.run(*command, TEXT)
    assert result.exit_code == ExitCode.STILL_OPEN
    assert f"The order goes on. Wait on with: holdpay orders wait {ORDER_ID}\n" in result.stderr
    assert "orders cancel" not in result.stderr


def test_an_sms_carries_what_was_typed(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [updates(SMS | SENT)]
    options = ["--country", "us", "--webhook-url", "https://x.y/z", "--ref", "a@b.c", "--prepaid"]
    terminal.run("sms", "send", "987 123 4567", TEXT, *options, "--key", "k1", "--max-price", "900", "--max-fee", "0")
    assert daemon.received == [
        pb.SubmitRequest(
            sms=pb.SmsSpec(phone="987 123 4567", country="us", message=TEXT, webhook_url="https://x.y/z", ref="a@b.c"),
            idempotency_key="k1",
            max_price_sat=900,
            max_fee_sat=0,
            prepaid=True,
        )
    ]


def test_an_email_carries_what_was_typed_and_nothing_else(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [updates(EMAIL | SENT), updates(EMAIL | SENT)]
    terminal.run("email", "send", ADDRESS, TEXT, "--key", "k1")
    terminal.run("email", "send", ADDRESS, TEXT, "--key", "k1", "--webhook-url", "https://x.y/z", "--prepaid")
    assert daemon.received == [
        pb.SubmitRequest(email=pb.EmailSpec(address=ADDRESS, message=TEXT), idempotency_key="k1"),
        pb.SubmitRequest(
            email=pb.EmailSpec(address=ADDRESS, message=TEXT, webhook_url="https://x.y/z"),
            idempotency_key="k1",
            prepaid=True,
        ),
    ]


@pytest.mark.parametrize(
    ("stdin", "message"), [(b"hi\n", "hi"), (b"hi", "hi"), (b"a\nb\n\n", "a\nb\n"), ("é\r\n".encode(), "é"), (b"", "")]
)
def test_a_dash_is_read_from_stdin_without_the_line_end_that_closes_it(
    daemon: FakeDaemon, terminal: Terminal, stdin: bytes, message: str
) -> None:
    daemon.submit_scripts = [updates(SMS | SENT)]
    arguments = ["--socket", terminal.path, "sms", "send", PHONE, "-"]
    CliRunner().invoke(cli, arguments, obj=terminal.clock, input=stdin)
    (request,) = daemon.received
    assert request.sms.message == message


@pytest.mark.parametrize("stdin", [b"\xff\xfe", b"a" * 10_001, b"a" * 1_000_000])
def test_what_can_be_no_message_is_refused_before_anything_is_sent(
    daemon: FakeDaemon, terminal: Terminal, stdin: bytes
) -> None:
    arguments = ["--socket", terminal.path, "sms", "send", PHONE, "-"]
    result = CliRunner().invoke(cli, arguments, obj=terminal.clock, input=stdin)
    assert result.exit_code == ExitCode.REFUSED_INPUT
    assert daemon.received == []


def test_show_tells_recipient_text_and_how_it_went(daemon: FakeDaemon, terminal: Terminal) -> None:
    over = {"end": pb.END_FULFILLED, "terminal": True, "closed_at_ms": NOW_MS, "sending": ["sent", "delivered"]}
    daemon.requests = [a_request(**SMS | SENT | over)]
    stdout = terminal.run("orders", "show", ORDER_ID).stdout
    for expected in (PHONE, TEXT, "delivered"):
        assert expected in stdout


def test_wait_tells_a_sent_message_again_and_knows_no_code_of_it(daemon: FakeDaemon, terminal: Terminal) -> None:
    over = SETTLED | {"number": (), "code": (), "sending": ["sent", "delivered"]}
    daemon.requests = [a_request(**SMS | over)]
    daemon.watch_scripts = [updates(SMS, SMS | over)]
    result = terminal.run("orders", "wait", ORDER_ID)
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, "sent\n")
    assert "the provider says that it was delivered" in result.stderr
    assert "done: the SMS was sent and is paid" in result.stderr
    assert "It stays open" not in result.stderr
    result = terminal.run("orders", "wait", ORDER_ID, "--until", "code")
    assert result.exit_code == ExitCode.REFUSED_INPUT
    assert "Wait --until sent or settled" in result.stderr


def test_until_settled_ends_when_it_is_paid_and_not_an_hour_later(daemon: FakeDaemon, terminal: Terminal) -> None:
    unpaid = SENT | {"htlc": pb.HTLC_STATE_IN_FLIGHT, "spent_msat": 0, "locked_msat": 1_001_000}
    daemon.requests = [a_request(**SMS | PAID)]
    daemon.watch_scripts = [[*updates(SMS | PAID, SMS | unpaid, SMS | SENT), Hang()]]
    result = terminal.run("orders", "wait", ORDER_ID, "--until", "settled")
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, "sent\n")
    assert "    3.0s  spent 1,001 sat" in result.stderr
    assert "It stays open" in result.stderr
