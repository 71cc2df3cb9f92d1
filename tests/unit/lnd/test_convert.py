from __future__ import annotations

import pytest

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay.core.lightning import (
    Attempt,
    AttemptStatus,
    DispatchSpec,
    FailureReason,
    Invoice,
    NodeIdentity,
    PaymentStatus,
    StoredPayment,
)
from holdpay.lnd.convert import to_identity, to_invoice, to_send_request, to_stored, to_track_request, to_update

ZEROS = "0" * 64


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (0, PaymentStatus.IN_FLIGHT),
        (1, PaymentStatus.IN_FLIGHT),
        (2, PaymentStatus.SUCCEEDED),
        (3, PaymentStatus.FAILED),
        (4, PaymentStatus.IN_FLIGHT),
        (77, PaymentStatus.IN_FLIGHT),
    ],
)
def test_only_succeeded_and_failed_end_a_payment(number: int, status: PaymentStatus) -> None:
    assert to_update(lnrpc.Payment(status=number)).status is status  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (0, FailureReason.NONE),
        (1, FailureReason.TIMEOUT),
        (2, FailureReason.NO_ROUTE),
        (3, FailureReason.ERROR),
        (4, FailureReason.INCORRECT_PAYMENT_DETAILS),
        (5, FailureReason.INSUFFICIENT_BALANCE),
        (6, FailureReason.CANCELED),
        (7, FailureReason.OTHER),
    ],
)
def test_each_failure_reason_has_its_name_and_a_new_one_is_other(number: int, reason: FailureReason) -> None:
    assert to_update(lnrpc.Payment(failure_reason=number)).failure_reason is reason  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (0, AttemptStatus.IN_FLIGHT),
        (1, AttemptStatus.SUCCEEDED),
        (2, AttemptStatus.FAILED),
        (9, AttemptStatus.IN_FLIGHT),
    ],
)
def test_an_attempt_of_unknown_status_counts_as_out(number: int, status: AttemptStatus) -> None:
    payment = lnrpc.Payment(htlcs=[lnrpc.HTLCAttempt(status=number)])  # type: ignore[arg-type]
    assert to_update(payment).attempts[0].status is status


def test_a_failed_attempt_is_read_whole() -> None:
    htlc = lnrpc.HTLCAttempt(
        attempt_id=7,
        status=lnrpc.HTLCAttempt.FAILED,
        route=lnrpc.Route(
            total_time_lock=663,
            total_fees_msat=1_002,
            total_amt_msat=2_001_002,
            hops=[lnrpc.Hop(amt_to_forward_msat=2_000_500), lnrpc.Hop(amt_to_forward_msat=2_000_000)],
        ),
        attempt_time_ns=1_700_000_000_123_456_789,
        resolve_time_ns=1_700_000_001_987_654_321,
        failure=lnrpc.Failure(code=lnrpc.Failure.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS, failure_source_index=2),
    )
    (attempt,) = to_update(lnrpc.Payment(status=lnrpc.Payment.FAILED, htlcs=[htlc])).attempts
    assert attempt == Attempt(
        attempt_id=7,
        status=AttemptStatus.FAILED,
        amount_msat=2_000_000,
        fee_msat=1_002,
        expiry_height=663,
        hop_count=2,
        attempted_at_ms=1_700_000_000_123,
        resolved_at_ms=1_700_000_001_987,
        failure_code=1,
        failure_source_index=2,
    )
    assert attempt.failed_at_payee


def _failed(source_index: int, *hops: tuple[str, int]) -> lnrpc.HTLCAttempt:
    return lnrpc.HTLCAttempt(
        status=lnrpc.HTLCAttempt.FAILED,
        route=lnrpc.Route(hops=[lnrpc.Hop(pub_key=name, chan_id=chan_id) for name, chan_id in hops]),
        failure=lnrpc.Failure(code=lnrpc.Failure.TEMPORARY_CHANNEL_FAILURE, failure_source_index=source_index),
    )


