"""What a program gets to see: requests as they are, and their updates."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, get_args

from holdpay._pb.v1 import holdpay_pb2 as pb

Until = Literal["number", "code", "message", "sent", "end"]
"""What is waited for: the number, the code, the first message to a rented number, that an SMS or e-mail was sent, or
the end of the request, whatever it is."""
UNTIL: tuple[Until, ...] = get_args(Until)


class Kind(StrEnum):
    """What is bought."""

    CODE = "code"
    RENTAL = "rental"
    SMS = "sms"
    EMAIL = "email"
    FUND = "fund"
    UNKNOWN = "unknown"


class End(StrEnum):
    """How a request ended; see End in holdpay.proto. UNKNOWN: a daemon newer than this client says something else."""

    FULFILLED = "fulfilled"
    FULFILLED_FREE = "fulfilled_free"
    REFUNDED = "refunded"
    CANCELED_UNPAID = "canceled_unpaid"
    INVOICE_REJECTED = "invoice_rejected"
    PROVIDER_REFUSED = "provider_refused"
    PAYMENT_FAILED = "payment_failed"
    CHARGED_UNFULFILLED = "charged_unfulfilled"
    OUTCOME_UNKNOWN = "outcome_unknown"
    NO_PLACE = "no_place"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that was delivered. ``kind``: "number", "code", "message", "sending", ... (the proto's ItemKind)."""

    seq: int
    kind: str
    text: str
    seen_at_ms: int


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it was at ``cursor``. ``message``: the protobuf message, with all that is not here."""

    id: str
    key: str
    kind: Kind
    what: str
    """In words: "an activation code for OpenAI in Germany"."""
    phase: str
    """Where it stands, in a few words for people."""
    items: tuple[Item, ...]
    is_over: bool
    end: End | None
    """None: it is open."""
    reason: str
    """One sentence why it ended, or what is wrong. Empty: nothing to say."""
    spent_msat: int
    locked_msat: int
    cursor: int
    message: pb.Request

    @property
    def number(self) -> str | None:
        """The latest of the latest order: the provider replaced those before it, and the number of an order that the
        request has gone on from receives nothing any more."""
        first_seq = self.message.orders[-1].items_from_seq if self.message.orders else 0
        numbers = [item.text for item in self.items if item.kind == "number" and item.seq >= first_seq]
        return numbers[-1] if numbers else None

    @property
    def code(self) -> str | None:
        """The first."""
        return next(iter(self.texts("code")), None)

    @property
    def messages(self) -> tuple[str, ...]:
        """To a rented number; the latest 512 KiB of them."""
        return self.texts("message")

    @property
    def sending(self) -> str | None:
        """How an SMS or e-mail goes: created, sent, delivered or failed."""
        return next(iter(self.texts("sending")[::-1]), None)

    def texts(self, kind: str) -> tuple[str, ...]:
        """Of the items of a kind, oldest first."""
        return tuple(item.text for item in self.items if item.kind == kind)

    def has(self, until: Until) -> bool:
        """Whether that is here."""
        match until:
            case "number":
                return self.number is not None
            case "code":
                return self.code is not None
            case "message":
                return bool(self.messages)
            case "sent":
                return self.sending in {"sent", "delivered"}
            case "end":
                return self.is_over


@dataclass(frozen=True, slots=True)
class Update:
    """What happened, and the request right after it. ``watch(after=cursor)`` goes on behind it."""

    cursor: int
    at_ms: int
    event: str
    """Past tense: "order_placed", "payment_reported", ..."""
    request: Request


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What becomes of the wish to cancel a request."""

    request: Request
    message: str
    """What happens with it, and when; for people."""
    is_too_late: bool
    """The wish changes nothing: the request was over before, or it is paid for and cannot be canceled any more."""


def request_of(message: pb.Request) -> Request:
    """From the daemon's words."""
    order = message.orders[-1] if message.orders else pb.Order()
    return Request(
        id=message.id,
        key=message.idempotency_key,
        kind=_kind(message.kind),
        what=message.what,
        phase=order.phase,
        items=tuple(_item(item) for item in message.items),
        is_over=message.terminal,
        end=_end(message.end),
        reason=message.reason,
        spent_msat=sum(each.spent_msat for each in message.orders),
        locked_msat=sum(each.locked_msat for each in message.orders),
        cursor=message.cursor,
        message=message,
    )


def update_of(message: pb.RequestUpdate) -> Update:
    """From the daemon's words."""
    return Update(message.cursor, message.at_ms, message.event, request_of(message.request))


def cancellation_of(message: pb.CancelRequestResponse) -> Cancellation:
    """From the daemon's words."""
    return Cancellation(request_of(message.request), message.message, message.too_late)


def _item(item: pb.Item) -> Item:
    return Item(item.seq, _name(pb.ItemKind, item.kind, "ITEM_KIND_", "unread"), item.text, item.seen_at_ms)


def _kind(kind: pb.Kind.ValueType) -> Kind:
    name = _name(pb.Kind, kind, "KIND_", "unknown")
    return Kind(name) if name in set(Kind) else Kind.UNKNOWN


def _end(end: pb.End.ValueType) -> End | None:
    if end == pb.END_UNSPECIFIED:
        return None
    name = _name(pb.End, end, "END_", "unknown")
    return End(name) if name in set(End) else End.UNKNOWN


def _name(enum: object, number: int, prefix: str, otherwise: str) -> str:
    """In lower case, without its prefix; what a newer daemon says has no name here."""
    try:
        name: str = enum.Name(number)  # type: ignore[attr-defined]
    except ValueError:
        return otherwise
    return name.removeprefix(prefix).lower()
