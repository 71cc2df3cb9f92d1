"""What every database, journal and client has seen already: these words and bounds stay, or a migration moves them."""

from __future__ import annotations

from enum import Enum

import pytest

from holdpay.core import hold, items, lightning, machine
from holdpay.core.budget import Period, Renewal
from holdpay.core.charge import ChargeState
from holdpay.core.diagnosis import Cause
from holdpay.core.events import PlacingFailed, ProviderReplied, ProviderStatus, Resolution, SendStatus
from holdpay.core.explain import explain
from holdpay.core.history import Moment, history_line
from holdpay.core.holds import WhenFull
from holdpay.core.items import ItemKind
from holdpay.core.kinds.spec import KindName
from holdpay.core.payees import PayeeCheck, Standing, Trust
from holdpay.core.policy import Strictness
from holdpay.core.states import End, FailureClass, HoldLevel, HtlcState, OrderState, Succession
from holdpay.core.stats import StatsBy
from holdpay.core.vetting import Verdict
from tests.unit.build import HASH, NOW_MS, POLICY, pair, prepaid


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (OrderState, "requested awaiting_payment paid number_assigned delivered canceled abandoned"),
        (HtlcState, "none dispatching unknown in_flight settled failed gone"),
        (
            End,
            (
                "fulfilled fulfilled_free refunded canceled_unpaid invoice_rejected provider_refused payment_failed"
                " no_place charged_unfulfilled outcome_unknown"
            ),
        ),
        (FailureClass, "routing no_attempt read_later payee_refused on_chain"),
        (ItemKind, "number code message sending end unread unread_maybe"),
        (ChargeState, "intended unknown charged refused returned"),
        (KindName, "code rental sms email fund unknown"),
        (SendStatus, "created sent delivered failed"),
        (Resolution, "failed settled written_off"),
        (lightning.AttemptStatus, "in_flight succeeded failed"),
        (lightning.PaymentStatus, "in_flight succeeded failed"),
        (
            lightning.FailureReason,
            (
                "none timeout no_route error incorrect_payment_details insufficient_balance canceled other never_sent"
                " by_operator"
            ),
        ),
        (Strictness, "pin warn off"),
        (PayeeCheck, "pin first-use warn off"),
        (Trust, "list first-use by-hand"),
        (Standing, "trusted first stranger"),
        (WhenFull, "queue refuse"),
        (Period, "hour day week month"),
        (Renewal, "rolling calendar"),
        (StatsBy, "country service kind day"),
        (Verdict, "pass fail warn unknown"),
        (Cause, "fee_limit outbound peer_offline payee_unknown time_lock hop_failed no_route lnd"),
        (HoldLevel, "ok late warning critical"),
        (Succession, "going_on followed"),
    ],
)
def test_a_word_that_was_stored_or_configured_is_never_written_otherwise(words: type[Enum], values: str) -> None:
    assert {word.value for word in words} >= set(values.split())


def test_lnd_s_failure_codes_have_lnd_s_numbers() -> None:
    assert [code.value for code in lightning.FailureCode] == [0, 1, 21]


def test_what_others_could_fill_the_disk_with_is_bounded_by_these_numbers() -> None:
    assert (items.MAX_OTHERS, items.MAX_MESSAGES, items.MAX_STATES, machine.MAX_ANOMALIES) == (5, 2_000, 10, 50)
    assert (machine.CANCEL_RETRY_FRACTION, hold.CLOCKS_DIFFER_MS) == (16, 60_000)


def test_an_event_that_was_journaled_without_a_field_means_what_it_meant_then() -> None:
    failed = PlacingFailed("busy", may_retry=True)
    assert (failed.wait_s, failed.is_sure) == (0, True)
    said = ProviderReplied(NOW_MS, ProviderStatus(is_paid=False)).status
    assert (said.number, said.code, said.code_may_lack_zeros, said.messages) == (None, None, False, ())
    assert (said.send_status, said.error, said.unread) == (None, None, None)


def test_without_a_block_height_none_is_said() -> None:
    lost = pair(OrderState.AWAITING_PAYMENT, HtlcState.IN_FLIGHT, gone_since_ms=NOW_MS)
    assert explain(lost, POLICY, NOW_MS).money.endswith("An HTLC of it may be out still.")


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ("order_placed", "the provider took the order and sent a hold invoice"),
        ("dispatch_intended", "payment 1 is handed to lnd, fee limit 10 sat"),
        ("cancel_requested", "you asked to cancel"),
        ("order_quarantined", "quarantined: it is watched, and nothing is paid for it any more"),
        ("htlc_looked_for", "the node's channels were looked at for the HTLC"),
        ("resolved", "an operator said how the payment ended"),
        ("daemon_restarted", "the daemon restarted; payment on its way"),
        ("payment_not_found", "lnd does not know the payment (said once, this proves nothing)"),
    ],
)
def test_each_event_has_its_line(event: str, told: str) -> None:
    found = pair(OrderState.AWAITING_PAYMENT, HtlcState.IN_FLIGHT, provider_order_id=HASH)
    assert history_line(Moment(NOW_MS, event, found, ()), found) == told


def test_the_history_of_a_prepaid_order_knows_no_hold_invoice() -> None:
    taken = prepaid(OrderState.PAID, ChargeState.CHARGED)
    told = history_line(Moment(NOW_MS, "order_placed", taken, ()), prepaid(OrderState.REQUESTED))
    assert told == "the provider took the order and the price of the prepaid account"
