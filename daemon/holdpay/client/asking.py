"""What the methods of both clients ask for, as protobuf messages."""

from __future__ import annotations

import os
from typing import Final, TypedDict
from urllib.parse import quote

from holdpay._pb.v1 import holdpay_pb2 as pb

SYSTEM_SOCKET: Final = "/run/holdpay/holdpay.sock"
WAIT_S: Final = 25 * 60.0
"""Longer than the provider's promise."""
ANSWER_S: Final = 45.0
OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.primary_user_agent", "holdpay-python"),
)


class Terms(TypedDict, total=False):
    """What every purchase may say. Without a ``key`` one is made up; with one of your own a program that crashed asks
    again, and orders nothing twice. Limits are in sat; without them the daemon's count. ``prepaid``: from the account
    at the provider. ``force``: also if the provider shows no stock."""

    key: str
    max_price_sat: int
    max_fee_sat: int
    prepaid: bool
    force: bool


def submitting(terms: Terms) -> pb.SubmitRequest:
    """A request of nothing yet: its spec is to be filled in."""
    return pb.SubmitRequest(
        idempotency_key=terms.get("key", f"py-{os.urandom(12).hex()}"),
        max_price_sat=terms.get("max_price_sat"),
        max_fee_sat=terms.get("max_fee_sat"),
        prepaid=terms.get("prepaid", False),
        force=terms.get("force", False),
    )


def code(country: str, service: str, real_phone: bool, terms: Terms) -> pb.SubmitRequest:
    """An activation code. ``country``: one, several with commas between them, or "any"."""
    asked = submitting(terms)
    countries = [name.strip() for name in country.split(",")]
    asked.code.CopyFrom(pb.CodeSpec(countries=countries, service=service, real_phone=real_phone))
    return asked


def rental(country: str, service: str | None, weeks: int | None, terms: Terms) -> pb.SubmitRequest:
    """A number for some weeks."""
    asked = submitting(terms)
    asked.rental.CopyFrom(pb.RentalSpec(country=country, service=service, weeks=weeks))
    return asked


def sms(phone: str, text: str, country: str | None, terms: Terms) -> pb.SubmitRequest:
    """An SMS that the provider sends."""
    asked = submitting(terms)
    asked.sms.CopyFrom(pb.SmsSpec(phone=phone, message=text, country=country))
    return asked


def email(address: str, text: str, terms: Terms) -> pb.SubmitRequest:
    """An e-mail that the provider sends."""
    asked = submitting(terms)
    asked.email.CopyFrom(pb.EmailSpec(address=address, message=text))
    return asked


def fund(amount_sat: int, terms: Terms) -> pb.SubmitRequest:
    """Money for the account at the provider."""
    asked = submitting(terms)
    asked.fund.CopyFrom(pb.FundSpec(amount_sat=amount_sat))
    return asked


def target(socket: str | os.PathLike[str] | None) -> str:
    """gRPC's name for a socket: the one given, HOLDPAY_SOCKET, the system's, or the user's own."""
    if socket is None:
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        own = f"{runtime}/holdpay/holdpay.sock" if runtime else SYSTEM_SOCKET
        system = SYSTEM_SOCKET if os.path.exists(SYSTEM_SOCKET) else own  # noqa: PTH110 - no pathlib for one look
        socket = os.environ.get("HOLDPAY_SOCKET") or system
    return f"unix:{quote(os.path.abspath(os.fspath(socket)))}"  # noqa: PTH100


def by(request_id: str, key: str | None) -> pb.GetRequestRequest:
    """One of both."""
    return pb.GetRequestRequest(request_id=request_id) if key is None else pb.GetRequestRequest(idempotency_key=key)
