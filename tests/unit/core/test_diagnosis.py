"""Why a payment failed: each cause has its sentence, and causes that lnd names alike are told apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdpay._pb.lnd.lightning_pb2 import Failure
from holdpay.core import events as ev
from holdpay.core.diagnosis import Cause, Diagnosis, FailedHop, diagnose, in_the_way, without_look
from holdpay.core.duties import Duty, duties
from holdpay.core.explain import explain, trouble
from holdpay.core.hold import DIAGNOSED_WITHIN_S, wants_diagnosis
from holdpay.core.lightning import Attempt, AttemptStatus, FailureReason
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.core.routes import OfflinePeer, Outbound, PayeeNode, Route, RouteLook, RouteQuery
from holdpay.core.states import End, FailureClass, HtlcState, OrderState
from tests.unit.build import ALICE, NOW_MS, PAYEE, POLICY, S, attempt, failed, failure, pair, replied

BOB, DAVE = "02" + "bb" * 32, "02" + "dd" * 32
QUERY = RouteQuery(payee=PAYEE, amount_msat=2_000_000, fee_limit_msat=15_000, final_cltv_delta=40, cltv_limit=475)
IN_PARTS = replace(QUERY, max_parts=4)
ENOUGH = Outbound(largest_msat=5_000_000, total_msat=9_000_000, channel_count=2)
KNOWN = PayeeNode(is_in_graph=True, alias="sms4sats", channel_count=7)
NOTHING = RouteLook(is_route_known=True, outbound=ENOUGH, payee=KNOWN)
"""No route, and everything else is well."""
HOP = FailedHop(place=2, pubkey=BOB, channel="812x1x0", code=15)
OPEN_ONE = f"open a channel to it: `lncli connect {PAYEE}@HOST`, then `lncli openchannel --node_key {PAYEE}"


def route(fee_sat: float = 37, lock_blocks: int = 163) -> Route:
    return Route(fee_msat=int(fee_sat * 1000), lock_blocks=lock_blocks, hops=(BOB, PAYEE), first_channel="812x1x0")


def outbound(largest_sat: int, total_sat: int, *offline: OfflinePeer, channels: int = 2) -> Outbound:
    return Outbound(
        largest_msat=largest_sat * 1000, total_msat=total_sat * 1000, channel_count=channels, offline=offline
    )


def away(alias: str, sat: int, pubkey: str = DAVE) -> OfflinePeer:
    return OfflinePeer(pubkey=pubkey, alias=alias, largest_msat=sat * 1000, total_msat=sat * 1000)


def no_route(look: RouteLook, query: RouteQuery = QUERY, reason: FailureReason = FailureReason.NO_ROUTE) -> Diagnosis:
    """What is made of a payment of which nothing was tried."""
    return diagnose(reason, None, query, look)


def run(order: Order, *timed: tuple[float, ev.Event]) -> Order:
    """What becomes of it, each event so many seconds after ``NOW_MS``."""
    for at_s, event in timed:
        order = decide(order, event, POLICY, NOW_MS + int(at_s * S)).order
    return order


# --- lnd's NO_ROUTE -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("look", "cause", "says"),
    [
        (replace(NOTHING, dearer=route(37)), Cause.FEE_LIMIT, "a route exists at 37 sat, your limit is 15 sat: allow"),
        (replace(NOTHING, dearer=route(15.001)), Cause.FEE_LIMIT, "a route exists at 16 sat, your limit is 15 sat"),
        (
            replace(NOTHING, longer=route(3, 900)),
            Cause.TIME_LOCK,
            "a route exists at 3 sat, and could lock the money for 900 blocks; at most 475 are allowed",
        ),
        (
            replace(NOTHING, payee=PayeeNode(is_in_graph=False)),
            Cause.PAYEE_UNKNOWN,
            f"the provider's node {PAYEE[:10]}… is not in lnd's graph; {OPEN_ONE}",
        ),
        (
            replace(NOTHING, avoided=route(3)),
            Cause.HOP_FAILED,
            "a route exists at 3 sat, and lnd avoids it for some minutes, since a hop of it failed lately: try again",
        ),
        (
            NOTHING,
            Cause.NO_ROUTE,
            f"lnd's graph has no way to sms4sats ({PAYEE[:10]}…) that can carry 2,000 sat, whatever it costs; open a",
        ),
        (
            replace(NOTHING, route=route(3)),
            Cause.NO_ROUTE,
            "lnd found no route when it was tried; lnd knows a way now, at 3 sat: order again",
        ),
        (
            replace(NOTHING, outbound=outbound(5_000, 9_000, away("big", 900, BOB), away("dave", 2_000))),
            Cause.PEER_OFFLINE,
            f"your peer dave ({DAVE[:10]}…) is offline (1 more is, too), whose channels could send 2,000 sat",
        ),
        (
            replace(NOTHING, outbound=outbound(5_000, 9_000, away("too small to help", 1_999))),
            Cause.NO_ROUTE,
            "lnd's graph has no way to",
        ),
        (
            replace(NOTHING, outbound=outbound(2_000, 9_000)),
            Cause.OUTBOUND,
            "largest usable channel 2,000 sat, and 2,000 sat and the fee have to leave your node through one: open",
        ),
    ],
)
def test_what_lnd_calls_no_route_is_told_apart(look: RouteLook, cause: Cause, says: str) -> None:
    found = no_route(look)
    assert found.cause is cause
    assert found.text.startswith(says)


# --- too little to send ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "channels", "cause", "says"),
    [
        (QUERY, outbound(1_200, 9_000), Cause.OUTBOUND, "largest usable channel 1,200 sat, and 2,000 sat and the fee"),
        (
            IN_PARTS,
            outbound(1_200, 1_900),
            Cause.OUTBOUND,
            "all usable channels together have 1,900 sat, and 2,000",
        ),
        (QUERY, outbound(0, 0, channels=0), Cause.OUTBOUND, f"your node has no channel; {OPEN_ONE}"),
        (
            QUERY,
            outbound(0, 0, away("dave", 50_000), away("", 7, BOB)),
            Cause.PEER_OFFLINE,
            f"your peer dave ({DAVE[:10]}…) is offline (1 more is, too), whose channels could send 50,000 sat; without",
        ),
        # Together the two would do, and one of them alone would not.
        (QUERY, outbound(1_200, 1_200, away("dave", 900)), Cause.OUTBOUND, "largest usable channel 1,200 sat"),
        (IN_PARTS, outbound(1_200, 1_200, away("dave", 900)), Cause.PEER_OFFLINE, "your peer dave"),
    ],
)
@pytest.mark.parametrize("reason", [FailureReason.INSUFFICIENT_BALANCE, FailureReason.NO_ROUTE])
def test_too_little_to_send_is_told_apart_from_a_peer_that_is_away(
    query: RouteQuery, channels: Outbound, cause: Cause, says: str, reason: FailureReason
) -> None:
    found = no_route(replace(NOTHING, outbound=channels), query, reason)
    assert found.cause is cause
    assert found.text.startswith(says)


def test_a_large_payment_that_may_be_split_is_not_measured_by_one_channel() -> None:
    look = replace(NOTHING, outbound=outbound(1_200, 9_000), dearer=route(37))
    assert no_route(look, IN_PARTS).cause is Cause.FEE_LIMIT
    assert no_route(look, QUERY).cause is Cause.OUTBOUND


def test_a_peer_that_is_away_helps_with_one_channel_or_with_all_as_the_payment_may_be_split() -> None:
    two_channels = OfflinePeer(pubkey=DAVE, alias="dave", largest_msat=1_500_000, total_msat=3_000_000)
    look = replace(NOTHING, outbound=replace(ENOUGH, offline=(two_channels,)))
    assert no_route(look, QUERY).cause is Cause.NO_ROUTE
    assert no_route(look, IN_PARTS).cause is Cause.PEER_OFFLINE


def test_of_several_peers_that_would_do_only_together_the_first_is_named_and_the_others_counted() -> None:
    together = outbound(1_200, 1_200, away("dave", 400), away("bob", 300, BOB), away("carol", 200, ALICE.pubkey))
    found = no_route(replace(NOTHING, outbound=together), IN_PARTS)
    assert found.cause is Cause.PEER_OFFLINE
    assert found.text.startswith(f"your peer dave ({DAVE[:10]}…) is offline (2 more are, too), whose channels could")


@pytest.mark.parametrize(
    ("fee_limit_msat", "over_msat", "cause"),
    [
        (15_000, 14_999, Cause.OUTBOUND),
        (15_000, 15_000, Cause.NO_ROUTE),
        (0, 0, Cause.OUTBOUND),
        (0, 1, Cause.NO_ROUTE),
    ],
)
def test_where_the_amount_alone_would_fit_the_fee_has_to_fit_too(
    fee_limit_msat: int, over_msat: int, cause: Cause
) -> None:
    tight = replace(ENOUGH, largest_msat=QUERY.amount_msat + over_msat)
    query = replace(QUERY, fee_limit_msat=fee_limit_msat)
    assert no_route(replace(NOTHING, outbound=tight), query).cause is cause


def test_a_channel_that_has_just_the_amount_is_not_in_the_way_of_a_route_that_is_known() -> None:
    tight = replace(ENOUGH, largest_msat=QUERY.amount_msat)
    assert in_the_way(QUERY, replace(NOTHING, outbound=tight, route=route(0))) is None


def test_a_limit_of_no_fee_is_told_as_one() -> None:
    found = no_route(replace(NOTHING, dearer=route(1)), replace(QUERY, fee_limit_msat=0))
    assert found.text == "a route exists at 1 sat, your limit is 0 sat: allow a higher fee"


def test_a_payee_of_which_the_graph_was_not_asked_is_named_by_its_key() -> None:
    assert no_route(replace(NOTHING, payee=None)).text.startswith(f"lnd's graph has no way to {PAYEE[:10]}… that can")


# --- a channel that may hold no more ----------------------------------------------------------------------------------


def _by_full(look: RouteLook) -> Diagnosis:
    return diagnose(FailureReason.NO_ROUTE, None, QUERY, look, is_by_full_channel=True)


@pytest.mark.parametrize("which", ["route", "dearer", "longer", "avoided"])
def test_a_route_by_a_channel_that_may_hold_no_more_is_why_none_was_found(which: str) -> None:
    found = _by_full(replace(NOTHING, **{which: route(7)}))  # type: ignore[arg-type]
    assert found.cause is Cause.OUTBOUND
    assert found.text.startswith("a route exists at 7 sat, by your channel 812x1x0, which may hold no more; none was")


def test_what_no_channel_would_help_with_is_told_also_where_a_channel_may_hold_no_more() -> None:
    unknown = replace(NOTHING, payee=PayeeNode(is_in_graph=False))
    assert _by_full(unknown).cause is Cause.PAYEE_UNKNOWN
    assert _by_full(replace(NOTHING, outbound=outbound(0, 0, channels=0), route=route(7))).text.startswith(
        "your node has no channel"
    )
    assert _by_full(NOTHING).cause is Cause.NO_ROUTE


# --- a hop that failed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hop", "words"),
    [
        (HOP, f"hop 2, {BOB[:10]}…, had too little on channel 812x1x0 (TEMPORARY_CHANNEL_FAILURE)"),
        (
            replace(HOP, code=18, pubkey=None),
            "hop 2 did not reach the next node on channel 812x1x0 (UNKNOWN",
        ),
        (replace(HOP, code=4242), f"hop 2, {BOB[:10]}…, failed it on channel 812x1x0 (code 4242)"),
        (
            FailedHop(place=0, pubkey=None, channel="1x2x3", code=15),
            "our own node had too little on channel 1x2x3 (TEMPORARY_CHANNEL_FAILURE)",
        ),
        (FailedHop(place=1, pubkey=None, channel=None, code=999), "hop 1 or another hop failed it"),
        (
            FailedHop(place=2, pubkey=PAYEE, channel=None, code=23, is_payee=True),
            "the payee waited in vain for the other parts (MPP_TIMEOUT)",
        ),
    ],
)
def test_a_hop_that_failed_is_named_with_its_channel_and_the_code(hop: FailedHop, words: str) -> None:
    assert hop.in_words.startswith(words)


def test_what_a_hop_that_forwards_may_fail_with_is_named_as_lnd_names_it() -> None:
    """Under lnd's number. Of what only a payee says, or nobody any more, the number has to do."""
    said = {name: replace(HOP, code=code).in_words for name, code in Failure.FailureCode.items()}
    by_number = {name for name, words in said.items() if words.endswith(f"(code {Failure.FailureCode.Value(name)})")}
    assert [name for name in said if name not in by_number and not said[name].endswith(f"({name})")] == []
    assert by_number == {
        "RESERVED",
        "INCORRECT_PAYMENT_AMOUNT",
        "FINAL_INCORRECT_CLTV_EXPIRY",
        "FINAL_INCORRECT_HTLC_AMOUNT",
        "FINAL_EXPIRY_TOO_SOON",
        "INVALID_REALM",
        "INVALID_ONION_VERSION",
        "INVALID_ONION_HMAC",
        "INVALID_ONION_KEY",
        "INVALID_ONION_BLINDING",
    }


