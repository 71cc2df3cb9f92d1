"""What is erased one day lies in the database under a key of its order. To erase it is to overwrite the key.

SQLite leaves copies of cells in the gaps of pages wherever it moves some; secure_delete does not reach them. Copies of
what is sealed tell nothing once the key is gone, and the key never moves: its table only ever grows at its end, in the
order of its rowids, and is overwritten in place. (The key lies beside what it opens: this keeps nothing from whoever
has the file before it is erased.)
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

KEY_BYTES: Final = 16
NO_KEY: Final = bytes(KEY_BYTES)
"""What a key is overwritten with."""


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def seal(key: bytes, name: str, data: bytes) -> bytes:
    """``name``: unique among all that is sealed with this key, and known where it is opened. Sealing again opens."""
    stream = hashlib.shake_256(key + name.encode()).digest(len(data))
    return (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(data), "big")


unseal: Final = seal
