from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc import aio

from holdpay._pb.lnd.stateservice_pb2 import GetStateRequest
from holdpay._pb.lnd.stateservice_pb2_grpc import StateStub
from holdpay.errors import LndDenied, LndRefused, LndUnavailable
from holdpay.lnd.failures import Failure, FailureKind, explain, failure_of, is_own_cancel, read_failure, to_error
from tests.unit.certificates import dated_certificate

CODE = grpc.StatusCode

# Seen on real nodes (lnd 0.18.5, 0.20 and 0.21) and with grpcio 1.85.
ANSWERS = [
    (CODE.UNKNOWN, "wallet locked, unlock it to enable full RPC access", FailureKind.LOCKED),
    (CODE.UNKNOWN, "wallet not created, create one to enable full RPC access", FailureKind.NO_WALLET),
    (CODE.UNKNOWN, "waiting to start, RPC services not available", FailureKind.STARTING),
    (
        CODE.UNKNOWN,
        "the RPC server is in the process of starting up, but not yet ready to accept calls",
        FailureKind.STARTING,
    ),
    (CODE.UNKNOWN, "server is still in the process of starting", FailureKind.STARTING),
    (CODE.UNKNOWN, "routerrpc server shutting down", FailureKind.STOPPING),
    (CODE.UNKNOWN, "Stream removed", FailureKind.UNREACHABLE),
    (CODE.UNAVAILABLE, "Stream removed (Socket closed)", FailureKind.UNREACHABLE),
    (CODE.UNAVAILABLE, "Failed to connect to remote host: Connection refused", FailureKind.UNREACHABLE),
    (CODE.UNAVAILABLE, "OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: self signed certificate", FailureKind.UNTRUSTED),
    (CODE.UNAVAILABLE, "UNAUTHENTICATED: Hostname Verification Check failed.", FailureKind.UNTRUSTED),
    (CODE.PERMISSION_DENIED, "Received http2 header with status: 403", FailureKind.WALLED),
    (CODE.UNAUTHENTICATED, "Received http2 header with status: 401", FailureKind.WALLED),
    (CODE.UNIMPLEMENTED, "Received http2 header with status: 404", FailureKind.WALLED),
    (CODE.UNAVAILABLE, "Received http2 header with status: 502", FailureKind.UNREACHABLE),
    (CODE.UNAVAILABLE, "Cannot check peer: missing selected ALPN property.", FailureKind.WALLED),
    (CODE.DEADLINE_EXCEEDED, "Deadline Exceeded", FailureKind.SLOW),
    (CODE.CANCELLED, "context canceled", FailureKind.UNREACHABLE),
    (CODE.INTERNAL, "Received RST_STREAM with error code 2", FailureKind.UNREACHABLE),
    (CODE.UNKNOWN, "permission denied", FailureKind.DENIED),
    (CODE.UNKNOWN, "expected 1 macaroon, got 0", FailureKind.DENIED),
    (CODE.UNKNOWN, "cannot determine data format of binary-encoded macaroon", FailureKind.DENIED),
    (
        CODE.UNKNOWN,
        "cannot retrieve macaroon: cannot get macaroon: root key with id 7 doesn't exist",
        FailureKind.DENIED,
    ),
    (CODE.UNKNOWN, "verification failed: signature mismatch after caveat verification", FailureKind.DENIED),
    (CODE.NOT_FOUND, "payment isn't initiated", FailureKind.NOT_FOUND),
    (CODE.ALREADY_EXISTS, "payment is in transition", FailureKind.EXISTS),
    (CODE.ALREADY_EXISTS, "invoice is already paid", FailureKind.EXISTS),
    (CODE.UNKNOWN, "invoice expired. Valid until 2026-11-22 04:59:01 +0000 UTC", FailureKind.REFUSED),
    (CODE.UNKNOWN, "cltv limit 20 should be greater than 83", FailureKind.REFUSED),
    (CODE.UNKNOWN, "checksum failed. Expected k6p6gt, got k6pqqq.", FailureKind.REFUSED),
    (CODE.UNIMPLEMENTED, "unknown service routerrpc.Router", FailureKind.REFUSED),
]


