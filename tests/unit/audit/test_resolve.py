"""Whether an operator's word is taken: only where lnd itself can say no more."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from holdpay.audit.laws import law_findings
from holdpay.audit.resolve import LndView, ResolveRefused, known, objection, outcome, payment_of, record
from holdpay.core.charge import Charge, ChargeState
from holdpay.core.events import Resolution, Resolved
from holdpay.core.lightning import LndMessage, Lost, NotKnown, PaymentStatus, Reported
from holdpay.core.model import Order, Payment
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.store.store import SqliteStore
from tests.unit.build import (
    ALICE,
    HASH,
    MALLORY,
    NOW_MS,
    POLICY,
    PREIMAGE,
    attempt,
    changed,
    look,
    order,
    pair,
    payment,
    quarantined,
    update,
)

EXPIRY_HEIGHT = 800_163
OUT: LndMessage = Reported(update(PaymentStatus.IN_FLIGHT, attempt()), live=False)
FAILED = Resolved(Resolution.FAILED, by="ann", why="I saw it")
SETTLED = Resolved(Resolution.SETTLED, by="ann", why="I saw it", preimage=PREIMAGE)
WRITTEN_OFF = Resolved(Resolution.WRITTEN_OFF, by="ann", why="nobody knows")
EVERY = pytest.mark.parametrize("word", [FAILED, SETTLED, WRITTEN_OFF], ids=lambda word: word.resolution.value)
PAID = payment(HtlcState.IN_FLIGHT)
SPACED = f"{PREIMAGE[:32]} {PREIMAGE[32:]}"


def view(
    said: LndMessage = OUT, height: int = EXPIRY_HEIGHT + 1, *, carried: bool = False, closing: bool = False
) -> LndView:
    return LndView(node=ALICE, said=said, look=look(height, carried=carried, closing=closing))


def against(seen: LndView, word: Resolved, of: Payment = PAID, *, retired: bool = False) -> str:
    held = replace(pair(OrderState.PAID, HtlcState.IN_FLIGHT), payment=of)
    return objection(held, seen, word, POLICY, is_node_retired=retired)


@EVERY
@pytest.mark.parametrize("said", [OUT, NotKnown()], ids=["in flight", "no record"])
def test_it_is_taken_once_the_expiry_height_has_passed_and_no_channel_carries_the_htlc(
    word: Resolved, said: LndMessage
) -> None:
    assert against(view(said), word) == ""
    assert "A channel carries the HTLC" in against(view(said, carried=True), word)


@pytest.mark.parametrize("word", [FAILED, WRITTEN_OFF])
@pytest.mark.parametrize("said", [OUT, NotKnown()], ids=["in flight", "no record"])
def test_before_the_expiry_height_it_is_refused_with_both_heights(word: Resolved, said: LndMessage) -> None:
    assert "until block 800,163; the chain is at block 800,163" in against(view(said, EXPIRY_HEIGHT), word)


def test_a_preimage_proves_a_payment_without_a_record_at_any_height() -> None:
    assert against(view(NotKnown(), 1), SETTLED) == ""
    assert against(view(OUT, 1), SETTLED) != "", "lnd will say so itself"


def test_what_a_hold_invoice_paid_is_settled_by_a_preimage_only() -> None:
    assert "Say --settled PREIMAGE" in against(view(NotKnown()), replace(SETTLED, preimage=None))


@pytest.mark.parametrize("preimage", ["22" * 32, "not hex", PREIMAGE[:-2], SPACED])
def test_a_preimage_that_does_not_fit_is_refused(preimage: str | None) -> None:
    assert "does not fit" in against(view(NotKnown()), replace(SETTLED, preimage=preimage))


def test_where_the_expiry_height_was_never_named_the_longest_life_of_an_htlc_counts() -> None:
    unnamed = replace(PAID, expiry_height=None, first_look_height=800_000)
    for said in (OUT, NotKnown()):
        assert "until block 800,475" in against(view(said, 800_475), FAILED, unnamed)
        assert against(view(said, 800_476), FAILED, unnamed) == ""
        assert "until block 900,475" in against(view(said, 900_000), FAILED, replace(unnamed, first_look_height=None))


def test_a_channel_that_is_being_closed_lets_nobody_say_that_the_money_is_back_but_can_be_written_off() -> None:
    """One whose peer never returns stays so for ever."""
    for said in (OUT, NotKnown()):
        assert "being closed that may carry" in against(view(said, closing=True), FAILED)
        assert against(view(said, closing=True), WRITTEN_OFF) == ""
        assert against(view(said, closing=True), SETTLED) == ""


@EVERY
def test_channels_that_cannot_be_looked_at_hide_nothing_of_what_lnd_said(word: Resolved) -> None:
    denied = LndView(node=ALICE, said=OUT, trouble="PendingChannels is denied.")
    assert "PendingChannels is denied." in against(denied, word)
    known_end = replace(denied, said=Reported(update(PaymentStatus.SUCCEEDED), live=False))
    assert "lnd says how it ended" in against(known_end, word)
    assert "Leave out --node-retired" in against(known_end, word, retired=True)


@EVERY
@pytest.mark.parametrize("status", [PaymentStatus.SUCCEEDED, PaymentStatus.FAILED])
def test_what_lnd_knows_it_says_itself(word: Resolved, status: PaymentStatus) -> None:
    assert "lnd says how it ended" in against(view(Reported(update(status), live=False)), word)


@EVERY
def test_a_payment_that_lnd_never_had_is_left_to_the_daemon(word: Resolved) -> None:
    never = payment(HtlcState.UNKNOWN)
    assert "Start holdpayd" in against(view(NotKnown()), word, never)


@EVERY
def test_an_lnd_that_cannot_be_asked_may_still_know(word: Resolved) -> None:
    assert "--node-retired" in against(LndView(trouble="It is down. Start it."), word)
    assert "It is down." in against(LndView(trouble="It is down. Start it."), word)
    assert "did not say" in against(view(Lost("gone away")), word)
    assert against(LndView(trouble="It is down."), word, retired=True) == ""


@EVERY
def test_another_node_says_nothing_and_a_retired_one_cannot(word: Resolved) -> None:
    assert "Another node paid" in against(LndView(node=MALLORY), word)
    assert against(LndView(node=MALLORY), word, retired=True) == ""
    assert "Leave out --node-retired" in against(view(NotKnown()), word, retired=True)


@pytest.mark.parametrize("htlc", [HtlcState.NONE, HtlcState.SETTLED, HtlcState.FAILED])
def test_an_order_without_money_out_is_refused(htlc: HtlcState) -> None:
    with pytest.raises(ResolveRefused, match="nothing to resolve"):
        payment_of(pair(OrderState.PAID, htlc))


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (view(), "the payment is in flight; no channel carries its HTLC; the chain is at block 800,164."),
        (view(NotKnown(), carried=True), "no record of the payment; a channel carries its HTLC"),
        (view(NotKnown(), closing=True), "no record of the payment; a channel is being closed that may carry its HTLC"),
        (LndView(node=ALICE, said=OUT, trouble="Denied."), "its channels could not be looked at. Denied."),
        (LndView(node=MALLORY), "another one and knows nothing of it"),
        (LndView(trouble="It is down."), "could not be asked. It is down."),
    ],
)
def test_what_is_known_is_told_before_anything_is_asked(seen: LndView, told: str) -> None:
    held: Order = pair(OrderState.PAID, HtlcState.IN_FLIGHT)
    text = "\n".join(known(held, seen, POLICY, NOW_MS))
    assert told in text
    assert ALICE.pubkey[:16] in text
    assert HASH not in text


# --- paid from the prepaid account ---


def prepaid(state: ChargeState) -> Order:
    charge = Charge(state=state, since_ms=NOW_MS, amount_sat=2_000, balance_before_sat=9_000, intended_at_ms=NOW_MS)
    return changed(order(), is_prepaid=True, charge=charge)


CHARGED = replace(SETTLED, preimage=None)


@pytest.mark.parametrize("word", [FAILED, CHARGED, WRITTEN_OFF], ids=lambda word: word.resolution.value)
@pytest.mark.parametrize("state", [ChargeState.INTENDED, ChargeState.UNKNOWN])
def test_a_charge_of_which_the_reply_was_lost_is_resolved_by_a_word_and_lnd_is_not_asked(
    state: ChargeState, word: Resolved
) -> None:
    assert payment_of(prepaid(state)) is None
    assert objection(prepaid(state), LndView(), word, POLICY, is_node_retired=False) == ""


def test_a_preimage_for_a_charge_is_refused() -> None:
    against_it = objection(prepaid(ChargeState.UNKNOWN), LndView(), SETTLED, POLICY, is_node_retired=False)
    assert "Say --settled without one" in against_it


@pytest.mark.parametrize(
    ("word", "state", "end", "told"),
    [
        (FAILED, ChargeState.REFUSED, End.PROVIDER_REFUSED, "is closed: provider refused."),
        (CHARGED, ChargeState.CHARGED, End.CHARGED_UNFULFILLED, "is closed: charged unfulfilled."),
        (WRITTEN_OFF, ChargeState.UNKNOWN, End.OUTCOME_UNKNOWN, "is closed: outcome unknown."),
    ],
)
def test_the_word_about_a_charge_ends_the_order(word: Resolved, state: ChargeState, end: End, told: str) -> None:
    for before in (prepaid(ChargeState.UNKNOWN), quarantined(prepaid(ChargeState.UNKNOWN))):
        assert objection(before, LndView(), word, POLICY, is_node_retired=False) == ""
        after = record(cast(SqliteStore, _NoStore()), before, word, POLICY, NOW_MS)
        assert (after.charge and after.charge.state, after.end) == (state, end)
        assert told in outcome(after)
        assert law_findings(after) == []


class _NoStore:
    def commit(self, *_: object) -> int:
        return 1


@pytest.mark.parametrize("state", [ChargeState.CHARGED, ChargeState.REFUSED, ChargeState.RETURNED])
def test_a_charge_of_which_the_provider_has_spoken_is_refused(state: ChargeState) -> None:
    with pytest.raises(ResolveRefused, match="nothing to resolve"):
        payment_of(prepaid(state))


def test_of_a_charge_the_balance_before_it_is_told() -> None:
    told = "\n".join(known(prepaid(ChargeState.UNKNOWN), LndView(), POLICY, NOW_MS))
    assert "its charge of the prepaid account unknown" in told
    assert "2027-01-15 08:00:00 UTC for 2,000 sat, and the balance was 9,000 sat right before" in told


# --- in quarantine ---

ASIDE = quarantined(pair(OrderState.REQUESTED, HtlcState.IN_FLIGHT))
UNPAID = quarantined(pair(OrderState.REQUESTED, HtlcState.NONE))
NEVER_KNOWN = quarantined(pair(OrderState.REQUESTED, HtlcState.UNKNOWN))


def aside_against(of: Order, seen: LndView, word: Resolved) -> str:
    return objection(of, seen, word, POLICY, is_node_retired=False)


def test_in_quarantine_the_operator_says_what_lnd_says() -> None:
    paid, unpaid = (
        view(Reported(update(status), live=False)) for status in (PaymentStatus.SUCCEEDED, PaymentStatus.FAILED)
    )
    assert aside_against(ASIDE, paid, SETTLED) == aside_against(ASIDE, unpaid, FAILED) == ""
    assert "Say --settled PREIMAGE" in aside_against(ASIDE, paid, FAILED)
    for word in (WRITTEN_OFF, replace(SETTLED, preimage="22" * 32)):
        assert aside_against(ASIDE, paid, word) != ""
    assert "Say --failed" in aside_against(ASIDE, unpaid, WRITTEN_OFF)


@EVERY
def test_in_quarantine_an_htlc_that_can_still_end_is_waited_for_as_with_any_other_order(word: Resolved) -> None:
    assert "A channel carries the HTLC" in aside_against(ASIDE, view(carried=True), word)
    assert "Wait for that" in aside_against(ASIDE, view(OUT, EXPIRY_HEIGHT), word)
    assert aside_against(ASIDE, view(), word) == ""
    unnamed = quarantined(pair(OrderState.REQUESTED, HtlcState.IN_FLIGHT, expiry_height=None))
    assert "until block 800,163" in aside_against(unnamed, view(OUT, EXPIRY_HEIGHT), word), "as lnd says now"
    assert aside_against(unnamed, view(OUT, EXPIRY_HEIGHT + 1), word) == ""


@EVERY
def test_in_quarantine_a_payment_that_lnd_never_had_can_be_resolved(word: Resolved) -> None:
    assert aside_against(NEVER_KNOWN, view(NotKnown()), word) == ""
    assert aside_against(NEVER_KNOWN, view(NotKnown(), carried=True), word) != ""


def test_in_quarantine_a_lost_record_of_which_no_height_is_known_can_be_written_off() -> None:
    lost = quarantined(pair(OrderState.REQUESTED, HtlcState.IN_FLIGHT, expiry_height=None))
    assert aside_against(lost, view(NotKnown()), WRITTEN_OFF) == ""
    assert "Wait for that" in aside_against(lost, view(NotKnown()), FAILED)


def test_in_quarantine_an_order_without_a_payment_asks_nobody() -> None:
    assert payment_of(UNPAID) is None
    assert aside_against(UNPAID, LndView(), FAILED) == ""
    for word in (SETTLED, WRITTEN_OFF):
        assert "no payment" in aside_against(UNPAID, LndView(), word)
    assert len(list(known(UNPAID, LndView(), POLICY, NOW_MS))) == 2, "nothing of lnd, which was not asked"


def test_in_quarantine_the_impossible_pair_is_told() -> None:
    assert "the order is requested, its payment in flight" in "\n".join(known(ASIDE, view(), POLICY, NOW_MS))


def test_a_closed_order_is_not_resolved_again() -> None:
    closed = replace(ASIDE, closed_at_ms=NOW_MS, end=End.OUTCOME_UNKNOWN)
    with pytest.raises(ResolveRefused, match="nothing to resolve"):
        payment_of(closed)
