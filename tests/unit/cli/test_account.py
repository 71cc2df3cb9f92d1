"""`holdpay account`."""

from __future__ import annotations

import json

import grpc
import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli.exit_codes import ExitCode
from holdpay.errors import ProviderKeyMissing
from holdpay.rpc.status import code_of
from tests.unit.cli.conftest import Terminal
from tests.unit.cli.fake_daemon import HELD, NOW_MS, ORDER_ID, SETTLED, FakeDaemon, Hang, Refuse, a_request, updates

PREIMAGE, PAYMENT_HASH = "ab" * 32, "cd" * 32
FUNDING = pb.ListFundingResponse(
    total_sat=19_500,
    entries=[
        pb.FundingEntry(
            amount_sat=9500,
            price_sat=9500,
            created_at_ms=NOW_MS,
            description="fund \x1b[31maccount",
            payment_hash=PAYMENT_HASH,
            preimage=PREIMAGE,
        ),
        pb.FundingEntry(),
    ],
)


@pytest.fixture(autouse=True)
def answers(daemon: FakeDaemon) -> None:
    daemon.answers |= {
        "GetAccount": pb.GetAccountResponse(balance_sat=10_000, asked_at_ms=NOW_MS),
        "ListFunding": FUNDING,
    }


def test_the_balance_is_shown_with_the_time_at_which_it_was_asked_for(terminal: Terminal) -> None:
    first, second = terminal.run("account", "balance").stdout.splitlines()
    assert first.split(maxsplit=1) == ["Balance", "10,000 sat"]
    assert second.startswith("Asked")
    assert json.loads(terminal.run("account", "balance", "--json").stdout) == {
        "balance_sat": 10_000,
        "asked_at_ms": NOW_MS,
    }


def test_a_balance_of_nothing_is_shown(terminal: Terminal, daemon: FakeDaemon) -> None:
    daemon.answers["GetAccount"] = pb.GetAccountResponse(balance_sat=0, asked_at_ms=NOW_MS)
    assert terminal.run("account", "balance").stdout.splitlines()[0].split(maxsplit=1) == ["Balance", "0 sat"]
    assert json.loads(terminal.run("account", "balance", "--json").stdout)["balance_sat"] == 0


def test_history_shows_a_preimage_only_if_it_is_asked_for(terminal: Terminal, daemon: FakeDaemon) -> None:
    headings, row, unknown, total = terminal.run("account", "history").stdout.splitlines()
    assert headings.split() == ["WHEN", "AMOUNT", "HASH", "WHAT"]
    assert "9,500 sat" in row
    assert PAYMENT_HASH[:8] in row
    assert PAYMENT_HASH not in row
    assert PREIMAGE not in row
    assert "\x1b" not in row
    assert unknown.split() == ["?", "?", "?"]
    assert total == "19,500 sat in all."
    assert PREIMAGE in terminal.run("account", "history", "--preimages").stdout
    assert [request.with_preimages for request in daemon.received] == [False, True]


def test_history_is_json_on_request_and_may_be_empty(terminal: Terminal, daemon: FakeDaemon) -> None:
    reply = json.loads(terminal.run("account", "history", "--json").stdout)
    assert reply["total_sat"] == 19_500
    assert reply["entries"][0]["amount_sat"] == 9500
    daemon.answers["ListFunding"] = pb.ListFundingResponse(total_sat=0)
    ran = terminal.run("account", "history")
    assert (ran.stdout, ran.exit_code) == ("", ExitCode.DONE)
    assert "Nothing was paid into the account yet." in ran.stderr


@pytest.mark.parametrize("command", ["balance", "history"])
def test_without_a_key_the_command_says_how_to_give_one(terminal: Terminal, daemon: FakeDaemon, command: str) -> None:
    missing = ProviderKeyMissing()
    assert (code_of(missing), missing.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_KEY_MISSING")
    daemon.answers |= dict.fromkeys(
        ("GetAccount", "ListFunding"), Refuse(code_of(missing), missing.message, missing.reason)
    )
    ran = terminal.run("account", command)
    assert ran.exit_code == ExitCode.REFUSED_NOW
    assert "key is not configured. Name the file that holds it in provider.api_key_file" in ran.stderr


FUND = {"kind": pb.KIND_FUND, "what": "5,000 sat for the prepaid account", "fund": pb.FundBought(amount_sat=5000)}
FUNDED = SETTLED | {"number": (), "code": ()}


def test_money_is_put_into_the_account_and_said_when_it_is_there(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [updates(FUND, FUND | HELD, FUND | FUNDED)]
    ran = terminal.run("account", "fund", "5000", "--key", "k1", "--max-fee", "0")
    assert (ran.exit_code, ran.stdout) == (ExitCode.DONE, "funded\n")
    assert "done: the credit came and is paid" in ran.stderr
    assert daemon.received == [pb.SubmitRequest(fund=pb.FundSpec(amount_sat=5000), idempotency_key="k1", max_fee_sat=0)]


def test_money_that_is_only_held_is_not_in_the_account_yet(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [[*updates(FUND, FUND | HELD), Hang()]]
    ran = terminal.run("account", "fund", "5000", "--timeout", "0.2s")
    assert (ran.exit_code, ran.stdout) == (ExitCode.STILL_OPEN, "")


@pytest.mark.parametrize("amount", ["0", "-5", "much", str(2**63)])
def test_an_amount_that_is_none_is_refused_before_anything_is_sent(
    daemon: FakeDaemon, terminal: Terminal, amount: str
) -> None:
    assert terminal.run("account", "fund", amount).exit_code == ExitCode.REFUSED_INPUT
    assert daemon.received == []


def test_what_the_account_paid_is_told_as_such(daemon: FakeDaemon, terminal: Terminal) -> None:
    """No HTLC, no fee: what the provider took, and perhaps took."""
    prepaid = {"prepaid": True, "htlc": pb.HTLC_STATE_UNSPECIFIED, "spent_msat": 3_000_000, "balance_before_sat": 9000}
    intended = prepaid | {"charge": pb.CHARGE_STATE_INTENDED}
    unknown = prepaid | {"charge": pb.CHARGE_STATE_UNKNOWN}
    charged = prepaid | {"charge": pb.CHARGE_STATE_CHARGED, "state": pb.ORDER_STATE_PAID}
    done = charged | {"state": pb.ORDER_STATE_DELIVERED, "code": "0042"}
    daemon.submit_scripts = [updates(intended, unknown, charged, done)]
    ran = terminal.run("code", "usa", "openai", "--prepaid")
    assert ran.stdout == "0042\n"
    assert "for up to 3,060 sat of the prepaid account." in ran.stderr
    told = [line.strip() for line in ran.stderr.splitlines() if "spent" in line]
    assert told == [
        "2.0s  perhaps spent 3,000 sat of the prepaid account",
        "3.0s  spent 3,000 sat of the prepaid account",
    ]
    assert ran.stderr.splitlines()[-1] == "Cost: 3,000 sat of the prepaid account."
    daemon.requests = [a_request(**done)]
    shown = terminal.run("orders", "show", ORDER_ID).stdout
    assert "delivered, charge charged" in shown
    assert "9,000 sat" in shown
    assert "HTLC" not in shown
    assert "Dispatches" not in shown
