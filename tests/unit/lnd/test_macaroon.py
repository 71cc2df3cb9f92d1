"""What a macaroon says of itself; that a real lnd's says the same is in the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay.lnd.macaroon import RIGHTS, missing_methods, missing_rights
from holdpay.sandbox.macaroon import MacaroonOven

ROOT = Path(__file__).parents[3]
METHODS = [right.removeprefix("uri:") for right in RIGHTS]


def baked(folder: Path, methods: list[str] | None) -> bytes:
    return bytes.fromhex(MacaroonOven().bake(folder / "baked.macaroon", methods))


def of_rights(**rights: list[str]) -> bytes:
    """In lnd's format, as far as it is read."""
    ops = [lnrpc.Op(entity=entity, actions=actions) for entity, actions in rights.items()]
    identifier = b"\x03" + lnrpc.MacaroonId(nonce=b"n" * 16, storageId=b"0", ops=ops).SerializeToString()
    return b"\x02\x01\x03lnd\x02" + bytes([len(identifier)]) + identifier + b"\0\0\x06\x20" + bytes(32)


def test_the_rights_are_those_of_the_documented_line() -> None:
    lines = (ROOT / "systemd" / "macaroon-uris").read_text().splitlines()
    assert tuple(line for line in lines if not line.startswith("#")) == RIGHTS


@pytest.mark.parametrize("methods", [None, METHODS, METHODS[:5]])
def test_a_macaroon_that_can_pay_misses_nothing(tmp_path: Path, methods: list[str] | None) -> None:
    assert missing_methods(baked(tmp_path, methods)) == ()


def test_each_method_that_paying_needs_is_missed(tmp_path: Path) -> None:
    assert missing_methods(baked(tmp_path, METHODS[:2])) == ("SendPaymentV2", "TrackPaymentV2", "TrackPayments")
    assert missing_methods(baked(tmp_path, METHODS[5:])) == (
        "GetInfo",
        "DecodePayReq",
        "SendPaymentV2",
        "TrackPaymentV2",
        "TrackPayments",
    )


def test_lnds_broad_rights_count_too() -> None:
    assert missing_methods(of_rights(info=["read"], offchain=["read", "write"])) == ()
    assert missing_methods(of_rights(info=["read"], offchain=["read"])) == ("SendPaymentV2",)


def test_each_documented_right_that_is_not_there_is_missed_also_one_that_paying_can_do_without(tmp_path: Path) -> None:
    for method in METHODS:
        others = [other for other in METHODS if other != method]
        assert missing_rights(baked(tmp_path, others)) == (method.rpartition("/")[2],)
    assert missing_rights(of_rights(info=["read"], offchain=["read"])) == ("SendPaymentV2",)
    assert missing_rights(of_rights(offchain=["read", "write"])) == ("GetInfo", "GetNodeInfo", "QueryRoutes")
    assert missing_rights(b"MDAxY2xvY2F0aW9u") is None


@pytest.mark.parametrize(
    "foreign",
    [b"", b"\x02", b"\x02\x02\x7f", b"\x02" + bytes(range(200)), b"MDAxY2xvY2F0aW9u", b"\x02\x02\x03\x03\xff\xff\0"],
)
def test_of_a_macaroon_in_another_format_nothing_is_said(foreign: bytes) -> None:
    assert missing_methods(foreign) == ()


def test_rights_that_only_the_bakery_can_look_up_are_not_judged() -> None:
    assert missing_methods(of_rights(**{"multi-abc": ["*"]})) == ()


def test_a_macaroon_cut_anywhere_is_read_without_an_error(tmp_path: Path) -> None:
    whole = baked(tmp_path, METHODS)
    for length in range(len(whole)):
        missing_methods(whole[:length])


@pytest.mark.parametrize("length", [100, 127, 128, 129, 16_383, 16_384])
def test_an_identifier_of_any_length_is_read(length: int) -> None:
    """Its length is a varint: from 128 on it takes two bytes, from 16,384 on three."""
    ops = [lnrpc.Op(entity="offchain", actions=["read"])]
    bare = len(lnrpc.MacaroonId(nonce=b"", storageId=b"0", ops=ops).SerializeToString()) + 1
    for padding in range(length - bare, 0, -1):
        identifier = b"\x03" + lnrpc.MacaroonId(nonce=bytes(padding), storageId=b"0", ops=ops).SerializeToString()
        if len(identifier) <= length:
            break
    assert len(identifier) == length
    said, number = b"", length
    while number >= 0x80:
        said, number = said + bytes([number & 0x7F | 0x80]), number >> 7
    head = b"\x02\x01\x03lnd\x02" + said + bytes([number]) + identifier
    missing = ("GetInfo", "SendPaymentV2")
    assert missing_methods(head + b"\0\0\x06\x20" + bytes(32)) == missing
    assert missing_methods(head) == missing, "what follows it does not matter"
