"""Migration 0020: a fingerprint that is made of what the buyer wrote is sealed and erased with it. It never changes any
more.

It is a digest without a salt: whoever has the file could try phone numbers and likely texts until one fits, also long
after the text was erased. Of an order that is erased already it is overwritten: its key compares with nothing then. The
fingerprints of all other kinds are made of what stands beside them.
"""

from __future__ import annotations

from typing import Final

from sqlite_utils import Database

from holdpay.store.sealing import seal

_WRITTEN: Final = """
    SELECT s.request_id, CAST(r.fingerprint AS BLOB), k.key
    FROM secrets s JOIN requests r ON r.id = s.request_id JOIN orders o ON o.request_id = r.id
    JOIN keys k ON k.order_no = o.no
"""
_SEAL: Final = "UPDATE secrets SET fingerprint = ? WHERE request_id = ?"
_OVERWRITE: Final = "UPDATE requests SET fingerprint = '' WHERE kind IN ('sms', 'email')"


def seal_all(db: Database) -> None:
    """Within the caller's transaction."""
    db.execute("ALTER TABLE secrets ADD COLUMN fingerprint BLOB")  # sealed
    for request_id, fingerprint, key in db.execute(_WRITTEN).fetchall():
        db.execute(_SEAL, [seal(key, "fingerprint", fingerprint), request_id])
    db.execute(_OVERWRITE)
