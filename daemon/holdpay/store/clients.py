"""Migration 0017: whose each request is. It never changes any more.

A client's name stands beside the request in what is looked up or summed by client, so that an index has it; of the
operator it is empty, and the indexes of clients leave the operator's out. An idempotency key is unique per client.
"""

# ruff: noqa: S608 - names of our own columns only
from __future__ import annotations

from typing import Final

from sqlite_utils import Database

_REQUESTS: Final = """
    CREATE TABLE requests (
      id TEXT PRIMARY KEY,
      client TEXT NOT NULL,                -- its name in the configuration of then; empty: the operator's own
      key TEXT NOT NULL,                   -- the client's idempotency key
      fingerprint TEXT NOT NULL,
      kind TEXT NOT NULL,
      spec TEXT NOT NULL,                  -- JSON: what is bought, without what is the buyer's own business
      is_prepaid INTEGER NOT NULL,
      created_at_ms INTEGER NOT NULL,
      UNIQUE (client, key)
    ) STRICT
"""
_COPIED: Final = "id, key, fingerprint, kind, spec, is_prepaid, created_at_ms"
_COLUMNS: Final = (
    *(
        f"ALTER TABLE {table} ADD COLUMN client TEXT NOT NULL DEFAULT ''"  # the request's, for the indexes
        for table in ("orders", "journal", "ledger")
    ),
    "ALTER TABLE ledger ADD COLUMN fee_msat INTEGER NOT NULL DEFAULT 0",  # of a spend: how much of it is routing fee
)
# As the operator's own indexes (see ``tables``), each below the client. A partial index is used only by a query that
# says the same words.
_INDEXES: Final = (
    "CREATE INDEX orders_client ON orders (client, created_at_ms, id) WHERE client <> ''",
    """
    CREATE INDEX orders_client_open ON orders (client, created_at_ms, id) WHERE client <> '' AND closed_at_ms IS NULL
    """,
    """
    CREATE INDEX orders_client_closed ON orders (client, created_at_ms, id)
    WHERE client <> '' AND closed_at_ms IS NOT NULL
    """,
    "CREATE INDEX orders_client_kind ON orders (client, kind, created_at_ms, id) WHERE client <> ''",
    """
    CREATE INDEX orders_client_kind_open ON orders (client, kind, created_at_ms, id)
    WHERE client <> '' AND closed_at_ms IS NULL
    """,
    """
    CREATE INDEX orders_client_kind_closed ON orders (client, kind, created_at_ms, id)
    WHERE client <> '' AND closed_at_ms IS NOT NULL
    """,
    """
    CREATE INDEX orders_client_end ON orders (client, "end", created_at_ms, id)
    WHERE client <> '' AND "end" IS NOT NULL
    """,
    """
    CREATE INDEX orders_client_kind_end ON orders (client, kind, "end", created_at_ms, id)
    WHERE client <> '' AND "end" IS NOT NULL
    """,
    "CREATE INDEX journal_client ON journal (client) WHERE client <> ''",  # its rowid, the cursor, is in it
    # What a budget counts as spent. With all that the sums read, also what the index itself is about.
    """
    CREATE INDEX ledger_client ON ledger (client, at_ms, msat, fee_msat, order_no, what)
    WHERE what = 'spend' AND client <> ''
    """,
)


def give_to_clients(db: Database) -> None:
    """What is there is the operator's. Within the caller's transaction."""
    # The table goes and comes again under its name; whether each order has its request is looked at when it is there.
    db.execute("PRAGMA defer_foreign_keys = ON")
    db.execute(f"CREATE TABLE earlier_requests AS SELECT {_COPIED} FROM requests ORDER BY rowid")
    db.execute("DROP TABLE requests")
    db.execute(_REQUESTS)
    db.execute(f"INSERT INTO requests (client, {_COPIED}) SELECT '', {_COPIED} FROM earlier_requests ORDER BY rowid")
    db.execute("DROP TABLE earlier_requests")
    for statement in (*_COLUMNS, *_INDEXES):
        db.execute(statement)
