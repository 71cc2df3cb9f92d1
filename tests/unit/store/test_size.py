"""What an order leaves behind on the disk when it is closed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

from holdpay.core import events as ev
from holdpay.core.lightning import AttemptStatus
from holdpay.core.machine import decide
from holdpay.ports import Limits
from holdpay.store.store import SqliteStore
from tests.unit.build import ALICE, NOW_MS, POLICY, S, attempt, failed, in_flight, invoice, order, replied, settled

LIMITS = Limits(max_open_orders=10**6, max_pending_sat=10**12, max_spend_per_day_sat=10**12)
COUNT = 400
MAX_BYTES = 6_000
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"


def _drawn(rng: Random, letters: str, length: int) -> str:
    return "".join(rng.choice(letters) for _ in range(length))


def _life(db: SqliteStore, n: int, rng: Random) -> Iterator[None]:
    """An order whose first payment failed on the way, as sms4sats and lnd tell of it: 13 rows of the journal."""
    preimage = f"{n:064x}"
    hash_ = hashlib.sha256(bytes.fromhex(preimage)).hexdigest()
    payreq = "lnbc20u1p" + _drawn(rng, BECH32, 330)
    now = order(id=_drawn(rng, LETTERS, 10), key=_drawn(rng, LETTERS, 36), created_at_ms=NOW_MS + n)
    db.create(now, LIMITS, NOW_MS)
    number, code = f"1555{rng.randrange(10**7):07d}", f"{rng.randrange(10**6):06d}"

    def reply(**said: str) -> str:
        body = {"status": "OK", "paid": True, "id": hash_, "timestamp": NOW_MS + rng.randrange(10**8), **said}
        return json.dumps({**body, "country": "United States", "service": "OpenAI"}, separators=(",", ":"))

    def tried(number_of_try: int, status: AttemptStatus = AttemptStatus.IN_FLIGHT, **more: int) -> ev.PaymentReported:
        one = attempt(status, attempt_id=n * 3 + number_of_try, **more)
        return failed(one) if status is AttemptStatus.FAILED else in_flight(one)

    placed = json.dumps({"status": "OK", "orderId": hash_, "payreq": payreq})
    story: list[tuple[int, ev.Event, str | None]] = [
        (1, ev.OrderPlaced(hash_, payreq), placed),
        (1, ev.InvoiceDecoded(invoice(payment_hash=hash_), ALICE, seen_before=False), None),
        (1, ev.DispatchIntended(ALICE), None),
        (2, tried(1), None),
        (3, tried(1, AttemptStatus.FAILED, failure_code=18, failure_source_index=1), None),
        (4, replied(NOW_MS + 4 * S), reply()),
        (4, ev.DispatchIntended(ALICE), None),
        (5, tried(2), None),
        (6, tried(3), None),
        (68, replied(NOW_MS + 68 * S, paid=True), reply()),
        (75, replied(NOW_MS + 75 * S, paid=True, number=number), reply(number=number)),
        (90, ev.DaemonRestarted(), None),
        (91, tried(3), None),
        (110, replied(NOW_MS + 110 * S, paid=True, number=number, code=code), reply(number=number, code=code)),
        (111, settled(preimage=preimage), None),
    ]
    for at_s, event, raw in story:
        step = decide(now, event, POLICY, NOW_MS + at_s * S)
        if step.is_change:
            db.commit(now, event, step, raw, NOW_MS + at_s * S)
            now = step.order
        yield
    assert now.is_closed


def test_a_closed_order_takes_six_kilobytes_at_most_with_all_its_indexes(tmp_path: Path) -> None:
    """Eight at a time: their rows lie between each other's, as those of a busy daemon."""
    path, rng = tmp_path / "holdpay.db", Random(1)
    with closing(SqliteStore(path)) as db:
        db._rows("PRAGMA synchronous = OFF")
        coming = iter([_life(db, n, rng) for n in range(COUNT)])
        open_now = [next(coming) for _ in range(8)]
        while open_now:
            chosen = rng.choice(open_now)
            if next(chosen, "ended") == "ended":
                open_now.remove(chosen)
                open_now.extend(one for one in [next(coming, None)] if one is not None)
        assert db._one("SELECT count(*) FROM orders WHERE closed_at_ms IS NOT NULL") == COUNT
        rows = db._one("SELECT count(*) FROM journal") / COUNT
    assert rows >= 13
    assert path.stat().st_size / COUNT <= MAX_BYTES
