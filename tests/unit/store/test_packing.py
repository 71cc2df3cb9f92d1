"""What is packed is unpacked as it was, by this release and every later one; what is damaged is never taken for it."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdpay.store.dictionary import DICTIONARIES
from holdpay.store.packing import absolute, pack, relative, unpack
from holdpay.store.sealing import new_key, seal, unseal
from tests.unit.build import NOW_MS

ROW = f'provider_replied\n{{"state":"paid","state_since_ms":{NOW_MS},"payment.reached_payee":1}}'
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.integers(NOW_MS - 10**9, NOW_MS + 10**9),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def test_a_dictionary_that_was_released_never_changes() -> None:
    """What was packed with it could not be read any more. Another one gets another number."""
    assert {number: hashlib.sha256(text).hexdigest() for number, text in DICTIONARIES.items()} == {
        1: "749d0085c9c3fa9ae64e8c8cd8e00771dcffee63e292b796fb54ebc890ccee71"
    }


def test_what_the_first_release_packed_is_read() -> None:
    packed = bytes.fromhex(PACKED_BY_THE_FIRST)
    assert absolute(unpack(packed), NOW_MS) == ROW


PACKED_BY_THE_FIRST = "01537e9070a3b20700"


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.text(alphabet="ab\0{}"))
def test_every_text_comes_back_with_the_context_it_had(text: str, context: str) -> None:
    assert unpack(pack(text, context), context) == text


@given(JSON)
def test_times_in_json_come_back_to_the_millisecond(value: object) -> None:
    for text in (json.dumps(value), json.dumps(value, separators=(",", ":"), ensure_ascii=False)):
        assert absolute(relative(text, NOW_MS), NOW_MS) == text


@pytest.mark.parametrize(
    "text", ['{"a":":1800000000001,"}', '{"a":0123456789012}', '{"a":[1800000000001]}', '"\\u00015"']
)
def test_what_only_looks_like_a_time_comes_back_too(text: str) -> None:
    assert absolute(relative(text, NOW_MS), NOW_MS) == text


def test_an_ordinary_row_is_small() -> None:
    assert len(pack(relative(ROW, NOW_MS))) < 20 < len(ROW) / 4


@pytest.mark.parametrize("context", ["", "before it"])
def test_no_flipped_bit_is_taken_for_another_text(context: str) -> None:
    packed = pack(ROW, context)
    for at in range(8 * len(packed)):
        damaged = bytearray(packed)
        damaged[at // 8] ^= 1 << at % 8
        assert _read(bytes(damaged), context) in {None, ROW}, "the last byte may have bits that say nothing"
    for length in range(len(packed)):
        assert _read(packed[:length], context) is None
    assert _read(packed + b"x", context) is None


def _read(packed: bytes, context: str) -> str | None:
    try:
        return unpack(packed, context)
    except ValueError:
        return None


@given(st.binary())
def test_what_is_sealed_is_opened_with_its_key_and_its_name_only(data: bytes) -> None:
    key = new_key()
    sealed = seal(key, "reply 7", data)
    assert unseal(key, "reply 7", sealed) == data
    if len(data) > 8:
        assert sealed != data
        assert unseal(key, "reply 8", sealed) != data
        assert unseal(new_key(), "reply 7", sealed) != data
