"""Texts of the journal as they lie in the database: deflated, with a dictionary that is known beforehand.

A packed text is the number of its dictionary (one byte), the CRC-32 of what is unpacked (four), and raw deflate. A row
has a few hundred characters, most of them names: alone it would hardly be deflated at all.
"""

from __future__ import annotations

import re
import zlib
from typing import Final

from holdpay.store.dictionary import DICTIONARIES, DISTANCE_MARK

NEWEST: Final = max(DICTIONARIES)
_WINDOW_BITS: Final = -13  # no header: 8 KiB
_MEMORY_LEVEL: Final = 6  # a hash for each place in the window: more would be copied with each packer for nothing
_HEADER_BYTES: Final = 5
# A time in JSON, and how far it is from another time behind a character that JSON never has as it is.
_TIME: Final = re.compile(r"([:\[,])([1-9][0-9]{12})(?=[,\]}])")
_DISTANCE: Final = re.compile(f"{DISTANCE_MARK}(-?[0-9]+)")


def pack(text: str, context: str = "") -> bytes:
    """``context``: a text that is known where this one is unpacked; what stands in it costs next to nothing."""
    data = text.encode(errors="surrogatepass")
    packer = _packer(context) if context else _PRIMED.copy()
    crc = zlib.crc32(data).to_bytes(4, "big")
    return bytes([NEWEST]) + crc + packer.compress(data) + packer.flush()


def _packer(context: str) -> zlib._Compress:
    zdict = _dictionary(NEWEST, context)
    return zlib.compressobj(9, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zlib.Z_DEFAULT_STRATEGY, zdict)


def unpack(packed: bytes, context: str = "") -> str:
    """Raises ValueError if it is damaged."""
    if len(packed) <= _HEADER_BYTES or packed[0] not in DICTIONARIES:
        raise ValueError("nothing that was packed")
    try:
        unpacker = zlib.decompressobj(_WINDOW_BITS, zdict=_dictionary(packed[0], context))
        data = unpacker.decompress(packed[_HEADER_BYTES:]) + unpacker.flush()
    except zlib.error as error:
        raise ValueError("damaged") from error
    is_whole = unpacker.eof and not unpacker.unused_data
    if not is_whole or zlib.crc32(data).to_bytes(4, "big") != packed[1:_HEADER_BYTES]:
        raise ValueError("damaged")
    return data.decode(errors="surrogatepass")


def _dictionary(number: int, context: str) -> bytes:
    return DICTIONARIES[number] + context.encode(errors="surrogatepass")


_PRIMED: Final = _packer("")
"""It has read the dictionary, which takes longer than what is packed with a copy of it."""


def relative(json_text: str, at_ms: int) -> str:
    """The times in ms of a JSON text of ours as how far they are from ``at_ms``: mostly not at all."""
    return _TIME.sub(lambda found: f"{found[1]}{DISTANCE_MARK}{int(found[2]) - at_ms}", json_text)


def absolute(text: str, at_ms: int) -> str:
    """The inverse of ``relative``."""
    return _DISTANCE.sub(lambda found: str(int(found[1]) + at_ms), text)