@pytest.mark.parametrize(
    ("look", "cause", "ends"),
    [
        (NOTHING, Cause.HOP_FAILED, "; no other way was found within the limits"),
        (replace(NOTHING, route=route(9)), Cause.HOP_FAILED, "; lnd knows a way now, at 9 sat: order again"),
        (replace(NOTHING, avoided=route(9)), Cause.HOP_FAILED, "; lnd avoids it for some minutes: try again later"),
        (
            replace(NOTHING, dearer=route(37)),
            Cause.FEE_LIMIT,
            "; a route exists at 37 sat, your limit is 15 sat: allow a higher fee",
        ),
        (RouteLook(is_route_known=False), Cause.HOP_FAILED, "; no other way was found within the limits"),
        (
            replace(NOTHING, outbound=outbound(0, 0, away("dave", 50_000))),
            Cause.PEER_OFFLINE,
            (
                f"; your peer dave ({DAVE[:10]}…) is offline, whose channels could send 50,000 sat; without it the"
                f" largest usable channel has 0 sat: reconnect with `lncli connect {DAVE}@HOST`, or wait until it is"
                " back"
            ),
        ),
    ],
)
def test_after_a_hop_that_failed_it_is_told_whether_there_is_a_way_around_it(
    look: RouteLook, cause: Cause, ends: str
) -> None:
    found = diagnose(FailureReason.NO_ROUTE, HOP, QUERY, look)
    assert found == Diagnosis(cause=cause, text=f"{HOP.in_words}{ends}")


