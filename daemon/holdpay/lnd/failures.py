"""What an RPC error of LND means. Most arrive as code UNKNOWN, so the text decides as much as the code does.

Texts: lnd rpcperms/interceptor.go, macaroons/service.go, server.go, lnrpc/routerrpc/router_server.go, and gRPC's core.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import grpc
from grpc import aio

from holdpay.errors import LndDenied, LndError, LndRefused, LndUnavailable
from holdpay.lnd.macaroon import BAKE_ANEW

TEXT_MAX_CHARS: Final = 300


class FailureKind(Enum):
    """What stands behind an error, as far as it changes what to do."""

    UNREACHABLE = auto()
    """No connection, or it broke: what was asked may or may not have arrived."""
    UNRESOLVED = auto()
    """The name of lnd.address is not known (now): nothing was asked."""
    UNTRUSTED = auto()
    """The TLS handshake failed: nothing was asked."""
    WALLED = auto()
    """Something that speaks HTTP and not lnd's gRPC answered: what was asked may or may not have arrived."""
    SLOW = auto()
    """The deadline passed."""
    LOCKED = auto()
    NO_WALLET = auto()
    STARTING = auto()
    STOPPING = auto()
    DENIED = auto()
    """The macaroon is not good (enough)."""
    NOT_FOUND = auto()
    EXISTS = auto()
    """LND has a payment of this hash, in flight or paid."""
    REFUSED = auto()
    """LND looked at the request and said no."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One error; ``text`` is LND's or gRPC's own, cut to size."""

    kind: FailureKind
    text: str

    @property
    def is_answer(self) -> bool:
        """Whether LND itself judged the request, so that the same request would get the same answer."""
        return self.kind in {FailureKind.DENIED, FailureKind.NOT_FOUND, FailureKind.EXISTS, FailureKind.REFUSED}

    @property
    def is_without_right(self) -> bool:
        """Whether the macaroon is good and does not allow the method: true of it for ever, unlike what else denies."""
        return self.kind is FailureKind.DENIED and _NO_RIGHT in self.text.lower()


_BY_CODE: Final = {
    grpc.StatusCode.DEADLINE_EXCEEDED: FailureKind.SLOW,
    grpc.StatusCode.NOT_FOUND: FailureKind.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: FailureKind.EXISTS,
    grpc.StatusCode.PERMISSION_DENIED: FailureKind.DENIED,
    grpc.StatusCode.UNAUTHENTICATED: FailureKind.DENIED,
    # LND uses none of these for an answer of its own; a dying server, a proxy and gRPC itself do.
    grpc.StatusCode.ABORTED: FailureKind.UNREACHABLE,
    grpc.StatusCode.CANCELLED: FailureKind.UNREACHABLE,
    grpc.StatusCode.DATA_LOSS: FailureKind.UNREACHABLE,
    grpc.StatusCode.INTERNAL: FailureKind.UNREACHABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: FailureKind.UNREACHABLE,
}

_NO_RIGHT: Final = "permission denied"

# Compared in lower case; the first that fits decides.
_BY_TEXT: Final = (
    ("wallet locked", FailureKind.LOCKED),
    ("wallet not created", FailureKind.NO_WALLET),
    ("waiting to start", FailureKind.STARTING),
    ("in the process of starting", FailureKind.STARTING),
    ("shutting down", FailureKind.STOPPING),
    ("stream removed", FailureKind.UNREACHABLE),
    ("context canceled", FailureKind.UNREACHABLE),
    ("context deadline exceeded", FailureKind.SLOW),
    (_NO_RIGHT, FailureKind.DENIED),
    ("verification failed", FailureKind.DENIED),
    ("macaroon", FailureKind.DENIED),
    ("payment isn't initiated", FailureKind.NOT_FOUND),
)

# What gRPC says before it says why it could not connect.
_CONNECT_PREFIX: Final = re.compile(r"^failed to connect to all addresses; last error: \w+: (\S+: )?")

_RESOLVER_TEXTS: Final = ("dns resolution failed", "errors resolving", "getaddrinfo")

_HANDSHAKE_TEXTS: Final = ("certificate", "verification check failed", "security handshaker")

# A page of a reverse proxy or a captive portal, whatever code gRPC makes of its status. A 5xx is its word that lnd, or
# the proxy itself, is away for now.
_WALL_TEXT: Final = re.compile(r"http2 header with status: [34]\d\d|missing selected alpn property")


