"""LND's payment database: status follows from attempts and reason, and only some hashes may be sent again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdpay.sandbox.lnd_model import (
    NO_PREIMAGE,
    AlreadyExists,
    Attempt,
    Failure,
    FailureCode,
    FailureReason,
    Hop,
    InTransition,
    NotInitiated,
    Payment,
    PaymentDb,
    PaymentStatus,
    Route,
    Step,
    next_step,
)

HASH, PREIMAGE = b"h" * 32, b"p" * 32
VALUE_MSAT, FEE_MSAT = 2_000_000, 1_002
CANCELED = Failure(FailureCode.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS, 2)


def route(amount_msat: int = VALUE_MSAT) -> Route:
    return Route(
        663, amount_msat + FEE_MSAT, (Hop(1, "peer", amount_msat, FEE_MSAT, 583), Hop(2, "p", amount_msat, 0, 583))
    )


def attempt(outcome: str) -> Attempt:
    return Attempt(
        1,
        route(),
        attempt_time_ns=1,
        preimage=PREIMAGE if outcome == "settled" else None,
        failure=CANCELED if outcome == "failed" else None,
    )


@pytest.fixture
def db() -> PaymentDb:
    db = PaymentDb()
    db.init(HASH, VALUE_MSAT, "lnsb…", 1)
    return db


@given(
    outcomes=st.lists(st.sampled_from(["out", "settled", "failed"]), max_size=4), reason=st.sampled_from(FailureReason)
)
def test_the_status_is_lnds_table(outcomes: list[str], reason: FailureReason) -> None:
    payment = Payment(HASH, VALUE_MSAT, "", 1, 1, tuple(map(attempt, outcomes)), reason)
    has_reason = reason is not FailureReason.NONE
    table = [
        ("out" in outcomes, PaymentStatus.IN_FLIGHT),
        ("settled" in outcomes, PaymentStatus.SUCCEEDED),
        (has_reason, PaymentStatus.FAILED),
        (bool(outcomes), PaymentStatus.IN_FLIGHT),
        (True, PaymentStatus.INITIATED),
    ]

    assert payment.status is next(status for applies, status in table if applies)


def test_a_new_payment_is_initiated_and_wants_a_route(db: PaymentDb) -> None:
    payment = db.fetch(HASH)

    assert payment.status is PaymentStatus.INITIATED
    assert next_step(payment) is Step.SEND
    assert payment.preimage == NO_PREIMAGE


def test_with_everything_out_it_waits(db: PaymentDb) -> None:
    payment, _ = db.register(HASH, route(), 2)

    assert payment.remaining_msat == 0
    assert next_step(payment) is Step.WAIT


def test_with_one_of_two_shards_out_it_sends_on_until_a_reason_is_there(db: PaymentDb) -> None:
    payment, _ = db.register(HASH, route(VALUE_MSAT // 2), 2)

    assert next_step(payment) is Step.SEND
    assert next_step(db.fail_payment(HASH, FailureReason.TIMEOUT)) is Step.WAIT


def test_after_a_failed_attempt_it_tries_again(db: PaymentDb) -> None:
    _, out = db.register(HASH, route(), 2)
    payment = db.fail_attempt(HASH, out.attempt_id, Failure(FailureCode.UNKNOWN_NEXT_PEER, 1), 3)

    assert payment.status is PaymentStatus.IN_FLIGHT
    assert payment.remaining_msat == VALUE_MSAT
    assert next_step(payment) is Step.SEND


def test_the_preimage_is_known_while_another_shard_is_out(db: PaymentDb) -> None:
    _, first = db.register(HASH, route(VALUE_MSAT // 2), 2)
    _, second = db.register(HASH, route(VALUE_MSAT // 2), 2)
    payment = db.settle_attempt(HASH, first.attempt_id, PREIMAGE, 3)

    assert (payment.status, payment.preimage, payment.fee_msat) == (PaymentStatus.IN_FLIGHT, PREIMAGE, FEE_MSAT)
    assert next_step(payment) is Step.WAIT
    ended = db.settle_attempt(HASH, second.attempt_id, PREIMAGE, 4)
    assert (ended.status, ended.fee_msat) == (PaymentStatus.SUCCEEDED, 2 * FEE_MSAT)


def test_a_reason_is_stored_over_any_other_even_after_success(db: PaymentDb) -> None:
    _, out = db.register(HASH, route(), 2)
    db.settle_attempt(HASH, out.attempt_id, PREIMAGE, 3)
    payment = db.fail_payment(HASH, FailureReason.TIMEOUT)

    assert (payment.status, payment.failure_reason) == (PaymentStatus.SUCCEEDED, FailureReason.TIMEOUT)


def test_the_same_hash_is_refused_before_while_and_after_it_is_paid(db: PaymentDb) -> None:
    def refusal() -> str:
        with pytest.raises(AlreadyExists) as error:
            db.init(HASH, VALUE_MSAT, "", 9)
        return str(error.value)

    texts = [refusal()]
    _, out = db.register(HASH, route(), 2)
    texts.append(refusal())
    db.settle_attempt(HASH, out.attempt_id, PREIMAGE, 3)
    texts.append(refusal())

    assert texts == ["payment already exists", "payment is in transition", "invoice is already paid"]


def test_a_failed_hash_starts_anew_and_its_history_is_lost(db: PaymentDb) -> None:
    _, out = db.register(HASH, route(), 2)
    db.fail_payment(HASH, FailureReason.NO_ROUTE)
    first = db.fail_attempt(HASH, out.attempt_id, CANCELED, 3)
    again = db.init(HASH, VALUE_MSAT, "", 9)

    assert again.payment_index > first.payment_index
    assert (again.attempts, again.failure_reason) == ((), FailureReason.NONE)


def test_when_it_has_ended_the_failed_attempts_go_and_the_settled_stay(db: PaymentDb) -> None:
    _, failed = db.register(HASH, route(), 2)
    db.fail_attempt(HASH, failed.attempt_id, CANCELED, 3)
    _, settled = db.register(HASH, route(), 4)
    db.settle_attempt(HASH, settled.attempt_id, PREIMAGE, 5)

    assert [one.attempt_id for one in db.delete_failed_attempts(HASH).attempts] == [settled.attempt_id]


def test_a_payment_that_is_out_cannot_be_deleted(db: PaymentDb) -> None:
    _, out = db.register(HASH, route(), 2)
    with pytest.raises(InTransition):
        db.delete(HASH)

    db.settle_attempt(HASH, out.attempt_id, PREIMAGE, 3)
    db.delete(HASH)

    with pytest.raises(NotInitiated):
        db.fetch(HASH)


def test_a_kill_loses_payment_indexes(db: PaymentDb) -> None:
    db.lose_indexes()

    assert db.init(b"x" * 32, 1, "", 2).payment_index == 1002