# --- what is not known ----------------------------------------------------------------------------------------------


def test_without_lnds_word_the_reason_has_to_do_and_why_is_told() -> None:
    look = RouteLook(is_route_known=False, unknown=("the macaroon does not allow QueryRoutes",))
    found = no_route(look)
    assert found.cause is Cause.NO_ROUTE
    assert found.text == (
        "no route worked within the limits for fee and time lock (why, is not known: the macaroon does not allow"
        " QueryRoutes)"
    )
    assert no_route(look, reason=FailureReason.INSUFFICIENT_BALANCE).cause is Cause.OUTBOUND
    several = replace(look, unknown=("it is the first reason", "it is another"))
    assert no_route(several).text.endswith("(why, is not known: it is the first reason)")
    assert no_route(replace(look, unknown=())).text == FailureReason.NO_ROUTE.in_words


def test_routes_that_were_not_asked_for_are_no_missing_routes() -> None:
    look = replace(NOTHING, is_route_known=False, dearer=None)
    assert in_the_way(QUERY, look) is None
    assert in_the_way(QUERY, replace(look, payee=PayeeNode(is_in_graph=False))) is not None


@pytest.mark.parametrize("reason", [FailureReason.ERROR, FailureReason.CANCELED])
def test_lnds_own_trouble_is_called_so_whatever_routes_there_are(reason: FailureReason) -> None:
    found = no_route(replace(NOTHING, dearer=route(37)), reason=reason)
    assert found == Diagnosis(cause=Cause.LND, text=reason.in_words) == without_look(reason, None)