def read_failure(code: grpc.StatusCode, text: str) -> Failure:
    """Makes sense of a status. What nobody knows counts as LND's refusal: it answered, and did not do it."""
    text = _CONNECT_PREFIX.sub("", " ".join(text.split()))[:TEXT_MAX_CHARS] or code.name
    lower = text.lower()
    if _WALL_TEXT.search(lower):
        return Failure(FailureKind.WALLED, text)
    if code is grpc.StatusCode.UNAVAILABLE:
        if any(part in lower for part in _RESOLVER_TEXTS):
            return Failure(FailureKind.UNRESOLVED, text)
        is_handshake = any(part in lower for part in _HANDSHAKE_TEXTS)
        return Failure(FailureKind.UNTRUSTED if is_handshake else FailureKind.UNREACHABLE, text)
    if code is grpc.StatusCode.UNKNOWN:
        return Failure(next((kind for part, kind in _BY_TEXT if part in lower), FailureKind.REFUSED), text)
    return Failure(_BY_CODE.get(code, FailureKind.REFUSED), text)


def failure_of(error: BaseException) -> Failure:
    """The same for whatever a call raised.

    Of an exception that is not gRPC's only the type is told: the macaroon is near, and could be in its text.
    """
    if isinstance(error, aio.AioRpcError):
        return read_failure(error.code(), error.details() or "")
    if isinstance(error, asyncio.CancelledError):
        return Failure(FailureKind.UNREACHABLE, "the connection was closed, or changed before lnd had answered")
    return Failure(FailureKind.UNREACHABLE, type(error).__name__)


def is_own_cancel(error: BaseException) -> bool:
    """Whether the running task itself is to end, so that ``error`` must go on.

    gRPC raises CancelledError in the readers of a channel that is closed, too: nobody cancelled the task then.
    """
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling() > 0)


class CallFailed(Exception):
    """A call ended with a failure. Stays inside this package."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.text)


def explain(failure: Failure, address: str) -> str:
    """One sentence what happened and one what to do next."""
    if failure.is_without_right:
        return f"lnd does not let this macaroon pay ({failure.text}). {BAKE_ANEW}"
    template = _EXPLANATIONS.get(failure.kind, "lnd refused the call ({text}). See lnd's log.")
    if failure.kind is FailureKind.UNTRUSTED:
        dated = (found for words, found in _OF_A_CERTIFICATES_DATES if words in failure.text.lower())
        template = next(dated, template)
    return template.format(address=address, text=failure.text)


_OF_A_CERTIFICATES_DATES: Final = (
    (
        "certificate has expired",
        (
            "The certificate of lnd at {address} has expired ({text}). Restart lnd: it makes a new one; if lnd.tls_cert"
            " names a copy, copy it again. If it has not expired, set this machine's clock (`timedatectl`)."
        ),
    ),
    (
        "certificate is not yet valid",
        (
            "The certificate of lnd at {address} is not valid yet ({text})."
            " Set the clocks of this machine and of lnd's (`timedatectl`)."
        ),
    ),
)

_EXPLANATIONS: Final = {
    FailureKind.UNREACHABLE: (
        "lnd at {address} does not answer ({text}). See that it runs and that lnd.address is right."
    ),
    FailureKind.UNRESOLVED: (
        "The name of lnd at {address} cannot be resolved ({text}). See that lnd.address is right and that DNS works."
    ),
    FailureKind.UNTRUSTED: (
        "The certificate of lnd at {address} was not accepted ({text})."
        " See that lnd.tls_cert is this node's tls.cert; if the address is none of its names, set lnd.tls_server_name."
    ),
    FailureKind.WALLED: (
        "Not lnd, but a web server or a proxy before it answers at {address} ({text}). Let lnd.address name lnd's gRPC"
        " listener (rpclisten, mostly port 10009), or let the proxy pass gRPC (HTTP/2) on without a login of its own."
    ),
    FailureKind.SLOW: "lnd at {address} took too long to answer ({text}). See lnd's log and its load.",
    FailureKind.LOCKED: "lnd's wallet is locked. Unlock it with `lncli unlock`.",
    FailureKind.NO_WALLET: "lnd has no wallet yet. Create one with `lncli create`.",
    FailureKind.STARTING: "lnd is starting ({text}). Wait a little; lnd's log says how far it is.",
    FailureKind.STOPPING: "lnd is shutting down ({text}). Start it again.",
    FailureKind.DENIED: (
        "lnd does not accept the macaroon ({text})."
        " `holdpayd bake-macaroon` bakes another, or prints the line for it; then restart holdpayd."
    ),
}


def to_error(failure: Failure, address: str) -> LndError:
    """The error of ours that a failed unary call raises."""
    message = explain(failure, address)
    if failure.kind is FailureKind.DENIED:
        return LndDenied(message)
    if failure.is_answer:
        return LndRefused(failure.text)
    return LndUnavailable(message)
