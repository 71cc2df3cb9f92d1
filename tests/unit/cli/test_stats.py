"""`holdpay stats`."""

from __future__ import annotations

import json

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli.exit_codes import ExitCode
from tests.unit.cli.conftest import Terminal
from tests.unit.cli.fake_daemon import FakeDaemon

USA = pb.StatsLine(
    name="USA",
    orders=4,
    came=3,
    median_number_s=15.4,
    median_code_s=41.0,
    spent_msat=6_003_006,
    fee_msat=3_006,
    locked_sat_hours=1_234.5,
)
NOWHERE = pb.StatsLine(orders=1, came=0)
REPLY = pb.GetStatsResponse(lines=[USA, NOWHERE])


def test_a_line_has_counts_share_medians_and_sums(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["GetStats"] = REPLY
    result = terminal.run("stats")
    assert result.exit_code == ExitCode.DONE
    headings, usa, nowhere = (line.split() for line in result.stdout.splitlines())
    assert headings == ["COUNTRY", "ORDERS", "CAME", "NUMBER", "CODE", "SPENT", "FEES", "SAT·H"]
    assert usa == ["USA", "4", "75%", "#" * 15, "15", "s", "41", "s", "6,003.006", "sat", "3.006", "sat", "1,234"]
    assert nowhere == ["-", "1", "0%", "-", "-", "0", "sat", "0", "sat", "0"]


def test_what_is_asked_for_is_said(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["GetStats"] = REPLY
    assert terminal.run("stats", "--by", "day", "--since", "2026-01-31").exit_code == ExitCode.DONE
    (asked,) = daemon.received_of(pb.GetStatsRequest)
    assert (asked.by, asked.since_ms % 1000) == (pb.STATS_BY_DAY, 0)
    assert terminal.run("stats", "--by", "moon").exit_code == ExitCode.REFUSED_INPUT


def test_csv_and_json_have_the_numbers_as_they_are(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["GetStats"] = REPLY
    head, usa, nowhere = terminal.run("stats", "--csv").stdout.splitlines()
    assert head == "name,orders,came,median_number_s,median_code_s,spent_msat,fee_msat,locked_sat_hours"
    assert usa == "USA,4,3,15.4,41.0,6003006,3006,1234.5"
    assert nowhere == ",1,0,,,0,0,0.0"
    assert json.loads(terminal.run("stats", "--json").stdout)["lines"][0]["name"] == "USA"
    assert terminal.run("stats", "--json", "--csv").exit_code == ExitCode.REFUSED_INPUT


def test_nothing_and_too_much_are_said(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["GetStats"] = pb.GetStatsResponse()
    assert "No order has ended" in terminal.run("stats").stderr
    daemon.answers["GetStats"] = pb.GetStatsResponse(lines=[USA], more=True)
    assert "Older orders were left out" in terminal.run("stats").stderr
