"""Errors → gRPC status codes, in one table, with google.rpc.ErrorInfo for programs."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
import structlog
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from holdpay import errors

MAX_REQUEST_BYTES = 64 * 1024

log = structlog.get_logger(__name__)

_CODES: tuple[tuple[type[errors.HoldpayError], grpc.StatusCode], ...] = (
    (errors.OrderNotFound, grpc.StatusCode.NOT_FOUND),
    (errors.OrderUnreadable, grpc.StatusCode.DATA_LOSS),
    (errors.KeyTaken, grpc.StatusCode.ALREADY_EXISTS),
    (errors.OutOfStock, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.BalanceTooLow, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.PriceTooHigh, grpc.StatusCode.OUT_OF_RANGE),
    (errors.LimitExceeded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.NotAllowed, grpc.StatusCode.PERMISSION_DENIED),
    (errors.TooManyStreams, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NotReady, grpc.StatusCode.UNAVAILABLE),
    (errors.NotPayable, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.ProviderKeyMissing, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.ProviderError, grpc.StatusCode.UNAVAILABLE),
    (errors.LndError, grpc.StatusCode.UNAVAILABLE),
    (errors.StoreError, grpc.StatusCode.UNAVAILABLE),
)

Context = grpc.aio.ServicerContext[Any, Any]
S = TypeVar("S")
R = TypeVar("R")
A = TypeVar("A")


def code_of(error: errors.HoldpayError) -> grpc.StatusCode:
    """The status of an error; INTERNAL for a contradiction of our own."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


DETAILS = "grpc-status-details-bin"
"""Trailing metadata with a google.rpc.Status, where every gRPC library looks for what goes beyond code and message."""
DOMAIN = "holdpay"


def details_of(error: errors.HoldpayError) -> bytes:
    """``error`` as a google.rpc.Status with one ErrorInfo."""
    status = status_pb2.Status(code=code_of(error).value[0], message=error.message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))
    return bytes(status.SerializeToString())


def _check_size(request: object) -> None:
    """Raises InvalidRequest."""
    if isinstance(request, Message) and request.ByteSize() > MAX_REQUEST_BYTES:
        raise errors.InvalidRequest(
            f"The request has {request.ByteSize():,} bytes, and {MAX_REQUEST_BYTES:,} are the most. Nothing was done;"
            " give less."
        )


async def _abort(context: Context, error: Exception) -> None:
    if isinstance(error, errors.StoreError | errors.InvariantViolation):
        # Without details: it is not known what became of the request. A broken transport knows no details either.
        await context.abort(code_of(error), error.message)
    if isinstance(error, errors.HoldpayError):
        await context.abort(code_of(error), error.message, ((DETAILS, details_of(error)),))
    log.error("a request failed", exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, "holdpayd has a defect here. Its log says more; please report it.")


def unary(method: Callable[[S, R, Context], Awaitable[A]]) -> Callable[[S, R, Context], Awaitable[A]]:
    """Turns what a method raises into a status."""

    @functools.wraps(method)
    async def guarded(self: S, request: R, context: Context) -> A:
        try:
            _check_size(request)
            return await method(self, request, context)
        except Exception as error:
            await _abort(context, error)
            raise

    return guarded


def stream(
    method: Callable[[S, R, Context], AsyncGenerator[A, None]],
) -> Callable[[S, R, Context], AsyncGenerator[A, None]]:
    """The same for a method that streams."""

    @functools.wraps(method)
    async def guarded(self: S, request: R, context: Context) -> AsyncGenerator[A, None]:
        try:
            _check_size(request)
            async for message in method(self, request, context):
                yield message
        except Exception as error:  # noqa: BLE001 - this is the edge
            await _abort(context, error)

    return guarded
