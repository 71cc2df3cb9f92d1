"""`holdpay countries`, `services`, `rentals`, `prices` and `status`."""

from __future__ import annotations

import json
import re
from typing import Any

import grpc
import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli import render
from holdpay.cli.exit_codes import ExitCode
from holdpay.cli.status import WATCH_EVERY_S
from tests.unit.cli.conftest import Terminal
from tests.unit.cli.fake_daemon import NOW_MS, FakeDaemon, Refuse, interrupt

COUNTRIES = pb.ListCountriesResponse(
    countries=[
        pb.Country(code=0, name="Russia", aliases=["Russian"], rentals=False, shown=False),
        pb.Country(
            code=187, name="USA", aliases=["United States", "United States of America"], rentals=True, shown=True
        ),
        pb.Country(code=999, name="Auto-Select"),
    ],
    asked_at_ms=NOW_MS - 65_000,
)
SERVICES = pb.ListServicesResponse(
    country=COUNTRIES.countries[1],
    services=[pb.Service(code="oi", name="OpenAI", stock=1234), pb.Service(code="tg", name="Telegram")],
)
PRICES = pb.GetPricesResponse(
    receive_sat=3000,
    exact_sat=2500,
    asked_at_ms=NOW_MS,
    country=COUNTRIES.countries[1],
    service=SERVICES.services[0],
)
RENTALS = pb.ListRentalsResponse(
    service=pb.Service(code="full", name="any service"),
    rentals=[
        pb.RentalOffer(country_code=0, country="Russia", weeks=2, price_sat=1368),
        pb.RentalOffer(country="Somewhere"),
    ],
)
STATUS = pb.GetStatusResponse(
    version="0.1.0",
    started_at_ms=NOW_MS - 65_000,
    lnd=pb.LndStatus(
        state="ready",
        version="0.21.0-beta",
        identity_pubkey="02" + "ab" * 32,
        alias="alice",
        network="regtest",
        block_height=871_000,
        synced_to_chain=True,
        address="127.0.0.1:10009",
        local_balance_sat=1_000_000,
    ),
    provider=pb.ProviderStatus(
        url="https://api2.sms4sats.com",
        answered_at_ms=NOW_MS - 3000,
        requests=12,
        requests_per_s=20,
        due_questions=3,
        question_delay_s=0.15,
    ),
    money=pb.Money(
        pending_msat=3_091_000,
        max_pending_sat=50_000,
        spent_day_msat=6_000_000,
        max_spend_per_day_sat=100_000,
        max_open_orders=8,
        locked_msat=3_003_512,
    ),
    ready=True,
    open_orders=1,
    state_dir="/var/lib/holdpay",
)


@pytest.fixture(autouse=True)
def answers(daemon: FakeDaemon) -> None:
    daemon.answers |= {
        "ListCountries": COUNTRIES,
        "ListServices": SERVICES,
        "ListRentals": RENTALS,
        "GetPrices": PRICES,
        "GetStatus": STATUS,
    }


@pytest.mark.parametrize("filter_", ["states", "USA", "187"])
def test_a_country_is_found_by_name_alias_and_number(terminal: Terminal, filter_: str) -> None:
    _heading, row = terminal.run("countries", filter_).stdout.splitlines()
    assert row.split()[:2] == ["187", "USA"]


def test_country_zero_is_a_country(terminal: Terminal) -> None:
    assert json.loads(terminal.run("countries", "--json").stdout)["countries"][0]["code"] == 0


def test_a_filter_that_matches_nothing_says_so(terminal: Terminal) -> None:
    result = terminal.run("countries", "atlantis")
    assert (result.stdout, result.stderr) == ("", "No country with 'atlantis' in it.\n")