def test_nothing_is_in_the_way_of_a_payment_that_has_a_route() -> None:
    assert in_the_way(QUERY, replace(NOTHING, route=route(3))) is None


def test_what_is_not_said_of_a_look_is_as_a_payment_of_one_part_asks() -> None:
    """In its way around what failed lately, and with all that is to be known where there is no route."""
    assert (QUERY.max_parts, QUERY.avoids_failed, QUERY.is_route_enough) == (1, True, False)
    assert route().parts == 1
    assert PayeeNode(is_in_graph=False) == PayeeNode(is_in_graph=False, alias="", channel_count=0)


# --- the order ------------------------------------------------------------------------------------------------------


def given_up(*, at_s: int = 10) -> Order:
    """Its last dispatch has failed at a hop."""
    return run(pair(OrderState.AWAITING_PAYMENT, HtlcState.IN_FLIGHT, dispatch_count=6), (at_s, failed(_at_bob())))


def _at_bob() -> Attempt:
    return attempt(
        AttemptStatus.FAILED,
        failure_code=15,
        failure_source_index=1,
        first_hop=BOB,
        first_channel="811x1x0",
        failed_hop=BOB,
        failed_channel="812x1x0",
    )


LOOKED = ev.RouteLookedFor(6, replace(NOTHING, dearer=route(37)))