OUT, ON, IN = 812 << 40 | 1 << 16, 813 << 40 | 2 << 16 | 1, 16_000_001 << 40
"""The last one is an alias, as lnd makes them: more than SQLite's largest number."""


@pytest.mark.parametrize(
    ("source_index", "where"),
    [
        (0, (None, "812x1x0")),
        (1, ("bob", "813x2x1")),
        (2, ("carol", "16000001x0x0")),
        (3, ("dave", None)),
        (9, (None, None)),
    ],
)
def test_a_failed_attempt_names_the_node_that_said_so_and_the_channel_that_it_had_to_use(
    source_index: int, where: tuple[str | None, str | None]
) -> None:
    htlc = _failed(source_index, ("bob", OUT), ("carol", ON), ("dave", IN))
    (attempt,) = to_update(lnrpc.Payment(htlcs=[htlc])).attempts
    assert (attempt.failed_hop, attempt.failed_channel) == where
    assert (attempt.first_hop, attempt.first_channel) == ("bob", "812x1x0")


def test_an_attempt_that_is_out_names_its_first_hop_and_none_that_failed() -> None:
    htlc = lnrpc.HTLCAttempt(route=lnrpc.Route(hops=[lnrpc.Hop(pub_key="bob", chan_id=OUT)]))
    out, bare = to_update(lnrpc.Payment(htlcs=[htlc, lnrpc.HTLCAttempt()])).attempts
    assert (out.first_hop, out.first_channel, out.failed_hop, out.failed_channel) == ("bob", "812x1x0", None, None)
    assert (bare.first_hop, bare.first_channel) == (None, None)


def test_an_attempt_that_is_out_has_no_time_of_resolution() -> None:
    (attempt,) = to_update(lnrpc.Payment(htlcs=[lnrpc.HTLCAttempt(attempt_time_ns=5_000_000)])).attempts
    assert (attempt.attempted_at_ms, attempt.resolved_at_ms) == (5, None)


@pytest.mark.parametrize("nothing", ["", ZEROS])
def test_a_preimage_of_zeros_is_none(nothing: str) -> None:
    assert to_update(lnrpc.Payment(payment_preimage=nothing)).preimage is None


def test_a_settled_payment_keeps_its_preimage_fee_and_index() -> None:
    update = to_update(lnrpc.Payment(status=2, payment_preimage="ab" * 32, fee_msat=1002, payment_index=1041))  # type: ignore[arg-type]
    assert (update.preimage, update.fee_msat, update.payment_index) == ("ab" * 32, 1002, 1041)


def test_a_send_request_says_every_option() -> None:
    spec = DispatchSpec(
        payreq="lnsb1", payment_hash="ab" * 32, fee_limit_msat=10_500, timeout_s=1500, max_parts=4, cltv_limit=515
    )
    request = to_send_request(spec)
    said = {field.name: value for field, value in request.ListFields()}
    assert said == {
        "payment_request": "lnsb1",
        "timeout_seconds": 1500,
        "fee_limit_msat": 10_500,
        "cltv_limit": 515,
        "max_parts": 4,
    }
    assert (request.cancelable, request.no_inflight_updates, request.time_pref, request.amt_msat) == (
        False,
        False,
        0,
        0,
    )


def test_a_track_request_has_the_hash_as_bytes_and_wants_every_update() -> None:
    request = to_track_request("ab" * 32)
    assert (request.payment_hash, request.no_inflight_updates) == (b"\xab" * 32, False)


@pytest.mark.parametrize(("address", "has_one"), [(b"", False), (bytes(32), False), (bytes(31) + b"\1", True)])
def test_an_invoice_without_a_payment_address_is_seen_as_such(address: bytes, has_one: bool) -> None:
    assert to_invoice(lnrpc.PayReq(payment_addr=address)).has_payment_address is has_one


