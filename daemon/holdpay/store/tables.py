"""The tables since migration 0009: those of ``ground``, each fact once, and small.

Tables refer to an order by its number, which is its rowid. What is delivered, what the provider said and what the buyer
wrote is sealed (see ``sealing``); the journal and the replies are packed (see ``packing``, and ``journal`` for what is
in them). ``requests`` is as ``clients`` has it, and so is whose each row is.
"""

from __future__ import annotations

from typing import Final

TABLES: Final = (
    """
    CREATE TABLE orders (
      no INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      request_id TEXT NOT NULL REFERENCES requests (id),
      kind TEXT NOT NULL,                  -- the request's, for the indexes
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
      payreq TEXT,                         -- the payment's too
      provider_text TEXT,
      cancel_wanted_at_ms INTEGER,
      cancel_at_ms INTEGER,
      giving_up TEXT,
      anomaly_count INTEGER NOT NULL,
      closed_at_ms INTEGER,
      "end" TEXT,
      reason TEXT NOT NULL,
      erased_at_ms INTEGER,
      quarantined_at_ms INTEGER,
      quarantine_reason TEXT NOT NULL,
      reserved_msat INTEGER NOT NULL,      -- what the limits count for this order now
      CHECK ((closed_at_ms IS NULL) = ("end" IS NULL))
    ) STRICT
    """,
    """
    CREATE TABLE keys (
      order_no INTEGER PRIMARY KEY REFERENCES orders (no),
      key BLOB NOT NULL                    -- seals what is erased one day; 16 bytes of 0: it is erased
    ) STRICT
    """,
    """
    CREATE TABLE secrets (
      request_id TEXT PRIMARY KEY REFERENCES requests (id),
      spec BLOB NOT NULL                   -- sealed JSON: all of it, until it is erased
    ) STRICT
    """,
    """
    CREATE TABLE payments (
      order_no INTEGER PRIMARY KEY REFERENCES orders (no),
      payment_hash TEXT NOT NULL UNIQUE,   -- LND's own guard goes with DeleteAllPayments; ours stays
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
      refusal TEXT,
      was_there_before INTEGER NOT NULL,
      gone_since_ms INTEGER,
      first_look_height INTEGER,
      uncarried_since_ms INTEGER,
      is_paid_before INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE htlc_attempts (
      order_no INTEGER NOT NULL REFERENCES payments (order_no),
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
      PRIMARY KEY (order_no, attempt_id)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE charges (
      order_no INTEGER PRIMARY KEY REFERENCES orders (no),
      state TEXT NOT NULL,
      since_ms INTEGER NOT NULL,
      amount_sat INTEGER NOT NULL,
      balance_before_sat INTEGER,
      intended_at_ms INTEGER NOT NULL,
      unmoved_since_ms INTEGER
    ) STRICT
    """,
    """
    CREATE TABLE journal (
      cursor INTEGER PRIMARY KEY AUTOINCREMENT,
      order_no INTEGER NOT NULL REFERENCES orders (no),
      at_ms INTEGER NOT NULL,
      entry BLOB NOT NULL                  -- packed: the event, what it changed, its data unless they are in replies
    ) STRICT
    """,
    """
    CREATE TABLE replies (
      cursor INTEGER PRIMARY KEY REFERENCES journal (cursor),
      said BLOB NOT NULL,                  -- packed and sealed: the event's data, and the reply behind it
      raw_sha256 BLOB                      -- sealed: of the whole reply
    ) STRICT
    """,
    """
    CREATE TABLE items (
      order_no INTEGER NOT NULL REFERENCES orders (no),
      seq INTEGER NOT NULL,                -- its place, from 0
      kind TEXT NOT NULL,
      text ANY NOT NULL,                   -- sealed, but for how a sending goes
      seen_at_ms INTEGER NOT NULL,
      may_lack_zeros INTEGER NOT NULL,
      cursor INTEGER NOT NULL,             -- of the journal row that brought it
      PRIMARY KEY (order_no, seq)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE ledger (
      id INTEGER PRIMARY KEY,
      order_no INTEGER NOT NULL REFERENCES orders (no),
      what TEXT NOT NULL CHECK (what IN ('reserve', 'release', 'spend')),
      msat INTEGER NOT NULL,               -- of a spend that is corrected downwards: negative
      at_ms INTEGER NOT NULL               -- of a correction: when the spend that it corrects was
    ) STRICT
    """,
)