@pytest.mark.parametrize(("code", "text", "kind"), ANSWERS)
def test_an_error_of_lnd_is_told_by_code_and_text(code: grpc.StatusCode, text: str, kind: FailureKind) -> None:
    assert read_failure(code, text) == Failure(kind, text)


def test_grpcs_words_before_the_reason_are_left_out() -> None:
    text = (
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1:"
        " Failed to connect to remote host: Connection refused"
    )
    assert read_failure(CODE.UNAVAILABLE, text).text == "Failed to connect to remote host: Connection refused"


def test_a_long_text_is_cut_and_an_empty_one_replaced() -> None:
    assert len(read_failure(CODE.UNKNOWN, "x" * 10_000).text) == 300
    assert read_failure(CODE.UNAVAILABLE, "").text == "UNAVAILABLE"


def test_of_a_foreign_exception_only_the_type_is_told() -> None:
    assert failure_of(ValueError("metadata was invalid: macaroon 0201036c6e64")).text == "ValueError"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (FailureKind.LOCKED, LndUnavailable),
        (FailureKind.UNREACHABLE, LndUnavailable),
        (FailureKind.SLOW, LndUnavailable),
        (FailureKind.DENIED, LndDenied),
        (FailureKind.REFUSED, LndRefused),
        (FailureKind.NOT_FOUND, LndRefused),
    ],
)
def test_a_failed_call_raises_the_error_of_its_kind(kind: FailureKind, error: type[Exception]) -> None:
    assert type(to_error(Failure(kind, "text"), "127.0.0.1:10009")) is error


def test_a_refusal_is_told_in_lnds_own_words() -> None:
    assert to_error(Failure(FailureKind.REFUSED, "checksum failed"), "h:1").message == "checksum failed"


@pytest.mark.parametrize("kind", FailureKind)
def test_every_failure_says_what_happened_and_what_to_do(kind: FailureKind) -> None:
    text = explain(Failure(kind, "text {braces}"), "127.0.0.1:10009")
    assert text.count(". ") >= 1
    assert text.endswith(".")


@pytest.mark.parametrize(
    ("days", "words", "advice"),
    [
        ((-10, -1), "has expired", "Restart lnd: it makes a new one; if lnd.tls_cert names a copy, copy it again."),
        ((1, 10), "is not valid yet", "Set the clocks of this machine and of lnd's"),
    ],
)
async def test_a_certificate_outside_its_dates_gets_the_advice_that_mends_it(
    days: tuple[int, int], words: str, advice: str
) -> None:
    """In the words of gRPC itself."""
    key, certificate = dated_certificate(*days)
    server = aio.server()
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, certificate)]))
    await server.start()
    try:
        async with aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(certificate)) as channel:
            with pytest.raises(aio.AioRpcError) as caught:
                await StateStub(channel).GetState(GetStateRequest())
    finally:
        await server.stop(0)
    failure = failure_of(caught.value)
    assert failure.kind is FailureKind.UNTRUSTED, "lnd's renewed certificate is read again after this kind"
    text = explain(failure, "h:1")
    assert text.startswith(f"The certificate of lnd at h:1 {words}")
    assert advice in text


def test_a_login_page_before_lnd_is_not_blamed_on_the_macaroon() -> None:
    failure = read_failure(CODE.PERMISSION_DENIED, "Received http2 header with status: 403")
    assert not failure.is_answer, "lnd has judged nothing"
    text = explain(failure, "h:1")
    assert "macaroon" not in text
    assert "let the proxy pass gRPC" in text


async def test_a_cancel_of_the_task_is_its_own() -> None:
    seen: list[bool] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            seen.append(is_own_cancel(error))
            raise

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert seen == [True]


async def test_a_cancelled_error_that_nobody_asked_for_is_not_the_tasks_own() -> None:
    assert not is_own_cancel(asyncio.CancelledError())