def test_an_invoice_is_read_whole() -> None:
    payreq = lnrpc.PayReq(
        destination="02" + "cc" * 32,
        payment_hash="ab" * 32,
        num_satoshis=2_000,
        num_msat=2_000_001,
        timestamp=1_700_000_000,
        expiry=1_200,
        description="a code",
        cltv_expiry=40,
        payment_addr=b"\1" * 32,
    )
    invoice = to_invoice(payreq)
    assert invoice == Invoice(
        payment_hash="ab" * 32,
        payee="02" + "cc" * 32,
        amount_msat=2_000_001,
        created_at_ms=1_700_000_000_000,
        expiry_s=1_200,
        final_cltv_delta=40,
        has_payment_address=True,
        memo="a code",
    )
    assert invoice.expires_at_ms == 1_700_001_200_000


def test_numbers_that_no_database_takes_are_cut() -> None:
    htlc = lnrpc.HTLCAttempt(attempt_id=2**64 - 1)
    update = to_update(lnrpc.Payment(payment_index=2**64 - 1, htlcs=[htlc], creation_time_ns=1_700_000_000_123_456_789))
    assert update.created_at_ms == 1_700_000_000_123
    assert (update.payment_index, update.attempts[0].attempt_id) == (2**63 - 1, 2**63 - 1)
    assert to_invoice(lnrpc.PayReq(timestamp=2**35, expiry=2**63 - 1)).expires_at_ms < 2**63


def test_a_node_is_known_by_pubkey_and_network() -> None:
    info = lnrpc.GetInfoResponse(identity_pubkey="02aa", chains=[lnrpc.Chain(network="simnet")])
    assert to_identity(info) == NodeIdentity("02aa", "simnet")
    assert to_identity(lnrpc.GetInfoResponse(identity_pubkey="02aa")) == NodeIdentity("02aa", "")


def _route(*names: str) -> lnrpc.Route:
    """Its channels are numbered from 1, and each hop forwards ten less than the one before it."""
    hops = [lnrpc.Hop(pub_key=name, chan_id=at + 1, amt_to_forward_msat=100 - 10 * at) for at, name in enumerate(names)]
    return lnrpc.Route(hops=hops)


def test_what_reaches_the_payee_is_what_the_last_hop_forwards() -> None:
    three, none = lnrpc.HTLCAttempt(route=_route("bob", "carol", "dave")), lnrpc.HTLCAttempt()
    told = to_update(lnrpc.Payment(htlcs=[three, none])).attempts
    assert [(each.hop_count, each.amount_msat) for each in told] == [(3, 80), (0, 0)]


def test_a_stored_payment_tells_the_payee_and_the_channels_that_hold_its_htlcs() -> None:
    flying, ended = lnrpc.HTLCAttempt.IN_FLIGHT, lnrpc.HTLCAttempt.FAILED
    payment = lnrpc.Payment(
        payment_hash="aa",
        payment_request="lnbc1",
        value_msat=2_000_000,
        creation_time_ns=1_800_000_000_123_456_789,
        htlcs=[
            lnrpc.HTLCAttempt(status=flying),
            lnrpc.HTLCAttempt(status=flying, route=_route("bob", "carol", "dave")),
            lnrpc.HTLCAttempt(status=ended, route=_route("erin", "frank")),
        ],
    )
    assert to_stored(payment) == StoredPayment(
        payment_hash="aa",
        payreq="lnbc1",
        amount_msat=2_000_000,
        created_at_ms=1_800_000_000_123,
        last_node="dave",
        leaves_by=(1,),
        update=to_update(payment),
    )
    bare = to_stored(lnrpc.Payment(htlcs=[lnrpc.HTLCAttempt(status=flying)]))
    assert (bare.last_node, bare.leaves_by) == (None, ())


def test_of_several_chains_the_first_is_the_node_s() -> None:
    chains = [lnrpc.Chain(network="simnet"), lnrpc.Chain(network="mainnet")]
    assert to_identity(lnrpc.GetInfoResponse(identity_pubkey="02", chains=chains)).network == "simnet"
