"""What can go wrong, as a program wants to tell it apart: by ``reason``, the ErrorInfo of holdpay.proto."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from google.rpc import error_details_pb2, status_pb2

from holdpay.client.types import Request

DETAILS = "grpc-status-details-bin"
DOMAIN = "holdpay"
_SILENT = frozenset({"UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED"})


class HoldpayClientError(Exception):
    """All that this package raises."""


class Unreachable(HoldpayClientError):
    """No daemon answers at the socket, and nothing was asked of one, or nothing that orders."""


class TimedOut(HoldpayClientError):
    """The time that was given is over; the request goes on, if ``request_id`` is not empty. ``wait`` again."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        super().__init__(f"The time is over; request {request_id} goes on." if request_id else "The time is over.")


class EndedWithout(HoldpayClientError):
    """The request ended, and what was waited for did not come: ``request.end`` says how."""

    def __init__(self, request: Request) -> None:
        self.request = request
        super().__init__(f"Request {request.id} ended ({request.end}). {request.reason}".rstrip())


class Refused(HoldpayClientError):
    """The daemon said no, and recorded nothing. ``reason`` and ``metadata``: as holdpay.proto lists them."""

    def __init__(self, message: str, reason: str, metadata: Mapping[str, str]) -> None:
        self.reason = reason
        self.metadata = dict(metadata)
        super().__init__(message)


class InvalidRequest(Refused):
    """INVALID_REQUEST, UNKNOWN_COUNTRY, UNKNOWN_SERVICE: ask for something else; ``metadata["field"]`` says where."""


class NotFound(Refused):
    """ORDER_NOT_FOUND."""


class KeyTaken(Refused):
    """KEY_TAKEN: the key belongs to a request for something else."""


class PriceTooHigh(Refused):
    """PRICE_TOO_HIGH, PRICE_UNKNOWN."""


class OutOfStock(Refused):
    """OUT_OF_STOCK."""


class LimitReached(Refused):
    """LIMIT_REACHED: ``metadata["limit"]`` names it."""


class NotReady(Refused):
    """Not now: NOT_READY, and what begins with PROVIDER_ or LND_. Try again later."""


_BY_REASON: Mapping[str, type[Refused]] = {
    "INVALID_REQUEST": InvalidRequest,
    "UNKNOWN_COUNTRY": InvalidRequest,
    "UNKNOWN_SERVICE": InvalidRequest,
    "ORDER_NOT_FOUND": NotFound,
    "KEY_TAKEN": KeyTaken,
    "PRICE_TOO_HIGH": PriceTooHigh,
    "PRICE_UNKNOWN": PriceTooHigh,
    "OUT_OF_STOCK": OutOfStock,
    "LIMIT_REACHED": LimitReached,
    "NOT_READY": NotReady,
}


class RpcError(Protocol):
    """What gRPC raises, of both its interfaces."""

    def code(self) -> object: ...

    def details(self) -> str | None: ...

    def trailing_metadata(self) -> object: ...


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that failed. ``refusal`` None: the connection or the time ended, and what the daemon did is not known."""

    code: str
    words: str
    refusal: Refused | None

    @property
    def is_late(self) -> bool:
        return self.refusal is None and self.code == "DEADLINE_EXCEEDED"


def failure_of(error: RpcError) -> Failure:
    """Reads a gRPC error."""
    code: str = error.code().name  # type: ignore[attr-defined]
    words = (error.details() or code).strip()
    info = _error_info(error)
    if info is None and code in _SILENT:
        return Failure(code, words, None)
    if info is None:
        return Failure(code, words, Refused(words, code, {}))
    kind = _BY_REASON.get(info.reason)
    if kind is None:
        kind = NotReady if info.reason.startswith(("PROVIDER_UN", "LND_")) else Refused
    return Failure(code, words, kind(words, info.reason, info.metadata))


def _error_info(error: RpcError) -> error_details_pb2.ErrorInfo | None:
    entries = error.trailing_metadata() or ()
    for key, value in entries:  # type: ignore[attr-defined]
        if key != DETAILS:
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info) and info.domain == DOMAIN:
                return info
    return None