def test_an_order_that_is_given_up_ends_with_the_diagnosis_as_its_reason() -> None:
    order = run(given_up(), (11, LOOKED), (12, replied(NOW_MS + 12 * S)))
    assert order.end is End.PAYMENT_FAILED
    assert order.reason == (
        f"6 payments failed; hop 1, {BOB[:10]}…, had too little on channel 812x1x0 (TEMPORARY_CHANNEL_FAILURE); a route"
        " exists at 37 sat, your limit is 20 sat: allow a higher fee"
    )
    assert order.payment is not None
    assert order.payment.diagnosis is not None
    assert order.payment.diagnosis.cause is Cause.FEE_LIMIT
    assert order.reason in explain(order, POLICY, NOW_MS).summary


def test_its_end_waits_for_lnds_word_some_seconds_and_no_longer() -> None:
    confirmed = run(given_up(), (11, replied(NOW_MS + 11 * S)))
    assert not confirmed.is_closed
    assert Duty.DIAGNOSE in duties(confirmed)
    until_ms = NOW_MS + (10 + DIAGNOSED_WITHIN_S) * S
    assert not decide(confirmed, ev.TimePassed(), POLICY, until_ms - 1).order.is_closed
    over = decide(confirmed, ev.TimePassed(), POLICY, until_ms).order
    assert (over.end, over.reason.endswith("; no other way was found within the limits")) == (End.PAYMENT_FAILED, True)
    assert over.payment is not None
    assert over.payment.diagnosis is not None
    assert over.payment.diagnosis.cause is Cause.HOP_FAILED


def test_a_client_that_cancels_waits_for_no_diagnosis() -> None:
    assert run(given_up(), (11, ev.CancelRequested())).end is End.CANCELED_UNPAID


def test_a_look_is_taken_only_where_no_dispatch_follows_at_once() -> None:
    """The climb of the ladder, and the first retry after a hop that failed."""
    failure_at = failure(FailureClass.NO_ATTEMPT)
    waiting = pair(OrderState.AWAITING_PAYMENT, HtlcState.FAILED, failure=failure_at, dispatch_at_ms=NOW_MS + 60 * S)
    assert wants_diagnosis(waiting)
    assert waiting.payment is not None
    assert not wants_diagnosis(replace(waiting, payment=replace(waiting.payment, dispatch_at_ms=NOW_MS)))


