"""Migration 0019: a request may have several orders in turn, and has an end of its own."""

from __future__ import annotations

from typing import Final

from sqlite_utils import Database

_COLUMNS: Final = (
    "ALTER TABLE requests ADD COLUMN strategy TEXT",  # JSON; NULL: it has one order
    "ALTER TABLE requests ADD COLUMN closed_at_ms INTEGER",  # with its last order
    'ALTER TABLE requests ADD COLUMN "end" TEXT',
    "ALTER TABLE orders ADD COLUMN nth INTEGER NOT NULL DEFAULT 1",
    "ALTER TABLE orders ADD COLUMN country INTEGER",  # of an order whose country is not its request's
    "ALTER TABLE orders ADD COLUMN country_name TEXT",
    "ALTER TABLE orders ADD COLUMN moved_on TEXT",
    "ALTER TABLE orders ADD COLUMN succession TEXT",
)
# Every request has one order by now.
_FILL: Final = """
    UPDATE requests SET (closed_at_ms, "end") = (SELECT closed_at_ms, "end" FROM orders WHERE request_id = requests.id)
"""
# What every client may ask for, newest first, is asked of the requests now.
_LISTS: Final = (
    "created",
    "closed",
    "kind",
    "kind_open",
    "kind_closed",
    "end",
    "kind_end",
    "client_closed",
    "client_kind",
    "client_kind_open",
    "client_kind_closed",
    "client_end",
    "client_kind_end",
)
_OPEN: Final = "closed_at_ms IS NULL"
_CLOSED: Final = "closed_at_ms IS NOT NULL"
_ENDED: Final = '"end" IS NOT NULL'
INDEXES: Final = (
    # Never two orders of a request that are open, nor one that is to be made beside one that is there.
    """
    CREATE UNIQUE INDEX orders_live ON orders (request_id) WHERE closed_at_ms IS NULL OR succession = 'going_on'
    """,
    "CREATE INDEX orders_going_on ON orders (no) WHERE succession = 'going_on'",
    "CREATE INDEX requests_created ON requests (created_at_ms, id)",
    f"CREATE INDEX requests_open ON requests (created_at_ms, id) WHERE {_OPEN}",
    f"CREATE INDEX requests_closed ON requests (created_at_ms, id) WHERE {_CLOSED}",
    "CREATE INDEX requests_kind ON requests (kind, created_at_ms, id)",
    f"CREATE INDEX requests_kind_open ON requests (kind, created_at_ms, id) WHERE {_OPEN}",
    f"CREATE INDEX requests_kind_closed ON requests (kind, created_at_ms, id) WHERE {_CLOSED}",
    f'CREATE INDEX requests_end ON requests ("end", created_at_ms, id) WHERE {_ENDED}',
    f'CREATE INDEX requests_kind_end ON requests (kind, "end", created_at_ms, id) WHERE {_ENDED}',
    *(
        f"CREATE INDEX requests_client{name} ON requests (client, {columns}created_at_ms, id) WHERE client <> ''{of}"
        for name, columns, of in (
            ("", "", ""),
            ("_open", "", f" AND {_OPEN}"),
            ("_closed", "", f" AND {_CLOSED}"),
            ("_kind", "kind, ", ""),
            ("_kind_open", "kind, ", f" AND {_OPEN}"),
            ("_kind_closed", "kind, ", f" AND {_CLOSED}"),
            ("_end", '"end", ', f" AND {_ENDED}"),
            ("_kind_end", 'kind, "end", ', f" AND {_ENDED}"),
        )
    ),
)


def make(db: Database) -> None:
    """Adds the columns, fills them in, and moves the indexes of the lists from the orders to the requests."""
    for statement in (*_COLUMNS, _FILL, *(f"DROP INDEX orders_{name}" for name in _LISTS), *INDEXES):
        db.execute(statement)
