"""What the doctor thinks of the provider, its account and the clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdpay.doctor.findings import Unseen, Verdict
from holdpay.doctor.judge_provider import FUTURE_BLOCK_MS, judge_account, judge_clock, judge_provider
from holdpay.doctor.seen import ProviderSeen
from tests.unit.doctor.test_judge_machine import FAILED, HANGS, NOW_MS, OK, WARNING, told

SEEN = ProviderSeen(url="https://api2.sms4sats.com", proxy="", took_ms=400, ahead_ms=0)


def test_a_provider_is_told_with_its_way_and_the_time_that_it_took() -> None:
    told(judge_provider(SEEN), OK, "https://api2.sms4sats.com told its prices in 0.4 s.")
    by_tor = replace(SEEN, proxy="socks5h://127.0.0.1:9050", took_ms=3_000)
    told(judge_provider(by_tor), OK, "by the proxy socks5h://127.0.0.1:9050 in 3.0 s")
    told(judge_provider(replace(by_tor, took_ms=3_001)), WARNING, "slow")
    told(judge_provider(HANGS), FAILED, "It hangs.")


@pytest.mark.parametrize(
    ("balance_sat", "warn_below_sat", "verdict"),
    [(5_000, None, OK), (5_000, 5_000, OK), (4_999, 5_000, WARNING), (HANGS, None, FAILED)],
)
def test_an_account_is_held_against_its_alarm(
    balance_sat: int | Unseen, warn_below_sat: int | None, verdict: Verdict
) -> None:
    told(judge_account(balance_sat, warn_below_sat), verdict)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("off_ms", "verdict"), [(15_000, OK), (15_001, WARNING), (60_000, WARNING), (60_001, FAILED)])
def test_a_clock_is_held_against_the_providers(off_ms: int, verdict: Verdict, sign: int) -> None:
    seen = replace(SEEN, took_ms=0, ahead_ms=sign * off_ms)
    told(judge_clock(seen, NOW_MS, NOW_MS), verdict)


def test_the_time_that_the_answer_took_says_nothing_of_the_clock() -> None:
    slow = replace(SEEN, took_ms=20_000, ahead_ms=-30_000)
    told(judge_clock(slow, None, NOW_MS), OK)


def test_whether_it_is_ahead_or_behind_is_told() -> None:
    told(judge_clock(replace(SEEN, ahead_ms=3_600_000), None, NOW_MS), FAILED, "60 min behind", "timedatectl")
    told(judge_clock(replace(SEEN, ahead_ms=-90_000), None, NOW_MS), FAILED, "90 s ahead of")


def test_a_block_of_the_far_future_says_that_the_clock_is_behind() -> None:
    told(judge_clock(HANGS, NOW_MS + FUTURE_BLOCK_MS, NOW_MS), OK, "not behind lnd's latest block")
    told(judge_clock(SEEN, NOW_MS + FUTURE_BLOCK_MS + 1, NOW_MS), FAILED, "2 h in the future")


def test_without_anybody_to_compare_with_nothing_is_claimed() -> None:
    told(judge_clock(HANGS, None, NOW_MS), WARNING, "nobody to compare")
    told(judge_clock(replace(SEEN, ahead_ms=None), None, NOW_MS), WARNING, "nobody to compare")
