"""`holdpay budget`, and what the other commands show of clients."""

from __future__ import annotations

import json

import grpc
import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli import render
from holdpay.cli.exit_codes import ExitCode
from tests.unit.cli.conftest import Terminal
from tests.unit.cli.fake_daemon import NOW_MS, ORDER_ID, FakeDaemon, Refuse, a_request

DAY = pb.BudgetLine(
    limit="client.ann.max_spend_per_day_sat",
    period="day",
    limit_sat=10_000,
    spent_msat=6_003_012,
    reserved_msat=2_060_000,
    from_ms=NOW_MS - 86_400_000,
    renews_at_ms=NOW_MS + 3_600_000,
)
FEES = pb.BudgetLine(
    limit="client.ann.max_fee_per_day_sat", period="day", fees=True, limit_sat=0, from_ms=NOW_MS - 86_400_000
)
ANN = pb.Budget(
    client="ann",
    window="rolling",
    lines=[DAY, FEES],
    max_price_sat=3_000,
    open_orders=1,
    max_open_orders=2,
    recent_orders=0,
    warnings=["client.ann.max_spend_per_day_sat: 8,064 of 10,000 sat are spent or reserved, 80 % or more."],
)
BOB = pb.Budget(client="bob", window="calendar", open_orders=3, may_fund=True)
ORDERS = [
    pb.BudgetOrder(request_id=ORDER_ID, at_ms=NOW_MS, reserved_msat=2_060_000),
    pb.BudgetOrder(request_id="ord-2", at_ms=NOW_MS - 60_000, spent_msat=6_003_012, fee_msat=3_012),
]


def test_it_shows_limits_what_is_used_of_them_and_when_they_renew(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["GetBudget"] = pb.GetBudgetResponse(budgets=[ANN, BOB])
    result = terminal.run("budget")
    assert result.exit_code == ExitCode.DONE
    lines = [line.split("  ") for line in result.stdout.splitlines()]
    words = [[part.strip() for part in line if part.strip()] for line in lines]
    assert ["Client", "ann"] in words
    assert ["An order", "up to 3,000 sat"] in words
    assert ["Open", "1 of 2 orders"] in words
    renews = f"from {render.date_time(NOW_MS + 3_600_000)} on"
    assert ["day", "6,003.012 sat", "2,060 sat", "10,000 sat", "80 %", renews] in words
    assert ["fees, day", "0 sat", "0 sat", "0 sat", "100 %", "-"] in words
    assert ["Client", "bob"] in words
    assert ["Open", "3 orders"] in words
    assert ["Account", "may be looked at and funded"] in words
    (warning,) = (line for line in words if line[:1] == ["WARNING"])
    assert "8,064 of 10,000 sat" in warning[1]
    (request,) = daemon.received
    assert (request.client, request.orders) == ("", False)


def test_it_shows_one_client_and_the_orders_behind_its_sums(daemon: FakeDaemon, terminal: Terminal) -> None:
    found = pb.Budget()
    found.CopyFrom(ANN)
    found.orders.extend(ORDERS)
    found.more_orders = True
    daemon.answers["GetBudget"] = pb.GetBudgetResponse(budgets=[found])
    result = terminal.run("budget", "--client", "ann", "--orders")
    (request,) = daemon.received
    assert (request.client, request.orders) == ("ann", True)
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[-1] for row in rows if row and row[0] == "ord-2"] == ["-"]
    assert [row[-2:] for row in rows if row and row[0] == ORDER_ID] == [["2,060", "sat"]]
    assert "only the latest are shown" in result.stdout


def test_it_is_json_for_programs(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["GetBudget"] = pb.GetBudgetResponse(budgets=[ANN])
    found = json.loads(terminal.run("budget", "--json").stdout)
    assert found["budgets"][0]["lines"][0]["limit_sat"] == 10_000
    assert found["budgets"][0]["max_orders_per_minute"] is None


def test_without_clients_it_says_so(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["GetBudget"] = pb.GetBudgetResponse()
    result = terminal.run("budget")
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, "")
    assert "No clients" in result.stderr


def test_what_a_client_may_not_is_refused_input(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["GetAccount"] = Refuse(
        grpc.StatusCode.PERMISSION_DENIED, "Not for ann.", reason="NOT_ALLOWED", metadata={"client": "ann"}
    )
    result = terminal.run("account", "balance")
    assert (result.exit_code, result.stderr) == (ExitCode.REFUSED_INPUT, "Error: Not for ann.\n")


@pytest.mark.parametrize("clients", [("", ""), ("ann", "")])
def test_a_list_names_clients_where_there_are_any(
    daemon: FakeDaemon, terminal: Terminal, clients: tuple[str, str]
) -> None:
    daemon.requests = [a_request(id=f"ord-{number}", client=client) for number, client in enumerate(clients)]
    result = terminal.run("orders", "list", "--client", "ann")
    head, *rows = result.stdout.splitlines()
    assert ("CLIENT" in head) == any(clients)
    assert [row.split()[3] for row in rows] == (["ann", "-"] if any(clients) else ["code", "code"])
    assert daemon.received[0].client == "ann"


def test_the_status_of_a_client_shows_its_budget_and_nothing_of_the_node(
    daemon: FakeDaemon, terminal: Terminal
) -> None:
    daemon.answers["GetStatus"] = pb.GetStatusResponse(
        version="0.1.0",
        started_at_ms=NOW_MS - 65_000,
        lnd=pb.LndStatus(state="ready", network="regtest"),
        ready=True,
        open_orders=1,
        alarms=[f"order {ORDER_ID}: late", *ANN.warnings],
        client="ann",
        budget=ANN,
    )
    result = terminal.run("status")
    assert result.exit_code == ExitCode.DONE
    names = [line.split("  ")[0] for line in result.stdout.splitlines()]
    assert names == [
        *("Orders", "ALARM", "Client", "Windows", "An order", "Open", "This minute", "WARNING", "Day", "Fees, day"),
        *("lnd", "holdpayd"),
    ]
    assert "6,003.012 spent + 2,060 reserved = 8,063.012 of 10,000 sat" in result.stdout
