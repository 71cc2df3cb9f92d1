"""Reads the three books for ``tests.reconcile``: each from where its owner keeps it, none through the daemon."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from holdpay.sandbox.bolt11 import Invoice, decode
from holdpay.sandbox.lnd_model import PaymentStatus
from holdpay.sandbox.payee import HoldInvoices, Settled
from holdpay.sandbox.sms4sats_numbers import NumberOrder
from holdpay.sandbox.world import SandboxWorld
from tests.books import JournalOrder, JournalPayment, JournalRow, LndPayment, ProviderOrder
from tests.regtest.node import Node
from tests.spoiling import opened

NETWORK = "simnet"


# --- the journal ----------------------------------------------------------------------------------------------------


def read_journal(database: Path) -> tuple[JournalOrder, ...]:
    """The daemon's database as it lies on the disk. The daemon must not run.

    A copy is read: to open the original would check its WAL in, which the next daemon must be able to do itself.
    """
    with tempfile.TemporaryDirectory(prefix="holdpay-journal-") as scratch:
        copy = Path(scratch) / database.name
        for suffix in ("", "-wal"):
            if database.with_name(database.name + suffix).exists():
                shutil.copyfile(database.with_name(database.name + suffix), copy.with_name(copy.name + suffix))
        with closing(sqlite3.connect(copy)) as conn:
            conn.row_factory = sqlite3.Row
            assert [row[0] for row in conn.execute("PRAGMA integrity_check")] == ["ok"]
            if not conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'keys'").fetchall():
                return ()  # killed before it had made its tables
            with opened(conn):
                return _read(conn)


def _read(conn: sqlite3.Connection) -> tuple[JournalOrder, ...]:
    rows: defaultdict[str, list[JournalRow]] = defaultdict(list)
    now: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    codes: defaultdict[str, list[sqlite3.Row]] = defaultdict(list)
    for item in conn.execute("SELECT * FROM items WHERE kind = 'code' ORDER BY order_id, seq"):
        codes[item["order_id"]].append(item)
    for row in conn.execute("SELECT * FROM journal LEFT JOIN replies USING (cursor) ORDER BY cursor"):
        order_id = row["order_id"]
        now[order_id].update(json.loads(row["change"]))
        rows[order_id].append(_row(row, now[order_id], codes[order_id]))
    of_orders = conn.execute("SELECT id, payments.* FROM payments JOIN orders ON no = order_no")
    payments = {row["id"]: _payment(row) for row in of_orders}
    orders = conn.execute(
        "SELECT o.*, r.spec FROM orders o JOIN requests r ON r.id = o.request_id ORDER BY o.created_at_ms, o.id"
    )
    return tuple(_order(row, payments.get(row["id"]), rows[row["id"]], codes[row["id"]]) for row in orders)


def _row(row: sqlite3.Row, after: Mapping[str, Any], codes: Iterable[sqlite3.Row]) -> JournalRow:
    """``after``: all that the changes up to this row say."""
    return JournalRow(
        cursor=row["cursor"],
        event=row["event"],
        says_paid=_says_paid(row["raw"]),
        state=after["state"],
        htlc=after.get("payment.htlc") or "none",
        code=next((code["text"] for code in codes if code["cursor"] <= row["cursor"]), None),
        end=after.get("end"),
    )


def _says_paid(raw: str | None) -> bool:
    try:
        reply = json.loads(raw or "{}")
    except ValueError:
        return False  # garbage, kept as it came
    return isinstance(reply, dict) and reply.get("paid") is True


def _payment(row: sqlite3.Row) -> JournalPayment:
    return JournalPayment(
        payment_hash=row["payment_hash"],
        amount_msat=row["amount_msat"],
        fee_msat=row["fee_msat"],
        htlc=row["htlc"],
        dispatch_count=row["dispatch_count"],
        preimage=row["preimage"],
    )


def _order(
    row: sqlite3.Row, payment: JournalPayment | None, rows: Iterable[JournalRow], codes: Iterable[sqlite3.Row]
) -> JournalOrder:
    spec = json.loads(row["spec"])
    first = next(iter(codes), None)
    return JournalOrder(
        id=row["id"],
        goods=(spec.get("country_name", ""), spec.get("service_name", "")),
        state=row["state"],
        end=row["end"],
        code=None if first is None else first["text"],
        code_may_lack_zeros=first is not None and bool(first["may_lack_zeros"]),
        provider_order_id=row["provider_order_id"],
        max_price_sat=row["max_price_sat"],
        max_fee_sat=row["max_fee_sat"],
        payment=payment,
        rows=tuple(rows),
    )


# --- lnd ------------------------------------------------------------------------------------------------------------


def sandbox_payments(world: SandboxWorld) -> tuple[LndPayment, ...]:
    """The simulated lnd's payments; what was settled is read off the HTLCs of its channels, not off its payments."""
    settled_msat: defaultdict[bytes, list[int]] = defaultdict(list)
    for htlc in world.lnd.network.htlcs.values():
        if htlc.result.done() and isinstance(htlc.result.result(), Settled):
            settled_msat[htlc.payment_hash].append(htlc.amount_msat)
    return tuple(
        LndPayment(
            payment_hash=payment.payment_hash.hex(),
            status="IN_FLIGHT" if payment.status is PaymentStatus.INITIATED else payment.status.name,
            value_msat=payment.value_msat,
            fee_msat=payment.fee_msat,
            settled_htlcs_msat=tuple(settled_msat[payment.payment_hash]),
        )
        for payment in world.lnd.node.db.all()
    )


async def real_payments(payer: Node, payee_pubkey: str, after_index: int) -> tuple[LndPayment, ...]:
    """All of ListPayments that goes to the payee, from a payment_index on; failed ones and those in flight too."""
    return tuple(
        _real_payment(payment)
        for payment in await payer.payments(after_index)
        if _invoice(payment["payment_request"]).payee_pubkey.hex() == payee_pubkey
    )


async def last_payment_index(payer: Node) -> int:
    """Of the latest payment; 0 before the first."""
    answer = await payer.rest.get("/v1/payments", {"include_incomplete": "true", "reversed": "true", "max_payments": 1})
    return max((int(payment["payment_index"]) for payment in answer["payments"]), default=0)


def _real_payment(payment: Mapping[str, Any]) -> LndPayment:
    return LndPayment(
        payment_hash=payment["payment_hash"],
        status="IN_FLIGHT" if payment["status"] == "INITIATED" else payment["status"],
        value_msat=int(payment["value_msat"]),
        fee_msat=int(payment["fee_msat"]),
        settled_htlcs_msat=tuple(
            int(htlc["route"]["total_amt_msat"]) for htlc in payment["htlcs"] if htlc["status"] == "SUCCEEDED"
        ),
    )


# --- the provider ---------------------------------------------------------------------------------------------------


async def provider_orders(orders: Iterable[NumberOrder], payee: HoldInvoices) -> tuple[ProviderOrder, ...]:
    """The provider's orders, each with the state of its hold invoice at the payee.

    One more may come meanwhile: what a daemon asked for before it was killed.
    """
    return tuple(
        [
            ProviderOrder(
                order_id=order.order_id,
                payment_hash=order.payment_hash.hex(),
                goods=(order.country, order.service),
                amount_msat=_invoice(order.payreq).terms.amount_msat or 0,
                invoice=(await payee.state(order.payment_hash)).value,
                code=order.code,
            )
            for order in [*orders]
        ]
    )


@cache
def _invoice(payreq: str) -> Invoice:
    return decode(payreq, NETWORK)
