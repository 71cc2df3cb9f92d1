"""The kinds of requests on the command line: what each is called here, what it prints, and what can be waited for.

A new kind is one line in ``KINDS`` and one command. Imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from holdpay.cli import render

if TYPE_CHECKING:
    from holdpay._pb.v1 import holdpay_pb2 as pb


class Until(StrEnum):
    """What ends the wait."""

    ACCEPTED = "accepted"
    NUMBER = "number"
    CODE = "code"
    SENT = "sent"
    SETTLED = "settled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """``thing``: what comes. ``untils``: what can be waited for; first what it is for. ``answer``: printed when it
    came; None: what comes is a text itself. ``more``: what may come after it, and the command that shows it."""

    name: str
    thing: str
    came: str
    untils: tuple[Until, ...]
    answer: str | None = None
    more: str = ""


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            name="code",
            thing="the code",
            came="the code arrived",
            untils=(Until.CODE, Until.NUMBER, Until.SETTLED),
        ),
        Kind(
            name="rental",
            thing="the number",
            came="the number came",
            untils=(Until.NUMBER, Until.SETTLED),
            more="It stays open until the rental ends. Read what comes to it with: holdpay rent messages {id} --follow",
        ),
        Kind(
            name="sms",
            thing="the SMS",
            came="the SMS was sent",
            untils=(Until.SENT, Until.SETTLED),
            answer="sent",
            more="It stays open: whether it was delivered is told later. See with: holdpay orders show {id}",
        ),
        Kind(
            name="email",
            thing="the e-mail",
            came="the e-mail was sent",
            untils=(Until.SENT, Until.SETTLED),
            answer="sent",
            more="It stays open: whether it was delivered is told later. See with: holdpay orders show {id}",
        ),
        Kind(
            name="fund",
            thing="the credit",
            came="the credit came",
            untils=(Until.SETTLED,),
            answer="funded",
        ),
        Kind(
            name="unknown",
            thing="what was ordered",
            came="it was settled",
            untils=(Until.SETTLED,),
            answer="settled",
            more="It stays open for a while: more may come. See with: holdpay orders show {id}",
        ),
    )
}
_NEWER = Kind(name="?", thing="what was ordered", came="what was ordered came", untils=(Until.SETTLED,), answer="done")
"""Of a daemon that is newer than this command."""


LACKS_ZEROS = "came as a number: zeros at its beginning may be missing"
"""Of an item with may_lack_zeros."""


def kind_number(name: str) -> pb.Kind.ValueType:
    """As the interface counts them. "" is any."""
    from holdpay._pb.v1 import holdpay_pb2 as pb

    return pb.Kind.Value(f"KIND_{name.upper() or 'UNSPECIFIED'}")


def kind_of(request: pb.Request) -> Kind:
    return KINDS.get(render.enum_text(request, "kind") or "", _NEWER)


def order_of(request: pb.Request) -> pb.Order:
    """The latest at the provider."""
    return request.orders[-1]


def texts(request: pb.Request, kind: str) -> list[str]:
    """Of the items of a kind ("number", "code", "message", "sending", "unread"), oldest first."""
    return [item.text for item in request.items if render.enum_text(item, "kind") == kind]


def numbers_of(request: pb.Request) -> list[str]:
    """Those of its latest order: one of an earlier order receives nothing any more."""
    first_seq = order_of(request).items_from_seq
    return [item.text for item in request.items if item.seq >= first_seq and render.enum_text(item, "kind") == "number"]


def number_of(request: pb.Request) -> str | None:
    """The one that counts: the last."""
    numbers = numbers_of(request)
    return numbers[-1] if numbers else None


def code_of(request: pb.Request) -> str | None:
    """The one that counts: the first."""
    codes = texts(request, "code")
    return codes[0] if codes else None


def answer_of(request: pb.Request) -> str | None:
    """What was ordered, as it is printed. None: it is not here."""
    kind = kind_of(request)
    if kind.answer is not None:
        return kind.answer if request.fulfilled else None
    if kind.untils[0] is Until.NUMBER:
        number = number_of(request)
        return None if number is None else render.phone(number)
    return code_of(request)


def is_paid(request: pb.Request) -> bool:
    """The money is spent, and nothing will change that."""
    order = order_of(request)
    return render.enum_text(order, "htlc") == "settled" or render.enum_text(order, "charge") == "charged"


def brief(request: pb.Request) -> str:
    """What is bought, in a few words, for a table."""
    what = request.WhichOneof("understood")
    if what == "code":
        return f"{request.code.service_name or request.code.service}, {request.code.country}"
    if what == "rental":
        return f"{request.rental.service_name or request.rental.service}, {request.rental.country}"
    if what == "sms":
        return request.sms.phone or "(erased)"
    if what == "email":
        return request.email.address or "(erased)"
    return render.sat(request.fund.amount_sat) if what == "fund" else request.what
