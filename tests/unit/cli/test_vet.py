"""`holdpay vet` and `--dry-run`: the table, the verdict, the exit code; and that nothing is ordered."""

from __future__ import annotations

import json

import grpc
import pytest
from click.testing import CliRunner

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli.exit_codes import ExitCode
from holdpay.cli.root import cli
from tests.unit.cli.conftest import Terminal
from tests.unit.cli.fake_daemon import FakeDaemon, Refuse

PASSED = pb.Check(rule="payment_hash", value="new", limit="new", verdict=pb.VERDICT_PASS)
FAILED = pb.Check(
    rule="routing_fee",
    value="37 sat",
    limit="at most 20 sat",
    key="payment.fee_limit_percent",
    verdict=pb.VERDICT_FAIL,
    why="a route exists at 37 sat, your limit is 20 sat\x1b[31m",
)
UNKNOWN = pb.Check(rule="final_cltv_delta", value="not known", verdict=pb.VERDICT_UNKNOWN, why="nobody asked")
FINE = pb.CheckReport(fine=True, what="an invoice", amount_msat=2_000_500, checks=[PASSED, UNKNOWN])
NOT_FINE = pb.CheckReport(
    what="an activation code for OpenAI in USA",
    checks=[PASSED, FAILED],
    refusal=pb.Refusal(
        status_code=9,  # FAILED_PRECONDITION
        message="Your node cannot pay this now.",
        reason="NOT_PAYABLE",
        metadata={"cause": "fee_limit"},
    ),
)


def test_each_rule_is_a_line_and_what_is_wrong_is_said_below(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["VetInvoice"] = FINE
    done = terminal.run("vet", "lnbc1x")
    assert done.exit_code == ExitCode.DONE
    assert done.stdout.splitlines() == [
        "RULE              FOUND      ALLOWED  VERDICT  SET BY",
        "payment hash      new        new      pass",
        "final CLTV delta  not known           unknown",
        "",
        "final CLTV delta:  nobody asked",
        "",
        "an invoice: it would be paid for 2,000.5 sat.",
    ]


def test_an_invoice_that_would_not_be_paid_ends_with_4_and_escapes_nothing(
    daemon: FakeDaemon, terminal: Terminal
) -> None:
    daemon.answers["VetInvoice"] = NOT_FINE
    done = terminal.run("vet", "lnbc1x")
    assert done.exit_code == 4
    assert "routing fee   37 sat  at most 20 sat  fail     payment.fee_limit_percent" in done.stdout
    assert "a route exists at 37 sat, your limit is 20 sat" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("it would NOT be paid.")
    assert "\x1b" not in done.stdout


def test_an_invoice_may_come_from_stdin_where_no_history_keeps_it(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["VetInvoice"] = FINE
    arguments = ["--socket", terminal.path, "vet", "-", "--max-price", "3000", "--max-fee", "0"]
    done = CliRunner().invoke(cli, arguments, obj=terminal.clock, input="  lnbc1x\n")
    assert done.exit_code == 0
    assert daemon.received == [pb.VetInvoiceRequest(invoice="lnbc1x", max_price_sat=3000, max_fee_sat=0)]


def test_no_more_of_stdin_is_read_than_any_invoice_has(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["VetInvoice"] = Refuse(grpc.StatusCode.INVALID_ARGUMENT, "This is no invoice.")
    arguments = ["--socket", terminal.path, "vet", "-"]
    done = CliRunner().invoke(cli, arguments, obj=terminal.clock, input="x" * 1_000_000)
    assert (done.exit_code, done.stdout) == (ExitCode.REFUSED_INPUT, "")
    assert "This is no invoice." in done.stderr
    assert len(daemon.received[0].invoice) == 10_000


def test_what_is_no_text_on_stdin_is_refused_input(daemon: FakeDaemon, terminal: Terminal) -> None:
    arguments = ["--socket", terminal.path, "vet", "-"]
    done = CliRunner().invoke(cli, arguments, obj=terminal.clock, input=b"lnbc\xff\xfe")
    assert (done.exit_code, daemon.received) == (ExitCode.REFUSED_INPUT, [])
    assert "not valid UTF-8" in done.stderr


def test_a_program_gets_all_of_it_as_json(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["VetInvoice"] = NOT_FINE
    done = terminal.run("vet", "lnbc1x", "--json")
    said = json.loads(done.stdout)
    assert done.exit_code == 4
    assert (said["fine"], said["amount_msat"], said["checks"][1]["verdict"]) == (False, None, "fail")
    assert said["refusal"]["metadata"] == {"cause": "fee_limit"}


ORDERS = [
    ("code", "usa", "openai"),
    ("rent", "usa"),
    ("sms", "send", "+19871234567", "hi"),
    ("email", "send", "a@example.com", "hi"),
    ("account", "fund", "2000"),
]


@pytest.mark.parametrize("words", ORDERS, ids=lambda words: words[0])
def test_every_order_can_be_a_dry_run_which_orders_nothing(
    daemon: FakeDaemon, terminal: Terminal, words: tuple[str, ...]
) -> None:
    daemon.answers["CheckRequest"] = FINE
    done = terminal.run(*words, "--dry-run", "--max-price", "3000", "--max-fee", "7", "--force")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "an invoice: it would be ordered for 2,000.5 sat."
    (asked,) = daemon.received
    assert (asked.max_price_sat, asked.max_fee_sat, asked.force) == (3000, 7, True)
    assert asked.idempotency_key


@pytest.mark.parametrize(
    ("status", "reason", "cause", "exit_code"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, "NOT_PAYABLE", "lnd", ExitCode.NOTHING_PAID),
        (grpc.StatusCode.FAILED_PRECONDITION, "NOT_PAYABLE", "fee_limit", ExitCode.FEE_LIMIT),
        (grpc.StatusCode.FAILED_PRECONDITION, "NOT_PAYABLE", "outbound", ExitCode.OUTBOUND),
        (grpc.StatusCode.FAILED_PRECONDITION, "OUT_OF_STOCK", "", ExitCode.REFUSED_NOW),
        (grpc.StatusCode.FAILED_PRECONDITION, "NOT_READY", "clock", ExitCode.REFUSED_NOW),
        (grpc.StatusCode.OUT_OF_RANGE, "PRICE_TOO_HIGH", "", ExitCode.PRICE_TOO_HIGH),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_REACHED", "", ExitCode.REFUSED_NOW),
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "", ExitCode.REFUSED_INPUT),
    ],
)
def test_a_dry_run_ends_with_the_code_of_the_refusal_that_the_order_meets(
    daemon: FakeDaemon, terminal: Terminal, status: grpc.StatusCode, reason: str, cause: str, exit_code: ExitCode
) -> None:
    refused = pb.Refusal(status_code=status.value[0], reason=reason, metadata={"cause": cause})
    report = pb.CheckReport(checks=[FAILED], refusal=refused)
    daemon.answers["CheckRequest"] = report
    assert terminal.run("code", "usa", "openai", "--dry-run").exit_code == exit_code
    daemon.submit_scripts = [[Refuse(status, "No.", reason, {"cause": cause})]]
    assert terminal.run("code", "usa", "openai").exit_code == exit_code


def test_a_dry_run_as_json_is_one_object(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["CheckRequest"] = NOT_FINE
    done = terminal.run("code", "usa", "openai", "--dry-run", "--json")
    assert (json.loads(done.stdout)["what"], done.exit_code) == ("an activation code for OpenAI in USA", 10)