def test_countries_say_where_numbers_are_rented_and_what_the_provider_does_not_list(terminal: Terminal) -> None:
    rows = terminal.run("countries").stdout.splitlines()[1:]
    assert re.fullmatch(r"0 +Russia \(not listed by sms4sats now\) +no +Russian", rows[0])
    assert [row.split()[:3] for row in rows[1:]] == [["187", "USA", "yes"], ["999", "Auto-Select", "?"]]


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ({"asked_at_ms": NOW_MS - 65_000}, "As sms4sats said 1m05s ago."),
        ({"asked_at_ms": NOW_MS - 65_000, "stale": True}, "As sms4sats said 1m05s ago; it does not answer now."),
        ({"stale": True}, "sms4sats did not tell its countries yet: these come with holdpay."),
    ],
)
def test_countries_say_where_the_list_comes_from_and_how_old_it_is(
    daemon: FakeDaemon, terminal: Terminal, origin: dict[str, Any], words: str
) -> None:
    daemon.answers["ListCountries"] = pb.ListCountriesResponse(countries=COUNTRIES.countries, **origin)
    assert terminal.run("countries").stderr.startswith(words)
    told = json.loads(terminal.run("countries", "usa", "--json").stdout)
    assert (told["asked_at_ms"], told["stale"]) == (origin.get("asked_at_ms"), origin.get("stale", False))
    assert [country["rentals"] for country in told["countries"]] == [True]


def test_rentals_show_weeks_and_price_or_that_they_are_unknown(daemon: FakeDaemon, terminal: Terminal) -> None:
    rows = [line.split() for line in terminal.run("rentals").stdout.splitlines()]
    assert rows[1:] == [["0", "Russia", "2", "1,368", "sat"], ["?", "Somewhere", "?", "?"]]
    terminal.run("rentals", "russia", "--service", "openai")
    assert [(asked.country, asked.service) for asked in daemon.received_of(pb.ListRentalsRequest)] == [
        ("", ""),
        ("russia", "openai"),
    ]


def test_rentals_json_keeps_country_zero_apart_from_none(terminal: Terminal) -> None:
    told = json.loads(terminal.run("rentals", "--json").stdout)
    assert [rental["country_code"] for rental in told["rentals"]] == [0, None]


def test_where_nothing_is_rented_the_words_say_so(daemon: FakeDaemon, terminal: Terminal) -> None:
    service = pb.Service(code="oi", name="OpenAI")
    daemon.answers["ListRentals"] = pb.ListRentalsResponse(country=COUNTRIES.countries[0], service=service)
    result = terminal.run("rentals", "russia", "--service", "oi")
    assert (result.exit_code, result.stdout) == (ExitCode.DONE, "")
    assert result.stderr == "No number is rented in Russia for OpenAI now.\n"


def test_services_name_the_rentals_of_a_country_that_has_some(daemon: FakeDaemon, terminal: Terminal) -> None:
    assert terminal.run("services", "usa").stderr == "Numbers of USA are rented, too: holdpay rentals 187\n"
    assert terminal.run("services", "usa", "--json").stderr == ""
    daemon.answers["ListServices"] = pb.ListServicesResponse(country=COUNTRIES.countries[0], services=SERVICES.services)
    assert terminal.run("services", "russia").stderr == ""


def test_prices_name_what_was_understood_and_whether_numbers_are_rented(terminal: Terminal) -> None:
    lines = terminal.run("prices", "us", "openai").stdout.splitlines()
    assert lines[0].startswith("A code, OpenAI in USA  ")
    assert any(line.split() == ["Rentals", "in", "USA", "yes"] for line in lines)


def test_services_show_their_stock_or_that_it_is_unknown(terminal: Terminal) -> None:
    rows = [line.split() for line in terminal.run("services", "usa").stdout.splitlines()]
    assert rows[1:] == [["oi", "1,234", "OpenAI"], ["tg", "?", "Telegram"]]


def test_services_json_keeps_an_unknown_stock_apart_from_none(terminal: Terminal) -> None:
    found = json.loads(terminal.run("services", "usa", "tele", "--json").stdout)
    assert found["services"] == [{"code": "tg", "name": "Telegram", "stock": None}]


