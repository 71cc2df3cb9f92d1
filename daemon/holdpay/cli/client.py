"""The connection to the daemon, and what its answers mean for the exit code. Imports grpc: import this module late."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeVar
from urllib.parse import quote

# gRPC's C core writes to stderr unless told not to before its import.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay._pb.v1.holdpay_pb2_grpc import HoldpayStub
from holdpay.cli.exit_codes import ExitCode, of_refusal
from holdpay.cli.failure import Failure, Unreachable
from holdpay.cli.sockets import check_socket

if TYPE_CHECKING:
    from google.rpc.error_details_pb2 import ErrorInfo

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 45.0
"""For one question. The catalog asks the provider, who may be slow and far (Tor)."""

DETAILS = "grpc-status-details-bin"
"""Trailing metadata with a google.rpc.Status, of a status that the daemon chose itself. A broken transport says
UNAVAILABLE or CANCELLED too: its ErrorInfo alone tells "not now, nothing was ordered" from "the answer was lost"."""
DOMAIN = "holdpay"

HEALTH_CHECK = "/grpc.health.v1.Health/Check"
"""Of the standard health service, whose empty request is zero bytes."""

_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a new channel must not inherit the backoff of the one before
    ("grpc.primary_user_agent", "holdpay-cli"),
)

_Request = TypeVar("_Request", contravariant=True)
_Reply = TypeVar("_Reply", covariant=True)


class Method(Protocol[_Request, _Reply]):
    """A unary call of the stub."""

    def __call__(self, request: _Request, *, timeout: float) -> _Reply: ...


class Client:
    """One channel to the daemon, usable in a `with` block."""

    def __init__(self, path: str, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        """Connects. Raises Unreachable: then nothing was sent."""
        check_socket(path, connect_timeout_s)
        self.path = path
        self._channel = grpc.insecure_channel(f"unix:{quote(path)}", options=_OPTIONS)
        self.stub = HoldpayStub(self._channel)
        try:
            self._greet(connect_timeout_s)
        except BaseException:
            self._channel.close()
            raise

    def _greet(self, timeout_s: float) -> None:
        """Any answer will do, be it that there is no such service: from now on a lost call may have been received.

        channel_ready_future would tell too, but its poller holds up the closing of the channel by 0.2 s.
        """
        try:
            check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(HEALTH_CHECK)
            check(b"", timeout=timeout_s)
        except grpc.RpcError as error:
            if is_lost(error):
                check_socket(self.path, timeout_s)  # it may have gone away since
                raise Unreachable(
                    f"What answers at {self.path} is not holdpayd, or it hangs ({details(error)}). "
                    "See its log (journalctl -u holdpayd), or give another --socket."
                ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.close()

    def ask(self, method: Method[_Request, _Reply], request: _Request, timeout_s: float = ANSWER_TIMEOUT_S) -> _Reply:
        """One question and its answer. Raises Failure with the daemon's own sentence and the exit code for it."""
        try:
            return method(request, timeout=timeout_s)
        except grpc.RpcError as error:
            if is_lost(error):
                raise Unreachable(
                    f"The daemon at {self.path} did not answer ({details(error)}). Ask again, or see `holdpay status`."
                ) from error
            raise refusal(error) from error

    def get_request(self, request_id: str) -> pb.Request:
        return self.ask(self.stub.GetRequest, pb.GetRequestRequest(request_id=request_id))

    def items(self, request_id: str, after_seq: int) -> Iterator[pb.Item]:
        """All that was delivered after this one, page by page."""
        while True:
            asked = pb.ListItemsRequest(request_id=request_id, after_seq=after_seq)
            page = self.ask(self.stub.ListItems, asked)
            yield from page.items
            if not page.more:
                return
            after_seq = page.items[-1].seq


def is_lost(error: grpc.RpcError) -> bool:
    """Whether this says nothing about what the daemon did: the connection or the time ended."""
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return True
    return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) and _error_info(error) is None


def _error_info(error: grpc.RpcError) -> ErrorInfo | None:
    """What the daemon says for programs; None: it is not the daemon that spoke."""
    for entry in error.trailing_metadata() or ():
        if entry.key != DETAILS:
            continue
        from google.rpc import error_details_pb2, status_pb2

        for detail in status_pb2.Status.FromString(entry.value).details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info) and info.domain == DOMAIN:
                return info
    return None


def details(error: grpc.RpcError) -> str:
    return (error.details() or error.code().name).strip().rstrip(".")


def refusal(error: grpc.RpcError) -> Failure:
    """The daemon's own words, and what they mean on this command line."""
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return Failure(
            "The daemon does not know this call: it is older than this command. Upgrade it and restart it "
            "(systemctl restart holdpayd).",
            ExitCode.UNEXPECTED,
        )
    said = error.details() or f"The daemon said {error.code().name}."
    info = _error_info(error)
    advice = "" if info is None else _advice(info)
    reason, cause = ("", "") if info is None else (info.reason, info.metadata.get("cause", ""))
    return Failure(f"{said} {advice}".rstrip(), of_refusal(error.code().name, reason, cause))


def refusal_code(refused: pb.Refusal) -> ExitCode:
    """The exit code for a refusal that would come."""
    status = next((code.name for code in grpc.StatusCode if code.value[0] == refused.status_code), "")
    return of_refusal(status, refused.reason, refused.metadata.get("cause", ""))


_ADVICE = {
    "OUT_OF_STOCK": "--force orders all the same.",
    "NOT_PAYABLE": "--force orders all the same; --dry-run shows every rule.",
    "ORDER_NOT_FOUND": "`holdpay orders list` shows them all.",
    "BALANCE_TOO_LOW": "`holdpay account fund AMOUNT` does; without --prepaid your node pays.",
    "KEY_TAKEN": "Leave --key away to have one made up.",
    "PRICE_UNKNOWN": "Say so with --max-price.",
    "UNKNOWN_COUNTRY": "`holdpay countries` lists them all.",
    "UNKNOWN_SERVICE": "`holdpay services COUNTRY` lists them all.",
}
_OPTIONS_OF = {
    "max_price_sat": "--max-price",
    "max_fee_sat": "--max-fee",
    "idempotency_key": "--key",
    "weeks": "--weeks",
    "ref": "--ref",
    "webhook_url": "--webhook-url",
    "page_token": "--page",
    "after_cursor": "--after",
}
"""Fields of requests, as this command names them."""


def _advice(info: ErrorInfo) -> str:
    """What to do about a refusal in the terms of this command line. Empty: the daemon's words say it all."""
    if info.reason == "PRICE_TOO_HIGH" and info.metadata.get("limit") == "max_price_sat":
        return "--max-price allows more."
    if info.reason in _ADVICE:
        return _ADVICE[info.reason]
    option = _OPTIONS_OF.get(info.metadata.get("field", ""))
    return "" if option is None else f"The option is {option}."
