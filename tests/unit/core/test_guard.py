"""What an operator should look at: the levels, each at its bound, and what is said of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdpay.core import events as ev
from holdpay.core.charge import ChargeState
from holdpay.core.guard import HtlcSight, Sight, alarms, findings, hours, level_of, where, worst
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.core.states import HoldLevel, HtlcState, OrderState
from tests.unit.build import ALICE, NOW_MS, POLICY, SMS, S, order, pair, payment, prepaid, quarantined, request

OK, LATE, WARNING, CRITICAL = HoldLevel
EXPIRY = 800_163
BOB = "02" + "b0" * 32
HELD = pair(OrderState.PAID, HtlcState.IN_FLIGHT)


def htlc(**changes: Any) -> HtlcSight:
    """On a channel to bob, who is there."""
    plain = HtlcSight(
        channel="812000x1x1",
        peer_pubkey=BOB,
        peer_alias="bob",
        expiry_height=EXPIRY,
        is_on_channel=True,
        is_online=True,
    )
    return replace(plain, **changes)


def sight(blocks_left: int = 163, *htlcs: HtlcSight, **changes: Any) -> Sight:
    return Sight(block_height=EXPIRY - blocks_left, htlcs=htlcs or (htlc(),), **changes)


def level(of: Order, seen: Sight, after_s: float = 0) -> HoldLevel:
    return level_of(findings(of, POLICY, NOW_MS + int(after_s * S), seen))


# --- blocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks_left", "wanted"),
    [
        (163, OK),
        (POLICY.guard_warning_blocks, OK),
        (POLICY.guard_warning_blocks - 1, WARNING),
        (POLICY.guard_critical_blocks, WARNING),
        (POLICY.guard_critical_blocks - 1, CRITICAL),
        (1, CRITICAL),
        (0, CRITICAL),
        (-1, CRITICAL),
    ],
)
def test_the_level_rises_with_each_bound_of_blocks(blocks_left: int, wanted: HoldLevel) -> None:
    assert level(HELD, sight(blocks_left)) is wanted


@pytest.mark.parametrize("found", [Sight(), Sight(block_height=0, htlcs=(htlc(),))])
def test_nothing_is_said_of_blocks_before_lnd_has_named_a_height(found: Sight) -> None:
    assert level(HELD, found) is OK


def test_nothing_is_said_of_blocks_before_an_attempt_is_known() -> None:
    unknown = pair(OrderState.AWAITING_PAYMENT, HtlcState.DISPATCHING)
    assert level(unknown, Sight(block_height=EXPIRY)) is OK


def test_the_attempts_own_height_counts_until_the_channel_was_looked_at() -> None:
    assert level(HELD, Sight(block_height=EXPIRY - 1)) is CRITICAL


def test_of_several_htlcs_the_one_that_expires_first_counts() -> None:
    late = htlc(channel="812000x2x1", expiry_height=EXPIRY + 100)
    assert level(HELD, sight(POLICY.guard_critical_blocks - 1, late, htlc())) is CRITICAL
    (text,) = alarms(HELD, POLICY, NOW_MS, sight(5, late, htlc()))
    assert "channel 812000x1x1" in text


def test_critical_says_which_channel_when_and_what_to_do_until_then() -> None:
    (text,) = alarms(HELD, POLICY, NOW_MS, sight(9))
    assert text == (
        f"order {HELD.id}: lnd closes channel 812000x1x1 with bob (02b0b0b0b0b0b0b0…) by force at block 800,163, in 9"
        " blocks or about 90 min, if its HTLC is still out then. Until then: ask for the money back with `holdpay"
        f" orders cancel {HELD.id}`, and write to the provider's support"
    )


@pytest.mark.parametrize(
    ("of", "seen", "todo"),
    [
        (HELD, sight(5, htlc(is_online=False)), f"`lncli connect {BOB}@HOST`"),
        (HELD, sight(5, is_estimate=True), "start or unlock lnd"),
        (
            replace(HELD, cancel_wanted_at_ms=NOW_MS),
            sight(5),
            "write to the provider's support: its node has to settle",
        ),
        (pair(OrderState.CANCELED, HtlcState.IN_FLIGHT), sight(5), "its node has to settle the HTLC or to fail it"),
        (pair(OrderState.DELIVERED, HtlcState.IN_FLIGHT), sight(5), "its node has to settle the HTLC or to fail it"),
        (HELD, sight(0), "Keep lnd running until then"),
    ],
)
def test_what_to_do_fits_what_is_in_the_way(of: Order, seen: Sight, todo: str) -> None:
    assert todo in alarms(of, POLICY, NOW_MS, seen)[0]


def test_a_height_that_is_counted_by_the_clock_says_so() -> None:
    assert "(by the clock: lnd does not answer)" in alarms(HELD, POLICY, NOW_MS, sight(20, is_estimate=True))[0]


def test_ten_minutes_a_block() -> None:
    assert hours(9) == 1.5


# --- peers ----------------------------------------------------------------------------------------------------------


def test_a_peer_that_is_offline_is_a_warning_once_its_time_has_passed() -> None:
    away = sight(163, htlc(is_online=False, offline_since_ms=NOW_MS))
    assert level(HELD, away, POLICY.guard_peer_offline_s) is OK
    assert level(HELD, away, POLICY.guard_peer_offline_s + 0.001) is WARNING
    (text,) = alarms(HELD, POLICY, NOW_MS + 720 * S, away)
    assert "the peer of channel 812000x1x1, bob (02b0b0b0b0b0b0b0…), is offline for 12 min" in text


def test_an_htlc_that_no_open_channel_carries_is_a_warning_once_that_lasts() -> None:
    missing = Sight(block_height=800_000, missing_since_ms=NOW_MS)
    assert level(HELD, missing, POLICY.guard_peer_offline_s) is OK
    assert level(HELD, missing, POLICY.guard_peer_offline_s + 0.001) is WARNING


# --- time -----------------------------------------------------------------------------------------------------------


def test_a_hold_is_late_once_the_promise_and_the_time_for_a_refund_have_passed() -> None:
    bound_s = POLICY.promise_s + POLICY.guard_refund_s
    assert level(HELD, sight(), bound_s) is OK
    assert level(HELD, sight(), bound_s + 0.001) is LATE


PROMISED_S = POLICY.promise_s + POLICY.guard_refund_s
OWN_MEASURE = f"{POLICY.promise_s // 60} min have passed since it was paid (our own measure)"
LATE_FINDINGS: dict[str, tuple[Order, float, HoldLevel, str]] = {
    "charged_in_vain": (
        pair(OrderState.PAID, HtlcState.SETTLED),
        POLICY.guard_refund_s,
        LATE,
        "charged, and the code did not come; the preimage is the proof for the provider's support",
    ),
    "charge_unknown": (
        prepaid(OrderState.REQUESTED, ChargeState.UNKNOWN),
        POLICY.guard_refund_s,
        WARNING,
        f"nobody can say whether the account was charged; see `holdpayd resolve {order().id}`",
    ),
    "promise_passed": (HELD, PROMISED_S, LATE, "the provider's promise has passed and the money is still out"),
    "promise_passed of what is charged": (
        prepaid(OrderState.PAID, ChargeState.CHARGED),
        PROMISED_S,
        LATE,
        "the provider's promise has passed and the code did not come",
    ),
    "promise_passed where none was given": (
        replace(HELD, request=request(spec=SMS)),
        PROMISED_S,
        LATE,
        f"{OWN_MEASURE} and the money is still out",
    ),
    "promise_passed although it came": (
        pair(OrderState.DELIVERED, HtlcState.IN_FLIGHT),
        PROMISED_S,
        LATE,
        "code received and the money is still out",
    ),
    "in_transit": (
        pair(OrderState.AWAITING_PAYMENT, HtlcState.IN_FLIGHT),
        POLICY.guard_in_transit_s,
        LATE,
        "the payment is in flight and the provider still does not call it paid",
    ),
    "refund": (
        pair(OrderState.CANCELED, HtlcState.IN_FLIGHT),
        POLICY.guard_refund_s,
        LATE,
        "canceled, and the money is still not back",
    ),
    "unknown": (
        pair(OrderState.AWAITING_PAYMENT, HtlcState.UNKNOWN),
        POLICY.guard_refund_s,
        LATE,
        "lnd still does not say what became of its payment",
    ),
}


@pytest.mark.parametrize("name", LATE_FINDINGS)
def test_what_is_late_is_told_from_right_after_its_bound_on(name: str) -> None:
    of, bound_s, how_bad, words = LATE_FINDINGS[name]
    key = name.split()[0]
    bound_ms = NOW_MS + int(bound_s * S)
    assert key not in {found.key for found in findings(of, POLICY, bound_ms)}
    (found,) = [found for found in findings(of, POLICY, bound_ms + 1) if found.key == key]
    assert (found.level, found.text) == (how_bad, f"order {of.id}: {words}")


@pytest.mark.parametrize("charged", [ChargeState.CHARGED, ChargeState.RETURNED])
def test_of_a_charge_that_is_known_and_of_what_was_delivered_nobody_says_that_it_is_not_known(
    charged: ChargeState,
) -> None:
    assert findings(prepaid(OrderState.DELIVERED, charged), POLICY, NOW_MS + 10 * PROMISED_S * S) == ()


def test_a_record_that_lnd_lost_is_told_at_once() -> None:
    (found,) = findings(pair(OrderState.PAID, HtlcState.IN_FLIGHT, gone_since_ms=NOW_MS), POLICY, NOW_MS)
    assert (found.key, found.level) == ("gone", LATE)
    assert found.text.endswith("lnd has no record of its payment any more")


@pytest.mark.parametrize(
    ("blocks_left", "key"), [(0, "expired"), (1, "expires_soon"), (POLICY.guard_warning_blocks - 1, "expires")]
)
def test_each_level_of_the_blocks_has_a_key_of_its_own_so_that_each_is_told(blocks_left: int, key: str) -> None:
    (found,) = findings(HELD, POLICY, NOW_MS, sight(blocks_left))
    assert found.key == key


def test_peers_that_are_away_and_an_htlc_on_no_channel_are_told_by_keys_of_their_own() -> None:
    away = [htlc(channel=f"812000x{n}x1", is_online=False, offline_since_ms=NOW_MS) for n in (1, 2)]
    seen = sight(163, *away, missing_since_ms=NOW_MS)
    found = findings(HELD, POLICY, NOW_MS + (POLICY.guard_peer_offline_s + 1) * S, seen)
    assert [each.key for each in found] == ["peer_offline 812000x1x1", "peer_offline 812000x2x1", "on_no_channel"]


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (quarantined(HELD), "quarantined, since holdpayd contradicted itself: It broke a law"),
        (replace(quarantined(order()), restored_at_ms=NOW_MS), "quarantined, since It broke a law"),
    ],
)
def test_a_quarantine_says_why_and_whether_it_is_our_own_fault(of: Order, words: str) -> None:
    (found,) = findings(of, POLICY, NOW_MS, sight())
    assert (found.key, found.text) == ("quarantined", f"order {of.id}: {words}")


def test_the_worst_counts_and_is_told_first() -> None:
    found = findings(HELD, POLICY, NOW_MS + 3600 * S, sight(5))
    assert [finding.level for finding in found] == [CRITICAL, LATE]
    assert worst(HELD, found)[0] is CRITICAL
    assert worst(HELD, found)[1].startswith("lnd closes channel")
    assert worst(HELD, ()) == (OK, "")


def test_an_order_in_quarantine_is_a_warning() -> None:
    assert level(quarantined(HELD), sight()) is WARNING


@pytest.mark.parametrize(
    "of",
    [
        order(),
        pair(OrderState.AWAITING_PAYMENT, HtlcState.NONE),
        pair(OrderState.AWAITING_PAYMENT, HtlcState.FAILED),
        replace(HELD, closed_at_ms=NOW_MS),
        pair(OrderState.DELIVERED, HtlcState.SETTLED),
    ],
)
def test_nothing_is_said_of_channels_where_no_money_is_out(of: Order) -> None:
    away = sight(-5, htlc(is_online=False, offline_since_ms=NOW_MS - 3600 * S), missing_since_ms=1)
    assert findings(of, POLICY, NOW_MS, away) == ()


# --- the journal ----------------------------------------------------------------------------------------------------


def test_a_change_of_level_is_kept_with_its_reason() -> None:
    step = decide(HELD, ev.HoldLevelChanged(WARNING, "its peer is offline"), POLICY, NOW_MS)
    assert step.is_change
    assert step.order.payment is not None
    assert (step.order.payment.hold_level, step.order.payment.hold_why) == (WARNING, "its peer is offline")


def test_the_same_level_again_is_no_change_whatever_its_words() -> None:
    before = pair(OrderState.PAID, HtlcState.IN_FLIGHT, hold_level=WARNING, hold_why="in 20 blocks")
    assert not decide(before, ev.HoldLevelChanged(WARNING, "in 19 blocks"), POLICY, NOW_MS).is_change


def test_money_that_is_back_has_no_level() -> None:
    back = pair(OrderState.AWAITING_PAYMENT, HtlcState.FAILED)
    assert not decide(back, ev.HoldLevelChanged(WARNING, "late"), POLICY, NOW_MS).is_change


def test_the_next_payment_begins_without_a_level() -> None:
    failed = payment(HtlcState.FAILED, hold_level=CRITICAL, hold_why="late", unpaid_since_ms=NOW_MS)
    before = replace(pair(OrderState.AWAITING_PAYMENT, HtlcState.FAILED), payment=failed)
    after = decide(before, ev.DispatchIntended(ALICE), POLICY, NOW_MS).order.payment
    assert after is not None
    assert (after.hold_level, after.hold_why) == (OK, "")


# --- where ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (
            htlc(),
            "channel 812000x1x1; its peer, bob (02b0b0b0b0b0b0b0…), is online. It expires at block 800,163.",
        ),
        (htlc(is_online=False), "its peer, bob (02b0b0b0b0b0b0b0…), is offline."),
        (htlc(is_on_channel=False, is_online=None), "and no open channel carries it now."),
        (htlc(is_on_channel=None, is_online=None, peer_alias=""), "left by channel 812000x1x1 to 02b0b0b0b0b0b0b0…."),
    ],
)
def test_where_an_htlc_is_reads_as_a_sentence(seen: HtlcSight, told: str) -> None:
    assert told in where(sight(163, seen))
    assert where(Sight()) == ""