# What every client may ask for, newest first: all, the open and the closed ones, each of one kind or of all, those of
# one end. A partial index is used only by a query that says the same words.
INDEXES: Final = (
    "CREATE INDEX orders_request ON orders (request_id)",
    "CREATE INDEX orders_created ON orders (created_at_ms, id)",
    "CREATE INDEX orders_open ON orders (created_at_ms, id) WHERE closed_at_ms IS NULL",
    "CREATE INDEX orders_closed ON orders (created_at_ms, id) WHERE closed_at_ms IS NOT NULL",
    "CREATE INDEX orders_kind ON orders (kind, created_at_ms, id)",
    "CREATE INDEX orders_kind_open ON orders (kind, created_at_ms, id) WHERE closed_at_ms IS NULL",
    "CREATE INDEX orders_kind_closed ON orders (kind, created_at_ms, id) WHERE closed_at_ms IS NOT NULL",
    'CREATE INDEX orders_end ON orders ("end", created_at_ms, id) WHERE "end" IS NOT NULL',
    'CREATE INDEX orders_kind_end ON orders (kind, "end", created_at_ms, id) WHERE "end" IS NOT NULL',
    """
    CREATE INDEX orders_to_erase ON orders (closed_at_ms)
    WHERE erased_at_ms IS NULL AND closed_at_ms IS NOT NULL
    """,
    "CREATE INDEX orders_provider_order_id ON orders (provider_order_id) WHERE provider_order_id IS NOT NULL",
    # What may have moved the account's balance.
    "CREATE INDEX charges_since ON charges (since_ms)",
    "CREATE INDEX orders_funding_closed ON orders (closed_at_ms) WHERE kind = 'fund'",
    "CREATE INDEX orders_sending_closed ON orders (closed_at_ms) WHERE kind IN ('sms', 'email')",
    "CREATE INDEX journal_order ON journal (order_no)",  # its rowid, the cursor, is in it
    # What the limits count as spent.
    "CREATE INDEX ledger_spent ON ledger (at_ms, msat) WHERE what = 'spend'",
    "CREATE INDEX ledger_order ON ledger (order_no)",
)

TRIGGERS: Final = (
    *(
        f"""
        CREATE TRIGGER {table}_is_append_only BEFORE UPDATE ON {table}
        BEGIN SELECT RAISE(ABORT, 'the {table} is append-only'); END
        """
        for table in ("journal", "ledger")
    ),
    *(
        f"""
        CREATE TRIGGER {table}_is_kept BEFORE DELETE ON {table}
        BEGIN SELECT RAISE(ABORT, 'the {table} is append-only'); END
        """
        for table in ("journal", "ledger")
    ),
    """
    CREATE TRIGGER replies_are_append_only BEFORE UPDATE ON replies
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END
    """,
    # Of an order that is marked as erased they go.
    """
    CREATE TRIGGER replies_are_kept BEFORE DELETE ON replies
    WHEN (SELECT erased_at_ms FROM orders WHERE no = (SELECT order_no FROM journal WHERE cursor = OLD.cursor)) IS NULL
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END
    """,
    # A key never moves within the file, or an old copy of it would stay behind.
    """
    CREATE TRIGGER keys_stay_where_they_are BEFORE DELETE ON keys
    BEGIN SELECT RAISE(ABORT, 'a key is overwritten, never deleted'); END
    """,
    """
    CREATE TRIGGER keys_are_overwritten_when_erased BEFORE UPDATE ON keys
    WHEN NEW.order_no <> OLD.order_no OR NEW.key <> zeroblob(16)
      OR (SELECT erased_at_ms FROM orders WHERE no = OLD.order_no) IS NULL
    BEGIN SELECT RAISE(ABORT, 'a key is overwritten only when its order is erased'); END
    """,
)