@pytest.mark.parametrize(
    "changes",
    [
        {"reached_payee": True},
        {"failure": failure(FailureClass.READ_LATER, reason=FailureReason.NEVER_SENT)},
        {"failure": failure(FailureClass.READ_LATER, reason=FailureReason.BY_OPERATOR)},
        {"cancel_wanted_at_ms": NOW_MS},
        {"quarantined_at_ms": NOW_MS},
        {"diagnosis": Diagnosis(cause=Cause.LND, text="x")},
    ],
)
def test_no_look_is_taken_where_it_could_tell_nothing(changes: dict[str, object]) -> None:
    plain = pair(OrderState.AWAITING_PAYMENT, HtlcState.FAILED, failure=failure(), giving_up="6 payments failed")
    assert wants_diagnosis(plain)
    spoilt = pair(
        OrderState.AWAITING_PAYMENT,
        HtlcState.FAILED,
        **{"failure": failure(), "giving_up": "6 payments failed", **changes},
    )
    assert not wants_diagnosis(spoilt)


def test_a_hop_that_failed_is_named_also_where_the_last_dispatch_tried_nothing_since_lnd_avoids_it() -> None:
    once = run(
        pair(OrderState.AWAITING_PAYMENT, HtlcState.IN_FLIGHT, dispatch_count=5, fee_limit_msat=20_000),
        (10, failed(_at_bob(), payment_index=7)),
        (11, replied(NOW_MS + 11 * S)),
        (190, ev.DispatchIntended(ALICE)),
        (191, failed(payment_index=8)),
        (192, ev.RouteLookedFor(6, replace(NOTHING, avoided=route(3)))),
    )
    assert trouble(once) == (
        f"6 payments failed; hop 1, {BOB[:10]}…, had too little on channel 812x1x0 (TEMPORARY_CHANNEL_FAILURE); lnd"
        " avoids it for some minutes: try again later"
    )


def test_of_several_hops_that_failed_the_last_is_named() -> None:
    first, last = replace(_at_bob(), attempt_id=3), replace(_at_bob(), attempt_id=4, failed_channel="900x1x0")
    for attempts in ((first, last), (last, first)):
        order = run(pair(OrderState.AWAITING_PAYMENT, HtlcState.IN_FLIGHT), (10, failed(*attempts)))
        assert order.payment is not None
        assert order.payment.failure is not None
        assert order.payment.failure.hop_channel == "900x1x0"


def test_what_is_learnt_of_one_dispatch_is_not_said_of_the_next() -> None:
    late = replace(LOOKED, dispatch=5)
    assert run(given_up(), (11, late)).payment == given_up().payment
    waiting = run(given_up(), (11, LOOKED))
    assert waiting.payment is not None
    planned = replace(waiting.payment, dispatch_at_ms=NOW_MS, unpaid_since_ms=NOW_MS)
    again = replace(waiting, giving_up=None, payment=planned)
    sent = run(again, (12, ev.DispatchIntended(ALICE)))
    assert sent.payment is not None
    assert (sent.htlc, sent.payment.diagnosis) == (HtlcState.DISPATCHING, None)


def test_while_a_retry_is_awaited_the_diagnosis_is_told_already() -> None:
    order = run(
        pair(OrderState.AWAITING_PAYMENT, HtlcState.IN_FLIGHT, dispatch_count=2, fee_limit_msat=20_000),
        (10, failed()),
        (11, ev.RouteLookedFor(2, replace(NOTHING, dearer=route(37)))),
    )
    assert not order.giving_up
    assert trouble(order) == "a route exists at 37 sat, your limit is 20 sat: allow a higher fee"
    assert "a route exists at 37 sat" in explain(order, POLICY, NOW_MS + 12 * S).next


def test_a_send_that_lnd_refused_is_lnds_cause() -> None:
    refused = run(
        pair(OrderState.AWAITING_PAYMENT, HtlcState.DISPATCHING),
        (1, ev.SendRefused("invoice expired")),
        (2, ev.PaymentNotFound()),
        (40, ev.PaymentNotFound()),
    )
    assert refused.payment is not None
    assert refused.payment.diagnosis == Diagnosis(cause=Cause.LND, text="lnd refused the payment: invoice expired")
    assert trouble(refused) == "lnd refused the payment: invoice expired"
