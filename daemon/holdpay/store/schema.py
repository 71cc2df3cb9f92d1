"""The tables. They are made and changed in migrations only, so that a misspelt name can never create one."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Final

from sqlite_utils import Database, Migrations

from holdpay.store import fingerprints, strategies
from holdpay.store.clients import give_to_clients
from holdpay.store.compacting import compact
from holdpay.store.dispatching import make_dispatches
from holdpay.store.hook_tables import TABLES as HOOKS
from holdpay.store.moving import move
from holdpay.store.note import NOTE_TABLE
from holdpay.store.payees import TABLES as PAYEES

migrations = Migrations("holdpay")


@migrations(name="0001_first")
def _first(db: Database) -> None:
    for statement in _FIRST:
        db.execute(statement)


@migrations(name="0002_erasing")
def _erasing(db: Database) -> None:
    for statement in _ERASING:
        db.execute(statement)


@migrations(name="0003_replies")
def _replies(db: Database) -> None:
    for statement in _REPLIES:
        db.execute(statement)


@migrations(name="0004_gone_records")
def _gone_records(db: Database) -> None:
    for statement in _GONE_RECORDS:
        db.execute(statement)


@migrations(name="0005_quarantine")
def _quarantine(db: Database) -> None:
    for statement in _QUARANTINE:
        db.execute(statement)


@migrations(name="0006_spend")
def _spend(db: Database) -> None:
    db.execute("ALTER TABLE payments ADD COLUMN is_paid_before INTEGER NOT NULL DEFAULT 0")
    db.execute("ALTER TABLE payments ADD COLUMN was_there_before INTEGER NOT NULL DEFAULT 0")


@migrations(name="0007_erasing", transactional=False)  # VACUUM runs outside of one; a second run does no harm
def _erasing_everything(db: Database) -> None:
    for statement in _ERASING_EVERYTHING:
        db.execute(statement)
    # Earlier releases left what was erased in freed pages. It takes as much room beside the database as it has itself:
    # without that the daemon starts all the same, and a round of erasing does it later.
    with contextlib.suppress(sqlite3.OperationalError):
        db.execute("VACUUM")


@migrations(name="0008_ground")
def _ground(db: Database) -> None:
    move(db)


@migrations(name="0009_compact")
def _compact(db: Database) -> None:
    compact(db)


@migrations(name="0010_hops")
def _hops(db: Database) -> None:
    for column in ("first_hop", "first_channel", "failed_hop", "failed_channel"):
        db.execute(f"ALTER TABLE htlc_attempts ADD COLUMN {column} TEXT")


@migrations(name="0011_tries")
def _tries(db: Database) -> None:
    db.execute("ALTER TABLE payments ADD COLUMN failure_created_at_ms INTEGER")


@migrations(name="0012_payees")
def _payees(db: Database) -> None:
    for statement in PAYEES:
        db.execute(statement)


@migrations(name="0013_hold_levels")
def _hold_levels(db: Database) -> None:
    db.execute("ALTER TABLE payments ADD COLUMN hold_level TEXT NOT NULL DEFAULT 'ok'")
    db.execute("ALTER TABLE payments ADD COLUMN hold_why TEXT NOT NULL DEFAULT ''")


@migrations(name="0014_diagnosis")
def _diagnosis(db: Database) -> None:
    for statement in _DIAGNOSIS:
        db.execute(statement)


@migrations(name="0015_places")
def _places(db: Database) -> None:
    db.execute("ALTER TABLE orders ADD COLUMN waiting_since_ms INTEGER")


@migrations(name="0016_dispatches")
def _dispatches(db: Database) -> None:
    make_dispatches(db)


@migrations(name="0017_clients")
def _clients(db: Database) -> None:
    give_to_clients(db)


FIRST_WITH_NEWEST: Final = "0018_copies"
"""Databases since then have a file beside them with the last row that was written (see ``newest``)."""


@migrations(name=FIRST_WITH_NEWEST)
def _copies(db: Database) -> None:
    db.execute("ALTER TABLE orders ADD COLUMN restored_at_ms INTEGER")
    # A copy of an earlier release has it already.
    db.execute(NOTE_TABLE)


@migrations(name="0019_strategies")
def _strategies(db: Database) -> None:
    strategies.make(db)


@migrations(name="0020_fingerprints")
def _fingerprints(db: Database) -> None:
    fingerprints.seal_all(db)


@migrations(name="0021_hooks")
def _hooks(db: Database) -> None:
    for statement in HOOKS:
        db.execute(statement)


_FIRST = (
    """
    CREATE TABLE orders (
      id TEXT PRIMARY KEY,
      kind TEXT NOT NULL,
      params TEXT NOT NULL,                -- JSON object, by kind
      key TEXT NOT NULL UNIQUE,            -- the client's idempotency key
      fingerprint TEXT NOT NULL,
      created_at_ms INTEGER NOT NULL,
      pay_by_ms INTEGER NOT NULL,
      max_price_sat INTEGER NOT NULL,
      max_fee_sat INTEGER NOT NULL,
      quote_sat INTEGER,
      state TEXT NOT NULL,
      state_since_ms INTEGER NOT NULL,
      place_count INTEGER NOT NULL,
      place_at_ms INTEGER NOT NULL,
      provider_order_id TEXT,
      payreq TEXT,
      number TEXT,
      code TEXT,
      code_may_lack_zeros INTEGER NOT NULL,
      provider_text TEXT,
      cancel_wanted_at_ms INTEGER,
      cancel_at_ms INTEGER,
      giving_up TEXT,
      anomaly_count INTEGER NOT NULL,
      closed_at_ms INTEGER,
      "end" TEXT,
      reason TEXT NOT NULL,
      reserved_msat INTEGER NOT NULL,      -- what the limits count for this order now
      CHECK ((closed_at_ms IS NULL) = ("end" IS NULL))
    ) STRICT
    """,
    "CREATE INDEX orders_open ON orders (id) WHERE closed_at_ms IS NULL",
    "CREATE INDEX orders_created ON orders (created_at_ms, id)",
    """
    CREATE TABLE payments (
      payment_hash TEXT NOT NULL UNIQUE,   -- LND's own guard goes with DeleteAllPayments; ours stays
      order_id TEXT PRIMARY KEY REFERENCES orders (id),
      payreq TEXT NOT NULL,
      payee TEXT NOT NULL,
      amount_msat INTEGER NOT NULL,
      expires_at_ms INTEGER NOT NULL,
      final_cltv_delta INTEGER NOT NULL,
      node_pubkey TEXT NOT NULL,
      node_network TEXT NOT NULL,
      htlc TEXT NOT NULL,
      htlc_since_ms INTEGER NOT NULL,
      dispatch_count INTEGER NOT NULL,
      fee_limit_msat INTEGER NOT NULL,
      dispatch_at_ms INTEGER,
      is_known_to_lnd INTEGER NOT NULL,
      reached_payee INTEGER NOT NULL,
      money_out_since_ms INTEGER,
      expiry_height INTEGER,
      fee_msat INTEGER NOT NULL,
      attempt_count INTEGER NOT NULL,
      preimage TEXT,
      failure_reason TEXT,
      failure_failure_class TEXT,
      failure_attempt_count INTEGER,
      failure_payment_index INTEGER,
      failure_at_ms INTEGER,
      unpaid_since_ms INTEGER,
      unpaid_again_at_ms INTEGER,
      absent_since_ms INTEGER,
      refusal TEXT
    ) STRICT
    """,
    "CREATE INDEX payments_settled ON payments (htlc_since_ms) WHERE htlc = 'settled'",
    """
    CREATE TABLE htlc_attempts (
      payment_hash TEXT NOT NULL REFERENCES payments (payment_hash),
      dispatch INTEGER NOT NULL,           -- which of our SendPaymentV2 calls
      attempt_id INTEGER NOT NULL,         -- LND's
      status TEXT NOT NULL,
      amount_msat INTEGER NOT NULL,
      fee_msat INTEGER NOT NULL,
      expiry_height INTEGER NOT NULL,
      hop_count INTEGER NOT NULL,
      attempted_at_ms INTEGER NOT NULL,
      resolved_at_ms INTEGER,
      failure_code INTEGER NOT NULL,
      failure_source_index INTEGER NOT NULL,
      PRIMARY KEY (payment_hash, attempt_id)
    ) STRICT
    """,
    """
    CREATE TABLE journal (
      cursor INTEGER PRIMARY KEY AUTOINCREMENT,
      order_id TEXT NOT NULL REFERENCES orders (id),
      at_ms INTEGER NOT NULL,
      event TEXT NOT NULL,
      data TEXT NOT NULL,                  -- JSON of the event
      notes TEXT NOT NULL,                 -- JSON array: anomalies and warnings
      snapshot TEXT NOT NULL,              -- JSON of the order right after the event
      raw TEXT,                            -- the reply behind it, cut at 16 KiB
      raw_sha256 TEXT                      -- of the whole reply
    ) STRICT
    """,
    "CREATE INDEX journal_order ON journal (order_id, cursor)",
    """
    CREATE TRIGGER journal_is_append_only BEFORE UPDATE ON journal
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END
    """,
    """
    CREATE TRIGGER journal_is_kept BEFORE DELETE ON journal
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END
    """,
)

_ERASING = (
    "ALTER TABLE orders ADD COLUMN erased_at_ms INTEGER",
    "DROP TRIGGER journal_is_append_only",
    # Of an order that is marked as erased what was said may be blanked; that it was said, when, and its hash stay.
    """
    CREATE TRIGGER journal_is_append_only BEFORE UPDATE ON journal
    WHEN (NEW.cursor, NEW.order_id, NEW.at_ms, NEW.event, NEW.notes, NEW.raw_sha256)
         IS NOT (OLD.cursor, OLD.order_id, OLD.at_ms, OLD.event, OLD.notes, OLD.raw_sha256)
      OR NEW.raw IS NOT NULL
      OR (SELECT erased_at_ms FROM orders WHERE id = OLD.order_id) IS NULL
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END
    """,
)

_REPLIES = (
    "CREATE INDEX orders_provider_order_id ON orders (provider_order_id)",
    "ALTER TABLE orders ADD COLUMN earlier_numbers TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE orders ADD COLUMN later_codes TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE orders ADD COLUMN unread TEXT",
    "ALTER TABLE orders ADD COLUMN unread_has_value INTEGER NOT NULL DEFAULT 0",
)

_GONE_RECORDS = (
    "ALTER TABLE payments ADD COLUMN gone_since_ms INTEGER",
    "ALTER TABLE payments ADD COLUMN first_look_height INTEGER",
    "ALTER TABLE payments ADD COLUMN uncarried_since_ms INTEGER",
    "DROP INDEX payments_settled",
    # What the limits count as spent. A query uses it only if it says the same words.
    "CREATE INDEX payments_spent ON payments (htlc_since_ms) WHERE htlc IN ('settled', 'gone')",
)

_ERASING_EVERYTHING = (
    """
    CREATE INDEX IF NOT EXISTS orders_to_erase ON orders (closed_at_ms)
    WHERE erased_at_ms IS NULL AND closed_at_ms IS NOT NULL
    """,
)

_DIAGNOSIS = (
    "ALTER TABLE payments ADD COLUMN failure_hop_place INTEGER",
    "ALTER TABLE payments ADD COLUMN failure_hop_pubkey TEXT",
    "ALTER TABLE payments ADD COLUMN failure_hop_channel TEXT",
    "ALTER TABLE payments ADD COLUMN failure_hop_code INTEGER",
    "ALTER TABLE payments ADD COLUMN diagnosis_cause TEXT",
    "ALTER TABLE payments ADD COLUMN diagnosis_text TEXT",
)

_QUARANTINE = (
    "ALTER TABLE orders ADD COLUMN quarantined_at_ms INTEGER",
    "ALTER TABLE orders ADD COLUMN quarantine_reason TEXT NOT NULL DEFAULT ''",
)