def test_a_typo_in_a_country_shows_the_daemons_words(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["ListServices"] = Refuse(grpc.StatusCode.INVALID_ARGUMENT, "Did you mean usa?")
    result = terminal.run("services", "uda")
    assert (result.exit_code, result.stderr) == (ExitCode.REFUSED_INPUT, "Error: Did you mean usa?\n")


def test_a_silent_provider_is_not_a_missing_daemon(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["ListServices"] = Refuse(grpc.StatusCode.UNAVAILABLE, "The provider does not answer.")
    assert terminal.run("services", "usa").exit_code == ExitCode.REFUSED_NOW


def test_prices_show_the_exact_one_first(terminal: Terminal) -> None:
    first, second, *_ = terminal.run("prices", "usa", "openai").stdout.splitlines()
    assert first.endswith("2,500 sat")
    assert second.endswith("3,000 sat")


def test_prices_need_both_or_neither(terminal: Terminal) -> None:
    assert terminal.run("prices", "usa").exit_code == ExitCode.REFUSED_INPUT
    assert "exact" not in terminal.run("prices").stdout


def test_a_ready_daemon_exits_0_and_shows_its_money(terminal: Terminal) -> None:
    result = terminal.run("status")
    assert result.exit_code == ExitCode.DONE
    for expected in (
        "ready at 127.0.0.1:10009",
        "block 871,000, synced",
        "3,091 of 50,000 sat",
        "3,003.512 sat",
        "1m05s",
    ):
        assert expected in result.stdout


def test_open_counts_what_the_limit_counts_and_names_paid_orders_beside_it(
    daemon: FakeDaemon, terminal: Terminal
) -> None:
    assert "beside them" not in terminal.run("status").stdout
    waiting = pb.GetStatusResponse()
    waiting.CopyFrom(STATUS)
    waiting.money.settled_orders = 2
    daemon.answers["GetStatus"] = waiting
    shown = terminal.run("status").stdout
    assert "1 of 8 orders\n" in shown
    assert "beside them 2 paid and not delivered yet\n" in shown


def test_an_order_that_is_followed_or_perhaps_charged_or_returned_is_not_called_paid_and_not_delivered(
    daemon: FakeDaemon, terminal: Terminal
) -> None:
    waiting = pb.GetStatusResponse()
    waiting.CopyFrom(STATUS)
    waiting.money.MergeFrom(pb.Money(settled_orders=6, followed_orders=3, perhaps_charged_orders=2, returning_orders=1))
    daemon.answers["GetStatus"] = waiting
    shown = terminal.run("status").stdout
    assert "not delivered yet" not in shown
    for words in ("3 delivered and still followed", "2 perhaps charged", "1 over, with the price on its way back"):
        assert words in shown


def test_a_daemon_that_takes_no_orders_exits_8_and_says_why(daemon: FakeDaemon, terminal: Terminal) -> None:
    lnd = pb.LndStatus(state="locked", detail="lnd is locked. Unlock it: lncli unlock.", address="127.0.0.1:10009")
    daemon.answers["GetStatus"] = pb.GetStatusResponse(
        lnd=lnd, not_ready_reason="lnd is locked.", alarms=["Order 1 is stuck."]
    )
    result = terminal.run("status")
    assert result.exit_code == ExitCode.REFUSED_NOW
    assert "not taken now: lnd is locked." in result.stdout
    assert "lncli unlock" in result.stdout
    assert "Order 1 is stuck." in result.stdout


def test_the_line_of_the_last_day_adds_up(terminal: Terminal) -> None:
    assert "6,000 spent + 3,091 pending = 9,091 of 100,000 sat" in terminal.run("status").stdout


@pytest.mark.parametrize(
    ("blocks_left", "words"), [(120, "120 blocks or about 20 h from now"), (0, "which has passed"), (None, "871,120\n")]
)
def test_status_names_each_order_with_money_out(
    daemon: FakeDaemon, terminal: Terminal, blocks_left: int | None, words: str
) -> None:
    out = pb.MoneyOut(
        request_id="ord-1",
        locked_msat=3_003_512,
        since_ms=NOW_MS - 65_000,
        promise_until_ms=NOW_MS - 1,
        expiry_height=871_120,
        blocks_left=blocks_left,
        hours_left=None if blocks_left is None else blocks_left / 6,
        phase="held, waiting for the SMS",
        next="Have the SMS sent.",
    )
    reply = pb.GetStatusResponse(out=[out], more_out=3)
    reply.MergeFrom(STATUS)
    daemon.answers["GetStatus"] = reply
    stdout = terminal.run("status").stdout
    for expected in (
        "ord-1: 3,003.512 sat",
        "(1m05s)",
        "(passed)",
        "block 871,120",
        words,
        "Have the SMS sent.",
        "3 more",
    ):
        assert expected in stdout


def test_status_names_channel_and_peer_of_each_htlc_and_the_level_of_its_alarms(
    daemon: FakeDaemon, terminal: Terminal
) -> None:
    htlcs = [
        pb.HtlcOut(channel="1x1x1", peer_pubkey="02b0", peer_alias="bob", peer_online=True, on_channel=True),
        pb.HtlcOut(
            channel="1x2x1",
            peer_pubkey="02da",
            peer_online=False,
            on_channel=True,
            peer_offline_since_ms=NOW_MS - 65_000,
        ),
        pb.HtlcOut(channel="1x3x1", peer_pubkey="02ee", on_channel=False),
        pb.HtlcOut(channel="1x4x1"),
    ]
    out = pb.MoneyOut(
        request_id="ord-1",
        since_ms=NOW_MS,
        phase="held",
        next="Wait.",
        htlcs=htlcs,
        alarms=["order ord-1: its peer is offline"],
        level=pb.HOLD_LEVEL_WARNING,
    )
    reply = pb.GetStatusResponse(out=[out], alarms=["order ord-1: its peer is offline"])
    reply.MergeFrom(STATUS)
    daemon.answers["GetStatus"] = reply
    stdout = terminal.run("status").stdout
    for expected in (
        "by channel 1x1x1 (the HTLC is on it) to bob 02b0 (online)",
        "by channel 1x2x1 (the HTLC is on it) to 02da (offline for 1m05s)",
        "by channel 1x3x1 (the HTLC is not on it) to 02ee (not known to be online)",
        "by channel 1x4x1 (not looked at yet) to a peer that is not known (not known to be online)",
    ):
        assert expected in stdout
    assert ["WARNING", "its", "peer", "is", "offline"] in [line.split() for line in stdout.splitlines()]


def test_status_names_the_queue_and_how_full_the_holds_are(daemon: FakeDaemon, terminal: Terminal) -> None:
    queue = [pb.WaitingOrder(request_id="ord-2", since_ms=NOW_MS - 65_000, until_ms=NOW_MS + 600_000)]
    holds = pb.Holds(orders=6, max_orders=6, locked_msat=12_360_000, max_locked_sat=40_000, waiting=3, queue=queue)
    reply = pb.GetStatusResponse(holds=holds)
    reply.MergeFrom(STATUS)
    daemon.answers["GetStatus"] = reply
    stdout = terminal.run("status").stdout
    for expected in (
        "6 of 6; 12,360 of 40,000 sat, with their largest fees",
        "ord-2: for a place among the holds, for 1m05s; until",
        "2 more orders wait behind them",
    ):
        assert expected in stdout


def test_status_says_nothing_of_holds_without_a_cap(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.answers["GetStatus"] = STATUS
    stdout = terminal.run("status").stdout
    assert "Holds" not in stdout
    assert "Waiting" not in stdout


def test_the_alarms_of_a_request_with_money_out_stand_beside_it_and_nowhere_else(
    daemon: FakeDaemon, terminal: Terminal
) -> None:
    late, other = "order ord-1: canceled, and the money is still not back", "order ord-2: charged without a code"
    out = pb.MoneyOut(request_id="ord-1", since_ms=NOW_MS, phase="canceled", next="Wait.", alarms=[late])
    reply = pb.GetStatusResponse(out=[out], alarms=[late, other])
    reply.MergeFrom(STATUS)
    daemon.answers["GetStatus"] = reply
    lines = [line.split(maxsplit=1) for line in terminal.run("status").stdout.splitlines()]
    alarms = [index for index, words in enumerate(lines) if words[0] == "ALARM"]
    assert [lines[index][1] for index in alarms] == [other, "canceled, and the money is still not back"]
    assert lines[alarms[1] - 1][0:1] == ["Money"]


def test_the_sum_of_the_last_day_is_that_of_the_msat(daemon: FakeDaemon, terminal: Terminal) -> None:
    reply = pb.GetStatusResponse()
    reply.CopyFrom(STATUS)
    reply.money.spent_day_msat, reply.money.pending_msat = 6_000_400, 3_090_500
    daemon.answers["GetStatus"] = reply
    assert "6,000.4 spent + 3,090.5 pending = 9,090.9 of 100,000 sat" in terminal.run("status").stdout


@pytest.mark.parametrize("reason", ["{}", "An order would wait: {} Then ask again."])
def test_lnds_sentence_is_said_once(daemon: FakeDaemon, terminal: Terminal, reason: str) -> None:
    detail = "lnd is locked. Unlock it: lncli unlock."
    lnd = pb.LndStatus(state="locked", detail=detail, address="127.0.0.1:10009")
    daemon.answers["GetStatus"] = pb.GetStatusResponse(lnd=lnd, not_ready_reason=reason.format(detail))
    assert terminal.run("status").stdout.count(detail) == 1


def test_what_lnd_said_before_it_went_away_is_told_with_its_age(daemon: FakeDaemon, terminal: Terminal) -> None:
    reply = pb.GetStatusResponse()
    reply.CopyFrom(STATUS)
    reply.lnd.answered_at_ms = NOW_MS - 300_000
    daemon.answers["GetStatus"] = reply
    assert "synced to chain\n" in terminal.run("status").stdout
    reply.lnd.state = "unreachable"
    assert "block 871,000, synced to chain, as of 5m00s ago\n" in terminal.run("status").stdout


def test_status_json_has_the_names_of_the_interface(terminal: Terminal) -> None:
    found = json.loads(terminal.run("status", "--json").stdout)
    assert set(found) == set(pb.GetStatusResponse.DESCRIPTOR.fields_by_name)
    assert found["lnd"]["local_balance_sat"] == 1_000_000


def test_status_watch_shows_it_again_and_again_until_an_interrupt(daemon: FakeDaemon, terminal: Terminal) -> None:
    terminal.clock.on_sleep = [lambda: None, interrupt]
    result = terminal.run("status", "--watch", "30")
    assert result.exit_code == ExitCode.INTERRUPTED
    assert terminal.clock.elapsed_s == 60
    first, second = result.stdout.split("\n\n")
    times = [text.splitlines()[0] for text in (first, second)]
    assert times == [render.date_time(NOW_MS), render.date_time(NOW_MS + 30_000)]
    assert all("Pending" in text for text in (first, second))
    assert "\x1b" not in result.output


def test_status_watch_has_a_pace_of_its_own(terminal: Terminal) -> None:
    terminal.clock.on_sleep = [interrupt]
    terminal.run("status", "--watch")
    assert terminal.clock.elapsed_s == WATCH_EVERY_S


def test_status_watch_as_json_is_an_object_a_line(terminal: Terminal) -> None:
    terminal.clock.on_sleep = [lambda: None, interrupt]
    result = terminal.run("status", "--watch", "1", "--json")
    assert [json.loads(line)["version"] for line in result.stdout.splitlines()] == ["0.1.0", "0.1.0"]


def test_status_watch_waits_for_a_daemon_that_restarts_and_says_so_once(daemon: FakeDaemon, terminal: Terminal) -> None:
    terminal.clock.on_sleep = [daemon.stop, lambda: None, daemon.start, interrupt]
    result = terminal.run("status", "--watch", "5")
    assert result.stdout.count("Pending") == 2
    assert result.stderr.count("Asking again every 5 s") == 1
    assert result.stderr.endswith("The daemon is back.\n")


def test_status_watch_without_a_daemon_ends_at_once(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.stop()
    assert terminal.run("status", "--watch").exit_code == ExitCode.UNREACHABLE
    daemon.start()


def test_status_watch_wants_whole_seconds(daemon: FakeDaemon, terminal: Terminal) -> None:
    assert terminal.run("status", "--watch", "0").exit_code == ExitCode.REFUSED_INPUT
    assert daemon.received == []
