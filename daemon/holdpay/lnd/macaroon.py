"""What a macaroon allows, read from the macaroon itself: nobody is asked, and no right is needed for it. Pure.

lnd bakes macaroons in the binary format 2 (gopkg.in/macaroon.v2, marshal-v2.go); their identifier is a version byte and
a MacaroonId (lnd: macaroons/service.go CheckMacAuth; gopkg.in/macaroon-bakery.v2, bakery/codec.go).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from google.protobuf.message import DecodeError

from holdpay._pb.lnd import lightning_pb2 as lnrpc

RIGHTS: Final = (
    "uri:/lnrpc.Lightning/GetInfo",
    "uri:/lnrpc.Lightning/DecodePayReq",
    "uri:/routerrpc.Router/SendPaymentV2",
    "uri:/routerrpc.Router/TrackPaymentV2",
    "uri:/routerrpc.Router/TrackPayments",
    "uri:/lnrpc.Lightning/ChannelBalance",
    "uri:/lnrpc.Lightning/ListChannels",
    "uri:/lnrpc.Lightning/PendingChannels",
    "uri:/lnrpc.Lightning/ListPayments",
    "uri:/lnrpc.Lightning/GetNodeInfo",
    "uri:/lnrpc.Lightning/QueryRoutes",
    "uri:/routerrpc.Router/SubscribeHtlcEvents",
)
"""What to bake, as systemd/macaroon-uris has it."""
BAKE: Final = "lncli bakemacaroon --save_to=holdpay.macaroon " + " ".join(RIGHTS)
BAKE_ANEW: Final = f"Bake another one with `{BAKE}`, put it in place of this one, and restart holdpayd."

PAYING: Final = ("GetInfo", "DecodePayReq", "SendPaymentV2", "TrackPaymentV2", "TrackPayments")
"""Without one of these methods no order can be paid."""

# What allows a method beside its own right. Of the two one is enough: lnd tries the method's own at last
# (lnd: macaroons/service.go, CheckMacAuth; the others: rpcserver.go MainRPCServerPermissions, router_server.go).
_BROAD: Final = {
    "GetInfo": ("info", "read"),
    "DecodePayReq": ("offchain", "read"),
    "SendPaymentV2": ("offchain", "write"),
    "TrackPaymentV2": ("offchain", "read"),
    "TrackPayments": ("offchain", "read"),
    "ChannelBalance": ("offchain", "read"),
    "ListChannels": ("offchain", "read"),
    "PendingChannels": ("offchain", "read"),
    "ListPayments": ("offchain", "read"),
    "GetNodeInfo": ("info", "read"),
    "QueryRoutes": ("info", "read"),
    "SubscribeHtlcEvents": ("offchain", "read"),
}

_FORMAT, _ID_VERSION = 2, 3
_END, _IDENTIFIER = 0, 2


def missing_methods(macaroon: bytes) -> tuple[str, ...]:
    """The methods that paying needs and that this macaroon surely does not allow.

    Empty also for a macaroon that is not in lnd's format: nothing is known of it. Its caveats may narrow it further.
    """
    return tuple(method for method in missing_rights(macaroon) or () if method in PAYING)


def missing_rights(macaroon: bytes) -> tuple[str, ...] | None:
    """The methods of ``RIGHTS`` that it surely does not allow. None: it is not in lnd's format, nothing is known."""
    allowed = _allowed(macaroon)
    if allowed is None:
        return None
    methods = {right.rpartition("/")[2]: ("uri", right.removeprefix("uri:")) for right in RIGHTS}
    return tuple(method for method, own in methods.items() if allowed.isdisjoint((own, _BROAD[method])))


def _allowed(macaroon: bytes) -> frozenset[tuple[str, str]] | None:
    identifier = _identifier(macaroon)
    if identifier[:1] != bytes([_ID_VERSION]):
        return None
    try:
        ops = lnrpc.MacaroonId.FromString(identifier[1:]).ops
    except DecodeError:
        return None
    # A bakery with a store of its own names a set of rights that only it knows.
    if not ops or any(op.entity.startswith("multi-") for op in ops):
        return None
    return frozenset((op.entity, action) for op in ops for action in op.actions)


def _identifier(macaroon: bytes) -> bytes:
    """Empty: there is none."""
    if macaroon[:1] != bytes([_FORMAT]):
        return b""
    return next((content for kind, content in _fields(macaroon[1:]) if kind == _IDENTIFIER), b"")


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Of the first section; its end, or what makes no sense, ends them."""
    while data:
        kind, data = _number(data)
        if kind == _END:
            return
        length, data = _number(data)
        if length > len(data):
            return
        yield kind, data[:length]
        data = data[length:]


def _number(data: bytes) -> tuple[int, bytes]:
    """A protobuf varint and what follows it."""
    value = 0
    for position, byte in enumerate(data[:5]):
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return value, data[position + 1 :]
    return 0, b""
